"""The data sets in one zip file: whole or not at all, the same each time, and found again."""

import hashlib
import subprocess
import zipfile

import numpy as np
import pytest

from snipkit.study import __main__ as commands
from snipkit.study.sets import bundle, sources

CONTENT = {"images": b"\1\2\3" * 100, "labels": b"\4" * 10}


def nobody(files, scratch):
    raise RuntimeError("no network")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data folder with one small set, which nobody can deliver."""
    sums = {file: hashlib.sha256(content).hexdigest() for file, content in CONTENT.items()}
    source = sources.Source("digits/raw", sums, {"a friend": nobody})
    monkeypatch.setattr(sources, "SOURCES", {"mnist": source, "gone": source_of_nothing()})
    folder = tmp_path / "data" / "digits" / "raw"
    folder.mkdir(parents=True)
    for file, content in CONTENT.items():
        (folder / file).write_bytes(content)
    return tmp_path / "data"


def source_of_nothing():
    return sources.Source("gone", {"file": "0"}, {"a friend": nobody})


def test_a_machine_without_a_network_takes_its_data_from_the_bundle(root, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    assert bundle.write(["mnist"], root, other / sources.BUNDLE)
    assert sources.fetch("mnist", other) == other / "digits" / "raw"
    assert (other / "digits/raw/images").read_bytes() == CONTENT["images"]
    assert f"trying {other / sources.BUNDLE}" in capsys.readouterr().err


def test_the_readme_says_how_to_unpack_and_the_sums_check(root, tmp_path):
    bundle.write(["mnist"], root, tmp_path / sources.BUNDLE)
    with zipfile.ZipFile(tmp_path / sources.BUNDLE) as archive:
        assert archive.namelist()[:2] == ["README.txt", "SHA256SUMS"]
        assert archive.read("README.txt").decode().count("\n") == 3
        archive.extractall(tmp_path / "unpacked")
    subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=tmp_path / "unpacked", check=True)


def test_a_second_bundle_is_the_first_and_a_damaged_one_is_written_anew(root, tmp_path):
    first, second = tmp_path / "first.zip", tmp_path / "second.zip"
    assert bundle.write(["mnist"], root, first) and bundle.write(["mnist"], root, second)
    assert first.read_bytes() == second.read_bytes()
    assert not bundle.write(["mnist"], root, first)
    second.write_bytes(first.read_bytes()[:-30])
    assert bundle.write(["mnist"], root, second)
    assert first.read_bytes() == second.read_bytes()


def test_a_bundle_is_there_whole_or_not_at_all(root, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle, "_add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bundle.write(["mnist"], root, tmp_path / "new" / sources.BUNDLE)
    assert list((tmp_path / "new").iterdir()) == []


def test_a_changed_bundle_is_not_used(root, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    with zipfile.ZipFile(other / sources.BUNDLE, "w") as archive:
        for file in CONTENT:
            archive.writestr(f"digits/raw/{file}", b"something else")
    with pytest.raises(sources.DataError, match="data-bundle.zip: .*as delivered"):
        sources.fetch("mnist", other)
    assert not list((other / "digits" / "raw").iterdir())


def test_the_command_leaves_out_what_is_not_available(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SNIPKIT_DATA", str(root))
    target = tmp_path / sources.BUNDLE
    commands.app(["bundle", "--target", str(target)], standalone_mode=False)
    said = capsys.readouterr().out
    assert "left out: gone" in said and f"{target}: mnist; 0 MB, written" in said
    assert sources.file_hash(target) in said


def test_torchvisions_cifar_10_is_packed_as_the_files_that_are_fetched(root, tmp_path, monkeypatch):
    rows = np.frombuffer(CONTENT["images"], np.uint8)
    monkeypatch.setattr(sources, "fetch", lambda name, root: root / "cifar-10-batches-py")
    monkeypatch.setattr(bundle.official, "read_cifar_10", lambda root: {"images": rows})
    del sources.SOURCES["mnist"].sha256["labels"]
    bundle.write(["mnist"], root, tmp_path / sources.BUNDLE)
    with zipfile.ZipFile(tmp_path / sources.BUNDLE) as archive:
        assert archive.read("digits/raw/images") == CONTENT["images"]
