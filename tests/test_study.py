"""A run is a value; a finished run never runs again; nothing on record is lost."""

import dataclasses
import json
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import snipkit
from snipkit import data, figures, masking, saliency, sources, study, training
from snipkit.study import Run
from snipkit.training import Recipe

QUICK = Recipe(steps=5, schedule="onecycle")


def quick(**changes):
    return Run(**({"recipe": QUICK, "train_size": 500, "test_size": 100} | changes))


def test_the_id_is_stable_and_depends_on_every_field():
    assert Run(recipe=Recipe(steps=100)).id == "c7225c74e20e"  # written down: records must be found again next year
    variants = [
        quick(), quick(seed=1), quick(criterion="snip", sparsity=0.9), quick(criterion="snip", sparsity=0.95),
        quick(criterion="snip", sparsity=0.9, ablation="shuffle"), quick(recipe=Recipe(steps=6)), quick(model="lenet-5-caffe"),
        quick(model="lenet-5-caffe", options={"conv_relu": True}), quick(scoring_init="he"), quick(training_init="he"),
        quick(same_draw=True), quick(scoring_batch=10), quick(biases=False), quick(batch_norm="train"), quick(data="fashion-mnist"),
        quick(recipe=Recipe(steps=5, augment="flip-shift")), quick(scoring_batch=None), quick(scoring_sample="balanced"),
        quick(scoring_data="noise"), quick(scoring_augment="flip-shift"), quick(scoring_labels="random"), quick(train_labels="random"),
    ]
    assert len({run.id for run in variants}) == len(variants)
    assert quick(recipe=Recipe(steps=5, momentum=0)).id == quick(recipe=Recipe(steps=5, momentum=0.0)).id  # YAML's 0
    assert Run(**json.loads(json.dumps(dataclasses.asdict(variants[7])))) == variants[7]


def test_runs_of_one_seed_are_paired():
    snip, random = quick(criterion="snip", sparsity=0.9), quick(criterion="random", sparsity=0.5)
    assert snip.seeds() == random.seeds() != quick(seed=1).seeds()
    assert len(set(snip.seeds().values())) == len(study.STREAMS)
    same = quick(same_draw=True).seeds()
    assert same["scoring_init"] == same["training_init"] == snip.seeds()["training_init"] != snip.seeds()["scoring_init"]


def test_the_runs_of_a_setting_differ_in_their_seed_alone():
    settings = {"recipe": QUICK, "seeds": 3, "criterion": "snip", "sparsity": 0.9}
    runs = study.seeded(settings, sparsity=0.5, scoring_batch=10)
    assert runs == [Run(QUICK, criterion="snip", sparsity=0.5, scoring_batch=10, seed=seed) for seed in (0, 1, 2)]
    assert settings["seeds"] == 3 and settings["sparsity"] == 0.9


@pytest.mark.parametrize("method", figures.METHODS)
def test_pruning_by_a_method_gives_runs_of_that_method(method):
    run = Run(QUICK, **study.pruning(method, 0.9))
    assert (run.method, run.sparsity) == (method, 0.9)
    assert run.same_draw == (method == "magnitude")


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"data": "mist"}, "unknown data set 'mist'; known: mnist"),
        ({"model": "lenet"}, "unknown model"),
        ({"criterion": "snap", "sparsity": 0.5}, "unknown criterion 'snap'; known: dense, snip"),
        ({"criterion": "snip", "sparsity": 1.0}, "share of parameters removed"),
        ({"criterion": "snip"}, "a dense run has sparsity 0"),
        ({"sparsity": 0.5}, "a dense run has sparsity 0"),
        ({"ablation": "flip"}, "unknown ablation"),
        ({"same_draw": True, "scoring_init": "he"}, "only be trained when both initialisers are the same"),
        ({"scoring_data": "imagenet"}, "unknown data set to score on 'imagenet'; known: None, noise, mnist"),
        ({"scoring_data": "cifar-10"}, "cifar-10 has other images or classes than mnist"),
        ({"scoring_sample": "odd"}, "unknown sample"),
        ({"train_labels": "wrong"}, "unknown labels 'wrong'; known: true, random"),
    ],
)
def test_a_run_is_validated(wrong, message):
    with pytest.raises(ValueError, match=message):
        quick(**wrong)


def test_ablations_change_what_they_should():
    masks = {a: study.score(quick(criterion="snip", sparsity=0.9, ablation=a), study.load(quick())) for a in study.ABLATIONS}
    counts = {a: [int(m.sum()) for m in mask.values()] for a, mask in masks.items()}
    assert counts["none"] == counts["shuffle"] != counts["invert"] and sum(counts["invert"]) == sum(counts["none"])
    assert not torch.equal(masks["none"]["fc1.weight"], masks["shuffle"]["fc1.weight"])
    assert not (masks["none"]["fc3.weight"] & masks["invert"]["fc3.weight"]).any()


def test_what_a_run_scores_on():
    def whole(**changes):
        run = quick(criterion="snip", sparsity=0.9, **changes)
        pairs = study.scoring_batches(run, study.load(run))
        return [torch.cat(part) for part in zip(*pairs)], len(pairs)

    (inputs, labels), _ = whole()
    (everything, _), pieces = whole(scoring_batch=None, train_size=2500)
    assert len(labels) == 100 and len(everything) == 2500 and pieces == 3
    assert whole(scoring_batch=None, train_size=2500, batch_norm="train")[1] == 1
    (same, shuffled), _ = whole(scoring_labels="random")
    assert torch.equal(inputs, same) and not torch.equal(labels, shuffled)
    (shifted, unmoved), _ = whole(scoring_augment="flip-shift")
    assert torch.equal(labels, unmoved) and not torch.equal(inputs, shifted)
    (noise, _), _ = whole(scoring_data="noise")
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02
    (garments, _), _ = whole(scoring_data="fashion-mnist")
    assert not torch.equal(garments, inputs)


def test_scores_in_pieces_are_those_of_the_whole_batch():
    """Law 4 at work: 2,500 images go through in three pieces."""
    run = quick(criterion="snip", sparsity=0.95, scoring_batch=2500, train_size=3000)
    dataset, seeds = study.load(run), run.seeds()
    pieces = study.score(run, dataset)
    batch = data.draw(dataset.train, 2500, torch.Generator().manual_seed(seeds["batch"]))
    whole = masking.keep_top(saliency.snip(study.build(run, "lecun", seeds["scoring_init"]), batch), 0.95)
    assert masking.overlap(pieces, whole)[0] > 0.9995  # a tie in the last digits may fall the other way


def test_runs_that_can_train_together_are_grouped():
    first, other, alone = quick(), quick(recipe=Recipe(steps=6)), quick(data="cifar-10", model="vgg-d")
    relu = quick(model="lenet-5-caffe", options={"conv_relu": True})
    pruned = quick(criterion="snip", sparsity=0.9, seed=3, scoring_data="noise", train_labels="random")
    runs = [first, alone, other, pruned, relu, quick(model="lenet-5-caffe"), quick(seed=1), quick(seed=2), quick(train_size=600)]
    groups = study.stacks(runs, limit=3)
    assert groups == [
        [first, pruned, quick(seed=1)], [alone], [other], [relu], [quick(model="lenet-5-caffe")], [quick(seed=2)],
        [quick(train_size=600)],
    ]


def test_a_stack_of_runs_comes_to_the_records_of_the_single_ones():
    runs = [
        quick(), quick(criterion="snip", sparsity=0.95), quick(criterion="random", sparsity=0.5, seed=1),
        quick(criterion="snip", sparsity=0.9, train_labels="random", scoring_labels="random"),
        quick(criterion="magnitude", sparsity=0.9, scoring_init="he", training_init="he", seed=2),
        quick(model="lenet-5-caffe", criterion="snip", sparsity=0.9), quick(model="lenet-5-caffe", seed=1),
    ]
    groups = study.stacks(runs)
    assert [len(group) for group in groups] == [5, 2]
    for group in groups:
        for run, record in zip(group, study.execute_stack(group), strict=True):
            alone = study.execute(run)
            assert json.loads(json.dumps(record)) == record
            assert record["provenance"].pop("stack") == len(group) and set(record["provenance"]) == set(alone["provenance"])
            for name, value in alone["outcome"].items():
                assert record["outcome"][name] == pytest.approx(value, rel=1e-4), name
            assert all(record[name] == alone[name] for name in ("id", "run", "diverged", "kept"))
    with pytest.raises(ValueError, match="group them with study.stacks"):
        study.execute_stack([quick(), quick(train_size=600)])


def test_a_stack_cut_off_by_the_deadline_carries_on_from_its_checkpoint(tmp_path, monkeypatch):
    """As on a GPU, by the time limit of ``--budget``; the CPU takes its place."""
    monkeypatch.setattr(study, "_on_gpu", lambda: False)
    recipe = Recipe(steps=120, schedule="onecycle")  # looked at every 4 steps
    runs = [quick(recipe=recipe, seed=seed, criterion="snip", sparsity=0.9) for seed in range(3)]
    whole, path, plain = study.execute_stack(runs), study.checkpoint_of(runs[0], tmp_path), [dataclasses.asdict(run) for run in runs]
    for step in (4, 8):
        with pytest.raises(training.Interrupted, match=f"at step {step};"):
            study.execute_stack(runs, checkpoint=path, deadline=0.0)
    monkeypatch.setattr(study, "_passed", lambda deadline: False)  # it passes while the stack trains
    assert study._execute(plain, snipkit.__version__, str(path), deadline=0.0) is None and path.exists()
    records = study._execute(plain, snipkit.__version__, str(path), deadline=None)
    assert [record["outcome"] for record in records] == [record["outcome"] for record in whole]
    assert all(record["provenance"]["resumed"] for record in records) and not path.exists()


def test_a_diverging_run_leaves_its_stack_alone():
    recipe = Recipe(steps=30, lr=0.2)
    calm, wild = quick(recipe=recipe, criterion="snip", sparsity=0.99), quick(recipe=recipe, training_init="normal")
    stack, alone = study.execute_stack([wild, calm]), study.execute(wild)
    assert stack[0]["outcome"] is alone["outcome"] is None and stack[0]["diverged"][:20] == alone["diverged"][:20]
    assert stack[1]["diverged"] is None and stack[1]["outcome"]["test_loss"] > 0


def test_random_labels_are_trained_on_and_true_ones_tested_on():
    """Few images and many steps: the labels are learnt by heart, and are of no use on the test set."""
    recipe = Recipe(steps=150, batch_size=50, schedule="onecycle", weight_decay=0.0)
    true, shuffled = (study.execute(Run(recipe=recipe, train_labels=kind, train_size=200, test_size=500))["outcome"] for kind in study.LABELS)
    assert len(true["train_loss"]) == len(true["train_error"]) == 30
    assert shuffled["train_error"][0] > 80 and shuffled["train_error"][-1] < 5
    assert true["test_error"] < 30 and shuffled["test_error"] > 75


def test_a_record_says_what_was_run_and_what_came_of_it(tmp_path):
    runs = [quick(), quick(criterion="snip", sparsity=0.95), quick(criterion="snip", sparsity=0.95)]
    with ThreadPoolExecutor(1) as executor:
        table = study.run_all(runs, tmp_path / "a.jsonl", executor)
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert len(lines) == len(table) == 2  # the double was run once
    record = json.loads(lines[1])
    assert Run(**record["run"]) == runs[1] and record["id"] == runs[1].id == table.id[1]
    assert sum(kept for kept, _ in record["kept"].values()) == round(266_610 * (1 - 0.95))
    assert set(record["provenance"]) == {"seconds", "device", "snipkit", "torch", "python", "date"}
    assert table.test_error[0] == json.loads(lines[0])["outcome"]["test_error"]
    assert list(table.method) == ["dense", "snip"]


def test_a_finished_run_never_runs_again_from_any_file_of_the_folder(tmp_path, monkeypatch):
    runs = [quick(), quick(seed=1)]
    with ThreadPoolExecutor(1) as executor:
        first = study.run_all(runs[:1], tmp_path / "a.jsonl", executor)
        done = []
        monkeypatch.setattr(study, "execute", lambda run, *rest, real=study.execute: done.append(run) or real(run, *rest))
        both = study.run_all(runs, tmp_path / "b.jsonl", executor)
    assert done == runs[1:] and both.id[0] == first.id[0] and both.test_error[0] == first.test_error[0]


def test_two_writers_do_not_mix_their_lines(tmp_path):
    path, record = tmp_path / "a.jsonl", {"text": "x" * 100_000}
    script = f"from snipkit.study import append\nfor i in range(20): append({str(path)!r}, {{'text': 'x' * 100_000}})"
    writers = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert [w.wait() for w in writers] == [0, 0]
    assert [json.loads(line) for line in path.read_text().splitlines()] == [record] * 40


def test_a_diverging_run_is_a_result(tmp_path):
    run = quick(recipe=Recipe(steps=200, lr=1e6))
    with ThreadPoolExecutor(1) as executor:
        table = study.run_all([run], tmp_path / "a.jsonl", executor)
    assert table.test_error.isna().all()
    assert "use a lower learning rate" in study.read(tmp_path)[run.id]["diverged"]


def test_one_failing_run_does_not_cost_the_others(tmp_path, monkeypatch):
    runs = [quick(), quick(scoring_batch=501, criterion="snip", sparsity=0.9), quick(seed=1)]
    with ThreadPoolExecutor(1) as executor, pytest.raises(RuntimeError, match="1 of 3 runs failed.*a batch of 501 cannot be drawn"):
        study.run_all(runs, tmp_path / "a.jsonl", executor)
    assert set(study.read(tmp_path)) == {runs[0].id, runs[2].id}


def test_a_data_set_that_cannot_be_had_does_not_stop_the_others(tmp_path, monkeypatch):
    def nowhere(files, scratch):
        raise OSError("no route to host")

    monkeypatch.setitem(sources.SOURCES, "cifar-10", sources.Source("nowhere", {"data_batch_1.bin": "0"}, {"the site": nowhere}))
    runs = [quick(), quick(data="cifar-10", model="resnet-20", criterion="snip", sparsity=0.9), quick(seed=1)]
    with ThreadPoolExecutor(1) as executor, pytest.warns(UserWarning, match="1 runs are left out. cifar-10: the data set is not here"):
        table = study.run_all(runs, tmp_path / "a.jsonl", executor)
    assert list(table.id) == [runs[0].id, runs[2].id]


def test_named_recipes():
    assert Run(recipe="paper-cifar", data="cifar-10", model="vgg-d").recipe.augment == "flip-shift"
    with pytest.raises(ValueError, match="unknown recipe 'papr'; known: paper-mnist"):
        Run(recipe="papr")


def test_the_estimate_is_of_the_right_order(tmp_path):
    run = quick(recipe=Recipe(steps=200, schedule="onecycle"), test_size=1000)
    with ThreadPoolExecutor(1) as executor:
        study.run_all([quick()], tmp_path / "warm.jsonl", executor)
        seconds = study.run_all([run], tmp_path / "a.jsonl", executor).seconds[0]
    assert seconds / 5 < study.seconds([run], {})[run] < seconds * 5
    assert study.seconds([run], study.read(tmp_path))[run] == pytest.approx(seconds)


def test_one_seed_of_everything_first_the_cheapest_first():
    runs = [quick(seed=seed, model=model) for model in ("lenet-5-caffe", "lenet-300-100") for seed in (0, 1)]
    cost = {run: 9 if run.model == "lenet-5-caffe" else 1 for run in runs}
    assert study.in_order(runs, cost) == [runs[2], runs[0], runs[3], runs[1]]


def test_runs_are_done_in_the_order_given_each_into_its_file(tmp_path):
    runs = [quick(seed=seed) for seed in (2, 0, 1)]
    files = {run: tmp_path / ("a.jsonl" if run.seed else "b.jsonl") for run in runs}
    with ThreadPoolExecutor(1) as executor:
        records = study.carry_out(files, executor)
    assert set(records) == {run.id for run in runs}
    assert [json.loads(line)["run"]["seed"] for line in (tmp_path / "a.jsonl").read_text().splitlines()] == [2, 1]
    assert len((tmp_path / "b.jsonl").read_text().splitlines()) == 1


def test_after_the_deadline_no_run_is_started(tmp_path, monkeypatch):
    """It passes while the fifth run is under way, which stops at a checkpoint of its own; one run at a time."""
    asked = []

    def execute(run, device, checkpoint, deadline):
        asked.append((checkpoint, deadline))
        if len(asked) > 4:
            raise training.Interrupted
        return {"id": run.id, "run": dataclasses.asdict(run), "outcome": None, "kept": {}, "provenance": {"seconds": 0.1}}

    monkeypatch.setattr(study, "_passed", lambda deadline: deadline is not None and len(asked) > 4)
    monkeypatch.setattr(study, "execute", execute)
    runs = [quick(seed=seed) for seed in range(100)]
    with ThreadPoolExecutor(1) as executor:
        assert list(study.run_all(runs, tmp_path / "a.jsonl", executor, deadline=12.5).id) == [run.id for run in runs[:4]]
        assert asked == [(str(tmp_path / "checkpoints" / f"{run.id}.pt"), 12.5) for run in runs[:5]]
        assert len(study.run_all(runs[:20], tmp_path / "a.jsonl", executor, deadline=12.5)) == 4
    assert len(asked) == 5


def test_a_run_cut_off_by_the_deadline_carries_on_from_its_checkpoint(tmp_path):
    run = quick(recipe=Recipe(steps=400, schedule="onecycle"), criterion="snip", sparsity=0.9)
    with ThreadPoolExecutor(1) as executor:
        study.run_all([quick()], tmp_path / "warm.jsonl", executor)
        whole = study.run_all([run], tmp_path / "whole" / "a.jsonl", executor)
        parts = 0
        while not len(table := study.run_all([run], tmp_path / "a.jsonl", executor, deadline=time.time() + whole.seconds[0] / 3)):
            assert study.checkpoint_of(run, tmp_path).exists() and parts < 50
            parts += 1
    assert parts and table.train_loss[0] == whole.train_loss[0] and table.test_error[0] == whole.test_error[0]
    assert study.read(tmp_path)[run.id]["provenance"]["resumed"] and not study.checkpoint_of(run, tmp_path).exists()


def test_on_a_gpu_runs_that_go_together_are_trained_together(tmp_path, monkeypatch):
    """The way of a GPU's runs, with a CPU doing the work: stacks first, the rest singly, and a stack that fails singly too."""
    monkeypatch.setattr(study, "_on_gpu", lambda: True)
    runs = [quick(seed=seed, criterion="snip", sparsity=0.9) for seed in range(3)] + [quick(model="gru-s")]
    table = study.run_all(runs, tmp_path / "a.jsonl")
    records = study.read(tmp_path)
    assert list(table.seed) == [0, 1, 2, 0] and len((tmp_path / "a.jsonl").read_text().splitlines()) == 4
    assert [records[run.id]["provenance"].get("stack") for run in runs] == [3, 3, 3, None]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        monkeypatch.setattr(study, "stacks", lambda runs: [list(runs)])  # a stack that cannot be
        mixed = [quick(seed=5), quick(seed=5, model="lenet-5-caffe")]
        assert len(study.run_all(mixed, tmp_path / "a.jsonl")) == 2
    assert any("2 runs could not be trained together" in str(w.message) for w in caught)
