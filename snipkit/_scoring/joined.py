"""How much a batch weighs in the loss of all examples at once: it is joined with another one."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from snipkit._scoring.arguments import Loss
from snipkit._scoring.evaluation import same_every_time


class Part:
    """Outputs and targets of one batch under a loss, to compare with other batches.

    Args:
        weights: the model's. A loss may depend on them past the outputs, by a penalty.
    """

    def __init__(self, outputs: Any, targets: Tensor, loss: Loss, weights: list[nn.Parameter]):
        self.outputs = _pytree.tree_map_only(Tensor, Tensor.detach, outputs)
        self.targets, self.loss, self.weights = targets, loss, weights

    def joined(self, second: "Part") -> "Part":
        """Both batches as one."""
        outputs = _pytree.tree_map(_join, self.outputs, second.outputs)
        targets = torch.cat([self.targets, second.targets])
        return Part(outputs, targets, self.loss, self.weights)

    def slopes(self) -> tuple[list[Tensor], list[Tensor | None]]:
        """∂L/∂outputs, for each tensor of the outputs that can have a derivative; and ∂L/∂weights
        past the outputs, None where there is no such way.
        """
        leaves, structure = _pytree.tree_flatten(self.outputs)
        differentiable = []
        for place, leaf in enumerate(leaves):
            if torch.is_tensor(leaf) and leaf.is_floating_point():
                leaves[place] = leaf.detach().requires_grad_()
                differentiable.append(leaves[place])
        outputs = _pytree.tree_unflatten(leaves, structure)
        with same_every_time(self.targets.device, 0):
            value = self.loss(outputs, self.targets)
        if not differentiable:
            raise _no_mean(f"outputs of type {type(self.outputs).__name__} cannot be joined")
        slopes: list[Tensor | None] = [None] * (len(differentiable) + len(self.weights))
        if value.requires_grad:
            variables = [*differentiable, *self.weights]
            slopes = list(torch.autograd.grad(value, variables, allow_unused=True))
        of_outputs = []
        for leaf, slope in zip(differentiable, slopes):
            of_outputs.append(torch.zeros_like(leaf) if slope is None else slope)
        return of_outputs, slopes[len(differentiable) :]

    def has_slope(self) -> bool:
        of_outputs, _ = self.slopes()
        return any(bool(slope.any()) for slope in of_outputs)

    def weight_of(self, second: "Part") -> float:
        """How much the other batch weighs in the loss of both joined, where this one weighs 1.

        If L(joined) = a L(this) + b L(other), the slopes of L(joined) are a and b times those of
        the two, whatever a mean is taken over: examples, labels that are not ignored, weights of
        classes, or nothing.

        Raises:
            ValueError: the slopes are no such multiples.
        """
        try:
            alone, penalty = self.slopes()
            of_second, second_penalty = second.slopes()
            together, joined_penalty = self.joined(second).slopes()
            once_more, _ = self.slopes()
            if not all(map(_nearly, alone, once_more)):
                raise ValueError("the loss is another function in each call")
            first_pairs, second_pairs = [], []
            for slope, first, other in zip(together, alone, of_second):
                if slope.dim():
                    first_pairs.append((slope[: len(first)], first))
                    second_pairs.append((slope[len(first) :], other))
                elif slope.any():
                    raise ValueError("an output is one number for the whole batch")
            first_factor = _multiple(first_pairs)
            second_factor = _multiple(second_pairs)
            for penalties in zip(joined_penalty, penalty, second_penalty):
                _check_penalty(*penalties, first_factor, second_factor)
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


def _nearly(first: Tensor, second: Tensor) -> bool:
    return torch.allclose(first, second, rtol=1e-3)


def _check_penalty(
    joined: Tensor | None, first: Tensor | None, second: Tensor | None, *factors: float
) -> None:
    """ValueError where a penalty of a weight is another in the weighted mean of two batches."""
    if joined is None or first is None or second is None:
        return
    first_factor, second_factor = factors
    if not _nearly(joined, first_factor * first + second_factor * second):
        raise ValueError("a penalty of the weights would count once a batch")


def _multiple(pairs: list[tuple[Tensor, Tensor]]) -> float:
    """The number that the second of each pair has to be multiplied by to give the first.

    Raises:
        ValueError: there is none.
    """
    square = sum((part * part).sum().item() for _, part in pairs)
    if not square and not any(slope.any() for slope, _ in pairs):
        return 1.0  # a batch without slopes adds nothing, whatever it weighs
    factor = deviation = 0.0
    if square:
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
