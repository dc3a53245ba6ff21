"""The commands behind the Makefile: ``python -m snipkit --help``."""

import contextlib
import time
import warnings
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The commands behind the Makefile.", no_args_is_help=True, pretty_exceptions_enable=False)
Profile = Annotated[str, typer.Option(help="lesson, laptop or paper")]


@app.command()
def fetch(names: Annotated[list[str], typer.Argument(help="data sets; by default all but tiny-imagenet")] = None):
    """Fetch and verify data sets. Without names: those of the notebooks, as far as they can be had."""
    from snipkit import sources

    for name in names or [name for name in sources.SOURCES if name != "tiny-imagenet"]:
        try:
            print(f"{name}: {sources.fetch(name)}", flush=True)
        except sources.DataError as error:
            if names:
                raise
            print(f"left out: {error}", flush=True)


@app.command()
def train(
    profile: Profile = "laptop",
    budget: Annotated[float, typer.Option(help="minutes; then no run is started, and those under way stop at a checkpoint")] = None,
    executor: Annotated[str, typer.Option(help="tcp://host:port of a Dask scheduler; by default the cores of this machine")] = None,
):
    """Say what a profile has to train and how long that takes here, then train it all (no Jupyter needed)."""
    deadline = None if budget is None else time.time() + 60 * budget

    from snipkit import cluster, notebooks, sources, study

    results = sources.home() / "results" / profile
    records = study.read(results)
    files = {}
    for name in notebooks.names():
        runs = list(dict.fromkeys(notebooks.grid(name, profile)))
        to_do = [run for run in runs if run.id not in records and run not in files]
        print(f"{name}: {len(runs)} runs, {len(to_do)} to do")
        for run in runs:
            files.setdefault(run, results / f"{name}.jsonl")  # of the first notebook that wants it
    to_do = study.reachable([run for run in files if run.id not in records])
    if not to_do:
        print(f"profile {profile}: nothing to do, all that can be run is on record in {results}")
    else:
        with cluster.connect(executor) if executor else contextlib.nullcontext() as workers:
            seconds = study.seconds(to_do, {} if profile == "paper" else records)
            shorter = notebooks.PROFILES[: notebooks.PROFILES.index(profile)]
            print(
                f"profile {profile}: {len(records)} runs on record in {results}, {len(to_do)} to do, "
                f"about {_duration(sum(seconds.values()) / study.capacity(workers))} "
                + (f"with {study.capacity(workers)} workers as fast as this machine" if executor else "here")
                + "; stop it at any time, a rerun carries on"
                + (f"; shorter: make paper PROFILE={shorter[-1]}" if shorter else ""),
                flush=True,
            )
            records = study.carry_out({run: files[run] for run in study.in_order(to_do, seconds)}, workers, deadline)
    if budget is not None:
        done = sum(run.id in records for run in files)
        kept = sum(study.checkpoint_of(run, results).exists() for run in files if run.id not in records)
        print(f"profile {profile}: {done} of {len(files)} on record" + (f", {kept} stopped at a checkpoint" if kept else ""))


@app.command()
def execute(name: str, target: Path, profile: Profile = "laptop"):
    """Run one notebook with a profile's parameters into TARGET."""
    from snipkit import notebooks

    notebooks.execute(name, profile, target)


@app.command()
def figures(profile: Annotated[str, typer.Option(help="by default every profile that has records")] = None):
    """Draw the figures again from the records alone."""
    import matplotlib

    from snipkit import notebooks, sources, study

    matplotlib.use("agg")
    for chosen in [profile] if profile else notebooks.PROFILES:
        results = sources.home() / "results" / chosen
        records = study.read(results)
        # Only notebooks whose own training has begun: a run or two shared with another would make empty figures.
        for name in [name for name in notebooks.names() if (results / f"{name}.jsonl").exists()]:
            drawn = notebooks.draw(name, chosen, records)
            print(f"{chosen}: {name}: drawn from {drawn} of {len(notebooks.grid(name, chosen))} runs")


@app.command()
def report(profile: Profile = "laptop"):
    """Write REPLICATION.md from what figures/ holds, and say in short what a profile has to say about the paper's claims."""
    from snipkit import replication, sources

    replication.write()
    rows = replication.report((profile,))
    for row in rows[rows.verdict != replication.NOT_RUN].itertuples():
        print(f"{row.verdict:>10}  {row.where:<9}  {row[2]}" + (f": {row.here}" if row.here else ""))
    print(f"profile {profile}, {len(rows)} claims of the paper: {replication.summary(rows)}")
    print(f"all of it, with what other profiles found: {sources.home() / 'REPLICATION.md'}")


def _duration(seconds):
    return f"{seconds / 3600:.1f} hours" if seconds > 7200 else f"{max(1, seconds / 60):.0f} minutes"


def main():
    """Run the command line; expected failures are one line, not a traceback."""
    from snipkit.sources import DataError

    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    try:
        app()
    except (DataError, ValueError, RuntimeError) as error:
        raise SystemExit(f"error: {error}")


if __name__ == "__main__":
    main()
