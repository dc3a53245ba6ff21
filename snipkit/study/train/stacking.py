"""Many small networks trained at once: their weights are stacked, with one forward pass for all."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from snipkit.data import Splits
from snipkit.masking import apply_
from snipkit.outcomes import Checkpoint, DivergedError, Outcome
from snipkit.recipe import Recipe
from snipkit.training import evaluate, evaluate_all, fit

#: ``vmap`` has no rule for them, or they draw other random numbers than alone
UNSTACKABLE = (nn.RNNBase, nn.RNNCellBase, nn.modules.dropout._DropoutNd)
TEST_BATCH = 200  # images that all networks of a stack are tested on at once


def train_stack(
    models: Sequence[nn.Module],
    masks: Sequence[dict[str, Tensor]],
    data: Sequence[Splits],
    recipe: Recipe,
    *,
    seeds: Sequence[int],
    checkpoint: Checkpoint | None = None,
) -> list[Outcome | DivergedError]:
    """Train S networks of one architecture at once, each as ``train`` would alone (law 7).

    A small network is launch-bound on a GPU, and a stack needs no more kernel launches than one
    network. Its weights are stacked along a new first dimension, and ``vmap`` maps the forward pass
    over it. Each network has its own loss, and momentum SGD and Adam work entry by entry, so each
    follows the path that it would follow alone. (A recurrent network keeps its loop over rows.)

    Args:
        models: S modules of the same architecture, trained in place.
        masks: S mask sets as for ``train``. They may be of different parameters.
        data: S ``Splits`` with equally many training images and the same standardisation. If all
            have the same ``test`` object, all networks are tested at once.
        recipe, checkpoint: as for ``train``.
        seeds: S seeds, as for ``train``.

    Returns:
        For each network what ``train`` returns, or the ``DivergedError`` that it raises; the others
        go on.

    Raises:
        ValueError: as ``train``; lists of different lengths; models or data sets that differ in
            shape; a layer that cannot be stacked (the message has its name).
    """
    _check_stack(models, masks, data, seeds)
    return fit(Stack(models, masks, data), recipe, list(seeds), checkpoint)


class Stack:
    """S networks of one architecture, with stacked weights (see ``training.Networks``)."""

    def __init__(self, models, masks, data):
        for model, model_masks in zip(models, masks):
            apply_(model, model_masks)
            model.train()
        self.models, self.template, self.data = models, models[0], data
        self.parameters, buffers = stack_module_state(list(models))
        self.tensors = self.parameters | buffers
        self.masked = _stacked_masks(self.parameters, masks)
        images = [dataset.train for dataset in data]
        device = images[0].labels.device
        shared = {id(part.pixels): part.pixels for part in images}  # the same pixels are held once
        self.pixels = list(shared.values())
        self.source = [list(shared).index(id(part.pixels)) for part in images]
        every_row = torch.arange(len(images[0]), device=device)
        self.rows = torch.stack([every_row if part.rows is None else part.rows for part in images])
        self.labels = torch.stack([part.labels for part in images])
        self.number = torch.arange(len(models), device=device)[:, None]

    def batch(self, index):
        rows, labels = self.rows[self.number, index], self.labels[self.number, index]
        if len(self.pixels) == 1:
            pixels = self.pixels[0].index_select(0, rows.flatten())
        else:
            parts = []
            for source, network_rows in zip(self.source, rows):
                parts.append(self.pixels[source].index_select(0, network_rows))
            pixels = torch.cat(parts)
        return self.data[0].train.standardise(pixels).unflatten(0, index.shape), labels.flatten()

    def __call__(self, inputs, shared=False):
        def forward(tensors, inputs):
            return functional_call(self.template, tensors, (inputs,))

        forward_all = torch.vmap(forward, in_dims=(0, None if shared else 0))
        return forward_all(self.tensors, inputs).flatten(0, 1)

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
    """Pairs of a stacked parameter and its masks, for every parameter masked in any network."""
    pairs = []
    for name, parameter in parameters.items():
        if any(name in model_masks for model_masks in masks):
            stacked = torch.ones_like(parameter, requires_grad=False)
            for row, model_masks in zip(stacked, masks):
                if name in model_masks:
                    row.copy_(model_masks[name])
            pairs.append((parameter, stacked))
    return pairs


def _check_stack(models, masks, data, seeds):
    sizes = len(models), len(masks), len(data), len(seeds)
    if not models or len(set(sizes)) > 1:
        given = "{} models, {} mask sets, {} data sets and {} seeds".format(*sizes)
        raise ValueError(f"a stack of {given}: it takes as many of each")
    for name, module in models[0].named_modules():
        if isinstance(module, UNSTACKABLE):
            kind = type(module).__name__
            place = name or "the model"
            raise ValueError(f"{place} is a {kind}, which cannot be stacked: train them alone")
    _check_alike("models", [_architecture(model) for model in models])
    _check_alike("training sets", [_shape_of(dataset.train) for dataset in data])


def _architecture(model):
    tensors = model.state_dict().items()
    return type(model), [(name, tensor.shape, tensor.dtype) for name, tensor in tensors]


def _shape_of(images):
    return len(images), images.pixels.shape[1:], images.mean, images.std


def _check_alike(kind, descriptions):
    first, *later_ones = descriptions
    for number, description in enumerate(later_ones, start=1):
        if description != first:
            raise ValueError(
                f"the {kind} of a stack must be alike: number {number} is not like number 0"
            )
