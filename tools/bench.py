"""Performance as ratios, measured side by side in one process: ``make bench``.

Variants take turns, round by round, so that a machine that slows down slows all of them. The tables
have the median of each variant in milliseconds of CPU time of this (one-threaded) process, and the
median of the ratios of neighbouring turns. The sections ``stacks`` and ``utilisation`` use the GPU
if there is one; there, time is wall-clock time. To run some sections only, name them: ``python
tools/bench.py stacks utilisation``.
"""

import dataclasses
import itertools
import statistics
import subprocess
import sys
import time
from functools import partial

import torch
from PIL import Image
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

import snipkit
from snipkit import data, masking, models, saliency, training
from snipkit.recipe import Recipe, learning_rate, optimiser_of
from snipkit.study import paths
from snipkit.study.report import mask_costs
from snipkit.study.sets import datasets
from snipkit.study.sets.vision import load_torchvision
from snipkit.study.train.recipes import RECIPES
from snipkit.study.train.stacking import train_stack


def now(device):
    """CPU seconds, which other processes hardly change.

    With a GPU: seconds of the clock, once the GPU has finished.
    """
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def take_turns(variants, rounds, device="cpu"):
    """The seconds of each turn of several callables, by name.

    They take turns, after a round that warms up.
    """
    times = {name: [] for name in variants}
    for turn in tqdm(range(rounds + 1), leave=False, disable=None):
        # Forth and back: the second profits from warm caches.
        for name in list(variants)[:: 1 if turn % 2 else -1]:
            start = now(device)
            variants[name]()
            if turn:
                times[name].append(now(device) - start)
    return times


def alternate(first, second, rounds):
    """CPU seconds of two callables, in turns: (median, median, median ratio first over second)."""
    times = take_turns({"first": first, "second": second}, rounds).values()
    return *map(statistics.median, times), statistics.median(a / b for a, b in zip(*times))


def report(what, measured, limit):
    first, second, ratio = measured
    print(
        f"| {what} | {1000 * first:.2f} | {1000 * second:.2f} | {ratio:.2f} | {limit:.2f} |",
        flush=True,
    )


def step(model, masks, batch):
    """One step of masked (or, with no masks, dense) training, as ``training.train`` does it, on a
    ready batch.
    """
    masking.apply_(model, masks)
    masked = [(p, mask.to(p)) for p, mask in masking.matched(model, masks)]
    recipe = Recipe(steps=10**6, lr=1e-6)
    optimiser = optimiser_of(model, recipe, dict(model.named_parameters()))

    def once():
        optimiser.zero_grad()
        cross_entropy(model(batch[0]), batch[1]).backward()
        masking.mask_gradients(masked)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(1, recipe)
        optimiser.step()

    return once


def plain_loop(name, images, steps):
    """As many steps of the same training in the shortest way.

    On ready batches, without curves or tests.
    """
    model, recipe = models.build(name), Recipe(steps=steps, lr=1e-4)
    optimiser = torch.optim.SGD(
        model.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, fused=True
    )
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    batches = [images[index] for index in order.split(recipe.batch_size)[:20]]

    def loop():
        model.train()
        for number in range(steps):
            inputs, labels = batches[number % len(batches)]
            optimiser.zero_grad()
            cross_entropy(model(inputs), labels).backward()
            optimiser.step()

    return loop


def forward_backward(model, batch):
    """The least that scoring needs: one pass forward and one back, to all parameters."""

    def once():
        model.zero_grad()
        cross_entropy(model(batch[0]), batch[1]).backward()

    return once


def several(function, times):
    return lambda: [function() for _ in range(times)]


def loader_epoch(name, folder):
    """The same training through torchvision's data set, transforms and a DataLoader."""
    vision = load_torchvision()
    steps = vision.transforms.ToTensor(), vision.transforms.Normalize((0.1307,), (0.3081,))
    digits = vision.datasets.MNIST(folder, train=True, transform=vision.transforms.Compose(steps))
    images = torch.utils.data.Subset(digits, range(54_000))
    model, recipe = models.build(name), Recipe(steps=540)

    def epoch():
        optimiser = optimiser_of(model, recipe, dict(model.named_parameters()))
        model.train()
        for inputs, labels in torch.utils.data.DataLoader(images, recipe.batch_size, shuffle=True):
            loss = cross_entropy(model(inputs), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    return epoch


def peak_memory(what):
    """Peak resident memory in MiB of a new process that draws WRN-22-8 and 32 images, and then does
    ``what``.
    """
    code = f"""
import pathlib, re, torch
from torch.nn.functional import cross_entropy
from snipkit import models, saliency
torch.set_num_threads(1)
model = models.build("wrn-22-8").to(memory_format=torch.channels_last)
x = torch.randn(32, 3, 32, 32).contiguous(memory_format=torch.channels_last)
y = torch.arange(32) % 10
{what}
status = pathlib.Path("/proc/self/status").read_text()
print(int(re.search("VmHWM:\\\\s+([0-9]+)", status)[1]) / 1024)
"""
    return float(
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout
    )


def large_networks():
    """The networks for CIFAR-10, on made-up images."""
    generator = torch.Generator().manual_seed(0)
    for name, size in (("vgg-d", 128), ("wrn-16-8", 32)):
        model = models.build(name).to(memory_format=torch.channels_last).eval()
        images = torch.randn(size, 3, 32, 32, generator=generator).contiguous(
            memory_format=torch.channels_last
        )
        batch = images, torch.arange(size) % 10
        floor = forward_backward(model, batch)
        scoring = alternate(partial(saliency.snip, model, batch), floor, 4)
        report(f"{name}: scoring over forward + backward, {size} images", scoring, 1.15)
        if name == "vgg-d":
            scores = saliency.snip(model, batch)
            selection = alternate(partial(masking.keep_top, scores, 0.95), floor, 4)
            report(f"{name}: selection over forward + backward", selection, 0.10)
            masks = masking.keep_top(scores, 0.95)
            dense = models.build(name).to(memory_format=torch.channels_last)
            model.train()
            masked = alternate(step(model, masks, batch), step(dense, {}, batch), 4)
            report(f"{name}: masked over dense step, {size} images", masked, 1.05)
    both = "model.eval(); cross_entropy(model(x), y).backward()"
    scoring, passes, neither = map(peak_memory, ("saliency.snip(model, (x, y))", both, ""))
    print(
        f"\nPeak memory with WRN-22-8 and 32 images: scoring {scoring:.0f} MiB, "
        f"forward + backward {passes:.0f} MiB, neither {neither:.0f} MiB."
    )


def stacks(device=None):
    """Networks trained as a stack against the same number trained one at a time."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    sizes, steps = ((1, 8, 64, 200), 540) if device == "cuda" else ((1, 8), 60)
    # Training is measured, not the tests.
    mnist = datasets.load("mnist", test_size=1, device=device)
    batch = data.sample(mnist.train, 100, torch.Generator().manual_seed(0))
    masks = snipkit.prune(models.build("lenet-300-100").to(device), batch, 0.95)

    def stack(size, recipe):
        networks = [models.build("lenet-300-100", seed=seed).to(device) for seed in range(size)]
        return networks, lambda: train_stack(
            networks, [masks] * size, [mnist] * size, recipe, seeds=range(size)
        )

    def alone(seed, recipe):
        network = models.build("lenet-300-100", seed=seed).to(device)
        return network, lambda: training.train(network, masks, mnist, recipe, seed=seed)

    # The same networks are trained on and on: they must not diverge.
    slow = Recipe(steps=steps, lr=1e-4)
    times = take_turns(
        {size: stack(size, slow)[1] for size in sizes} | {"alone": alone(0, slow)[1]}, 3, device
    )
    spent = {name: statistics.median(turns) for name, turns in times.items()}
    print(
        f"\nStacks of LeNet-300-100 on {device}, {steps} steps. "
        "One at a time takes the stack's size times the time "
        "of one network.\n"
    )
    print(
        "| networks | one at a time, ms a step of all | stack, ms a step of all "
        "| steps of all an hour | speed-up |"
    )
    print("| ---: | ---: | ---: | ---: | ---: |")
    for size in sizes:
        one, stacked = size * spent["alone"] / steps, spent[size] / steps
        rate = 3600 * size / stacked
        print(
            f"| {size} | {1000 * one:.2f} | {1000 * stacked:.2f} "
            f"| {rate:,.0f} | {one / stacked:.2f} |",
            flush=True,
        )
    recipe = Recipe(steps=100)
    together, train = stack(8, recipe)
    train()
    differences = []
    for seed, stacked in enumerate(together):
        network, train = alone(seed, recipe)
        train()
        pairs = zip(stacked.parameters(), network.parameters())
        differences.append(max(float((ours - theirs).abs().max()) for ours, theirs in pairs))
    # Two numbers: in float32, about one network in four has a unit so near 0 for an image that its
    # ReLU is on in one of the two trainings and off in the other. Law 7 is tested in float64, where
    # no unit is as near.
    print(
        "\nLargest weight difference, stack of 8 against alone, after 100 steps: "
        f"{statistics.median(differences):.1e} in the median network, "
        f"{max(differences):.1e} in the worst."
    )


class Items(torch.utils.data.Dataset):
    """Images one at a time through torchvision's transforms, as its CIFAR10 gives them."""

    def __init__(self, images):
        transforms = load_torchvision().transforms
        self.pixels, self.labels = images.pixels.permute(0, 2, 3, 1).numpy(), images.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(images.mean, images.std),
            ]
        )

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, number):
        return self.transform(Image.fromarray(self.pixels[number])), self.labels[number]


WORKERS = 4  # of the DataLoader on a GPU machine


def peers_training(model, images, recipe, device):
    """The recipe's steps in the way of most repositories.

    A DataLoader, float32, torch's own defaults.
    """
    workers = WORKERS if device == "cuda" else 0  # whose time is not in that of this process
    loader = torch.utils.data.DataLoader(
        Items(images),
        recipe.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device == "cuda",
    )
    optimiser = torch.optim.SGD(
        model.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay
    )
    # One iterator for all turns, so that no turn includes its start. That batches are ready in its
    # queue favours it.
    batches = (batch for _ in itertools.count() for batch in loader)

    def train():
        model.train()
        for inputs, labels in itertools.islice(batches, recipe.steps):
            inputs, labels = (
                inputs.to(device, non_blocking=True),
                labels.to(device, non_blocking=True),
            )
            loss = cross_entropy(model(inputs), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    return train


def utilisation(device=None, steps=600, side=8192, **options):
    """The share of a GPU's peak that the large networks reach, trained in our way and in that of
    most repositories.

    Args:
        device: "cuda" if there is one. To try this on a "cpu", take few steps, a small matrix and
            narrow networks.
        steps: of each network in each turn; so many that the start of ``train`` does not count.
        side: of the matrices whose product in bfloat16 is the peak.
        **options: of the networks.
    """
    if device is None and not torch.cuda.is_available():
        print("\nUtilisation needs a GPU: nothing is measured.")
        return
    device, generator = device or "cuda", torch.Generator().manual_seed(0)
    # Made-up images: it must not diverge.
    recipe = dataclasses.replace(RECIPES["paper-cifar"], steps=steps, lr=1e-4)
    pixels = torch.randint(0, 256, (50_000, 3, 32, 32), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (len(pixels),), generator=generator)
    images = data.Images(pixels, labels, (0.5,) * 3, (0.3,) * 3)
    on_device = images.to(device)
    made_up = data.Splits("cifar-10", 10, on_device, on_device, on_device.take(slice(1)))
    matrix = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    where = torch.cuda.get_device_name() if device == "cuda" else device
    print(
        f"\nUtilisation of {where}, batches of {recipe.batch_size}. "
        f"The peak is a bfloat16 product of {side}x{side} "
        "matrices, measured in turns with the rest.\n"
    )
    print("| network | way | ms a step | TFLOP/s | peak, TFLOP/s | share of the peak |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")

    def ours(model, compiled_from):
        def train():
            training.COMPILED_FROM = compiled_from
            training.train(model, {}, made_up, recipe)

        return train

    for name in ("alexnet-s", "resnet-20", "vgg-d", "wrn-16-8"):
        model = models.build(name, **options).to(device, memory_format=torch.channels_last)
        theirs = models.build(name, **options).to(device)
        with FlopCounterMode(display=False) as counter:
            forward_backward(theirs, on_device[: recipe.batch_size])()
        times = take_turns(
            {
                "snipkit, compiled (as long runs are on a GPU)": ours(model, 1),
                "snipkit, not compiled": ours(model, steps + 1),
                "DataLoader, float32": peers_training(theirs, images, recipe, device),
                "peak": several(lambda: matrix @ matrix, 50),
            },
            3,
            device,
        )
        spent = {way: statistics.median(turns) for way, turns in times.items()}
        peak = 50 * 2 * side**3 / spent.pop("peak")
        for way, seconds in spent.items():
            rate = counter.get_total_flops() * steps / seconds
            numbers = (
                f"{1000 * seconds / steps:.2f} | {rate / 1e12:.2f} "
                f"| {peak / 1e12:.2f} | {rate / peak:.1%}"
            )
            print(f"| {name} | {way} | {numbers} |", flush=True)


def cpu_ratios():
    """What the library costs over the least that is needed, on one core."""
    mnist = datasets.load("mnist", test_size=1)  # an epoch is measured, not the evaluation after it
    batch = data.sample(mnist.train, 100, torch.Generator().manual_seed(0))
    print(
        "| what | first, ms | second, ms | ratio | aim at most |\n"
        "| --- | ---: | ---: | ---: | ---: |"
    )
    for name, limit, times in (("lenet-5-caffe", 1.05, 3), ("lenet-300-100", 1.10, 40)):
        masked = models.build(name)
        masks = snipkit.prune(masked, batch, 0.95)
        dense = step(models.build(name), {}, batch)
        measured = alternate(several(step(masked, masks, batch), times), several(dense, times), 41)
        report(f"{name}: masked over dense step (x{times})", measured, limit)
    for name, limit in (("lstm-s", 0.65), ("lstm-b", 0.75)):
        fused, loop = models.build(name), models.build(name)
        fused.kernel = "fused"
        measured = alternate(step(fused, {}, batch), step(loop, {}, batch), 21)
        report(f"{name}: step by the fused kernel over step by the loop", measured, limit)
    for name in ("lenet-5-caffe", "lenet-300-100"):
        model = models.build(name).eval()
        passes = several(forward_backward(model, batch), 10)
        measured = alternate(several(partial(saliency.snip, model, batch), 10), passes, 31)
        report(f"{name}: scoring over forward + backward (x10)", measured, 1.15)
    model, slow = models.build("lenet-300-100"), Recipe(steps=540, lr=1e-4)
    plain = plain_loop("lenet-300-100", mnist.train, slow.steps)
    measured = alternate(lambda: training.train(model, {}, mnist, slow), plain, 9)
    report("lenet-300-100: train over a plain loop on ready batches (x540)", measured, 1.10)
    model, loader = models.build("lenet-300-100"), loader_epoch("lenet-300-100", paths.data_root())
    epoch = alternate(lambda: training.train(model, {}, mnist, Recipe(steps=540)), loader, 3)
    report("lenet-300-100: epoch of train over epoch with DataLoader", epoch, 0.7)
    large_networks()


COMPACTED = (  # network, sparsity, data set, examples in a batch, steps in a turn, turns
    ("lenet-300-100", 0.98, "mnist", 100, 40, 41),
    ("lenet-5-caffe", 0.99, "mnist", 100, 3, 21),
    ("vgg-like", 0.97, "cifar-10", 32, 1, 7),
    ("vgg-d", 0.95, "cifar-10", 32, 1, 7),
    ("wrn-16-8", 0.95, "cifar-10", 16, 1, 5),
    ("resnet-20", 0.95, "cifar-10", 100, 1, 11),
    ("resnet-20", 0.98, "cifar-10", 100, 1, 11),
)


def compacted():
    """Training by SNIP's mask: a step of the compacted network over one of the masked network."""
    print(
        "| compacted over masked step | first, ms | second, ms | ratio | multiply-adds left |\n"
        "| --- | ---: | ---: | ---: | ---: |"
    )
    for name, sparsity, source, size, times, rounds in COMPACTED:
        images = datasets.load(source, test_size=1).train
        batch = data.sample(images, size, torch.Generator().manual_seed(0))
        model, image = models.build(name), batch[0][:1]
        masks = snipkit.prune(model, batch, sparsity)
        small, small_masks = snipkit.compact(model, masks, image)
        costs = mask_costs(small, small_masks, image), mask_costs(model, masks, image)
        left = costs[0]["multiply-adds"] / costs[1]["multiply-adds"]
        first, second = step(small, small_masks, batch), step(model, masks, batch)
        measured = alternate(several(first, times), several(second, times), rounds)
        report(f"{name}, {100 * sparsity:g} % removed, batch {size} (x{times})", measured, left)


SECTIONS = {
    "ratios": cpu_ratios,
    "compacted": compacted,
    "stacks": stacks,
    "utilisation": utilisation,
}


def main():
    torch.set_num_threads(1)
    for name in sys.argv[1:] or SECTIONS:
        SECTIONS[name]()


if __name__ == "__main__":
    main()
