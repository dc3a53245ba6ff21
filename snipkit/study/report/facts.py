"""Claims of the paper that need no seeds: counts of parameters, and layers."""

import torch

import snipkit
from snipkit import models
from snipkit.study import paper
from snipkit.study.sets import datasets


def counts_of_table2() -> tuple[bool, str]:
    """Whether all twelve networks keep as many parameters as printed."""
    rows = paper.table("table2")
    equal = 0
    for row in rows.itertuples():
        digits = 1 if row.kept_printed.count(".") else 0
        equal += f"{_kept(row.model, row.sparsity) / 1000:.{digits}f}k" == row.kept_printed
    return equal == len(rows) == 12, f"{equal} of {len(rows)} equal"


def counts_of_table4() -> tuple[bool, str]:
    """Whether the five networks for Tiny-ImageNet keep as many parameters as printed."""
    rows = paper.table("table4")
    equal = 0
    for row in rows.itertuples():
        equal += (
            f"{_kept(row.model, row.sparsity, classes=200, side=64) / 1000:.0f}k"
            == row.kept_printed
        )
    return equal == len(
        rows
    ), f"{equal} of {len(rows)} equal; those printed are of networks with 10 outputs"


def layers_of_table5() -> tuple[bool, str]:
    """Whether the layers of the AlexNets are those printed."""
    return _layers_as_printed("table5", ("alexnet-s", "alexnet-b"))


def layers_of_table6() -> tuple[bool, str]:
    """Whether the layers of the VGGs are those printed."""
    return _layers_as_printed("table6", ("vgg-c", "vgg-d", "vgg-like"))


FACTS = {
    "table2-counts": counts_of_table2,
    "table4-counts": counts_of_table4,
    "table5": layers_of_table5,
    "table6": layers_of_table6,
}


def _kept(name, sparsity, classes=10, side=None):
    """κ of a network, built without memory."""
    if side is None:
        recurrent = name.startswith(("lstm", "gru"))
        (_, _, side), classes = datasets.SHAPES["mnist" if recurrent else "cifar-10"]
    model = _on_meta(name, classes, side)
    total = sum(parameter.numel() for parameter in snipkit.prunable(model).values())
    return snipkit.kept_count(total, sparsity)


def _layers_as_printed(table, names):
    """Weights and strides of all layers, for images of 32 and of 64 pixels."""
    printed = paper.table(table)
    for name in names:
        rows = printed[printed[name].notna()]
        convolutions = rows[rows.stride.notna()]
        weights, strides = _weights_and_strides(name, 32)
        _, larger = _weights_and_strides(name, 64)
        if weights != list(rows[name].astype(int)):
            return False, f"{name}: weights {weights}"
        same_strides = strides == list(convolutions.stride)
        if not same_strides or larger != list(convolutions.stride_tiny_imagenet):
            return False, f"{name}: strides {strides}, on 64 pixels {larger}"
    return True, "weights and strides of all layers equal, for both image sizes"


def _weights_and_strides(name, side):
    model = _on_meta(name, 10, side)
    weights, strides = [], []
    for module in model.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            weights.append(module.weight.numel())
        if isinstance(module, torch.nn.Conv2d):
            strides.append(module.stride[0])
    return weights, strides


def _on_meta(name, classes, side):
    with torch.device("meta"):
        return models.MODELS[name](num_classes=classes, image_size=side)
