"""Checks of lab 2: masked training, switches, rescaling a unit."""

import copy

import torch
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from checks.common import Wrong, answer_of, call, close, examples, filled, gradients_of, need, network, passed


def train(function):
    """Part (d): ``train(model, masks, batches, optimiser)``, looked at after every step."""
    kinds = {
        "plain SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        "SGD with momentum and weight decay": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.05),
        "Adam with weight decay": lambda parameters: torch.optim.Adam(parameters, lr=0.01, weight_decay=0.05),
    }
    for seed, (kind, optimiser) in enumerate(kinds.items()):
        model, generator = network(seed), torch.Generator().manual_seed(seed)
        masks = {n: torch.rand(w.shape, generator=generator) < 0.4 for n, w in model.named_parameters()}
        data = [examples(10 + number) for number in range(6)]
        path = _defined(model, masks, data, optimiser)
        steps, hook = [], model.register_forward_pre_hook(lambda module, _, masks=masks: _sees_masked(module, masks))
        call(function, model, masks, _watched(model, masks, data, path, kind, steps), optimiser(model.parameters()))
        hook.remove()
        need(steps, "train is not filled in yet: it never asks for a batch (for inputs, targets in batches)")
        need(len(steps) == len(data), f"train used {len(steps)} of {len(data)} batches: one step for each")
        _compare(model, masks, path[-1], kind, len(data))
    passed("(d)", "removed weights are exactly 0 after each step, kept ones follow L(c ⊙ w), for three optimisers")


def _defined(model, masks, data, optimiser):
    """The weights after each step of training L(c ⊙ w), by definition: autograd sees the product."""
    weights = {n: (w.detach() * masks[n]).requires_grad_() for n, w in model.named_parameters()}
    steps, path = optimiser(list(weights.values())), []
    for inputs, targets in data:
        product = {name: masks[name] * weight for name, weight in weights.items()}
        steps.zero_grad()
        cross_entropy(functional_call(model, product, inputs), targets).backward()
        steps.step()
        path.append({name: weight.detach().clone() for name, weight in weights.items()})
    return path


def _watched(model, masks, data, path, kind, steps):
    """The batches; before the next one is handed out, the model is looked at."""
    for number, batch in enumerate(data):
        if number:
            _compare(model, masks, path[number - 1], kind, number)
        steps.append(number)
        yield batch


def _sees_masked(model, masks):
    """Before a forward pass: nothing removed may take part in it."""
    present = sum(int(weight[~masks[name]].count_nonzero()) for name, weight in model.named_parameters())
    need(
        not present,
        f"a forward pass sees {present} removed weights that are not 0. Multiply the weights by their masks "
        "before the first step, in place (weight *= mask; weight = weight * mask would leave the model as it is)",
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
            f"the kept weights have left the path of L(c ⊙ w) {after}. Is the gradient of each step fresh "
            "(zero_grad), is there one step a batch by the optimiser that was passed, and are only *removed* "
            "entries masked?"
        )
    raise Wrong(
        f"{revived} of {removed} removed weights are not 0 any more {after}: the step has revived them. Multiply "
        "the gradients by the masks, after backward() and before the optimiser's step()"
    )


def switches(function):
    """Part (e): ``loss_with_switches(model, c, loss, inputs, targets)``."""
    for seed in range(2):
        model, (inputs, targets) = network(seed), examples(seed)
        before = copy.deepcopy(model.state_dict())
        ones = {name: torch.ones_like(weight, requires_grad=True) for name, weight in model.named_parameters()}
        value = answer_of(function, model, ones, cross_entropy, inputs, targets)
        need(
            torch.is_tensor(value) and value.dim() == 0,
            "loss_with_switches must return the loss, one number in a tensor",
        )
        need(
            close(value.detach(), cross_entropy(model(inputs), targets).detach()),
            "with every switch at 1 the loss must be that of the network itself; yours is another one. Each weight is "
            "to be *multiplied* by its switch",
        )
        twice = answer_of(function, model, ones, lambda *pair: 2 * cross_entropy(*pair), inputs, targets).detach()
        need(close(twice, 2 * value.detach()), "with another loss the result is still the same: use the `loss` given")
        half = {name: torch.full_like(weight, 0.5) for name, weight in model.named_parameters()}
        halved = copy.deepcopy(model)
        with torch.no_grad():
            for weight in halved.parameters():
                weight *= 0.5
        got = answer_of(function, model, half, cross_entropy, inputs, targets).detach()
        unchanged = all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
        need(unchanged, "the model's own weights have changed: build new tensors c * w, do not write into the model")
        need(
            not close(got, value.detach()),
            "with every switch at 0.5 the loss is still the same: the switches are not used",
        )
        need(
            close(got, cross_entropy(halved(inputs), targets).detach()),
            "with every switch at 0.5 the loss must be that of a network with half of each weight and bias; yours is "
            "another one. Do all parameters have their switch?",
        )
        found = None
        if value.requires_grad:
            found = torch.autograd.grad(value, list(ones.values()), allow_unused=True)
        need(
            found is not None and all(part is not None for part in found),
            "no derivative reaches the switches: .data, .detach() and copying into the model cut the graph. Hand c * w "
            "to functional_call",
        )
        for (name, gradient), part in zip(gradients_of(model, cross_entropy, inputs, targets).items(), found):
            need(close(part, before[name] * gradient), f"∂L/∂c of {name} is not w · ∂L/∂w")
    passed("(e)", "∂L/∂c at c = 1 equals w ⊙ ∂L/∂w in every parameter")


def rescale(function):
    """Part (f), first half: ``rescale(model, unit, factor)``, in place, on Linear, ReLU, Linear, ReLU, Linear."""
    for seed, (unit, factor) in enumerate([(2, 10.0), (0, 0.25)]):
        model, (inputs, _) = network(seed), examples(seed, 50)
        before, outputs = copy.deepcopy(model), model(inputs).detach()
        call(function, model, unit, factor)
        changed = {n: (w != dict(before.named_parameters())[n]) for n, w in model.named_parameters()}
        need(
            any(c.any() for c in changed.values()), "rescale is not filled in yet: no weight of the model has changed"
        )
        row = changed["0.weight"].any(1).nonzero().flatten().tolist()
        need(
            row == [unit],
            f"the weights *into* hidden unit {unit} are row {unit} of model[0].weight; rows changed: {row}",
        )
        ratio = model[0].weight[unit] / before[0].weight[unit]
        need(
            close(ratio.detach(), torch.full_like(ratio, factor)),
            f"the weights into the unit must be {factor:g} times what they were; the first is {ratio[0]:.3g} times",
        )
        need(
            close((model[0].bias[unit] / before[0].bias[unit]).detach(), torch.tensor(factor)),
            "the bias goes *into* the unit, too: relu(f·(w x + b)) = f·relu(w x + b). Multiply model[0].bias[unit] by "
            f"{factor:g}",
        )
        column = changed["2.weight"].any(0).nonzero().flatten().tolist()
        need(
            column == [unit],
            f"the weights *out of* hidden unit {unit} are column {unit} of model[2].weight; columns changed: {column}",
        )
        back = (model[2].weight[:, unit] / before[2].weight[:, unit]).detach()
        need(
            close(back, torch.full_like(back, 1 / factor)),
            f"the unit now sends {factor:g} times as much, so the weights out of it must be divided by {factor:g}; the "
            f"first is {back[0]:.3g} times what it was",
        )
        need(
            close(model(inputs).detach(), outputs), "the network computes another function now; something else changed"
        )
    passed("(f)", "another network, the same function")


def factors(rescale, snip, magnitude, gradient):
    """Part (f), second half: what becomes of three raw scores of the weights into a unit, when these grow tenfold."""
    filled(snip_factor=snip, magnitude_factor=magnitude, gradient_factor=gradient)
    old, (inputs, targets) = network(3), examples(3)
    new, unit = copy.deepcopy(old), 1
    call(rescale, new, unit, 10.0)
    slopes = [gradients_of(model, cross_entropy, inputs, targets)["0.weight"][unit] for model in (old, new)]
    weights = [model[0].weight[unit].detach() for model in (old, new)]
    measured = {
        "magnitude_factor": (magnitude, weights, "|w| is what you multiplied by 10"),
        "gradient_factor": (
            gradient,
            slopes,
            "the weight is ten times as large, so a step of the same size is a tenth of the change it was",
        ),
        "snip_factor": (
            snip,
            [w * g for w, g in zip(weights, slopes)],
            "w · ∂L/∂w is a product of one factor that grows and one that shrinks",
        ),
    }
    for name, (given, (first, second), hint) in measured.items():
        ratio = (second.abs().sum() / first.abs().sum()).item()
        try:
            right = abs(float(given) - ratio) < 1e-3 * ratio
        except (TypeError, ValueError):
            raise Wrong(f"{name} must be a number") from None
        need(right, f"{name} is {given}, but measuring says otherwise. Hint: {hint}")
    passed("(f)", "rescaling moves |w| and |∂L/∂w| against each other, and leaves SNIP's score as it is")
