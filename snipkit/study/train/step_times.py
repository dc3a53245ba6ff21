"""How long runs will take, said beforehand and on any machine, by step times that are on record.

``step_times.csv`` has a line a step time: the device; data set, network and batch size; how many
networks one training holds (a stack of 64, or 1); whether it is compiled; milliseconds; where the
number comes from. ``tools/gpu_check.py`` prints lines for it. (``estimate.py`` measures on the
machine that it runs on.)
"""

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from snipkit import training
from snipkit.study.train import executors, experiment
from snipkit.study.train.runs import Run

FILE = Path(__file__).with_name("step_times.csv")
GPU, CPU = "NVIDIA H100 80GB HBM3", "AMD EPYC"  # as records name them
#: Seconds until the first step on an H100: six networks that compiled at once were ready after 50,
#: stacks, which do not compile, after 13.
COMPILING, STARTING = 50, 13

GROUP = ["network", "data", "batch", "steps"]


@dataclass(frozen=True)
class Forecast:
    """How long some runs will take on one device, one training after another.

    Attributes:
        device: its name in ``step_times.csv``.
        groups: a row for each ``GROUP``, the longest first: "runs"; "trainings" (a stack is one);
            "ms a step" of one training; "minutes", by that alone; "start", minutes until the first
            steps; "source" of the step time. Where no time is on record, these are NaN and "".
        seconds: run → its share of the time of its training; without the unknown ones.
    """

    device: str
    groups: pd.DataFrame
    seconds: dict[Run, float]

    @property
    def known(self) -> pd.DataFrame:
        """The groups whose step time is on record."""
        return self.groups[self.groups["source"] != ""]

    @property
    def unknown(self) -> pd.DataFrame:
        """The others."""
        return self.groups[self.groups["source"] == ""]

    @property
    def minutes(self) -> float:
        """Of all known groups, by the step times alone."""
        return float(self.known["minutes"].sum())


def read() -> pd.DataFrame:
    """The lines of ``step_times.csv``."""
    return pd.read_csv(FILE)


def forecast(runs: Iterable[Run], device: str = GPU) -> Forecast:
    """How long some runs will take, by the step times on record.

    A stack counts as much as the one that was timed, even if it holds fewer networks, and where
    none was timed, as much as its networks one by one. A run that goes back to its first weights
    has a dense training before it. What scoring and tests take, and the width of a network, are
    not looked at.

    Args:
        runs: each is counted once.
        device: ``GPU`` or ``CPU``.

    Raises:
        ValueError: no step time of this device is on record.
    """
    times = _times(device)
    distinct = list({run.id: run for run in runs}.values())
    lines: list[dict] = []
    seconds: dict[Run, float] = {}
    for stack in experiment.stacks(distinct, on_gpu=device == GPU):
        line = _line(stack, times, device)
        lines.append(line | {"runs": len(stack)})
        if line["source"]:
            seconds |= dict.fromkeys(stack, 60 * line["minutes"] / len(stack))
    for before in _dense_before(distinct):
        lines.append(_line([before], times, device) | {"runs": 0})
    return Forecast(device, _summed(lines), seconds)


def _times(device):
    """(data, network, batch size) → (number of networks, compiled) → the line of a step time."""
    table = read()
    if device not in set(table.device):
        devices = ", ".join(dict.fromkeys(table.device))
        raise ValueError(f"no step times of {device!r} are on record, only of {devices}")
    times: dict[tuple, dict] = {}
    for row in table[table.device == device].itertuples():
        of_network = times.setdefault((row.data, row.model, row.batch), {})
        of_network[row.stack, row.compiled == "yes"] = row
    return times


def _dense_before(runs):
    """The dense trainings whose weights some runs are ranked by. Each is done once, alone.

    (Once by a worker: two of them may both do it.)
    """
    dense: dict[str, Run] = {}
    for run in runs:
        if run.pretrained:
            before = dataclasses.replace(run, criterion="dense", sparsity=0.0, pretrained=False)
            dense[before.id] = before
    return list(dense.values())


def _line(stack, times, device):
    """The row of one training."""
    run, recipe = stack[0], stack[0].recipe
    compiled = device == GPU and _is_compiled(stack)
    of_network = times.get((run.data, run.model, recipe.batch_size), {})
    milliseconds, source = _step(of_network, len(stack), compiled)
    fields = [run.model, run.data, recipe.batch_size, recipe.steps]
    line = dict(zip(GROUP, fields)) | {"trainings": 1, "source": source}
    line["minutes"] = milliseconds * recipe.steps / 60_000
    line["start"] = 0.0
    if device == GPU:
        line["start"] = (COMPILING if compiled else STARTING) / 60
    return line


def _is_compiled(stack):
    """Whether a training on a GPU is compiled (``training.train``)."""
    run = stack[0]
    by_torchs_layer = run.model.startswith("lstm")
    return len(stack) == 1 and run.recipe.steps >= training.COMPILED_FROM and not by_torchs_layer


def _step(of_network, networks, compiled):
    """Milliseconds of a step of so many networks, and their source; NaN and "" for none.

    Where a step was timed in one of the two ways only, compiled or not, it stands for the other.
    """
    by_stack = {}
    for in_this_way in (not compiled, compiled):
        for (stack, is_compiled), row in of_network.items():
            if is_compiled == in_this_way:
                by_stack[stack] = row
    if not by_stack:
        return math.nan, ""
    large_enough = [stack for stack in by_stack if stack >= networks]
    row = by_stack[min(large_enough, default=max(by_stack))]
    rounds = math.ceil(networks / row.stack)
    return rounds * row.milliseconds, row.source


def _summed(lines):
    """One row a group, the longest first, and those without times last."""
    columns = {"runs": "sum", "trainings": "sum", "minutes": "sum", "start": "sum"}
    table = pd.DataFrame(lines, columns=[*GROUP, *columns, "source"])
    groups = table.groupby([*GROUP, "source"], sort=False, as_index=False).agg(columns)
    groups["minutes"] = groups["minutes"].where(groups["source"] != "")
    steps = groups["trainings"] * groups["steps"]
    groups.insert(len(GROUP) + 2, "ms a step", 60_000 * groups["minutes"] / steps)
    return groups.sort_values("minutes", ascending=False, kind="stable", ignore_index=True)


def text(forecast: Forecast) -> str:
    """A forecast for a terminal: the groups, their sum, the sources, and what is not known."""
    sources = list(dict.fromkeys(forecast.known["source"]))
    shown = forecast.known.drop(columns=["batch", "start"])
    shown["source"] = [f"[{1 + sources.index(source)}]" for source in shown["source"]]
    lines = [f"by step times of an {forecast.device}, one training after another:", ""]
    lines.append(shown.to_string(index=False, float_format="{:.1f}".format))
    for number, source in enumerate(sources, start=1):
        lines.append(f"  [{number}] {source}")
    lines += ["", f"total by step times: {forecast.minutes:.0f} minutes ({_hours(forecast)})"]
    start = forecast.known["start"].sum()
    if start:
        lines.append(
            f"first steps (compiling, loading): up to {start:.0f} minutes more, one after another; "
            f"up to {executors.GPU_WORKERS} processes share them"
        )
    for row in forecast.unknown.itertuples():
        lines.append(
            f"not in the total, no step time is on record: {row.runs} runs of {row.network} on "
            f"{row.data}, {row.steps} steps of {row.batch}"
        )
    return "\n".join(lines)


def _hours(forecast):
    kind = "hours" if forecast.device == GPU else "core-hours"
    return f"{forecast.minutes / 60:.1f} {kind}"
