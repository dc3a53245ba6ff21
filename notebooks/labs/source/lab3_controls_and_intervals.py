# %% [markdown]
# # Lab 3: controls and intervals
#
# SNIP's mask trains better than a random one. Is it *which* connections it keeps, or only *how many* in each layer?
# You build the control that tells the two apart, run it in pairs, and say how sure the answer is.
#
# | part | objective: afterwards you can … | minutes | difficulty | points |
# | --- | --- | --- | --- | --- |
# | (g) | build a control that changes one thing only | 10 | ★★ | 25 |
# | (h) | train in pairs that share all but the mask | 10 | ★★ | 25 |
# | (i) | compute a Student's t interval, and say what it shows and what it leaves open | 20 | ★★ | 30 |
# | (j) | plan how many seeds a claim needs | 10 | ★★ | 20 |
# | end | ten pairs of your own | 5 | ★ | |
#
# **Prerequisites**: notebook `00_snip_in_ten_minutes` (lab 1 helps, lab 2 is not needed), mean and standard deviation.
# **How it works**: replace every `...` by your answer, then run the check below it. A check prints ✓, or ✗ and what
# to look at. Checks that fail stop "Run all": go from top to bottom. Keep this notebook in `notebooks/labs/`: the
# checks lie beside it.

# %%
import numpy as np
import torch
from scipy import stats

from checks import lab3 as check
from snipkit import data, masking, models, saliency, training
from snipkit.study.sets import datasets

# %% [markdown]
# ## (g) A control: the layers' counts without the choice · 10 minutes · ★★
#
# SNIP decides two things at once: how many connections each layer keeps, and which. A control keeps the first and
# destroys the second. It permutes the entries of each mask at random, layer by layer.
#
# <details><summary>▸ <i>predict</i>: a random mask of the whole network keeps as many connections as SNIP's. Why is it
# not enough as a control?</summary>
#
# It changes both things at once: other counts per layer, and other connections. If it trains worse, nobody knows which
# of the two did it.
#
# </details>
#
# All random choices must follow from the `generator` that is passed, so that anybody can draw the same control again.
# You may need `torch.randperm(count, generator=generator)`, `flatten` and `view_as`.


# %%
def shuffle(masks, generator):
    """A control for masks: the same number of connections in each tensor, at random places.

    Args:
        masks: dict of parameter name → bool tensor of any shape; it is left as it is.
        generator: a torch.Generator, the only source of chance.

    Returns:
        dict of the same names → bool tensor of the same shapes.
    """
    # BEGIN SOLUTION
    shuffled = {}
    for name, mask in masks.items():
        order = torch.randperm(mask.numel(), generator=generator)
        shuffled[name] = mask.flatten()[order].view_as(mask)
    return shuffled
    # END SOLUTION


# %%
check.shuffle(shuffle)

# %% [markdown]
# <details><summary>▸ <i>think</i>: what else does SNIP's mask have that your control destroys, beside the single
# connections?</summary>
#
# How many connections each *unit* keeps. Some inputs of SNIP's first layer have many, others none. So a gap between
# the two does not yet say that single connections matter. Page `rq6` goes on from here, with a control for each count.
#
# </details>
#
# ## (h) Pairs · 10 minutes · ★★
#
# Here is the bed of the experiment: MNIST-1D, signals of 40 points, and an MLP with 50,410 parameters. A training of
# 300 steps takes about a second. It is short, so its errors are high; what counts is the difference.

# %%
signals = datasets.load("mnist-1d")


def snip_masks(seed):
    """SNIP's masks at 80 % sparsity; the network and the scoring batch follow from the seed."""
    network = models.build("mlp-1d", seed=seed)
    batch = data.sample(signals.train, 100, torch.Generator().manual_seed(seed))
    return masking.keep_top(saliency.snip(network, batch), sparsity=0.8)


def test_error(masks, seed):
    """Test error in per cent after training. Initial weights and order of the data follow from the seed."""
    network = models.build("mlp-1d", seed=1000 + seed)
    recipe = training.Recipe(steps=300, lr=0.3, schedule="onecycle")
    return training.train(network, masks, signals, recipe, seed=seed).test_error


# %% [markdown]
# Write one pair: SNIP's mask and its shuffled copy. All else that chance decides must be the same for both, and must
# differ from one pair to the next.
#
# The tools are handed in as arguments, so that the check can hand in others and watch.
#
# <details><summary>▸ <i>hint</i>: where chance comes in</summary>
#
# In four places: the scored network and its batch (`masks_of`), the permutation (its generator), and the initial
# weights and the order of the data (`error_of`). What should each of them be seeded with?
#
# </details>


# %%
def pair(seed, masks_of, shuffle, error_of):
    """Test errors of SNIP's mask and of its control, which share all but the mask.

    Args:
        seed: a whole number; all chance in the pair follows from it.
        masks_of: function (seed) → SNIP's masks, as ``snip_masks``.
        shuffle: function (masks, generator) → masks, as in part (g).
        error_of: function (masks, seed) → test error, as ``test_error``.

    Returns:
        (error with SNIP's mask, error with the shuffled mask)
    """
    # BEGIN SOLUTION
    masks = masks_of(seed)
    control = shuffle(masks, torch.Generator().manual_seed(seed))
    return error_of(masks, seed), error_of(control, seed)
    # END SOLUTION


# %%
check.pair(pair)

# %% [markdown]
# Three pairs, then. Nothing to fill in.

# %% tags=["trained"]
first_three = np.array([pair(seed, snip_masks, shuffle, test_error) for seed in range(3)])
for seed, (with_snip, with_control) in enumerate(first_three):
    print(f"seed {seed}: SNIP {with_snip:.1f} %, shuffled {with_control:.1f} %")

# %% [markdown]
# <details><summary>▸ <i>think</i>: three of three on the same side. How often does that happen if there is no difference
# at all?</summary>
#
# In one study of four: $2 \cdot 0.5^3 = 0.25$. Signs alone decide nothing with three seeds. How *large* the differences
# are beside their spread says more.
#
# </details>
#
# ## (i) An interval · 20 minutes · ★★
#
# From $n$ differences with mean $\bar d$ and standard deviation $s$, Student's interval for the true mean is
#
# $$ \bar d \;\pm\; t_{n-1} \, \frac{s}{\sqrt n}, \qquad s^2 = \frac{1}{n-1} \sum_i (d_i - \bar d)^2 . $$
#
# $t_{n-1}$ cuts off 2.5 % on *each* side of Student's distribution with $n - 1$ degrees of freedom. If an experiment is
# repeated many times, 95 of 100 such intervals contain the true mean.
#
# <details><summary>▸ <i>predict</i>: for many seeds the factor is 1.96. How large is it for three seeds?</summary>
#
# 4.30. The spread itself is guessed from three numbers, and is often guessed too small.
#
# </details>
#
# You may need `stats.t.ppf(share, freedom)`: the number below which this share of Student's distribution lies. Mind
# that `np.std` divides by $n$ unless told otherwise.


# %%
def interval(differences):
    """Student's 95 % interval of the mean.

    Args:
        differences: a list or an array of numbers, one a seed.

    Returns:
        (mean, low, high)

    Raises:
        ValueError: fewer than two differences; one seed has no interval.
    """
    # BEGIN SOLUTION
    count = len(differences)
    if count < 2:
        raise ValueError("an interval takes at least two seeds")
    mean = np.mean(differences)
    error = np.std(differences, ddof=1) / np.sqrt(count)
    half = stats.t.ppf(0.975, count - 1) * error
    return mean, mean - half, mean + half
    # END SOLUTION


# %%
check.interval(interval)

# %% tags=["trained"]
mean, low, high = interval(first_three[:, 1] - first_three[:, 0])
print(f"shuffled minus SNIP, three pairs: {mean:.1f} points, from {low:.1f} to {high:.1f}")

# %% [markdown]
# Now read. Four studies compare a control with SNIP; each number is *control minus SNIP*, in points of test error:
#
# | study | mean | 95 % interval |
# | --- | --- | --- |
# | A | 1.2 | 0.7 to 1.7 |
# | B | 0.8 | -1.1 to 2.7 |
# | C | 0.2 | 0.1 to 0.3 |
# | D | 0.0 | -0.3 to 0.3 |
#
# Two claims on each. *Worse*: the control has a higher error than SNIP. *Equal*: the two differ by less than half a
# point, a margin that was chosen beforehand. A claim is `"shown"` if the whole interval agrees with it, `"refuted"` if
# the whole interval contradicts it, else `"open"`. Write two dicts of study → word, as `{"A": "open", "B": …}`.

# %%
worse = {"A": "shown", "B": "open", "C": "shown", "D": "open"}  # SOLUTION
equal = {"A": "refuted", "B": "open", "C": "shown", "D": "shown"}  # SOLUTION

# %%
check.reading(worse, equal)

# %% [markdown] tags=["solution"]
# **Solution.** A: the interval lies above 0.5, so the control is worse and not equal. B: the interval holds 0, but 2.7
# too: nothing is decided. C: worse *and* equal within the margin. That is no contradiction: a difference can be real and
# too small to matter. D: equal within the margin; which of the two is better stays open.

# %% [markdown]
# ## (j) How many seeds? · 10 minutes · ★★
#
# Before a study, its spread $s$ is known from a few pairs, and you want an interval of at most $\pm w$. The half width
# is $t_{n-1}\, s / \sqrt n$. Find the smallest $n$, at least 2, for which it is at most $w$.
#
# <details><summary>▸ <i>predict</i>: half the width takes how many times the seeds?</summary>
#
# Four times, once $n$ is large. For few seeds it takes less, because $t_{n-1}$ falls, too.
#
# </details>


# %%
def seeds_for(half_width, spread):
    """The smallest number of pairs whose 95 % interval is expected to be at most ± half_width.

    Args:
        half_width: half the width of the interval, above 0.
        spread: standard deviation of the differences.
    """
    # BEGIN SOLUTION
    count = 2
    while stats.t.ppf(0.975, count - 1) * spread / np.sqrt(count) > half_width:
        count += 1
    return count
    # END SOLUTION


# %%
check.seeds_for(seeds_for)

# %% [markdown]
# ## Ten pairs · 5 minutes · ★
#
# Plan with the spread of your three pairs, then run ten. Nothing to fill in, about 20 seconds.
#
# <details><summary>▸ <i>predict</i>: does the interval of ten pairs hold the mean of the first three? Is it narrower than
# that of three, and by what factor?</summary>
#
# It usually holds it. With the same spread it is narrower by $(4.30/\sqrt 3) / (2.26/\sqrt{10}) = 3.5$. But the spread of
# three pairs may be far off: its own 95 % interval reaches from half to six times the estimate.
#
# </details>

# %% tags=["nbval-ignore-output"]
spread = np.std(first_three[:, 1] - first_three[:, 0], ddof=1)
print(f"spread of three pairs: {spread:.1f} points")
print(f"planned for ± 1 point: {seeds_for(1, spread)} pairs; for ± 0.1: {seeds_for(0.1, spread)}")

# %% tags=["trained"]
more = [pair(seed, snip_masks, shuffle, test_error) for seed in range(3, 10)]
ten = np.concatenate([first_three, more])
differences = ten[:, 1] - ten[:, 0]
mean, low, high = interval(differences)
print(f"shuffled minus SNIP, ten pairs: {mean:.1f} points, from {low:.1f} to {high:.1f}")
print(f"spread of ten pairs: {np.std(differences, ddof=1):.1f} points")
print(f"correlation within pairs: {np.corrcoef(ten.T)[0, 1]:.1f}")

# %% [markdown]
# <details><summary>▸ <i>think</i>: what do the pairs gain here, and what do they not?</summary>
#
# Pairs pay where both members go up and down together. With a correlation $\rho$ within pairs, the variance of the
# differences is $1 - \rho$ times that of unpaired runs: at 0.5 pairs save half of the seeds, at 0 none. (Ten pairs know
# $\rho$ itself only roughly.) And pairs are worth having in any case: nothing but the mask can be behind the
# difference, and nobody chose the seeds.
#
# </details>
#
# <details><summary>▸ <i>think</i>: write the result in one sentence. What does it not show?</summary>
#
# For example: "On MNIST-1D, after 300 steps at 80 % sparsity, shuffling SNIP's mask within its layers costs … ± … points
# (ten pairs, 95 % interval)." It does not show that *single* connections matter (the units' counts went, too), nor
# that it holds for long trainings, other sparsities or other networks.
#
# </details>
