"""How much a batch weighs in the loss of all examples at once: it is joined with another one."""

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

from snipkit._scoring.arguments import Loss
from snipkit._scoring.evaluation import same_every_time


class Part:
    """Outputs and targets of one batch under a loss, to compare with other batches."""

    def __init__(self, outputs: Any, targets: Tensor, loss: Loss):
        self.outputs = _pytree.tree_map_only(Tensor, Tensor.detach, outputs)
        self.targets, self.loss = targets, loss

    def joined(self, second: "Part") -> "Part":
        """Both batches as one."""
        outputs = _pytree.tree_map(_join, self.outputs, second.outputs)
        return Part(outputs, torch.cat([self.targets, second.targets]), self.loss)

    def slopes(self) -> list[Tensor]:
        """∂L/∂outputs, for each tensor of the outputs that can have a derivative."""
        leaves, structure = _pytree.tree_flatten(self.outputs)
        differentiable = []
        for place, leaf in enumerate(leaves):
            if torch.is_tensor(leaf) and leaf.is_floating_point():
                leaves[place] = leaf.detach().requires_grad_()
                differentiable.append(leaves[place])
        outputs = _pytree.tree_unflatten(leaves, structure)
        with same_every_time(self.targets.device, 0):
            value = self.loss(outputs, self.targets)
        if not value.requires_grad:
            return [torch.zeros_like(leaf) for leaf in differentiable]
        return list(
            torch.autograd.grad(value, differentiable, allow_unused=True, materialize_grads=True)
        )

    def has_slope(self) -> bool:
        return any(bool(slope.any()) for slope in self.slopes())

    def weight_of(self, second: "Part") -> float:
        """How much the other batch weighs in the loss of both joined, where this one weighs 1.

        If L(joined) = a L(this) + b L(other), the slopes of L(joined) are a and b times those of
        the two, whatever a mean is taken over: examples, labels that are not ignored, weights of
        classes, or nothing.

        Raises:
            ValueError: the slopes are no such multiples.
        """
        try:
            together = self.joined(second).slopes()
            first_slopes = [slope[: len(part)] for slope, part in zip(together, self.slopes())]
            second_slopes = [slope[len(part) :] for slope, part in zip(together, first_slopes)]
            first_factor = _multiple(first_slopes, self.slopes())
            second_factor = _multiple(second_slopes, second.slopes())
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise _no_mean(str(error).splitlines()[0]) from error
        return second_factor / first_factor

    def ignores(self, second: "Part") -> bool:
        """Whether the other batch changes nothing in the loss of both joined."""
        joined = self.joined(second)
        value = joined.loss(joined.outputs, joined.targets)
        return torch.allclose(value, self.loss(self.outputs, self.targets), rtol=1e-3)


def _join(first: Any, second: Any) -> Any:
    return torch.cat([first, second]) if torch.is_tensor(first) and first.dim() else first


def _multiple(slopes: list[Tensor], reference: list[Tensor]) -> float:
    """The number that the reference has to be multiplied by. ValueError: there is none."""
    square = sum((part * part).sum().item() for part in reference)
    if not square and not any(slope.any() for slope in slopes):
        return 1.0  # a batch without slopes adds nothing, whatever it weighs
    factor = deviation = 0.0
    if square:
        pairs = list(zip(slopes, reference))
        factor = sum((slope * part).sum().item() for slope, part in pairs) / square
        deviation = sum((slope - factor * part).square().sum().item() for slope, part in pairs)
    if factor <= 0 or deviation > 1e-6 * factor**2 * square:
        raise ValueError("the loss of a batch depends on what else is in the batch")
    return factor


def _no_mean(reason: str) -> ValueError:
    return ValueError(
        "the loss is no mean over the batch: that of two batches joined is no weighted mean "
        f"of theirs ({reason}); score on one batch, or say by closure= what the mean is over"
    )
