"""The main job with the real encoder: image paths in, a shipped detector out."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline

from sklearn_clipsid import BlockSelector, CLIPEmbedder, OrthogonalLinearDetector
from sklearn_clipsid._clip import decode_image, get_image_tower
from sklearn_clipsid.datasets import (
    load_image_folder,
    load_sample_embeddings,
    make_paired_images,
)
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut
from sklearn_clipsid.persistence import dump, load

pytestmark = pytest.mark.real_clip


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    # The smallest set in which every fold trains and tests on both classes.
    return make_paired_images(
        tmp_path_factory.mktemp("paired"), n_pairs=6, image_size=96, random_state=0
    )


@pytest.fixture
def embedder(demo_encoder):
    return CLIPEmbedder("ViT-B-16-quickgelu", str(demo_encoder))


@pytest.fixture
def n_embedded(embedder, monkeypatch):
    """Count the images that reach the model."""
    tower = get_image_tower("ViT-B-16-quickgelu", embedder.pretrained)
    seen = []
    encode = type(tower).encode

    def counted(self, pixels, features):
        seen.append(len(pixels))
        return encode(self, pixels, features)

    monkeypatch.setattr(type(tower), "encode", counted)
    return lambda: sum(seen)


def test_a_search_over_generators_ends_in_one_file_that_scores_images(
    images, embedder, n_embedded, tmp_path
):
    groups = np.column_stack([images.generator, images.pair_id])
    pipe = make_pipeline(
        embedder, OrthogonalLinearDetector(n_components=8, max_iter=5, random_state=0)
    )
    search = GridSearchCV(
        pipe,
        {"orthogonallineardetector__n_components": [1, 2, 4, 8, 16]},
        cv=LeaveOneGeneratorOut(),
        scoring="average_precision",
    ).fit(images.data, images.target, groups=groups)
    assert n_embedded() <= len(images.data), "each image is embedded once at most"
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    dump(search.best_estimator_, tmp_path / "detector.skops")
    assert (tmp_path / "detector.skops").stat().st_size < 200_000
    loaded = load(tmp_path / "detector.skops")
    more_paths = images.data[:3]
    assert np.array_equal(
        loaded.predict_proba(more_paths), search.predict_proba(more_paths)
    )


def test_the_fitted_pipeline_behaves_like_any_other(images, embedder):
    pipe = make_pipeline(
        embedder, OrthogonalLinearDetector(n_components=2, max_iter=5, random_state=0)
    ).fit(images.data, images.target)
    scores = pipe.decision_function(images.data)
    assert np.array_equal(
        pickle.loads(pickle.dumps(pipe)).decision_function(images.data), scores
    )
    refitted = clone(pipe).fit(images.data, images.target)
    assert np.array_equal(refitted.decision_function(images.data), scores)
    assert "CLIPEmbedder" in pipe._repr_html_()
    frame = clone(pipe).set_output(transform="pandas")
    activations = frame.fit(images.data, images.target).transform(images.data[:2])
    assert list(activations.columns) == [
        "orthogonallineardetector0",
        "orthogonallineardetector1",
    ]


def test_folds_in_two_processes_give_the_scores_of_one(images, embedder):
    pipe = make_pipeline(
        embedder, OrthogonalLinearDetector(n_components=2, max_iter=5, random_state=0)
    )
    splits = list(
        LeaveOneGeneratorOut().split(images.data, images.target, images.generator)
    )
    alone, together = (
        cross_validate(
            pipe,
            images.data,
            images.target,
            cv=splits[:2],
            scoring="roc_auc",
            n_jobs=n_jobs,
            error_score="raise",
        )["test_score"]
        for n_jobs in (None, 2)
    )
    assert np.allclose(alone, together)


def test_a_grid_over_blocks_embeds_each_image_once(images, embedder, n_embedded):
    pipe = make_pipeline(
        embedder.set_params(features="blocks"),
        BlockSelector(),
        OrthogonalLinearDetector(n_components=2, max_iter=5, random_state=0),
    )
    GridSearchCV(
        pipe,
        {"blockselector__block": [8, 10, -1]},
        cv=LeaveOneGeneratorOut(),
        scoring="roc_auc",
        error_score="raise",
    ).fit(images.data, images.target, groups=images.generator)
    assert n_embedded() == len(images.data)


def test_the_packaged_rows_are_those_of_this_encoder(embedder, shared_images):
    sample = load_sample_embeddings(features="projected")
    fitted = embedder.set_params(features="projected").fit(["not read"])
    # The rows were made in bf16.
    assert fitted.fingerprint_ | {"precision": "bf16"} == sample.encoder
    data = load_image_folder(shared_images / "manifest.csv")
    row_of = {sha256: i for i, sha256 in enumerate(sample.sha256)}
    with open(shared_images / "manifest.csv", encoding="utf-8") as file:
        digests = [line.rstrip("\n").rpartition(",")[2] for line in file][1:]
    pairs = [(i, row_of[d]) for i, d in enumerate(digests) if d in row_of][::40]
    assert len(pairs) >= 8
    ours = embedder.transform(data.data[[i for i, _ in pairs]])
    theirs = sample.data[[j for _, j in pairs]]
    cosines = (
        (ours * theirs).sum(axis=1)
        / np.linalg.norm(ours, axis=1)
        / np.linalg.norm(theirs, axis=1)
    )
    # Theirs were first squared to 256 pixels and compressed, ours are the originals;
    # another image is at .5.
    assert cosines.min() > 0.8
    assert np.median(cosines) > 0.9


def test_every_shared_image_decodes(shared_images):
    data = load_image_folder(shared_images / "manifest.csv")
    assert len(data.data) == 712
    for path in data.data:
        with open(path, "rb") as file:
            assert decode_image(file.read()).mode == "RGB", path
