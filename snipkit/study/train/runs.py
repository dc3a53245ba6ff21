"""A run is a value: everything that a training depends on, with an id that never changes."""

import dataclasses
import hashlib
import inspect
import json
import reprlib
from dataclasses import field, fields
from functools import cache
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
)
from pydantic.dataclasses import dataclass

import snipkit
from snipkit import models
from snipkit.beyond import controls, densities
from snipkit.data import AUGMENTATIONS, SAMPLING
from snipkit.recipe import Recipe
from snipkit.study.sets.datasets import SHAPES
from snipkit.study.train.recipes import RECIPES, recipe_of

#: types and ranges are checked when a value is made
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

SHUFFLES = ("shuffle", "shuffle-inputs", "shuffle-outputs", "shuffle-units", "shuffle-channels")
ABLATIONS = ("none", *SHUFFLES, "relabel", "invert", "live-units", "misaligned")
LAYER_COUNTS = ("own", "uniform", "erk")  # the latter are in ``densities``
#: what ranks all connections at once, so that its scores can be ranked within layers, too
ONE_SHOT = ("snip", "magnitude", "random", "gradient", "signed-gradient", "grasp", *controls.TWINS)
LABELS = ("true", "random")
SCORING_BIASES = ("zero", "random")
PIXELS = ("standardised", "unit")
NOISE = "noise"  # as ``scoring_data``: standard normal pixels under random labels
# In this order for ever: seeds go by it.
STREAMS = (
    "split",
    "scoring_init",
    "training_init",
    "batch",
    "criterion",
    "ablation",
    "order",
    "labels",
)


@dataclass(frozen=True, config=STRICT)
class Run:
    """One training, described completely. Equal runs have equal ids, on every machine and day.

    The defaults are the paper's: the scores come from one initialisation and one mini-batch of 100,
    the network that is trained is a *fresh* initialisation (as in the authors' code), biases are in
    the pool, batch norm is inert.

    Attributes:
        recipe: how it is trained: a ``Recipe``, its fields as a dict, or a name in ``RECIPES``.
        data, model: names in ``datasets.SHAPES`` and ``models.MODELS``.
        options: the network's own switches (``models.build``).
        criterion: a name in ``snipkit.CRITERIA`` or in ``controls.TWINS`` (the gradient of the
            scored network, with the weights of another draw); "dense": no pruning.
        sparsity: share of the prunable parameters removed; 0 with "dense" and only then.
        ablation: "none"; "shuffle" permutes the mask within each layer, "shuffle-inputs",
            "-outputs" and "-units" keep the units' counts (``shuffles.shuffle``), "-channels" those
            of both sides' whole channels; "relabel" renames hidden units; "invert" keeps the lowest
            scores; "live-units" and "misaligned" are ``controls.keep_live_units`` and
            ``controls.misalign``.
        seed: everything random in the run follows from it. Runs that differ only in criterion,
            ablation or sparsity share split, initialisations, scoring batch and order of examples,
            so they can be compared in pairs.
        scoring_init, training_init: names in ``models.INITIALISERS``.
        same_draw: train the very weights that were scored instead of a fresh initialisation.
        pretrained: magnitude is ranked after a dense training by the same recipe, on the same data
            in the same order; then all weights go back to where they started (a lottery ticket in
            one shot).
        scoring_batch: examples in the scoring mini-batch; None: all training images.
        scoring_sample: how they are sampled, a name in ``data.SAMPLING``.
        scoring_data: another data set of the same shape to score on, or "noise"; None: the one that
            is trained on.
        scoring_augment: a name in ``data.AUGMENTATIONS``, for the scoring batch.
        scoring_labels, train_labels: "true", or "random": the labels of the training images
            permuted among them (both in the same way). Test labels are always true.
        biases, batch_norm: see ``saliency.snip``.
        train_size, test_size: use only so many images (None: all), for lessons and laptops.
        layer_counts: how many connections each layer keeps. "own": as many as the ranking of the
            whole network gives it; "uniform" or "erk": as many as ``densities`` says, the best of
            each layer.
        scoring_biases: "zero", as the study's initialisers leave them; or "random": the network
            that is scored has biases drawn by its initialiser, as TensorFlow does that for a vector
            (fan-in and fan-out are its length). With ``same_draw`` they are trained, too.
        pixels: "standardised" (mean 0 and standard deviation 1 over the training set), or "unit":
            in [0, 1].

    Raises:
        pydantic.ValidationError: (a ValueError) an unknown name, a wrong type, a number out of
            range, an option the network does not have, or values that contradict each other.
    """

    recipe: Annotated[InstanceOf[Recipe], BeforeValidator(recipe_of)]
    data: Literal[tuple(SHAPES)] = "mnist"  # type: ignore[valid-type]
    model: Literal[tuple(models.MODELS)] = "lenet-300-100"  # type: ignore[valid-type]
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    criterion: Literal[  # type: ignore[valid-type]
        "dense", *snipkit.CRITERIA, *controls.TWINS
    ] = "dense"
    sparsity: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ablation: Literal[ABLATIONS] = "none"  # type: ignore[valid-type]
    seed: NonNegativeInt = 0
    scoring_init: Literal[tuple(models.INITIALISERS)] = "lecun"  # type: ignore[valid-type]
    training_init: Literal[tuple(models.INITIALISERS)] = "lecun"  # type: ignore[valid-type]
    same_draw: bool = False
    scoring_batch: PositiveInt | None = 100
    scoring_sample: Literal[SAMPLING] = "uniform"  # type: ignore[valid-type]
    scoring_data: Literal[(None, NOISE, *SHAPES)] = None  # type: ignore[valid-type]
    scoring_augment: Literal[AUGMENTATIONS] = "none"  # type: ignore[valid-type]
    scoring_labels: Literal[LABELS] = "true"  # type: ignore[valid-type]
    train_labels: Literal[LABELS] = "true"  # type: ignore[valid-type]
    biases: bool = True
    batch_norm: Literal[snipkit.BATCH_NORM_MODES] = "eval"  # type: ignore[valid-type]
    train_size: PositiveInt | None = None
    test_size: PositiveInt | None = None
    pretrained: bool = False
    layer_counts: Literal[LAYER_COUNTS] = "own"  # type: ignore[valid-type]
    scoring_biases: Literal[SCORING_BIASES] = "zero"  # type: ignore[valid-type]
    pixels: Literal[PIXELS] = "standardised"  # type: ignore[valid-type]

    def __post_init__(self):
        if (self.criterion == "dense") != (self.sparsity == 0):
            raise ValueError(
                "a dense run has sparsity 0 and criterion 'dense', a pruned run has neither"
            )
        if self.criterion == "dense" and self.ablation != "none":
            raise ValueError("a dense run has no mask to ablate")
        unranked = (*densities.COUNTS, "synflow", "iterative-snip")
        if self.ablation == "invert" and self.criterion in unranked:
            raise ValueError(
                f"{self.criterion} does not rank what it removes, so there is nothing to invert"
            )
        if self.pretrained and not (self.same_draw and self.criterion == "magnitude"):
            raise ValueError(
                "a pretrained run ranks by magnitude and goes back to the same draw: set both"
            )
        if self.same_draw and self.scoring_init != self.training_init:
            raise ValueError(
                "the scored weights can only be trained when both initialisers are the same"
            )
        if self.scoring_data in SHAPES and SHAPES[self.scoring_data] != SHAPES[self.data]:
            raise ValueError(
                f"{self.scoring_data} has other images or classes than {self.data}: "
                "nothing to score on"
            )
        needs_labels = self.scoring_sample != "uniform" or self.scoring_labels != "true"
        if self.scoring_data == NOISE and needs_labels:
            raise ValueError("noise has no labels to sample by or to permute")
        if self.layer_counts != "own" and self.criterion not in ONE_SHOT:
            raise ValueError(
                f"{self.criterion} does not rank all connections at once, "
                "so that it decides about the layers' counts: "
                f"take layer_counts 'own', or one of {', '.join(ONE_SHOT)}"
            )
        if self.scoring_biases == "random" and self.criterion in ("dense", *densities.COUNTS):
            raise ValueError(
                f"{self.criterion} scores nothing, "
                "so there are no biases to be random while scoring"
            )
        if self.scoring_biases == "random" and self.pretrained:
            raise ValueError("a pretrained run scores trained biases, not random ones")
        if self.pixels == "unit" and self.scoring_data == NOISE:
            raise ValueError(
                "noise is standard normal, not in [0, 1]: score it on standardised pixels"
            )
        _check_fit(self.model, self.data, _json(self.options))

    @property
    def id(self) -> str:
        """Twelve hex digits of the SHA-256 of the description.

        Only what differs from the defaults is hashed, so a later version can add a field without
        renaming old runs.
        """
        return hashlib.sha256(json.dumps(_changed(self), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def method(self) -> str:
        """What the masks come from, for legends.

        "snip", "snip, shuffle", "magnitude, rewound", "dense".
        """
        ablation = [] if self.ablation == "none" else [self.ablation]
        return ", ".join([self.criterion, *(["rewound"] if self.pretrained else []), *ablation])

    @property
    def training(self) -> str:
        """What a verdict can count on.

        "paper" (its protocol), "converged" (a long schedule of ours), or "short".
        """
        if self.train_size is not None or self.test_size is not None:
            return "short"
        for name, recipe in RECIPES.items():
            if recipe == self.recipe:
                family = name.partition("-")[0]
                return {"paper": "paper", "overnight": "converged"}.get(family, "short")
        return "short"

    def seeds(self) -> dict[str, int]:
        """One independent seed for each random component of the run (numpy ``SeedSequence``), by
        ``STREAMS``.
        """
        children = np.random.SeedSequence(self.seed).spawn(len(STREAMS))
        seeds = {name: int(child.generate_state(1)[0]) for name, child in zip(STREAMS, children)}
        if self.same_draw:
            seeds["scoring_init"] = seeds["training_init"]
        return seeds


def _json(options):
    try:
        return json.dumps(options, sort_keys=True, allow_nan=False)
    except TypeError as error:
        raise ValueError(f"the options take JSON values: {error}") from error


@cache
def _check_fit(model, data, options):
    """Raise ValueError if the network cannot be built for the data set with these options (tried
    without memory).
    """
    (_, _, side), classes = SHAPES[data]
    build, options = models.MODELS[model], json.loads(options)
    defaults = {
        name: parameter.default for name, parameter in inspect.signature(build).parameters.items()
    }
    for name, value in options.items():
        default, kind = defaults.get(name, value), type(value)
        if type(default) is not kind and (type(default), kind) != (float, int):
            raise ValueError(
                f"the option {name} of {model} is {value!r}, but it takes {type(default).__name__}"
            )
        if kind in (int, float) and value <= 0:
            raise ValueError(
                f"the option {name} of {model} is {value}, "
                "but it is a size or a rate: greater than 0"
            )
    try:
        with torch.device("meta"):
            build(num_classes=classes, image_size=side, **options)
    except (TypeError, RuntimeError) as error:  # the latter: a negative size
        raise ValueError(f"{model} does not take these options: {error}") from error


def seeded(fields_and_seeds: dict, **changes) -> list[Run]:
    """The runs of one configuration, a seed each.

    Args:
        fields_and_seeds: fields of ``Run``, and the number of runs as ``seeds``; seeds count from
            0.
        **changes: fields that replace those.
    """
    configuration = fields_and_seeds | changes
    return [Run(**configuration, seed=seed) for seed in range(configuration.pop("seeds"))]


def pruning(method: str, sparsity: float) -> dict:
    """The fields of a ``Run`` whose ``method`` is this one, as the study compares methods.

    Magnitude is trained on the weights that it ranked: their size says nothing about another
    initialisation.
    """
    criterion, *parts = method.split(", ")
    pretrained = parts[:1] == ["rewound"]
    ablation = ", ".join(parts[pretrained:]) or "none"
    same_draw = criterion == "magnitude"
    return dict(
        criterion=criterion,
        ablation=ablation,
        sparsity=sparsity,
        same_draw=same_draw,
        pretrained=pretrained,
    )


def _changed(value) -> dict:
    """The fields of a dataclass that differ from their defaults, as plain JSON values."""
    changed = {}
    for attribute in fields(value):
        current = getattr(value, attribute.name)
        default = attribute.default
        if attribute.default_factory is not dataclasses.MISSING:
            default = attribute.default_factory()
        if dataclasses.is_dataclass(current):
            changed[attribute.name] = _changed(current)
        elif current != default:
            changed[attribute.name] = current
    return changed


def one_line(error: ValidationError) -> str:
    """What pydantic says of a value, without its headings and links."""
    reasons = []
    for detail in error.errors():
        place = ".".join(map(str, detail["loc"]))
        reason = detail["msg"].removeprefix("Value error, ")
        if detail["type"] not in ("value_error", "missing"):
            reason += f", not {reprlib.repr(detail['input'])}"
        reasons.append(f"{place}: {reason}" if place else reason)
    return "; ".join(reasons)
