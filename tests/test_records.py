"""Records.

What is written is read, what is not a record is named and left alone, nothing on record is lost.
"""

import dataclasses
import json
import math
import multiprocessing
import re
import time
import warnings

import pandas as pd
import pytest
from tiny import ids, quick, record

from snipkit.outcomes import Outcome
from snipkit.study.train import experiment, records
from snipkit.study.train.records import Record

SNIP = {"criterion": "snip", "sparsity": 0.95}


def test_a_record_is_read_as_it_was_written(tmp_path):
    """But for the curves, which are rounded to four digits."""
    real = experiment.execute(quick(criterion="snip", sparsity=0.9, options={}))
    diverged = record(quick(seed=1), outcome=None, diverged="the loss is nan")
    for one in (real, diverged):
        records.append(tmp_path / "new" / "a.jsonl", one)
    recorded = records.read(tmp_path / "new")
    assert list(recorded) == [real.run.id, diverged.run.id] and recorded[diverged.id] == diverged
    back = recorded[real.id]
    assert dataclasses.replace(back, outcome=real.outcome) == real
    assert back.outcome.test_error == real.outcome.test_error
    assert back.outcome.train_loss == [float(f"{loss:.4g}") for loss in real.outcome.train_loss]
    content = json.loads((tmp_path / "new" / "a.jsonl").read_text().splitlines()[0])
    assert list(content) == ["id", "run", "outcome", "diverged", "kept", "effective", "provenance"]


def changed(**changes):
    """The line of a record with other contents.

    A name with dots goes inside, ``DELETED`` takes a field away.
    """
    content = json.loads(record(quick(**SNIP)).to_line())
    for place, value in changes.items():
        *outer, last = place.split("__")
        inside = content
        for name in outer:
            inside = inside[name]
        inside[last] = value
        if value is ...:
            del inside[last]
    return json.dumps(content).encode()


BAD = {
    b'{"id": "torn", "ru': "Invalid JSON: EOF",
    b"\x00" * 300: "Invalid JSON",  # what a power cut leaves
    b'{"\xe9\xe9"}': "Invalid JSON",
    b"<<<<<<< HEAD": "Invalid JSON",  # two machines' records merged by git
    b"[1, 2]": "Input should be an object",
    b"{}": "run: Field required",
    changed(outcome={}): "outcome.test_error: Field required",
    changed(outcome=None): "takes an outcome, or the reason",
    changed(diverged="loss nan"): "takes an outcome, or the reason",
    changed(outcome__test_error="5"): "outcome.test_error: Input should be a valid number",
    changed(outcome__test_error=math.nan): "outcome.test_error: Input should be a finite number",
    changed(outcome__test_error=101.0): "a test error of 101.0 %",
    changed(outcome__test_error=-1.0): "a test error of -1.0 %",
    changed(outcome__best_of_last_five=50.0): "best 50.0",
    changed(outcome__best_of_last_five=-1.0): "best -1.0",
    changed(outcome__test_loss=-1.0): "loss -1.0",
    changed(outcome__train_loss=["a"]): "outcome.train_loss.0: Input should be a valid number",
    changed(outcome__moon=1): "outcome.moon: Unexpected keyword argument",
    changed(moon=1): "moon: Unexpected keyword argument",
    changed(run__moon=1): "run.moon: Unexpected keyword argument",
    changed(run__recipe__moon=1): "run.recipe: no field moon; a recipe has steps",
    changed(run__data="mist"): "run.data: Input should be 'mnist'",
    changed(run__biases="no"): "run.biases: Input should be a valid boolean",
    changed(run__seed=4): "the id is [0-9a-f]{12}, but the run's is [0-9a-f]{12}",
    changed(kept={}): "the masks are {}, the sparsity is 0.95",
    changed(kept__more=[5, 5]): "55 of 1005 parameters kept is not a sparsity of 0.95",
    changed(kept={"a": [60, 500], "b": [-10, 500]}): "the masks are",
    changed(kept={"a": [50, 40], "b": [0, 960]}): "the masks are",
    changed(kept={"a": [50.5, 1000]}): "kept.a.0: Input should be a valid integer",
    changed(effective=51): "51 of 50 kept parameters on a path",
    changed(effective=-1): "-1 of 50",
    changed(provenance={}): "it took None seconds",
    changed(provenance=...): "provenance: Field required",
    changed(provenance__seconds="5"): "it took 5 seconds",
    changed(provenance__seconds=-5): "it took -5 seconds",
}


@pytest.mark.parametrize("line", BAD, ids=BAD.get)
def test_a_line_that_is_not_a_record_is_named_skipped_and_left_alone(tmp_path, line):
    path, good = tmp_path / "a.jsonl", [record(quick(seed=seed)) for seed in range(2)]
    records.append(path, good[0])
    whole = path.read_bytes()
    path.write_bytes(whole + line)  # without its end
    with pytest.warns(UserWarning) as caught:
        assert list(records.read(tmp_path)) == [good[0].id]
    (message,) = [str(one.message) for one in caught]
    assert re.fullmatch(
        rf".*a.jsonl, line 2 is not a record \(.*{BAD[line]}.*\): skipped; .*", message
    )
    assert len(message) < 500
    records.append(path, good[1])
    assert path.read_bytes() == whole + line + b"\n" + good[1].to_line().encode() + b"\n"


def test_records_of_an_older_version(tmp_path):
    """Fields that came later have their defaults, and the id is the same."""
    run, path = quick(**SNIP), tmp_path / "a.jsonl"
    content = json.loads(record(run).to_line())
    for name in (
        "scoring_sample",
        "scoring_data",
        "scoring_augment",
        "scoring_labels",
        "train_labels",
    ):
        del content["run"][name]
    del content["outcome"]["train_error"], content["effective"], content["diverged"]
    path.write_text("\n\n" + json.dumps(content) + "\n")
    (back,) = records.read(tmp_path).values()
    assert back.run == run and back.outcome.train_error == [] and back.effective is None


def test_the_first_of_two_records_counts_and_a_conflict_is_named(tmp_path):
    first, equal, other = (
        record(quick()),
        record(quick(), provenance={"seconds": 9.0}),
        record(quick(), error=6.5),
    )
    for one in (first, equal):
        records.append(tmp_path / "a.jsonl", one)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Such is what `cat` of two machines' records leaves.
        assert records.read(tmp_path) == {first.id: first}
    records.append(tmp_path / "b.jsonl", other)
    with pytest.warns(UserWarning, match=rf"two records that differ.*{first.id} \(5.0 and 6.5 %\)"):
        assert records.read(tmp_path) == {first.id: first}
    records.append(tmp_path / "c.jsonl", record(quick(), outcome=None, diverged="nan"))
    with pytest.warns(UserWarning, match=r"\(5.0 and None %\)"):
        records.read(tmp_path)


def test_a_second_reading_reads_what_was_added(tmp_path):
    path, seen, made = tmp_path / "a.jsonl", {}, [record(quick(seed=seed)) for seed in range(3)]
    records.append(path, made[0])
    assert list(records.read(tmp_path, seen)) == [made[0].id] and not records.read(tmp_path, seen)
    with open(path, "a") as stream:
        stream.write("torn")
    with pytest.warns(UserWarning, match="line 2 is not"):
        assert not records.read(tmp_path, seen)
    records.append(path, made[1])
    records.append(tmp_path / "b.jsonl", made[2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(records.read(tmp_path, seen)) == [made[1].id, made[2].id]
    with open(path, "a") as stream:
        stream.write("{}\n")
    with pytest.warns(UserWarning, match="line 4 is not"):
        records.read(tmp_path, seen)


def test_a_line_that_is_being_written_is_waited_for(tmp_path, monkeypatch):
    path, made = tmp_path / "a.jsonl", record(quick())
    line = made.to_line() + "\n"
    path.write_text(line[:100])

    def written_meanwhile(stream):
        path.write_text(line)

    monkeypatch.setattr(records, "_lock", written_meanwhile)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(records.read(tmp_path)) == [made.id]


def test_a_file_from_which_lines_were_deleted_is_read_anew(tmp_path):
    """By an editor, which writes another file, or in place."""
    path, seen, made = tmp_path / "a.jsonl", {}, [record(quick(seed=seed)) for seed in range(4)]
    lines = [one.to_line() + "\n" for one in made]
    path.write_text(lines[0] + lines[1])
    records.read(tmp_path, seen)
    other = tmp_path / "other"
    other.write_text(lines[0] + lines[2])
    other.replace(path)
    assert made[2].id in records.read(tmp_path, seen)
    path.write_text(lines[3])
    assert made[3].id in records.read(tmp_path, seen)


class Slow:
    """A file of a slow disk: a line goes out in pieces."""

    def __init__(self, stream):
        self.stream = stream

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stream.close()

    def write(self, data):
        time.sleep(0.001)
        return self.stream.write(data[:200])


def write_slowly(path):
    records.open = lambda *args, **options: Slow(open(*args, **options))
    for seed in range(20):
        records.append(path, record(quick(seed=seed)))


def test_two_writers_do_not_mix_their_lines(tmp_path):
    fork = multiprocessing.get_context("fork")  # a new process would import torch for seconds
    writers = [fork.Process(target=write_slowly, args=(tmp_path / "a.jsonl",)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert len(ids(tmp_path)) == 40 and len(records.read(tmp_path)) == 20


def test_a_write_that_is_interrupted_leaves_no_half_line(tmp_path, monkeypatch):
    path, made = tmp_path / "a.jsonl", [record(quick(seed=seed)) for seed in range(2)]
    records.append(path, made[0])
    before = path.read_bytes()

    def interrupted(number):
        raise KeyboardInterrupt

    monkeypatch.setattr(records.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        records.append(path, made[1])
    assert path.read_bytes() == before


def test_the_table_has_a_row_for_each_run_on_record():
    runs = [quick(**SNIP), quick(seed=1), quick(seed=2, model="lenet-5-caffe"), quick(seed=3)]
    kept = {"fc1.weight": (0, 400), "fc1.bias": (0, 300), "fc2.weight": (50, 300)}
    made = [
        record(runs[0], kept=kept, effective=25, error=7.0),
        record(runs[1], outcome=None, diverged="nan"),
        record(runs[3], outcome=Outcome(6.0, 4.0, 0.5, [1.0], [])),
    ]
    # A run that is asked for twice counts once.
    table = records.table([*runs, runs[0]], {one.id: one for one in made})
    assert list(table.id) == [runs[0].id, runs[1].id, runs[3].id] and list(table.seed) == [0, 1, 3]
    assert list(table.method) == ["snip", "dense", "dense"] and list(table.steps) == [5, 5, 5]
    pd.testing.assert_series_equal(
        table.test_error, pd.Series([7.0, math.nan, 6.0]), check_names=False
    )
    pd.testing.assert_series_equal(
        table.best_of_last_five, pd.Series([7.0, math.nan, 4.0]), check_names=False
    )
    assert list(table.train_loss) == [[2.0, 1.0], [], [1.0]] and list(table.train_error) == [
        [90.0, 50.0],
        [],
        [],
    ]
    assert list(table.empty_layers) == [1, 0, 0]  # a weight; biases do not count
    assert table.effective_sparsity[0] == 0.975 and table.effective_sparsity[1:].isna().all()
    assert (
        set(table.training) == {"short"}
        and list(table.seconds) == [1.0] * 3
        and "recipe" not in table
    )
    assert Record.from_line(made[0].to_line()) == made[0]


def test_marks_and_hidden_files_of_editors_and_systems_are_passed_over(tmp_path):
    """A byte order mark, Windows' line ends, macOS's ._ files, Emacs's locks."""
    lines = "".join(f"{record(quick(seed=seed)).to_line()}\r\n" for seed in range(2))
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    (tmp_path / "._a.jsonl").write_bytes(b"\0\5\x16\7Mac OS X")
    (tmp_path / ".#a.jsonl").symlink_to("somebody@somewhere.123")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(records.read(tmp_path)) == 2
