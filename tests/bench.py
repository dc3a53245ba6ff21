"""Performance as ratios, measured side by side in one process: ``make bench``.

Variants take turns, round by round, so that a machine that slows down slows all of them. Printed are the median of each
variant in milliseconds of CPU time of this (one-threaded) process, and the median of the ratios of neighbouring turns.
"""

import statistics
import subprocess
import sys
import time

import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm

import snipkit
from snipkit import _torchvision, data, masking, models, saliency, training


def alternate(first, second, rounds):
    """CPU seconds of two callables, in turns: (median, median, median ratio first over second)."""
    times = ([], [])
    first(), second()
    for turn in tqdm(range(rounds), leave=False, disable=None):
        for which in (0, 1) if turn % 2 else (1, 0):  # who comes second profits from warm caches: take turns
            start = time.process_time()
            (first, second)[which]()
            times[which].append(time.process_time() - start)
    return *map(statistics.median, times), statistics.median(a / b for a, b in zip(*times))


def report(what, measured, limit):
    first, second, ratio = measured
    print(f"| {what} | {1000 * first:.2f} | {1000 * second:.2f} | {ratio:.2f} | {limit:.2f} |", flush=True)


def step(model, masks, batch):
    """One step of masked (or, with no masks, dense) training, as ``training.train`` does it."""
    masking.apply_(model, masks)
    masked = [(p, mask.to(p)) for p, mask in masking.matched(model, masks)]
    optimiser, scheduler = training._optimiser(model, training.Recipe(steps=10**6, lr=1e-6))

    def once():
        loss = cross_entropy(model(batch[0]), batch[1])
        optimiser.zero_grad()
        loss.backward()
        training.mask_gradients(masked)
        optimiser.step()
        scheduler.step()

    return once


def forward_backward(model, batch):
    """What scoring cannot do without: one pass forward and one back, to all parameters."""

    def once():
        model.zero_grad()
        cross_entropy(model(batch[0]), batch[1]).backward()

    return once


def several(function, times):
    return lambda: [function() for _ in range(times)]


def loader_epoch(name, folder):
    """The same training through torchvision's data set, transforms and a DataLoader."""
    vision = _torchvision.load()
    transform = vision.transforms.Compose([vision.transforms.ToTensor(), vision.transforms.Normalize((0.1307,), (0.3081,))])
    images = torch.utils.data.Subset(vision.datasets.MNIST(folder, train=True, transform=transform), range(54_000))
    model, recipe = models.build(name), training.Recipe(steps=540)

    def epoch():
        optimiser, scheduler = training._optimiser(model, recipe)
        model.train()
        for inputs, labels in torch.utils.data.DataLoader(images, recipe.batch_size, shuffle=True):
            loss = cross_entropy(model(inputs), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            scheduler.step()

    return epoch


def peak_memory(what):
    """Peak resident memory in MiB of a fresh process that draws WRN-22-8 and 32 images and then does ``what``."""
    code = f"""
import pathlib, re, torch
from torch.nn.functional import cross_entropy
from snipkit import models, saliency
torch.set_num_threads(1)
model = models.build("wrn-22-8").to(memory_format=torch.channels_last)
x, y = torch.randn(32, 3, 32, 32).contiguous(memory_format=torch.channels_last), torch.arange(32) % 10
{what}
print(int(re.search("VmHWM:\\\\s+([0-9]+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1024)
"""
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def large_networks():
    """The networks for CIFAR-10; made-up images will do."""
    generator = torch.Generator().manual_seed(0)
    for name, size in (("vgg-d", 128), ("wrn-16-8", 32)):
        model = models.build(name).to(memory_format=torch.channels_last).eval()
        images = torch.randn(size, 3, 32, 32, generator=generator).contiguous(memory_format=torch.channels_last)
        batch = images, torch.arange(size) % 10
        floor = forward_backward(model, batch)
        report(f"{name}: scoring over forward + backward, {size} images", alternate(lambda: saliency.snip(model, batch), floor, 4), 1.15)
        if name == "vgg-d":
            scores = saliency.snip(model, batch)
            report(f"{name}: selection over forward + backward", alternate(lambda: masking.keep_top(scores, 0.95), floor, 4), 0.10)
            masks = masking.keep_top(scores, 0.95)
            dense = models.build(name).to(memory_format=torch.channels_last)
            model.train()
            report(f"{name}: masked over dense step, {size} images", alternate(step(model, masks, batch), step(dense, {}, batch), 4), 1.05)
    memory = [peak_memory(what) for what in ("saliency.snip(model, (x, y))", "model.eval(); cross_entropy(model(x), y).backward()", "")]
    print(f"\nPeak memory with WRN-22-8 and 32 images: scoring {memory[0]:.0f} MiB, forward + backward {memory[1]:.0f} MiB, neither {memory[2]:.0f} MiB.")


def main():
    torch.set_num_threads(1)
    mnist = data.load("mnist", test_size=1)  # an epoch is measured, not the evaluation after it
    batch = data.draw(mnist.train, 100, torch.Generator().manual_seed(0))
    print("| what | first, ms | second, ms | ratio | aim at most |\n| --- | ---: | ---: | ---: | ---: |")
    for name, limit, times in (("lenet-5-caffe", 1.05, 3), ("lenet-300-100", 1.10, 40)):
        masked = models.build(name)
        masks = snipkit.prune(masked, batch, 0.95)
        measured = alternate(several(step(masked, masks, batch), times), several(step(models.build(name), {}, batch), times), 41)
        report(f"{name}: masked over dense step (x{times})", measured, limit)
    for name in ("lenet-5-caffe", "lenet-300-100"):
        model = models.build(name).eval()
        measured = alternate(several(lambda: saliency.snip(model, batch), 10), several(forward_backward(model, batch), 10), 31)
        report(f"{name}: scoring over forward + backward (x10)", measured, 1.15)
    model = models.build("lenet-300-100")
    epoch = alternate(
        lambda: training.train(model, {}, mnist, training.Recipe(steps=540)), loader_epoch("lenet-300-100", snipkit.sources.data_root()), 3)
    report("lenet-300-100: epoch of train over epoch with DataLoader", epoch, 0.7)
    large_networks()


if __name__ == "__main__":
    main()
