"""What is kept outlives kills, crowds, full disks, forbidden folders and damage."""

import contextlib
import ctypes
import multiprocessing
import os
import resource
import shutil
import signal
import sqlite3
import threading
import time
import warnings
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sklearn_clipsid import CLIPEmbedder, _cache_database
from sklearn_clipsid._content_hash import SETTLED_NS

pytestmark = pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(),
    reason="processes are forked from one that has imported torch",
)
NAME = "embeddings-v1.0.sqlite"
NEXT_NAME = "embeddings-v1.1.sqlite"
N_IMAGES = 24
NOBODY = 65534


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Paths of small images that any user may read."""
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(3)
    paths = []
    for index in range(N_IMAGES):
        pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        paths.append(str(folder / f"{index}.png"))
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def expected(tiny_clip, images):
    """Rows of the images, embedded with nothing known."""
    return CLIPEmbedder(pretrained=tiny_clip, batch_size=2)._embed_apart(images).rows


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def embedder(tiny_clip, folder, fresh_memo):
    return CLIPEmbedder(pretrained=tiny_clip, batch_size=2, cache_dir=folder)


@pytest.fixture
def later(monkeypatch):
    """Move the clock: waiting for files to settle would take seconds."""
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 2 * SETTLED_NS)


def integrity(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall()


def n_rows(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        tables = "SELECT count(*) FROM sqlite_master WHERE name = 'rows'"
        if connection.execute(tables).fetchone() == (0,):
            return 0
        return connection.execute("SELECT count(*) FROM rows").fetchone()[0]


@contextlib.contextmanager
def heard():
    """List the messages of warnings, which are no errors meanwhile."""
    messages = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield messages
    messages.extend(str(warning.message) for warning in caught)


# Processes ---------------------------------------------------------------------------


class Child:
    """A process that runs a function, forked from one that has imported torch."""

    context = multiprocessing.get_context("forkserver")
    # What children need is slow to import. torch must not be used before a fork.
    context.set_forkserver_preload(
        [
            "open_clip",
            "PIL.Image",
            "pytest",
            "safetensors.torch",
            "sklearn.linear_model",
            "sklearn.model_selection",
            "sklearn_clipsid._clip_embedder",
            "sklearn_clipsid._embedding_cache",
            "torchvision.transforms",
        ]
    )

    def __init__(self, function, *args):
        self.pipe, theirs = self.context.Pipe()
        self.process = self.context.Process(
            target=_answer, args=(theirs, function, args), daemon=True
        )
        self.process.start()
        theirs.close()

    @property
    def pid(self):
        return self.process.pid

    def hear(self):
        """Wait for what it says next."""
        assert self.pipe.poll(120), "the process says nothing"
        said = self.pipe.recv()
        if isinstance(said, BaseException):
            raise said
        return said

    def tell(self, what):
        self.pipe.send(what)

    def kill(self):
        with contextlib.suppress(ProcessLookupError):  # it has come to its end
            os.kill(self.pid, signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.join()
        self.process.close()
        self.pipe.close()


def _answer(pipe, function, args):
    import torch

    torch.set_num_threads(1)
    with heard() as messages:
        try:
            answer = function(pipe, *args)
        except BaseException as error:
            answer = error
    pipe.send(answer if isinstance(answer, BaseException) else (answer, messages))


def in_child(function, *args):
    """Return what a function returns in a process of its own, and its warnings."""
    with Child(function, *args) as child:
        return child.hear()


def in_children(n, function, *args):
    """Start a function in several processes at the same moment."""
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(Child(function, *args)) for _ in range(n)]
        for child in children:
            assert child.hear() == "ready"
        for child in children:
            child.tell("go")
        return [child.hear() for child in children]


def on_encode(before=lambda: None, after=lambda: None):
    """Call something around each forward pass; return digests of what is embedded."""
    from sklearn_clipsid._clip._tower import ImageTower

    digests, encode = [], ImageTower.encode

    def watched(tower, pixels, features):
        before()
        digests.extend(blake2b(p.tobytes()).hexdigest() for p in pixels)
        rows = encode(tower, pixels, features)
        after()
        return rows

    ImageTower.encode = watched
    return digests


def embed(pipe, embedder, images):
    digests = on_encode()
    return embedder.transform(images), digests


def embed_together(pipe, embedder, images, on_network=False):
    digests = on_encode()
    if on_network:
        _cache_database.is_network_drive = lambda folder: True
    pipe.send("ready")
    pipe.recv()
    return embedder.transform(images), digests


def embed_slowly(pipe, embedder, images):
    embedder._image_tower()
    on_encode(after=lambda: time.sleep(0.01))
    pipe.send("ready")
    pipe.recv()
    return embedder.transform(images)


def embed_when_told(pipe, embedder, images):
    """Stop in the first forward pass until something is heard."""
    told = []

    def wait():
        if not told:
            pipe.send("begun")
            told.append(pipe.recv())

    digests = on_encode(before=wait)
    return embedder.transform(images), digests


# Kills -------------------------------------------------------------------------------


def killed_at_random(embedder, images, folder):
    """Yield folders in which runs were killed, each at another moment."""
    rng = np.random.default_rng()
    embedders = [
        CLIPEmbedder(**{**embedder.get_params(), "cache_dir": folder / str(k)})
        for k in range(20)
    ]
    with contextlib.ExitStack() as stack:
        started = []
        for k, embedder in enumerate(embedders):
            for later in embedders[len(started) : k + 3]:  # they take a while to start
                child = Child(embed_slowly, later, images)
                started.append(stack.enter_context(child))
            assert started[k].hear() == "ready"
            started[k].tell("go")
            time.sleep(rng.uniform(0, 0.25))
            started[k].kill()
            started[k].process.join()
            yield embedder


def test_a_run_killed_at_twenty_random_moments_loses_nothing(
    embedder, images, expected, encoded, folder
):
    numbers_kept = set()
    for interrupted in killed_at_random(embedder, images, folder):
        path = interrupted.cache_dir / NAME
        n_kept = 0
        if path.exists():
            assert integrity(path) == [("ok",)]
            n_kept = n_rows(path)
        del encoded[:]
        begun = time.monotonic()
        np.testing.assert_array_equal(interrupted.transform(images), expected)
        assert sum(encoded) == N_IMAGES - n_kept
        assert time.monotonic() - begun < 30, "it waited for a dead process"
        assert os.listdir(interrupted.cache_dir) == [NAME]
        numbers_kept.add(n_kept)
    assert len(numbers_kept) > 1, "the moments were not random"


def keep_and_die(pipe, embedder, images, moment, n_batches):
    kept, transaction = [], _cache_database._transaction

    @contextlib.contextmanager
    def deadly(connection):
        with transaction(connection):
            before = connection.total_changes
            yield
            kept.append(connection.total_changes - before > 4)  # rows and files
            if moment == "before" and sum(kept) == n_batches:
                os.kill(os.getpid(), signal.SIGKILL)
        if moment == "after" and sum(kept) == n_batches:
            os.kill(os.getpid(), signal.SIGKILL)

    _cache_database._transaction = deadly
    now = time.time_ns
    time.time_ns = lambda: now() + 2 * SETTLED_NS
    embedder.transform(images)


@pytest.mark.parametrize(("moment", "n_kept"), [("before", 4), ("after", 6)])
def test_a_batch_is_kept_once_it_is_committed(
    embedder, images, expected, encoded, folder, moment, n_kept
):
    with Child(keep_and_die, embedder, images, moment, 3) as child:
        child.process.join(60)
        assert child.process.exitcode == -signal.SIGKILL
    assert integrity(folder / NAME) == [("ok",)]
    assert n_rows(folder / NAME) == n_kept
    np.testing.assert_array_equal(embedder.transform(images), expected)
    assert sum(encoded) == N_IMAGES - n_kept


def create_and_die(pipe, folder, n_statements):
    connect = sqlite3.connect

    class Deadly(sqlite3.Connection):
        n_done = 0

        def execute(self, *args):
            if self.n_done == n_statements:
                os.kill(os.getpid(), signal.SIGKILL)
            self.n_done += 1
            return super().execute(*args)

    sqlite3.connect = lambda *args, **options: connect(*args, **options, factory=Deadly)
    from sklearn_clipsid._embedding_cache import EmbeddingCache

    EmbeddingCache(folder).__enter__()


def test_a_database_is_whole_whenever_its_creation_was_cut_short(
    embedder, images, expected, tmp_path, encoded
):
    for n_statements in range(12):
        cache_dir = tmp_path / str(n_statements)
        with Child(create_and_die, cache_dir, n_statements) as child:
            child.process.join(60)
            assert child.process.exitcode == -signal.SIGKILL
        embedder.set_params(cache_dir=cache_dir)
        np.testing.assert_array_equal(embedder.transform(images[:2]), expected[:2])
        assert os.listdir(cache_dir) == [NAME]
        assert embedder.cache_info().rows == 2


def test_images_of_a_killed_run_are_taken_over_at_once(
    embedder, images, expected, encoded
):
    with Child(embed_when_told, embedder, images) as child:
        assert child.hear() == "begun"
        timer = threading.Timer(0.3, child.kill)
        timer.start()
        begun = time.monotonic()
        np.testing.assert_allclose(embedder.transform(images), expected, atol=1e-6)
        assert 0.3 < time.monotonic() - begun < 30
        timer.join()
    assert sum(encoded) == N_IMAGES


def test_images_of_a_living_run_are_waited_for(embedder, images, expected, encoded):
    with Child(embed_when_told, embedder, images) as child:
        assert child.hear() == "begun"
        timer = threading.Timer(0.3, child.tell, ["go on"])
        timer.start()
        np.testing.assert_allclose(embedder.transform(images), expected, atol=1e-6)
        timer.join()
        (rows, digests), messages = child.hear()
    np.testing.assert_allclose(rows, expected, atol=1e-6)
    assert messages == []
    assert len(digests) >= 2
    assert sum(encoded) + len(digests) == N_IMAGES


# Crowds ------------------------------------------------------------------------------


@pytest.mark.parametrize("on_network", [False, True], ids=["local", "network"])
def test_four_processes_that_begin_together_share_the_work(
    embedder, images, expected, folder, on_network
):
    for n_embedded in (1, 0):
        answers = in_children(4, embed_together, embedder, images, on_network)
        embedded = [digest for (_, digests), _ in answers for digest in digests]
        for (rows, _), messages in answers:
            np.testing.assert_allclose(rows, expected, atol=1e-6)
            assert all("network drive" in message for message in messages)
        # Twice at most is asked for.
        assert len(embedded) == len(set(embedded)) == n_embedded * N_IMAGES
    # Those that close at the same moment may each leave the journals to the others.
    (name,) = (name for name in os.listdir(folder) if name.endswith(".sqlite"))
    assert n_rows(folder / name) == N_IMAGES
    assert integrity(folder / name) == [("ok",)]


def test_processes_in_different_orders_and_batches_lose_no_row(
    embedder, images, expected, folder
):
    with contextlib.ExitStack() as stack:
        orders = [np.random.default_rng(k).permutation(N_IMAGES) for k in range(4)]
        children = [
            stack.enter_context(
                Child(
                    embed_together,
                    CLIPEmbedder(**{**embedder.get_params(), "batch_size": k + 1}),
                    [images[i] for i in order],
                )
            )
            for k, order in enumerate(orders)
        ]
        for child in children:
            child.hear()
            child.tell("go")
        for order, child in zip(orders, children):
            (rows, _), messages = child.hear()
            np.testing.assert_allclose(rows[np.argsort(order)], expected, atol=1e-5)
            assert messages == []
    assert n_rows(folder / NAME) == embedder.cache_info().misses == N_IMAGES


@pytest.mark.parametrize("is_settled", [True, False])
def test_an_image_overwritten_meanwhile_gets_its_new_row_in_other_processes(
    embedder, images, expected, tmp_path, request, is_settled
):
    if is_settled:
        request.getfixturevalue("later")
    path = tmp_path / "image.bmp"
    Image.open(images[0]).save(path)
    times = os.stat(path).st_atime_ns, os.stat(path).st_mtime_ns
    np.testing.assert_allclose(embedder.transform([path])[0], expected[0], atol=1e-6)
    time.sleep(0.02)  # one tick of the file system's clock
    Image.open(images[1]).save(path)
    os.utime(path, ns=times)
    (rows, digests), _ = in_child(embed, embedder, [str(path)])
    np.testing.assert_allclose(rows[0], expected[1], atol=1e-6)
    assert len(digests) == 1


def clear_again_and_again(pipe, embedder):
    for _ in range(20):
        embedder.clear_cache()
        time.sleep(0.005)


def test_clearing_by_another_process_breaks_no_run(embedder, images, expected):
    with Child(clear_again_and_again, embedder) as child:
        for _ in range(5):
            np.testing.assert_allclose(embedder.transform(images), expected, atol=1e-6)
        assert child.hear() == (None, [])
    embedder.transform(images)
    assert embedder.cache_info().rows == N_IMAGES


def test_a_grid_search_in_two_processes_embeds_each_image_once(
    embedder, images, encoded
):
    search = GridSearchCV(
        make_pipeline(embedder, RidgeClassifier()),
        {"ridgeclassifier__alpha": [0.1, 1, 10, 100]},
        cv=5,
        n_jobs=2,
        error_score="raise",
        refit=False,
    )
    y = np.arange(N_IMAGES) % 2
    search.fit(images, y)
    # Twice at most is asked for.
    assert embedder.cache_info().misses == embedder.cache_info().rows == N_IMAGES
    search.fit(images, y)
    assert embedder.cache_info().misses == N_IMAGES
    assert embedder.cache_info().hits == 2 * 4 * 5 * N_IMAGES - N_IMAGES
    assert encoded == []  # all in the workers


# Damage ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def intact(tmp_path_factory, tiny_clip, images):
    """Files of a database of many small pages, once closed and once in use."""
    folder, found = tmp_path_factory.mktemp("intact"), {}
    now = time.time_ns
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: now() + 2 * SETTLED_NS)
        patch.setattr(_cache_database, "PAGE_BYTES", 512)
        embedder = CLIPEmbedder(pretrained=tiny_clip, batch_size=2, cache_dir=folder)
        embedder.transform(images[::2])
        found["closed"] = {NAME: (folder / NAME).read_bytes()}
        with contextlib.closing(sqlite3.connect(folder / NAME)) as connection:
            connection.execute("SELECT count(*) FROM rows").fetchone()
            embedder.transform(images)
            found["in use"] = {
                path.name: path.read_bytes()
                for path in folder.iterdir()
                if not path.name.endswith("-shm")
            }
        found["whole"] = {NAME: (folder / NAME).read_bytes()}
    assert found["in use"].keys() == {NAME, f"{NAME}-wal"}
    return found


def written(folder, files):
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def flipped(data, index, bit=3):
    return data[:index] + bytes([data[index] ^ 1 << bit]) + data[index + 1 :]


def foreign_database(folder, *statements):
    folder.mkdir(exist_ok=True)
    with contextlib.closing(sqlite3.connect(folder / NAME)) as connection:
        for statement in statements:
            connection.execute(statement)


DAMAGES = {
    "garbage at the start": lambda data, _: b"garbage" * 20 + data[140:],
    "garbage throughout": lambda data, _: np.random.default_rng(0).bytes(len(data)),
    "no database at all": lambda data, _: b"a letter to a friend\n" * 100,
    "cut in the middle": lambda data, _: data[: len(data) // 2],
    "cut after the header": lambda data, _: data[:600],
    "overwritten in the middle": lambda data, _: (
        data[:4096]
        + np.random.default_rng(1).bytes(len(data) - 8192)
        + data[len(data) - 4096 :]
    ),
    "all but the header zero": lambda data, _: data[:512] + bytes(len(data) - 512),
    "a bit of the schema": lambda data, _: flipped(
        data, data.index(b"CREATE TABLE rows") + 8, 7
    ),
    "a text that is none": lambda data, _: data.replace(
        b'{"architecture"', b'{"archi\xff\x00\x07ure"'
    ),
    "a bit of a row": lambda data, row: flipped(data, data.index(row[:40]) + 20),
    "a bit of an encoder": lambda data, _: flipped(
        data, data.index(b'"weights"') + 14, 0
    ),
    "a bit of a file": lambda data, _: flipped(data, data.index(b"/23.png") + 12),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_database_is_left_and_built_anew(
    embedder, images, expected, encoded, folder, intact, how, later
):
    data = DAMAGES[how](intact["whole"][NAME], expected[7].tobytes())
    written(folder, {NAME: data})
    with pytest.warns(UserWarning, match=rf"{NAME}' is damaged .*{NEXT_NAME}") as said:
        rows = embedder.transform(images)
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert [warning.filename for warning in said] == [__file__]
    assert str(said[0].message).isprintable()
    assert sorted(os.listdir(folder)) == [NAME, NEXT_NAME]
    n_embedded = sum(encoded)
    np.testing.assert_array_equal(embedder.transform(images), rows)
    assert sum(encoded) == n_embedded
    # No row was read from the damaged one without being kept in the new one, but for
    # those that were found before the damage was.
    assert embedder.cache_info().misses == n_embedded
    if how != "a bit of a row":
        assert n_embedded == N_IMAGES
        assert (folder / NAME).read_bytes() == data


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE rows (a, b)", "CREATE TABLE claims (c)"],
        ["CREATE TABLE rows (setting, content, row, checksum)"],
        ["CREATE TABLE claims (setting, content, owner, since)"],
        ["CREATE TABLE files (name TEXT)"],
        ["CREATE VIEW rows AS SELECT 1 AS setting", "CREATE TABLE claims (c)"],
        [
            "CREATE TABLE rows (setting, content, row, checksum CHECK (checksum < 0))",
            "CREATE TABLE IF NOT EXISTS counts (name UNIQUE, value)",
        ],
    ],
    ids=["other columns", "no key", "claims alone", "files", "view", "constraint"],
)
def test_tables_of_others_are_left_alone(
    embedder, images, expected, encoded, folder, statements
):
    foreign_database(folder, *statements)
    with heard() as messages:
        rows = embedder.transform(images)
        embedder.cache_info()
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert len(messages) <= 1
    assert all("is damaged" in message for message in messages)
    np.testing.assert_array_equal(embedder.transform(images), rows)
    assert embedder.cache_info().rows == N_IMAGES


@pytest.mark.parametrize("how", ["empty", "only a header", "garbage log", "other log"])
def test_what_a_kill_may_leave_is_no_damage(
    embedder, images, expected, encoded, folder, intact, how
):
    files = dict(intact["closed"])
    if how == "empty":
        files = {NAME: b""}
    elif how == "only a header":
        foreign_database(folder, "PRAGMA journal_mode = WAL")
        files = {}
    elif how == "garbage log":
        files[f"{NAME}-wal"] = np.random.default_rng(0).bytes(20_000)
    else:
        log = intact["in use"][f"{NAME}-wal"]
        files[f"{NAME}-wal"] = log[: len(log) // 2 - 100]
    written(folder, files)
    np.testing.assert_allclose(embedder.transform(images), expected, atol=1e-5)
    assert sum(encoded) <= (N_IMAGES // 2 if files.get(NAME) else N_IMAGES)
    assert os.listdir(folder) == [NAME]
    assert integrity(folder / NAME) == [("ok",)]


def corrupted(data, rng):
    """Damage the bytes of a file in one of many ways."""
    data, kind = bytearray(data), rng.integers(8)
    at, other = (int(k) for k in rng.integers(len(data), size=2))
    page, another = (k // 512 * 512 for k in (at, other))
    if kind <= 2:
        data[at] ^= 1 << rng.integers(8)
    elif kind == 3:
        n = int(rng.integers(1, 200))
        data[at : at + n] = rng.bytes(len(data[at : at + n]))
    elif kind == 4:
        data[page : page + 512] = bytes(512)
    elif kind == 5:
        data[page : page + 512] = data[another : another + 512]
    elif kind == 6:
        del data[at:]
    else:
        del data[page : page + 512]
    return bytes(data)


@pytest.mark.parametrize("state", ["whole", "in use"])
def test_no_corruption_gives_a_wrong_row_or_an_error_without_words(
    embedder, images, expected, tmp_path, intact, state, later
):
    embedder.set_params(batch_size=N_IMAGES, decode_threads=1)
    n_noticed = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        files = dict(intact[state])
        name = rng.choice(sorted(files))
        files[name] = corrupted(files[name], rng)
        written(tmp_path / str(seed), files)
        embedder.set_params(cache_dir=tmp_path / str(seed))
        with heard() as messages:
            rows = embedder.transform(images)
            embedder.cache_info()
            again = embedder.transform(images[::-1])[::-1]
        np.testing.assert_allclose(rows, expected, atol=1e-5, err_msg=f"seed {seed}")
        np.testing.assert_allclose(again, expected, atol=1e-5, err_msg=f"seed {seed}")
        assert all("is damaged" in message for message in messages), messages
        assert len(messages) <= 1
        n_noticed += len(messages)
        if seed % 10 == 0:
            embedder.clear_cache()
            assert embedder.cache_info().rows == 0
    # Most bytes matter; a log is checked and cut off by SQLite itself.
    assert n_noticed > 10


def test_processes_that_find_damage_together_build_one_database(
    embedder, images, expected, folder, intact
):
    damage = DAMAGES["a bit of a row"]
    data = damage(intact["whole"][NAME], expected[7].tobytes())
    written(folder, {NAME: data})
    for (rows, _), messages in in_children(4, embed_together, embedder, images):
        np.testing.assert_allclose(rows, expected, atol=1e-5)
        assert [NEXT_NAME in message for message in messages] in ([True], [])
    assert sorted(os.listdir(folder)) == [NAME, NEXT_NAME]
    assert integrity(folder / NEXT_NAME) == [("ok",)]
    np.testing.assert_allclose(embedder.transform(images), expected, atol=1e-5)


def test_damage_that_a_decoding_thread_finds_is_told_at_the_users_line(
    embedder, images, expected, folder, intact
):
    damage = DAMAGES["a bit of a row"]
    data = damage(intact["whole"][NAME], expected[7].tobytes())
    written(folder, {NAME: data})
    with pytest.warns(UserWarning, match="is damaged") as said:
        # Without a path, the content is known to the thread that hashes it alone.
        rows = embedder.transform([Path(path).read_bytes() for path in images])
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert [warning.filename for warning in said] == [__file__]


def test_a_disk_that_damages_every_file_is_done_without(
    embedder, images, expected, folder, monkeypatch
):
    prepare = _cache_database._prepare

    def prepare_badly(connection, journal):
        prepare(connection, journal)
        connection.execute("DROP TABLE IF EXISTS rows")

    monkeypatch.setattr(_cache_database, "_prepare", prepare_badly)
    with heard() as messages:
        np.testing.assert_allclose(embedder.transform(images), expected, atol=1e-5)
    assert ["is damaged" in message for message in messages] == [True] * 3 + [False] * 2
    assert "Cannot write" in messages[3] and "Cannot read" in messages[4]


# Full disks --------------------------------------------------------------------------


def test_a_full_disk_costs_no_row_and_no_database(
    embedder, images, expected, encoded, folder, monkeypatch
):
    open_ = _cache_database._open

    def small(path, mode):
        connection = open_(path, mode)
        if "ro" not in mode:
            connection.execute("PRAGMA page_size = 512")
            connection.execute("PRAGMA max_page_count = 24")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(_cache_database, "_open", small)
        patch.setattr(_cache_database, "PAGE_BYTES", 512)
        with pytest.warns(UserWarning, match="Cannot write") as said:
            rows = embedder.transform(images)
    np.testing.assert_array_equal(rows, expected)
    assert len(said) == 1
    assert said[0].filename == __file__
    assert str(folder) in str(said[0].message)
    assert "disk is full" in str(said[0].message)
    assert integrity(folder / NAME) == [("ok",)]
    n_kept = n_rows(folder / NAME)
    assert 0 < n_kept < N_IMAGES
    # There is room again; what was claimed before is claimed by nobody now.
    del encoded[:]
    begun = time.monotonic()
    np.testing.assert_allclose(embedder.transform(images), expected, atol=1e-6)
    assert sum(encoded) == N_IMAGES - n_kept
    assert time.monotonic() - begun < 30
    assert embedder.cache_info().rows == N_IMAGES


def test_rows_that_find_no_room_on_the_disk_are_remembered_by_the_process(
    embedder, images, expected, encoded, monkeypatch
):
    open_ = _cache_database._open

    def full(path, mode):
        connection = open_(path, mode)
        connection.execute("PRAGMA max_page_count = 1")
        return connection

    monkeypatch.setattr(_cache_database, "PAGE_BYTES", 512)
    embedder.fit(images)
    monkeypatch.setattr(_cache_database, "_open", full)
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"Cannot write .*disk is full"):
            np.testing.assert_array_equal(embedder.transform(images), expected)
    assert sum(encoded) == N_IMAGES


def embed_with_small_files(pipe, embedder, images, n_bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))
    rows = embedder.transform(images)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    )
    return rows


@pytest.mark.parametrize("n_bytes", [0, 1, 20_000, 40_000, 100_000, 250_000])
def test_files_that_may_not_grow_cost_no_row_and_no_database(
    embedder, images, expected, encoded, folder, n_bytes
):
    rows, messages = in_child(embed_with_small_files, embedder, images, n_bytes)
    np.testing.assert_allclose(rows, expected, atol=1e-6)
    assert any("Cannot write" in message for message in messages), messages
    assert all(str(folder) in message for message in messages)
    assert not any("damaged" in message for message in messages)
    if (folder / NAME).exists():
        assert integrity(folder / NAME) == [("ok",)]
    np.testing.assert_allclose(embedder.transform(images), expected, atol=1e-6)
    assert embedder.cache_info().rows == N_IMAGES
    assert (sum(encoded) < N_IMAGES) == (n_bytes >= 250_000)


def embed_on_small_disk(pipe, embedder, images, n_bytes):
    """Mount a small disk that nobody else sees and that ends with the process."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_mounts, private = 0x00020000, 0x00044000  # MS_REC | MS_PRIVATE
    place = os.fsencode(embedder.cache_dir)
    if (
        libc.unshare(new_mounts) != 0
        or libc.mount(b"none", b"/", None, private, None) != 0
        or libc.mount(b"tmpfs", place, b"tmpfs", 0, f"size={n_bytes}".encode()) != 0
    ):
        return os.strerror(ctypes.get_errno())
    digests = on_encode()
    rows = embedder.transform(images)
    libc.mount(b"tmpfs", place, b"tmpfs", 32, b"size=100m")  # MS_REMOUNT
    paths = Path(embedder.cache_dir).glob("*.sqlite")
    kept = [(integrity(path), n_rows(path)) for path in paths]
    del digests[:]
    again = embedder.transform(images)
    return rows, kept, again, len(digests)


@pytest.mark.parametrize("n_kib", [4, 40, 130, 200, 300])
def test_a_full_disk_of_any_size_costs_no_row_and_no_database(
    embedder, images, expected, folder, n_kib
):
    folder.mkdir()
    answer, messages = in_child(embed_on_small_disk, embedder, images, n_kib * 1024)
    if isinstance(answer, str):
        pytest.skip(f"no disk may be mounted here: {answer}")
    rows, kept, again, n_again = answer
    np.testing.assert_allclose(rows, expected, atol=1e-6)
    np.testing.assert_allclose(again, expected, atol=1e-6)
    assert any("Cannot write" in message for message in messages), messages
    assert not any("damaged" in message for message in messages)
    assert all(state == [("ok",)] for state, _ in kept)
    assert n_again == N_IMAGES - sum(n for _, n in kept)
    assert os.listdir(folder) == []  # it was another disk


# Forbidden folders and files ---------------------------------------------------------


@pytest.fixture
def public(tmp_path_factory, tiny_clip, images):
    """Folder that any user reaches, with a model, images and half of their rows."""
    import tempfile

    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    shutil.copytree(tiny_clip.removeprefix("local-dir:"), folder / "model")
    shutil.copytree(Path(images[0]).parent, folder / "images")
    for path in folder.rglob("*"):
        path.chmod(0o755)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(folder)


def as_nobody(pipe, function, *args):
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    return function(pipe, *args)


def half_filled(public, images):
    paths = [str(public / "images" / Path(path).name) for path in images]
    embedder = CLIPEmbedder(
        pretrained=f"local-dir:{public / 'model'}",
        batch_size=2,
        cache_dir=public / "cache",
    )
    embedder.transform(paths[: N_IMAGES // 2])
    return embedder, paths


@pytest.mark.parametrize("what", ["folder", "file", "both", "folder and log"])
def test_known_rows_are_used_where_nothing_may_be_written(
    public, images, expected, fresh_memo, later, what
):
    embedder, paths = half_filled(public, images)
    if what == "folder and log":
        # As a killed run leaves it: its last batches are in the log alone.
        with Child(keep_and_die, embedder, paths, "after", 3) as child:
            child.process.join(60)
    files = {path: path.read_bytes() for path in (public / "cache").iterdir()}
    for path in files:
        path.chmod(0o444 if what in ("file", "both") else 0o644)
    (public / "cache").chmod(0o777 if what == "file" else 0o555)
    answer, messages = in_child(as_nobody, embed, embedder, paths)
    rows, digests = answer
    np.testing.assert_allclose(rows, expected, atol=1e-6)
    assert len(digests) <= N_IMAGES // 2
    assert len(messages) == 1
    assert "Cannot write to the embedding cache" in messages[0]
    assert str(public / "cache") in messages[0]
    for path, data in files.items():
        assert path.read_bytes() == data
    assert integrity(public / "cache" / NAME) == [("ok",)]


@pytest.mark.parametrize(
    ("mode", "message"), [(0o000, "Permission denied"), (0o333, "Permission denied")]
)
def test_a_folder_that_may_not_be_read_is_named(
    public, images, fresh_memo, mode, message
):
    embedder, paths = half_filled(public, images)
    (public / "cache").chmod(mode)
    with pytest.raises(ValueError, match=f"cache_dir=.*{message}.*choose another"):
        in_child(as_nobody, embed, embedder, paths)


def test_a_file_that_may_not_be_read_is_done_without(
    public, images, expected, fresh_memo
):
    embedder, paths = half_filled(public, images)
    (public / "cache" / NAME).chmod(0o000)
    (rows, digests), messages = in_child(as_nobody, embed, embedder, paths)
    np.testing.assert_allclose(rows, expected, atol=1e-6)
    assert len(digests) == N_IMAGES
    assert [message.partition(" the")[0] for message in messages] == [
        "Cannot write to",
        "Cannot read",
    ]


def test_a_folder_in_the_place_of_the_file_is_done_without(
    embedder, images, expected, folder
):
    (folder / NAME).mkdir(parents=True)
    with heard() as messages:
        np.testing.assert_array_equal(embedder.transform(images), expected)
    assert len(messages) == 2
    assert "Cannot write" in messages[0] and "Cannot read" in messages[1]
    assert os.listdir(folder) == [NAME]
