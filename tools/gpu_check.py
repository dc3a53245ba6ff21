"""What only a real GPU can show, in about 5 minutes: run ``make gpu-check`` first on a new GPU.

Each check prints a line. The exit status is 1 if a check fails, or if there is no GPU. Then come
step times, as lines for ``snipkit/study/train/step_times.csv``: ``gpu_check.py cuda`` times what
was never measured, ``gpu_check.py cuda all`` the large networks as well (10 minutes more). It needs
torch, torchvision, numpy and tqdm, and MNIST in the data folder. The checks can be tried on a CPU:
``gpu_check.py cpu``, as ``test_gpu_check.py`` does. ``test_devices.py`` looks for wrong devices.
"""

import copy
import csv
import datetime
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

import snipkit
from snipkit import data, masking, models, saliency, training
from snipkit.recipe import Recipe
from snipkit.study.sets import datasets
from snipkit.study.train import checkpoints, provenance
from snipkit.study.train.stacking import train_stack


class Doubled(data.Images):
    """Images whose batches are in double precision."""

    def standardise(self, pixels):
        return super().standardise(pixels).double()


def in_double(dataset):
    return replace(
        dataset, train=Doubled(**vars(dataset.train)), test=Doubled(**vars(dataset.test))
    )


def made_up(device, count=2000):
    """A data set of colour images with random labels."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    images = data.Images(pixels, torch.arange(count) % 10, (0.5,) * 3, (0.3,) * 3).to(device)
    return data.Splits("made-up", 10, images, images.take(slice(0)), images.take(slice(100)))


def largest_difference(first, second):
    """Of the weights of two networks."""
    return max(
        float((a - b).detach().abs().max()) for a, b in zip(first.parameters(), second.parameters())
    )


def same_masks(device):
    """SNIP finds the masks that it finds on the CPU. Rounding may swap connections of nearly equal
    scores.

    A convolution in TF32, torch's default on a GPU, rounds to 10 bits; so scoring switches it off,
    whatever is set.
    """
    parts, width = [], 0.5 if device == "cuda" else 0.1
    for name, options in (
        ("lenet-300-100", {}),
        ("lenet-5-caffe", {}),
        ("vgg-d", {"width": width}),
    ):
        expected = masks_on("cpu", name, options, tf32=False)
        swapped, rounded = [
            1 - masking.overlap(expected, masks_on(device, name, options, tf32))[0]
            for tf32 in (False, True)
        ]
        assert swapped <= 0.001, (
            f"{name}: {swapped:.2%} of the kept connections differ from the CPU's"
        )
        parts.append(f"{name} {swapped:.3%} (TF32: {rounded:.3%})")
    return f"kept connections that differ from the CPU's: {', '.join(parts)}"


def masks_on(device, name, options, tf32):
    """SNIP's masks at 95 %, found on a device, on the CPU."""
    dataset = made_up(device) if options else datasets.load("mnist", device=device)
    batch = data.sample(dataset.train, 100, torch.Generator().manual_seed(0))
    model = models.build(name, **options).to(device, memory_format=torch.channels_last)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=tf32):
        masks = snipkit.prune(model, batch, 0.95)
    return {key: mask.cpu() for key, mask in masks.items()}


class Reader(nn.Module):
    """torch's own recurrent layer on the rows of a digit, with dropout between its two layers."""

    def __init__(self, kind):
        super().__init__()
        self.cell = kind(28, 32, num_layers=2, dropout=0.5, batch_first=True)
        self.last = nn.Linear(32, 10)

    def forward(self, x):
        return self.last(self.cell(x.squeeze(1))[0][:, -1])


def recurrent_scores(device):
    """Recurrent layers are scored in evaluation mode, for which cuDNN has no backward pass."""
    torch.manual_seed(0)
    networks = {"LSTM": Reader(nn.LSTM), "GRU": Reader(nn.GRU)}
    networks |= {name: models.build(name) for name in ("lstm-s", "gru-s")}
    batch, largest = datasets.load("mnist").train[:100], 0.0
    for name, model in networks.items():
        on_cpu = saliency.snip(model, batch)
        on_device = saliency.snip(model.to(device), [part.to(device) for part in batch])
        difference = 0.0  # of scores that sum to 1
        for key, scores in on_cpu.items():
            difference += float((scores - on_device[key].cpu()).abs().sum())
        assert difference < 0.02, (
            f"{name}: the scores differ from the CPU's by {difference:.1e} in all"
        )
        largest = max(largest, difference)
    return (
        f"scores of {', '.join(networks)} differ from the "
        f"CPU's by at most {largest:.1e} (their sum is 1)"
    )


def recurrent_training(device):
    """An LSTM trained by cuDNN's kernel comes to the weights of the loop, in double precision.

    cuDNN warns of weights that do not lie in one chunk of memory. Here that is an error.
    """
    digits = in_double(datasets.load("mnist", test_size=200, device=device))
    loop = models.build("lstm-s").double().to(device)
    fused = copy.deepcopy(loop)
    loop.training_kernel = "loop"
    masks = snipkit.prune(loop, digits.train[:100], 0.95)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(weights|contiguous|chunk)")
        for model in (loop, fused):
            training.train(model, masks, digits, Recipe(steps=20 if device == "cuda" else 5))
    difference = largest_difference(loop, fused)
    assert difference < 1e-9, (
        f"the weights of the fused kernel differ by {difference:.1e} from those of the loop"
    )
    assert pruned_are_zero(fused, masks), "law 6"
    return f"an LSTM's weights differ by {difference:.1e} from the loop's"


def pruned_are_zero(model, masks):
    return not any(model.get_parameter(name)[~mask].any() for name, mask in masks.items())


def law_6(device):
    """Pruned weights stay exactly 0."""
    dataset = datasets.load("mnist", test_size=1000, device=device)
    steps, precision = (100, "bfloat16") if device == "cuda" else (5, "float32")
    recipe = Recipe(steps=steps, precision=precision, augment="flip-shift")
    for changes in ({}, {"optimiser": "adam", "lr": 0.001}):
        model = models.build("lenet-5-caffe").to(device, memory_format=torch.channels_last)
        masks = snipkit.prune(model, dataset.train[:100], 0.95)
        training.train(model, masks, dataset, replace(recipe, **changes))
        assert pruned_are_zero(model, masks), changes
    return f"pruned weights are exactly 0 after {steps} steps of SGD and of Adam"


def law_7(device):
    """A stack follows each of its networks alone, in double precision."""
    dataset = in_double(datasets.load("mnist", test_size=200, device=device))
    recipe = Recipe(steps=50 if device == "cuda" else 5)
    alone = [models.build("lenet-300-100", seed=seed).double().to(device) for seed in range(3)]
    masks = [
        snipkit.prune(alone[0], dataset.train[:100], 0.9),
        snipkit.prune(alone[1], dataset.train[:50], 0.5),
        {},
    ]
    stack = copy.deepcopy(alone)
    for seed, model in enumerate(alone):
        training.train(model, masks[seed], dataset, recipe, seed=seed)
    train_stack(stack, masks, [dataset] * 3, recipe, seeds=range(3))
    difference = max(map(largest_difference, alone, stack))
    assert difference < 1e-9, (
        f"the weights of a stack differ by {difference:.1e} from those of each network alone"
    )
    return f"the weights of a stack differ by {difference:.1e} from those of each network alone"


def resumed(device):
    """A pruned training that was stopped comes to the same weights.

    The file holds the masks, and of weights and moments what is kept.
    """
    dataset = in_double(datasets.load("mnist", test_size=200, device=device))
    recipe = Recipe(steps=40, optimiser="adam", lr=0.001, augment="flip-shift")
    whole, stopped, again = [models.build("lenet-300-100").double().to(device) for _ in range(3)]
    masks = snipkit.prune(copy.deepcopy(whole), dataset.train[:100], 0.9)
    training.train(whole, masks, dataset, recipe)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state.pt")
        checkpoint = checkpoints.Checkpoint(path, deadline=0.0)
        try:
            training.train(stopped, masks, dataset, recipe, checkpoint=checkpoint)
        except checkpoints.Interrupted:
            pass
        assert path.exists(), "it was not stopped"
        training.train(again, masks, dataset, recipe, checkpoint=checkpoints.Checkpoint(path))
    difference = largest_difference(whole, again)
    assert difference < 1e-9, f"a resumed training differs by {difference:.1e}"
    return f"the weights of a resumed training differ by {difference:.1e}"


def compiled(device):
    """One compiled training.

    CUDA graphs, bfloat16, tests between the steps; the same losses as uncompiled.
    """
    dataset, before, outcomes, seconds = made_up(device), training.COMPILED_FROM, [], []
    steps, batch, precision = (300, 128, "bfloat16") if device == "cuda" else (3, 16, "float32")
    recipe = Recipe(
        steps=steps, batch_size=batch, lr=0.01, augment="flip-shift", precision=precision
    )
    try:
        for training.COMPILED_FROM in (steps + 1, 1):  # uncompiled, then compiled
            model = models.build("resnet-20").to(device, memory_format=torch.channels_last)
            masks = snipkit.prune(model, dataset.train[:128], 0.8)
            torch._dynamo.utils.counters.clear()
            start = time.perf_counter()
            outcomes.append(training.train(model, masks, dataset, recipe))
            seconds.append(time.perf_counter() - start)
            assert pruned_are_zero(model, masks), "law 6"
    finally:
        training.COMPILED_FROM = before
    counters = torch._dynamo.utils.counters
    graphs, skips = counters["stats"]["unique_graphs"], counters["inductor"]["cudagraph_skips"]
    assert device == "cpu" or graphs == 1, (
        f"{graphs} compiled graphs: it ran uncompiled, or compiled again and again"
    )
    assert device == "cpu" or not skips, (
        f"{skips} times without CUDA graphs (TORCH_LOGS=cudagraphs says why)"
    )
    pairs = zip(outcomes[0].train_loss[:10], outcomes[1].train_loss[:10])
    difference = max(abs(a / b - 1) for a, b in pairs)
    assert difference < 0.05, f"the losses of a compiled training differ by {difference:.1%}"
    return (
        f"resnet-20, {steps} steps: {seconds[0]:.1f} s uncompiled, {seconds[1]:.1f} "
        f"s with compiling; losses differ by at most {difference:.1%}"
    )


@dataclass(frozen=True)
class Timed:
    """A training whose steps are timed: one line of ``step_times.csv``."""

    data: str
    model: str
    batch: int = 100
    stack: int = 1
    compiled: bool = False

    @property
    def recipe(self):
        """As long as it takes to be compiled, or not. It is stopped when it is timed."""
        steps = 2 * training.COMPILED_FROM if self.compiled else training.COMPILED_FROM - 1
        recipe = Recipe(steps=steps, batch_size=self.batch, lr=1e-4)
        if self.data in ("cifar-10", "tiny-imagenet"):
            recipe = replace(recipe, augment="flip-shift", precision="bfloat16")
        return recipe


#: what no GPU has been asked yet, and what the scale `evening` needs
TIMED = [
    Timed("mnist", "lenet-300-100"),
    Timed("mnist", "lenet-300-100", stack=64),
    Timed("mnist", "lenet-300-100", stack=16),
    Timed("mnist", "lenet-5-caffe", stack=64),
    Timed("mnist", "lenet-5-caffe", stack=16),
    Timed("mnist-1d", "mlp-1d"),
    Timed("mnist-1d", "mlp-1d", stack=64),
    Timed("mnist-1d", "cnn-1d", stack=64),
    Timed("mnist", "lstm-s"),
    Timed("mnist", "lstm-b"),
    Timed("mnist", "gru-s"),
    Timed("mnist", "gru-b"),
    Timed("cifar-10", "resnet-20", 128),
    Timed("mnist", "gru-s", compiled=True),
    Timed("mnist", "gru-b", compiled=True),
]
VGGS = ("alexnet-s", "alexnet-b", "vgg-c", "vgg-d", "vgg-like")
LARGE = [Timed("cifar-10", model, 128, compiled=True) for model in ("resnet-20", *VGGS)]
LARGE += [
    Timed("cifar-10", f"wrn-{size}", 128, compiled=True) for size in ("16-8", "16-10", "22-8")
]
LARGE += [Timed("tiny-imagenet", model, 128, compiled=True) for model in VGGS]


class Finished(Exception):
    """All steps that are to be timed are done."""


class Stopwatch:
    """A checkpoint that keeps nothing. It times the steps after the first ones, and then stops."""

    def __init__(self, device, first, last):
        self.device, self.first, self.last = device, first, last

    def restore(self, state):
        return 0

    def after(self, step):
        if step in (self.first, self.last):
            if self.device == "cuda":
                torch.cuda.synchronize()
            now = time.perf_counter()
            if step == self.last:
                self.milliseconds = 1000 * (now - self.start) / (self.last - self.first)
                raise Finished
            self.start = now


def milliseconds(timed, device):
    """Of one step of a training or of a stack, once it runs."""
    (channels, height, width), classes = datasets.SHAPES[timed.data]
    generator = torch.Generator().manual_seed(0)
    size = (20 * timed.batch, channels, height, width)
    pixels = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
    labels = torch.arange(len(pixels)) % classes
    images = data.Images(pixels, labels, (0.5,) * channels, (0.3,) * channels).to(device)
    dataset = replace(made_up(device, count=100), train=images, test=images)
    networks = []
    for seed in range(timed.stack):
        model = models.build(timed.model, seed=seed, num_classes=classes, image_size=width)
        networks.append(model.to(device, memory_format=torch.channels_last))
    watch = Stopwatch(device, *((50, 250) if device == "cuda" else (1, 2)))
    try:
        if timed.stack == 1:
            training.train(networks[0], {}, dataset, timed.recipe, checkpoint=watch)
        else:
            masks, sets, seeds = [{}] * timed.stack, [dataset] * timed.stack, range(timed.stack)
            train_stack(networks, masks, sets, timed.recipe, seeds=seeds, checkpoint=watch)
    except Finished:
        return watch.milliseconds


def step_times(device, trainings):
    """Print a line for ``step_times.csv`` as soon as each of these trainings was timed."""
    source = f"measured {datetime.date.today()} by gpu_check.py (torch {torch.__version__})"
    lines = csv.writer(sys.stdout, lineterminator="\n")
    for timed in trainings:
        numbers = [timed.batch, timed.stack, "yes" if timed.compiled else "no"]
        spent = f"{milliseconds(timed, device):.3g}"
        lines.writerow([provenance.name(device), timed.data, timed.model, *numbers, spent, source])
        sys.stdout.flush()


CHECKS = (
    same_masks,
    recurrent_scores,
    recurrent_training,
    law_6,
    law_7,
    resumed,
    compiled,
)


def main(device, trainings):
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("There is no GPU here (torch.cuda.is_available() is False): nothing was checked.")
    print(
        f"{torch.cuda.get_device_name() if device == 'cuda' else device}, torch {torch.__version__}"
    )
    failed = 0
    for check in CHECKS:
        start = time.perf_counter()
        try:
            line = f"passed: {check(device)}"
        except Exception as error:
            line, failed = f"FAILED: {check.__name__}: {type(error).__name__}: {error}", failed + 1
            traceback.print_exc()
        print(f"{line} ({time.perf_counter() - start:.0f} s)", flush=True)
    print("\nfor snipkit/study/train/step_times.csv, of a device that does nothing else:")
    step_times(device, trainings)
    sys.exit(f"{failed} of {len(CHECKS)} checks failed" if failed else 0)


if __name__ == "__main__":
    device = sys.argv[1] if len(sys.argv) > 1 else "cuda"
    main(device, TIMED + LARGE if "all" in sys.argv[2:] else TIMED)
