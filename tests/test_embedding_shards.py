import json
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import joblib
import numpy as np
import pytest

from sklearn_clipsid import CLIPEmbedder, EmbeddingStore, embed_to_shards

pytest.importorskip("pyarrow")
from pyarrow import parquet

from sklearn_clipsid import _embedding_shards
from sklearn_clipsid._content_hash import content_hash
from sklearn_clipsid._shard_files import ShardFolder

N_SHARDS = 3  # of the nine images, four at a time


@pytest.fixture
def embedder(tiny_clip):
    return CLIPEmbedder(tiny_clip, batch_size=4, decode_threads=1)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "embeddings"


@contextmanager
def interrupted_after(n_shards, monkeypatch):
    """Stop as Ctrl-C does, before the next shard is embedded."""
    embed_shard = _embedding_shards._embed_shard
    begun = []

    def embed(job, index, paths):
        begun.append(index)
        if len(begun) > n_shards:
            raise KeyboardInterrupt
        return embed_shard(job, index, paths)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as stopped:
        patch.setattr(_embedding_shards, "_embed_shard", embed)
        yield stopped


def files_of(folder):
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    )


def identities(folder):
    """What changes when a file of the first shards is written again."""
    return {name: os.stat(folder / name).st_ino for name in files_of(folder)}


def bytes_of(folder):
    return {name: (folder / name).read_bytes() for name in files_of(folder)}


def test_the_layout_is_that_of_clip_retrieval(embedder, image_files, folder):
    embed_to_shards(embedder, image_files, folder, shard_size=4)
    assert files_of(folder) == [
        "img_emb/img_emb_00000.npy",
        "img_emb/img_emb_00001.npy",
        "img_emb/img_emb_00002.npy",
        "manifest.json",
        "manifest/encoder.json",
        "manifest/manifest_00000.json",
        "manifest/manifest_00001.json",
        "manifest/manifest_00002.json",
        "manifest/path_rows.bin",
        "manifest/plan.json",
        "metadata/metadata_00000.parquet",
        "metadata/metadata_00001.parquet",
        "metadata/metadata_00002.parquet",
    ]
    rows = np.load(folder / "img_emb" / "img_emb_00000.npy")
    assert (rows.shape, rows.dtype, rows.flags.c_contiguous) == ((4, 64), "f2", True)
    # clip-retrieval's reader takes shape and type out of the first line by these.
    header = (folder / "img_emb" / "img_emb_00002.npy").read_bytes().split(b"\n")[0]
    assert re.search(rb"'shape': \(([0-9]+), ([0-9]+)\)", header).groups() == (
        b"1",
        b"64",
    )
    assert re.search(rb"'descr': '([<f0-9]+)'", header)[1] == b"<f2"
    table = parquet.read_table(folder / "metadata" / "metadata_00001.parquet")
    assert table.to_pydict() == {
        "image_path": image_files[4:8],
        "content_hash": [
            content_hash(Path(path).read_bytes()).hex() for path in image_files[4:8]
        ],
        "status": ["success"] * 4,
        "error": [None] * 4,
    }
    assert {str(field.type) for field in table.schema} == {"string"}


@pytest.mark.parametrize("normalize", [False, True])
def test_rows_are_those_of_the_embedder(embedder, image_files, folder, normalize):
    embedder.set_params(normalize=normalize)
    store = embed_to_shards(embedder, image_files, folder, shard_size=4)
    expected = embedder.transform(image_files)
    assert store.shape == expected.shape
    np.testing.assert_allclose(store.take(slice(None)), expected, rtol=2e-3, atol=2e-5)
    assert store.fingerprint == embedder.fit(image_files).fingerprint_


def test_the_embedder_and_its_caches_stay_as_they_are(
    embedder, image_files, folder, fresh_memo, tmp_path
):
    embedder.set_params(cache_dir=str(tmp_path / "cache"))
    before = embedder.get_params()
    embed_to_shards(embedder, image_files, folder, shard_size=4)
    assert embedder.get_params() == before
    assert not hasattr(embedder, "fingerprint_")
    assert not (tmp_path / "cache").exists()
    embedder.set_params(cache_dir=None)
    assert embedder.cache_info().rows == 0


def test_a_fitted_embedder_whose_encoder_has_changed_is_refused(
    embedder, image_files, folder
):
    embedder.fit(image_files).set_params(resize="squash")
    with pytest.raises(ValueError, match=r"resize 'squash' instead of 'model'.*fitted"):
        embed_to_shards(embedder, image_files, folder)
    assert "manifest.json" not in files_of(folder)


# Going on


def test_the_same_call_embeds_only_what_is_missing(
    embedder, image_files, folder, encoded, monkeypatch
):
    with interrupted_after(1, monkeypatch) as stopped:
        embed_to_shards(embedder, image_files, folder, shard_size=4)
    assert stopped.match("1 of 3 shards are finished")
    with pytest.raises(ValueError, match="1 of 3 shards are finished; run"):
        EmbeddingStore(folder)
    assert sum(encoded) == 4
    before = identities(folder)
    store = embed_to_shards(embedder, image_files, folder, shard_size=4)
    assert sum(encoded) == 9
    assert before.items() <= identities(folder).items()
    whole = embed_to_shards(embedder, image_files, folder / "whole", shard_size=4)
    np.testing.assert_array_equal(store.take(slice(None)), whole.take(slice(None)))


def test_a_complete_store_is_only_opened(embedder, image_files, folder, encoded):
    embed_to_shards(embedder, image_files, folder, shard_size=4)
    before = identities(folder)
    encoded.clear()
    store = embed_to_shards(embedder, image_files, folder, shard_size=4)
    assert len(store) == 9
    assert not encoded
    assert identities(folder) == before


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


DAMAGES = [cut, Path.unlink, lambda path: path.write_bytes(b"")]


@pytest.mark.parametrize("damage", DAMAGES, ids=["cut", "gone", "empty"])
@pytest.mark.parametrize(
    "name",
    [
        "img_emb/img_emb_00001.npy",
        "metadata/metadata_00001.parquet",
        "manifest/manifest_00001.json",
    ],
)
def test_a_shard_with_a_torn_file_does_not_count(
    embedder, image_files, folder, encoded, name, damage
):
    embed_to_shards(embedder, image_files, folder, shard_size=4)
    whole, before = bytes_of(folder), identities(folder)
    damage(folder / name)
    encoded.clear()
    if not name.startswith("manifest"):  # which the complete store does without
        with pytest.raises(ValueError, match=r"a damaged store.*embed_to_shards again"):
            EmbeddingStore(folder)
    embed_to_shards(embedder, image_files, folder, shard_size=4)
    assert sum(encoded) == 4
    assert bytes_of(folder) == whole
    untouched = {name for name in whole if "00000" in name or "00002" in name}
    assert all(identities(folder)[name] == before[name] for name in untouched)


@pytest.mark.parametrize("damage", DAMAGES, ids=["cut", "gone", "empty"])
@pytest.mark.parametrize("name", ["manifest.json", "manifest/path_rows.bin"])
def test_what_joins_the_shards_is_made_again_from_them(
    embedder, image_files, folder, encoded, name, damage
):
    embed_to_shards(embedder, image_files, folder, shard_size=4)
    whole = bytes_of(folder)
    damage(folder / name)
    with pytest.raises(ValueError, match="embed_to_shards again"):
        EmbeddingStore(folder)
    encoded.clear()
    embed_to_shards(embedder, image_files, folder, shard_size=4)
    assert not encoded
    assert bytes_of(folder) == whole


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"plan": 3},
        {"plan": None, "files": {}},
        {"files": {"/etc/passwd": {"bytes": 1}}},
        {"n_failed": "none"},
        {"fingerprint": []},
        {"shard": 0},
        {"files": {"img_emb/img_emb_00001.npy": {}}},
    ],
    ids=str,
)
def test_a_manifest_that_was_edited_does_not_count(
    embedder, image_files, folder, encoded, content
):
    embed_to_shards(embedder, image_files, folder, shard_size=4)
    path = folder / "manifest" / "manifest_00001.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), **content} if content else content)
    )
    encoded.clear()
    embed_to_shards(embedder, image_files, folder, shard_size=4)
    assert sum(encoded) == 4


# What does not fit


def test_other_paths_are_refused_before_anything_is_embedded(
    embedder, image_files, folder, encoded, monkeypatch
):
    with interrupted_after(1, monkeypatch):
        embed_to_shards(embedder, image_files, folder, shard_size=4)
    before = bytes_of(folder)
    encoded.clear()
    for paths, shard_size, difference in [
        (image_files[:8], 4, "8 paths instead of 9"),
        (image_files, 5, "shard_size=5 instead of 4"),
        (image_files[::-1], 4, "9 other paths, or the same in another order"),
    ]:
        with pytest.raises(ValueError, match=f"Got {difference}.*overwrite=True"):
            embed_to_shards(embedder, paths, folder, shard_size=shard_size)
    assert not encoded
    assert bytes_of(folder) == before


@pytest.mark.parametrize("n_shards", [1, N_SHARDS])
def test_another_encoder_is_refused_before_anything_is_embedded(
    embedder, image_files, folder, encoded, monkeypatch, write_tiny_clip, n_shards
):
    if n_shards < N_SHARDS:
        with interrupted_after(n_shards, monkeypatch):
            embed_to_shards(embedder, image_files, folder, shard_size=4)
    else:
        embed_to_shards(embedder, image_files, folder, shard_size=4)
    before = bytes_of(folder)
    encoded.clear()
    other = write_tiny_clip(folder.parent / "other", seed=1)
    for change in [{"resize": "squash"}, {"model_name": other}, {"precision": "bf16"}]:
        changed = CLIPEmbedder(**{**embedder.get_params(), **change})
        with pytest.raises(ValueError, match=r"Got another encoder .* instead of"):
            embed_to_shards(changed, image_files, folder, shard_size=4)
    assert not encoded
    assert bytes_of(folder) == before


def test_an_encoder_is_known_by_its_weights_not_by_its_folder(
    embedder, image_files, folder, encoded, monkeypatch, tiny_clip, tmp_path
):
    with interrupted_after(1, monkeypatch):
        embed_to_shards(embedder, image_files, folder, shard_size=4)
    moved = tmp_path / "moved"
    shutil.copytree(tiny_clip.removeprefix("local-dir:"), moved)
    embedder.set_params(model_name=f"local-dir:{moved}")
    embed_to_shards(embedder, image_files, folder, shard_size=4)
    assert sum(encoded) == 9


def test_the_encoder_of_finished_shards_is_known_from_them(
    embedder, image_files, folder, encoded, monkeypatch
):
    with interrupted_after(1, monkeypatch):
        embed_to_shards(embedder, image_files, folder, shard_size=4)
    (folder / "manifest" / "encoder.json").write_text("torn")
    encoded.clear()
    embedder.set_params(resize="squash")
    with pytest.raises(ValueError, match=r"'squash' instead of 'model'.*was begun"):
        embed_to_shards(embedder, image_files, folder, shard_size=4)
    assert not encoded


def test_shards_of_two_encoders_make_no_store(
    embedder, image_files, folder, monkeypatch
):
    embed_shard, made = _embedding_shards._embed_shard, []

    def embed(job, index, paths):
        # As if another worker had begun in the same moment and noted its own.
        if index == 1:
            (folder / "manifest" / "encoder.json").unlink()
            job.embedder.set_params(resize="squash")
        made.append(index)
        return embed_shard(job, index, paths)

    monkeypatch.setattr(_embedding_shards, "_embed_shard", embed)
    with pytest.raises(ValueError, match=r"'squash' instead of 'model'.*shard 1 was"):
        embed_to_shards(embedder, image_files, folder, shard_size=4)
    assert made == [0, 1, 2]
    assert not (folder / "manifest.json").exists()


def test_workers_that_do_not_share_the_folder_say_so(
    embedder, image_files, folder, monkeypatch
):
    embed_shard = _embedding_shards._embed_shard

    def elsewhere(job, index, paths):
        files = ShardFolder(folder.parent / "another machine")
        return embed_shard(job._replace(files=files), index, paths)

    monkeypatch.setattr(_embedding_shards, "_embed_shard", elsewhere)
    with pytest.raises(ValueError, match=r"the worker on '.+' does not find .* share"):
        embed_to_shards(embedder, image_files, folder)


def test_overwriting_starts_anew_and_leaves_nothing_behind(
    embedder, image_files, folder
):
    embed_to_shards(embedder, image_files, folder, shard_size=2)
    (folder / "notes.txt").write_text("mine")
    embedder.set_params(resize="squash")
    store = embed_to_shards(
        embedder, image_files[:3], folder, shard_size=2, overwrite=True
    )
    assert len(store) == 3
    assert store.fingerprint["resize"] == "squash"
    assert len(files_of(folder)) == 11
    assert (folder / "notes.txt").read_text() == "mine"


def test_overwriting_removes_first_what_makes_shards_count(
    embedder, image_files, folder, monkeypatch
):
    embed_to_shards(embedder, image_files, folder, shard_size=4)
    removed = []

    def remove(self, name):
        removed.append(name)

    monkeypatch.setattr(ShardFolder, "remove", remove)
    ShardFolder(folder).clear()
    kinds = [name.partition("/")[0] for name in removed]
    assert (
        kinds
        == ["manifest.json"] + ["manifest"] * 5 + ["img_emb"] * 3 + ["metadata"] * 3
    )


def test_an_encoder_that_cannot_be_loaded_costs_no_shards(
    embedder, image_files, folder
):
    embed_to_shards(embedder, image_files, folder, shard_size=4)
    before = bytes_of(folder)
    embedder.set_params(model_name="local-dir:/nowhere")
    with pytest.raises(ValueError, match="nowhere"):
        embed_to_shards(embedder, image_files, folder, overwrite=True)
    assert bytes_of(folder) == before


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "name", ["img_emb/img_emb_00000.npy", "metadata/x", "manifest.json", "manifest/x"]
)
def test_files_that_others_wrote_are_never_touched(
    embedder, image_files, folder, name, overwrite
):
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("theirs")
    with pytest.raises(ValueError, match="was not written by embed_to_shards"):
        embed_to_shards(embedder, image_files, folder, overwrite=overwrite)
    assert bytes_of(folder) == {name: b"theirs"}


# Images that cannot be read


@pytest.fixture
def broken_files(image_files, tmp_path):
    """The nine images, of which the sixth is no image and the seventh not there."""
    paths = list(image_files)
    paths[5], paths[6] = str(tmp_path / "broken.png"), str(tmp_path / "gone.png")
    Path(paths[5]).write_bytes(b"no image")
    return paths


def test_an_unreadable_image_is_named_and_other_shards_stay(
    embedder, broken_files, folder
):
    with pytest.raises(ValueError) as stopped:
        embed_to_shards(embedder, broken_files, folder, shard_size=4)
    assert stopped.match(
        r"Could not read 2 of the 4 images from index 4 on \(index 5, '.*broken.png': "
        r".*, index 6, '.*gone.png': No such file or directory\)\. Repair them"
    )
    assert stopped.match("1 of 3 shards are finished")
    assert not list(folder.glob("*/*_00001.*"))


def test_unreadable_images_are_rows_of_nan_with_their_reasons(
    embedder, broken_files, folder
):
    embedder.set_params(on_error="nan")
    with pytest.warns(UserWarning, match=r"2 of 9 images.*broken.png") as caught:
        store = embed_to_shards(embedder, broken_files, folder, shard_size=4)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    nan = np.isnan(store.take(slice(None)))
    assert nan.all(axis=1).nonzero()[0].tolist() == [5, 6]
    assert nan.any(axis=1).sum() == 2
    table = store.metadata().slice(5, 2).to_pydict()
    assert table["status"] == ["failed", "failed"]
    assert table["content_hash"] == [None, None]
    assert table["error"][1] == "No such file or directory"
    assert store.failures() == dict(zip([5, 6], table["error"]))


def test_repaired_images_are_embedded_when_errors_are_raised(
    embedder, broken_files, image_files, folder, encoded
):
    embedder.set_params(on_error="nan")
    for _ in range(2):  # a shard with such rows counts as long as they are accepted
        with pytest.warns(UserWarning, match="2 of 9 images"):
            embed_to_shards(embedder, broken_files, folder, shard_size=4)
    assert sum(encoded) == 7
    embedder.set_params(on_error="raise")
    before = bytes_of(folder)
    with pytest.raises(ValueError, match=r"broken.png.*gone.png"):
        embed_to_shards(embedder, broken_files, folder, shard_size=4)
    assert bytes_of(folder) == before
    for index in (5, 6):
        shutil.copy(image_files[index], broken_files[index])
    encoded.clear()
    store = embed_to_shards(embedder, broken_files, folder, shard_size=4)
    assert sum(encoded) == 4
    assert store.failures() == {}
    assert np.isfinite(store.take(slice(None))).all()


# Inputs


@pytest.mark.parametrize(
    ("paths", "problem"),
    [
        ([], "Got 0 images"),
        ("a.png", r"Got one str .*pass a list"),
        (b"a.png", "Got one bytes"),
        ({"a.png": 1}, "Got one dict"),
        ([b"\x89PNG"], r"Got bytes at index 0 but expected paths only"),
        (["a.png", np.zeros((2, 2, 3), "u1")], "Got ndarray at index 1"),
        (["a.png", None], "Got NoneType .*at index 1"),
        (["a.png", 3], "Got int .*at index 1"),
        (["a.png", "x\udce9.png"], r"index 1, a file name that is no valid Unicode"),
        (np.zeros((3, 2)), "shape"),
        (iter(["a.png"]), "a sequence of images with a length"),
    ],
)
def test_what_is_no_list_of_paths_is_refused(embedder, folder, paths, problem):
    with pytest.raises(ValueError, match=problem):
        embed_to_shards(embedder, paths, folder)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"shard_size": 0}, "'shard_size'"),
        ({"shard_size": 2.5}, "'shard_size'"),
        ({"out_dir": None}, "'out_dir'"),
        ({"out_dir": ""}, "Got out_dir=''"),
        ({"overwrite": "yes"}, "'overwrite'"),
        ({"n_jobs": 1.5}, "'n_jobs'"),
        ({"embedder": "ViT-L-14"}, "Got str but expected a CLIPEmbedder"),
        ({"embedder": CLIPEmbedder}, "an instance"),
    ],
    ids=str,
)
def test_a_bad_parameter_is_named(embedder, image_files, folder, parameters, problem):
    call = {"embedder": embedder, "paths": image_files, "out_dir": folder}
    with pytest.raises((TypeError, ValueError), match=problem):
        embed_to_shards(**{**call, **parameters})
    assert not folder.exists()


def test_a_bad_parameter_of_the_embedder_is_named(embedder, image_files, folder):
    with pytest.raises(ValueError, match="The 'resize' parameter of CLIPEmbedder"):
        embed_to_shards(embedder.set_params(resize="big"), image_files, folder)


def test_names_have_room_for_a_hundred_thousand_shards(embedder, folder):
    paths = [f"{index}.png" for index in range(200_001)]
    with pytest.raises(ValueError, match=r"200001 shards.*pass shard_size=3 or more"):
        embed_to_shards(embedder, paths, folder, shard_size=1)


def test_paths_come_in_any_container(embedder, image_files, folder):
    pd = pytest.importorskip("pandas")
    paths = image_files[:2]
    expected = None
    for index, X in enumerate(
        [paths, np.array(paths), pd.Series(paths), pd.DataFrame({"path": paths})]
        + [[Path(path) for path in paths]]
    ):
        store = embed_to_shards(embedder, X, folder / str(index))
        rows = store.take(store.index_of(X))
        expected = rows if expected is None else expected
        np.testing.assert_array_equal(rows, expected)
        assert store.paths.to_pylist() == paths


def test_relative_paths_start_where_the_caller_stands(
    embedder, image_files, folder, monkeypatch
):
    here = Path(image_files[0]).parent
    monkeypatch.chdir(here)
    job_elsewhere = _embedding_shards._embed_shard

    def embed(*args):
        os.chdir("/")
        return job_elsewhere(*args)

    monkeypatch.setattr(_embedding_shards, "_embed_shard", embed)
    names = [Path(path).name for path in image_files]
    store = embed_to_shards(embedder, names, os.path.relpath(folder), shard_size=4)
    assert store.folder == str(folder)
    assert store.paths.to_pylist() == names


def test_one_image_twice_is_two_rows(embedder, image_files, folder):
    paths = [image_files[0], image_files[1], image_files[0]]
    store = embed_to_shards(embedder, paths, folder, shard_size=2)
    assert len(store) == 3
    assert store.index_of(paths).tolist() == [0, 1, 0]
    np.testing.assert_allclose(*store.take([0, 2]), rtol=1e-3, atol=1e-5)


def test_numbers_beyond_half_precision_are_refused(
    embedder, image_files, folder, monkeypatch
):
    embed_apart = CLIPEmbedder._embed_apart

    def inflated(self, images):
        embedded = embed_apart(self, images)
        return embedded._replace(rows=embedded.rows * 1e6)

    monkeypatch.setattr(CLIPEmbedder, "_embed_apart", inflated)
    with pytest.raises(ValueError, match=r"at most 65504.*normalize=True"):
        embed_to_shards(embedder, image_files, folder)
    assert not list(folder.glob("img_emb/*"))


def test_progress_is_one_bar_over_images(embedder, image_files, folder, capfd):
    embed_to_shards(embedder, image_files, folder / "silent", shard_size=4)
    assert capfd.readouterr().err == ""
    embedder.set_params(verbose=True)
    embed_to_shards(embedder, image_files, folder, shard_size=4)
    shown = capfd.readouterr().err
    assert "3 of 3 shards" in shown
    assert "9/9" in shown
    assert "tiny-clip" not in shown


def test_without_pyarrow_the_error_says_what_to_install(
    embedder, image_files, folder, monkeypatch
):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(
        ImportError, match=r"pip install 'sklearn-clipsid\[distributed\]'"
    ):
        embed_to_shards(embedder, image_files, folder)


# Disks


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_named(embedder, image_files, tmp_path, place):
    (tmp_path / "file").write_text("taken")
    with pytest.raises(OSError, match=r"Could not write to the folder .*/file"):
        embed_to_shards(embedder, image_files, tmp_path / place)


def test_a_full_disk_leaves_nothing_that_counts(
    embedder, image_files, folder, monkeypatch
):
    with interrupted_after(1, monkeypatch):
        embed_to_shards(embedder, image_files, folder, shard_size=4)
    before = bytes_of(folder)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The rows of a shard fit, its table does not.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"make room.*Finished shards are kept"):
            embed_to_shards(embedder, image_files, folder, shard_size=4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert bytes_of(folder) == before
    assert len(embed_to_shards(embedder, image_files, folder, shard_size=4)) == 9


# At the same time


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_shards_are_spread_by_joblib(embedder, image_files, folder, backend):
    with joblib.parallel_config(backend=backend, n_jobs=2):
        store = embed_to_shards(embedder, image_files, folder, shard_size=2)
    expected = embedder.transform(image_files)
    np.testing.assert_allclose(store.take(slice(None)), expected, rtol=2e-3, atol=2e-5)
    assert not (folder / "partial").exists()


def test_two_runs_may_fill_one_folder(embedder, image_files, folder):
    errors = []

    def run():
        try:
            embed_to_shards(embedder, image_files, folder, shard_size=1)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    store = EmbeddingStore(folder)
    store.verify()
    expected = embedder.transform(image_files)
    np.testing.assert_allclose(store.take(slice(None)), expected, rtol=2e-3, atol=2e-5)


def test_files_that_two_attempts_mixed_are_written_again(
    embedder, image_files, folder, monkeypatch
):
    write_json = ShardFolder.write_json
    mixed = []

    def between(self, name, content):
        if name.endswith("manifest_00000.json") and not mixed:
            # Another attempt puts its rows in place of ours.
            rows = folder / "img_emb" / "img_emb_00000.npy"
            rows.write_bytes(rows.read_bytes()[:-1] + b"\x00")
            mixed.append(name)
        write_json(self, name, content)

    monkeypatch.setattr(ShardFolder, "write_json", between)
    store = embed_to_shards(embedder, image_files, folder)
    assert mixed
    store.verify()


def test_a_slower_run_takes_the_shards_of_a_faster_one(
    embedder, image_files, folder, monkeypatch
):
    publish = ShardFolder.publish
    first = []

    def overtaken(self, index, *args):
        if not first:
            first.append(index)
            with monkeypatch.context() as patch:
                patch.setattr(ShardFolder, "publish", publish)
                embed_to_shards(embedder, image_files, folder, shard_size=4)
            (folder / "partial").mkdir()
            return publish(self, index, *args)
        return publish(self, index, *args)

    monkeypatch.setattr(ShardFolder, "publish", overtaken)
    embed_to_shards(embedder, image_files, folder, shard_size=4).verify()


def test_what_killed_attempts_left_is_swept_up(embedder, image_files, folder):
    (folder / "partial").mkdir(parents=True)
    (folder / "partial" / ("0" * 32)).write_bytes(b"torn")
    embed_to_shards(embedder, image_files, folder, shard_size=4)
    assert not (folder / "partial").exists()


# Killed

# Forked from a process that has imported torch but not used it, a run begins at once.
PRELOADED = """
import os, select, signal, sys
import open_clip, torch, pyarrow.parquet
from sklearn_clipsid import CLIPEmbedder, embed_to_shards
from sklearn_clipsid import _embedding_shards

def run(model, folder, paths, begun):
    torch.set_num_threads(1)
    embed_shard = _embedding_shards._embed_shard
    def embed(*args):
        os.write(begun, b"b")
        return embed_shard(*args)
    embedder = CLIPEmbedder(model, decode_threads=1)
    embedder.fit(paths[:1])
    _embedding_shards._embed_shard = embed
    embed_to_shards(embedder, paths, folder, shard_size=3)

model, *paths = sys.argv[1:]
print("ready", flush=True)
for line in sys.stdin:
    folder, n_begun, delay = line.split()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            run(model, folder, paths, write)
            os._exit(0)
        except BaseException as error:
            print(f"{error!r}", file=sys.stderr, flush=True)
            os._exit(1)
    os.close(write)
    for _ in range(int(n_begun)):
        os.read(read, 1)  # or the end of the child
    select.select([], [], [], float(delay))
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    os.close(read)
    print("killed" if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), flush=True)
"""


def finished_rows(folder):
    """Rows of each shard that counts, read by its manifest alone."""
    files = ShardFolder(folder)
    plan = files.read_plan()
    if plan is None:
        return {}
    return {
        index: np.load(files.path(f"img_emb/img_emb_{index:05d}.npy"))
        for index in range(plan.n_shards)
        if files.finished(plan, index) is not None
    }


def test_killed_at_random_moments_nothing_half_counts_and_nothing_is_redone(
    embedder, image_files, tiny_clip, folder, rng
):
    paths = image_files * 4  # 12 shards of 3
    whole = embed_to_shards(embedder, paths, folder / "whole", shard_size=3)
    expected = {i: whole.take(whole._plan.rows(i)) for i in range(12)}
    process = subprocess.Popen(
        [sys.executable, "-c", PRELOADED, tiny_clip, *paths],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    n_killed = 0
    with process:
        assert process.stdout.readline() == "ready\n"
        while n_killed < 20:
            run, outcome = folder / f"run{n_killed}", "killed"
            known = {}
            while outcome == "killed":
                # Some shards later, and somewhere in the 50 ms that one takes.
                n_begun, delay = rng.integers(1, 5), rng.uniform(0, 0.06)
                print(run, n_begun, delay, file=process.stdin, flush=True)
                outcome = process.stdout.readline().strip()
                n_killed += outcome == "killed"
                for index, rows in finished_rows(run).items():
                    np.testing.assert_allclose(
                        rows, expected[index], rtol=2e-3, atol=2e-5
                    )
                now = identities(run)
                assert known.items() <= now.items()
                known = {
                    name: inode
                    for name, inode in now.items()
                    if any(f"{i:05d}" in name for i in finished_rows(run))
                }
            assert outcome == "0"
            store = EmbeddingStore(run)
            store.verify()
            assert store.paths.to_pylist() == paths
            assert not (run / "partial").exists()
            np.testing.assert_allclose(
                store.take(slice(None)),
                whole.take(slice(None)),
                rtol=2e-3,
                atol=2e-5,
            )
        process.stdin.close()
    assert process.returncode == 0


@pytest.mark.real_clip
def test_half_precision_keeps_the_directions_of_real_embeddings(
    demo_encoder, image_files, folder
):
    embedder = CLIPEmbedder("ViT-B-16-quickgelu", str(demo_encoder))
    store = embed_to_shards(embedder, image_files[:3], folder, shard_size=2)
    rows, expected = store.take(slice(None)), embedder.transform(image_files[:3])
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((rows * expected).sum(axis=1) / norms).min() > 1 - 1e-6
