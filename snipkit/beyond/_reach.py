"""What depends on what in a network: every operation of a recorded pass is replaced by sums of what
it reads.

A value is 1 where anything may arrive and 0 where nothing can, and so is its gradient after every
operation: paths are looked for, not counted, so that nothing under- or overflows, and no slope that
happens to be 0 hides a path.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from snipkit.beyond._operations import (
    AS_THEY_ARE,
    BATCH_NORMS,
    MAX_POOLS,
    REDUCTIONS,
    RESHAPES,
    SOFTMAXES,
)
from snipkit.beyond._tape import Call, Tape

ADAPTIVE_MAX_POOLS = {
    "adaptive_max_pool1d": F.adaptive_avg_pool1d,
    "adaptive_max_pool2d": F.adaptive_avg_pool2d,
    "adaptive_max_pool3d": F.adaptive_avg_pool3d,
}


class Reach:
    """The values of a recorded pass: 1 where a path of kept weights arrives.

    Args:
        tape: the pass.
        weights: tensor of the pass (a parameter) → what stands for it: 1 where kept, 0 where
            pruned; with or without a gradient.
        constants: whether what biases and normalisation layers send counts too, as if it came from
            the input.

    Raises:
        ValueError: an operation of which it is not known what it reads, by name.
    """

    def __init__(self, tape: Tape, weights: Mapping[Tensor, Tensor], *, constants: bool = False):
        self.constants = constants
        self.values: dict[int, Tensor] = {id(weight): value for weight, value in weights.items()}
        self.held = set(self.values)  # depends on weights
        self.fed = {id(tape.inputs)}  # depends on the input
        self.values[id(tape.inputs)] = torch.ones_like(tape.inputs, dtype=torch.float64)
        for call in tape.calls:
            self._follow(call)
        self.outputs = [
            self.values[id(output)] for output in tape.outputs if id(output) in self.fed
        ]

    def of(self, tensor: Tensor) -> Tensor:
        """1 where a path arrives at an entry of a tensor of the pass."""
        if id(tensor) in self.values:
            return self.values[id(tensor)]
        return (tensor != 0).double() if tensor.is_floating_point() else tensor

    def _follow(self, call):
        sources = {id(tensor) for tensor in call.tensors}
        if call.name.startswith("new_") or call.name.endswith("_like"):
            sources = set()  # it takes a shape from a tensor, and no values
        fed, held = bool(sources & self.fed), bool(sources & self.held)
        if not fed and not held:
            for tensor in tree_leaves(call.result):  # in place, it may have been more before
                self._forget(tensor)
            return
        results = self._surrogate(call)
        leaves = tree_leaves(call.result)
        if isinstance(results, Tensor):
            # A maximum has indices, a norm statistics: they depend on the same.
            results = [results] * len(leaves)
        for tensor, value in zip(leaves, results):
            if not isinstance(tensor, Tensor):
                continue
            self._forget(tensor)
            self.values[id(tensor)] = _binary(value)
            (self.fed if fed else self.held).add(id(tensor))

    def _forget(self, tensor):
        self.values.pop(id(tensor), None)
        self.fed.discard(id(tensor))
        self.held.discard(id(tensor))

    def _surrogate(self, call: Call):
        name, source = call.name, call.arguments[0]
        if call.pointwise:
            return self._pointwise(call)
        if name in ("convolution", "mkldnn_convolution", "_convolution", "cudnn_convolution"):
            return self._convolution(call)
        if name in ("mm", "bmm", "mv", "dot"):
            return self._product(*call.arguments[:2])
        if name in ("addmm", "baddbmm", "addmv"):
            return self._with_bias(self._product(*call.arguments[1:3]), source)
        if name in BATCH_NORMS:
            return self._normalised(self.of(source))
        if name == "constant_pad_nd":
            return F.pad(self.of(source), call.arguments[1])
        if name in SOFTMAXES:
            dim = call.argument(1, "dim", -1)
            return self.of(source) + self.of(source).sum(dim, keepdim=True)
        if name in ("native_layer_norm", "_fused_rms_norm"):
            dims = tuple(range(-len(call.arguments[1]), 0))
            return self._normalised(self.of(source) + self.of(source).sum(dims, keepdim=True))
        if name == "native_group_norm":
            value, groups = self.of(source), call.arguments[6]
            grouped = value.reshape(value.shape[0], groups, -1)
            return self._normalised((grouped + grouped.sum(2, keepdim=True)).view_as(value))
        if name == "glu":
            return sum(self.of(source).chunk(2, call.argument(1, "dim", -1)))
        if name in REDUCTIONS:
            return self._reduction(call)
        if name in MAX_POOLS:
            return _max_pool(call, self.of(source))
        if name in ADAPTIVE_MAX_POOLS:
            return ADAPTIVE_MAX_POOLS[name](self.of(source), call.arguments[1])
        if name in RESHAPES and not isinstance(call.arguments[1], torch.dtype):
            return self.of(source).reshape(call.arguments[1])
        if name in AS_THEY_ARE and not self._chosen_by_signal(call):
            options = dict(call.options)
            for option in ("dtype", "memory_format"):
                options.pop(option, None)
            arguments = tree_map_only(Tensor, self.of, call.arguments)
            return call.function(*arguments, **options)
        raise ValueError(f"paths through torch's operation {name} are not defined here")

    def _pointwise(self, call):
        """The sum of what it reads.

        But what is multiplied by a pruned weight or by a constant 0 is 0.
        """
        fed = [tensor for tensor in call.tensors if id(tensor) in self.fed]
        unfed = [tensor for tensor in call.tensors if id(tensor) not in self.fed]
        if call.name == "mul" and len(fed) + len(unfed) == 2 and len(fed) < 2:
            return self.of(call.tensors[0]) * self.of(call.tensors[1])
        total = torch.zeros((), dtype=torch.float64, device=call.tensors[0].device)
        for tensor in call.tensors:
            value = self.of(tensor)
            is_held = id(tensor) in self.held
            counts = id(tensor) in self.fed or (is_held and (self.constants or not fed))
            if not counts and is_held:
                value = self._slope(value)
            elif not counts:
                value = torch.zeros_like(value, dtype=total.dtype)
            total = total + value
        if (self.constants or not fed) and _of_nothing(call):
            total = total + 1
        return total

    def _chosen_by_signal(self, call):
        """Whether it depends on the input which entries an indexing takes."""
        return call.name in ("index", "index_select", "gather") and any(
            id(tensor) in self.fed for tensor in call.tensors[1:]
        )

    def _slope(self, value):
        """0, but with the gradient of a value.

        A constant does not come from the input, but sits on its path.
        """
        return value - value.detach()

    def _with_bias(self, value, bias):
        if bias is None:
            return value
        if id(bias) in self.fed or self.constants:
            return value + self.of(bias)
        if id(bias) in self.held:
            return value + self._slope(self.of(bias))
        return value

    def _product(self, first, second):
        """A matrix product.

        Where both factors are signals, constants in either let the other pass.
        """
        if (
            id(first) in self.fed
            and id(second) in self.fed
            and first.dim() > 1
            and second.dim() > 1
        ):
            return self.of(first).sum(-1, keepdim=True) + self.of(second).sum(-2, keepdim=True)
        if id(first) in self.fed and id(second) in self.fed:
            raise ValueError("paths through products of two vectors are not defined here")
        return torch.matmul(self.of(first), self.of(second))

    def _convolution(self, call):
        source, weight, bias, *options = call.arguments
        if id(weight) in self.fed:
            raise ValueError(
                "paths through a convolution whose kernel depends on the input are not defined here"
            )
        value = torch.convolution(self.of(source), self.of(weight), None, *options[:6])
        if bias is None:
            return value
        shape = (1, -1) + (1,) * (value.dim() - 2)
        bias_value = self.of(bias).view(shape)
        if not self.constants:
            bias_value = self._slope(bias_value)
        return value + bias_value

    def _normalised(self, value):
        """What a normalisation layer sends on.

        Its shift makes a constant of what nothing arrives at.
        """
        return torch.ones_like(value) if self.constants else value

    def _reduction(self, call):
        dims_place, keep_place = REDUCTIONS[call.name]
        dims = call.argument(dims_place, "dim")
        keep = call.argument(keep_place, "keepdim", False)
        value = self.of(call.arguments[0])
        if isinstance(dims, Tensor) or call.function._overloadname == "other":
            raise ValueError(f"paths through torch's operation {call.name} are not defined here")
        if dims is None or dims == []:
            dims = list(range(value.dim()))
        total = value.sum(dims, keepdim=keep)
        return total + 1 if self.constants else total


def _binary(value):
    """Binarise the value and, on the way back, its gradient: 1 where any path arrives."""
    arrives = (value > 0).to(torch.float64)
    if not value.requires_grad:
        return arrives
    arrives = arrives + arrives * (value - value.detach())
    arrives.register_hook(lambda gradient: (gradient > 0).to(gradient.dtype))
    return arrives


def _of_nothing(call):
    """Whether a function of zeros is anything else than zeros (as the sigmoid is)."""
    zeros = tree_map(
        lambda leaf: torch.zeros_like(leaf) if isinstance(leaf, Tensor) else leaf, call.arguments
    )
    function = call.function
    if function._schema.name.endswith("_"):  # a fresh tensor is changed
        return bool((function(*zeros, **call.options) != 0).any())
    results = [
        leaf for leaf in tree_leaves(function(*zeros, **call.options)) if isinstance(leaf, Tensor)
    ]
    return any(bool((result != 0).any()) for result in results)


def _max_pool(call, value):
    """The sum over each window, of which the maximum is one entry."""
    result = tree_leaves(call.result)[0]
    places = int(call.name[8])

    def along_axes(number, name, default):
        sizes = call.argument(number, name, default) or default
        sizes = [sizes] if isinstance(sizes, int) else list(sizes)
        return sizes * places if len(sizes) == 1 else sizes

    kernel = along_axes(1, "kernel_size", None)
    stride = along_axes(2, "stride", kernel)
    padding = along_axes(3, "padding", [0])
    dilation = along_axes(4, "dilation", [1])
    widths = []
    for axis in reversed(range(places)):
        size, steps = value.shape[axis - places], result.shape[axis - places]
        reached = (steps - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1
        # In ceil mode it reaches further than its padding.
        widths += [padding[axis], max(reached - size - padding[axis], 0)]
    batched = value.dim() == places + 2
    value = F.pad(value if batched else value.unsqueeze(0), widths)
    channels = value.shape[1]
    window = value.new_ones(channels, 1, *kernel)
    convolve = (nn.functional.conv1d, nn.functional.conv2d, nn.functional.conv3d)[places - 1]
    total = convolve(value, window, None, stride, 0, dilation, channels)
    for axis in range(-places, 0):
        total = total.narrow(axis, 0, result.shape[axis])
    return total if batched else total.squeeze(0)
