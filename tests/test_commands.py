"""The command line.

Every expected failure is a line that says what to change, and a non-zero exit.
"""

import json
import os
import re
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from tiny import ENVIRONMENT, ROOT, record, write_notebook

import snipkit
from snipkit.study import __main__, notebooks, paths
from snipkit.study.sets import sources
from snipkit.study.train import (
    estimate,
    executors,
    experiment,
    provenance,
    records,
    scheduler,
)
from snipkit.study.train.runs import Run


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a command line in this process: its exit code, and what it said."""
    handler, formatted = signal.getsignal(signal.SIGTERM), warnings.formatwarning
    monkeypatch.setattr(executors, "Processes", ThreadPoolExecutor)
    monkeypatch.setattr(estimate, "_measure", lambda run: 60.0)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["snipkit", *words])
        with pytest.raises(SystemExit) as left:
            __main__.main()
        code = left.value.code
        if isinstance(code, str):  # what Python itself does with it
            print(code, file=sys.stderr)
        return 1 if isinstance(code, str) else code or 0, *capsys.readouterr()

    yield run
    signal.signal(signal.SIGTERM, handler)
    warnings.formatwarning = formatted


@pytest.fixture
def instead(monkeypatch):
    monkeypatch.setattr(experiment, "execute", lambda run, *_: record(run))


def refused(result, message, code=1):
    assert result[0] == code and re.fullmatch(rf"error: .*{message}.*\n", result[2]), result


def test_the_version_and_the_help_come_without_torch():
    code = (
        "import sys; from snipkit.study.__main__ import main\ntry: main()\nfinally: assert 'torch' "
        "not in "
    )
    code += "sys.modules"
    result = [
        subprocess.run(
            [sys.executable, "-c", code, word], env=ENVIRONMENT, capture_output=True, text=True
        )
        for word in ("--version", "--help")
    ]
    assert [one.returncode for one in result] == [0, 0], result
    assert result[0].stdout == f"snipkit {snipkit.__version__}\n" and "train" in result[1].stdout


def test_train_says_what_there_is_to_do_does_it_and_has_nothing_left(toy, command, instead):
    code, out, err = command("train", "--profile", "laptop")
    assert code == 0, err
    assert "toy: 2 runs, 2 to do\nprofile laptop: 0 runs on record in " in out
    assert re.search(
        r"2 to do, about \d minutes here; .*; shorter: make paper PROFILE=lesson\n", out
    )
    assert len((toy / "results/laptop/toy.jsonl").read_text().splitlines()) == 2
    code, out, _ = command("train", "--profile", "laptop", "--budget", "10")
    assert code == 0 and "nothing to do, all 2 runs are on record" in out
    assert out.splitlines()[-1] == "profile laptop: 2 of 2 on record"


STRAY = {
    "Untitled.ipynb": "",
    "toy-Copy1.ipynb": None,
    ".ipynb_checkpoints/toy-checkpoint.ipynb": None,
}


@pytest.mark.parametrize("name", STRAY)
def test_a_notebook_that_no_profile_names_is_the_readers_own(toy, command, instead, name):
    """Be it new, a copy of a page with other parameters, or what Jupyter keeps."""
    path = toy / "notebooks" / name
    path.parent.mkdir(exist_ok=True)
    text = (toy / "notebooks/toy.ipynb").read_text() if STRAY[name] is None else STRAY[name]
    path.write_text(text)
    assert notebooks.names() == ["toy"]
    code, out, err = command("train")
    assert code == 0 and out.startswith("toy: 2 runs, 2 to do\nprofile laptop"), err
    code, _, err = command("report")
    assert code == 0, err
    assert path.read_text() == text


def test_a_profile_trained_in_pieces(toy, command, instead):
    """Each record goes into the file of the first notebook that wants it; seed 2 comes last."""
    write_notebook(toy, "zoo", parameters="profile = 'lesson'\nseeds = 3\nrecipe = {'steps': 5}")
    code, out, _ = command("train", "--budget", "0")
    assert code == 0 and "toy: 2 runs, 2 to do\nzoo: 3 runs, 1 to do\n" in out
    assert out.splitlines()[-1] == "profile laptop: 0 of 3 on record" and not list(
        toy.glob("results/laptop/*.jsonl")
    )
    (run, *_) = notebooks.grid("toy", "laptop")
    state = scheduler.checkpoint_of(run, toy / "results/laptop")
    state.parent.mkdir(parents=True, exist_ok=True)
    state.touch()
    code, out, _ = command("train", "--budget", "0")
    assert out.splitlines()[-1] == "profile laptop: 0 of 3 on record, 1 stopped at a checkpoint"
    code, out, _ = command("train", "--budget", "10")
    assert code == 0 and out.splitlines()[-1] == "profile laptop: 3 of 3 on record"
    files = {
        name: (toy / f"results/laptop/{name}.jsonl").read_text().splitlines()
        for name in ("toy", "zoo")
    }
    assert [{json.loads(line)["run"]["seed"] for line in lines} for lines in files.values()] == [
        {0, 1},
        {2},
    ]


def test_one_seed_of_everything_comes_before_the_second_of_anything(
    toy, command, instead, monkeypatch
):
    """And the cheapest first within a seed, whatever the order in the notebooks."""
    write_notebook(toy, "big", parameters="profile = 'lesson'\nseeds = 2\nrecipe = {'steps': 900}")
    done = []
    monkeypatch.setattr(estimate, "_measure", lambda run: run.recipe.steps)
    monkeypatch.setattr(scheduler, "execute_all", lambda files, *_: done.extend(files) or {})
    command("train")
    assert [(run.seed, run.recipe.steps) for run in done] == [(0, 5), (0, 900), (1, 5), (1, 900)]


LEFT_OUT = "toy: {seeds: 2, recipe: {steps: 6000}}\nleft out:\n  the moon: {model: vgg-d}\n"


def test_an_estimate_needs_no_gpu_and_no_data(toy, command, monkeypatch):
    monkeypatch.setenv("SNIPKIT_DATA", str(toy / "none"))
    (toy / "notebooks/profiles/evening.yml").write_text(LEFT_OUT)
    code, out, err = command("estimate")
    assert code == 0, err
    assert "profile evening: 0 of 2 on record\nby step times of an NVIDIA H100" in out
    assert re.search(r"lenet-300-100 +mnist +6000 +\[1\] +2 +3.3 +1 +0.3\n", out), out
    assert "total by step times: 0 minutes" in out and out.endswith("left out: the moon\n")
    code, out, _ = command("estimate", "--cpu")
    assert code == 0 and re.search(r"6000 +\[1\] +2 +2.3 +2 +0.5\n", out) and "AMD EPYC" in out
    run, other = notebooks.grid("toy", "evening")
    records.append(paths.results("evening") / "toy.jsonl", record(run))
    assert "profile evening: 1 of 2 on record" in command("estimate")[1]
    records.append(paths.results("evening") / "toy.jsonl", record(other))
    assert "minutes" not in command("estimate")[1]


def test_a_gpu_is_told_by_step_times_how_long_it_takes(toy, command, instead, monkeypatch):
    """Ten steps of one network, measured there, say nothing of a stack."""
    (toy / "notebooks/profiles/evening.yml").write_text(LEFT_OUT)
    write_notebook(toy, "big", parameters="profile = ''\nseeds = 1\nrecipe = {'steps': 9000}")
    write_notebook(
        toy, "odd", parameters="profile = ''\nseeds = 1\nrecipe = {'steps': 8, 'batch_size': 7}"
    )
    monkeypatch.setattr(executors, "on_gpu", lambda: True)
    monkeypatch.setattr(executors, "_gpu_memory", lambda: 80.0)
    monkeypatch.setattr(provenance, "name", lambda device: device)
    measured, ordered = [], []
    monkeypatch.setattr(estimate, "_measure", lambda run: measured.append(run) or 1.0)
    monkeypatch.setattr(scheduler, "execute_all", lambda files, *_: ordered.extend(files) or {})
    code, out, err = command("train", "--profile", "evening")
    assert code == 0, err
    assert "by step times of an NVIDIA H100" in out and "left out: the moon\n" in out
    assert [run.recipe.batch_size for run in measured] == [7]
    assert [run.recipe.steps for run in ordered] == [8, 6000, 9000, 6000]
    assert out.index("by step times") < out.index("profile evening: 0 runs on record")


@pytest.mark.parametrize(
    "words, message",
    [
        (["train", "--budget", "nan"], "the budget is nan; it takes a number of minutes"),
        (["train", "--budget", "inf"], "the budget is inf"),
        (["train", "--budget", "-5"], "the budget is -5"),
        (
            ["train", "--executor", "host:8786"],
            "'host:8786' is not the address of a Dask scheduler: tcp://host:port",
        ),
        (["train", "--executor", "http://host:8786"], "is not the address"),
        (["train", "--executor", "tcp://host"], "is not the address"),
        (["train", "--executor", "tcp://host:port"], "is not the address"),
        (
            ["train", "--profile", "nope"],
            "unknown profile 'nope'; known: lesson, laptop, overnight, evening, paper",
        ),
        (["figures", "--profile", "nope"], "unknown profile 'nope'"),
        (["execute", "toy", "out.ipynb", "--profile", "nope"], "unknown profile 'nope'"),
        (["execute", "zoo", "out.ipynb"], "no notebook is called zoo; known: toy"),
        (
            ["execute", "zoo", "out.ipynb", "--profile", "lesson"],
            "no notebook is called zoo; known: toy",
        ),
        (["fetch", "imagenet"], "unknown data set 'imagenet'; known: mnist"),
    ],
)
def test_a_wrong_value_is_one_line_and_nothing_is_written(
    toy, command, monkeypatch, words, message
):
    monkeypatch.chdir(toy)
    before = sorted(toy.rglob("*"))
    refused(command(*words), message)
    assert sorted(toy.rglob("*")) == before


@pytest.mark.parametrize(
    "words", [["trian"], ["train", "--budget", "ten"], ["train", "--bugdet", "3"], ["execute"]]
)
def test_a_wrong_word_is_one_line(toy, command, words):
    refused(command(*words), "--help lists what there is", code=2)


@pytest.mark.parametrize(
    "words", [["train"], ["report"], ["figures"], ["execute", "toy", "out.ipynb"]]
)
@pytest.mark.parametrize(
    "kind, message",
    [("mistyped", "and there is no such folder"), ("empty", "no notebooks in .*SNIPKIT_HOME")],
)
def test_a_home_without_notebooks(tmp_path, command, monkeypatch, words, kind, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("SNIPKIT_HOME", str(tmp_path / kind))
    refused(command(*words), message)
    assert list(tmp_path.rglob("*")) == [tmp_path / "empty"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("toy: {setps: 3}", "laptop.yml: toy has no parameter setps"),
        ("toy: {seeds: many}", "laptop.yml: seeds of toy is 'many', but it takes int"),
        ("toy: {seeds: 2.5}", "laptop.yml: seeds of toy is 2.5, but it takes int"),
        ("toy: {seeds: true}", "laptop.yml: seeds of toy is True, but it takes int"),
        (
            "toy: {recipe: paper-mnist}",
            "laptop.yml: recipe of toy is 'paper-mnist', but it takes dict",
        ),
        (
            "toy: {recipe: {setps: 5}}",
            "laptop.yml does not fit toy: .*recipe: no field setps; a recipe has",
        ),
        (
            "toy: {recipe: {steps: 5, lr: .nan}}",
            "laptop.yml does not fit toy: recipe: lr is nan; it takes a finite",
        ),
        (
            "toy: {recipe: {steps: '5'}}",
            "laptop.yml does not fit toy: recipe: steps is '5'; it takes a whole number",
        ),
        ("toy:\n\tseeds: 2", r"laptop.yml: .*'\\t' that cannot start any token"),
        ("toy: {seeds: 2", "laptop.yml: .*expected"),
        ("tyo: {seeds: 2}", "laptop.yml: no notebook is called tyo; known: toy"),
        ("3: {seeds: 2}", "laptop.yml: no notebook is called 3"),
        ("[toy]", "laptop.yml: it takes a mapping of parameters"),
        ("toy: 3", "laptop.yml: it takes a mapping of parameters"),
        (b"toy: \xff", "laptop.yml: .*decode"),
        (None, "laptop.yml: .*No such file"),
        ("toy: {seeds: 0}", "profile laptop: no notebook in .* has a run"),
    ],
)
def test_a_wrong_profile_file_is_named_with_its_key(toy, command, text, message):
    path = toy / "notebooks/profiles/laptop.yml"
    if text is None:
        path.unlink()
    else:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    result = command("train")
    refused(result, message)


def test_whole_numbers_are_numbers_and_none_stands_for_anything(toy):
    (toy / "notebooks/profiles/laptop.yml").write_text("toy: {rate: 1, name: x}")
    chosen = notebooks.parameters("toy", "laptop")
    assert chosen == {"profile": "laptop", "rate": 1, "name": "x"}
    (toy / "notebooks/profiles/laptop.yml").write_text("toy: {seeds: null}")
    assert notebooks.parameters("toy", "laptop")["seeds"] is None


def test_a_damaged_data_set_stops_every_command_that_needs_it(toy, command, tmp_path, monkeypatch):
    folder = tmp_path / "data/MNIST/raw"
    folder.mkdir(parents=True)
    for file in sources.IDX_FILES:
        (folder / file).write_bytes(b"not a digit")
    monkeypatch.setenv("SNIPKIT_DATA", str(tmp_path / "data"))
    for words in (["train"], ["fetch"], ["fetch", "mnist"]):
        refused(
            command(*words),
            "train-images-idx3-ubyte: the file is damaged .*; delete it and run again",
        )


def test_a_damaged_data_set_is_not_left_out(toy, command, tmp_path, monkeypatch):
    folder = tmp_path / "data/FashionMNIST/raw"
    folder.mkdir(parents=True)
    (tmp_path / "data/MNIST").symlink_to(paths.data_root() / "MNIST")
    (folder / sources.IDX_FILES[0]).write_bytes(b"not a shirt")
    monkeypatch.setenv("SNIPKIT_DATA", str(tmp_path / "data"))
    code, _, err = command("fetch")
    assert code == 1 and "FashionMNIST/raw/train-images-idx3-ubyte: the file is damaged" in err


def test_what_cannot_be_had_is_left_out_but_mnist(toy, command, tmp_path, monkeypatch):
    for name, source in sources.SOURCES.items():
        empty = {} if name == "mnist" else {"the site": None}
        monkeypatch.setitem(
            sources.SOURCES, name, sources.Source(source.folder, source.sha256, empty)
        )
    monkeypatch.setenv("SNIPKIT_DATA", str(tmp_path))
    code, out, err = command("fetch")
    assert (
        code == 1
        and err.startswith("error: mnist: the data set is not here")
        and "Put the files" in err
    )
    monkeypatch.setenv("SNIPKIT_DATA", ENVIRONMENT["SNIPKIT_DATA"])
    monkeypatch.setitem(sources.SOURCES, "cifar-10", sources.Source("nowhere", {"a": "0"}, {}))
    code, out, _ = command("fetch")
    assert code == 0 and "mnist: " in out and "left out: cifar-10: the data set is not here" in out
    assert command("fetch", "cifar-10")[0] == 1


def test_a_folder_of_results_that_is_a_file(toy, command, instead):
    (toy / "results").write_text("a file where the folder should be")
    code, _, err = command("train")
    result = err.splitlines()[-1]
    assert (
        code == 1
        and result.startswith("error: ")
        and result.endswith("change that and run again to carry on")
    )


@pytest.mark.parametrize("package", ["papermill", "nbformat"])
def test_a_page_without_jupyter_is_one_line(toy, command, monkeypatch, package):
    """As after `pip install` of the wheel alone; nothing is left where the page would have been."""
    monkeypatch.setitem(sys.modules, package, None)
    message = (
        rf"running a page needs {package}, which is not installed: pip install "
        r"'snipkit\[notebooks\]'"
    )
    refused(command("execute", "toy", str(toy / "build/out.ipynb")), message)
    assert not list(toy.glob("build/*"))


def test_a_package_that_is_missing_is_one_line(toy, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "tabulate", None)
    monkeypatch.setattr(notebooks, "names", lambda: __import__("tabulate"))
    refused(
        command("report"),
        r"this needs tabulate, which is not installed: pip install 'snipkit\[study,",
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_told_to_stop(toy, command, monkeypatch, number):
    """By the signal that nobody else has caught; a traceback would be no help."""
    signal.signal(signal.SIGTERM, lambda *_: None)  # not what conftest made of it
    monkeypatch.setattr(notebooks, "grid", lambda *_: os.kill(os.getpid(), number) or [])
    assert command("train")[0] == 130


def test_an_error_of_ours_keeps_its_traceback(toy, command, monkeypatch):
    monkeypatch.setattr(notebooks, "grid", lambda *_: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["snipkit", "train"])
    with pytest.raises(ZeroDivisionError):
        __main__.main()


def test_the_report_is_written(toy, command):
    code, out, err = command("report")
    assert code == 0, err
    assert re.search(r"\d+ claims of the paper: ", out)
    assert (toy / "REPLICATION.md").exists()


def test_the_report_in_a_locale_without_unicode(toy):
    """Such is LC_ALL=C, or en_US without .UTF-8 on an old cluster.

    A half-written report would be 0 bytes.
    """
    locale = {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "SNIPKIT_HOME": str(toy),
    }
    command = [sys.executable, "-m", "snipkit.study", "report"]
    done = subprocess.run(command, env=ENVIRONMENT | locale, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "± half a 95 % interval" in (toy / "REPLICATION.md").read_text(encoding="utf-8")


def test_the_report_says_what_is_planned_and_on_record(toy, command):
    """A run that is on record at both scales counts once.

    A page that a profile does not name is not planned there.
    """
    (toy / "notebooks/profiles/overnight.yml").write_text("toy: {seeds: 3}")
    first, second, _ = notebooks.grid("toy", "overnight")
    origins = {first: (3600.0, "AMD EPYC"), second: (7200.0, "NVIDIA H100")}
    for folder, runs in (("overnight", [first, second]), ("paper", [first])):
        for run in runs:
            (toy / "results" / folder).mkdir(parents=True, exist_ok=True)
            origin = dict(zip(("seconds", "device"), origins[run]))
            records.append(toy / "results" / folder / "toy.jsonl", record(run, provenance=origin))
    code, _, err = command("report")
    text = (toy / "REPLICATION.md").read_text()
    result = "2 runs on record (2 MNIST), 1 of them on a GPU, the others in at least 1 core-hours."
    assert code == 0 and result in text, err
    assert re.search(r"\| toy +\| +3 +\| +2 +\| +\| +\|", text), text[-400:]


def test_figures_are_drawn_from_the_records_alone(toy, command, instead, monkeypatch):
    command("train")
    monkeypatch.setenv("SNIPKIT_DATA", str(toy / "none"))
    code, out, err = command("figures")
    assert code == 0 and out == "laptop: toy: drawn from 2 of 2 runs\n", err
    assert (toy / "figures/laptop/toy.png").exists()
    assert Run(**{"recipe": {"steps": 5}, "train_size": 200, "test_size": 50}) in notebooks.grid(
        "toy", "laptop"
    )
    assert ROOT != paths.home() == toy


@pytest.mark.parametrize("sees_gpu, profile", [(False, "laptop"), (True, "evening")])
def test_the_default_of_make_paper_asks_torch_too(tmp_path, sees_gpu, profile):
    """With a driver and a CPU-only build, a GPU's scale would take weeks.

    "paper" takes days, so it is asked for by name.
    """
    for name, line in (("nvidia-smi", "echo GPU 0"), ("python", f"exit {int(not sees_gpu)}")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    environment = ENVIRONMENT | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for name in ("PROFILE", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"):  # of a `make` around the tests
        environment.pop(name, None)
    command = ["make", "help", f"PY={tmp_path}/python"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert f"(profile here: {profile})" in done.stdout, done
