"""Deep copies of models, which torch refuses where a model keeps a tensor of its last pass."""

import copy

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class _Detaching(TorchFunctionMode):
    """``copy.deepcopy`` of a tensor with a history, which torch refuses, copies its values."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            return memo.setdefault(id(tensor), tensor.detach().clone())
        return function(*args, **(kwargs or {}))


def copied(model: nn.Module) -> nn.Module:
    """A deep copy of a model, which may hold activations of its last pass.

    Raises:
        ValueError: names the attribute that cannot be copied.
    """
    with _Detaching():
        try:
            return copy.deepcopy(model)
        except (TypeError, RuntimeError, copy.Error) as error:
            culprit = _not_copied(model)
            raise ValueError(
                f"the model cannot be copied, which this needs: {culprit} ({error}); "
                "set it to None first"
            ) from error


def _not_copied(model: nn.Module) -> str:
    """The attribute of a model that ``copy.deepcopy`` cannot copy."""
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute == "_modules":
                continue
            try:
                copy.deepcopy(value)
            except Exception:
                return f"attribute {attribute} of {name or 'the model'}, a {type(value).__name__}"
    return type(model).__name__
