import gzip
import hashlib
import io
import shutil
import zipfile

import pytest
import torch
from PIL import Image

from snipkit import data, sources


@pytest.fixture
def root(tmp_path):
    """An empty data folder with links to the verified MNIST files that a test may replace."""
    folder = tmp_path / "MNIST/raw"
    folder.mkdir(parents=True)
    for file in sources.IDX_FILES:
        (folder / file).symlink_to(sources.fetch("mnist") / file)
    data._decoded.cache_clear()
    yield tmp_path
    data._decoded.cache_clear()


@pytest.fixture
def offline(monkeypatch):
    """No source answers; the calls are counted."""
    calls = []

    def refuse(files, scratch):
        calls.append(files)
        raise OSError("no route to host")

    monkeypatch.setattr(
        sources, "SOURCES",
        {n: sources.Source(s.folder, s.sha256, dict.fromkeys(s.fetchers, refuse)) for n, s in sources.SOURCES.items()},
    )
    return calls


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_whole_sets_as_standardised_tensors(name):
    dataset = data.load(name)
    assert [len(part) for part in (dataset.train, dataset.val, dataset.test)] == [54_000, 6_000, 10_000]
    assert dataset.train.pixels.dtype == torch.uint8 and dataset.train.pixels.shape[1:] == data.SHAPES[name][0]
    images, labels = dataset.train[:]
    held_out, _ = dataset.val[:]
    both = torch.cat([images, held_out]).double()
    assert abs(both.mean()) < 1e-5 and abs(both.std() - 1) < 1e-5  # over all 60,000, as in the authors' code
    assert images.dtype == torch.float32 and labels.dtype == torch.int64
    assert torch.bincount(torch.cat([dataset.train.labels, dataset.val.labels])).sum() == 60_000


def test_the_known_statistics_and_first_digits_of_mnist(mnist):
    assert (mnist.train.mean[0], mnist.train.std[0]) == (pytest.approx(0.1306605, abs=1e-6), pytest.approx(0.3081078, abs=1e-6))
    assert mnist.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


def test_the_split_is_seeded_and_disjoint():
    one, same, other = (data.load("mnist", split_seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.val.pixels, same.val.pixels) and not torch.equal(one.val.labels, other.val.labels)
    together = torch.cat([one.train.labels, one.val.labels]).bincount()
    assert torch.equal(together, torch.cat([other.train.labels, other.val.labels]).bincount())
    assert torch.equal(data.load("mnist", train_size=50).train.pixels, one.train.pixels[:50])


def test_a_scoring_batch_has_no_repetitions(mnist):
    part = mnist.train.take(slice(64))
    images, _ = data.draw(part, 64, torch.Generator().manual_seed(0))
    assert torch.equal(images.flatten(1).sum(1).sort().values, part[:][0].flatten(1).sum(1).sort().values)
    with pytest.raises(ValueError, match="a batch of 65 cannot be drawn from 64 examples"):
        data.draw(part, 65, torch.Generator())


def test_balanced_and_one_class_batches(mnist):
    generator = torch.Generator().manual_seed(0)
    _, labels = data.draw(mnist.train, 100, generator, "balanced")
    assert labels.bincount().tolist() == [10] * 10
    _, labels = data.draw(mnist.train, 13, generator, "balanced")
    assert sorted(labels.bincount(minlength=10).tolist()) == [1] * 7 + [2] * 3
    classes = {int(data.draw(mnist.train, 20, generator, "one-class")[1].unique()) for _ in range(20)}
    assert len(classes) > 3
    with pytest.raises(ValueError, match="unknown sample 'odd'; known: uniform"):
        data.draw(mnist.train, 20, generator, "odd")


def test_shuffled_labels_are_a_permutation_that_has_forgotten_the_images(mnist):
    shuffled = data.shuffle_labels(mnist.train, torch.Generator().manual_seed(0))
    assert torch.equal(shuffled.labels.bincount(), mnist.train.labels.bincount()) and shuffled.pixels is mnist.train.pixels
    assert 0.09 < (shuffled.labels == mnist.train.labels).double().mean() < 0.11



def test_local_files_come_first_also_packed(root, offline):
    folder = root / "MNIST/raw"
    label_file = folder / "t10k-labels-idx1-ubyte"
    content = label_file.read_bytes()
    label_file.unlink()
    with gzip.open(f"{label_file}.gz", "wb") as packed:
        packed.write(content)
    assert len(data.load("mnist", root=root).test) == 10_000
    assert label_file.read_bytes() == content and not offline


@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_file_is_named_and_left_alone(root, offline, packed):
    path = root / "MNIST/raw/train-labels-idx1-ubyte"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.unlink()
    if packed:
        path = path.with_name(path.name + ".gz")
        content = gzip.compress(content)
    path.write_bytes(content)
    with pytest.raises(sources.DataError, match=f"{path.name}: the file is damaged"):
        data.load("mnist", root=root)
    assert path.read_bytes() == content and not offline
    assert sorted(p.name for p in path.parent.iterdir() if p.name.startswith(".")) == []


def test_when_every_source_fails_one_error_says_what_was_tried(tmp_path, offline):
    with pytest.raises(sources.DataError) as error:
        data.load("fashion-mnist", root=tmp_path)
    assert "Tried" in str(error.value) and str(error.value).count("no route to host") == 2
    for part in ("the official site", "dataset-fashion-mnist", str(tmp_path / "FashionMNIST/raw"), "train-images-idx3-ubyte", "SNIPKIT_DATA"):
        assert part in str(error.value)
    assert not list((tmp_path / "FashionMNIST/raw").iterdir())


def test_a_download_with_the_wrong_content_is_not_used(tmp_path, monkeypatch):
    def lie(files, scratch):
        for file in files:
            (scratch / file).write_bytes(b"not a digit")

    def deliver(files, scratch):
        for file in files:
            shutil.copy(real / file, scratch)

    real, source = sources.fetch("mnist"), sources.SOURCES["mnist"]
    changed = sources.Source(source.folder, source.sha256, {"a liar": lie, "a friend": deliver})
    monkeypatch.setitem(sources.SOURCES, "mnist", changed)
    folder = sources.fetch("mnist", tmp_path)
    assert {p.name for p in folder.iterdir()} == set(sources.IDX_FILES)
    sources._verify(folder / sources.IDX_FILES[0], source.sha256[sources.IDX_FILES[0]])


#: of the official binary version, https://www.cs.toronto.edu/~kriz/cifar.html
CIFAR_MD5 = {
    "data_batch_1": "5dd7e06a14cb22eb9f671a540d1b7c25", "data_batch_2": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3": "942cd6a4bcdd0dd3c604fbe906cb4421", "data_batch_4": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5": "53f37980c15c3d472c316c40844f3f0d", "test_batch": "803d5f7f4d78ea53de84dbe85f74fb6d",
}


def available(name):
    """Skip the test where the set cannot be had: the study leaves it out there too."""
    try:
        return sources.fetch(name)
    except sources.DataError as error:
        pytest.skip(f"{name} cannot be had here: {error}")


def test_cifar_10_is_the_official_one():
    folder = available("cifar-10")
    found = {file: hashlib.md5((folder / f"{file}.bin").read_bytes()).hexdigest() for file in CIFAR_MD5}
    assert found == CIFAR_MD5
    dataset = data.load("cifar-10")
    assert dataset.train.pixels.shape == (45_000, 3, 32, 32) and len(dataset.val) == 5_000 and len(dataset.test) == 10_000
    assert dataset.train.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=5e-5)
    assert dataset.train.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=5e-5)
    assert dataset.test.labels[:8].tolist() == [3, 8, 8, 0, 6, 6, 1, 6]  # cat, ship, ship, airplane, frog, frog, car, frog
    images, _ = dataset.train[:100]
    assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.fixture
def small_tiny_imagenet(tmp_path, monkeypatch):
    """An archive of Tiny-ImageNet's layout with 5 images a class, of one of two colours."""
    wnids, pictures = [f"n{i:08d}" for i in range(200)], []
    for mode, colour in (("RGB", (200, 100, 50)), ("L", 80)):
        stream = io.BytesIO()
        Image.new(mode, (64, 64), colour).save(stream, "JPEG")
        pictures.append(stream.getvalue())
    with zipfile.ZipFile(tmp_path / "tiny-imagenet-200.zip", "w") as archive:
        archive.writestr("tiny-imagenet-200/wnids.txt", "\n".join(reversed(wnids)))
        for w in wnids:
            for i in range(5):
                archive.writestr(f"tiny-imagenet-200/train/{w}/images/{w}_{i}.JPEG", pictures[i == 0])
        for i in range(20):
            archive.writestr(f"tiny-imagenet-200/val/images/val_{i}.JPEG", pictures[0])
        archive.writestr("tiny-imagenet-200/val/val_annotations.txt", "".join(f"val_{i}.JPEG\t{wnids[i * 7]}\t0\t0\t9\t9\n" for i in range(20)))
    digest = sources.archive_digest(tmp_path / "tiny-imagenet-200.zip")
    monkeypatch.setattr(data, "TINY_IMAGES_PER_CLASS", 5)
    monkeypatch.setitem(sources.SOURCES, "tiny-imagenet", sources.Source(".", {"tiny-imagenet-200.zip": digest}, {}))
    data._decoded.cache_clear()
    yield tmp_path
    data._decoded.cache_clear()


def test_tiny_imagenet_is_decoded_once_and_checked_after(small_tiny_imagenet, monkeypatch):
    root = small_tiny_imagenet
    dataset = data.load("tiny-imagenet", root=root)
    assert (len(dataset.train), len(dataset.val), len(dataset.test), dataset.num_classes) == (900, 100, 20, 200)
    assert dataset.test.labels.tolist() == [7 * i for i in range(20)]
    assert torch.cat([dataset.train.labels, dataset.val.labels]).bincount().tolist() == [5] * 200
    colour = dataset.test.pixels[0].float().mean((1, 2))
    assert (colour - torch.tensor([200.0, 100.0, 50.0])).abs().max() < 3
    monkeypatch.setattr(data, "_unpack_tiny_imagenet", None)  # a second time, it is not decoded
    data._decoded.cache_clear()
    assert torch.equal(data.load("tiny-imagenet", root=root).train.pixels[:50], dataset.train.pixels[:50])
    path = root / "tiny-imagenet-200-arrays/train_labels.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    data._decoded.cache_clear()
    with pytest.raises(sources.DataError, match="train_labels.npy: the file is damaged. Delete the folder"):
        data.load("tiny-imagenet", root=root)


def test_a_torn_archive_is_named(small_tiny_imagenet):
    path = small_tiny_imagenet / "tiny-imagenet-200.zip"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(sources.DataError, match="tiny-imagenet-200.zip: the file is damaged"):
        data.load("tiny-imagenet", root=small_tiny_imagenet)


def test_augmentation_flips_and_shifts_each_image_by_its_own_draw():
    images = torch.arange(1.0, 1 + 32 * 32).view(1, 1, 32, 32).repeat(2000, 3, 1, 1)
    for kind, flips, moves in (("flip-shift", 0.5, 1.0), ("half-flip-shift", 0.25, 0.5)):
        changed = data.augment(images, kind, torch.Generator().manual_seed(0))
        assert changed.shape == images.shape and torch.equal(changed[:, 0], changed[:, 2])
        row = changed[:, 0, 16]  # three rows' distance at most: every row of the result holds consecutive numbers, or zeros
        flipped = (row[:, 16] < row[:, 15]).float().mean().item()
        assert flipped == pytest.approx(flips, abs=0.04)
        first = torch.where(row[:, 16] < row[:, 15], row.flip(1).T, row.T).T[:, 16] - images[0, 0, 16, 16]
        dy, dx = torch.round(first / 32), first - 32 * torch.round(first / 32)
        assert dy.abs().max() == 4 and dx.abs().max() == 4
        still = ((dx == 0) & (dy == 0)).float().mean().item()
        assert still == pytest.approx(1 - moves + moves / 81, abs=0.04)
        lost = (changed[:, 0] == 0).float().mean((1, 2))
        assert torch.allclose(lost, 1 - (1 - dx.abs() / 32) * (1 - dy.abs() / 32))  # what comes in is zero
    assert data.augment(images, "none", None) is images
    with pytest.raises(ValueError, match="unknown augmentation 'flip'; known: none, flip-shift"):
        data.augment(images, "flip", None)


def test_unknown_names_and_sizes():
    with pytest.raises(ValueError, match="unknown data set 'mist'; known: mnist, fashion-mnist, cifar-10, tiny-imagenet"):
        data.load("mist")
    with pytest.raises(ValueError, match="train_size is 54001; mnist has 1 to 54000"):
        data.load("mnist", train_size=54_001)
