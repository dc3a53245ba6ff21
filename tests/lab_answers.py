"""Blank and typical wrong answers to the labs, and what the checks must say to them."""

import sys
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from torch.func import functional_call
from torch.nn.functional import cross_entropy

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "notebooks" / "labs"))

from checks import lab1, lab2, lab3  # noqa: E402  the students' import
from checks.common import Wrong  # noqa: E402

# --- (a) ---

RIGHT = dict(d1=[[0, 0], [24, -12]], d2=[0, 12], s1=[[0, 0], [0.5, 0.25]], s2=[0, 0.25])


def by_hand(**changes):
    x, W1, w2 = (
        torch.tensor([1.0, 2.0]),
        torch.tensor([[-3.0, 1.0], [4.0, -1.0]]),
        torch.tensor([3.0, 2.0]),
    )
    lab1.by_hand(x, W1, w2, 1.0, *(RIGHT | changes).values())


# --- (b) ---


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


# --- (c) ---


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


# --- (d) ---


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


# --- (e) and (f) ---


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


# --- (g) ---


def shuffle_from(order):
    """A ``shuffle`` that gives each flat mask the order ``order(count, generator)``."""

    def shuffle(masks, generator):
        return {
            name: mask.flatten()[order(mask.numel(), generator)].view_as(mask)
            for name, mask in masks.items()
        }

    return shuffle


def shuffle_each(change):
    """A ``shuffle`` that makes each mask anew by ``change(mask, generator)``."""

    def shuffle(masks, generator):
        return {name: change(mask, generator) for name, mask in masks.items()}

    return shuffle


def across_layers(masks, generator):
    flat = torch.cat([mask.flatten() for mask in masks.values()])
    parts = flat[permutation(len(flat), generator)].split([m.numel() for m in masks.values()])
    return {name: part.view_as(masks[name]) for name, part in zip(masks, parts)}


def in_place(masks, generator):
    for mask in masks.values():
        mask[...] = mask.flatten()[permutation(mask.numel(), generator)].view_as(mask)
    return masks


def order_for_each_size(masks, generator):
    orders = {n: permutation(n, generator) for n in {m.numel() for m in masks.values()}}
    return {n: m.flatten()[orders[m.numel()]].view_as(m) for n, m in masks.items()}


def permutation(count, generator):
    return torch.randperm(count, generator=generator)


def rolled(mask, generator):
    by = int(torch.randint(mask.numel(), (), generator=generator))
    return mask.flatten().roll(by).view_as(mask)


def in_twos(mask, generator):
    """Blocks of two change places, but each block stays together."""
    blocks = mask.flatten()[: mask.numel() // 2 * 2].view(-1, 2)
    moved = mask.flatten().clone()
    moved[: blocks.numel()] = blocks[permutation(len(blocks), generator)].flatten()
    return moved.view_as(mask)


# --- (h) ---


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def pair_from(
    *,
    scored=lambda seed: seed,
    permuted=seeded,
    trained=lambda seed: (seed, seed),
    given=lambda snip, control: (snip, control),
    result=lambda snip, control: (snip, control),
):
    """A ``pair`` with a slip in what is seeded, in which masks are trained, or in the result."""

    def pair(seed, masks_of, shuffle, error_of):
        masks = masks_of(scored(seed))
        chosen = given(masks, shuffle(masks, permuted(seed)))
        errors = [error_of(mask, number) for mask, number in zip(chosen, trained(seed))]
        return result(*errors)

    return pair


def no_control(seed, masks_of, shuffle, error_of):
    return error_of(masks_of(seed), seed), error_of(masks_of(seed), seed)


# --- (i) and (j) ---


def interval_from(
    *, ddof=1, factor=lambda n: stats.t.ppf(0.975, n - 1), root=np.sqrt, fewest=2, center=np.mean
):
    """An ``interval`` with a slip in one of its four ingredients."""

    def interval(differences):
        if len(differences) < fewest:
            raise ValueError("too few")
        mean, count = center(differences), len(differences)
        half = factor(count) * np.std(differences, ddof=ddof) / root(count)
        return mean, mean - half, mean + half

    return interval


READ = {
    "worse": dict(A="shown", B="open", C="shown", D="open"),
    "equal": dict(A="refuted", B="open", C="shown", D="shown"),
}


def reading(worse=(), equal=()):
    lab3.reading(READ["worse"] | dict(worse), READ["equal"] | dict(equal))


def seeds_from(factor=lambda n: stats.t.ppf(0.975, n - 1), width=1.0, extra=0):
    """A ``seeds_for`` with another factor of the spread, another width, or some seeds more."""

    def seeds_for(half_width, spread):
        count = 2
        while factor(count) * spread / np.sqrt(count) > width * half_width:
            count += 1
        return count + extra

    return seeds_for


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
    ("(g)", "blank", lambda: lab3.shuffle(your_function), "is not filled in yet"),
    ("(g)", "the generator not used",
     lambda: lab3.shuffle(shuffle_from(lambda n, g: torch.randperm(n))),
     "Hand the generator on"),
    ("(g)", "a seed inside",
     lambda: lab3.shuffle(shuffle_from(lambda n, g: permutation(n, seeded(0)))),
     "Do not seed anything inside"),
    ("(g)", "another random mask of the same density",
     lambda: lab3.shuffle(shuffle_each(
         lambda m, g: torch.rand(m.shape, generator=g) < m.float().mean())),
     "changes two things at once"),
    ("(g)", "drawn with replacement",
     lambda: lab3.shuffle(shuffle_from(lambda n, g: torch.randint(n, (n,), generator=g))),
     "each exactly once"),
    ("(g)", "shuffled across the layers", lambda: lab3.shuffle(across_layers),
     "permute within each tensor, not across"),
    ("(g)", "in place", lambda: lab3.shuffle(in_place), "changed the masks that it was given"),
    ("(g)", "whole rows", lambda: lab3.shuffle(shuffle_each(
        lambda m, g: m[permutation(len(m), g)])), "whole rows or columns have moved"),
    ("(g)", "within rows", lambda: lab3.shuffle(shuffle_each(
        lambda m, g: m.gather(-1, torch.rand(m.shape, generator=g).argsort(-1)))),
     "or entries within them"),
    ("(g)", "nothing moved", lambda: lab3.shuffle(shuffle_each(lambda m, g: m.clone())),
     "nothing has moved"),
    ("(g)", "the shape lost", lambda: lab3.shuffle(shuffle_each(
        lambda m, g: m.flatten()[permutation(m.numel(), g)])), "must be a tensor of shape"),
    ("(g)", "one order for all of a size", lambda: lab3.shuffle(order_for_each_size),
     "Draw a new permutation for each"),
    ("(g)", "two entries at a time", lambda: lab3.shuffle(shuffle_each(in_twos)),
     "every choice must be possible"),
    ("(g)", "a shift", lambda: lab3.shuffle(shuffle_each(rolled)), "Permute single entries"),
    ("(h)", "blank", lambda: lab3.pair(your_function), "is not filled in yet"),
    ("(h)", "no control", lambda: lab3.pair(no_control), "shuffle is never called"),
    ("(h)", "another draw for the control",
     lambda: lab3.pair(pair_from(trained=lambda seed: (seed, seed + 1))),
     "trained with seeds 3 and 4.*Hand the same seed to both"),
    ("(h)", "one draw for all pairs", lambda: lab3.pair(pair_from(trained=lambda seed: (0, 0))),
     "would be no repetitions"),
    ("(h)", "one mask for all pairs", lambda: lab3.pair(pair_from(scored=lambda seed: 0)),
     "SNIP's masks come from seed 0"),
    ("(h)", "one permutation for all pairs",
     lambda: lab3.pair(pair_from(permuted=lambda _: seeded(0))),
     "one draw of the control"),
    ("(h)", "a generator without a seed",
     lambda: lab3.pair(pair_from(permuted=lambda _: torch.Generator())), "one draw of the control"),
    ("(h)", "the seed in place of a generator",
     lambda: lab3.pair(pair_from(permuted=lambda seed: seed)), "shuffle takes a generator"),
    ("(h)", "a copy shuffled, the original trained",
     lambda: lab3.pair(pair_from(given=lambda snip, control: (snip, snip))),
     "the control was shuffled but never trained"),
    ("(h)", "the difference alone", lambda: lab3.pair(pair_from(result=lambda a, b: b - a)),
     "must return both errors"),
    ("(h)", "the wrong order", lambda: lab3.pair(pair_from(result=lambda a, b: (b, a))),
     "SNIP's comes first"),
    ("(i)", "blank", lambda: lab3.interval(your_function), "is not filled in yet"),
    ("(i)", "1.96 for three seeds", lambda: lab3.interval(interval_from(factor=lambda n: 1.96)),
     "Student's factor is 4.30"),
    ("(i)", "np.std as it is", lambda: lab3.interval(interval_from(ddof=0)), "Take ddof=1"),
    ("(i)", "both", lambda: lab3.interval(interval_from(ddof=0, factor=lambda n: 1.96)),
     "1.96 is for many seeds, and np.std"),
    ("(i)", "n degrees of freedom",
     lambda: lab3.interval(interval_from(factor=lambda n: stats.t.ppf(0.975, n))), "n − 1 degrees"),
    ("(i)", "5 % on one side",
     lambda: lab3.interval(interval_from(factor=lambda n: stats.t.ppf(0.95, n - 1))),
     "2.5 % on each"),
    ("(i)", "the lower quantile",
     lambda: lab3.interval(interval_from(factor=lambda n: stats.t.ppf(0.025, n - 1))),
     "t.ppf\\(0.025\\) is negative"),
    ("(i)", "no root of n", lambda: lab3.interval(interval_from(root=lambda n: 1)),
     "divide by √n"),
    ("(i)", "divided by n", lambda: lab3.interval(interval_from(root=lambda n: n)),
     "by √n, not by n"),
    ("(i)", "one standard error", lambda: lab3.interval(interval_from(factor=lambda n: 1)),
     "one standard error"),
    ("(i)", "the median", lambda: lab3.interval(interval_from(center=np.median)), "the mean of 3"),
    ("(i)", "an interval from one seed", lambda: lab3.interval(interval_from(fewest=0)),
     "One seed has no spread"),
    ("(i)", "readings blank", lambda: lab3.reading(..., ...), "worse is not filled in yet"),
    ("(i)", "no difference found, so none there", lambda: reading(worse=dict(B="refuted")),
     "study B, worse: 0 lies in the interval, but so does 2.7"),
    ("(i)", "equal, since 0 is inside", lambda: reading(equal=dict(B="shown")),
     "beyond the margin"),
    ("(i)", "small taken for nothing", lambda: reading(worse=dict(C="open")),
     "even the lower end, 0.1, is above 0"),
    ("(i)", "not 0, so not equal", lambda: reading(equal=dict(C="refuted")),
     "not whether it is 0"),
    ("(i)", "everything open", lambda: reading(equal=dict(D="open")), "All, none or some"),
    ("(i)", "another word", lambda: reading(worse=dict(A="yes")), "must be one of shown, refuted"),
    ("(j)", "blank", lambda: lab3.seeds_for(your_function), "is not filled in yet"),
    ("(j)", "1.96", lambda: lab3.seeds_for(seeds_from(factor=lambda n: 1.96)),
     "That is \\(1.96 s / w\\)²"),
    ("(j)", "a formula without rounding", lambda: lab3.seeds_for(lambda w, s: (1.96 * s / w) ** 2),
     "Round up, not off"),
    ("(j)", "the whole width", lambda: lab3.seeds_for(seeds_from(width=0.5)), "whole\\* width"),
    ("(j)", "twice the half", lambda: lab3.seeds_for(seeds_from(width=2)), "half of the width"),
    ("(j)", "n degrees of freedom",
     lambda: lab3.seeds_for(seeds_from(factor=lambda n: stats.t.ppf(0.975, n))),
     "n − 1 degrees of freedom"),
    ("(j)", "one too few", lambda: lab3.seeds_for(seeds_from(extra=-1)), "one too few"),
    ("(j)", "one too many", lambda: lab3.seeds_for(seeds_from(extra=1)), "Fewer would do"),
]  # fmt: skip


def sentence(check) -> str:
    """What the check says to a wrong answer."""
    try:
        check()
    except Wrong as wrong:
        return str(wrong)
    raise AssertionError("the check has let a wrong answer pass")
