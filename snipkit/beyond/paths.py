"""Paths of kept connections from the inputs to the outputs.

The effective part of a mask, and a smaller network.
"""

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from snipkit._attach import bare_copy
from snipkit._prunable import is_norm
from snipkit.beyond._channels import Channels
from snipkit.beyond._reach import Reach
from snipkit.beyond._tape import record
from snipkit.masking import Masks, apply_, matched


def effective(model: nn.Module, masks: Masks, inputs: Tensor) -> Masks:
    """The part of the masks that lies on a path of kept connections from an input to an output.

    Whatever else is kept leads nowhere, or always sees zero. A bias counts where its unit is on
    such a path. Paths are looked for in the operations that the model calls, not in its gradients:
    what stands after the last layer, and how a layer pools, does not matter. Where it is not
    certain that a path is broken, there is one: a product of two signals, or a normalisation over
    channels, lets all that it reads pass.

    Args:
        model: a feed-forward network; it is run once in evaluation mode.
        masks: parameters without one count as kept.
        inputs: one batch; only its shape, device and kind are used.

    Raises:
        ValueError: masks that do not fit, or an operation (or a recurrent layer) through which
            paths are not defined.

    Source: effective sparsity, Vysogorets and Kempe (arXiv 2107.02306).
    """
    for module in model.modules():
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            raise ValueError(
                f"paths through {type(module).__name__} are not defined here: "
                "feed-forward layers only"
            )
    pairs = matched(model, masks)
    kept: dict[Tensor, Tensor] = dict(pairs)
    tape = record(model, inputs)
    weights: dict[Tensor, Tensor] = {}
    for parameter in model.parameters():
        mask = kept.get(parameter, torch.ones_like(parameter, dtype=torch.bool))
        weights[parameter] = mask.to(parameter.device, torch.float64).requires_grad_(True)
    with torch.enable_grad():
        outputs = Reach(tape, weights).outputs
        total = sum(output.sum() for output in outputs)
    on_path = {parameter: torch.zeros_like(value) for parameter, value in weights.items()}
    if isinstance(total, Tensor) and total.requires_grad:
        gradients = torch.autograd.grad(total, list(weights.values()), allow_unused=True)
        on_path |= {
            parameter: slope for parameter, slope in zip(weights, gradients) if slope is not None
        }
    return {
        name: mask & (on_path[parameter] > 0).to(mask.device)
        for name, (parameter, mask) in zip(masks, pairs)
    }


def compact(
    model: nn.Module, masks: Masks, inputs: Tensor, *, convolutions: bool = True
) -> tuple[nn.Module, Masks]:
    """A copy of a masked network and its masks, without the units and channels that the network has
    no use for.

    A unit or channel goes if no path of kept weights leads from it to an output, or if what reads
    it always sees zero. Channels that are added to one another (a residual stream) go together or
    not at all. The copy computes the same function, in evaluation and in training, and trained with
    its masks it goes the same way, but for rounding (and for the draws of dropout). So a channel
    that gets nothing, but has a bias or passes through batch norm, stays while it is read: it sends
    a constant, and the constant is trained.

    All tensors are narrow, none is gathered from a wide one; except the inputs of linear layers, of
    which single ones may go (pixels, and places of a flattened map).

    Args:
        model, masks, inputs: see ``effective``; weights without a mask count as kept.
        convolutions: with False only linear layers get smaller.

    Returns:
        the smaller network, of the model's own classes and with its parameters' names; and masks of
        their new shapes.

    Raises:
        ValueError: an operation that ``effective`` refuses, or one that keeps every channel in its
            place, by name; or a forward pass with sizes or places of channels written into it.
    """
    kept: dict[Tensor, Tensor] = dict(matched(model, masks))
    tape = record(model, inputs)
    weights: dict[Tensor, Tensor] = {}
    for parameter in model.parameters():
        mask = kept.get(parameter, torch.ones_like(parameter, dtype=torch.bool))
        weights[parameter] = mask.to(parameter.device, torch.float64)
    channels = Channels(model, tape, convolutions=convolutions)
    needed = channels.needed(kept, Reach(tape, weights, constants=True))
    smaller = _Smaller(model, channels, needed)
    if channels.not_understood and not smaller.changes:
        names = ", ".join(dict.fromkeys(channels.not_understood))
        raise ValueError(
            "this network cannot be made smaller: "
            f"it is not known which channels these mix: {names}"
        )
    small_masks = {}
    for name, (parameter, mask) in zip(masks, matched(model, masks)):
        small_masks[name] = smaller.cut(parameter, mask)
    _check(model, masks, smaller, small_masks, inputs)
    return smaller.of(model), small_masks


class _Smaller:
    """How the tensors of a network are cut: tensor → {dimension: places that stay}."""

    def __init__(self, model, channels, needed):
        self.names = _by_name(model)
        self.places: dict[Tensor, dict[int, Tensor]] = {}
        for tensor, sides in channels.sides.items():
            for dim, numbers in sides.items():
                if not needed[numbers].all():
                    self.places.setdefault(tensor, {})[dim] = needed[numbers].nonzero().squeeze(1)
        self.selected = {}
        linear = {module.weight for module in model.modules() if type(module) is nn.Linear}
        for weight in linear & channels.read.keys():
            remaining = needed[channels.sides[weight][1]]
            read = channels.read[weight] & remaining
            if not read.any():
                # A layer that reads nothing keeps its first input.
                read = remaining & (remaining.cumsum(0) == 1)
            if not torch.equal(read, remaining):
                self.places.setdefault(weight, {})[1] = read.nonzero().squeeze(1)
                self.selected[weight] = read[remaining].nonzero().squeeze(1)
        self.changes = bool(self.places)

    def cut(self, tensor, values):
        """The part that stays of the values of a tensor of the network: its own, or its mask."""
        for dim, places in self.places.get(tensor, {}).items():
            values = values.index_select(dim, places.to(values.device))
        return values

    def of(self, model):
        """A smaller copy of the network, or of a copy of it."""
        small = bare_copy(model)
        parameters = {}
        for name, values in _by_name(small).items():
            original = self.names[name]
            if original not in self.places:
                continue
            path, _, attribute = name.rpartition(".")
            module = small.get_submodule(path)
            if original not in parameters:
                cut = _as_laid_out(self.cut(original, values.detach()), values)
                is_parameter = isinstance(values, nn.Parameter)
                parameters[original] = (
                    nn.Parameter(cut, values.requires_grad) if is_parameter else cut
                )
            setattr(module, attribute, parameters[original])
            if attribute == "weight" and original in self.selected:
                module.__class__ = _SelectedLinear
                module.register_buffer(
                    "selected", self.selected[original].to(values.device), persistent=False
                )
            _tell_sizes(module)
        return small


def _by_name(model):
    """All parameters and buffers, under every name that they have."""
    tensors = dict(model.named_parameters(remove_duplicate=False))
    return tensors | dict(model.named_buffers(remove_duplicate=False))


class _SelectedLinear(nn.Linear):
    """A linear layer that reads some of its inputs only."""

    def forward(self, inputs):
        return nn.functional.linear(inputs.index_select(-1, self.selected), self.weight, self.bias)


def _as_laid_out(values, original):
    """In the memory layout of the original, which decides the kernel of a convolution."""
    if original.dim() == 4 and original.is_contiguous(memory_format=torch.channels_last):
        return values.contiguous(memory_format=torch.channels_last)
    return values.contiguous()


def _tell_sizes(module):
    """The sizes that a module has beside its tensors."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.modules.conv._ConvNd):
        module.out_channels, module.in_channels = module.weight.shape[:2]
        if module.groups > 1:  # only those with one channel a group are ever cut
            module.groups = module.in_channels = module.out_channels
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        module.num_features = len(
            module.weight if module.weight is not None else module.running_mean
        )


@torch.no_grad()
def _check(model, masks, smaller, small_masks, inputs):
    """ValueError where the smaller network is another function, be it after some training.

    Biases and normalisation layers get random values for it, since at the start they hide what is
    wrong.
    """
    generator = torch.Generator().manual_seed(0)
    original = bare_copy(model).eval()
    for module in original.modules():
        for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            if tensor.is_floating_point() and (is_norm(module) or tensor.dim() == 1):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    small = smaller.of(original)
    apply_(original, masks)
    apply_(small, small_masks)
    batch = torch.randn(4, *inputs.shape[1:], generator=generator).to(inputs)
    expected = original(batch)
    try:
        result = small(batch)
    except (RuntimeError, IndexError, TypeError):
        result = None
    pairs = zip(tree_leaves(expected), tree_leaves(result))
    same = result is not None
    for expected_output, output in pairs:
        if same and isinstance(expected_output, Tensor):
            same = _close(expected_output, output)
    if not same:
        raise ValueError(
            "this network cannot be made smaller: "
            "sizes or places of channels are written into its forward pass"
        )


def _close(first, second):
    return first.shape == second.shape and bool(
        (first - second).abs().max() <= 1e-3 * first.abs().max()
    )
