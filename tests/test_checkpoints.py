"""Trainings that are stopped and resumed.

The same numbers to the bit, and no file of others is touched.
"""

import os
import signal
import time
from dataclasses import replace

import pytest
import torch
from tiny import quick
from torch.nn.functional import pad

from snipkit import masking, models, outcomes, training
from snipkit.models import recurrent
from snipkit.recipe import Recipe
from snipkit.study.train import checkpoints, experiment, prepare
from snipkit.study.train.checkpoints import Checkpoint, CheckpointError, Interrupted
from snipkit.study.train.stacking import train_stack

SHORT = Recipe(steps=12, batch_size=13, lr=0.05)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "state.pt"


def single(blobs, small_networks, network, recipe, checkpoint=None):
    model = getattr(small_networks, network)()
    return [model], [
        training.train(
            model, small_networks.masks(model), blobs, recipe, seed=3, checkpoint=checkpoint
        )
    ]


def lstm(blobs, small_networks, _network, recipe, checkpoint=None):
    """By torch's kernel, on images with a margin, as large as digits."""
    train, test = (
        replace(part, pixels=pad(part.pixels, (10,) * 4)) for part in (blobs.train, blobs.test)
    )
    model = recurrent.LSTM(num_classes=5, units=20)
    models.initialise_(model, "lecun", seed=0)
    masks, dataset = small_networks.masks(model), replace(blobs, train=train, test=test)
    return [model], [training.train(model, masks, dataset, recipe, checkpoint=checkpoint)]


def stack(blobs, small_networks, network, recipe, checkpoint=None):
    """The second of three networks diverges at once."""
    models = [getattr(small_networks, network)(seed) for seed in range(3)]
    with torch.no_grad():
        next(models[1].parameters()).mul_(1e30)
    masks = [small_networks.masks(models[0]), small_networks.masks(models[1]), {}]
    return models, train_stack(
        models, masks, [blobs] * 3, recipe, seeds=[3, 4, 5], checkpoint=checkpoint
    )


def same(first, second):
    """Equal to the bit. Errors are compared as text, and NaN equals NaN."""
    states = [[model.state_dict() for model in models] for models, _ in (first, second)]
    return list(map(str, first[1])) == list(map(str, second[1])) and all(
        torch.equal(a[name].nan_to_num(), b[name].nan_to_num())
        for a, b in zip(*states)
        for name in a
    )


@pytest.mark.parametrize(
    "train, network, changes",
    [
        (single, "conv", {"schedule": "onecycle", "augment": "flip-shift"}),
        (
            single,
            "mlp",
            {"optimiser": "adam", "lr": 0.01, "steps": 65, "decay_every": 20},
        ),  # a point every 2 steps
        (single, "conv", {"precision": "bfloat16"}),
        (lstm, "", {}),
        (stack, "mlp", {"augment": "flip-shift", "steps": 65}),
        (stack, "conv", {"optimiser": "adam", "lr": 0.01}),
    ],
)
def test_stopped_after_each_step_a_training_ends_with_the_same_bits(
    blobs, small_networks, path, train, network, changes
):
    recipe = replace(SHORT, **changes)
    expected = train(blobs, small_networks, network, recipe)
    for step in range(1, recipe.steps):
        with pytest.raises(
            Interrupted, match=f"stopped after step {step};.*state.pt has the state"
        ):
            train(blobs, small_networks, network, recipe, Checkpoint(path, deadline=0.0))
    last = Checkpoint(path)
    result = train(blobs, small_networks, network, recipe, last)
    assert same(result, expected)
    assert all(len(curve.tests) == 5 for curve in last.state.curves)
    assert not list(path.parent.iterdir())  # nothing is left lying about


@pytest.mark.parametrize("changes", [{}, {"optimiser": "adam", "lr": 0.01}], ids=["sgd", "adam"])
@pytest.mark.parametrize("train", [single, stack])
def test_the_file_holds_what_is_kept_and_the_masks(blobs, small_networks, path, train, changes):
    recipe, count = replace(SHORT, **changes), 3 if train is stack else 1
    checkpoint = Checkpoint(path, deadline=0.0)
    with pytest.raises(Interrupted):
        train(blobs, small_networks, "mlp", recipe, checkpoint)
    content = torch.load(path, weights_only=True)
    moments = {"momentum_buffer"} if recipe.optimiser == "sgd" else {"exp_avg", "exp_avg_sq"}
    masked = {id(parameter): mask for parameter, mask in checkpoint.state.masked}
    names = list(content["masks"])
    assert names == ["1.weight", "1.bias", "3.weight", "3.bias"]
    for number, name in enumerate(names):
        tensor = checkpoint.state.tensors[name]
        mask, (shape, bits) = masked[id(tensor)], content["masks"][name]
        kept = int(mask.sum())
        assert (
            shape == mask.shape and bits.dtype == torch.uint8 and len(bits) == -(-mask.numel() // 8)
        )
        assert kept < mask.numel()
        stored = [content["tensors"][name]]
        stored += [content["optimiser"]["state"][number][key] for key in moments]
        for part in stored[: None if train is single else 0]:
            assert len(part["kept"]) == kept
    assert path.stat().st_size < count * 30_000


def test_a_pruned_entry_that_is_no_zero_is_not_lost(blobs, small_networks, path):
    """The mask of a gradient makes no 0 of an infinite one, so a training may go on with NaN."""
    checkpoint = Checkpoint(path, deadline=0.0)
    write = checkpoint.after

    def spoil(step):
        (parameter, mask), *_ = checkpoint.state.masked
        with torch.no_grad():
            parameter[mask == 0] = float("nan")
        write(step)

    checkpoint.after = spoil
    with pytest.raises(Interrupted):
        single(blobs, small_networks, "mlp", SHORT, checkpoint)
    content = torch.load(path, weights_only=True)["tensors"]
    assert content["1.weight"].shape == (12, 64) and content["1.weight"].isnan().any()


def test_a_deadline_in_the_future_does_not_stop(blobs, small_networks, path):
    single(blobs, small_networks, "mlp", SHORT, Checkpoint(path, deadline=time.monotonic() + 1000))
    assert not path.exists()


def test_a_signal_stops_a_training_after_its_step(blobs, small_networks, path, monkeypatch):
    monkeypatch.setattr(checkpoints, "stopping", False)  # and set back
    previous = signal.getsignal(signal.SIGUSR1)
    try:
        checkpoints.stop_on(signal.SIGUSR1)
        checkpoint = Checkpoint(path)
        after = checkpoint.after

        def signalled(step):
            if step == 5:
                os.kill(os.getpid(), signal.SIGUSR1)
            after(step)

        checkpoint.after = signalled
        with pytest.raises(Interrupted, match="after step 5;"):
            single(blobs, small_networks, "mlp", SHORT, checkpoint)
    finally:
        signal.signal(signal.SIGUSR1, previous)
    monkeypatch.setattr(checkpoints, "stopping", False)
    result = single(blobs, small_networks, "mlp", SHORT, Checkpoint(path))
    assert same(result, single(blobs, small_networks, "mlp", SHORT))


def test_a_killed_training_goes_on_from_the_last_state(blobs, small_networks, path, monkeypatch):
    """The state is written every ``SECONDS``.

    Here at each step, until the training dies in the eighth.
    """
    monkeypatch.setattr(checkpoints, "SECONDS", 0)
    real, steps = masking.mask_gradients, []

    def counted(masked):
        steps.append(len(steps))
        if len(steps) == 8:
            raise MemoryError
        real(masked)

    monkeypatch.setattr(training, "mask_gradients", counted)
    with pytest.raises(MemoryError):
        single(blobs, small_networks, "mlp", SHORT, Checkpoint(path))
    result = single(blobs, small_networks, "mlp", SHORT, Checkpoint(path))
    assert len(steps) == 8 + 12 - 7
    assert same(result, single(blobs, small_networks, "mlp", SHORT))


def test_the_state_is_not_written_at_every_step(blobs, small_networks, path, monkeypatch):
    monkeypatch.setattr(torch, "save", lambda *_: pytest.fail("written within SECONDS"))
    single(blobs, small_networks, "mlp", SHORT, Checkpoint(path))


def others(blobs, small_networks):
    """Trainings that differ in one thing from that of the checkpoint, by name."""
    model = small_networks.mlp()
    with torch.no_grad():
        model[1].bias.zero_()  # so that its mask does not change the weights
    masks, train = small_networks.masks(model), blobs.train
    base = {"model": model, "masks": masks, "data": blobs, "recipe": SHORT, "seed": 3}
    fewer = {name: mask for name, mask in masks.items() if name != "1.bias"}
    order = torch.arange(120).flip(0)
    return {
        "none": base,
        "recipe": base | {"recipe": replace(SHORT, lr=0.06)},
        "steps": base | {"recipe": replace(SHORT, steps=13)},
        "seed": base | {"seed": 4},
        "weights": base | {"model": small_networks.mlp(seed=1)},
        "masks": base | {"masks": fewer},
        "rows": base | {"data": replace(blobs, train=train.take(order))},
        "labels": base
        | {"data": replace(blobs, train=replace(train, labels=train.labels.flip(0)))},
        "pixels": base
        | {"data": replace(blobs, train=replace(train, pixels=train.pixels.roll(1, 3)))},
        "standardisation": base | {"data": replace(blobs, train=replace(train, mean=(0.4,)))},
        "test set": base | {"data": replace(blobs, test=blobs.test.take(slice(30)))},
    }


@pytest.mark.parametrize(
    "difference",
    [
        "none",
        "recipe",
        "steps",
        "seed",
        "weights",
        "masks",
        "rows",
        "labels",
        "pixels",
        "standardisation",
        "test set",
    ],
)
def test_the_state_of_another_training_is_refused_and_left_alone(
    blobs, small_networks, path, difference
):
    with pytest.raises(Interrupted):
        training.train(
            **others(blobs, small_networks)["none"], checkpoint=Checkpoint(path, deadline=0.0)
        )
    content, other = path.read_bytes(), others(blobs, small_networks)[difference]
    if difference == "none":
        training.train(**other, checkpoint=Checkpoint(path))
        assert not path.exists()
        return
    with pytest.raises(
        CheckpointError,
        match="state.pt is the state of another training: delete it, or name another",
    ):
        training.train(**other, checkpoint=Checkpoint(path, deadline=0.0))
    assert path.read_bytes() == content and len(list(path.parent.iterdir())) == 1


def test_files_that_are_no_checkpoints_are_refused_and_left_alone(blobs, small_networks, path):
    with pytest.raises(Interrupted):
        single(blobs, small_networks, "mlp", SHORT, Checkpoint(path, deadline=0.0))
    state = path.read_bytes()
    torch.save({"step": 3}, path)
    for content in (b"", b"text", state[:1000], state[:-1], path.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(
            CheckpointError, match="is no training's state, or is damaged .*: delete it, or name"
        ):
            single(blobs, small_networks, "mlp", SHORT, Checkpoint(path))
        assert path.read_bytes() == content
    with pytest.raises(CheckpointError):
        single(blobs, small_networks, "mlp", SHORT, Checkpoint(path.parent))
    assert path.exists()


def test_the_file_of_an_earlier_version_is_refused_with_advice(blobs, small_networks, path):
    path.parent.mkdir()
    torch.save({"fingerprint": "abc", "step": 3}, path)
    with pytest.raises(CheckpointError, match=r"another version \(1, not 2\): finish the training"):
        single(blobs, small_networks, "mlp", SHORT, Checkpoint(path))
    assert path.exists()


def swap(masks):
    """The same number of connections, but for one that is kept in place of another."""
    swapped = {name: mask.clone() for name, mask in masks.items()}
    flat = next(iter(swapped.values())).view(-1)
    kept, pruned = int(flat.nonzero()[0]), int((~flat).nonzero()[0])
    flat[kept], flat[pruned] = False, True
    return swapped


@pytest.mark.parametrize("count", [1, 2])
def test_masks_are_carried_to_a_device_that_would_find_others(path, monkeypatch, count):
    """Scores are equal but for rounding there. Masks, outcome and record are those of the start."""
    runs = []
    for seed in range(count):
        runs.append(
            quick(data="mnist-1d", model="mlp-1d", criterion="snip", sparsity=0.8, seed=seed)
        )

    def execute(checkpoint=None):
        if count > 1:
            return experiment.execute_stack(runs, "cpu", checkpoint)
        return [experiment.execute(runs[0], "cpu", checkpoint)]

    expected = execute()
    with pytest.raises(Interrupted):
        execute(Checkpoint(path, deadline=0.0))
    find_masks, build = prepare.find_masks, prepare.build

    def other_weights(*arguments):
        model = build(*arguments)
        with torch.no_grad():
            next(model.parameters()).mul_(1 + 1e-6)
        return model

    monkeypatch.setattr(prepare, "find_masks", lambda *arguments: swap(find_masks(*arguments)))
    monkeypatch.setattr(prepare, "build", other_weights)
    with (
        pytest.warns(
            UserWarning, match=f"masks that differ by {count} connections from those found"
        ),
        pytest.warns(UserWarning, match="other initial weights than those drawn here"),
    ):
        records = execute(Checkpoint(path))
    for record, original in zip(records, expected):
        assert (record.outcome, record.kept) == (original.outcome, original.kept)
        assert record.effective == original.effective
        assert record.provenance["swapped"] == count and record.provenance["other weights"]
    assert not path.exists()


def test_masks_are_not_carried_to_another_run(path, monkeypatch):
    def run(**changes):
        options = {"data": "mnist-1d", "model": "mlp-1d", "criterion": "snip", "sparsity": 0.8}
        return quick(**(options | changes))

    with pytest.raises(Interrupted):
        experiment.execute(run(), "cpu", Checkpoint(path, deadline=0.0))
    content = path.read_bytes()
    # Runs with the same order of examples: nothing but their ids and masks tells them apart.
    for other in (run(sparsity=0.7), run(ablation="shuffle"), run(scoring_batch=50)):
        with pytest.raises(CheckpointError, match="the state of another training"):
            experiment.execute(other, "cpu", Checkpoint(path))
    # A network that is made smaller by its masks before the training.
    with pytest.raises(Interrupted):
        smaller = quick(criterion="snip", sparsity=0.98)
        experiment.execute(smaller, "cpu", Checkpoint(path.with_name("smaller.pt"), deadline=0.0))
    find_masks = prepare.find_masks
    monkeypatch.setattr(prepare, "find_masks", lambda *arguments: swap(find_masks(*arguments)))
    with pytest.raises(CheckpointError, match="the state of another training"):
        experiment.execute(smaller, "cpu", Checkpoint(path.with_name("smaller.pt")))
    assert path.read_bytes() == content


def test_the_same_masks_in_another_folder_and_order(blobs, small_networks, path):
    """Nothing in the file depends on where it is, nor on the order of a dictionary."""
    model = small_networks.mlp()
    masks = small_networks.masks(model)
    with pytest.raises(Interrupted):
        training.train(model, masks, blobs, SHORT, checkpoint=Checkpoint(path, deadline=0.0))
    moved = path.parent.parent / "moved.pt"
    path.rename(moved)
    backwards = dict(reversed(masks.items()))
    training.train(small_networks.mlp(), backwards, blobs, SHORT, checkpoint=Checkpoint(moved))
    assert not moved.exists()


def test_a_flipped_bit_in_the_weights_is_noticed(blobs, small_networks, path):
    """torch.load would not notice it, and the training would go on with a wrong number."""
    model = small_networks.mlp()
    with pytest.raises(Interrupted):
        training.train(model, {}, blobs, SHORT, checkpoint=Checkpoint(path, deadline=0.0))
    content, weights = bytearray(path.read_bytes()), model[1].weight.detach().numpy().tobytes()
    content[content.index(weights)] ^= 1
    path.write_bytes(content)
    torch.load(path, weights_only=True)
    with pytest.raises(CheckpointError, match="the checksum of .* is wrong"):
        training.train(small_networks.mlp(), {}, blobs, SHORT, checkpoint=Checkpoint(path))


def test_a_file_that_another_training_writes_meanwhile_is_left_alone(
    blobs, small_networks, path, monkeypatch
):
    monkeypatch.setattr(checkpoints, "SECONDS", 0)
    path.parent.mkdir()
    checkpoint = Checkpoint(path)
    restore = checkpoint.restore
    checkpoint.restore = lambda state: (restore(state), path.write_bytes(b"not ours"))[0]
    with pytest.warns(UserWarning, match="another training wrote it after this one had started"):
        result = single(blobs, small_networks, "mlp", SHORT, checkpoint)
    assert path.read_bytes() == b"not ours"
    assert same(result, single(blobs, small_networks, "mlp", SHORT))


def test_a_training_whose_state_cannot_be_written_goes_on(blobs, small_networks, path, monkeypatch):
    def full(_content, unfinished):
        unfinished.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(checkpoints, "SECONDS", 0)
    monkeypatch.setattr(torch, "save", full)
    with pytest.warns(UserWarning, match="cannot be written .*no space left.*: it goes on without"):
        result = single(blobs, small_networks, "mlp", SHORT, Checkpoint(path))
    assert same(result, single(blobs, small_networks, "mlp", SHORT)) and not list(
        path.parent.iterdir()
    )
    # Without a state to go on from, the caller must know.
    with pytest.raises(OSError, match="no space left"):
        single(blobs, small_networks, "mlp", SHORT, Checkpoint(path, deadline=0.0))


def test_a_diverged_training_leaves_no_state(blobs, small_networks, path, monkeypatch):
    monkeypatch.setattr(checkpoints, "SECONDS", 0)
    with pytest.raises(outcomes.DivergedError):
        single(blobs, small_networks, "mlp", replace(SHORT, steps=100, lr=1e20), Checkpoint(path))
    assert not list(path.parent.iterdir())
