"""The commands behind the Makefile: ``python -m snipkit --help``."""

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
def train(profile: Profile = "laptop"):
    """Say what a profile has to train and how long that takes here, then train it all (no Jupyter needed)."""
    from snipkit import notebooks, sources, study

    results = sources.home() / "results" / profile
    records = study.read(results)
    todo, seen = {}, set()
    for name in notebooks.names():
        runs = {run.id: run for run in notebooks.grid(name, profile)}
        todo[name] = [run for run in runs.values() if run.id not in records and run.id not in seen]
        print(f"{name}: {len(runs)} runs, {len(todo[name])} to do")
        seen |= set(runs)
    every = [run for runs in todo.values() for run in runs]
    can_be_had = {run.id for run in study.reachable(every)}
    todo = {name: [run for run in runs if run.id in can_be_had] for name, runs in todo.items()}
    every = [run for runs in todo.values() for run in runs]
    if not every:
        print(f"profile {profile}: nothing to do, all that can be run is on record in {results}")
        return
    seconds = study.estimate(every, {} if profile == "paper" else records)
    shorter = notebooks.PROFILES[: notebooks.PROFILES.index(profile)]
    print(
        f"profile {profile}: {len(records)} runs on record in {results}, {len(every)} to do, about {_duration(seconds)} "
        f"here; stop it at any time, a rerun carries on"
        + (f"; shorter: make paper PROFILE={shorter[-1]}" if shorter else ""),
        flush=True,
    )
    for name, runs in todo.items():
        if runs:
            study.run_all(runs, results / f"{name}.jsonl")


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
