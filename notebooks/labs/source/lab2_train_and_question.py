# %% [markdown]
# # Lab 2: train and question
#
# You write the loop that trains a pruned network, and then ask what the score of lab 1 really measures.
#
# | part | objective: afterwards you can … | minutes | difficulty | points |
# | --- | --- | --- | --- | --- |
# | (d) | train with any optimiser so that removed weights stay exactly 0 | 20 | ★★ | 45 |
# | (e) | differentiate by switches, and see that $\partial L/\partial c = w \odot \partial L/\partial w$ | 10 | ★★ | 25 |
# | (f) | say which scores change when the network is rewritten but its function is not | 15 | ★★★ | 30 |
#
# **Prerequisites**: notebook `00_snip_in_ten_minutes` and lab 1, but close both now. **How it works**: replace every
# `...` by your answer, then run the check below it. A check prints ✓, or ✗ and what to look at. Checks that fail stop
# "Run all": go from top to bottom. Keep
# this notebook in `notebooks/labs/`: the checks lie beside it.

# %%
import torch
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from checks import lab2 as check
from checks.common import examples, network
from snipkit import masking, saliency

# %% [markdown]
# ## (d) Training that keeps zeros at zero · 20 minutes · ★★
#
# SGD with momentum $\mu$ and weight decay $\lambda$ moves every weight by
#
# $$ v \leftarrow \mu v + \frac{\partial L}{\partial w} + \lambda w, \qquad w \leftarrow w - \eta v . $$
#
# <details><summary>▸ <i>predict</i>: you set the removed weights to 0 once, before training. Which of the three terms
# revives them?</summary>
#
# The gradient, at the first step: $\partial L/\partial w$ of a weight that is 0 is not 0 (the loss would react if the
# weight moved). Decay of a 0 is 0. Momentum only repeats what came before it; but once a removed weight has moved,
# momentum keeps moving it.
#
# </details>
#
# Write the loop. What has to be 0 before the first step, and what at each step, so that *any* optimiser leaves the
# removed weights alone?
#
# The kept weights must follow the path of training $L(c \odot w)$, which is what pruning means. A common mistake
# leaves them on another path although all zeros are zero.


# %%
def train(model, masks, batches, optimiser):
    """Train in place, one step for each batch; removed weights are exactly 0 before and after every step.

    Args:
        model: a network; the loss is ``cross_entropy(model(inputs), targets)``.
        masks: dict of every parameter's name → bool tensor, True where a weight is kept.
        batches: an iterable of (inputs, targets).
        optimiser: of the model's parameters.
    """
    # BEGIN SOLUTION
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight *= masks[name]
    for inputs, targets in batches:
        optimiser.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        for name, weight in model.named_parameters():
            weight.grad *= masks[name]
        optimiser.step()
    # END SOLUTION


# %%
check.train(train)

# %% [markdown]
# The check looked at the network after every step, for plain SGD, SGD with momentum and decay, and Adam.
#
# <details><summary>▸ <i>think</i>: one could instead set the removed weights to 0 again after each step. Is that the
# same?</summary>
#
# For SGD and Adam the kept weights follow the same path. But the optimiser still collects momentum for removed
# weights, and whatever looks at *all* gradients sees them: clipping by the norm of the gradient, for one, then
# shrinks the steps of the kept weights.
#
# </details>
#
# ## (e) Build the switches · 10 minutes · ★★
#
# Compute the loss of a network in which every parameter $w$ is replaced by $c \odot w$, without changing the model.
# Then autograd can differentiate by $c$.
#
# `functional_call(model, tensors, inputs)` runs the model with other tensors, given as a dict of parameter name →
# tensor, in the place of its parameters.


# %%
def loss_with_switches(model, c, loss, inputs, targets):
    """The loss of the network whose parameters are c ⊙ w.

    Args:
        model: any network.
        c: dict of parameter name → tensor of the parameter's shape.
        loss, inputs, targets: as for ``snip`` of lab 1.
    """
    # BEGIN SOLUTION
    switched = {name: c[name] * weight for name, weight in model.named_parameters()}
    return loss(functional_call(model, switched, inputs), targets)
    # END SOLUTION


# %%
check.switches(loss_with_switches)

# %% [markdown]
# <details><summary>▸ <i>think</i>: the identity says what an <i>infinitesimal</i> weakening does. SNIP removes a
# connection altogether, c from 1 to 0. What is lost on the way?</summary>
#
# The first-order term is exact only near $c = 1$. Removing $w$ changes the loss by $-w\,\partial L/\partial w +
# \tfrac12 w^2\,\partial^2 L/\partial w^2 - \dots$, and removing many at once adds terms in which they meet. Notebook
# `rq1` measures how much that matters.
#
# </details>
#
# ## (f) The same function, other weights · 15 minutes · ★★★
#
# Let $f > 0$. Because $\operatorname{relu}(f z) = f \operatorname{relu}(z)$, a hidden unit can be rescaled: what goes
# into it times $f$, what comes out of it divided by $f$. The network computes the same function.
#
# Write `rescale` for a unit of the first hidden layer of `Sequential(Linear, ReLU, Linear, ReLU, Linear)`.
# `model[0].weight` has one row a hidden unit; `model[2].weight` has one column a hidden unit.


# %%
def rescale(model, unit, factor):
    """Rescale one unit of the first hidden layer, in place; the function of the network stays the same."""
    # BEGIN SOLUTION
    with torch.no_grad():
        model[0].weight[unit] *= factor
        model[0].bias[unit] *= factor
        model[2].weight[:, unit] /= factor
    # END SOLUTION


# %%
check.rescale(rescale)

# %% [markdown]
# Now **predict**: with $f = 10$, by which factor do these change for the weights *into* the unit, before any division
# by a sum? Think of $\partial L/\partial w$ as a slope.

# %%
magnitude_factor = 10  # of |w|  # SOLUTION
gradient_factor = 0.1  # of |∂L/∂w|  # SOLUTION
snip_factor = 1  # of |w · ∂L/∂w|  # SOLUTION

# %%
check.factors(snip_factor, magnitude_factor, gradient_factor)

# %% [markdown] tags=["solution"]
# **Solution.** $|w|$ grows tenfold. The function has not changed, so a step of the same size is a tenth of the change
# that it was: the slope $|\partial L/\partial w|$ is a tenth. Their product stays. SNIP's score belongs to the
# *connection*, not to the way in which the weights are written.

# %% [markdown]
# What follows for the masks? Rescale every hidden unit of the first layer at random, and prune by half before and
# after. Nothing to fill in.

# %%
before, after = network(), network()
generator = torch.Generator().manual_seed(0)
for unit in range(5):
    rescale(after, unit, 10 ** torch.empty(1).uniform_(-1, 1, generator=generator).item())
for name, score in {
    "snip": saliency.snip,
    "magnitude": saliency.magnitude,
    "gradient": saliency.gradient,
}.items():
    first, second = (
        masking.keep_top(score(model, examples()), sparsity=0.5) for model in (before, after)
    )
    print(f"{name}: share of the mask that stays the same {masking.overlap(first, second)[0]:.0%}")
