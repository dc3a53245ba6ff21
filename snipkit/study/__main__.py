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
        f"error: the study needs {error.name}, which is not installed: "
        "pip install 'snipkit[study]' (without it, snipkit is the method alone)"
    ) from None

app = typer.Typer(
    help="The commands behind the Makefile.", no_args_is_help=True, pretty_exceptions_enable=False
)
Profile = Annotated[str, typer.Option(help="lesson, laptop, overnight, evening or paper")]
Names = Annotated[
    list[str] | None, typer.Argument(help="data sets; by default all but tiny-imagenet")
]
Budget = Annotated[
    float | None, typer.Option(help="minutes; then no run is started, and those under way stop")
]
Scheduler = Annotated[
    str | None, typer.Option(help="tcp://host:port of a Dask scheduler; by default this machine")
]
ADDRESS = re.compile(r"(tcp|tls)://([\w.-]+|\[[\da-fA-F:]+\]):\d{1,5}")


def _version(asked: bool):
    if asked:
        import snipkit

        print(f"snipkit {snipkit.__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="say it, stop")
]


@app.callback()
def main_options(version: Version = False):
    pass


@app.command()
def fetch(names: Names = None):
    """Fetch and verify data sets.

    Without names: those of the pages, as far as they are available; MNIST must be.
    """
    for name, folder in _available(names):
        print(f"{name}: {folder}", flush=True)


@app.command()
def bundle(
    names: Names = None,
    target: Annotated[
        Path | None, typer.Option(help="by default build/data-bundle.zip in the project's folder")
    ] = None,
):
    """Pack the data sets into one zip file, for machines without a network."""
    from snipkit.study import paths
    from snipkit.study.sets import bundle, sources

    path = target or paths.project() / "build" / sources.BUNDLE
    available = [name for name, _ in _available(names)]
    new = bundle.write(available, paths.data_root(), path)
    megabytes = path.stat().st_size / 1e6
    print(
        f"{path}: {', '.join(available)}; {megabytes:.0f} MB, "
        f"{'written' if new else 'was there already'}\nSHA-256 {sources.file_hash(path)}"
    )


def _available(names):
    """(name, folder) of each data set that is here, or can be fetched; says which is left out."""
    from snipkit.study.sets import sources

    for name in names or [name for name in sources.SOURCES if name != "tiny-imagenet"]:
        try:
            yield name, sources.fetch(name)
        except sources.DataError as error:
            if names or name == "mnist" or isinstance(error, sources.DamagedError):
                raise
            print(f"left out: {error}", flush=True)


@app.command()
def train(profile: Profile = "laptop", budget: Budget = None, executor: Scheduler = None):
    """Say what a profile has to train and how long that takes here, then train it all.

    It needs no Jupyter.
    """
    deadline = _deadline(budget)
    if executor is not None and not ADDRESS.fullmatch(executor):
        raise ValueError(f"{executor!r} is not the address of a Dask scheduler: tcp://host:port")

    from snipkit.study import notebooks, paths
    from snipkit.study.train import executors, records, scheduler

    results = paths.results(notebooks.checked_profile(profile))
    recorded = records.read(results)
    files = _planned(profile, results, recorded)
    todo = scheduler.reachable([run for run in files if run.id not in recorded])
    if not todo:
        count = len(files)
        print(f"profile {profile}: nothing to do, all {count} runs are on record in {results}")
    else:
        workers = executors.dask(executor) if executor else contextlib.nullcontext()
        with workers as pool:
            seconds = _announced(profile, todo, recorded, results, pool)
            # One seed of everything before the second of anything: stopped at any time, there are
            # complete repetitions.
            ordered = sorted(todo, key=lambda run: (run.seed, seconds[run]))
            recorded = scheduler.execute_all({run: files[run] for run in ordered}, pool, deadline)
    if budget is not None:
        missing = [run for run in files if run.id not in recorded]
        kept = sum(scheduler.checkpoint_of(run, results).exists() for run in missing)
        stopped = f", {kept} stopped at a checkpoint" if kept else ""
        done = len(files) - len(missing)
        print(f"profile {profile}: {done} of {len(files)} on record{stopped}")


def _deadline(budget: float | None) -> float | None:
    """The ``time.monotonic()`` after which no run is started; None: never."""
    if budget is None:
        return None
    if not (math.isfinite(budget) and budget >= 0):
        raise ValueError(f"the budget is {budget}; it takes a number of minutes")
    return time.monotonic() + 60 * budget


def _planned(profile, results, recorded):
    """Run → the file for its record, that of the first page that has the run; says how many."""
    from snipkit.study import notebooks

    files: dict = {}
    for name in notebooks.names():
        runs = list(dict.fromkeys(notebooks.grid(name, profile)))
        todo = sum(run.id not in recorded and run not in files for run in runs)
        print(f"{name}: {len(runs)} runs, {todo} to do")
        for run in runs:
            files.setdefault(run, results / f"{name}.jsonl")
    if not files:
        raise ValueError(f"profile {profile}: no notebook in {notebooks.folder()} has a run")
    return files


def _announced(profile, todo, recorded, results, pool):
    """Say how long the runs will take, and return the seconds of each."""
    from snipkit.study import notebooks
    from snipkit.study.train import estimate, executors, step_times

    seconds = {}
    if not pool and executors.on_gpu():
        # Stacks and compiled trainings cannot be measured by a few steps of one network.
        forecast = step_times.forecast(todo)
        print(f"{step_times.text(forecast)}\n", flush=True)
        seconds = forecast.seconds
    seconds |= estimate.seconds([run for run in todo if run not in seconds], recorded)
    _say_left_out(profile)
    capacity = max(1, executors.capacity(pool))
    place = f"with {capacity} workers as fast as this machine" if pool else "here"
    if not pool and executors.on_gpu():
        capacity = 1  # a large network fills the GPU alone
    text = (
        f"profile {profile}: {len(recorded)} runs on record in {results}, {len(todo)} to do, "
        f"about {_duration(sum(seconds.values()) / capacity)} {place}; "
        "stop it at any time, a rerun carries on"
    )
    shorter = notebooks.PROFILES[: notebooks.PROFILES.index(profile)]
    if shorter:
        text += f"; shorter: make paper PROFILE={shorter[-1]}"
    print(text, flush=True)
    return seconds


def _say_left_out(profile):
    """Name what a profile has no runs of."""
    from snipkit.study import notebooks

    for words in notebooks.left_out(profile):
        print(f"left out: {words}")


@app.command()
def estimate(
    profile: Profile = "evening",
    gpu: Annotated[
        bool | None, typer.Option("--gpu/--cpu", help="by default a GPU for evening and paper")
    ] = None,
):
    """Say how long a profile's training will take, by step times on record; train nothing.

    It needs neither a GPU nor data.
    """
    from snipkit.study import notebooks, paths
    from snipkit.study.train import records, step_times

    results = paths.results(notebooks.checked_profile(profile))
    recorded = records.read(results)
    files = _planned(profile, results, recorded)
    todo = [run for run in files if run.id not in recorded]
    print(f"profile {profile}: {len(files) - len(todo)} of {len(files)} on record")
    if todo:
        on_gpu = profile in notebooks.ON_GPU if gpu is None else gpu
        forecast = step_times.forecast(todo, step_times.GPU if on_gpu else step_times.CPU)
        print(step_times.text(forecast))
    _say_left_out(profile)


@app.command("registered")
def train_registered(
    claims: Annotated[
        list[str] | None, typer.Argument(help="ids, or how they begin; by default all")
    ] = None,
    budget: Budget = None,
):
    """Train the registered runs that are not on record, and say how far each claim is
    (REGISTRATION.md).
    """
    deadline = _deadline(budget)

    from snipkit.study.report import registered
    from snipkit.study.train import executors, registration, scheduler

    runs = registration.runs(tuple(claims or ("",)), gpu=executors.on_gpu())
    if not runs:
        beginnings = ", ".join(claims or ())
        raise ValueError(f"no claim with runs for this machine begins with {beginnings}")
    registered.measure()
    file = registration.records_file()
    try:
        scheduler.execute_all(dict.fromkeys(runs, file), deadline=deadline)
    finally:
        print(registered.progress(registered.table()))


@app.command()
def execute(name: str, target: Path, profile: Profile = "laptop"):
    """Run one page with a profile's parameters into TARGET."""
    from snipkit.study import notebooks

    notebooks.execute(name, profile, target)


@app.command()
def figures(
    profile: Annotated[
        str | None, typer.Option(help="by default every profile that has records")
    ] = None,
):
    """Draw the figures again from the records alone."""
    from snipkit.study import notebooks, paths
    from snipkit.study.train import records

    pages = notebooks.names()
    for chosen in [notebooks.checked_profile(profile)] if profile else notebooks.PROFILES:
        results = paths.results(chosen)
        recorded = records.read(results)
        for name in pages if recorded else ():
            # Only pages whose own training has begun, or whose runs are all on record in files of
            # other names: a run or two shared with another page would make empty figures.
            planned = {run.id for run in notebooks.grid(name, chosen)}
            if (results / f"{name}.jsonl").exists() or (planned and planned <= recorded.keys()):
                drawn = notebooks.draw(name, chosen, recorded)
                print(f"{chosen}: {name}: drawn from {drawn} of {len(planned)} runs", flush=True)


@app.command()
def report():
    """Write REPLICATION.md from the records, and say which word each of the paper's claims has."""
    from snipkit.study import paths
    from snipkit.study.report import progress, registered, replication

    table = progress.table().to_markdown(index=False)
    heading = "## What is planned, and what is on record"
    note = "Pages share runs, so the columns add up to more. Registered runs have no row here."
    claims = replication.write(f"\n{heading}\n\n{progress.sentence()}. {note}\n\n{table}\n")
    print(registered.progress(claims))
    print(f"{len(claims)} claims of the paper: {replication.summary(claims)}")
    print(f"claim by claim: {paths.home() / 'REPLICATION.md'}")


def _duration(seconds):
    if seconds > 7200:
        return f"{seconds / 3600:.1f} hours"
    return f"{max(1, seconds / 60):.0f} minutes"


def _interrupted(number, frame):
    raise KeyboardInterrupt


def main():
    """Run the command line; expected failures are one line, not a traceback."""
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    signal.signal(signal.SIGTERM, _interrupted)  # a cluster's way of saying Ctrl-C
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal without UTF-8 shows a ? for what it lacks
            stream.reconfigure(errors="replace")
    try:
        raise SystemExit(app(standalone_mode=False))
    except Exception as error:
        raise SystemExit(_expected(error)) from error


def _expected(error):
    """The line for an error that a user can do something about; any other is raised again."""
    if hasattr(error, "format_message"):
        # Typer's own: a wrong option or command, or none (then it has shown the help).
        message = error.format_message()
        if message:
            print(f"error: {message} (--help lists what there is)", file=sys.stderr)
        return 2
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("snipkit"):
        return (
            f"error: this needs {error.name}, which is not installed: "
            "pip install 'snipkit[study,notebooks]'"
        )
    from pydantic import ValidationError

    from snipkit.study.sets.sources import DataError

    if isinstance(error, ValidationError):
        from snipkit.study.train.runs import one_line

        return f"error: {one_line(error)}"
    if isinstance(error, DataError | ValueError | RuntimeError | OSError):
        return f"error: {error}"
    raise error


if __name__ == "__main__":
    main()
