from dataclasses import replace

import pytest
import torch
from torch.nn.functional import pad
from torch.utils.data import DataLoader

from snipkit import data


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images():
    """120 images, no two alike, of 4 classes; class 3 has half of them."""
    pixels = torch.randint(0, 256, (120, 3, 8, 8), dtype=torch.uint8, generator=seeded())
    labels = torch.tensor([0, 1, 2, 3, 3, 3]).repeat(20)
    return data.Images(pixels, labels, *data.channel_statistics(pixels))


@pytest.fixture(scope="module")
def part(images):
    """Some of the images, in an order of their own."""
    return images.take(torch.randperm(120, generator=seeded(1))[:50])


def rows_of(batch, images):
    """Where in ``images`` each example of a batch is; its label must be there with it."""
    inputs, labels = batch
    rows = (inputs[:, None] == images[:][0]).all(-1).all(-1).all(-1).nonzero()
    assert rows[:, 0].tolist() == list(range(len(inputs)))
    assert torch.equal(images.labels[rows[:, 1]], labels)
    return rows[:, 1].tolist()


def test_channel_statistics_are_those_of_all_pixels(images):
    mean, std = data.channel_statistics(images.pixels)
    values = images.pixels.double() / 255
    assert torch.tensor(mean) == pytest.approx(values.mean((0, 2, 3)), abs=1e-6)
    assert torch.tensor(std) == pytest.approx(values.std((0, 2, 3), correction=0), abs=1e-6)


def test_batches_are_standardised_by_channel(images):
    inputs, labels = images[:]
    assert (inputs.dtype, inputs.shape, labels.dtype) == (
        torch.float32,
        (120, 3, 8, 8),
        torch.int64,
    )
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert inputs.mean((0, 2, 3)).abs().max() < 1e-6
    assert (inputs.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-6
    other = replace(images, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))[:][0]
    pixel = images.pixels[7, :, 2, 3] / 255
    assert torch.allclose(
        other[7, :, 2, 3], (pixel - torch.tensor([0, 0.5, 1])) / torch.tensor([1, 0.5, 0.25])
    )


@pytest.mark.parametrize("whole", [True, False])
def test_every_kind_of_index_gives_the_same_examples(images, part, whole):
    """Of all the images, in their order, and of some, by rows: labels stay with their pixels."""
    chosen, rows = (images, torch.arange(120)) if whole else (part, part.rows)
    inputs, labels = images.standardise(images.pixels[rows]), images.labels[rows]
    index = torch.tensor([5, 0, 5, 49])
    for key in (index, slice(None), slice(3, 20, 2), torch.arange(len(chosen)) % 3 == 0):
        batch = chosen[key]
        assert torch.equal(batch[0], inputs[key]) and torch.equal(batch[1], labels[key])
    for key in (0, 7, -1, torch.tensor(4)):
        example, label = chosen[key]
        assert (
            torch.equal(example, inputs[key])
            and label == labels[key]
            and example.shape == (3, 8, 8)
        )
    with pytest.raises(IndexError):
        chosen[len(chosen)]


def test_a_data_loader_gives_the_same_batches(part):
    batches = list(DataLoader(part, batch_size=20))
    assert [len(labels) for _, labels in batches] == [20, 20, 10]
    for start, (inputs, labels) in zip((0, 20, 40), batches):
        assert torch.equal(inputs, part[start : start + 20][0]) and torch.equal(
            labels, part[start : start + 20][1]
        )


def test_parts_share_the_pixels(images, part):
    nested = part.take(slice(10, 20))
    assert part.pixels is images.pixels and nested.pixels is images.pixels
    assert rows_of(nested[:], images) == part.rows[10:20].tolist() and len(nested) == 10
    assert len(part.take(slice(0))) == 0


def test_to_moves_everything_to_the_device(images, part):
    moved = part.to("meta")
    assert {moved.pixels.device.type, moved.labels.device.type, moved.rows.device.type} == {"meta"}
    assert images.to("meta").rows is None and images.to("meta").labels.device.type == "meta"
    assert images.to("meta").take(slice(5)).rows.device.type == "meta"
    inputs, labels = moved[torch.arange(4, device="meta")]
    assert inputs.device.type == labels.device.type == "meta"


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"pixels": torch.rand(6, 3, 8, 8)},
            r"float32; they take torch.uint8 .* \(255 \* pixels\).round\(\)",
        ),
        ({"pixels": torch.rand(6, 3, 8, 8).double()}, "float64; they take torch.uint8"),
        ({"pixels": torch.zeros(6, 3, 8, 8).long()}, "int64; they take torch.uint8"),
        ({"pixels": torch.zeros(6, 3, 8, 8).numpy()}, "ndarray and Tensor; they take tensors"),
        ({"labels": [0, 1, 2, 3, 0, 1]}, "Tensor and list; they take tensors"),
        ({"labels": torch.zeros(6).int()}, r"labels are torch.int32; .* labels.long\(\)"),
        ({"labels": torch.zeros(6)}, "labels are torch.float32"),
        ({"labels": torch.zeros(5).long()}, r"labels have the shape \(5,\); there are 6 images"),
        ({"labels": torch.zeros(7).long()}, r"labels have the shape \(7,\)"),
        ({"labels": torch.zeros(6, 4).long()}, r"labels have the shape \(6, 4\)"),
        ({"rows": torch.arange(5)}, "there are 5 images"),
        ({"pixels": torch.zeros(6, 8, 8, 3).byte()}, "channels before height and width"),
        ({"pixels": torch.zeros(6, 8, 8).byte()}, r"they take \(N, C, H, W\)"),
        ({"mean": (0.5,)}, "with 1 means"),
        ({"std": (0.5,)}, "3 means and 1 deviations"),
        ({"mean": (127.0,) * 3}, "must be of pixel / 255"),
        ({"std": (70.0,) * 3}, "must be of pixel / 255"),
        ({"std": (0.0,) * 3}, "std above 0"),
        ({"mean": (float("nan"),) * 3}, "must be of pixel / 255"),
    ],
)
def test_images_of_another_kind_are_refused(images, change, message):
    six = {"pixels": images.pixels[:6], "labels": images.labels[:6], "mean": images.mean}
    with pytest.raises((TypeError, ValueError), match=message):
        data.Images(**(six | {"std": images.std} | change))


def test_statistics_can_be_lists_and_tensors(images):
    for kind in (list, torch.tensor):
        other = replace(images, mean=kind(images.mean), std=kind(images.std))
        assert torch.allclose(other[:5][0], images[:5][0], atol=1e-5)
        assert isinstance(other.mean, tuple) and isinstance(other.mean[0], float)


def test_a_split_holds_out_a_random_tenth(images, part):
    train, val = data.split(images, seeded(3))
    assert (len(train), len(val)) == (108, 12) and train.pixels is images.pixels
    assert sorted(rows_of(train[:], images) + rows_of(val[:], images)) == list(range(120))
    same, other = data.split(images, seeded(3)), data.split(images, seeded(4))
    assert torch.equal(same[1].rows, val.rows) and torch.equal(same[0].rows, train.rows)
    assert set(other[1].rows.tolist()) != set(val.rows.tolist())
    # Committed records depend on it.
    assert torch.equal(val.rows, torch.randperm(120, generator=seeded(3))[:12])
    often = torch.cat([data.split(images, seeded(seed))[1].rows for seed in range(300)]).bincount(
        minlength=120
    )
    assert often.min() > 10 and often.max() < 60  # each image 30 times on average
    train, val = data.split(part, seeded())  # of a part, that part
    assert sorted(train.rows.tolist() + val.rows.tolist()) == sorted(part.rows.tolist())


def test_samples_come_from_all_images_without_repetition(images, part):
    seen = [rows_of(data.sample(part, 10, seeded(seed)), images) for seed in range(60)]
    assert all(len(set(rows)) == 10 for rows in seen)
    assert {row for rows in seen for row in rows} == set(part.rows.tolist())
    assert rows_of(data.sample(part, 10, seeded(5)), images) == seen[5]
    assert sorted(rows_of(data.sample(part, None, seeded()), images)) == sorted(part.rows.tolist())
    for size in (0, 51):
        with pytest.raises(ValueError, match=f"cannot sample a batch of {size} from 50 examples"):
            data.sample(part, size, seeded())
    with pytest.raises(
        ValueError, match="unknown sampling 'odd'; known: uniform, balanced, one-class"
    ):
        data.sample(part, 10, seeded(), "odd")


def test_a_balanced_sample_has_equally_many_of_each_class(images):
    batches = [data.sample(images, 10, seeded(seed), "balanced") for seed in range(400)]
    counts = [sorted(labels.bincount(minlength=4).tolist()) for _, labels in batches]
    assert counts == [[2, 2, 3, 3]] * 400
    assert {row for batch in batches for row in rows_of(batch, images)} == set(range(120))
    _, labels = data.sample(images, 100, seeded(), "balanced")  # more than the rare classes have
    assert labels.bincount().tolist() == [20, 20, 20, 40]


def test_a_one_class_sample_is_a_random_part_of_a_random_class(images):
    batches = [data.sample(images, 5, seeded(seed), "one-class") for seed in range(600)]
    classes = [labels.unique().tolist() for _, labels in batches]
    assert all(len(found) == 1 for found in classes)
    often = torch.tensor(classes).flatten().bincount()
    # Each 150 times on average, though one has half of the images.
    assert len(often) == 4 and often.max() < 200
    assert {row for batch in batches for row in rows_of(batch, images)} == set(range(120))
    with pytest.raises(ValueError, match="cannot sample a batch of 61 from"):
        data.sample(images, 61, seeded(), "one-class")


def test_shuffled_labels_are_permuted_and_the_images_stay(images, part):
    shuffled = data.shuffle_labels(part, seeded())
    assert shuffled.pixels is part.pixels and shuffled.rows is part.rows
    assert torch.equal(shuffled.labels.bincount(), part.labels.bincount())
    assert not torch.equal(shuffled.labels, part.labels)
    assert torch.equal(data.shuffle_labels(part, seeded()).labels, shuffled.labels)
    agreement = [
        (data.shuffle_labels(images, seeded(s)).labels == images.labels).float().mean()
        for s in range(50)
    ]
    # As for independent labels of these classes.
    assert sum(agreement) / 50 == pytest.approx(0.25 + 3 / 36, abs=0.02)


@pytest.mark.parametrize("height, width", [(16, 16), (9, 16), (1, 16)])
def test_augmentation_flips_and_shifts_each_image_by_itself(height, width):
    """Every result is a possible one, all are equally likely, and what comes in is zero."""
    picture, down = torch.randn(2, height, width, generator=seeded()), height // 8
    possible = [
        pad(flipped, (2, 2, 2, 2))[:, 2 + dy : 2 + dy + height, 2 + dx : 2 + dx + width]
        for flipped in (picture, picture.flip(-1))
        for dy in range(-down, down + 1)
        for dx in range(-2, 3)
    ]
    changed = data.augment(picture.expand(4000, -1, -1, -1), "flip-shift", seeded(1))
    which = (changed[:, None] == torch.stack(possible)).all(-1).all(-1).all(-1)
    assert (which.sum(1) == 1).all()
    often = which.sum(0)
    average = 4000 / (10 * (2 * down + 1))  # 80, and 133
    assert (
        len(often) * average == pytest.approx(4000)
        and often.min() > average / 2
        and often.max() < 1.6 * average
    )
    which = which.int().argmax(1)
    # The images of a batch by numbers of their own.
    assert len(set(which[:20].tolist())) > min(10, len(possible) / 3)
    assert torch.equal(
        changed, data.augment(picture.expand(4000, -1, -1, -1), "flip-shift", seeded(1))
    )
    assert changed.shape == (4000, 2, height, width) and changed.is_contiguous(
        memory_format=torch.channels_last
    )


def test_augmentation_shifts_by_an_eighth_and_keeps_images_apart():
    batch = torch.arange(1.0, 7.0).view(6, 1, 1, 1) * torch.ones(1, 1, 32, 32)
    changed = data.augment(batch.repeat(100, 1, 1, 1), "flip-shift", seeded()).view(100, 6, 32, 32)
    kept = changed > 0
    assert torch.equal(changed, kept * batch[:, 0])  # the content of each image stays in its place
    assert (
        kept.any(-1).sum(-1).unique().tolist()
        == kept.any(-2).sum(-1).unique().tolist()
        == [28, 29, 30, 31, 32]
    )


def test_the_authors_augmentation_shifts_half_of_the_images_and_flips_a_quarter():
    """None, one or both, equally often.

    1/12 of the images are flipped alone, 1/6 flipped and shifted.
    """
    row = torch.arange(1.0, 33.0).expand(1, 32, 32)
    images = row.expand(6000, -1, -1, -1)
    changed = data.augment(images, "flip-shift-half", seeded())
    flipped = changed[:, 0, 16, 10] > changed[:, 0, 16, 20]
    order = torch.where(flipped[:, None], changed[:, 0, 16].flip(1), changed[:, 0, 16])
    moved = order[:, 16] != 17
    moved |= changed[:, 0, 0, 16] == 0  # down
    moved |= changed[:, 0, -1, 16] == 0  # up
    unmoved = 1 / 81 / 2  # by a shift of zero
    assert float(flipped.float().mean()) == pytest.approx(0.25, abs=0.02)
    assert float(moved.float().mean()) == pytest.approx(0.5 - unmoved, abs=0.02)
    assert float((flipped & moved).float().mean()) == pytest.approx((1 - 1 / 81) / 6, abs=0.02)


def test_augmentation_by_name():
    batch = torch.randn(2, 1, 8, 8)
    assert data.augment(batch, "none", None) is batch
    with pytest.raises(
        ValueError, match="unknown augmentation 'flip'; known: none, flip-shift, flip-shift-half"
    ):
        data.augment(batch, "flip", None)


def test_the_random_numbers_of_committed_records():
    """A seed means the same split, sample, labels and shifts as when the records were made."""
    pixels = (torch.arange(60 * 3 * 8 * 8) * 37 % 251).to(torch.uint8).view(60, 3, 8, 8)
    images = data.Images(pixels, torch.arange(60) % 4, (0.5,) * 3, (0.25,) * 3)
    sampled = {
        kind: rows_of(data.sample(images, 8, seeded(), kind), images) for kind in data.SAMPLING
    }
    assert sampled == {
        "uniform": [44, 49, 19, 3, 47, 2, 31, 43],
        "balanced": [44, 49, 19, 2, 3, 25, 48, 34],
        "one-class": [19, 3, 47, 31, 43, 11, 35, 15],
    }
    assert data.split(images, seeded())[1].rows.tolist() == [44, 49, 19, 3, 47, 2]
    assert data.shuffle_labels(images, seeded()).labels[:12].tolist() == [
        0,
        1,
        3,
        3,
        3,
        2,
        3,
        3,
        1,
        0,
        3,
        1,
    ]
    picture = torch.arange(1.0, 257.0).view(1, 1, 16, 16).repeat(8, 1, 1, 1)
    changed = data.augment(picture, "flip-shift", seeded())
    assert changed[:, 0, 8, 8].tolist() == [135, 154, 122, 121, 119, 171, 151, 123]


def test_the_old_name_of_splits_says_what_to_write():
    with pytest.warns(DeprecationWarning, match="write data.Splits") as caught:
        assert data.Dataset is data.Splits
    assert caught[0].filename == __file__
    with pytest.raises(AttributeError, match="no attribute 'Datasets'"):
        data.Datasets  # noqa: B018
