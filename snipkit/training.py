"""Masked training: one loop, for a single network and for a stack of networks."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from snipkit._scoring.objective import at_least_float32, check_labels, refuse_inference
from snipkit.data import Images, Splits, augment
from snipkit.masking import apply_, check_maskable, mask_gradients, matched
from snipkit.outcomes import Checkpoint, DivergedError, Evaluation, Log, Outcome, State
from snipkit.recipe import Recipe, augmentation_generator, batches, learning_rate, optimiser_of

COMPILED_ON = ("cuda",)  # device types; compiling gains little on a CPU
COMPILED_FROM = 5000  # steps; in a shorter training, compiling takes longer than it saves


class Networks(Protocol):
    """S networks, as ``fit`` trains them: ``Alone`` has one, ``study.train.stacking.Stack`` many.

    Attributes:
        template: a module; its layers decide which parameters have weight decay.
        parameters: name → tensor to optimise.
        tensors: ``parameters`` and buffers.
        masked: pairs of a parameter and its mask, as for ``mask_gradients``.
        data: a ``Splits`` for each network, all with equally many training images.
    """

    template: nn.Module
    parameters: dict[str, Tensor]
    tensors: dict[str, Tensor]
    masked: list[tuple[Tensor, Tensor]]
    data: Sequence[Splits]

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """From indices (S, B): inputs (S, B, C, H, W), labels (S·B,) network after network."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """Outputs (S·B, classes) from inputs (S, B, C, H, W)."""

    def train(self) -> None:
        """Switch to training mode."""

    def evaluate(self) -> list[Evaluation]:
        """Evaluate each network on its test set."""

    def finish(self) -> None:
        """Leave the trained weights in the modules, in evaluation mode."""


def train(
    model: nn.Module,
    masks: dict[str, Tensor],
    data: Splits,
    recipe: Recipe,
    *,
    seed: int = 0,
    checkpoint: Checkpoint | None = None,
) -> Outcome:
    """Train ``model`` in place with fixed ``masks``, and leave it in evaluation mode.

    The weights are masked once, and the gradients at each step. A weight of 0 with gradient 0 has
    no momentum and no decay, so it stays exactly 0 (law 6).

    On a GPU, small networks are launch-bound: starting the kernels takes longer than running them.
    Therefore a training of ``COMPILED_FROM`` steps or more uses ``torch.compile`` with CUDA graphs.
    ``TORCH_COMPILE_DISABLE=1`` prevents it. An ``LSTM`` of ``models.recurrent`` trains by torch's
    own layer instead, on all devices; its evaluations keep the loop over rows.

    Args:
        model: any ``nn.Module`` on the device of ``data``.
        masks: name → bool tensor for all or some parameters; ``{}`` trains the dense network.
        data: ``data.train`` is trained on. ``data.test`` is evaluated five times: after the last
            step, and 1 to 4 intervals before it, of 1,000 steps (a tenth of a shorter training).
            ``data.val`` is not used.
        recipe: a ``Recipe``.
        seed: of the order of the examples and of the augmentation.
        checkpoint: see ``Checkpoint``. A resumed training gives the same numbers; on a CPU, to the
            bit.

    Raises:
        TypeError: an argument of another kind.
        ValueError: masks that do not fit or would not hold (see ``attach``), weights in half
            precision, none that can be trained, outputs that are no tensor, labels out of range, a
            batch larger than the training set, no test images.
        DivergedError: a loss that is not finite. The message has the step, and what to change.

    Source: SNIP Algorithm 1, lines 6 and 7, and section 5.
    """
    _check_arguments(model, masks, data, recipe)
    with training_kernels(model), torch.inference_mode(False), torch.enable_grad():
        (result,) = fit(Alone(model, masks, data, recipe), recipe, [seed], checkpoint)
    if isinstance(result, DivergedError):
        raise result
    return result


def _check_arguments(model: Any, masks: Any, data: Any, recipe: Any) -> None:
    """TypeError or ValueError, naming the argument, for what ``train`` cannot work with."""
    check_maskable(model, masks)
    if not isinstance(data, Splits):
        kind = type(data).__name__
        raise TypeError(f"data is of type {kind}; it is a snipkit.data.Splits of images")
    if not isinstance(recipe, Recipe):
        kind = type(recipe).__name__
        raise TypeError(f"recipe is of type {kind}; it is a snipkit.recipe.Recipe: Recipe(steps=…)")
    refuse_inference(model)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and at_least_float32(parameter) is not parameter:
            raise ValueError(
                f"{name} is {parameter.dtype}: a training moves float32 weights, so write "
                'model.float(); Recipe(precision="bfloat16") computes the passes in half'
            )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("no parameter of the model has requires_grad, so nothing can be trained")


@contextlib.contextmanager
def training_kernels(model: nn.Module) -> Iterator[None]:
    """For a while, let modules that have another kernel for training (``LSTM``) use it."""
    modules: list[Any] = [
        module for module in model.modules() if hasattr(module, "training_kernel")
    ]
    kernels = [module.kernel for module in modules]
    for module in modules:
        module.kernel = module.training_kernel
    try:
        yield
    finally:
        for module, kernel in zip(modules, kernels):
            module.kernel = kernel


class Alone:
    """One network (see ``Networks``)."""

    def __init__(self, model, masks, data, recipe):
        apply_(model, masks)
        self.template = model
        self.data: Sequence[Splits] = [data]
        self.parameters = dict(model.named_parameters())
        self.tensors = self.parameters | dict(model.named_buffers())
        self.masked: list[tuple[Tensor, Tensor]] = []
        for parameter, mask in matched(model, masks):
            # Multiplying a list of tensors is one launch only if the masks have the type and the
            # memory layout of the weights.
            numbers = torch.empty_like(parameter, requires_grad=False).copy_(mask)
            self.masked.append((parameter, numbers))
        long = data.train.labels.device.type in COMPILED_ON and recipe.steps >= COMPILED_FROM
        # Compiling would unroll a fused layer.
        fused = any(getattr(module, "kernel", None) == "fused" for module in model.modules())
        self.forward = _compiled(model) if long and not fused else model

    def batch(self, index):
        inputs, labels = self.data[0].train[index[0]]
        return inputs[None], labels

    def __call__(self, inputs):
        return self.forward(inputs[0])

    def train(self):
        self.template.train()

    def evaluate(self):
        return [evaluate(self.template, self.data[0].test)]

    def finish(self):
        self.template.eval()
        self.template.zero_grad()  # the gradients may lie in a CUDA graph's memory


def _compiled(model):
    """The same model with fewer kernel launches.

    Without a C compiler torch warns, and the model runs uncompiled.
    """
    torch.compiler.reset()  # frees the CUDA graphs of the network trained before
    compiled = torch.compile(model, mode="reduce-overhead")

    def forward(inputs):
        with torch._dynamo.config.patch(suppress_errors=True):
            return compiled(inputs)

    return forward


def fit(
    networks: Networks, recipe: Recipe, seeds: Sequence[int], checkpoint: Checkpoint | None
) -> list[Outcome | DivergedError]:
    """The loop of ``train`` and of ``study.train.stacking.train_stack``, for S = len(seeds).

    It returns for each network what ``train`` returns, or the ``DivergedError`` that it raises.
    """
    _check_sizes(networks.data, recipe)
    images = networks.data[0].train
    device = images.labels.device
    optimiser = optimiser_of(networks.template, recipe, networks.parameters)
    generators = [augmentation_generator(seed) for seed in seeds]
    log = Log(recipe, len(seeds), device)
    done = 0
    if checkpoint:
        done = checkpoint.restore(_state(networks, recipe, seeds, optimiser, generators, log))
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16")
    remaining = islice(batches(len(images), recipe, seeds, device), done, None)
    networks.train()
    for step, index in enumerate(remaining, start=done + 1):
        inputs, labels = networks.batch(index)
        inputs = _augmented(inputs, recipe, generators)
        # Before the forward pass: the next CUDA graph writes to the memory of the gradients.
        optimiser.zero_grad()
        with autocast:
            outputs = networks(inputs)
        outputs = _logits(outputs)
        if step == done + 1:
            _check_all_labels(networks.data, outputs)
        losses = cross_entropy(outputs, labels, reduction="none")
        (losses.sum() / recipe.batch_size).backward()  # the sum over networks of each one's mean
        mask_gradients(networks.masked)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, recipe)
        optimiser.step()
        log.add(step, losses.detach(), outputs.argmax(1) != labels)
        if step in log.tested_after:
            with autocast:
                log.add_tests(step, networks.evaluate())
            networks.train()
        if log.all_diverged():
            break
        if checkpoint and step < recipe.steps:
            checkpoint.after(step)
    networks.finish()
    if checkpoint:
        checkpoint.done()
    return log.results()


def _check_sizes(data, recipe):
    images = data[0].train
    if recipe.batch_size > len(images):
        available = f"there are only {len(images)} training images"
        raise ValueError(f"the batch size is {recipe.batch_size}, but {available}")
    if not all(len(dataset.test) for dataset in data):  # now, not at the first evaluation
        raise ValueError("there are no images to evaluate on")


def _check_all_labels(data, outputs):
    for dataset in data:
        check_labels(dataset.train.labels, outputs)
        check_labels(dataset.test.labels, outputs)


def _logits(outputs: Any) -> Tensor:
    if not isinstance(outputs, Tensor):
        kind = type(outputs).__name__
        raise ValueError(
            f"the model returns a {kind}; a training takes one tensor of logits, (B, classes)"
        )
    return at_least_float32(outputs)


def _augmented(inputs, recipe, generators):
    """Each network's images, by its own generator."""
    if recipe.augment == "none":
        return inputs
    views = []
    for view, generator in zip(inputs, generators):
        views.append(augment(view, recipe.augment, generator))
    return torch.stack(views) if len(views) > 1 else views[0][None]  # stacking one would copy it


def _state(networks, recipe, seeds, optimiser, generators, log):
    version = torch.__version__.partition("+")[0]  # what follows the + is the device of the build
    identity = [recipe, list(seeds), version, *_traits(networks.data)]
    tensors = networks.tensors | {"sums": log.sums}
    return State(
        identity, tensors, networks.masked, optimiser, generators, log.curves, log.diverged
    )


def _traits(data):
    """What tells data sets and splits apart, on any device: their labels and first images."""
    traits = []
    for dataset in data:
        for images in (dataset.train, dataset.test):
            first = images.pixels[:100] if images.rows is None else images.pixels[images.rows[:100]]
            traits += [images.labels, first, images.mean, images.std]
    return traits


@torch.no_grad()
def evaluate(model: nn.Module, images: Images, batch_size: int = 500) -> Evaluation:
    """Error (percent) and mean cross-entropy (nats) of ``model`` on ``images``.

    The model is left in evaluation mode.

    Raises:
        ValueError: no images, or labels that do not fit the number of outputs.
    """
    model.eval()
    (result,) = evaluate_all(model, images, batch_size)
    return result


def evaluate_all(
    forward: Callable[[Tensor], Tensor], images: Images, batch_size: int
) -> list[Evaluation]:
    """``evaluate`` for S networks.

    Args:
        forward: gives outputs (S·B, classes) from inputs (B, C, H, W).
    """
    if not len(images):
        raise ValueError("there are no images to evaluate on")
    errors = loss = torch.zeros(1, device=images.labels.device)
    for start in range(0, len(images), batch_size):
        inputs, labels = images[start : start + batch_size]
        outputs = _logits(forward(inputs))
        check_labels(labels, outputs)
        size, labels = len(labels), labels.repeat(len(outputs) // len(labels))
        errors = errors + (outputs.argmax(1) != labels).view(-1, size).sum(1)
        loss = loss + cross_entropy(outputs, labels, reduction="none").view(-1, size).sum(1)
    evaluations = []
    for wrong, total in zip(errors.tolist(), loss.tolist()):
        evaluations.append(Evaluation(100 * wrong / len(images), total / len(images)))
    return evaluations
