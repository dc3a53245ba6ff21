"""What a mask is worth when a network is used.

Multiply-adds left, and seconds as it is, compacted, and in CSR.
"""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from torch.utils.flop_counter import FlopCounterMode

from snipkit._attach import bare_copy
from snipkit._optional import optional
from snipkit.beyond._channels import Channels
from snipkit.beyond._reach import Reach
from snipkit.beyond._tape import in_evaluation, record
from snipkit.beyond.paths import compact
from snipkit.masking import Masks, apply_

if TYPE_CHECKING:
    import pandas as pd


def multiply_adds(model: nn.Module, inputs: Tensor) -> int:
    """The multiply-adds of one example in a forward pass: those of matrix products and
    convolutions, pruned or not.

    Args:
        inputs: one batch, of which the first example is used.
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), in_evaluation(model), counter:
        model(inputs[:1])
    return counter.get_total_flops() // 2


def fold_batch_norm(model: nn.Module, inputs: Tensor) -> nn.Module:
    """A copy in evaluation mode, in which batch norm is part of the convolution or linear layer
    before it.

    Folded is what reads a layer's outputs directly and alone; other batch norm (as before a
    convolution) stays.

    Args:
        inputs: one batch; only its shape, device and kind are used.
    """
    folded = bare_copy(model).eval()
    modules_of_results: dict[int, list[nn.Module]] = {}
    layers_read: list[tuple[nn.Module, Tensor]] = []

    def note(module, arguments, result):
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            modules_of_results.setdefault(id(result), []).append(module)
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layers_read.append((module, arguments[0]))

    kinds = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d)
    hooks = []
    for module in folded.modules():
        if isinstance(module, kinds):
            hooks.append(module.register_forward_hook(note))
    tape = record(folded, inputs)
    for hook in hooks:
        hook.remove()
    reads: dict[int, int] = {}
    for tensor in [*(tensor for call in tape.calls for tensor in call.tensors), *tape.outputs]:
        reads[id(tensor)] = reads.get(id(tensor), 0) + 1
    calls = [module for module, _ in layers_read] + [
        layer for group in modules_of_results.values() for layer in group
    ]
    for norm, source in layers_read:
        layers = modules_of_results.get(id(source), [])
        once = (
            len(layers) == 1
            and calls.count(norm) == calls.count(layers[0]) == 1
            and reads[id(source)] == 1
        )
        if not once or norm.running_mean is None:
            continue
        layer = layers[0]
        fuse: Any = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
        _replace(folded, layer, fuse(layer, norm))
        _replace(folded, norm, nn.Identity())
    return folded


def _replace(model, module, replacement):
    for parent in model.modules():
        for name, child in list(parent.named_children()):
            if child is module:
                setattr(parent, name, replacement)


def for_inference(model: nn.Module, masks: Masks, inputs: Tensor) -> nn.Module:
    """The smallest network of the same function in evaluation mode: batch norm folded, constants
    too, then compacted.

    A channel that gets nothing may still send a constant, by its bias or by batch norm. Where all
    that reads it can add the constant to a bias of its own, the channel goes. (A convolution with
    padding cannot: at the border it reads fewer of it. It keeps the channel, unless the constant is
    0.)

    Args and errors: see ``paths.compact``.
    """
    masked = bare_copy(model)
    apply_(masked, masks)
    folded, masks = _without_constants(fold_batch_norm(masked, inputs), masks, inputs)
    small, small_masks = compact(folded, masks, inputs)
    apply_(small, small_masks)
    return small


@torch.no_grad()
def _without_constants(model, masks, inputs):
    """A copy and masks for it, in which no layer reads a constant that its bias can stand for.

    It is masked before.
    """
    changed, masks = bare_copy(model), {name: mask.clone() for name, mask in masks.items()}
    tape = record(changed, inputs)
    weights: dict[Tensor, Tensor] = {}
    for parameter in changed.parameters():
        weights[parameter] = (parameter != 0).double()
    reach, channels = Reach(tape, weights), Channels(changed, tape)
    owners = {
        id(module.weight): module for module in changed.modules() if hasattr(module, "weight")
    }
    names: dict[Tensor, str] = {parameter: name for name, parameter in changed.named_parameters()}
    for layer in channels.layers:
        module, axis = owners.get(id(layer.weight)), 1 if layer.weight.dim() > 2 else -1
        calls = sum(call.weight is layer.weight for call in channels.layers)
        if module is None or calls > 1:
            continue
        constant = (reach.of(layer.source) == 0).movedim(axis, 0).flatten(1).all(1)
        sent = torch.zeros_like(layer.source).movedim(axis, 0)
        sent[constant] = layer.source.movedim(axis, 0)[constant]
        added = module(sent.movedim(0, axis)) - module(torch.zeros_like(layer.source))
        added = added.movedim(axis, 0).flatten(1)
        if (added.amax(1) - added.amin(1)).max() <= 1e-6 * added.abs().max():
            shift = added.mean(1) if module.bias is None else module.bias + added.mean(1)
            module.bias = nn.Parameter(shift)
        else:
            constant &= ~sent.flatten(1).any(1)
        name = names[layer.weight]
        masks.setdefault(name, torch.ones_like(layer.weight, dtype=torch.bool))[:, constant] = False
    for name, parameter in changed.named_parameters():
        if name in masks and parameter.dim() == 1:
            # Batch norm, or a constant, may have come to a pruned bias.
            masks[name] |= parameter != 0
    return changed, masks


def in_csr(model: nn.Module, masks: Masks) -> nn.Module:
    """A copy in evaluation mode whose linear layers and convolutions multiply by a sparse matrix
    (CSR).

    Convolutions gather their windows first (``im2col``); those with groups, or of a class with a
    forward pass of its own (``SameConv2d``), stay dense. Only for inference, with torch's own
    kernels.
    """
    sparse = bare_copy(model).eval()
    apply_(sparse, masks)
    for module in list(sparse.modules()):
        plain = type(module) is nn.Linear or type(module).forward is nn.Conv2d.forward
        if (
            plain
            and getattr(module, "groups", 1) == 1
            and getattr(module, "padding_mode", "zeros") == "zeros"
        ):
            _replace(sparse, module, _Sparse(module))
    return sparse


class _Sparse(nn.Module):
    """A linear layer or a convolution in CSR."""

    def __init__(self, layer):
        super().__init__()
        self.convolution = isinstance(layer, nn.Conv2d)
        if self.convolution:
            self.windows = nn.Unfold(layer.kernel_size, layer.dilation, layer.padding, layer.stride)
            self.sizes = list(zip(layer.kernel_size, layer.dilation, layer.padding, layer.stride))
        with warnings.catch_warnings():  # who asks for CSR need not be told that it is in beta
            warnings.filterwarnings("ignore", "Sparse CSR tensor support")
            matrix = layer.weight.detach().flatten(1).to_sparse_csr()
        self.register_buffer("matrix", matrix)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach()[:, None])

    def forward(self, x):
        if not self.convolution:
            rows = self.matrix @ x.flatten(0, -2).t()
            rows = rows if self.bias is None else rows + self.bias
            return rows.t().unflatten(0, x.shape[:-1])
        heights = []
        for size, (kernel, dilation, padding, stride) in zip(x.shape[2:], self.sizes):
            heights.append((size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1)
        columns = self.windows(x).transpose(0, 1).flatten(1)
        rows = self.matrix @ columns
        rows = rows if self.bias is None else rows + self.bias
        return rows.unflatten(1, (len(x), *heights)).transpose(0, 1)


def latencies(
    model: nn.Module,
    masks: Masks,
    inputs: Tensor,
    *,
    batch_sizes: Sequence[int] = (1, 100),
    seconds: float = 1.0,
) -> "pd.DataFrame":
    """Milliseconds of a forward pass: masked, compacted, compacted for inference, in CSR; on one
    thread.

    Args:
        inputs: at least as many examples as the largest batch size.
        seconds: how long each is repeated; the median counts.

    Returns:
        columns ``batch``, ``network``, ``multiply-adds`` (of one example; none for CSR),
        ``milliseconds``, ``times as fast`` (as the masked one).
    """
    masked = bare_copy(model).eval()
    apply_(masked, masks)
    networks = {
        "masked": masked,
        "compacted": compact(masked, masks, inputs)[0].eval(),
        "compacted for inference": for_inference(masked, masks, inputs),
        "CSR": in_csr(masked, masks),
    }
    rows = []
    # Here: where a CUDA compiler is installed, this import writes a warning.
    from torch.utils.benchmark import Timer

    for size in batch_sizes:
        batch, slowest = inputs[:size], None
        for name, network in networks.items():
            timer = Timer(
                "network(batch)", globals={"network": network, "batch": batch}, num_threads=1
            )
            with torch.inference_mode():
                milliseconds = 1000 * timer.blocked_autorange(min_run_time=seconds).median
            slowest = slowest or milliseconds
            count = None if name == "CSR" else multiply_adds(network, inputs)
            rows.append([size, name, count, milliseconds, slowest / milliseconds])
    return optional("pandas").DataFrame(
        rows, columns=["batch", "network", "multiply-adds", "milliseconds", "times as fast"]
    )
