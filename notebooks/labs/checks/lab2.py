"""Checks of lab 2: masked training, switches, rescaling a unit."""

import copy

import torch
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from checks.common import (
    Wrong,
    after,
    answer_of,
    call,
    close,
    examples,
    filled,
    gradients_of,
    need,
    network,
    passed,
)

#: check → the part it belongs to, and its points
POINTS = {
    "train": ("(d)", 45),
    "switches": ("(e)", 25),
    "rescale": ("(f)", 20),
    "factors": ("(f)", 10),
}


def train(function):
    """Part (d): ``train(model, masks, batches, optimiser)``, looked at after every step."""
    kinds = {
        "plain SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        "SGD with momentum and weight decay": lambda p: torch.optim.SGD(
            p, lr=0.1, momentum=0.9, weight_decay=0.05
        ),
        "Adam with weight decay": lambda parameters: torch.optim.Adam(
            parameters, lr=0.01, weight_decay=0.05
        ),
    }
    # With these seeds every tensor has kept and removed entries whose gradient is not 0.
    for seed, (kind, optimiser) in zip((2, 14, 30), kinds.items()):
        model, generator = network(seed), torch.Generator().manual_seed(seed)
        masks = {
            n: torch.rand(w.shape, generator=generator) < 0.6 for n, w in model.named_parameters()
        }
        torch.nn.init.zeros_(model[4].bias)  # a kept weight may start at 0
        data = [examples(10 + number) for number in range(6)]
        path = _defined(model, masks, data, optimiser)
        watch = _Watch(model, masks, path, kind)
        steps = optimiser(model.parameters())
        steps.register_step_post_hook(watch.stepped)
        hook = model.register_forward_pre_hook(watch.before_forward)
        call(function, model, masks, watch.handed_out(data), steps)
        hook.remove()
        need(
            watch.batches,
            "train is not filled in yet: it never asks "
            "for a batch (for inputs, targets in batches)",
        )
        need(
            watch.batches == watch.steps == len(data),
            f"train used {watch.batches} of {len(data)} batches "
            f"and took {watch.steps} steps: one step() for each",
        )
        _compare(model, masks, path[-1], kind, len(data))
    passed(
        "(d)",
        "removed weights are exactly 0 after each step, "
        "kept ones follow L(c ⊙ w), for three optimisers",
    )


def _defined(model, masks, data, optimiser):
    """The weights after each step of training L(c ⊙ w), by definition.

    Autograd sees the product.
    """
    weights = {n: (w.detach() * masks[n]).requires_grad_() for n, w in model.named_parameters()}
    steps, path = optimiser(list(weights.values())), []
    for inputs, targets in data:
        product = {name: masks[name] * weight for name, weight in weights.items()}
        steps.zero_grad()
        cross_entropy(functional_call(model, product, inputs), targets).backward()
        steps.step()
        path.append({name: weight.detach().clone() for name, weight in weights.items()})
    return path


class _Watch:
    """Counts batches and steps, and looks at the model before each forward pass."""

    def __init__(self, model, masks, path, kind):
        self.model, self.masks, self.path, self.kind = model, masks, path, kind
        self.batches = self.steps = 0

    def handed_out(self, data):
        for batch in data:
            self.batches += 1
            yield batch

    def stepped(self, *_):
        self.steps += 1

    def before_forward(self, *_):
        """Nothing removed may take part in a forward pass.

        After a step, the kept weights are on their path.
        """
        if 0 < self.steps <= len(self.path):
            _compare(self.model, self.masks, self.path[self.steps - 1], self.kind, self.steps)
        present = sum(
            int(w[~self.masks[name]].count_nonzero()) for name, w in self.model.named_parameters()
        )
        need(
            not present,
            f"a forward pass sees {present} removed weights that are not 0. Multiply "
            "the weights by their masks before the first step, in place (weight *= "
            "mask; weight = weight * mask would leave the model as it is)",
        )


def _compare(model, masks, right, kind, number):
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    revived = sum(int(weight[~masks[name]].count_nonzero()) for name, weight in weights.items())
    removed = sum(int((~mask).sum()) for mask in masks.values())
    after = f"after step {number} with {kind}"
    if revived == 0 and all(close(weights[name], right[name]) for name in weights):
        return
    if revived == 0:
        raise Wrong(
            f"the kept weights have left the path of L(c ⊙ w) {after}. Is the "
            "gradient of each step fresh (zero_grad), is there one step a batch by "
            "the optimiser that was passed, and are only *removed* entries masked?"
        )
    need(
        revived < removed,
        f"all {removed} removed weights are not 0 {after}: they were "
        "never set to 0 in the model itself. Multiply the weights by "
        "their masks before the first step, in place (weight *= mask)",
    )
    raise Wrong(
        f"{revived} of {removed} removed weights are not 0 any more "
        f"{after}: the step has revived them. Multiply the gradients by "
        "the masks, after backward() and before the optimiser's step()"
    )


def switches(function):
    """Part (e): ``loss_with_switches(model, c, loss, inputs, targets)``."""
    for seed in range(2):
        model, (inputs, targets) = network(seed), examples(seed)
        before = copy.deepcopy(model.state_dict())
        ones = {
            name: torch.ones_like(weight, requires_grad=True)
            for name, weight in model.named_parameters()
        }
        value = answer_of(function, model, ones, cross_entropy, inputs, targets)
        need(
            torch.is_tensor(value) and value.dim() == 0,
            "loss_with_switches must return the loss, one number in a tensor",
        )
        need(
            close(value.detach(), cross_entropy(model(inputs), targets).detach()),
            "with every switch at 1 the loss must be that of the network itself; "
            "yours is another one. Each weight is to be *multiplied* by its switch",
        )
        twice = answer_of(
            function, model, ones, lambda *pair: 2 * cross_entropy(*pair), inputs, targets
        ).detach()
        need(
            close(twice, 2 * value.detach()),
            "with another loss the result is still the same: use the `loss` given",
        )
        half = {name: torch.full_like(weight, 0.5) for name, weight in model.named_parameters()}
        halved = copy.deepcopy(model)
        with torch.no_grad():
            for weight in halved.parameters():
                weight *= 0.5
        got = answer_of(function, model, half, cross_entropy, inputs, targets).detach()
        unchanged = all(
            torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items()
        )
        need(
            unchanged,
            "the model's own weights have changed: build "
            "new tensors c * w, do not write into the model",
        )
        need(
            not close(got, value.detach()),
            "with every switch at 0.5 the loss is still the same: the switches are not used",
        )
        need(
            close(got, cross_entropy(halved(inputs), targets).detach()),
            "with every switch at 0.5 the loss must be that of a network with half of each "
            "weight and bias; yours is another one. Do all parameters have their switch?",
        )
        found = None
        if value.requires_grad:
            found = torch.autograd.grad(value, list(ones.values()), allow_unused=True)
        need(
            found is not None and all(part is not None for part in found),
            "no derivative reaches the switches: .data, .detach() and copying "
            "into the model cut the graph. Hand c * w to functional_call",
        )
        for (name, gradient), part in zip(
            gradients_of(model, cross_entropy, inputs, targets).items(), found
        ):
            need(close(part, before[name] * gradient), f"∂L/∂c of {name} is not w · ∂L/∂w")
    passed("(e)", "∂L/∂c at c = 1 equals w ⊙ ∂L/∂w in every parameter")


def rescale(function):
    """Part (f), first half.

    ``rescale(model, unit, factor)``, in place, on Linear, ReLU, Linear, ReLU, Linear.
    """
    for seed, (unit, factor) in enumerate([(2, 10.0), (0, 0.25)]):
        model, (inputs, _) = network(seed), examples(seed, 50)
        before, outputs = copy.deepcopy(model), model(inputs).detach()
        call(function, model, unit, factor)
        changed = {
            n: (w != dict(before.named_parameters())[n]) for n, w in model.named_parameters()
        }
        need(
            any(c.any() for c in changed.values()),
            "rescale is not filled in yet: no weight of the model has changed",
        )
        row = changed["0.weight"].any(1).nonzero().flatten().tolist()
        need(
            row == [unit],
            f"the weights *into* hidden unit {unit} are row "
            f"{unit} of model[0].weight; rows changed: {row}",
        )
        ratio = model[0].weight[unit] / before[0].weight[unit]
        need(
            close(ratio.detach(), torch.full_like(ratio, factor)),
            f"the weights into the unit must be {factor:g} times "
            f"what they were; the first is {ratio[0]:.3g} times",
        )
        need(
            close((model[0].bias[unit] / before[0].bias[unit]).detach(), torch.tensor(factor)),
            "the bias goes *into* the unit, too: relu(f·(w x + b)) = "
            f"f·relu(w x + b). Multiply model[0].bias[unit] by {factor:g}",
        )
        column = changed["2.weight"].any(0).nonzero().flatten().tolist()
        need(
            column == [unit],
            f"the weights *out of* hidden unit {unit} are column "
            f"{unit} of model[2].weight; columns changed: {column}",
        )
        back = (model[2].weight[:, unit] / before[2].weight[:, unit]).detach()
        need(
            close(back, torch.full_like(back, 1 / factor)),
            f"the unit now sends {factor:g} times as much, so the weights out of it must "
            f"be divided by {factor:g}; the first is {back[0]:.3g} times what it was",
        )
        need(
            close(model(inputs).detach(), outputs),
            "the network computes another function now; something else changed",
        )
    passed("(f)", "another network, the same function")


def factors(snip, magnitude, gradient):
    """Part (f), second half.

    What becomes of three raw scores of the weights into a unit, when these grow tenfold.
    """
    filled(snip_factor=snip, magnitude_factor=magnitude, gradient_factor=gradient)
    old, (inputs, targets) = network(3), examples(3)
    new, unit = copy.deepcopy(old), 1
    with torch.no_grad():
        new[0].weight[unit] *= 10
        new[0].bias[unit] *= 10
        new[2].weight[:, unit] /= 10
    slopes = [
        gradients_of(model, cross_entropy, inputs, targets)["0.weight"][unit]
        for model in (old, new)
    ]
    weights = [model[0].weight[unit].detach() for model in (old, new)]
    measured = {
        "magnitude_factor": (magnitude, weights, "|w| is what you multiplied by 10"),
        "gradient_factor": (
            gradient,
            slopes,
            "the weight is ten times as large, so a step of "
            "the same size is a tenth of the change it was",
        ),
        "snip_factor": (
            snip,
            [w * g for w, g in zip(weights, slopes)],
            "w · ∂L/∂w is a product of one factor that grows and one that shrinks",
        ),
    }
    for number, (name, (given, (first, second), hint)) in enumerate(measured.items()):
        ratio = (second.abs().sum() / first.abs().sum()).item()
        with after(number / len(measured)):
            try:
                right = abs(float(given) - ratio) < 1e-3 * ratio
            except (TypeError, ValueError):
                raise Wrong(f"{name} must be a number") from None
            need(right, f"{name} is {given}, but measuring says otherwise. Hint: {hint}")
    passed(
        "(f)",
        "rescaling moves |w| and |∂L/∂w| against each other, and leaves SNIP's score as it is",
    )
