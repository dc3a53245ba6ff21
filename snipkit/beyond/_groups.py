"""Numbers that belong together, as channels do that are added to one another."""

import torch
from torch import Tensor

FIXED = 0  # the number of what must stay as it is


class Groups:
    """Disjoint sets of numbers, of which ``FIXED`` is always the first of its own."""

    def __init__(self):
        self.parents = [FIXED]

    def new(self, count: int) -> Tensor:
        """So many numbers that were not there before, each in a group of its own."""
        first = len(self.parents)
        self.parents += range(first, first + count)
        return torch.arange(first, first + count)

    def join(self, first: Tensor, second: Tensor) -> None:
        """Each number of the first tensor joins the one at the same place of the second."""
        first, second = first.flatten(), second.flatten()
        codes = torch.unique((first * len(self.parents) + second)[first != second])
        for code in codes.tolist():
            number, partner = divmod(code, len(self.parents))
            low, high = sorted([self._root(number), self._root(partner)])
            self.parents[high] = low

    def of_numbers(self) -> Tensor:
        """number → the smallest number of its group."""
        return torch.tensor([self._root(number) for number in range(len(self.parents))])

    def _root(self, number):
        while self.parents[number] != number:
            self.parents[number] = self.parents[self.parents[number]]
            number = self.parents[number]
        return number
