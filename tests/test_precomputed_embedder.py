import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sklearn_clipsid import (
    CLIPEmbedder,
    EmbeddingStore,
    OrthogonalLinearDetector,
    PrecomputedEmbedder,
    embed_to_shards,
)

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def embedder(tiny_clip):
    return CLIPEmbedder(tiny_clip, decode_threads=1, on_error="nan")


@pytest.fixture(scope="module")
def paths(image_files, tmp_path_factory):
    """The nine images and one that is none."""
    broken = tmp_path_factory.mktemp("broken") / "broken.png"
    broken.write_bytes(b"no image")
    return [*image_files, str(broken)]


@pytest.fixture(scope="module")
def store(embedder, paths, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "embeddings"
    with pytest.warns(UserWarning, match="1 of 10 images"):
        return embed_to_shards(embedder, paths, folder, shard_size=4)


def test_it_stands_in_for_the_embedder(embedder, store, image_files):
    precomputed = PrecomputedEmbedder(store)
    rows = precomputed.fit_transform(image_files)
    expected = embedder.fit_transform(image_files)
    assert (rows.dtype, rows.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(rows, expected, rtol=2e-3, atol=2e-5)
    assert precomputed.fingerprint_ == embedder.fingerprint_
    assert precomputed.__sklearn_tags__() == embedder.__sklearn_tags__()
    names = precomputed.get_feature_names_out()
    assert names[[0, -1]].tolist() == ["precomputedembedder0", "precomputedembedder63"]


def test_every_container_of_paths_gives_the_same_rows(store, image_files):
    pd = pytest.importorskip("pandas")
    precomputed = PrecomputedEmbedder(store)
    wanted = image_files[::-2]
    expected = precomputed.transform(wanted)
    for X in (
        [Path(path) for path in wanted],
        np.array(wanted),
        np.array(wanted, dtype=object)[:, None],
        pd.Series(wanted, index=list("abcde")),
        pd.DataFrame({"path": wanted}),
    ):
        np.testing.assert_array_equal(precomputed.transform(X), expected)


def test_frames_keep_their_names_and_index(store, image_files):
    pd = pytest.importorskip("pandas")
    paths = pd.Series(image_files[:2], index=["a", "b"])
    precomputed = PrecomputedEmbedder(store).set_output(transform="pandas")
    frame = precomputed.fit_transform(paths)
    assert frame.index.tolist() == ["a", "b"]
    assert frame.columns[0] == "precomputedembedder0"


def test_the_folder_is_as_good_as_the_store(store, image_files):
    expected = PrecomputedEmbedder(store).transform(image_files)
    for folder in (store.folder, Path(store.folder)):
        precomputed = clone(PrecomputedEmbedder(folder))
        np.testing.assert_array_equal(precomputed.transform(image_files), expected)
        assert precomputed.get_feature_names_out().shape == (64,)


def test_an_image_that_was_not_embedded_is_named(store, image_files):
    with pytest.raises(ValueError, match=r"Got 1 of 2 paths .*'new\.png'"):
        PrecomputedEmbedder(store).transform([image_files[0], "new.png"])


def test_an_image_that_could_not_be_read_is_named_with_the_reason(
    store, paths, image_files
):
    precomputed = PrecomputedEmbedder(store).fit(paths)
    assert np.isfinite(precomputed.transform(image_files)).all()
    with pytest.raises(ValueError, match=r"1 of 10 .*index 9, '.*broken\.png': \w+"):
        precomputed.transform(paths)
    precomputed.set_params(on_error="nan")
    with pytest.warns(UserWarning, match=r"1 of 2 .*index 0, '.*broken\.png'") as told:
        rows = precomputed.transform([paths[9], paths[0]])
    assert len(told) == 1
    assert told[0].filename == __file__
    assert np.isnan(rows).all(axis=1).tolist() == [True, False]


def test_a_store_of_another_encoder_is_refused(embedder, store, image_files, tmp_path):
    squashed = clone(embedder).set_params(resize="squash")
    other = embed_to_shards(squashed, image_files, tmp_path / "other")
    precomputed = PrecomputedEmbedder(store).fit(image_files).set_params(store=other)
    with pytest.raises(
        ValueError, match=r"resize 'squash' instead of 'model'.*fitted with"
    ):
        precomputed.transform(image_files)
    precomputed.fit(image_files).transform(image_files)


@pytest.mark.parametrize("X", [[], "a.png", [b"a"], [np.zeros((2, 2, 3), "u1")]])
def test_what_is_no_list_of_paths_is_refused(store, X):
    for method in ("fit", "transform", "fit_transform"):
        with pytest.raises(ValueError, match="Got "):
            getattr(PrecomputedEmbedder(store), method)(X)


@pytest.mark.parametrize("parameter", [{"store": 3}, {"on_error": "drop"}], ids=str)
def test_a_bad_parameter_is_named(store, image_files, parameter):
    precomputed = PrecomputedEmbedder(store).set_params(**parameter)
    for method in ("fit", "transform"):
        with pytest.raises(ValueError, match=f"The '{next(iter(parameter))}' param"):
            getattr(precomputed, method)(image_files)


def test_clones_share_the_store(store):
    precomputed = PrecomputedEmbedder(store, on_error="nan")
    assert clone(precomputed).store is store
    assert clone(precomputed).on_error == "nan"
    assert "EmbeddingStore(" in repr(precomputed)


SEARCH = """
    import sys
    import numpy as np
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn_clipsid import OrthogonalLinearDetector, PrecomputedEmbedder

    folder, *paths = sys.argv[1:]
    pipe = make_pipeline(
        PrecomputedEmbedder(folder),
        OrthogonalLinearDetector(max_iter=2, random_state=0),
    )
    grid = {"orthogonallineardetector__n_components": [1, 2]}
    y = np.arange(len(paths)) % 2
    search = GridSearchCV(pipe, grid, cv=3, error_score="raise").fit(paths, y)
    assert search.predict_proba(paths).shape == (len(paths), 2)
    assert "torch" not in sys.modules
    assert "PIL" not in sys.modules
"""


def test_a_search_loads_no_model(store, image_files):
    subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(SEARCH), store.folder]
        + image_files,
        check=True,
        timeout=120,
    )


def test_a_search_in_processes_gives_the_results_of_one_process(store, image_files):
    y = np.arange(len(image_files)) % 2
    pipe = make_pipeline(
        PrecomputedEmbedder(EmbeddingStore(store.folder)),
        OrthogonalLinearDetector(max_iter=2, random_state=0),
    )
    grid = {"orthogonallineardetector__n_components": [1, 2]}
    scores = [
        GridSearchCV(pipe, grid, cv=3, n_jobs=n_jobs, error_score="raise")
        .fit(image_files, y)
        .cv_results_["mean_test_score"]
        for n_jobs in (1, 2)
    ]
    np.testing.assert_array_equal(*scores)
