"""What a parameter really is: which memory it lies in, and whether its layer multiplies by it."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from snipkit._copies import copied

# Functions by the name that torch gives them. The weight is the second argument of the first kind.
LAYER_FUNCTIONS = (
    "linear",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
)
PRODUCTS = ("matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "einsum", "tensordot")


def storage_of(tensor: Tensor) -> int:
    """A number for the memory that a tensor lies in: the same for all tensors in it."""
    if tensor.layout != torch.strided or nn.parameter.is_lazy(tensor):
        return id(tensor)
    return tensor.untyped_storage()._cdata


def share_memory(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors have an entry in common."""
    for tensor in (first, second):
        if nn.parameter.is_lazy(tensor) or not tensor.numel():
            return False
    if storage_of(first) != storage_of(second):
        return False
    start, end = _extent(first)
    second_start, second_end = _extent(second)
    if end <= second_start or second_end <= start:
        return False  # such as the weights of an LSTM on a GPU, side by side in one memory
    if first.dtype != second.dtype or (first.is_contiguous() and second.is_contiguous()):
        return True
    places = torch.arange(max(end, second_end), device="cpu")
    first_places = places.as_strided(first.shape, first.stride(), first.storage_offset()).reshape(
        -1
    )
    second_places = places.as_strided(
        second.shape, second.stride(), second.storage_offset()
    ).reshape(-1)
    return bool(torch.isin(first_places, second_places).any())


def overlaps_itself(tensor: Tensor) -> bool:
    """Whether entries of a tensor share their memory, as those of an expanded one do."""
    if tensor.layout != torch.strided or nn.parameter.is_lazy(tensor):
        return False
    return any(size > 1 and not stride for size, stride in zip(tensor.shape, tensor.stride()))


def _extent(tensor: Tensor) -> tuple[int, int]:
    """Where a tensor begins in its storage, and where it ends, in entries."""
    start = int(tensor.storage_offset())
    length = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    return start, start + int(length)


def is_recomputed(module: nn.Module, own_name: str) -> bool:
    """Whether a layer multiplies by something that is not 0 where its weight is 0.

    A copy of the layer is called with half of its weight at 0, and the weight that reaches torch's
    function is looked at. Scaled weights, rounded ones and those in another precision have the same
    zeros; standardised ones have not.
    """
    weight = getattr(module, own_name)
    from_torch = (getattr(module.forward, "__module__", None) or "").startswith("torch.")
    if from_torch or weight.is_meta or weight.dim() < 2 or not weight.is_floating_point():
        return False
    if next(module.children(), None) is not None:
        return False
    entries = torch.linspace(1, 2, weight.numel(), device=weight.device)
    entries[::2] = 0
    try:
        layer = copied(module).eval()
        watch = _WeightWatch(weight)
        with torch.no_grad(), torch.random.fork_rng(devices=[]), watch:
            getattr(layer, own_name).copy_(entries.view(weight.shape))
            layer.forward(_inputs_for(module, weight))  # its hooks are made for other inputs
    except Exception:
        # It takes something else than one tensor of that shape, so nothing is known about it.
        return False
    return any(count > weight.numel() // 2 for count in watch.nonzero_counts)


def loses_zeros(parametrized: nn.Module, path: str) -> bool:
    """Whether a weight that is computed from parameters (``torch.nn.utils.parametrize``) is not 0
    where one of them is 0.

    Args:
        parametrized: the layer.
        path: of the parameter in it, ``parametrizations.weight.original``.
    """
    layer = copied(parametrized)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        original: Tensor = layer.get_parameter(path)
        entries = torch.linspace(1, 2, original.numel(), device=original.device)
        entries[::2] = 0
        original.copy_(entries.view(original.shape))
        weight: Tensor = getattr(layer, path.split(".")[1])
        if weight.shape != original.shape:
            return False  # scales of rows, and the like
        return bool(weight[original == 0].any())


def refuse_recomputed(model: nn.Module, names: Iterable[str]) -> None:
    """Raise ValueError for masks of weights that their layers recompute (see ``is_recomputed``)."""
    recomputed = []
    for name in names:
        prefix, mark, path = name.rpartition("parametrizations.")
        if mark:
            layer = model.get_submodule(prefix.removesuffix("."))
            if loses_zeros(layer, mark + path):
                recomputed.append(name)
            continue
        prefix, _, own_name = name.rpartition(".")
        if own_name.startswith("weight") and is_recomputed(model.get_submodule(prefix), own_name):
            recomputed.append(name)
    if recomputed:
        raise ValueError(
            f"{', '.join(recomputed)}: the layer computes another weight from it, in which a 0 is "
            "no pruned connection (weight standardisation): leave it out of the masks"
        )


def refuse_shared(model: nn.Module, masked: Iterable[tuple[str, Tensor]]) -> None:
    """Raise ValueError for masks of parameters of which an entry is also one of another parameter.

    Args:
        masked: the parameters with a mask, by name.
    """
    in_storage: dict[int, list[tuple[str, Tensor]]] = {}
    for name, parameter in model.named_parameters():
        in_storage.setdefault(storage_of(parameter), []).append((name, parameter))
    for name, tensor in masked:
        for other_name, candidate in in_storage.get(storage_of(tensor), []):
            if candidate is not tensor and share_memory(tensor, candidate):
                raise ValueError(
                    f"{name} shares memory with {other_name}, whose entries would be pruned with "
                    "it: tie them as one parameter (second.weight = first.weight, not .data)"
                )


def _inputs_for(module: nn.Module, weight: Tensor) -> Tensor:
    """Ones that a layer with such a weight takes; more of them than the weight has rows."""
    channels, *sizes = weight.shape[1:]
    if isinstance(module, nn.modules.conv._ConvNd):
        channels = module.in_channels
        sizes = [rate * (size - 1) + 1 for size, rate in zip(module.kernel_size, module.dilation)]
    else:
        channels *= getattr(module, "groups", 1)
    return weight.detach().new_ones(len(weight) + 1, channels, *sizes)


class _WeightWatch(TorchFunctionMode):
    """Counts the non-zero entries of what torch's functions get in the place of a weight."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.sizes = sorted(weight.shape)  # in order, since a layer may transpose it
        self.nonzero_counts: list[int] = []

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        operands: list[Any] = []
        if name in LAYER_FUNCTIONS:
            operands = [*args[1:2], kwargs.get("weight")]
        elif name in PRODUCTS:
            operands = [*args, *kwargs.values()]
        for operand in operands:
            if torch.is_tensor(operand) and sorted(operand.shape) == self.sizes:
                self.nonzero_counts.append(int(operand.count_nonzero()))
        return function(*args, **kwargs)
