"""Exploratory runs that no profile has: those behind ``docs/predictions.md``, and first looks.
``python -m snipkit.study.train.ladder_runs mlp-1d`` trains one part of them.

Every part is a list in the order in which it is trained. A run that is on record is not done again,
so a part that was stopped is carried on by the same command.
"""

from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from typing import Annotated, Any

import typer

from snipkit.beyond import controls
from snipkit.recipe import Recipe
from snipkit.study import paths
from snipkit.study.train import experiment, records, scheduler
from snipkit.study.train.runs import RECIPES, Run

FIRST_SEED = 100  # seeds below it were seen before the predictions were written
PROFILE = "overnight"

LAYER_COUNTS = ("own", "erk", "uniform")
WITHIN_LAYERS = ("shuffle", "live-units", "misaligned", "shuffle-units")

MLP: dict[str, Any] = {"data": "mnist-1d", "model": "mlp-1d", "recipe": "overnight-mnist-1d"}
MLP_WEIGHTS, MLP_BIASES = 50_000, 410
LENET: dict[str, Any] = {
    "data": "mnist",
    "model": "lenet-300-100",
    "recipe": "overnight-lenet-300-100",
}
RESNET: dict[str, Any] = {
    "data": "cifar-10",
    "model": "resnet-20",
    "recipe": "short-resnet-20",
    "scoring_batch": 128,
}


def factorial(layer_counts=LAYER_COUNTS, within_layers=WITHIN_LAYERS) -> list[dict]:
    """The fields of each cell.

    SNIP's scores, ranked within layers of the given counts, then one control.
    """
    return [
        {"criterion": "snip", "layer_counts": counts, "ablation": ablation}
        for counts, ablation in product(layer_counts, within_layers)
    ]


def twins(names=tuple(controls.TWINS)) -> list[dict]:
    """SNIP and twins of its mask, trained from fresh weights and then from the scored ones."""
    cells = []
    for same_draw in (False, True):
        for criterion in ("snip", *names):
            cells.append({"criterion": criterion, "same_draw": same_draw})
    return cells


def each_seed(bed: dict, cells: list[dict], sparsities: Iterable[float], seeds: int) -> list[Run]:
    """Sparsity by sparsity, all cells with the first seed (100), then all with the second.

    Stopped at any time, there are whole repetitions.
    """
    runs = []
    for sparsity in sparsities:
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            for cell in cells:
                runs.append(Run(**bed, **cell, sparsity=sparsity, seed=seed))
    return runs


def mlp_runs() -> list[Run]:
    """The MLP on MNIST-1D: the factorial, the twins, and random masks with ERK's densities."""
    cells = [*factorial(), *twins(), {"criterion": "erk"}]
    return each_seed(MLP, cells, (0.98, 0.9, 0.95, 0.8), seeds=20)


def lenet_runs() -> list[Run]:
    """LeNet-300-100: the same, but from the scored draw at 98 % only."""
    runs = each_seed(LENET, [*factorial(), *twins(), {"criterion": "erk"}], [0.98], seeds=10)
    from_fresh_weights = [cell for cell in twins() if not cell["same_draw"]]
    cells = [*factorial(), *from_fresh_weights, {"criterion": "erk"}]
    return runs + each_seed(LENET, cells, (0.9, 0.95), seeds=10)


def resnet_runs() -> list[Run]:
    """ResNet-20 at 98 %: six cells. Its hidden units share the stream, so nothing is misaligned."""
    cells = factorial(("own", "erk"), ("shuffle-units", "live-units", "shuffle"))
    return each_seed(RESNET, cells, [0.98], seeds=5)


def bias_runs(
    bed: dict = MLP, sparsities: Iterable[float] = (0.9, 0.98, 0.95, 0.8), seeds: int = 20
) -> list[Run]:
    """The MLP with all 410 biases kept, and as many weights fewer: SNIP alone would keep none.

    Args:
        sparsities: of all parameters; a run's own sparsity is that of its weights, a little more.
    """
    cells: list[dict[str, Any]] = [
        {"criterion": "snip"},
        {"criterion": "snip", "ablation": "shuffle"},
        {"criterion": "snip", "ablation": "shuffle-units"},
        {"criterion": "snip", "ablation": "shuffle-units", "layer_counts": "erk"},
        {"criterion": "erk"},
        {"criterion": "random"},
    ]
    of_weights = []
    for sparsity in sparsities:
        kept = round((1 - sparsity) * (MLP_WEIGHTS + MLP_BIASES))
        of_weights.append(round(1 - (kept - MLP_BIASES) / MLP_WEIGHTS, 5))
    return each_seed(bed | {"biases": False}, cells, of_weights, seeds)


def of_all_parameters(sparsity):
    """What share of all parameters is removed where all biases are kept (``bias_runs``).

    Args:
        sparsity: of the weights; a number, or a Series of them.
    """
    kept = MLP_WEIGHTS * (1 - sparsity) + MLP_BIASES
    return (1 - kept / (MLP_WEIGHTS + MLP_BIASES)).round(3)


def protocol_runs(seeds: int = 3) -> list[Run]:
    """Table 1's sparse cells: half of a factorial of four things, and the dense networks that
    belong to it.

    Unlike the other parts it counts seeds from 0: its first cell, the paper's protocol without
    momentum, is on record.
    """
    runs = []
    bed: dict[str, Any] = {
        "recipe": "paper-mnist-plain-sgd",
        "data": "mnist",
        "model": "lenet-300-100",
    }
    for seed in range(seeds):
        for same_draw, glorot, random_biases in product((False, True), repeat=3):
            unit_pixels = same_draw ^ glorot ^ random_biases  # the product of all four signs is +1
            training_init = "glorot" if glorot else "lecun"
            fields: dict[str, Any] = {
                "training_init": training_init,
                "scoring_init": training_init if same_draw else "lecun",
                "same_draw": same_draw,
                "scoring_biases": "random" if random_biases else "zero",
                "pixels": "unit" if unit_pixels else "standardised",
            }
            for sparsity in (0.98, 0.9):
                runs.append(Run(**bed, **fields, criterion="snip", sparsity=sparsity, seed=seed))
        for training_init, pixels in product(("lecun", "glorot"), ("standardised", "unit")):
            runs.append(Run(**bed, training_init=training_init, pixels=pixels, seed=seed))
    return runs


def figure7_runs() -> list[Run]:
    """Figure 7 at 90 and 10 % in four variants, each beside the runs of
    ``rq4_relevance_to_the_task``, seed 0.
    """
    recipe: dict[str, Any] = {
        "steps": 30_000,
        "momentum": 0.0,
        "decay_every": 10_000,
        "weight_decay": 0.0,
    }
    bed: dict[str, Any] = {
        "model": "lenet-5-caffe",
        "criterion": "snip",
        "train_labels": "random",
        "training_init": "glorot",
    }
    variants: list[dict[str, Any]] = [
        {"scoring_init": "glorot", "same_draw": True},
        {"scoring_init": "glorot"},
        {"recipe": Recipe(**recipe, lr=0.12)},
        {"train_size": 45_000},
    ]
    runs = []
    for sparsity in (0.9, 0.1):
        for variant in variants:
            runs.append(Run(**{"recipe": Recipe(**recipe)} | bed | variant, sparsity=sparsity))
    return runs


def tiny_imagenet_runs() -> list[Run]:
    """A first look at Tiny-ImageNet: AlexNet-s, dense and 90 % removed, for 10 epochs.

    It is trained as on CIFAR-10 by 30 epochs (``overnight-cifar``), since the paper gives no
    protocol. Nothing was predicted, so seeds count from 0. The numbers are compared with nothing.
    """
    bed: dict[str, Any] = {
        "data": "tiny-imagenet",
        "model": "alexnet-s",
        "recipe": replace(RECIPES["overnight-cifar"], steps=7030),  # 703 steps of 128 an epoch
        "scoring_batch": 128,
    }
    runs = []
    for seed in range(3):
        runs.append(Run(**bed, seed=seed))
        runs.append(Run(**bed, criterion="snip", sparsity=0.9, seed=seed))
    return runs


#: name → (its list, the file in ``results/overnight/`` for its records)
PARTS = {
    "mlp-1d": (mlp_runs, "ladder_mlp.jsonl"),
    "biases": (bias_runs, "ladder_mlp.jsonl"),
    "lenet-300-100": (lenet_runs, "ladder_lenet.jsonl"),
    "resnet-20": (resnet_runs, "ladder_resnet.jsonl"),
    "protocol": (protocol_runs, "protocol.jsonl"),
    "figure-7": (figure7_runs, "protocol.jsonl"),
    "tiny-imagenet": (tiny_imagenet_runs, "rq2_how_sparse.jsonl"),
}


def train(
    part: Annotated[str, typer.Argument(help=", ".join(PARTS))],
    budget: Annotated[
        float | None, typer.Option(help="minutes; then no run is started, and those under way stop")
    ] = None,
    dry: Annotated[bool, typer.Option("--dry", help="count the runs, and train none")] = False,
):
    """Train what is not on record yet of one part of the list."""
    if part not in PARTS:
        raise SystemExit(f"error: unknown part {part!r}; known: {', '.join(PARTS)}")
    planned, file = PARTS[part]
    folder = paths.results(PROFILE)
    runs = planned()
    recorded = records.read(folder)
    missing = [run for run in runs if run.id not in recorded]
    groups = experiment.stacks(missing, on_gpu=False)
    print(f"{part}: {len(runs)} runs, {len(missing)} to do, in {len(groups)} trainings", flush=True)
    if dry or not missing:
        return
    table = scheduler.run_all(runs, folder / file, minutes=budget)
    print(f"{part}: {len(table)} of {len(runs)} on record in {folder}")


if __name__ == "__main__":
    typer.run(train)
