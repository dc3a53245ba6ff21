"""The registry: every criterion by name, for ``snipkit.prune`` and for ``Run(criterion=…)``."""

from collections.abc import Callable

from snipkit import saliency
from snipkit._scoring.objective import Scores
from snipkit.beyond import criteria

#: name → criterion, called as ``saliency.snip``
CRITERIA: dict[str, Callable[..., Scores]] = {
    "snip": saliency.snip,
    "magnitude": saliency.magnitude,
    "random": saliency.random,
    "gradient": saliency.gradient,
    "signed-gradient": saliency.signed_gradient,
    "grasp": criteria.grasp,
    "synflow": criteria.synflow,
    "iterative-snip": criteria.iterative_snip,
    "force": criteria.force,
    "erk": criteria.erk,
    "smart-ratio": criteria.smart_ratio,
}

#: name → what a criterion costs, in passes forward and back through the network (SynFlow's: with
#: one example, not a batch). GraSP's second pass is differentiated once more: it costs about two.
PASSES: dict[str, int] = dict.fromkeys(CRITERIA, 1) | {
    "magnitude": 0,
    "random": 0,
    "grasp": 2,
    "synflow": criteria.SYNFLOW_ROUNDS,
    "iterative-snip": criteria.SNIP_ROUNDS,
    "force": criteria.SNIP_ROUNDS,
    "erk": 0,
    "smart-ratio": 0,
}


def criterion(name: str) -> Callable[..., Scores]:
    """The criterion of that name. ValueError: lists the names."""
    if name not in CRITERIA:
        raise ValueError(f"unknown criterion {name!r}; known: {', '.join(CRITERIA)}")
    return CRITERIA[name]
