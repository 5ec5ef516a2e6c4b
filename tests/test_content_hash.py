import os
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sklearn_clipsid import _content_hash
from sklearn_clipsid._content_hash import (
    MAX_READS,
    SETTLED_NS,
    content_hash,
    is_settled,
    read_file,
    signature_of,
)

# One tick of the file system's clock.
TICK = 0.02


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "image.bmp"
    path.write_bytes(b"first")
    return path


@pytest.fixture
def later(monkeypatch):
    """Move the clock: waiting for files to settle would take seconds."""
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 2 * SETTLED_NS)


@pytest.fixture
def after_each_read(monkeypatch):
    """Let something happen whenever a file has been read, before it is closed."""

    def install(happens):
        class Watched:
            def __init__(self, path, mode):
                self.file = open(path, mode)

            def __enter__(self):
                return self

            def __exit__(self, *_):
                self.file.close()

            def read(self):
                data = self.file.read()
                happens()
                return data

        monkeypatch.setattr(_content_hash, "open", Watched, raising=False)

    return install


def overwrite(path, how):
    """Put other bytes of the same size at a path, and restore its times."""
    before = os.stat(path)
    times = (before.st_atime_ns, before.st_mtime_ns)
    time.sleep(TICK)
    if how == "in place":
        path.write_bytes(b"other")
    else:
        other = path.with_name("other.bmp")
        other.write_bytes(b"other")
        os.utime(other, ns=times)
        if how == "replaced":
            other.replace(path)
        else:
            path.unlink()
            path.symlink_to(other)
    os.utime(path, ns=times)
    after = os.stat(path)
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


# Hashes ------------------------------------------------------------------------------


def test_the_hash_tells_shapes_apart():
    pixels = np.arange(24, dtype=np.uint8)
    hashes = {content_hash(pixels.reshape(s)) for s in [(2, 4, 3), (4, 2, 3), (24,)]}
    assert len(hashes) == 3
    assert {len(digest) for digest in hashes} == {20}


def test_pixels_never_share_a_hash_with_encoded_bytes():
    pixels = np.arange(24, dtype=np.uint8)
    assert content_hash(pixels) != content_hash(pixels.tobytes())
    # Not even with a file made to look like pixels with their shape before them.
    forged = f"{pixels.shape}".encode() + pixels.tobytes()
    assert content_hash(pixels) != content_hash(forged)


def test_the_layout_in_memory_changes_no_hash():
    whole = np.arange(48, dtype=np.uint8).reshape(6, 8)
    assert content_hash(whole[:, ::2]) == content_hash(whole[:, ::2].copy())
    assert content_hash(whole) == content_hash(np.asfortranarray(whole))


# Signatures --------------------------------------------------------------------------


def test_a_signature_stays_while_the_file_does(file, monkeypatch):
    signature = signature_of(file)
    assert signature_of(str(file)) == signature
    assert signature_of(os.fsencode(file)) == signature
    monkeypatch.chdir(file.parent)
    assert signature_of(file.name) == signature
    assert signature.size == 5
    assert signature.inode == os.stat(file).st_ino


@pytest.mark.parametrize("how", ["in place", "replaced", "link"])
def test_an_overwritten_file_of_equal_size_and_times_has_another_signature(file, how):
    if how == "link":
        target = file.rename(file.with_name("target.bmp"))
        file.symlink_to(target)
    before = signature_of(file)
    overwrite(file, how)
    assert signature_of(file) != before


def test_a_name_that_is_no_text_has_a_signature(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"\xff\xfe.png")
    Path(os.fsdecode(path)).write_bytes(b"first")
    assert signature_of(path).path == path
    assert signature_of(os.fsdecode(path)).path == path


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        read_file(tmp_path)
    with pytest.raises(OSError, match="pipe, socket or device"):
        read_file(os.devnull)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe, socket or device"):
        read_file(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "missing")


# The 2-second rule -------------------------------------------------------------------


def test_a_file_proves_nothing_for_two_seconds(file, monkeypatch):
    changed = max(os.stat(file).st_mtime_ns, os.stat(file).st_ctime_ns)
    signature = signature_of(file)
    for age, settled in [(0, False), (SETTLED_NS - 1, False), (SETTLED_NS, True)]:
        monkeypatch.setattr(time, "time_ns", lambda age=age: changed + age)
        assert is_settled(signature) == settled
        assert (read_file(file).signature == signature) == settled


def test_setting_the_times_back_makes_no_file_old(file):
    os.utime(file, ns=(0, 0))
    assert signature_of(file).mtime_ns == 0
    assert not is_settled(signature_of(file))
    assert read_file(file).signature is None


def test_a_file_from_the_future_proves_nothing(file, later):
    assert is_settled(signature_of(file))
    os.utime(file, ns=(0, time.time_ns() + 3600 * 10**9))
    assert not is_settled(signature_of(file))


def test_no_file_proves_anything_on_windows(file, later, monkeypatch):
    signature = signature_of(file)
    assert is_settled(signature)
    monkeypatch.setattr(_content_hash, "os", SimpleNamespace(name="nt"))
    assert not is_settled(signature)


# Files that change while they are read -----------------------------------------------


def test_a_file_is_read_once_with_the_hash_of_what_was_read(file, later):
    data, content, signature = read_file(file)
    assert data == b"first"
    assert content == content_hash(b"first")
    assert signature == signature_of(file)


@pytest.mark.parametrize("change", ["grows", "shrinks", "replaced"])
def test_a_file_that_changes_while_it_is_read_is_read_again(
    file, later, after_each_read, change
):
    other = file.with_name("other.bmp")
    other.write_bytes(b"third")
    changes = {
        "grows": lambda: file.write_bytes(b"first and more"),
        "shrinks": lambda: file.write_bytes(b"f"),
        "replaced": lambda: other.replace(file),
    }
    left = [changes[change]]
    after_each_read(lambda: left.pop()() if left else None)
    data, content, signature = read_file(file)
    assert data == file.read_bytes() != b"first"
    assert content == content_hash(data)
    assert signature == signature_of(file)


def test_a_file_that_never_stops_changing_is_an_error(file, after_each_read):
    sizes = []

    def grow():
        sizes.append(len(sizes))
        with open(file, "ab") as growing:
            growing.write(b"x")

    after_each_read(grow)
    with pytest.raises(OSError, match="it is being written"):
        read_file(file)
    assert len(sizes) == MAX_READS


def test_a_file_deleted_while_it_is_read_is_missing(file, after_each_read):
    after_each_read(file.unlink)
    with pytest.raises(FileNotFoundError):
        read_file(file)
