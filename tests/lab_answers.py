"""Blank and typical wrong answers to the labs, and what the checks must say to them."""

import sys
from pathlib import Path

import numpy as np
import torch
from torch.func import functional_call
from torch.nn.functional import cross_entropy

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "notebooks" / "labs"))

from checks import lab1, lab2  # noqa: E402  the students' import
from checks.common import Wrong  # noqa: E402

# --- (a) ------------------------------------------------------------------------------------------
# -----------------

RIGHT = dict(d1=[[0, 0], [24, -12]], d2=[0, 12], s1=[[0, 0], [0.5, 0.25]], s2=[0, 0.25])


def by_hand(**changes):
    x, W1, w2 = (
        torch.tensor([1.0, 2.0]),
        torch.tensor([[-3.0, 1.0], [4.0, -1.0]]),
        torch.tensor([3.0, 2.0]),
    )
    lab1.by_hand(x, W1, w2, 1.0, *(RIGHT | changes).values())


# --- (b) ------------------------------------------------------------------------------------------
# -----------------


def product(w, g):
    return (w * g).abs()


def snip_from(score, *, per_layer=False, backward=False, evaluating=False):
    """A ``snip`` that scores by ``score(weight, gradient)``."""

    def snip(model, loss, inputs, targets):
        model.train(not evaluating)
        value = loss(model(inputs), targets)
        weights = dict(model.named_parameters())
        if backward:
            value.backward()
            gradients = [weight.grad for weight in weights.values()]
        else:
            gradients = torch.autograd.grad(value, list(weights.values()))
        scores = {name: score(w, g).detach() for (name, w), g in zip(weights.items(), gradients)}
        total = sum(part.sum() for part in scores.values())
        return {name: part / (part.sum() if per_layer else total) for name, part in scores.items()}

    return snip


def half_done(model, loss, inputs, targets):
    names, weights = zip(*model.named_parameters())
    return dict(zip(names, torch.autograd.grad(loss(inputs), weights)))


# --- (c) ------------------------------------------------------------------------------------------
# -----------------


def keep_from(choose):
    """A ``keep_top`` that ranks all scores by ``choose(flat, number kept) -> bool tensor``."""

    def keep_top(scores, sparsity):
        flat = torch.cat([score.flatten() for score in scores.values()])
        parts = choose(flat, sparsity).split([score.numel() for score in scores.values()])
        return {name: part.view_as(score) for part, (name, score) in zip(parts, scores.items())}

    return keep_top


def first(order, kappa):
    kept = torch.zeros(len(order), dtype=torch.bool)
    kept[order[:kappa]] = True
    return kept


def by_order(flat, sparsity, **options):
    options = dict(descending=True, stable=True) | options
    return first(flat.argsort(**options), round(len(flat) * (1 - sparsity)))


def threshold(flat, sparsity):
    return flat >= flat.sort(descending=True).values[round(len(flat) * (1 - sparsity)) - 1]


def last_of_equals(flat, sparsity):
    return first(
        flat.flip(0).argsort(descending=True, stable=True), round(len(flat) * (1 - sparsity))
    ).flip(0)


def nudged(flat, sparsity):
    return by_order(flat - 1e-5 * torch.arange(len(flat)), sparsity)


def rounded(flat, sparsity):
    return by_order(flat.mul(100).round(), sparsity)


def unstable(flat, sparsity):
    return first(torch.from_numpy(np.argsort(-flat.numpy())), round(len(flat) * (1 - sparsity)))


def cut_off(flat, sparsity):
    return first(flat.argsort(descending=True, stable=True), int(len(flat) * (1 - sparsity)))


def rounded_up(flat, sparsity):
    return first(flat.argsort(descending=True, stable=True), len(flat) - int(len(flat) * sparsity))


def refuse_by_assert(flat, sparsity):
    assert not flat.isnan().any()
    return by_order(flat, sparsity)


def per_layer(scores, sparsity):
    return {
        name: by_order(score.flatten(), sparsity).view_as(score) for name, score in scores.items()
    }


# --- (d) ------------------------------------------------------------------------------------------
# -----------------


def train_from(
    *,
    before=True,
    gradients=True,
    after=False,
    fresh=True,
    only=None,
    nonzero=False,
    look=lambda x: x,
):
    """A ``train`` that masks weights before training, gradients, and weights after training; or
    leaves it.

    It may mask the gradients of ``only`` some, mask those of weights that are not 0 for the masks',
    or look at other inputs.
    """

    def multiply(model, masks):
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight *= masks[name]

    def train(model, masks, batches, optimiser):
        if before:
            multiply(model, masks)
        for inputs, targets in batches:
            if fresh:
                optimiser.zero_grad()
            cross_entropy(model(look(inputs)), targets).backward()
            for name, weight in model.named_parameters():
                if gradients and (only is None or name in only):
                    weight.grad *= weight != 0 if nonzero else masks[name]
            optimiser.step()
        if after:
            multiply(model, masks)

    return train


def in_place_with_graph(model, masks, batches, optimiser):
    for name, weight in model.named_parameters():
        weight *= masks[name]


# --- (e) and (f) ----------------------------------------------------------------------------------
# -----------------


def switches_from(product):
    """A ``loss_with_switches`` that puts ``product(switch, weight)`` in the place of the weight."""

    def loss_with_switches(model, c, loss, inputs, targets):
        tensors = {name: product(c[name], weight) for name, weight in model.named_parameters()}
        return loss(functional_call(model, tensors, inputs), targets)

    return loss_with_switches


def loss_not_used(model, c, loss, inputs, targets):
    return switches_from(lambda c, w: c * w)(model, c, cross_entropy, inputs, targets)


def into_the_model(model, c, loss, inputs, targets):
    for name, weight in model.named_parameters():
        weight.data *= c[name].detach()
    return loss(model(inputs), targets)


def rescale_from(*, bias=True, out=lambda factor: 1 / factor, column=True):
    """A ``rescale`` that may forget the bias, treat what goes out otherwise, or take a row for a
    column.
    """

    def rescale(model, unit, factor):
        with torch.no_grad():
            model[0].weight[unit] *= factor
            model[0].bias[unit] *= factor if bias else 1
            (model[2].weight[:, unit] if column else model[2].weight[unit])[:] *= out(factor)

    return rescale


def your_function(*_): ...  # your code


#: part, what the student did, the check called on it, what its sentence must hold
ANSWERS = [
    ("(a)", "blank", lambda: by_hand(d1=...), "derivatives_1 is not filled in yet"),
    ("(a)", "one number missing", lambda: by_hand(d1=[[0, 0], [24, ...]]),
     "derivatives_1 is not filled in yet"),
    ("(a)", "∂L/∂w instead of w · ∂L/∂w", lambda: by_hand(d1=[[0, 0], [6, 12]], d2=[0, 6]),
     r"these are ∂L/∂w"),
    ("(a)", "the ReLU forgotten", lambda: by_hand(d1=[[-27, 18], [24, -12]]),
     "gives 0 after the ReLU"),
    ("(a)", "no signs", lambda: by_hand(d1=[[0, 0], [24, 12]]), "the derivatives have signs"),
    ("(a)", "the error forgotten", lambda: by_hand(d1=[[0, 0], [8, -4]], d2=[0, 4]),
     "the error o − target is 3"),
    ("(a)", "w2 forgotten in the first layer", lambda: by_hand(d1=[[0, 0], [12, -6]]),
     "derivatives_1 is not w ·"),
    ("(a)", "a slip in the second layer", lambda: by_hand(d2=[0, 6]),
     "derivatives_2 is not w · ∂L/∂w yet"),
    ("(a)", "scores that sum to 1 in each layer",
     lambda: by_hand(s1=[[0, 0], [2 / 3, 1 / 3]], s2=[0, 1]), "one sum over both layers"),
    ("(a)", "negative scores", lambda: by_hand(s1=[[0, 0], [0.5, -0.25]]), "never negative"),
    ("(b)", "blank", lambda: lab1.snip(your_function), "is not filled in yet"),
    ("(b)", "an error inside", lambda: lab1.snip(half_done),
     "stopped with TypeError.* in the line: return"),
    ("(b)", "the gradient alone", lambda: lab1.snip(snip_from(lambda w, g: g.abs())),
     "Multiply by the weight"),
    ("(b)", "the magnitude", lambda: lab1.snip(snip_from(lambda w, g: w.abs())),
     "does not look at the data"),
    ("(b)", "the sum in place of the product",
     lambda: lab1.snip(snip_from(lambda w, g: w.abs() + g.abs())), "a product is wanted"),
    ("(b)", "no absolute value", lambda: lab1.snip(snip_from(lambda w, g: w * g)),
     "take absolute values"),
    ("(b)", "each layer divided by its own sum",
     lambda: lab1.snip(snip_from(product, per_layer=True)), "layers compete"),
    ("(b)", "backward() on top of old gradients",
     lambda: lab1.snip(snip_from(product, backward=True)),
     "snip filled the .grad of the parameters"),
    ("(b)", "model.eval() left on", lambda: lab1.snip(snip_from(product, evaluating=True)),
     "leave the model as it"),
    ("(b)", "squares", lambda: lab1.snip(snip_from(lambda w, g: (w * g) ** 2)),
     "moving each switch a little"),
    ("(c)", "blank", lambda: lab1.keep_top(your_function), "is not filled in yet"),
    ("(c)", "a threshold, score >= lowest kept", lambda: lab1.keep_top(keep_from(threshold)),
     "where scores tie.* A threshold"),
    ("(c)", "ranked within each layer", lambda: lab1.keep_top(per_layer),
     "Rank all scores of the network together"),
    ("(c)", "an order in which the last of equals wins",
     lambda: lab1.keep_top(keep_from(last_of_equals)), "the ones that come first must be kept"),
    ("(c)", "ties broken by a small number", lambda: lab1.keep_top(keep_from(nudged)),
     "where scores are small|a removed score is higher"),
    ("(c)", "rounded scores", lambda: lab1.keep_top(keep_from(rounded)),
     "a removed score is higher"),
    ("(c)", "an order that is not stable", lambda: lab1.keep_top(keep_from(unstable)),
     "the ones that come first must be kept"),
    ("(c)", "int() in place of round()", lambda: lab1.keep_top(keep_from(cut_off)),
     "round\\(\\) rounds"),
    ("(c)", "int() of what is removed", lambda: lab1.keep_top(keep_from(rounded_up)),
     "round the number that is kept"),
    ("(c)", "sparsity taken for the share kept",
     lambda: lab1.keep_top(keep_from(lambda f, s: by_order(f, 1 - s))),
     "share that is \\*removed\\*"),
    ("(c)", "the lowest kept",
     lambda: lab1.keep_top(keep_from(lambda f, s: by_order(f, s, descending=False))),
     "sort in descending order"),
    ("(c)", "NaN sorted somewhere", lambda: lab1.keep_top(keep_from(by_order)), "NaN has no place"),
    ("(c)", "NaN raises another error", lambda: lab1.keep_top(keep_from(refuse_by_assert)),
     "yours raised AssertionError"),
    ("(d)", "blank", lambda: lab2.train(your_function), "is not filled in yet"),
    ("(d)", "weights masked once, before training", lambda: lab2.train(train_from(gradients=False)),
     "the step has revived them. Multiply the gradients"),
    ("(d)", "gradients masked, weights not set to 0", lambda: lab2.train(train_from(before=False)),
     "Multiply the weights by their masks before the first step"),
    ("(d)", "only the last gradient masked", lambda: lab2.train(train_from(only=("4.bias",))),
     "has revived them"),
    ("(d)", "only the biases' gradients masked",
     lambda: lab2.train(train_from(only=("0.bias", "2.bias", "4.bias"))), "has revived them"),
    ("(d)", "gradients masked where a weight is 0", lambda: lab2.train(train_from(nonzero=True)),
     "have left the path"),
    ("(d)", "the inputs not used", lambda: lab2.train(train_from(look=torch.zeros_like)),
     "have left the path"),
    ("(d)", "weight *= mask without no_grad", lambda: lab2.train(in_place_with_graph),
     "inside `with torch.no_grad"),
    ("(d)", "weights masked after training",
     lambda: lab2.train(train_from(before=False, gradients=False, after=True)),
     "Multiply the weights by their masks before the first step"),
    ("(d)", "no zero_grad", lambda: lab2.train(train_from(fresh=False)), "zero_grad"),
    ("(e)", "blank", lambda: lab2.switches(your_function), "is not filled in yet"),
    ("(e)", "the switches not used", lambda: lab2.switches(switches_from(lambda c, w: w)),
     "the switches are not used"),
    ("(e)", "c + w", lambda: lab2.switches(switches_from(lambda c, w: c + w)),
     "be \\*multiplied\\* by its switch"),
    ("(e)", "cross_entropy in place of loss", lambda: lab2.switches(loss_not_used),
     "use the `loss` given"),
    ("(e)", "the graph cut by .data", lambda: lab2.switches(switches_from(lambda c, w: c.data * w)),
     "no derivative reaches the switches"),
    ("(e)", "c * w written into the model", lambda: lab2.switches(into_the_model),
     "own weights have changed"),
    ("(e)", "biases without a switch",
     lambda: lab2.switches(switches_from(lambda c, w: c * w if w.dim() > 1 else w)),
     "Do all parameters have their switch"),
    ("(f)", "blank", lambda: lab2.rescale(your_function), "is not filled in yet"),
    ("(f)", "the bias forgotten", lambda: lab2.rescale(rescale_from(bias=False)),
     "the bias goes \\*into\\* the unit, too"),
    ("(f)", "multiplied on both sides", lambda: lab2.rescale(rescale_from(out=lambda f: f)),
     "must be divided by 10"),
    ("(f)", "row in place of column", lambda: lab2.rescale(rescale_from(column=False)),
     "are column 2 of model"),
    ("(f)", "factors blank", lambda: lab2.factors(..., ..., ...),
     "snip_factor is not filled in yet"),
    ("(f)", "the gradient grows, too", lambda: lab2.factors(1, 10, 10), "a step of the same size"),
    ("(f)", "the score grows", lambda: lab2.factors(10, 10, 0.1),
     "a product of one factor that grows"),
]  # fmt: skip


def sentence(check) -> str:
    """What the check says to a wrong answer."""
    try:
        check()
    except Wrong as wrong:
        return str(wrong)
    raise AssertionError("the check has let a wrong answer pass")
