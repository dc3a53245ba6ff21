"""Checks of lab 3: the shuffle control, pairs, Student's interval, a number of seeds."""

import math
import warnings
from numbers import Real

import numpy as np
import torch
from scipy import stats

from checks.common import Wrong, after, answer_of, filled, need, passed, same_names

#: check → the part it belongs to, and its points
POINTS = {
    "shuffle": ("(g)", 25),
    "pair": ("(h)", 25),
    "interval": ("(i)", 20),
    "reading": ("(i)", 10),
    "seeds_for": ("(j)", 20),
}

#: studies of part (i): control minus SNIP, the ends of the 95 % interval
STUDIES = {"A": (0.7, 1.7), "B": (-1.1, 2.7), "C": (0.1, 0.3), "D": (-0.3, 0.3)}
MARGIN = 0.5
WORDS = ("shown", "refuted", "open")


def seeded(seed):
    return torch.Generator().manual_seed(seed)


# --- (g) ---


def shuffle(function):
    """Part (g): ``shuffle(masks, generator)``."""
    masks = {
        "first.weight": torch.arange(30).view(5, 6) % 5 < 2,
        "first.bias": torch.tensor([True, False, False, True, False]),
        "second.weight": torch.arange(16).view(4, 4) < 5,
        "third.weight": torch.arange(16).view(4, 4) < 5,  # as the second
    }
    before = {name: mask.clone() for name, mask in masks.items()}
    controls = [answer_of(function, masks, seeded(seed)) for seed in range(3)]
    need(
        all(torch.equal(masks[name], mask) for name, mask in before.items()),
        "shuffle changed the masks that it was given. SNIP's own masks are needed, too: build new "
        "tensors",
    )
    for control in controls:
        same_names(control, masks, "what shuffle returns")
        need(
            all(mask.dtype == torch.bool for mask in control.values()),
            "the masks must stay bool tensors: permute their entries, do not compute with them",
        )
        _same_counts(control, masks)
    need(
        not all(_equal(control, masks) for control in controls),
        "the control is SNIP's mask itself: nothing has moved",
    )
    with after(0.3):
        _drawn_again(function, masks, controls)
    with after(0.6):
        _every_choice(function, masks)
    passed("(g)", "the same count in each tensor, every choice possible, and drawn again at will")


def _drawn_again(function, masks, controls):
    """The generator is the only source of chance."""
    need(
        _equal(controls[0], answer_of(function, masks, seeded(0))),
        "two generators with the same seed give two different controls, so nobody can draw yours "
        "again. Hand the generator on: torch.randperm(count, generator=generator)",
    )
    need(
        not _equal(controls[0], controls[1]),
        "generators with different seeds give the same control. Do not seed anything inside: the "
        "generator that is passed must be the only source of chance",
    )


def _equal(first, second):
    return all(torch.equal(first[name], mask) for name, mask in second.items())


def _same_counts(control, masks):
    kept = {name: int(mask.sum()) for name, mask in control.items()}
    expected = {name: int(mask.sum()) for name, mask in masks.items()}
    for name, count in expected.items():
        if kept[name] == count:
            continue
        hint = (
            "a control with *about* as many connections changes two things at once. Permute the "
            "entries of SNIP's mask, each exactly once"
        )
        if sum(kept.values()) == sum(expected.values()):
            hint = (
                "the network's count is right, the layers' counts are not: permute within each "
                "tensor, not across them"
            )
        raise Wrong(f"{name} keeps {kept[name]} connections, but must keep {count}: {hint}")


def _every_choice(function, masks):
    """Single entries move, in an order of its own for each tensor."""
    generator = seeded(0)
    draws = [answer_of(function, masks, generator) for _ in range(40)]
    for dim, line in ((1, "row"), (0, "column")):
        counts = {tuple(sorted(draw["second.weight"].sum(dim).tolist())) for draw in draws}
        need(
            len(counts) > 1,
            f"in every draw the {line}s keep the same counts as before, up to their order: whole "
            "rows or columns have moved, or entries within them. Permute single entries: flatten "
            "the mask first, and give it its shape back at the end",
        )
    need(
        any(not torch.equal(draw["second.weight"], draw["third.weight"]) for draw in draws),
        "two tensors of the same shape always get the same order. Draw a new permutation for each",
    )
    small = {"weight": torch.tensor([[True, True, False], [False, False, False]])}
    drawn = set()
    for _ in range(400):
        drawn.add(tuple(answer_of(function, small, generator)["weight"].flatten().tolist()))
    need(
        len(drawn) == 15,
        f"of the 15 masks with two of six connections only {len(drawn)} ever appear: every choice "
        "must be possible. torch.randperm gives all orders",
    )


# --- (h) ---


class _Bench:
    """Tools that look like those of the notebook, and note how they are used."""

    def __init__(self):
        self.scored, self.seeds, self.trained = [], [], []
        self.snip = {"weight": torch.arange(24).view(4, 6) % 3 == 0}

    def masks_of(self, seed):
        self.scored.append(seed)
        return {name: mask.clone() for name, mask in self.snip.items()}

    def shuffle(self, masks, generator):
        need(
            isinstance(generator, torch.Generator),
            "shuffle takes a generator, torch.Generator().manual_seed(…); "
            f"yours is {type(generator).__name__}",
        )
        need(
            isinstance(masks, dict) and _equal(masks, self.snip),
            "the control must be shuffled from SNIP's masks of this pair, those of masks_of",
        )
        self.seeds.append(generator.initial_seed())
        return {"weight": ~masks["weight"]}  # easily told from the masks

    def error_of(self, masks, seed):
        """20 plus the seed with SNIP's masks, 30 plus the seed with the control."""
        with_snip = isinstance(masks, dict) and _equal(masks, self.snip)
        self.trained.append((with_snip, seed))
        return (20.0 if with_snip else 30.0) + seed


def pair(function):
    """Part (h): ``pair(seed, masks_of, shuffle, error_of)``, with tools that watch."""
    permutations = {}
    for seed in (3, 8):
        bench = _Bench()
        answer = answer_of(function, seed, bench.masks_of, bench.shuffle, bench.error_of)
        _used_well(bench, seed)
        need(
            not isinstance(answer, Real),
            "pair must return both errors, (SNIP, shuffled), not one number: whoever reads the "
            "result wants to see both",
        )
        try:
            errors = tuple(float(error) for error in answer)
        except (TypeError, ValueError):
            raise Wrong("pair must return two numbers, (SNIP, shuffled)") from None
        need(
            errors != (30.0 + seed, 20.0 + seed),
            "the two errors are in the wrong order: SNIP's comes first, then the shuffled mask's",
        )
        need(
            errors == (20.0 + seed, 30.0 + seed),
            f"pair must return what error_of gave, ({20.0 + seed}, {30.0 + seed}) here; "
            f"yours is {errors}",
        )
        permutations[seed] = bench.seeds[0]
    with after(0.7):
        need(
            permutations[3] != permutations[8],
            "the permutation is the same in every pair, so ten pairs would hang on one draw of the "
            "control. Seed its generator with `seed`",
        )
        again = _Bench()
        answer_of(function, 3, again.masks_of, again.shuffle, again.error_of)
        need(
            again.seeds[0] == permutations[3],
            "the same seed gives another permutation the second time, so nobody can run your pair "
            "again. Seed the generator with `seed`",
        )
    passed("(h)", "all but the mask is shared within a pair, and differs from pair to pair")


def _used_well(bench, seed):
    need(bench.scored, "SNIP's masks are not asked for: masks_of(seed)")
    for number in bench.scored:
        need(
            number == seed,
            f"the pair has seed {seed}, but SNIP's masks come from seed {number}",
        )
    need(bench.seeds, "there is no control: shuffle is never called")
    need(
        len(bench.trained) == 2,
        f"a pair is two trainings, one for each mask; yours makes {len(bench.trained)}",
    )
    (first_is_snip, first), (second_is_snip, second) = bench.trained
    need(
        first == second,
        f"the two networks of a pair are trained with seeds {first} and {second}, so their errors "
        "differ by the draw of the weights, too. Hand the same seed to both",
    )
    need(
        first == seed,
        f"both networks are trained with seed {first}, while the pair has seed {seed}: all pairs "
        "would share one draw of the weights, and would be no repetitions",
    )
    need(
        first_is_snip != second_is_snip,
        "both trainings have the same masks"
        + (": the control was shuffled but never trained" if first_is_snip else ""),
    )


# --- (i) ---


def interval(function):
    """Part (i), first half: ``interval(differences)`` against scipy's own."""
    generator = np.random.default_rng(0)
    for count in (3, 10, 40):
        values = generator.normal(1.0, 2.0, count)
        answer = answer_of(function, values)
        try:
            mean, low, high = (float(number) for number in answer)
        except (TypeError, ValueError):
            raise Wrong("interval must return three numbers: (mean, low, high)") from None
        need(
            math.isclose(mean, values.mean(), rel_tol=1e-6),
            f"the mean of {count} differences is {values.mean():.3f}; yours is {mean:.3f}",
        )
        need(
            low < high,
            f"low is {low:.3f} and high is {high:.3f}. Half the width must be positive: "
            "t.ppf(0.025) is negative, t.ppf(0.975) is not",
        )
        need(
            math.isclose(high - mean, mean - low, rel_tol=1e-6),
            "the interval must reach as far below the mean as above it",
        )
        with after(0.3):
            _half_width(high - mean, values)
    with after(0.8):
        _one_seed_refused(function)
    held, normal = _coverage()
    passed(
        "(i)",
        f"right. In 2,000 made-up studies of three seeds it holds the true mean in {held:.0%}; "
        f"± 1.96 standard errors would in {normal:.0%}",
    )


def _half_width(half, values):
    count = len(values)
    spread, narrow = values.std(ddof=1), values.std()
    t = stats.t.ppf(0.975, count - 1)
    error = spread / count**0.5
    ends = stats.ttest_1samp(values, 0).confidence_interval()
    right = (ends.high - ends.low) / 2
    if math.isclose(half, right, rel_tol=1e-6):
        return
    normal = stats.norm.ppf(0.975)
    ddof = "np.std divides by n: the spread comes out too small. Take ddof=1, for n − 1"
    slips = {
        t * narrow / count**0.5: ddof,
        normal * error: f"this is 1.96 standard errors, right for many seeds. For {count} "
        f"Student's factor is {t:.2f}: stats.t.ppf with n − 1 degrees of freedom",
        normal * narrow / count**0.5: f"1.96 is for many seeds, and {ddof}",
        stats.t.ppf(0.975, count) * error: "Student's t has n − 1 degrees of freedom here, not n",
        t * spread: "this is as wide as *single* runs spread. The mean of n runs is √n times as "
        "exact: divide by √n",
        t * spread / count: "divide the spread by √n, not by n",
        t * spread**2 / count**0.5: "this is the variance s²; the spread s is its root",
        stats.t.ppf(0.95, count - 1) * error: "t.ppf(0.95) leaves out 5 % on one side, 10 % on "
        "both. Leave 2.5 % on each: t.ppf(0.975)",
        error: "this is one standard error. Multiply it by t: alone it covers about two of three",
        2 * right: "this is the whole width; on each side of the mean lies half of it",
    }
    for width, hint in slips.items():
        for factor in (1, 1.96 / normal, 2 / normal):  # 1.96 and 2, as written by hand
            if math.isclose(half, factor * width, rel_tol=1e-6):
                raise Wrong(f"for {count} differences: {hint}")
    raise Wrong(
        f"for {count} differences half the width must be {right:.3f}, t · s / √n with "
        f"t = {t:.2f} and s = {spread:.3f}; yours is {half:.3f}"
    )


def _one_seed_refused(function):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's, of a spread of one number
            answer = function([0.4])
    except ValueError:
        return
    except Exception as error:
        raise Wrong(
            f"a single difference must raise ValueError; yours raised {type(error).__name__}"
        ) from None
    raise Wrong(
        f"from a single difference your interval is {answer}. One seed has no spread, so it has "
        "no interval: raise ValueError for fewer than two"
    )


def _coverage():
    """How often two kinds of intervals of three normal numbers hold their true mean."""
    samples = np.random.default_rng(1).normal(size=(2000, 3))
    errors = samples.std(axis=1, ddof=1) / 3**0.5
    distances = np.abs(samples.mean(axis=1)) / errors
    return (distances < stats.t.ppf(0.975, 2)).mean(), (distances < 1.96).mean()


def reading(worse, equal):
    """Part (i), second half: what four intervals show. Each of eight words counts."""
    filled(worse=worse, equal=equal)
    given = {"worse": worse, "equal": equal}
    for name, words in given.items():
        need(
            isinstance(words, dict) and list(words) == list(STUDIES),
            f"{name} must be a dict with the studies A, B, C and D, in that order",
        )
        for study, word in words.items():
            need(
                word in WORDS,
                f"{name}[{study!r}] must be one of {', '.join(WORDS)}; it is {word!r}",
            )
    claims = [(name, study) for study in STUDIES for name in given]
    mistakes = [(name, study) for name, study in claims if given[name][study] != _word(name, study)]
    if mistakes:
        name, study = mistakes[0]
        with after(1 - len(mistakes) / len(claims)):
            raise Wrong(
                f"{len(mistakes)} of {len(claims)} are not right. Look at study {study}, "
                f"{name}: {_reading_hint(name, study, given[name][study])}"
            )
    passed("(i)", "eight of eight. A difference can be real and too small to matter, as in C")


def _word(name, study):
    low, high = STUDIES[study]
    if name == "worse":
        shown, refuted = low > 0, high < 0
    else:
        shown, refuted = -MARGIN < low and high < MARGIN, low > MARGIN or high < -MARGIN
    return "shown" if shown else "refuted" if refuted else "open"


def _reading_hint(name, study, word):
    low, high = STUDIES[study]
    holds_zero = low < 0 < high
    if name == "worse" and holds_zero and word == "refuted":
        return (
            f"0 lies in the interval, but so does {high:g}. That no difference was found does not "
            "show that there is none"
        )
    if name == "equal" and holds_zero and word == "shown":
        return f"0 lies in the interval, but so does {high:g}, which is beyond the margin"
    if name == "worse" and low > 0:
        return f"even the lower end, {low:g}, is above 0. How large it is does not matter here"
    if name == "equal" and 0 < low and high < MARGIN:
        return (
            f"even the upper end, {high:g}, is below half a point. *Equal* asks whether the "
            "difference is smaller than the margin, not whether it is 0"
        )
    return (
        f"go through the values from {low:g} to {high:g}. Which agree with the claim, which "
        "contradict it? All, none or some?"
    )


# --- (j) ---


def seeds_for(function):
    """Part (j): ``seeds_for(half_width, spread)``, the smallest number that is enough."""
    for half_width, spread in ((0.5, 1.2), (1.0, 1.0), (2.0, 0.5), (0.1, 0.8), (10.0, 0.5)):
        answer = answer_of(function, half_width, spread)
        case = f"for ± {half_width:g} with a spread of {spread:g}"
        need(
            isinstance(answer, Real) and float(answer).is_integer(),
            f"{case} yours gives {answer}: seeds are a whole number. Round up, not off",
        )
        answer, right = int(answer), _fewest(half_width, spread)
        if answer == right:
            continue
        need(answer >= 2, f"{case} yours gives {answer}: one seed has no interval, at least 2")
        raise Wrong(f"{case} yours gives {answer}. {_seeds_hint(answer, half_width, spread)}")
    passed("(j)", "the smallest number that is enough, from two seeds to hundreds")


def _half(count, spread):
    return stats.t.ppf(0.975, count - 1) * spread / count**0.5


def _fewest(half_width, spread):
    count = 2
    while _half(count, spread) > half_width:
        count += 1
    return count


def _seeds_hint(answer, half_width, spread):
    width = _half(answer, spread)
    normal = (stats.norm.ppf(0.975) * spread / half_width) ** 2
    if answer in (math.ceil(normal), math.floor(normal)) and width > half_width:
        return (
            f"That is (1.96 s / w)². With {answer} seeds Student's factor is "
            f"{stats.t.ppf(0.975, answer - 1):.2f}, not 1.96, and the half width ± {width:.2f}"
        )
    if answer == _fewest(half_width / 2, spread):
        return "That is for a *whole* width of w. The interval reaches w on each side"
    if answer == _fewest(2 * half_width, spread):
        return "That is for a half width of 2 w: w is already half of the width"
    if answer == _fewest(half_width, spread) - 1:
        return (
            f"That is one too few: the half width would be ± {width:.3f}. Student's t has n − 1 "
            "degrees of freedom, not n, and n is rounded up"
        )
    if width > half_width:
        return f"That is too few: the half width would be ± {width:.2f}"
    return f"Fewer would do: with one seed less it is ± {_half(answer - 1, spread):.2f}"
