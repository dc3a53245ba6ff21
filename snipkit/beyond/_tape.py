"""A network as the list of torch operations that it calls.

What it is written in does not matter then.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from snipkit._attach import suspended

EXAMPLES = 2  # in the batch of a recording: with a single one, ``squeeze()`` would drop the batch


class Call(NamedTuple):
    """One operation: what was called, with what, and what it returned."""

    function: Any
    arguments: tuple
    options: dict[str, Any]
    result: Any

    @property
    def name(self) -> str:
        """As in ``aten::relu_``, without the library and the mark of an operation in place."""
        return self.function._schema.name.partition("::")[2].rstrip("_")

    @property
    def pointwise(self) -> bool:
        """Whether each entry of the result depends on the same entry of the arguments alone."""
        return torch.Tag.pointwise in self.function.tags or self.name in POINTWISE

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among its arguments, those in lists too."""
        leaves = tree_leaves((self.arguments, self.options))
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        """An argument by its place or its name."""
        if len(self.arguments) > place:
            return self.arguments[place]
        return self.options.get(name, default)


#: operations that torch does not mark as such: copies, which may change the type or the memory of a
#: tensor, and some activations
POINTWISE = (
    *("_to_copy", "clone", "alias", "detach", "lift_fresh", "lift_fresh_copy", "contiguous"),
    *("hardswish", "log_sigmoid_forward", "_prelu_kernel", "rrelu_with_noise"),
)


class Tape(NamedTuple):
    """A forward pass: the input, all calls in their order, and the tensors that came out."""

    inputs: Tensor
    calls: list[Call]
    outputs: list[Tensor]


class _Recorder(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = []

    @classmethod
    def _should_skip_dynamo(cls):
        """Torch would import its compiler to keep it away from this class; that takes seconds."""
        return False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.calls.append(Call(function, args, kwargs or {}, result))
        return result


@contextlib.contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards the mode that each module was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def _without_fused_attention():
    """Attention in its parts, products and a softmax, not as one operation of its own."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def record(model: nn.Module, inputs: Tensor) -> Tape:
    """Run a model in evaluation mode on a batch of ones, and write down every operation of torch
    that it calls.

    Raises:
        TypeError: inputs that are no tensor.
        ValueError: inputs that are not floating-point, or an assignment into a part of a tensor.
    """
    if not isinstance(inputs, Tensor):
        raise TypeError(f"inputs is of type {type(inputs).__name__}; it is one batch, a tensor")
    if not inputs.is_floating_point():
        raise ValueError(f"paths start at floating-point inputs, but these are {inputs.dtype}")
    model = getattr(model, "_orig_mod", model)  # of torch.compile
    dtypes = [parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()]
    ones = torch.ones(
        EXAMPLES, *inputs.shape[1:], dtype=(dtypes or [inputs.dtype])[0], device=inputs.device
    )
    recorder = _Recorder()
    with torch.no_grad(), in_evaluation(model), suspended(), _without_fused_attention(), recorder:
        outputs = model(ones)
    _refuse_partial_assignments(recorder.calls)
    tensors = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
    return Tape(ones, recorder.calls, tensors)


def _refuse_partial_assignments(calls):
    """In place, other entries would change than those that the call names.

    A view's change is its base's, too.
    """
    tensors_in_memory: dict[int, set[int]] = {}
    for call in calls:
        in_place = call.function._schema.name.endswith("_")
        target = (
            call.arguments[0] if call.arguments and isinstance(call.arguments[0], Tensor) else None
        )
        for tensor in [*call.tensors, *tree_leaves(call.result)]:
            if isinstance(tensor, Tensor) and tensor.numel():
                tensors_in_memory.setdefault(tensor.untyped_storage().data_ptr(), set()).add(
                    id(tensor)
                )
        if not in_place or target is None or not target.numel():
            continue
        shared = len(tensors_in_memory[target.untyped_storage().data_ptr()]) > 1
        if shared and (len(call.tensors) > 1 or call.name in ("fill", "zero")):
            raise ValueError(
                f"paths through {call.name}_ on a part of a tensor (an assignment) "
                "are not defined here"
            )
