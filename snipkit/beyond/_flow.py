"""What flows through a network from inputs of ones to its logits: SynFlow's objective."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from snipkit._scoring.objective import Objective, Scores


class Flow(Objective):
    """R, the sum of the outputs for inputs of ones (``batches``), in place of a loss."""

    def _losses(self) -> Iterator[tuple[Tensor, float]]:
        with Heads() as heads:
            outputs = self._outputs(self.batches, 0)
        if not torch.is_tensor(outputs):
            kind = type(outputs).__name__
            raise ValueError(f"SynFlow sums the outputs, but they are {kind}, not a tensor")
        yield heads.before(outputs).sum(), 1

    def gradient(self) -> Scores:
        """∂R/∂|w|. ValueError where an output shrinks as a weight of the last layer grows."""
        called: list[nn.Module] = []
        handles = []
        owners: dict[nn.Module, str] = {}
        for name in self.parameters:
            owner = self.model.get_submodule(name.rpartition(".")[0])
            if isinstance(owner, (nn.Linear, nn.modules.conv._ConvNd)):
                owners.setdefault(owner, name)
        for owner in owners:
            handles.append(owner.register_forward_hook(lambda module, *_: called.append(module)))
        try:
            slopes = super().gradient()
        finally:
            for handle in handles:
                handle.remove()
        if called:
            name = owners[called[-1]]
            lowest, largest = slopes[name].min().item(), slopes[name].abs().max().item()
            if lowest < -1e-9 * largest:  # more than rounding
                raise ValueError(
                    f"SynFlow sums the outputs, but they shrink where {name} grows (is a softmax "
                    "written out after it?): let the model end in its logits"
                )
        return slopes


class Heads(TorchFunctionMode):
    """Remembers what softmax and its like were called on."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function in HEADS | RESHAPES and args and result is not args[0]:
            self.sources[id(result)] = result, args[0]
        return result

    def before(self, outputs: Tensor) -> Tensor:
        """What the last of these functions was called on, if the outputs come from them alone."""
        tensor = outputs
        while id(tensor) in self.sources:
            _, tensor = self.sources[id(tensor)]
        return tensor


#: what turns logits into something else, entry by entry or within a row
HEADS = {
    F.softmax,
    F.log_softmax,
    F.softmin,
    F.logsigmoid,
    F.hardsigmoid,
    F.hardtanh,
    F.normalize,
    torch.softmax,
    torch.log_softmax,
    torch.sigmoid,
    torch.tanh,
    torch.special.expit,
    torch.special.softmax,
    torch.special.log_softmax,
    Tensor.softmax,
    Tensor.log_softmax,
    Tensor.sigmoid,
    Tensor.tanh,
}
#: what keeps all entries
RESHAPES = {
    torch.flatten,
    torch.reshape,
    torch.squeeze,
    torch.unsqueeze,
    torch.transpose,
    torch.permute,
    Tensor.flatten,
    Tensor.reshape,
    Tensor.squeeze,
    Tensor.unsqueeze,
    Tensor.transpose,
    Tensor.permute,
    Tensor.view,
    Tensor.contiguous,
}
