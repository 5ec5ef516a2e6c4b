import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sklearn_clipsid import _cache_database, _claim_owner
from sklearn_clipsid._content_hash import FileSignature
from sklearn_clipsid._embedding_cache import MAX_ASKED, EmbeddingCache
from sklearn_clipsid._embedding_memo import CacheInfo

A, B = b"a setting", b"another setting"
FILE = FileSignature(b"/images/0.png", 5, 1, 2, 3)
NAME = "embeddings-v1.0.sqlite"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def cache(folder):
    with EmbeddingCache(folder) as cache:
        yield cache


def row_of(value, width=10):
    return np.full(width, value, dtype=np.float32)


def keep(cache, setting, *values, files=()):
    """Keep a constant row for each number, under the number as content."""
    rows = {bytes([v]): row_of(v) for v in values}
    return cache.keep(setting, rows, dict(files))


def known(cache, setting, *values):
    return sorted(c[0] for c in cache.rows_of(setting, [bytes([v]) for v in values]))


def open_files(folder):
    """List the files of a folder that this process has open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(os.readlink(link))
    return [path for path in found if path.startswith(str(folder))]


# Rows, files, encoders and counts ----------------------------------------------------


def test_rows_come_back_under_their_setting_alone(cache):
    assert keep(cache, A, 1, 2)
    rows = cache.rows_of(A, [b"\2", b"\1", b"\3"])
    assert rows.keys() == {b"\1", b"\2"}
    np.testing.assert_array_equal(rows[b"\2"], row_of(2))
    assert cache.rows_of(B, [b"\1", b"\2"]) == {}


def test_rows_come_back_bit_for_bit(cache):
    row = np.array([np.nan, np.inf, -0.0, 1e-45, 0.1], dtype=np.float32)
    batch = np.column_stack([row, row])  # no row of it lies in one piece
    cache.keep(A, {b"a": batch[:, 0]}, {})
    found = cache.rows_of(A, [b"a"])[b"a"]
    assert found.dtype == np.float32
    assert found.tobytes() == row.tobytes()


def test_later_runs_find_what_was_kept(folder):
    with EmbeddingCache(folder) as cache:
        keep(cache, A, 1, files={FILE: b"\1"})
        cache.describe("identity", {"weights": "digest", "size": 224})
    with EmbeddingCache(folder) as cache:
        assert known(cache, A, 1, 2) == [1]
        assert cache.contents_of([FILE]) == {FILE: b"\1"}
        assert cache.described("identity") == {"weights": "digest", "size": 224}
        assert cache.described("another") is None
    assert os.listdir(folder) == [NAME]


def test_the_first_row_of_a_content_stays(cache):
    keep(cache, A, 1)
    cache.keep(A, {b"\1": row_of(9)}, {})
    np.testing.assert_array_equal(cache.rows_of(A, [b"\1"])[b"\1"], row_of(1))


@pytest.mark.parametrize("field", FileSignature._fields)
def test_files_are_recognised_by_their_whole_signature(cache, field):
    other = FILE._replace(**{field: b"/images/1.png" if field == "path" else 9})
    keep(cache, A, files={FILE: b"content"})
    assert cache.contents_of([FILE, other]) == {FILE: b"content"}
    keep(cache, A, files={other: b"other content"})
    assert cache.contents_of([other]) == {other: b"other content"}
    # Of one path only the latest file is known.
    assert (FILE in cache.contents_of([FILE])) == (field == "path")


def test_names_of_files_need_not_be_text(cache):
    file = FILE._replace(path=b"/\xff\xfe\x00 %s?.png")
    keep(cache, A, files={file: b"content"})
    assert cache.contents_of([file]) == {file: b"content"}


def test_more_may_be_asked_than_sqlite_takes_at_once(cache):
    n = 2 * MAX_ASKED + 1
    contents = [k.to_bytes(4, "big") for k in range(n)]
    files = {FILE._replace(path=content): content for content in contents}
    assert cache.claim(A, contents) == ({}, set(contents))
    cache.keep(A, {content: row_of(1, 2) for content in contents}, files)
    assert len(cache.rows_of(A, contents)) == n
    assert cache.contents_of(list(files)) == files
    rows, mine = cache.claim(A, contents)
    assert (len(rows), mine) == (n, set())


def test_a_batch_is_kept_whole_or_not_at_all(cache, folder):
    not_text = FILE._replace(size="a lone surrogate \ud800")
    with pytest.raises(UnicodeEncodeError):
        keep(cache, A, 1, files={FILE: b"\1", not_text: b"\1"})
    with pytest.raises(sqlite3.ProgrammingError):
        cache._database.write(lambda connection: _insert_then_fail(connection))
    assert known(cache, A, 1) == []
    assert cache.contents_of([FILE]) == {}
    assert keep(cache, A, 1)  # no transaction was left open


def _insert_then_fail(connection):
    connection.execute("INSERT INTO rows VALUES (?, x'01', x'00', 0)", [A])
    connection.execute("INSERT INTO rows VALUES (?, ?, ?, ?)", [A])


def test_an_interrupt_leaves_no_transaction_open(folder):
    def interrupted(connection):
        _insert = "INSERT INTO counts VALUES ('hits', 1)"
        connection.execute(_insert)
        raise KeyboardInterrupt

    with EmbeddingCache(folder) as cache:
        with pytest.raises(KeyboardInterrupt):
            cache._database.write(interrupted)
        assert cache.info().hits == 0
        with EmbeddingCache(folder) as other:
            assert keep(other, A, 1)


def test_what_is_held_and_used_is_counted(cache, folder):
    assert cache.info()._replace(bytes=0) == CacheInfo(0, 0, 0, 0)
    keep(cache, A, 1, 2)
    keep(cache, B, 1)
    cache.count(hits=3, misses=4)
    with EmbeddingCache(folder) as other:
        other.count(hits=1, misses=0)
    rows, n_bytes, hits, misses = cache.info()
    assert (rows, hits, misses) == (3, 4, 4)
    assert n_bytes == sum(
        file.stat().st_size for file in folder.iterdir() if "shm" not in file.name
    )


def test_clearing_forgets_everything_and_gives_the_space_back(cache, folder):
    empty = cache.info().bytes
    for k in range(20):
        cache.keep(A, {bytes([k]): row_of(k, 50_000)}, {FILE: b"content"})
    cache.describe("identity", {})
    cache.count(1, 1)
    assert cache.info().bytes > 2_000_000
    cache.clear()
    assert cache.info()._replace(bytes=0) == CacheInfo(0, 0, 0, 0)
    assert cache.info().bytes <= empty
    assert known(cache, A, *range(20)) == []
    assert cache.contents_of([FILE]) == {}
    assert cache.described("identity") is None


def test_clearing_removes_files_that_were_damaged_and_no_others(folder):
    folder.mkdir()
    for k in range(11):
        (folder / f"embeddings-v1.{k}.sqlite").touch()
        (folder / f"embeddings-v1.{k}.sqlite-wal").touch()
    others = ["embeddings-v1-host.0.sqlite", "embeddings-v2.0.sqlite", "notes.txt"]
    for name in others:
        (folder / name).touch()
    with EmbeddingCache(folder) as cache:
        keep(cache, A, 1)
        cache.clear()
    assert sorted(os.listdir(folder)) == sorted([*others, "embeddings-v1.10.sqlite"])


# Claims ------------------------------------------------------------------------------


def test_an_image_is_embedded_by_the_run_that_claimed_it_first(folder):
    contents = [b"\1", b"\2"]
    with EmbeddingCache(folder) as first, EmbeddingCache(folder) as second:
        assert first.claim(A, contents) == ({}, set(contents))
        assert first.claim(A, contents) == ({}, set(contents))
        assert second.claim(A, [*contents, b"\3"]) == ({}, {b"\3"})
        assert second.claim(B, contents) == ({}, set(contents))
        keep(first, A, 1)
        rows, mine = second.claim(A, contents)
        assert (rows.keys(), mine) == ({b"\1"}, set())


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_a_run_that_ends_gives_up_what_it_has_claimed(folder, error):
    with EmbeddingCache(folder) as second:
        with contextlib.suppress(ValueError, KeyboardInterrupt):
            with EmbeddingCache(folder) as first:
                first.claim(A, [b"\1"])
                if error is not None:
                    raise error
        (n_claims,) = second._database.ask(
            lambda c: c.execute("SELECT count(*) FROM claims").fetchone(), None
        )
        assert n_claims == 0


def test_a_run_that_could_not_give_up_its_claims_holds_nothing(folder, monkeypatch):
    with EmbeddingCache(folder) as first:
        first.claim(A, [b"\1"])
        first._database.can_write = False  # as on a full disk
    with EmbeddingCache(folder) as second:
        assert second.claim(A, [b"\1"]) == ({}, {b"\1"})


def test_claims_of_a_killed_process_are_taken_over_at_once(folder):
    program = (
        "import sys, os, signal\n"
        "from sklearn_clipsid._embedding_cache import EmbeddingCache\n"
        "cache = EmbeddingCache(sys.argv[1]).__enter__()\n"
        "cache.claim(b'a setting', [b'1'])\n"
        "print('claimed', flush=True)\n"
        "input()\n"
    )
    with (
        EmbeddingCache(folder) as cache,
        subprocess.Popen(
            [sys.executable, "-c", program, folder], stdin=-1, stdout=-1, text=True
        ) as process,
    ):
        assert process.stdout.readline() == "claimed\n"
        assert cache.claim(A, [b"1"]) == ({}, set())
        process.kill()
        deadline = time.monotonic() + 10
        while not cache.claim(A, [b"1"])[1] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert cache.claim(A, [b"1"]) == ({}, {b"1"})


def test_claims_of_another_host_are_taken_over_when_they_have_expired(
    folder, monkeypatch
):
    with EmbeddingCache(folder) as there, EmbeddingCache(folder) as here:
        there.claim(A, [b"\1"])
        monkeypatch.setattr(_claim_owner, "_place", lambda: "another host")
        assert here.claim(A, [b"\1"]) == ({}, set())
        monkeypatch.setattr(_claim_owner, "UNSEEN_SECONDS", 0.0)
        assert here.claim(A, [b"\1"]) == ({}, {b"\1"})


@pytest.mark.parametrize("owner", ["", "no owner", "1|2", "-5|||"])
@pytest.mark.parametrize("since", [0.0, 1e300, -1e300, "text", float("inf")])
def test_a_claim_that_no_run_has_written_holds_nothing(cache, owner, since):
    cache._database.write(
        lambda connection: connection.execute(
            "INSERT INTO claims VALUES (?, ?, ?, ?)", (A, b"\1", owner, since)
        )
    )
    assert cache.claim(A, [b"\1"]) == ({}, {b"\1"})


# Connections -------------------------------------------------------------------------


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="Linux alone tells")
@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_the_connections_of_all_threads_are_closed(folder, error):
    with contextlib.suppress(ValueError, KeyboardInterrupt):
        with EmbeddingCache(folder) as cache, ThreadPoolExecutor(4) as pool:
            keep(cache, A, 1)
            barrier = threading.Barrier(4)

            def work(_):
                barrier.wait(30)
                return known(cache, A, 1, 2)

            assert list(pool.map(work, range(4))) == [[1]] * 4
            assert len(open_files(folder)) >= 5
            if error is not None:
                raise error
    assert open_files(folder) == []
    assert os.listdir(folder) == [NAME]  # no journal is left either


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="Linux alone tells")
def test_connections_of_threads_that_ended_do_not_pile_up(cache, folder):
    for _ in range(20):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(known, cache, A, 1).result()
    # SQLite opens the file, its journal and its index of the journal.
    assert len(open_files(folder)) <= 3 * 3


def test_a_log_that_cannot_be_read_is_tried_for_once_in_a_run(folder, monkeypatch):
    def fail(connection, journal):
        time.sleep(0.01)  # ten seconds, in SQLite
        error = sqlite3.OperationalError("locking protocol")
        error.sqlite_errorcode = sqlite3.SQLITE_PROTOCOL
        raise error

    with EmbeddingCache(folder) as cache:
        keep(cache, A, 1)
    modes, open_ = [], _cache_database._open
    monkeypatch.setattr(
        _cache_database,
        "_open",
        lambda path, mode: modes.append(mode) or open_(path, mode),
    )
    monkeypatch.setattr(_cache_database, "_prepare", fail)
    with contextlib.ExitStack() as stack:
        with pytest.warns(UserWarning, match=r"Cannot write .*locking protocol"):
            cache = stack.enter_context(EmbeddingCache(folder))
        for _ in range(3):
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(known, cache, A, 1).result() == [1]
    assert modes == ["rwc"] + 4 * ["ro&immutable=1"]


def test_threads_and_runs_may_read_write_and_clear_at_once(folder):
    deadline = time.monotonic() + 1

    def work(seed):
        rng = np.random.default_rng(seed)
        with EmbeddingCache(folder) as cache:
            while time.monotonic() < deadline:
                k, other = (int(v) for v in rng.integers(50, size=2))
                keep(cache, A, k, files={FILE: bytes([k])})
                for row in cache.rows_of(A, [bytes([other])]).values():
                    np.testing.assert_array_equal(row, other)
                if k == 0:
                    cache.clear()
            return True

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))


def test_sixteen_runs_may_begin_one_database_at_once(folder):
    barrier = threading.Barrier(16)

    def begin(k):
        barrier.wait(30)
        with EmbeddingCache(folder) as cache:
            return keep(cache, A, k)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(begin, range(16)))
    with EmbeddingCache(folder) as cache:
        assert known(cache, A, *range(16)) == list(range(16))
    assert os.listdir(folder) == [NAME]


def test_batches_are_written_to_a_log_and_not_waited_for(cache):
    def pragma(name):
        return cache._database.ask(
            lambda c: c.execute(f"PRAGMA {name}").fetchone()[0], None
        )

    assert pragma("journal_mode") == "wal"
    assert pragma("synchronous") == 1  # NORMAL
    assert pragma("page_size") == 16384


# Folders -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["with space", "a#b?c=d&e", "50%41", "für", os.fsdecode(b"\xff\xfe")]
)
def test_a_folder_may_have_any_name(tmp_path, name):
    for folder in (tmp_path / name, str(tmp_path / name)):
        with EmbeddingCache(folder) as cache:
            keep(cache, A, 1)
            assert known(cache, A, 1) == [1]
    assert os.listdir(tmp_path / name) == [NAME]


def test_a_tilde_is_the_home_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with EmbeddingCache("~/cache") as cache:
        keep(cache, A, 1)
    assert (tmp_path / "cache" / NAME).exists()
    assert not (tmp_path / "~").exists()


def test_a_relative_folder_stays_where_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with EmbeddingCache("cache") as cache:
        monkeypatch.chdir("/")
        keep(cache, A, 1)
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(known, cache, A, 1).result() == [1]
    assert (tmp_path / "cache" / NAME).exists()


def test_folders_are_created_as_deep_as_they_are_named(tmp_path):
    with EmbeddingCache(tmp_path / "a" / "b" / "c"):
        assert (tmp_path / "a" / "b" / "c" / NAME).exists()


def test_an_empty_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for ask in (EmbeddingCache("").__enter__, EmbeddingCache("").is_there):
        with pytest.raises(ValueError, match=r"cache_dir='' .* pass '\.'"):
            ask()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("file", "File exists|Not a directory"),
        ("file/cache", "Not a directory"),
        ("nul\0", "null byte"),
        ("x" * 300, "File name too long"),
        ("dangling", "File exists|No such file"),
        ("/proc/cache", "No such file|Permission denied|not permitted"),
    ],
    ids=["file", "below a file", "NUL", "long", "dangling link", "not creatable"],
)
def test_what_cannot_be_a_folder_is_named_with_the_reason(tmp_path, name, reason):
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "dangling").symlink_to(tmp_path / "missing")
    with pytest.raises(ValueError, match=rf"(?s)Got cache_dir=.*({reason}).*choose"):
        EmbeddingCache(tmp_path / name).__enter__()
    assert (tmp_path / "file").read_text() == "not a folder"


def test_asking_whether_there_is_a_cache_creates_nothing(tmp_path, folder):
    assert not EmbeddingCache(folder).is_there()
    assert os.listdir(tmp_path) == []
    folder.mkdir()
    assert not EmbeddingCache(folder).is_there()
    assert os.listdir(folder) == []
    with EmbeddingCache(folder):
        assert EmbeddingCache(folder).is_there()
    assert EmbeddingCache(folder).is_there()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="no folder that can be used"):
        EmbeddingCache(tmp_path / "file").is_there()


# Network drives ----------------------------------------------------------------------


@pytest.fixture
def on_network(monkeypatch):
    monkeypatch.setattr(_cache_database, "is_network_drive", lambda folder: True)
    monkeypatch.setattr(_cache_database.platform, "node", lambda: "node 7/β")


def test_on_a_network_drive_each_host_has_a_database_with_a_rollback_journal(
    folder, on_network
):
    with contextlib.ExitStack() as stack:
        with pytest.warns(UserWarning, match=r"network drive.* local disk") as warned:
            cache = stack.enter_context(EmbeddingCache(folder))
        assert len(warned) == 1
        mode = cache._database.ask(
            lambda c: c.execute("PRAGMA journal_mode").fetchone()[0], None
        )
        assert mode == "delete"
        keep(cache, A, 1)
        assert os.listdir(folder) == ["embeddings-v1-node-7--.0.sqlite"]
        assert EmbeddingCache(folder).is_there()
    with pytest.warns(UserWarning, match="network drive"), EmbeddingCache(folder) as it:
        assert known(it, A, 1) == [1]


@pytest.mark.filterwarnings("ignore:.*network drive")
def test_runs_on_a_network_drive_may_read_and_write_at_once(folder, on_network):
    def work(seed):
        with EmbeddingCache(folder) as cache:
            for k in range(seed, 60, 4):
                assert cache.claim(A, [bytes([k])])[1]
                keep(cache, A, k)
                known(cache, A, *range(60))
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
    with EmbeddingCache(folder) as cache:
        assert known(cache, A, *range(60)) == list(range(60))
