"""Many small networks trained at once on a GPU: their weights are stacked, with one forward pass for all."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from snipkit.data import Dataset
from snipkit.masking import apply_
from snipkit.recipe import Recipe
from snipkit.training import Checkpoint, DivergedError, Outcome, evaluate, evaluate_all, fit

#: ``vmap`` has no rule for them, or they draw other random numbers than in a single training
UNSTACKABLE = (nn.RNNBase, nn.RNNCellBase, nn.modules.dropout._DropoutNd)
TEST_BATCH = 200  # images that all networks of a stack are tested on at once


def train_stack(
    models: Sequence[nn.Module],
    masks: Sequence[dict[str, Tensor]],
    data: Sequence[Dataset],
    recipe: Recipe,
    *,
    seeds: Sequence[int],
    checkpoint: Checkpoint | None = None,
) -> list[Outcome | DivergedError]:
    """Train S networks of one architecture at once, each as ``train`` would alone (law 7).

    A small network is launch-bound on a GPU, and a stack needs no more kernel launches than one network. Its weights
    are stacked along a new first dimension, and ``vmap`` maps the forward pass over it. Each network has its own loss,
    and momentum SGD and Adam work entry by entry, so each follows the path that it would follow alone.

    Args:
        models: S modules of the same architecture, trained in place.
        masks: S mask sets as for ``train``. They may be of different parameters.
        data: S ``Dataset``s with equally many training images and the same standardisation. If all have the same
            ``test`` object, all networks are tested at once.
        recipe, checkpoint: as for ``train``.
        seeds: S seeds, as for ``train``.

    Returns:
        For each network what ``train`` returns, or the ``DivergedError`` that it raises; the others go on.

    Raises:
        ValueError: as ``train``; lists of different lengths; models or data sets that differ in shape; a layer that
            cannot be stacked (the message has its name).
    """
    _check_stack(models, masks, data, seeds)
    return fit(Stack(models, masks, data), recipe, list(seeds), checkpoint)


class Stack:
    """S networks, with the methods of ``training.Alone``."""

    def __init__(self, models, masks, data):
        for model, own in zip(models, masks):
            apply_(model, own)
            model.train()
        self.models, self.template, self.data = models, models[0], data
        self.parameters, buffers = stack_module_state(list(models))
        self.tensors = self.parameters | buffers
        self.masked = _stacked_masks(self.parameters, masks)
        images = [dataset.train for dataset in data]
        shared = {id(part.pixels): part.pixels for part in images}  # the same pixels are held once
        self.pixels, device = list(shared.values()), images[0].labels.device
        self.source = [list(shared).index(id(part.pixels)) for part in images]
        self.rows = torch.stack([torch.arange(len(i), device=device) if i.rows is None else i.rows for i in images])
        self.labels = torch.stack([part.labels for part in images])
        self.number = torch.arange(len(models), device=device)[:, None]

    def batch(self, index):
        rows, labels = self.rows[self.number, index], self.labels[self.number, index]
        if len(self.pixels) == 1:
            pixels = self.pixels[0].index_select(0, rows.flatten())
        else:
            parts = [self.pixels[source].index_select(0, own) for source, own in zip(self.source, rows)]
            pixels = torch.cat(parts)
        return self.data[0].train.standardise(pixels).unflatten(0, index.shape), labels.flatten()

    def __call__(self, inputs, shared=False):
        def one(tensors, inputs):
            return functional_call(self.template, tensors, (inputs,))

        return torch.vmap(one, in_dims=(0, None if shared else 0))(self.tensors, inputs).flatten(0, 1)

    def train(self):
        self.template.train()

    def evaluate(self):
        tests = [dataset.test for dataset in self.data]
        if any(test is not tests[0] for test in tests):
            self._unstack()
            return [evaluate(model, test) for model, test in zip(self.models, tests)]
        self.template.eval()
        with torch.no_grad():
            return evaluate_all(lambda inputs: self(inputs, shared=True), tests[0], TEST_BATCH)

    @torch.no_grad()
    def _unstack(self):
        for number, model in enumerate(self.models):
            for name, tensor in (*model.named_parameters(), *model.named_buffers()):
                tensor.copy_(self.tensors[name][number])

    def finish(self):
        self._unstack()
        for model in self.models:
            model.eval()


def _stacked_masks(parameters, masks):
    """Pairs of a stacked parameter and its stacked masks, for every parameter masked in any network."""
    pairs = []
    for name, parameter in parameters.items():
        if any(name in own for own in masks):
            stacked = torch.ones_like(parameter, requires_grad=False)
            for row, own in zip(stacked, masks):
                if name in own:
                    row.copy_(own[name])
            pairs.append((parameter, stacked))
    return pairs


def _check_stack(models, masks, data, seeds):
    if not models or not len(models) == len(masks) == len(data) == len(seeds):
        sizes = f"{len(models)} models, {len(masks)} mask sets, {len(data)} data sets and {len(seeds)} seeds"
        raise ValueError(f"a stack of {sizes}: it takes as many of each")
    for name, module in models[0].named_modules():
        if isinstance(module, UNSTACKABLE):
            kind = type(module).__name__
            raise ValueError(f"{name or 'the model'} is a {kind}, which cannot be stacked: train them alone")
    shapes = [(type(m), [(name, p.shape, p.dtype) for name, p in m.state_dict().items()]) for m in models]
    sets = [(len(d.train), d.train.pixels.shape[1:], d.train.mean, d.train.std) for d in data]
    for what, (first, *others) in (("models", shapes), ("training sets", sets)):
        for number, other in enumerate(others, start=1):
            if other != first:
                raise ValueError(f"the {what} of a stack must be alike: number {number} is not like number 0")
