"""The commands behind the Makefile: ``python -m snipkit.study --help``."""

import contextlib
import math
import re
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated

try:
    import typer
except ModuleNotFoundError as error:
    raise SystemExit(
        f"error: the package {error.name} is not installed: pip install 'snipkit[study]'"
    ) from error

app = typer.Typer(help="The commands behind the Makefile.", no_args_is_help=True, pretty_exceptions_enable=False)
Profile = Annotated[str, typer.Option(help="lesson, laptop, overnight or paper")]


def _version(wanted: bool):
    if wanted:
        import snipkit

        print(f"snipkit {snipkit.__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="say it, stop")] = False,
):
    pass


@app.command()
def fetch(names: Annotated[list[str], typer.Argument(help="data sets; by default all but tiny-imagenet")] = None):
    """Fetch and verify data sets. Without names: those of the notebooks, as far as they can be had; MNIST must be."""
    from snipkit.study import sources

    for name in names or [name for name in sources.SOURCES if name != "tiny-imagenet"]:
        try:
            print(f"{name}: {sources.fetch(name)}", flush=True)
        except sources.DataError as error:
            if names or name == "mnist" or isinstance(error, sources.DamagedError):
                raise
            print(f"left out: {error}", flush=True)


@app.command()
def train(
    profile: Profile = "laptop",
    budget: Annotated[float, typer.Option(help="minutes; then no run is started, and those under way stop")] = None,
    executor: Annotated[str, typer.Option(help="tcp://host:port of a Dask scheduler; by default this machine")] = None,
):
    """Say what a profile has to train and how long that takes here, then train it all (no Jupyter needed)."""
    if budget is not None and not (math.isfinite(budget) and budget >= 0):
        raise ValueError(f"the budget is {budget}; it takes a number of minutes")
    deadline = None if budget is None else time.monotonic() + 60 * budget
    if executor is not None and not re.fullmatch(r"(tcp|tls)://([\w.-]+|\[[\da-fA-F:]+\]):\d{1,5}", executor):
        raise ValueError(f"{executor!r} is not the address of a Dask scheduler: tcp://host:port")

    from snipkit.study import estimate, executors, notebooks, paths, records, scheduler

    files, results = {}, paths.results(notebooks.known(profile))
    grids = {name: list(dict.fromkeys(notebooks.grid(name, profile))) for name in notebooks.names()}
    found = records.read(results)
    for name, runs in grids.items():
        print(f"{name}: {len(runs)} runs, {sum(run.id not in found and run not in files for run in runs)} to do")
        for run in runs:
            files.setdefault(run, results / f"{name}.jsonl")  # of the first notebook that wants it
    if not files:
        raise ValueError(f"profile {profile}: no notebook in {notebooks.folder()} has a run")
    todo = scheduler.reachable([run for run in files if run.id not in found])
    if not todo:
        print(f"profile {profile}: nothing to do, all {len(files)} runs are on record in {results}")
    else:
        with executors.dask(executor) if executor else contextlib.nullcontext() as workers:
            seconds, capacity = estimate.seconds(todo, found), max(1, executors.capacity(workers))
            if not executor and executors.on_gpu():
                capacity = 1  # a large network fills the GPU alone
            where = f"with {capacity} workers as fast as this machine" if executor else "here"
            shorter = notebooks.PROFILES[: notebooks.PROFILES.index(profile)]
            print(
                f"profile {profile}: {len(found)} runs on record in {results}, {len(todo)} to do, "
                f"about {_duration(sum(seconds.values()) / capacity)} {where}; stop it at any time, a rerun carries on"
                + (f"; shorter: make paper PROFILE={shorter[-1]}" if shorter else ""),
                flush=True,
            )
            # One seed of everything before the second of anything: stopped at any time, there are complete repetitions.
            ordered = sorted(todo, key=lambda run: (run.seed, seconds[run]))
            found = scheduler.execute_all({run: files[run] for run in ordered}, workers, deadline)
    if budget is not None:
        done = sum(run.id in found for run in files)
        kept = sum(scheduler.checkpoint_of(run, results).exists() for run in files if run.id not in found)
        stopped = f", {kept} stopped at a checkpoint" if kept else ""
        print(f"profile {profile}: {done} of {len(files)} on record{stopped}")


@app.command("registered")
def train_registered(
    claims: Annotated[list[str], typer.Argument(help="ids, or how they begin; by default all")] = None,
    budget: Annotated[float, typer.Option(help="minutes; then no run is started, and those under way stop")] = None,
):
    """Train the registered runs that are not on record, and say how far each claim is (REGISTRATION.md)."""
    if budget is not None and not (math.isfinite(budget) and budget >= 0):
        raise ValueError(f"the budget is {budget}; it takes a number of minutes")
    deadline = None if budget is None else time.monotonic() + 60 * budget

    from snipkit.study import executors, registered, registration, scheduler

    wanted = registration.runs(tuple(claims or ("",)), gpu=executors.on_gpu())
    if not wanted:
        raise ValueError(f"no claim with runs for this machine begins with {', '.join(claims)}")
    registered.measure()
    file = registration.records_file()
    try:
        scheduler.execute_all(dict.fromkeys(wanted, file), deadline=deadline)
    finally:
        print(registered.progress(registered.table()))


@app.command()
def execute(name: str, target: Path, profile: Profile = "laptop"):
    """Run one notebook with a profile's parameters into TARGET."""
    from snipkit.study import notebooks

    notebooks.execute(name, profile, target)


@app.command()
def figures(profile: Annotated[str, typer.Option(help="by default every profile that has records")] = None):
    """Draw the figures again from the records alone."""
    import matplotlib

    from snipkit.study import notebooks, paths, records

    matplotlib.use("agg")
    for chosen in [notebooks.known(profile)] if profile else notebooks.PROFILES:
        results = paths.results(chosen)
        found = records.read(results)
        # Only notebooks whose own training has begun: a run or two shared with another would make empty figures.
        for name in [name for name in notebooks.names() if (results / f"{name}.jsonl").exists()]:
            drawn = notebooks.draw(name, chosen, found)
            print(f"{chosen}: {name}: drawn from {drawn} of {len(notebooks.grid(name, chosen))} runs")


@app.command()
def report(profile: Profile = "laptop"):
    """Write REPLICATION.md from what figures/ holds, and say what a profile has to say about the paper's claims."""
    from snipkit.study import notebooks, paths, progress, replication, verdicts

    notebooks.names()  # where there are none, there is no project to report on
    rows = verdicts.report((notebooks.known(profile),))
    table = progress.table().to_markdown(index=False)
    replication.write(f"\n## What is planned, and what is on record\n\n{progress.sentence()}.\n\n{table}\n")
    for row in rows[rows.verdict != verdicts.NOT_RUN].itertuples():
        print(f"{row.verdict:>10}  {row.where:<9}  {row[2]}" + (f": {row.here}" if row.here else ""))
    print(f"profile {profile}, {len(rows)} claims of the paper: {verdicts.summary(rows)}")
    print(f"all of it, with what other profiles found: {paths.home() / 'REPLICATION.md'}")


def _duration(seconds):
    return f"{seconds / 3600:.1f} hours" if seconds > 7200 else f"{max(1, seconds / 60):.0f} minutes"


def _interrupted(number, frame):
    raise KeyboardInterrupt


def main():
    """Run the command line; expected failures are one line, not a traceback."""
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    signal.signal(signal.SIGTERM, _interrupted)  # a cluster's way of saying Ctrl-C
    try:
        raise SystemExit(app(standalone_mode=False))
    except Exception as error:
        raise SystemExit(_expected(error)) from error


def _expected(error):
    """The line for an error that a user can do something about; any other is raised again."""
    if hasattr(error, "format_message"):  # typer's own: a wrong option or command, or none (then it has shown the help)
        if said := error.format_message():
            print(f"error: {said} (--help lists what there is)", file=sys.stderr)
        return 2
    if isinstance(error, ModuleNotFoundError) and error.name.split(".")[0] != "snipkit":
        return (
            f"error: the package {error.name} is not installed: "
            "pip install 'snipkit[study,notebooks]' brings all that the commands need"
        )
    from pydantic import ValidationError

    from snipkit.study.sources import DataError

    if isinstance(error, ValidationError):
        from snipkit.study.runs import one_line

        return f"error: {one_line(error)}"
    if isinstance(error, DataError | ValueError | RuntimeError | OSError):
        return f"error: {error}"
    raise error


if __name__ == "__main__":
    main()
