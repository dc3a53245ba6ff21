"""The runs of a page, as short declarations."""

from collections.abc import Iterable, Mapping

import snipkit
from snipkit.study.train.runs import Run, pruning, seeded

DENSE = "dense"
# what methods, sparsities and seeds set, so that no field may
SET_BY_GRID = ("criterion", "ablation", "sparsity", "pretrained", "seed")
# MLPs with two hidden layers: inputs, parameters, and what gives both layers so many units
_MLPS = {
    "mlp-1d": (40, 50_410, lambda units: {"width": units / 200}),
    "lenet-300-100": (784, 266_610, lambda units: {"first": units, "second": units}),
}


def planned(
    common: Mapping,
    methods: str | Iterable[str] | None = None,
    sparsities: float | Iterable[float] | None = None,
    seeds: int | None = None,
    *,
    vary: Iterable[Mapping] = ({},),
) -> list[Run]:
    """The runs of every method at every sparsity, a seed each.

    The dense network, if it is among the methods, stands once. What belongs to one sparsity stands
    together, so that a page cut short by the clock has whole comparisons.

    Args:
        common: fields of ``Run`` that all have. It may hold ``methods``, ``sparsities`` and
            ``seeds`` too, as the settings in a page's parameters do; an argument comes before what
            it holds.
        methods: values of ``Run.method``, such as "dense", "snip" or "snip, shuffle"
            (``runs.pruning`` reads them).
        sparsities: shares of the parameters removed, in [0, 1); not needed for "dense" alone. At 0
            nothing is removed, so that every method is the dense network there.
        seeds: how many runs a setting; seeds count from 0.
        vary: the grid is repeated for each of these changes to the fields.

    Raises:
        ValueError: methods, sparsities or seeds are missing; fields that say again what a method or
            sparsity says; and what ``Run`` raises (an unknown field or name).
    """
    fields, vary = dict(common), list(vary)
    stored = {name: fields.pop(name, None) for name in ("methods", "sparsities", "seeds")}
    method_list = _several(stored["methods"] if methods is None else methods)
    sparsity_list = _several(stored["sparsities"] if sparsities is None else sparsities)
    seeds = stored["seeds"] if seeds is None else seeds
    if method_list is None:
        raise ValueError("a grid of no methods: pass methods, such as ['dense', 'snip']")
    if seeds is None:
        raise ValueError("a grid without seeds: pass seeds, the number of runs of each setting")
    if sparsity_list is None and set(method_list) != {DENSE}:
        raise ValueError(
            "a grid of pruned networks without sparsities: pass sparsities, such as [0.9, 0.98]"
        )

    for changes in (fields, *vary):
        if repeated := [name for name in SET_BY_GRID if name in changes]:
            names = ", ".join(repeated)
            raise ValueError(f"{names} among the fields: methods, sparsities and seeds set that")

    settings: list[dict] = [{}] if DENSE in method_list else []
    for sparsity in sparsity_list or ():
        for method in method_list:
            if sparsity == 0:
                settings.append({})
            elif method != DENSE:
                settings.append(pruning(method, sparsity))

    runs = []
    for changes in vary:
        for setting in settings:
            # A field that is written down comes before what a method would set (``same_draw``).
            runs += seeded(setting | fields | dict(changes), seeds=seeds)
    return distinct(runs)


def changed(fields: Mapping, *changes: Mapping) -> dict:
    """Fields of ``Run`` with changes laid over them; those of the recipe one by one.

    ``changed({"recipe": {"steps": 9, "lr": 1}}, {"recipe": {"lr": 2}})`` keeps the steps.

    Args:
        fields, changes: the recipes among them are mappings too, not names.
    """
    result = dict(fields)
    for change in changes:
        recipe = dict(result.get("recipe", {})) | dict(change.get("recipe", {}))
        result |= change
        if recipe:
            result["recipe"] = recipe
    return result


def planned_by_name(
    common: Mapping,
    parts: Mapping[str, tuple[str, Mapping]],
    sparsities: float | Iterable[float] | None = None,
) -> dict[str, list[Run]]:
    """Name → the runs of a part of the grid that is described by a method and by what it changes.

    Args:
        common: see ``planned``.
        parts: name → (method, changes to ``common``), as ``changed`` takes them.
        sparsities: see ``planned``.
    """
    grids = {}
    for name, (method, changes) in parts.items():
        grids[name] = planned(changed(common, changes), method, sparsities)
    return grids


def units_for(inputs: int, kept: int, outputs: int = 10) -> int:
    """The most units a layer that a dense MLP can have with at most ``kept`` parameters.

    It has two hidden layers of as many units each; weights and biases count.
    """
    units = 1
    while _parameters(inputs, units + 1, outputs) <= kept:
        units += 1
    return units


def smaller_dense(common: Mapping) -> dict[float, list[Run]]:
    """Sparsity → dense MLPs with at most as many parameters as a mask of that sparsity keeps.

    Args:
        common: see ``planned``, with ``sparsities`` and ``seeds``; its model is "mlp-1d" or
            "lenet-300-100".
    """
    inputs, parameters, options = _MLPS[common["model"]]
    grids = {}
    for sparsity in common["sparsities"]:
        units = units_for(inputs, snipkit.kept_count(parameters, sparsity))
        grids[sparsity] = planned(common, DENSE, vary=[{"options": options(units)}])
    return grids


def distinct(*grids) -> list[Run]:
    """All runs of some grids, each once, in order.

    Args:
        grids: runs, and lists and dicts of them, however nested.
    """
    runs: dict[str, Run] = {}
    for grid in grids:
        if isinstance(grid, Run):
            runs.setdefault(grid.id, grid)
        else:
            parts = grid.values() if isinstance(grid, Mapping) else grid
            for run in distinct(*parts):
                runs.setdefault(run.id, run)
    return list(runs.values())


def _parameters(inputs, units, outputs):
    """Of a dense MLP with two hidden layers of so many units."""
    return (inputs + 1) * units + (units + 1) * units + (units + 1) * outputs


def _several(value):
    """A list of one or several values; None stays None."""
    if value is None:
        return None
    return [value] if isinstance(value, str | int | float) else list(value)
