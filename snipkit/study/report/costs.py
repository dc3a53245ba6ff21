"""What a mask costs: parameters, multiply-adds, bytes, and microseconds with several kernels."""

from collections.abc import Sequence
from functools import partial

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import snipkit
from snipkit import masking, models, saliency
from snipkit.beyond import inference
from snipkit.study.report import figures
from snipkit.study.train import estimate, executors

KERNELS = ("masked", "units left out", "CSR")
FLOAT = INDEX = 4  # bytes of a weight, and of an index in a sparse format


@torch.no_grad()
def mask_costs(model: nn.Module, masks: dict[str, Tensor], inputs: Tensor) -> dict[str, float]:
    """Parameters, multiply-adds and bytes of a network, dense and with a mask.

    Args:
        model: the network; its mode is left as it is.
        masks: name → bool tensor, such as ``masking.keep_top`` gives. Layers without a mask are not
            counted.
        inputs: what goes through the network, such as one image of shape (1, 1, 28, 28).

    Returns:
        "parameters" and "kept", biases included; "multiply-adds" and "multiply-adds kept", in which
        every layer costs its share of kept weights; "bytes", dense; "bytes, CSR": a value and a
        column for each one that is kept, and a pointer a row; "bytes, bit mask": the kept values
        and a bit for each parameter. All in float32.

    Raises:
        ValueError: for a masked weight no multiply-add was counted, so that a sum would leave it
            out.
    """
    was_training = model.training
    with FlopCounterMode(display=False) as counter:
        model.eval()(inputs)
    model.train(was_training)

    multiply_adds = {}  # layer → its multiply-adds
    for path, operations in counter.get_flop_counts().items():
        _, _, layer = path.partition(".")  # the first part is the model's class
        multiply_adds[layer] = sum(operations.values()) // 2

    dense_operations, kept_operations = 0, 0.0
    rows = 0
    for name, mask in masks.items():
        if snipkit.is_bias(name):
            continue
        layer = name.rpartition(".")[0]
        if not multiply_adds.get(layer):
            raise ValueError(
                f"no multiply-add was counted in {name}'s module, so a sum would leave it out: "
                "what is no plain linear layer or convolution has to be counted by hand"
            )
        dense_operations += multiply_adds[layer]
        kept_operations += multiply_adds[layer] * mask.double().mean().item()
        rows += len(mask) + 1

    parameters = sum(mask.numel() for mask in masks.values())
    kept = sum(int(mask.sum()) for mask in masks.values())
    return {
        "parameters": parameters,
        "kept": kept,
        "multiply-adds": dense_operations,
        "multiply-adds kept": kept_operations,
        "bytes": FLOAT * parameters,
        "bytes, CSR": (FLOAT + INDEX) * kept + INDEX * rows,
        "bytes, bit mask": FLOAT * kept + -(-parameters // 8),  # rounded up
    }


def compact_costs(model: nn.Module, masks: dict[str, Tensor], inputs: Tensor) -> dict:
    """What is left of a chain of linear layers when all units are left out that no path uses.

    Args:
        model: the network; it is left as it is.
        masks: name → bool tensor. Biases count as removed: they keep units that see nothing.
        inputs: as for ``mask_costs``.

    Returns:
        "units", such as "784-6-6-10"; "weights" of the dense network of that shape, and so its
        multiply-adds; "kept", how many of them the mask keeps; "bytes" of the weights in float32.

    Raises:
        ValueError: what ``snipkit.compact`` raises, for a network that is no chain.
    """
    weights_only = {}
    for name, mask in masks.items():
        weights_only[name] = torch.zeros_like(mask) if snipkit.is_bias(name) else mask
    small, small_masks = snipkit.compact(model, weights_only, inputs)
    layers = [module for module in small.modules() if isinstance(module, nn.Linear)]
    units = [layer.in_features for layer in layers] + [layers[-1].out_features]
    weights = sum(layer.weight.numel() for layer in layers)
    return {
        "units": "-".join(map(str, units)),
        "weights": weights,
        "kept": sum(int(mask.sum()) for mask in small_masks.values()),
        "bytes": FLOAT * weights,
    }


def kernel_times(
    networks: Sequence[str],
    batch: tuple[Tensor, Tensor],
    images: Tensor,
    *,
    sparsity: float = 0.98,
    sizes: Sequence[int] = (1, 10),
    turns: int = 300,
) -> pd.DataFrame:
    """Microseconds of a forward pass with SNIP's mask: masked, without empty units, and in CSR.

    On one thread.

    Args:
        networks: names of untrained models.
        batch: the examples that SNIP scores.
        images: at least as many inputs as the largest of ``sizes``.
        sparsity: of the masks.
        sizes: how many images go through at a time.
        turns: how often each is timed, one call at a time. The shortest counts: a short turn is
            seldom interrupted.

    Returns:
        Columns "network", "batch", "kernels" (the categories ``KERNELS``),
        "microseconds" and "times as fast" (as the masked network).
    """
    rows = []
    for name in networks:
        variants = _variants(models.build(name, seed=0), batch, images, sparsity)
        for size in sizes:
            calls = {kind: partial(variants[kind], images[:size]) for kind in KERNELS}
            with executors.one_thread(), torch.inference_mode():
                times = estimate.microseconds(calls, turns=turns, repeats=1)
            for kind, time in times.items():
                rows.append([figures.NETWORKS[name], size, kind, time, times["masked"] / time])
    columns = ["network", "batch", "kernels", "microseconds", "times as fast"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(kernels=pd.Categorical(table.kernels, KERNELS, ordered=True))


def _variants(model, batch, images, sparsity):
    """The masked network, the one without empty units, and the one with sparse weights."""
    mask = masking.keep_top(saliency.snip(model, batch), sparsity)
    masking.apply_(model, mask)
    small, _ = snipkit.compact(model, mask, images)
    sparse = inference.in_csr(model, mask)
    return dict(zip(KERNELS, (model.eval(), small.eval(), sparse)))
