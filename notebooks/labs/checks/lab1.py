"""Checks of lab 1: scores by hand, `snip`, exact top-κ."""

import copy

import torch
from torch.nn.functional import cross_entropy, mse_loss, one_hot

from checks.common import (
    Wrong,
    after,
    answer_of,
    close,
    derivatives_of,
    examples,
    filled,
    gradients_of,
    need,
    network,
    passed,
    same_names,
)

#: check → the part it belongs to, and its points
POINTS = {"by_hand": ("(a)", 30), "snip": ("(b)", 35), "keep_top": ("(c)", 35)}


def by_hand(x, W1, w2, target, derivatives_1, derivatives_2, scores_1, scores_2):
    """Part (a): o = w2 · relu(W1 x), L = (o − target)² / 2."""
    for number, given in enumerate([(derivatives_1, derivatives_2), (scores_1, scores_2)]):
        names = [("derivatives_1", "derivatives_2"), ("scores_1", "scores_2")][number]
        filled(**dict(zip(names, given)))
    weights = {"1": W1.double(), "2": w2.double()}
    given = {"1": derivatives_1, "2": derivatives_2}, {"1": scores_1, "2": scores_2}
    for what, tensors in zip(("derivatives", "scores"), given):
        for layer, weight in weights.items():
            try:
                tensors[layer] = torch.as_tensor(tensors[layer], dtype=torch.float64)
            except (TypeError, ValueError, RuntimeError):
                raise Wrong(
                    f"{what}_{layer} is not filled in yet: a number is missing or is no number"
                ) from None
            need(
                tensors[layer].shape == weight.shape,
                f"{what}_{layer} must have the shape {tuple(weight.shape)} of its weights",
            )
    derivatives, scores = given
    into, hidden = W1.double() @ x.double(), (W1.double() @ x.double()).relu()
    error = w2.double() @ hidden - target
    gradients = {"1": torch.outer(error * w2 * (into > 0), x.double()), "2": error * hidden}
    right = {layer: weights[layer] * gradients[layer] for layer in weights}
    off = into <= 0
    need(
        not derivatives["1"][off].any() and not derivatives["2"][off].any(),
        "a hidden unit whose input is negative gives 0 after the ReLU: no connection into "
        "it or out of it can change the loss on this example, so their derivatives are 0",
    )
    if all(close(derivatives[layer], gradients[layer]) for layer in weights):
        raise Wrong(
            "these are ∂L/∂w, the derivatives by the weights; by the switches it is w · ∂L/∂w"
        )
    if all(close(derivatives[layer], right[layer].abs()) for layer in weights):
        raise Wrong("the derivatives have signs; absolute values come later, in the scores")
    for layer in ("2", "1"):
        need(
            close(derivatives[layer], right[layer]),
            f"derivatives_{layer} is not w · ∂L/∂w yet. Go backward: the "
            f"error o − target is {error:g}; ∂L/∂w2 is error · hidden unit; "
            "∂L/∂W1 is error · w2 of that unit · input, where the unit is on",
        )
    with after(0.6):
        _scores_by_hand(scores, right)
    passed(
        "(a)",
        "right, and each layer's signed derivatives sum to the "
        f"same: {right['1'].sum():g} and {right['2'].sum():g}",
    )


def _scores_by_hand(scores, right):
    """The second half of part (a), when the derivatives are right."""
    need(
        all((score >= 0).all() for score in scores.values()),
        "a score is an absolute value, so it is never negative",
    )
    if all(abs(score.sum() - 1) < 1e-6 for score in scores.values()):
        raise Wrong(
            "each layer's scores sum to 1; divide by one sum over both layers, since all compete"
        )
    total = sum(score.sum() for score in scores.values()).item()
    need(
        abs(total - 1) < 1e-3,
        f"the scores of both layers together sum to {total:g}, "
        "but must sum to 1: divide by the sum of all |∂L/∂c|",
    )
    whole = sum(d.abs().sum() for d in right.values())
    for layer in right:
        need(
            torch.allclose(scores[layer], right[layer].abs() / whole, atol=1e-3),
            f"scores_{layer} is not |∂L/∂c| divided by the sum of all |∂L/∂c|, which is {whole:g}",
        )


def snip(function):
    """Part (b).

    ``snip(model, loss, inputs, targets)`` against derivatives by central differences.
    """
    for seed, loss in enumerate((cross_entropy, cross_entropy, mse_loss)):
        model, (inputs, targets) = network(seed), examples(seed)
        if loss is mse_loss:  # any loss: not only cross-entropy
            targets = one_hot(targets, 3).double()
        before = copy.deepcopy(model.state_dict())
        scores = answer_of(function, model, loss, inputs, targets)
        same_names(scores, before, "what snip returns")
        need(
            not any(score.requires_grad for score in scores.values()),
            "the scores still hang on the graph of the backward pass: add .detach()",
        )
        scores = {name: score.double() for name, score in scores.items()}
        need(
            all(module.training for module in model.modules())
            and all(w.requires_grad for w in model.parameters()),
            "snip must leave the model as it was: put train() "
            "or requires_grad back, or better, leave them alone",
        )
        need(
            all(weight.grad is None for weight in model.parameters()),
            "snip filled the .grad of the parameters, to which the next backward() adds. Use "
            "torch.autograd.grad, which hands the gradients out, or model.zero_grad() at the end",
        )
        need(
            all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items()),
            "snip changed the model's weights; it must only look at them",
        )
        need(
            all((score >= 0).all() for score in scores.values()),
            "some scores are negative: a connection matters if "
            "the loss moves up *or* down; take absolute values",
        )
        sums = torch.stack([score.sum() for score in scores.values()])
        weights, gradients = before, gradients_of(model, loss, inputs, targets)
        _not_another_criterion(scores, weights, gradients)
        if len(sums) > 1 and torch.allclose(sums, torch.ones_like(sums)):
            raise Wrong(
                "each layer's scores sum to 1. Divide by one "
                "sum over the whole network: layers compete"
            )
        need(
            abs(sums.sum() - 1) < 1e-6,
            f"the scores of the whole network sum to {sums.sum():.4g}, but must sum to 1",
        )
        derivatives = derivatives_of(model, loss, inputs, targets)
        total = sum(d.abs().sum() for d in derivatives.values())
        for name, score in scores.items():
            need(
                torch.allclose(score, derivatives[name].abs() / total, rtol=1e-4, atol=1e-7),
                f"the scores of {name} are not |∂L/∂c|: moving each switch "
                "a little gives other derivatives. Is it |w · ∂L/∂w|, with "
                "the loss that was passed, on the batch that was passed?",
            )
    passed("(b)", "three networks, two losses: the scores are the derivatives by the switches")


def _not_another_criterion(scores, weights, gradients):
    """The typical slips are criteria of their own; name them."""
    others = {
        (
            "|∂L/∂w|: how much the loss reacts to a *step* of the weight. Multiply by the weight"
        ): gradients,
        "|w|, the magnitude: it does not look at the data. Multiply by ∂L/∂w": weights,
        "|∂L/∂w| + |w|: a product is wanted, not a sum": {
            n: gradients[n].abs() + weights[n].abs() for n in weights
        },
    }
    for what, other in others.items():
        total, ours = (sum(t.abs().sum() for t in tensors.values()) for tensors in (other, scores))
        if ours > 0 and all(
            close(scores[name] / ours, other[name].abs() / total) for name in weights
        ):
            raise Wrong(f"these scores are {what}")


def keep_top(function):
    """Part (c).

    ``keep_top(scores, sparsity)``: exact counts, the whole network, ties by index, NaN refused.
    """
    generator = torch.Generator().manual_seed(0)
    sizes = {"first": (4, 5), "second": (3, 4), "third": (2, 3)}
    scores = {
        name: torch.rand(size, generator=generator) * (k + 1)
        for k, (name, size) in enumerate(sizes.items())
    }
    # 38 scores: 5.7 and 3.8 must be rounded up, 11.4 down.
    for sparsity in (0.5, 0.85, 0.9, 0.7, 0.0):
        _masks(function, scores, sparsity, "")
    with after(0.4):
        _tied_masks(function, generator)
    with after(0.8):
        _refuses_nan(function)
    passed(
        "(c)", "exact counts, the best of the whole network, ties to the lower index, NaN refused"
    )


def _tied_masks(function, generator):
    """Cases of part (c) in which scores are equal, or nearly."""
    ties = {
        "first": torch.tensor([[3.0, 1.0], [1.0, 2.0]]),
        "second": torch.tensor([1.0, 1.0, 3.0, 1.0]),
    }
    _masks(function, ties, 0.5, " where scores tie")
    flat = {"first": torch.full((30, 30), 0.5), "second": torch.full((200,), 0.5)}
    _masks(function, flat, 0.9, " where all scores are equal")
    zeros = {"weight": torch.tensor([0.0, 0.2, 0.0, 0.8]), "bias": torch.zeros(4)}
    _masks(function, zeros, 0.5, " where many scores are 0")
    small = 1e-7 * torch.rand(700, generator=generator)
    _masks(
        function,
        {"first": small[:600].view(30, 20), "second": small[600:]},
        0.9,
        " where scores are small",
    )
    few = {
        "first": torch.randint(0, 4, (30, 20), generator=generator).float(),
        "second": torch.arange(100.0) % 4,
    }
    _masks(function, few, 0.9, " where many scores tie")


def _refuses_nan(function):
    broken = {
        "first": torch.tensor([1.0, 2.0]),
        "second": torch.tensor([1.0, float("nan"), 2.0, 3.0]),
    }
    try:
        function(broken, 0.5)
    except ValueError:
        pass
    except Exception as error:
        raise Wrong(
            f"a score that is NaN must raise ValueError; yours raised {type(error).__name__}"
        ) from None
    else:
        raise Wrong(
            "a score that is NaN has no place in any order: "
            "raise ValueError instead of sorting it somewhere"
        )


def _masks(function, scores, sparsity, where):
    """One case of part (c)."""
    before = {name: score.clone() for name, score in scores.items()}
    masks = answer_of(function, scores, sparsity)
    need(
        all(torch.equal(scores[name], score) for name, score in before.items()),
        "keep_top changed the scores",
    )
    same_names(masks, scores, "what keep_top returns")
    need(
        all(mask.dtype == torch.bool for mask in masks.values()),
        "the masks must be bool tensors: True where a connection is kept",
    )
    values = torch.cat([score.flatten() for score in scores.values()])
    kept = torch.cat([mask.flatten() for mask in masks.values()])
    total, kappa, count = len(values), round(len(values) * (1 - sparsity)), int(kept.sum())
    tied = len(values.unique()) < total
    if count != kappa:
        hint = ""
        if count == int(total * (1 - sparsity)):
            hint = ". int() cuts off; round() rounds"
        elif count == total - int(total * sparsity):
            hint = (
                ". int() of the *removed* share rounds the "
                "kept one up; round the number that is kept"
            )
        elif count == total - kappa:
            hint = ". sparsity is the share that is *removed*"
        elif tied and count > kappa:
            hint = (
                ". A threshold, score >= lowest, keeps all of "
                "equal scores; choose by position in an order"
            )
        elif tied and count < kappa:
            hint = (
                ". A threshold, score > lowest, drops all of "
                "equal scores; choose by position in an order"
            )
        elif all(int(m.sum()) == round(m.numel() * (1 - sparsity)) for m in masks.values()):
            hint = (
                ". It seems that you rank within each layer; "
                "rank all scores of the network together"
            )
        raise Wrong(
            f"{count} of {total} are kept at sparsity "
            f"{sparsity}{where}, but must be exactly {kappa}{hint}"
        )
    if kept.all():
        return
    lowest, highest = values[kept].min(), values[~kept].max()
    if lowest < highest:
        if values[kept].max() <= values[~kept].min():
            raise Wrong("the *lowest* scores are kept; sort in descending order")
        within = all(
            not (~m).any() or not m.any() or scores[n][m].min() >= scores[n][~m].max()
            for n, m in masks.items()
        )
        hint = (
            "within each layer the best are kept, but"
            if within
            else "a removed score is higher than a kept one:"
        )
        raise Wrong(
            f"{hint} a score of {highest:.3g} is removed while {lowest:.3g} is kept. Rank all "
            "scores of the network together, and give each mask its own piece of the result"
        )
    ties = kept[values == lowest]
    need(
        not (~ties[:-1] & ties[1:]).any(),
        "of equal scores the ones that come first must be kept, in the order of the dict, "
        "row by row. topk and argsort without stable=True promise no order among equals",
    )
