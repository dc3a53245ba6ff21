"""Which channels of a network belong together, and which of them a mask leaves any use for.

Every channel has a number. A recorded pass is followed with tensors of these numbers in place of
values: what a network flattens, adds or concatenates needs no rule of its own then. Channels that
are added or multiplied stay or go together. Number 0 is what must stay: inputs, outputs, and
whatever an operation reads that is not understood.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from snipkit.beyond._groups import FIXED, Groups
from snipkit.beyond._operations import BATCH_NORMS, CUTS, MOVES, POOLS, REDUCTIONS, RESHAPES
from snipkit.beyond._reach import Reach
from snipkit.beyond._tape import Call, Tape


class Layer(NamedTuple):
    """A linear layer or a convolution, called once.

    The numbers of what it reads and of what it writes.
    """

    weight: Tensor
    source: Tensor
    inputs: Tensor
    outputs: Tensor


class Matrix(NamedTuple):
    """A weight, perhaps transposed.

    Which of its dimensions is where (None: one that it was expanded along).
    """

    weight: Tensor
    dims: tuple[int | None, ...]


class Channels:
    """The channels of a network.

    Attributes:
        layers: all linear layers and convolutions that are understood, in the order of their calls.
        sides: tensor of the model → {dimension: numbers of its channels}.
        not_understood: operations that all channels are kept for.
        read: weight of a layer → which of its inputs any needed output reads; filled by ``needed``.
    """

    def __init__(self, model: nn.Module, tape: Tape, *, convolutions: bool = True):
        self.convolutions = convolutions
        self.layers: list[Layer] = []
        self.sides: dict[Tensor, dict[int, Tensor]] = {}
        self.not_understood: list[str] = []
        self.read: dict[Tensor, Tensor] = {}
        self.groups = Groups()
        self.numbers: dict[int, Tensor] = {
            id(tape.inputs): torch.zeros(tape.inputs.shape, dtype=torch.long)
        }
        self.fed = {id(tape.inputs)}
        self.matrices: dict[int, Matrix] = {}
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.numel() > 1 and tensor.numel() == max(tensor.shape):
                numbers = self.groups.new(tensor.numel())
                self.numbers[id(tensor)] = numbers.view(tensor.shape)
                self._side(tensor, tensor.shape.index(tensor.numel()), numbers)
            elif tensor.numel() > 1:
                self.matrices[id(tensor)] = Matrix(tensor, tuple(range(tensor.dim())))
        for call in tape.calls:
            self._follow(call)
        for tensor in tape.outputs:
            self._fix(tensor)

    def needed(self, masks: Mapping[Tensor, Tensor], reach: Reach) -> Tensor:
        """Whether each number has to stay: some path leads from it to an output, and something
        arrives there.

        Args:
            masks: weights of layers → mask; others count as kept.
            reach: the same pass, with what arrives anywhere.
        """
        groups = self.groups.of_numbers()
        matrices = []
        for layer in self.layers:
            mask = masks.get(layer.weight, torch.ones_like(layer.weight, dtype=torch.bool)).cpu()
            arrives = reach.of(layer.source).cpu() > 0
            axis = 1 if layer.weight.dim() > 2 else -1
            arrives = arrives.movedim(axis, 0).flatten(1).any(1)
            matrices.append(mask.flatten(2).any(2) & arrives if mask.dim() > 2 else mask & arrives)
        needed = torch.zeros(len(groups), dtype=torch.bool)
        needed[FIXED] = True
        before = -1
        while int(needed.sum()) > before:
            before = int(needed.sum())
            for layer, matrix in zip(self.layers, matrices):
                read = matrix[needed[groups[layer.outputs]]].any(0)
                needed[groups[layer.inputs[read]]] = True
        for layer in self.layers:  # a layer without any channel is none: it keeps its first
            if not needed[groups[layer.outputs]].any():
                needed[groups[layer.outputs[0]]] = True
        for layer, matrix in zip(self.layers, matrices):
            read = matrix[needed[groups[layer.outputs]]].any(0)
            self.read[layer.weight] = self.read.get(layer.weight, torch.zeros_like(read)) | read
        return needed[groups]

    def _fix(self, tensor):
        """All of a tensor has to stay."""
        if id(tensor) in self.matrices:
            weight = self.matrices[id(tensor)].weight
            for dim, size in enumerate(weight.shape):
                self._side(weight, dim, torch.zeros(size, dtype=torch.long))
        elif id(tensor) in self.numbers:
            numbers = self.numbers[id(tensor)]
            self.groups.join(numbers, torch.zeros_like(numbers))

    def _side(self, weight, dim, numbers):
        """One dimension of a tensor of the model goes along these channels."""
        sides = self.sides.setdefault(weight, {})
        if dim in sides:
            self.groups.join(sides[dim], numbers)
        sides[dim] = numbers

    def _follow(self, call: Call):
        sources = {id(tensor) for tensor in call.tensors}
        if call.name.startswith("new_") or call.name.endswith("_like"):
            sources = set()  # it takes a shape from a tensor, and no values
        fed = bool(sources & self.fed)
        leaves = [leaf for leaf in tree_leaves(call.result) if isinstance(leaf, Tensor)]
        result = None
        if not fed and sources & self.matrices.keys():
            result = self._moved_weight(call)
        elif sources & (self.numbers.keys() | self.matrices.keys()):
            result = self._numbers(call, leaves[0]) if leaves else []
        if result is None and sources & (self.numbers.keys() | self.matrices.keys()):
            self.not_understood.append(call.name)
            for tensor in call.tensors:
                self._fix(tensor)
            result = [torch.zeros(leaf.shape, dtype=torch.long) for leaf in leaves]
        for leaf in leaves:
            if not any(leaf is source for source in call.tensors):
                self._forget(leaf)
        if isinstance(result, Matrix):
            self.matrices[id(leaves[0])] = result
            return
        if isinstance(result, Tensor):
            result = [result] * len(leaves)
        for leaf, numbers in zip(leaves, result or []):
            if numbers.shape == leaf.shape:
                self.numbers[id(leaf)] = numbers
                if fed:
                    self.fed.add(id(leaf))

    def _forget(self, tensor):
        self.numbers.pop(id(tensor), None)
        self.matrices.pop(id(tensor), None)
        self.fed.discard(id(tensor))

    def _moved_weight(self, call):
        """A weight that is only transposed."""
        source = call.arguments[0]
        if len(call.tensors) > 1 or id(source) not in self.matrices:
            return None
        weight, dims = self.matrices[id(source)]
        if call.name in ("detach", "alias") or (
            call.name in RESHAPES and call.result.shape == source.shape
        ):
            return Matrix(weight, dims)
        if call.name == "t":
            return Matrix(weight, dims[::-1])
        if call.name == "transpose":
            order = list(dims)
            first, second = call.arguments[1:3]
            order[first], order[second] = order[second], order[first]
            return Matrix(weight, tuple(order))
        if call.name == "permute":
            return Matrix(weight, tuple(dims[place] for place in call.arguments[1]))
        if call.name == "expand" and call.result.shape[-source.dim() :] == source.shape:
            return Matrix(weight, (None,) * (call.result.dim() - source.dim()) + dims)
        return None

    def _numbers(self, call, result):
        """The numbers of what a call returns; None where it is not understood."""
        source = call.arguments[0] if call.arguments else None
        if any(id(tensor) in self.matrices for tensor in call.tensors):
            return self._layer(call, result)
        if call.pointwise:
            return self._pointwise(call, result)
        if call.name in BATCH_NORMS:
            return self._batch_norm(call)
        if call.name in RESHAPES:
            return self._of(source).reshape(call.arguments[1])
        if call.name in MOVES:
            arguments = tree_map(
                lambda leaf: self._of(leaf) if isinstance(leaf, Tensor) else leaf, call.arguments
            )
            return call.function(*arguments, **call.options)
        if call.name in CUTS:
            return self._cut(call, result)
        if call.name in POOLS:
            per_channel = self._along(self._of(source), 1)
            return None if per_channel is None else _spread(per_channel, result.shape, 1)
        if call.name in REDUCTIONS or call.name in ("sum", "mean"):
            return self._reduction(call)
        return None

    def _of(self, tensor):
        return self.numbers.get(id(tensor), torch.zeros(tensor.shape, dtype=torch.long))

    def _along(self, numbers, dim):
        """The numbers along one dimension; None if they depend on the place in another one, too."""
        rows = numbers.movedim(dim, 0).flatten(1)
        return rows[:, 0] if bool((rows == rows[:, :1]).all()) else None

    def _layer(self, call, result):
        """A convolution, or a product of a signal and a weight: what it writes are new channels."""
        if call.name in ("convolution", "mkldnn_convolution", "cudnn_convolution"):
            return self._convolution(call, result)
        bias = None
        factors = call.arguments
        if call.name in ("addmm", "baddbmm"):
            bias, *factors = call.arguments
        elif call.name not in ("mm", "bmm"):
            return None
        source, weight = factors[:2]
        if (
            id(source) not in self.fed
            or id(weight) not in self.matrices
            or id(bias) in self.matrices
        ):
            return None
        weight, dims = self.matrices[id(weight)]
        features = self._along(self._of(source), -1)
        if features is None or weight.dim() != 2 or dims[-2:] != (1, 0):  # as nn.Linear calls it
            return None
        numbers = self._write(weight, source, features, result, -1, fixed=False)
        if bias is not None:
            self._beside(bias, numbers)
        return numbers

    def _convolution(self, call, result):
        source, weight, bias = call.arguments[:3]
        transposed, groups = call.arguments[6], call.arguments[8]
        if id(source) not in self.fed or id(weight) not in self.matrices or transposed:
            return None
        weight, dims = self.matrices[id(weight)]
        channels = self._along(self._of(source), 1)
        if channels is None or dims != tuple(range(weight.dim())):
            return None
        if groups == 1:
            numbers = self._write(weight, source, channels, result, 1, fixed=not self.convolutions)
        elif groups == len(channels) == len(weight):
            self._side(weight, 0, channels)
            numbers = _spread(channels, result.shape, 1)
        else:
            return None
        if bias is not None:
            self.groups.join(self._of(bias), self._along(numbers, 1))
        return numbers

    def _write(self, weight, source, inputs, result, dim, *, fixed):
        outputs = (
            torch.zeros(len(weight), dtype=torch.long) if fixed else self.groups.new(len(weight))
        )
        self._side(weight, 0, outputs)
        self._side(weight, 1, inputs)
        self.layers.append(Layer(weight, source, inputs, outputs))
        return _spread(outputs, result.shape, dim)

    def _pointwise(self, call, result):
        tensors = [
            tensor for tensor in call.tensors if tensor.numel() > 1 or id(tensor) in self.numbers
        ]
        full_tensors = []
        for tensor in tensors:
            if tensor.shape == result.shape and id(tensor) in self.numbers:
                full_tensors.append(tensor)
        if not full_tensors:
            return None
        numbers = self._of(full_tensors[0])
        for tensor in tensors:
            self._beside(tensor, numbers)
        return numbers

    def _beside(self, tensor, numbers):
        """Entries of a tensor go along channels; those that meet several channels have to stay."""
        numbers_of_tensor = self._of(tensor)
        shape = (1,) * (numbers.dim() - numbers_of_tensor.dim()) + tuple(numbers_of_tensor.shape)
        for dim, (size, full) in enumerate(zip(shape, numbers.shape)):
            if size == 1 < full and bool((numbers != numbers.narrow(dim, 0, 1)).any()):
                self.groups.join(numbers_of_tensor, torch.zeros_like(numbers_of_tensor))
                return
        self.groups.join(numbers_of_tensor.expand(numbers.shape), numbers)

    def _batch_norm(self, call):
        source, *statistics = call.arguments[:5]
        channels = self._along(self._of(source), 1)
        if channels is None:
            return None
        for tensor in statistics:
            if isinstance(tensor, Tensor) and tensor.numel() == len(channels):
                self.groups.join(self._of(tensor).flatten(), channels)
        return self._of(source)

    def _cut(self, call, result):
        """A part of a tensor, or more than it.

        Not of its channels: their count may be written into the network.
        """
        source = call.arguments[0]
        numbers = self._of(source)
        if call.name == "slice" and result.shape == source.shape:
            return numbers
        if call.name == "constant_pad_nd":
            widths = call.arguments[1]
            dims = [source.dim() - 1 - place // 2 for place, width in enumerate(widths) if width]
        elif call.name == "flip":
            dims = call.arguments[1]
        elif call.name.startswith("split"):
            dims = [call.argument(2, "dim", 0)]
        else:
            dims = [call.argument(1, "dim", 0)]
        for dim in dims:
            if bool((numbers != numbers.narrow(dim, 0, 1)).any()):
                return None
        if call.name == "constant_pad_nd":
            for dim in dims:
                numbers = numbers.narrow(dim, 0, 1)
            return numbers.expand(result.shape)
        return call.function(numbers, *call.arguments[1:], **call.options)

    def _reduction(self, call):
        numbers = self._of(call.arguments[0])
        dims_place, keep_place = REDUCTIONS.get(call.name, (1, 2))
        dims = call.argument(dims_place, "dim")
        if isinstance(dims, Tensor) or dims is None or dims == []:
            return None
        dims = [dims] if isinstance(dims, int) else list(dims)
        for dim in dims:
            if bool((numbers != numbers.narrow(dim, 0, 1)).any()):
                return None
        return numbers.amax(dims, keepdim=bool(call.argument(keep_place, "keepdim", False)))


def _spread(numbers, shape, dim):
    """Numbers along one dimension of a tensor of a shape."""
    view = [1] * len(shape)
    view[dim] = len(numbers)
    return numbers.view(view).expand(shape)
