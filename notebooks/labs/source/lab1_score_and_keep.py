# %% [markdown]
# # Lab 1: score and keep
#
# You write the two functions that make SNIP: the score of every connection, and the mask that keeps exactly the best
# κ.
#
# | part | objective: afterwards you can … | minutes | difficulty | points |
# | --- | --- | --- | --- | --- |
# | (a) | compute $\partial L/\partial c$ of a network with a ReLU by hand | 10 | ★ | 30 |
# | (b) | score any PyTorch network with one backward pass | 15 | ★★ | 35 |
# | (c) | keep exactly κ connections of the whole network, whatever the ties | 15 | ★★ | 35 |
# | end | prune a real network with your own code, and compare it with a library | 5 | ★ | |
#
# **Prerequisites**: notebook `00_snip_in_ten_minutes`, but close it now. **How it works**: replace every `...` by
# your answer, then run the check below it. A check prints ✓, or ✗ and what to look at. It tries your function on
# random networks, so there is no number to guess. Checks that fail stop "Run all": go from top to bottom. Keep
# this notebook in `notebooks/labs/`: the checks lie beside it.

# %%
import torch
from torch.nn.functional import cross_entropy

import snipkit
from checks import lab1 as check
from snipkit import data, masking, models
from snipkit.study.sets import datasets

# %% [markdown]
# ## (a) Scores by hand · 10 minutes · ★
#
# One example $x$, two hidden units with a ReLU, one output, no biases:
#
# $$ h = \operatorname{relu}(W_1 x), \qquad o = w_2 \cdot h, \qquad L = \tfrac12 (o - t)^2 $$

# %%
x = torch.tensor([1.0, 2.0])
W1 = torch.tensor(
    [
        [-3.0, 1.0],  # into hidden unit 0
        [4.0, -1.0],
    ]
)  # into hidden unit 1
w2 = torch.tensor([3.0, 2.0])  # from hidden units 0 and 1 to the output
t = 1.0

# %% [markdown]
# Every weight has a switch $c$ that multiplies it; at $c = 1$, $\partial L/\partial c = w \cdot \partial L/\partial
# w$. Use paper.
#
# <details><summary>▸ <i>hint</i>: where to begin</summary>
#
# Forward first: what are the two hidden units, the output and the error $o - t$? Then backward: $\partial L/\partial
# o = o - t$.
#
# </details>
#
# Write down ∂L/∂c for the four switches of the first layer and the two of the second, **with their signs**.
# Then the scores: absolute values, divided by the sum over **both** layers.

# %%
derivatives_1 = [[0, 0], [24, -12]]  # a list of two rows, as W1  # SOLUTION
derivatives_2 = [0, 12]  # a list of two numbers, as w2  # SOLUTION
scores_1 = [[0, 0], [0.5, 0.25]]  # SOLUTION
scores_2 = [0, 0.25]  # SOLUTION

# %%
check.by_hand(x, W1, w2, t, derivatives_1, derivatives_2, scores_1, scores_2)

# %% [markdown] tags=["solution"]
# **Solution.** Forward: $W_1 x = (-1, 2)$, so $h = (0, 2)$: unit 0 is off. Then $o = 4$, and the error is 3. Second
# layer: $w_2 \cdot \text{error} \cdot h = (0, 12)$. First layer: what comes back to unit 1 is $\text{error} \cdot
# w_{2,1} = 6$, so $\partial L/\partial c = w \cdot 6 \cdot x = (4 \cdot 6 \cdot 1, -1 \cdot 6 \cdot 2) = (24, -12)$.
# The absolute values sum to 48.

# %% [markdown]
# <details><summary>▸ <i>think</i>: the signed derivatives of both layers sum to the same number. Why? And do the
# scores?</summary>
#
# Multiply a whole layer by $c$: without biases and with ReLUs the output is multiplied by the same $c$, whichever
# layer it was. So the sum of $\partial L/\partial c$ over a layer is the same for all layers: it is $(o - t) \cdot
# o$. The scores are absolute values, so their sums differ where signs differ.
#
# </details>
#
# ## (b) Write `snip` · 15 minutes · ★★
#
# $$ s_j = \frac{|w_j \, \partial L/\partial w_j|}{\sum_k |w_k \, \partial L/\partial w_k|}
# \qquad \text{with one sum over the whole network} $$
#
# The function must leave the model as it is. You may need `model.named_parameters()`, `torch.autograd.grad(loss,
# list_of_tensors)` (a tuple of gradients, which it does not store in `.grad`) and `.detach()`.


# %%
def snip(model, loss, inputs, targets):
    """Connection sensitivity.

    Args:
        model: any network.
        loss: a function (outputs, targets) → one number in a tensor.
        inputs, targets: one mini-batch.

    Returns:
        dict of parameter name → tensor of the parameter's shape; all entries together sum to 1.
    """
    # BEGIN SOLUTION
    weights = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss(model(inputs), targets), list(weights.values()))
    scores = {name: (w * g).detach().abs() for (name, w), g in zip(weights.items(), gradients)}
    total = sum(score.sum() for score in scores.values())
    return {name: score / total for name, score in scores.items()}
    # END SOLUTION


# %%
check.snip(snip)

# %% [markdown]
# The check does not know the formula. It moves the switch of each weight up and down by $10^{-5}$ and looks at the
# loss: a *central difference*. That takes two forward passes a weight; your function takes one backward pass for all.
#
# ## (c) Exactly the best κ · 15 minutes · ★★
#
# Keep $\kappa = \operatorname{round}(m\,(1 - \text{sparsity}))$ of all $m$ entries: the highest **of the whole
# network**. Of equal scores, those that come first are kept: in the order of the dict, row by row within a tensor. A
# score that is NaN has no place in an order: raise `ValueError`.
#
# <details><summary>▸ <i>predict</i>: a threshold is shorter: <code>score >= lowest_kept</code>. When does it keep too
# many?</summary>
#
# When scores tie at the threshold. That is no rare case: all biases start at 0, so all their scores are 0, and so are
# those of connections into or out of units that are off on the whole batch. In half precision many more are equal.
#
# </details>
#
# You may need `torch.cat`, `flatten`, `argsort(descending=True, stable=True)` ("stable" keeps equal entries in their
# order), `split` and `view_as`.


# %%
def keep_top(scores, sparsity):
    """Masks of the best connections.

    Args:
        scores: dict of name → tensor of any shape.
        sparsity: the share that is removed, at least 0 and less than 1.

    Returns:
        dict of name → bool tensor of the same shape, True where a connection is kept.

    Raises:
        ValueError: some score is NaN.
    """
    # BEGIN SOLUTION
    flat = torch.cat([score.flatten() for score in scores.values()])
    if flat.isnan().any():
        raise ValueError("some scores are NaN")
    kept = torch.zeros(len(flat), dtype=torch.bool)
    kept[flat.argsort(descending=True, stable=True)[: round(len(flat) * (1 - sparsity))]] = True
    parts = kept.split([score.numel() for score in scores.values()])
    return {name: part.view_as(score) for part, (name, score) in zip(parts, scores.items())}
    # END SOLUTION


# %%
check.keep_top(keep_top)

# %% [markdown]
# ## Your own SNIP · 5 minutes · ★
#
# Now a real network, 100 real digits, and the library beside your code. Nothing to fill in.
#
# <details><summary>▸ <i>predict</i>: which of the three layers keeps the largest share of its weights?</summary>
#
# The last and smallest. In a layer of $m$ weights the typical score falls roughly like $1/\sqrt m$, and all compete
# in one ranking.
#
# </details>

# %%
mnist = datasets.load("mnist")
model = models.build("lenet-300-100", seed=0)
images, labels = data.sample(mnist.train, 100, torch.Generator().manual_seed(0))
masks = keep_top(snip(model, cross_entropy, images, labels), sparsity=0.95)

theirs = snipkit.prune(model, (images, labels), sparsity=0.95)
print(
    "the same masks as the library:", all(torch.equal(masks[name], theirs[name]) for name in theirs)
)
print(masking.layer_table(masks).round(3))
