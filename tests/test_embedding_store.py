import copy
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import SGDClassifier
from sklearn.utils import gen_batches

from sklearn_clipsid import EmbeddingStore, _embedding_store, embed_to_shards
from sklearn_clipsid._embedding_run import Embedded

pyarrow = pytest.importorskip("pyarrow")

PATHS = [f"photos/{index:03d}.jpg" for index in range(23)]
ROWS = np.random.default_rng(3).normal(size=(23, 5)).astype(np.float16)


class TableEmbedder(BaseEstimator):
    """What embed_to_shards needs of an embedder, with known rows."""

    def __init__(self, weights="one", cache_dir=None, on_error="nan", verbose=False):
        self.weights = weights
        self.cache_dir = cache_dir
        self.on_error = on_error
        self.verbose = verbose

    def fit(self, X, y=None):
        self.fingerprint_ = {"weights": self.weights, "features": "pooled"}
        return self

    def _embed_apart(self, paths):
        rows = np.empty((len(paths), 5), dtype=np.float32)
        errors = {}
        for at, path in enumerate(paths):
            index = int(Path(path).stem)
            rows[at] = ROWS[index]
            if index in (9, 20):
                rows[at] = np.nan
                errors[at] = f"number {index} is broken"
        contents = [None if i in errors else bytes(20) for i in range(len(paths))]
        return Embedded(rows, contents, errors, True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "embeddings"
    with pytest.warns(UserWarning, match="2 of 23 images"):
        embed_to_shards(TableEmbedder(), PATHS, folder, shard_size=5)
    return folder


@pytest.fixture
def store(folder):
    return EmbeddingStore(folder)


@pytest.fixture
def copied(folder, tmp_path):
    """A copy that a test may damage."""
    return Path(shutil.copytree(folder, tmp_path / "copied"))


EXPECTED = ROWS.astype(np.float32)
EXPECTED[[9, 20]] = np.nan


def test_a_store_says_what_it_holds(store, folder):
    assert len(store) == 23
    assert store.shape == (23, 5)
    assert store.fingerprint == {"weights": "one", "features": "pooled"}
    assert store.n_failed == 2
    assert store.folder == str(folder)
    assert repr(store) == f"EmbeddingStore({str(folder)!r})"


@pytest.mark.parametrize(
    "indices",
    [
        slice(None),
        slice(3, 12),
        slice(None, None, -4),
        slice(40, 50),
        [7],
        [22, 0, 7, 7, 3, 22],
        np.array([4, 5], dtype=np.uint8),
        np.arange(23) % 3 == 0,
        [],
        np.random.default_rng(0).permutation(23),
    ],
    ids=str,
)
def test_rows_are_taken_as_numpy_takes_them(store, indices):
    rows = store.take(indices)
    expected = EXPECTED[
        indices
        if len(np.shape(indices)) == 0
        else np.asarray(indices, dtype=None if len(indices) else int)
    ]
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize("indices", [[23], [-1], [0, 10**12]], ids=str)
def test_rows_that_are_not_there_are_refused(store, indices):
    with pytest.raises(IndexError, match=r"Got index -?\d+ but expected 0 to 22"):
        store.take(indices)


@pytest.mark.parametrize(
    "indices", [[0.5], "a.png", ["a.png"], [[0, 1]], [True], 3, None], ids=str
)
def test_what_is_no_list_of_rows_is_refused(store, indices):
    with pytest.raises(ValueError, match=r"Got indices of shape .*index_of\(\)"):
        store.take(indices)


def test_rows_are_found_by_path(store):
    order = np.random.default_rng(1).permutation(23)
    wanted = [PATHS[index] for index in order]
    np.testing.assert_array_equal(store.index_of(wanted), order)
    assert store.index_of(np.array(wanted)).dtype == np.int64
    assert store.index_of([Path(PATHS[4])]).tolist() == [4]


def test_paths_that_are_missing_are_named(store):
    wanted = [PATHS[3], *(f"./{path}" for path in PATHS[:7])]
    with pytest.raises(ValueError) as refused:
        store.index_of(wanted)
    assert refused.match(
        r"Got 7 of 8 paths that are not in the store .*'\./photos/004\.jpg' and 2 more"
        r".*such as 'photos/000\.jpg'; embed the others too, or write the paths alike"
    )
    with pytest.raises(ValueError, match="Got one str"):
        store.index_of(PATHS[0])


def test_metadata_are_a_table_in_the_order_of_the_rows(store):
    table = store.metadata()
    assert table.column_names == ["image_path", "content_hash", "status", "error"]
    assert table.column("image_path").to_pylist() == PATHS
    failed = [status == "failed" for status in table.column("status").to_pylist()]
    assert np.flatnonzero(failed).tolist() == [9, 20]
    assert store.metadata(["error"]).column_names == ["error"]
    assert isinstance(store.paths, pyarrow.ChunkedArray)
    assert store.index_of(store.paths).tolist() == list(range(23))
    for columns in ["status", ["label"], ["status", "label"]]:
        with pytest.raises(ValueError, match="expected a list of some of image_path"):
            store.metadata(columns)


def test_failures_are_told_by_row(store):
    failures = {9: "number 9 is broken", 20: "number 20 is broken"}
    assert store.failures() == failures
    assert store.failures([20, 3, 20]) == {20: failures[20]}
    assert store.failures(slice(0, 9)) == {}


def test_a_folder_that_partitions_data_sets_adds_no_column(folder, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "year=2026")
    assert len(EmbeddingStore(moved).metadata().column_names) == 4


def test_an_estimator_may_learn_from_more_rows_than_fit(store):
    y = np.arange(23) % 2
    readable = np.setdiff1d(np.arange(23), list(store.failures()))
    batches = SGDClassifier(random_state=0)
    for rows in gen_batches(len(readable), 5):
        indices = readable[rows]
        batches.partial_fit(store.take(indices), y[indices], classes=[0, 1])
    assert batches.predict(store.take(readable)).shape == (21,)


def test_no_copy_of_the_rows_is_ever_sent_around(store):
    store.take(slice(None))
    assert clone(store) is store
    assert len(pickle.dumps(store)) < 500
    for copied in (pickle.loads(pickle.dumps(store)), copy.deepcopy(store)):
        np.testing.assert_array_equal(copied.take([3, 9]), EXPECTED[[3, 9]])


def test_few_files_stay_open(store, monkeypatch):
    monkeypatch.setattr(_embedding_store, "MAX_MAPPED", 2)
    np.testing.assert_array_equal(store.take(slice(None)), EXPECTED)
    assert len(store._maps) <= 2
    np.testing.assert_array_equal(store.take([0, 22, 11]), EXPECTED[[0, 22, 11]])


def test_rows_are_mapped_not_read(store):
    store.take([0])
    mapped = store._maps[0]
    assert isinstance(mapped.base, np.memmap) or isinstance(mapped, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        mapped[0] = 0


def test_a_copy_elsewhere_is_not_given_other_rows(copied):
    sent = pickle.dumps(EmbeddingStore(copied))
    with pytest.warns(UserWarning, match="2 of 23 images"):
        embed_to_shards(TableEmbedder("two"), PATHS, copied, 5, overwrite=True)
    with pytest.raises(ValueError, match="overwritten since this copy"):
        pickle.loads(sent)


@pytest.mark.parametrize("out_dir", ["nowhere", "", "file"])
def test_what_is_no_store_is_refused(tmp_path, monkeypatch, out_dir):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("taken")
    with pytest.raises(ValueError, match=r"holds no manifest\.json.*check the path"):
        EmbeddingStore(out_dir)
    with pytest.raises(TypeError, match="the path of a folder"):
        EmbeddingStore(None)


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "change",
    [
        lambda it: it.pop("plan"),
        lambda it: it.update(plan=[]),
        lambda it: it["plan"].update(n_images=10**15),
        lambda it: it["plan"].update(n_images=28),
        lambda it: it["plan"].update(shard_size=0),
        lambda it: it["plan"].update(shard_size=True),
        lambda it: it.update(n_features="many"),
        lambda it: it.update(fingerprint=None),
        lambda it: it.update(failed=[1]),
        lambda it: it["files"].update({"../outside": {"bytes": 1, "blake2b": ""}}),
        lambda it: it["files"].pop("manifest/path_rows.bin"),
        lambda it: it["files"]["manifest/path_rows.bin"].update(bytes=7),
    ],
)
def test_a_manifest_that_was_edited_is_refused(copied, change):
    edit(copied / "manifest.json", change)
    with pytest.raises(ValueError, match=r"a damaged store.*embed_to_shards again"):
        EmbeddingStore(copied)


def test_a_store_of_another_format_is_refused(copied):
    edit(copied / "manifest.json", lambda it: it.update(format=2))
    with pytest.raises(ValueError, match=r"in format 2 but expected 1"):
        EmbeddingStore(copied)


@pytest.mark.parametrize(
    "name", ["img_emb/img_emb_00002.npy", "metadata/metadata_00002.parquet"]
)
def test_a_file_of_the_right_size_and_wrong_content_is_noticed(copied, name):
    path = copied / name
    path.write_bytes(bytes(path.stat().st_size))
    store = EmbeddingStore(copied)
    np.testing.assert_array_equal(store.take(slice(5)), EXPECTED[:5])
    with pytest.raises(ValueError, match=f"files .* \\({name}\\); copy them again"):
        store.verify()
    with pytest.raises(ValueError, match=r"a damaged store: .* cannot be read"):
        store.take([12]) if name.startswith("img") else store.metadata()


def test_a_file_of_another_shard_is_noticed(copied):
    # Of the same size, as a shard of ten rows of three would be one of five of six.
    path = copied / "img_emb" / "img_emb_00001.npy"
    np.save(path, np.zeros((5, 5), dtype=np.int16))
    with pytest.raises(ValueError, match=r"holds int16 of shape \(5, 5\), not float16"):
        EmbeddingStore(copied).take([5])


def test_a_store_that_is_whole_verifies(store):
    store.verify()
