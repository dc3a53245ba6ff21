"""What only a real GPU can show, in about 3 minutes: run ``make gpu-check`` first on a new GPU.

Each check prints a line. The exit status is 1 if a check fails, or if there is no GPU. The checks
themselves can be tried on a CPU: ``python tools/gpu_check.py cpu``. ``test_devices.py`` looks for
wrong devices without a GPU.
"""

import copy
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

import snipkit
from snipkit import data, masking, models, saliency, training
from snipkit.recipe import Recipe
from snipkit.study.sets import datasets
from snipkit.study.train import checkpoints
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
    parts = []
    for name, options in (("lenet-300-100", {}), ("lenet-5-caffe", {}), ("vgg-d", {"width": 0.5})):
        masks = {}
        for where, tf32 in (("cpu", False), (device, False), (device, True)):
            dataset = made_up(where) if options else datasets.load("mnist", device=where)
            batch = data.sample(dataset.train, 100, torch.Generator().manual_seed(0))
            model = models.build(name, **options).to(where, memory_format=torch.channels_last)
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=tf32):
                found = snipkit.prune(model, batch, 0.95)
            masks[where, tf32] = {key: mask.cpu() for key, mask in found.items()}
        swapped, rounded = (
            1 - masking.overlap(masks["cpu", False], masks[device, tf32])[0]
            for tf32 in (False, True)
        )
        assert swapped <= 0.001, (
            f"{name}: {swapped:.2%} of the kept connections differ from the CPU's"
        )
        parts.append(f"{name} {swapped:.3%} (TF32: {rounded:.3%})")
    return f"kept connections that differ from the CPU's: {', '.join(parts)}"


class Reader(nn.Module):
    """torch's own recurrent layer on the rows of a digit, with dropout between its two layers."""

    def __init__(self, kind):
        super().__init__()
        self.cell, self.last = (
            kind(28, 32, num_layers=2, dropout=0.5, batch_first=True),
            nn.Linear(32, 10),
        )

    def forward(self, x):
        return self.last(self.cell(x.squeeze(1))[0][:, -1])


def recurrent_scores(device):
    """Recurrent layers are scored in evaluation mode, for which cuDNN has no backward pass."""
    torch.manual_seed(0)
    networks = {"LSTM": Reader(nn.LSTM), "GRU": Reader(nn.GRU)}
    networks |= {name: models.build(name) for name in ("lstm-s", "gru-s")}
    batch, worst = datasets.load("mnist").train[:100], 0.0
    for name, model in networks.items():
        here = saliency.snip(model, batch)
        there = saliency.snip(model.to(device), [part.to(device) for part in batch])
        # Scores sum to 1.
        difference = sum(float((here[key] - there[key].cpu()).abs().sum()) for key in here)
        assert difference < 0.02, (
            f"{name}: the scores differ from the CPU's by {difference:.1e} in all"
        )
        worst = max(worst, difference)
    return (
        f"scores of {', '.join(networks)} differ from the "
        f"CPU's by at most {worst:.1e} (their sum is 1)"
    )


def recurrent_training(device):
    """An LSTM trained by cuDNN's kernel comes to the weights of the loop, in double precision; step
    times in single.

    cuDNN warns where weights do not lie as it wants them. Here a warning is an error.
    """
    digits = datasets.load("mnist", test_size=200, device=device)
    loop = models.build("lstm-s").double().to(device)
    fused = copy.deepcopy(loop)
    loop.training_kernel = "loop"
    masks = snipkit.prune(loop, in_double(digits).train[:100], 0.95)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for model in (loop, fused):
            training.train(model, masks, in_double(digits), Recipe(steps=20))
    difference = largest_difference(loop, fused)
    assert difference < 1e-9, (
        f"the weights of the fused kernel differ by {difference:.1e} from those of the loop"
    )
    assert not any(fused.get_parameter(name)[~mask].any() for name, mask in masks.items()), "law 6"
    steps, times = (200 if device == "cuda" else 5), []
    for name in ("lstm-s", "lstm-b"):
        for kernel in ("fused", "loop"):
            model = models.build(name).to(device)
            model.training_kernel = kernel
            spent = milliseconds(
                partial(training.train, model, {}, digits, Recipe(steps=steps)), steps, device
            )
            times.append(f"{name} {kernel} {spent:.2f}")
    return (
        f"an LSTM's weights differ by {difference:.1e} "
        f"from the loop's; ms a step: {', '.join(times)}"
    )


def law_6(device):
    """Pruned weights stay exactly 0."""
    dataset = datasets.load("mnist", test_size=1000, device=device)
    steps, precision = (100, "bfloat16") if device == "cuda" else (5, "float32")
    recipe = Recipe(steps=steps, precision=precision, augment="flip-shift")
    for changes in ({}, {"optimiser": "adam", "lr": 0.001}):
        model = models.build("lenet-5-caffe").to(device, memory_format=torch.channels_last)
        masks = snipkit.prune(model, dataset.train[:100], 0.95)
        training.train(model, masks, dataset, replace(recipe, **changes))
        assert not any(model.get_parameter(name)[~mask].any() for name, mask in masks.items()), (
            changes
        )
    return f"pruned weights are exactly 0 after {steps} steps of SGD and of Adam"


def law_7(device):
    """A stack follows each of its networks alone, in double precision."""
    dataset, recipe = (
        in_double(datasets.load("mnist", test_size=200, device=device)),
        Recipe(steps=50),
    )
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
    """A training that was stopped comes to the same weights."""
    dataset = in_double(datasets.load("mnist", test_size=200, device=device))
    recipe = Recipe(steps=40, optimiser="adam", lr=0.001, augment="flip-shift")
    whole, stopped, again = (models.build("lenet-300-100").double().to(device) for _ in range(3))
    training.train(whole, {}, dataset, recipe)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state.pt")
        try:
            training.train(
                stopped, {}, dataset, recipe, checkpoint=checkpoints.Checkpoint(path, deadline=0.0)
            )
        except checkpoints.Interrupted:
            training.train(again, {}, dataset, recipe, checkpoint=checkpoints.Checkpoint(path))
    difference = largest_difference(whole, again)
    assert difference < 1e-9, f"a resumed training differs by {difference:.1e}"
    return f"the weights of a resumed training differ by {difference:.1e}"


def milliseconds(function, steps, device):
    """Of each step, in the second call of a training."""
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start) / steps


def step_times(device):
    """Of small networks, alone and in a stack."""
    dataset = datasets.load("mnist", test_size=1, device=device)
    steps, size = (200, 64) if device == "cuda" else (20, 4)
    recipe = Recipe(steps=steps, lr=1e-4)
    networks = [models.build("lenet-300-100", seed=seed).to(device) for seed in range(size)]
    alone = milliseconds(lambda: training.train(networks[0], {}, dataset, recipe), steps, device)
    sets, masks, seeds = [dataset] * size, [{}] * size, range(size)
    stack = milliseconds(
        lambda: train_stack(networks, masks, sets, recipe, seeds=seeds), steps, device
    )
    return f"lenet-300-100: {alone:.2f} ms a step alone, {stack / size:.3f} ms in a stack of {size}"


def compiled(device):
    """One compiled training.

    CUDA graphs, bfloat16, tests between the steps; the same losses as uncompiled.
    """
    dataset, before, results, times = made_up(device), training.COMPILED_FROM, [], []
    steps, precision = (300, "bfloat16") if device == "cuda" else (3, "float32")
    recipe = Recipe(steps=steps, batch_size=128, lr=0.01, augment="flip-shift", precision=precision)
    try:
        for training.COMPILED_FROM in (steps + 1, 1):
            model = models.build("resnet-20").to(device, memory_format=torch.channels_last)
            masks = snipkit.prune(model, dataset.train[:128], 0.8)
            torch._dynamo.utils.counters.clear()
            start = time.perf_counter()
            results.append(training.train(model, masks, dataset, recipe))
            times.append(time.perf_counter() - start)
            assert not any(
                model.get_parameter(name)[~mask].any() for name, mask in masks.items()
            ), "law 6"
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
    pairs = zip(results[0].train_loss[:10], results[1].train_loss[:10])
    difference = max(abs(a / b - 1) for a, b in pairs)
    assert difference < 0.05, f"the losses of a compiled training differ by {difference:.1%}"
    return (
        f"resnet-20, {steps} steps: {times[0]:.1f} s uncompiled, {times[1]:.1f} "
        f"s with compiling; losses differ by at most {difference:.1%}"
    )


CHECKS = (
    same_masks,
    recurrent_scores,
    recurrent_training,
    law_6,
    law_7,
    resumed,
    step_times,
    compiled,
)


def main(device):
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
    sys.exit(f"{failed} of {len(CHECKS)} checks failed" if failed else 0)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "cuda")
