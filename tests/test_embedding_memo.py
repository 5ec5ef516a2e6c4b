import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sklearn_clipsid import CLIPEmbedder
from sklearn_clipsid._embedding_cache import (
    SETTLED_NS,
    EmbeddingMemo,
    content_hash,
    read_file,
)


@pytest.fixture
def memo():
    return EmbeddingMemo()


@pytest.fixture
def old_file(tmp_path, monkeypatch):
    """A file that was written long enough ago to be trusted."""
    path = tmp_path / "image.bmp"
    path.write_bytes(b"first")
    # Waiting for the file to settle would take seconds; the clock is moved instead.
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 2 * SETTLED_NS)
    return str(path)


def test_rows_come_back_under_their_encoder_alone(memo):
    memo.put("encoder", [b"a", b"b"], np.eye(2, dtype=np.float32))
    np.testing.assert_array_equal(memo.get("encoder", b"b"), [0, 1])
    assert memo.get("encoder", b"c") is None
    assert memo.get("other encoder", b"a") is None
    memo.clear()
    assert memo.get("encoder", b"a") is None


def test_rows_are_copies(memo):
    rows = np.ones((2, 3), dtype=np.float32)
    memo.put("encoder", [b"a", b"b"], rows)
    rows[:] = 0
    row = memo.get("encoder", b"a")
    np.testing.assert_array_equal(row, 1)
    assert row.base is None


def test_rows_of_other_encoders_make_way_oldest_use_first():
    row_bytes = 4 * 10
    memo = EmbeddingMemo(max_bytes=3 * row_bytes)
    rows = np.zeros((1, 10), dtype=np.float32)
    for k in range(3):
        assert memo.put("old", [bytes([k])], rows)
    memo.get("old", bytes([0]))
    assert memo.put("new", [bytes([3])], rows)
    assert [memo.get("old", bytes([k])) is not None for k in range(3)] == [
        True,
        False,
        True,
    ]
    assert memo.get("new", bytes([3])) is not None


def test_repeated_passes_over_too_many_images_find_those_that_were_kept():
    memo = EmbeddingMemo(max_bytes=10 * 4 * 10)
    rows = np.zeros((1, 10), dtype=np.float32)
    for _ in range(2):
        found = 0
        for k in range(11):
            if memo.get("encoder", bytes([k])) is None:
                fits = memo.put("encoder", [bytes([k])], rows)
            else:
                found += 1
    assert found == 10
    assert not fits


def test_a_row_larger_than_the_bound_is_not_kept():
    memo = EmbeddingMemo(max_bytes=8)
    memo.put("encoder", [b"a"], np.zeros((1, 10), dtype=np.float32))
    assert memo.get("encoder", b"a") is None and memo._bytes == 0


def test_threads_may_read_write_and_clear_at_once():
    memo = EmbeddingMemo(max_bytes=4 * 10 * 20)
    deadline = time.monotonic() + 0.5

    def work(seed):
        rng = np.random.default_rng(seed)
        while time.monotonic() < deadline:
            k = int(rng.integers(50))
            memo.put("encoder", [bytes([k])], np.full((1, 10), k, dtype=np.float32))
            row = memo.get("encoder", bytes([int(rng.integers(50))]))
            assert row is None or (row == row[0]).all()
            if k == 0:
                memo.clear()

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work, seed) for seed in range(8)]:
            done.result()
    assert memo._bytes == sum(row.nbytes for row in memo._rows.values())


def test_the_hash_tells_shapes_apart():
    pixels = np.arange(24, dtype=np.uint8)
    hashes = {content_hash(pixels.reshape(s)) for s in [(2, 4, 3), (4, 2, 3), (24,)]}
    hashes.add(content_hash(pixels.tobytes()))
    assert len(hashes) == 4
    whole = np.arange(48, dtype=np.uint8).reshape(6, 8)
    assert content_hash(whole[:, ::2]) == content_hash(whole[:, ::2].copy())


def test_an_unchanged_old_file_is_recognised_unread(memo, old_file):
    data, content = read_file(memo, old_file)
    assert data == b"first" and content == content_hash(b"first")
    assert memo.hash_of_file(old_file) == content


def test_a_file_younger_than_two_seconds_is_read_again(memo, tmp_path):
    path = tmp_path / "image.bmp"
    path.write_bytes(b"first")
    read_file(memo, str(path))
    assert memo.hash_of_file(str(path)) is None
    # Setting the times back does not make it old: the inode's change time is new.
    os.utime(path, ns=(0, 0))
    read_file(memo, str(path))
    assert memo.hash_of_file(str(path)) is None


@pytest.mark.parametrize("how", ["in place", "replaced", "link"])
def test_an_overwritten_file_of_equal_size_and_times_is_noticed(memo, old_file, how):
    path = Path(old_file)
    if how == "link":
        target = path.rename(path.with_name("target.bmp"))
        path.symlink_to(target)
    stat = os.stat(path)
    read_file(memo, old_file)
    time.sleep(0.02)  # one tick of the file system's clock
    if how == "in place":
        path.write_bytes(b"other")
    else:
        other = path.with_name("other.bmp")
        other.write_bytes(b"other")
        os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        if how == "replaced":
            other.replace(path)
        else:
            path.unlink()
            path.symlink_to(other)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    now = os.stat(path)
    assert (now.st_size, now.st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert memo.hash_of_file(old_file) is None
    assert read_file(memo, old_file)[0] == b"other"


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    memo, old_file, monkeypatch
):
    from sklearn_clipsid import _embedding_cache

    hash_bytes = content_hash

    def rewritten_meanwhile(data):
        Path(old_file).write_bytes(b"longer than before")
        return hash_bytes(data)

    monkeypatch.setattr(_embedding_cache, "content_hash", rewritten_meanwhile)
    data, content = read_file(memo, old_file)
    assert content == hash_bytes(data)
    assert memo.hash_of_file(old_file) is None


def test_what_is_no_regular_file_is_not_opened(memo, tmp_path):
    with pytest.raises(IsADirectoryError):
        read_file(memo, str(tmp_path))
    with pytest.raises(OSError, match="pipe, socket or device"):
        read_file(memo, os.devnull)


# Through the embedder ----------------------------------------------------------------


def test_an_overwritten_image_gets_its_new_row(tiny_clip, tmp_path, encoded, old_file):
    path = tmp_path / "image.bmp"  # uncompressed: equal sizes for all contents
    embedder = CLIPEmbedder(pretrained=tiny_clip)
    rows = []
    for grey in (10, 200):
        Image.new("RGB", (40, 40), (grey, 0, 99)).save(path)
        os.utime(path, ns=(0, 0))
        rows.append(embedder.transform([path]))
        np.testing.assert_array_equal(embedder.transform([path]), rows[-1])
        time.sleep(0.02)
    fresh = embedder.transform([np.asarray(Image.open(path))])
    np.testing.assert_allclose(rows[1], fresh, atol=1e-5)
    assert np.abs(rows[0] - rows[1]).max() > 1e-3
    assert encoded == [1, 1, 1]


def test_a_known_old_file_is_not_opened_again(
    tiny_clip, image_files, old_file, fresh_memo, monkeypatch
):
    from sklearn_clipsid import _embedding_run

    embedder = CLIPEmbedder(pretrained=tiny_clip)
    before = embedder.transform(image_files)
    monkeypatch.setattr(_embedding_run, "read_file", None)
    np.testing.assert_array_equal(embedder.transform(image_files), before)


def test_returned_rows_may_be_changed(tiny_clip, image_files, fresh_memo):
    embedder = CLIPEmbedder(pretrained=tiny_clip)
    rows = embedder.transform(image_files)
    expected = rows.copy()
    rows[:] = 0
    np.testing.assert_array_equal(embedder.transform(image_files), expected)


def test_a_copy_under_another_name_is_not_embedded_again(
    tiny_clip, image_files, tmp_path, encoded
):
    copy = tmp_path / "copy.png"
    copy.write_bytes(Path(image_files[0]).read_bytes())
    data = copy.read_bytes()
    rows = CLIPEmbedder(pretrained=tiny_clip).transform([image_files[0], copy, data])
    assert encoded == [1]
    assert (rows == rows[0]).all()


def test_a_memory_too_small_for_anything_costs_only_time(
    tiny_clip, image_files, encoded, fresh_memo, monkeypatch
):
    embedder = CLIPEmbedder(pretrained=tiny_clip, batch_size=2)
    expected = embedder.transform(image_files)
    fresh_memo.clear()
    monkeypatch.setattr(fresh_memo, "max_bytes", 0)
    with pytest.warns(UserWarning, match="18 images exceed the 0 MiB"):
        rows = embedder.transform([*image_files, *image_files])
    np.testing.assert_allclose(rows, np.vstack([expected, expected]), atol=1e-5)


def test_threads_that_embed_the_same_images_agree(tiny_clip, image_files, fresh_memo):
    embedder = CLIPEmbedder(pretrained=tiny_clip, batch_size=2, decode_threads=2)
    barrier = threading.Barrier(6)

    def work(seed):
        order = np.random.default_rng(seed).permutation(9)
        barrier.wait()
        rows = embedder.transform([image_files[i] for i in order])
        return rows[np.argsort(order)]

    with ThreadPoolExecutor(6) as pool:
        rows = list(pool.map(work, range(6)))
    expected = embedder.transform(image_files)
    for row in rows:
        np.testing.assert_allclose(row, expected, atol=1e-5)
