"""Are the tests sharp? Plausible mistakes are put into the code, one at a time, and the tests must
notice each.

    python tools/mutants.py [module …]    all modules, or those whose path holds one of the words
    python tools/mutants.py --check …     only look whether the table still fits the code

Each mutant is one change of text in a scratch copy. The test files named for its module run on it
until the first failure ("killed"); a mutant with which all of them pass has "survived": write the
test that is missing. A text that is no longer found once, and only once, is an error: bring the
table up to date. A child process is forked for each mutant, after torch was imported, so one takes
seconds. ``make mutants`` runs all of them; it is too slow for CI.
"""

import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
LIMIT = 300  # seconds for the tests of one mutant; a mutant that hangs is noticed, too
PRELOADED = (
    "torch",
    "pandas",
    "pydantic",
    "matplotlib.pyplot",
    "scipy.stats",
    "filelock",
    "pytest",
    "typer",
)
LINKED = ("data", "notebooks", "results", "figures", "docs")

TABLE = Path(__file__).with_suffix(".yaml")


def table() -> dict[str, tuple[list[str], list[tuple[str, str]]]]:
    """file of snipkit/ → (its test files, [(text, mutated text), …])"""
    rows = {}
    for file, entry in yaml.safe_load(TABLE.read_text(encoding="utf-8")).items():
        changes = [(change["text"], change["mutant"]) for change in entry["mutants"]]
        rows[file] = entry["tests"], changes
    return rows


def scratch_copy(folder: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("snipkit", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for path in ROOT.iterdir():
        if path.name in LINKED or path.is_file():
            (folder / path.name).symlink_to(path)


def survives(folder: Path, files: list[str], log: Path) -> bool:
    """Whether all tests pass on the copy in this folder.

    RuntimeError if they could not even be run.
    """
    child = os.fork()
    if not child:
        os.setsid()
        with open(log, "w") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        os.chdir(folder)
        sys.path[:0] = [str(folder), str(folder / "tests")]
        code = 99
        try:
            import pytest

            options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"]
            code = pytest.main([*options, *(f"tests/{file}" for file in files)])
            import snipkit

            assert snipkit.__file__.startswith(str(folder)), snipkit.__file__
        finally:
            sys.stdout.flush()
            os._exit(code)
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.05)
    else:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return False
    code = os.waitstatus_to_exitcode(status)
    # A mutant may also break what every test needs (a fixture, an import of the module): then it is
    # noticed, too.
    if code not in (0, 1, 2) and code >= 0:
        raise RuntimeError(f"pytest ended with {code}:\n{log.read_text()[-2000:]}")
    return code == 0


def outdated(rows: dict[str, tuple[list[str], list[tuple[str, str]]]]) -> list[str]:
    """What some rows of the table name that is not there: test files, and texts that are not in the
    code exactly once.
    """
    complaints = []
    for file, (tests, changes) in rows.items():
        for test in tests:
            if not (ROOT / "tests" / test).exists():
                complaints.append(f"{file}: there is no tests/{test}")
        path = ROOT / "snipkit" / file
        source = path.read_text(encoding="utf-8") if path.exists() else ""
        for text, _ in changes:
            if source.count(text) != 1:
                complaints.append(f"{file}: found {source.count(text)} times: {text!r}")
    return complaints


def main(arguments: list[str]) -> int:
    words = [argument for argument in arguments if argument != "--check"]
    selected = {}
    for file, row in table().items():
        if not words or any(word in file for word in words):
            selected[file] = row
    complaints = outdated(selected)
    for complaint in complaints:
        print(complaint)
    if complaints or not selected:
        reason = "the table does not fit the code" if complaints else "no such module"
        print(f"error: {reason}")
        return 2
    if "--check" in arguments:
        count = sum(len(changes) for _, changes in selected.values())
        print(f"{count} mistakes in {len(selected)} modules: each text is in the code once")
        return 0
    sources = {}
    for file in selected:
        sources[file] = (ROOT / "snipkit" / file).read_text(encoding="utf-8")
    for name in PRELOADED:
        importlib.import_module(name)
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    scores = {}
    with tempfile.TemporaryDirectory(prefix="snipkit-mutants-") as scratch:
        copy, log = Path(scratch, "copy"), Path(scratch, "log")
        copy.mkdir()
        scratch_copy(copy)
        for files in sorted({tuple(row[0]) for row in selected.values()}):
            if not survives(copy, list(files), log):
                print(
                    log.read_text()[-3000:], f"\nerror: {', '.join(files)} fail without any mutant"
                )
                return 2
        for file, (files, rows) in selected.items():
            killed = 0
            for old, new in rows:
                (copy / "snipkit" / file).write_text(sources[file].replace(old, new))
                survived = survives(copy, files, log)
                killed += not survived
                print(
                    f"{'survived' if survived else 'killed  '}  {file}: {old!r} -> {new!r}",
                    flush=True,
                )
            (copy / "snipkit" / file).write_text(sources[file])
            scores[file] = killed, len(rows)
            print(f"{killed:3} of {len(rows):3} killed  {file}", flush=True)
    killed, total = (sum(parts) for parts in zip(*scores.values()))
    print(f"{killed} of {total} killed: {100 * killed / total:.0f} %")
    return int(killed < total)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
