import csv
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import KFold

from sklearn_clipsid.datasets import load_sample_embeddings


@pytest.mark.parametrize(("features", "width"), [("pooled", 768), ("projected", 512)])
def test_the_sample_has_one_finite_row_per_image(features, width):
    sample = load_sample_embeddings(features=features)
    assert sample.data.shape == (2050, width)
    assert sample.data.dtype == np.float32
    assert np.isfinite(sample.data).all()
    for name in ("target", "generator", "pair_id", "source", "sha256"):
        assert sample[name].shape == (2050,)
    assert len(sample.feature_names) == width
    assert Path(sample.filename).is_file()


def test_no_image_is_in_the_sample_twice():
    sample = load_sample_embeddings()
    assert len(np.unique(sample.sha256)) == 2050


def test_no_generator_is_both_real_and_synthetic():
    sample = load_sample_embeddings()
    real = set(sample.generator[sample.target == 0])
    synthetic = set(sample.generator[sample.target == 1])
    assert (len(real), len(synthetic)) == (7, 11)
    assert not real & synthetic


def test_return_X_y_gives_the_same_arrays():
    sample = load_sample_embeddings(features="projected")
    X, y = load_sample_embeddings(features="projected", return_X_y=True)
    np.testing.assert_array_equal(X, sample.data)
    np.testing.assert_array_equal(y, sample.target)


def test_the_sources_table_accounts_for_every_row():
    sample = load_sample_embeddings()
    found = Counter(
        zip(sample.target.tolist(), sample.generator.tolist(), sample.source.tolist())
    )
    table = Path(sample.filename).with_name("sources.csv")
    with open(table, newline="") as stream:
        stated = {
            (int(row["label"]), row["generator"], row["source_repo"]): int(row["n"])
            for row in csv.DictReader(stream)
        }
    assert found == stated


def test_the_description_names_every_source_with_its_licence():
    sample = load_sample_embeddings()
    for name in {*sample.generator, *sample.source}:
        assert name in sample.DESCR
    assert "GPL-3.0" in sample.DESCR
    assert "bound to this encoder" in sample.DESCR


def test_the_description_is_valid_rst():
    docutils = pytest.importorskip("docutils.core")
    text = load_sample_embeddings().DESCR
    docutils.publish_doctree(text, settings_overrides={"halt_level": 2})


@pytest.mark.parametrize("features", ["pooled", "projected"])
def test_the_fingerprint_is_that_of_the_chosen_features(features):
    first = load_sample_embeddings(features=features).encoder
    assert first["features"] == features
    assert first["architecture"] == "ViT-B-16-quickgelu"
    assert {"weights", "resize", "image_size", "precision"} <= set(first)
    first["features"] = "changed by the user"
    assert load_sample_embeddings(features=features).encoder["features"] == features


def test_unknown_features_are_an_error():
    with pytest.raises(ValueError, match=r"features='blocks'.*'pooled'.*CLIPEmbedder"):
        load_sample_embeddings(features="blocks")


def test_the_published_figures_of_a_linear_probe_are_reproduced():
    # Recorded when the sample was made: AP .863, AUC .918 (projected, C = 0.01).
    sample = load_sample_embeddings(features="projected")
    X = sample.data * (32.95 / np.linalg.norm(sample.data, axis=1).mean())
    y = sample.target
    photographs = np.flatnonzero(y == 0)
    folds = [
        photographs[test]
        for _, test in KFold(5, shuffle=True, random_state=0).split(photographs)
    ]
    scores = []
    for i, name in enumerate(np.unique(sample.generator[y == 1])):
        of_generator = sample.generator == name
        test = np.union1d(np.flatnonzero(of_generator), folds[i % 5])
        train = np.setdiff1d(np.arange(len(y)), test)
        probe = LogisticRegression(C=0.01, solver="newton-cholesky")
        probe.fit(X[train], y[train])
        score = probe.decision_function(X[test])
        scores.append(
            (average_precision_score(y[test], score), roc_auc_score(y[test], score))
        )
    np.testing.assert_allclose(np.mean(scores, axis=0), [0.863, 0.918], atol=1e-3)


def test_importing_the_datasets_loads_neither_torch_nor_pillow():
    code = (
        "import sys, sklearn_clipsid.datasets; "
        "print(*{'torch', 'open_clip', 'PIL', 'matplotlib', 'skops'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
