import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sklearn_clipsid._content_hash import FileSignature
from sklearn_clipsid._embedding_memo import MEMO, CacheInfo, EmbeddingMemo

A, B = b"a setting", b"another setting"
FILE = FileSignature(b"/images/0.png", 5, 1, 2, 3)


@pytest.fixture
def memo():
    return EmbeddingMemo()


def row_of(value, width=10):
    return np.full(width, value, dtype=np.float32)


def keep(memo, setting, *values):
    """Keep a constant row for each number, under the number as content."""
    return memo.keep(setting, {bytes([v]): row_of(v) for v in values}, {})


def known(memo, setting, *values):
    return sorted(
        content[0] for content in memo.rows_of(setting, map(bytes_of, values))
    )


def bytes_of(value):
    return bytes([value])


def in_thread(function, *args):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).result()


def test_rows_come_back_under_their_setting_alone(memo):
    assert keep(memo, A, 1, 2)
    rows = memo.rows_of(A, [b"\2", b"\1", b"\3"])
    assert rows.keys() == {b"\1", b"\2"}
    np.testing.assert_array_equal(rows[b"\2"], row_of(2))
    assert memo.rows_of(B, [b"\1", b"\2"]) == {}


def test_a_kept_row_is_a_copy_and_stays_the_first(memo):
    batch = np.ones((2, 3), dtype=np.float32)
    memo.keep(A, {b"a": batch[0]}, {})
    batch[:] = 0
    memo.keep(A, {b"a": batch[0]}, {})
    row = memo.rows_of(A, [b"a"])[b"a"]
    np.testing.assert_array_equal(row, 1)
    assert row.base is None  # nor does it hold its batch in memory
    assert memo.info().bytes == row.nbytes


def test_rows_of_other_settings_make_way_oldest_use_first():
    memo = EmbeddingMemo(max_bytes=3 * row_of(0).nbytes)
    assert keep(memo, A, 0, 1, 2)
    memo.rows_of(A, [b"\0"])
    assert keep(memo, B, 3)
    assert known(memo, A, 0, 1, 2) == [0, 2]
    assert known(memo, B, 3) == [3]


def test_repeated_passes_over_too_many_images_find_those_that_were_kept():
    memo = EmbeddingMemo(max_bytes=10 * row_of(0).nbytes)
    for _ in range(2):
        found = len(known(memo, A, *range(11)))
        fits = [keep(memo, A, k) for k in range(11)]
    assert found == 10
    assert fits == [True] * 10 + [False]


def test_a_row_larger_than_the_bound_is_not_kept():
    memo = EmbeddingMemo(max_bytes=8)
    assert not keep(memo, A, 1)
    assert memo.info() == CacheInfo(rows=0, bytes=0, hits=0, misses=0)


def test_files_are_recognised_by_their_whole_signature(memo):
    memo.keep(A, {}, {FILE: b"content"})
    others = [
        FILE._replace(**{field: value})
        for field, value in zip(FILE._fields, [b"/images/1.png", 6, 7, 8, 9])
    ]
    assert memo.contents_of([FILE, *others]) == {FILE: b"content"}


def test_the_memory_of_files_is_bounded():
    memo = EmbeddingMemo(max_bytes=10 * 1024)
    files = [FILE._replace(inode=k) for k in range(25)]
    memo.keep(A, {}, dict.fromkeys(files, b"content"))
    assert memo.contents_of(files).keys() == set(files[-10:])


def test_hits_and_misses_are_counted_until_it_is_cleared(memo):
    keep(memo, A, 1, 2)
    memo.count(hits=3, misses=4)
    memo.count(hits=1, misses=0)
    assert memo.info() == CacheInfo(rows=2, bytes=80, hits=4, misses=4)
    memo.clear()
    assert memo.info() == CacheInfo(rows=0, bytes=0, hits=0, misses=0)
    assert known(memo, A, 1, 2) == []


def test_no_encoder_is_described(memo):
    memo.describe("identity", {"weights": "digest"})
    assert memo.described("identity") is None


# Claims ------------------------------------------------------------------------------


def test_what_one_thread_has_claimed_is_left_to_it_until_it_is_kept(memo):
    contents = [b"\1", b"\2"]
    assert memo.claim(A, contents) == ({}, {b"\1", b"\2"})
    assert memo.claim(A, contents) == ({}, {b"\1", b"\2"})  # by the same thread again
    assert in_thread(memo.claim, A, contents) == ({}, set())
    assert in_thread(memo.claim, B, [b"\3"]) == ({}, {b"\3"})
    keep(memo, A, 1)
    rows, mine = in_thread(memo.claim, A, contents)
    assert (rows.keys(), mine) == ({b"\1"}, set())


def test_a_run_that_ends_gives_up_what_it_has_claimed(memo):
    with pytest.raises(KeyboardInterrupt), memo:
        memo.claim(A, [b"\1"])
        raise KeyboardInterrupt
    assert in_thread(memo.claim, A, [b"\1"]) == ({}, {b"\1"})


def test_the_end_of_a_run_leaves_claims_of_other_threads(memo):
    memo.claim(A, [b"\1"])

    def another_run():
        with memo:
            return memo.claim(A, [b"\1", b"\2"])

    assert in_thread(another_run) == ({}, {b"\2"})
    assert in_thread(memo.claim, A, [b"\1", b"\2"]) == ({}, {b"\2"})


def test_a_row_that_found_no_room_is_left_to_the_next():
    memo = EmbeddingMemo(max_bytes=0)
    memo.claim(A, [b"\1"])
    keep(memo, A, 1)
    assert in_thread(memo.claim, A, [b"\1"]) == ({}, {b"\1"})


# Threads and processes ---------------------------------------------------------------


def test_threads_may_read_write_and_clear_at_once():
    memo = EmbeddingMemo(max_bytes=20 * row_of(0).nbytes)
    deadline = time.monotonic() + 0.5

    def work(seed):
        rng = np.random.default_rng(seed)
        while time.monotonic() < deadline:
            k, other = (int(v) for v in rng.integers(50, size=2))
            with memo:
                memo.claim(A, [bytes([k])])
                keep(memo, A, k)
                for row in memo.rows_of(A, [bytes([other])]).values():
                    np.testing.assert_array_equal(row, other)
            if k == 0:
                memo.clear()

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work, seed) for seed in range(8)]:
            done.result()
    assert memo.info().bytes == memo.info().rows * row_of(0).nbytes <= memo.max_bytes
    assert memo.claim(A, [b"\1"])[1] | memo.rows_of(A, [b"\1"]).keys() == {b"\1"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
# A fork beside threads is what is tested.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_starts_with_nothing_and_with_a_free_lock(fresh_memo):
    keep(MEMO, A, 1)
    held, done = threading.Event(), threading.Event()

    def hold():
        with MEMO._lock:
            held.set()
            done.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    pid = os.fork()
    if pid == 0:
        os._exit(MEMO.info().rows)  # waits forever for a lock that nobody holds
    deadline = time.monotonic() + 10
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(pid, 9)
        time.sleep(0.01)
    done.set()
    holder.join()
    assert os.waitstatus_to_exitcode(ended[1]) == 0
    assert MEMO.info().rows == 1
