import json
import sys

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import make_pipeline

from sklearn_clipsid import AbstainingClassifier, CLIPEmbedder
from sklearn_clipsid.cli import main
from sklearn_clipsid.cli._detector import recipe_of
from sklearn_clipsid.datasets import load_image_folder, make_paired_images
from sklearn_clipsid.metrics import average_precision_by_generator
from sklearn_clipsid.persistence import dump


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Manifest of 40 labelled images, which stands for a folder."""
    folder = tmp_path_factory.mktemp("labelled")
    make_paired_images(folder, n_pairs=10, random_state=0)
    return folder / "manifest.csv"


@pytest.fixture
def save(folder, tiny_clip, tmp_path):
    """Function that fits a head to the folder; returns the file and the model."""

    def save(head):
        data = load_image_folder(folder)
        model = make_pipeline(CLIPEmbedder(pretrained=tiny_clip), head)
        dump(model.fit(data.data, data.target), tmp_path / "detector.skops")
        return str(tmp_path / "detector.skops"), model

    return save


@pytest.fixture
def evaluate(folder, tiny_clip, capsys):
    """Function that runs `clipsid evaluate`; returns status, output and errors."""

    def evaluate(file, *arguments, images=folder):
        place = ["--pretrained", tiny_clip]
        status = main(["evaluate", file, str(images), *arguments, *place])
        return status, *capsys.readouterr()

    return evaluate


def test_figures_are_those_of_the_saved_detector(save, evaluate, folder):
    file, model = save(LogisticRegression())
    status, out, _ = evaluate(file, "--json")
    head, *rows = [json.loads(line) for line in out.splitlines()]
    assert head == {
        "kind": "evaluation",
        "detector": file,
        "fitted": "before",
        "folder": str(folder),
        "images": 40,
        "unreadable": 0,
    }
    data = load_image_folder(folder)
    score = model.decision_function(data.data)
    expected = average_precision_by_generator(data.target, score, data.generator)
    found = {row["name"]: row["AP"] for row in rows if row["kind"] == "generator"}
    assert status == 0
    assert found == pytest.approx(expected, abs=1e-6)
    mean = next(row for row in rows if row["kind"] == "mean over generators")
    assert mean["AP"] == pytest.approx(np.mean(list(expected.values())), abs=1e-6)
    source = next(row for row in rows if row["name"] == "camera-a")
    own = data.generator == "camera-a"
    ranked = own | (data.target == 1)
    auc = roc_auc_score(data.target[ranked], score[ranked])
    assert source["AUC"] == pytest.approx(auc)
    called = model.predict(data.data[own]).mean()
    assert source["called synthetic"] == pytest.approx(called)


def test_the_table_shows_verdicts_where_there_are_some(save, evaluate):
    file, _ = save(AbstainingClassifier(LogisticRegression(), max_fpr=0.4, cv=2))
    _, out, _ = evaluate(file)
    measured, header, *rows = out.splitlines()
    assert measured.startswith(f"{file!r} as it was saved, not fitted again, on 40 ")
    assert header.split() == ["images", "AUC", "AP", "called", "synthetic", "undecided"]
    assert [row.split()[0] for row in rows] == [
        *["generator"] * 3,
        "mean",
        *["photographs"] * 2,
        "mean",
    ]


def test_one_class_is_counted_and_not_ranked(save, evaluate, folder, tmp_path):
    file, _ = save(LogisticRegression())
    rows = folder.read_text().splitlines()
    column = rows[0].split(",").index("label")
    photographs = [row for row in rows[1:] if row.split(",")[column] == "0"]
    lines = [rows[0], *(f"{folder.parent}/{row}" for row in photographs)]
    (tmp_path / "own.csv").write_text("\n".join(lines) + "\n")
    status, out, _ = evaluate(file, images=tmp_path / "own.csv")
    assert status == 0
    assert out.splitlines()[1].split() == ["images", "called", "synthetic"]


def test_the_report_is_about_the_recipe(save, evaluate, tmp_path, monkeypatch, folder):
    file, model = save(AbstainingClassifier(LogisticRegression(), max_fpr=0.4, cv=2))
    asked = {}

    class Report:
        models = {"detector": "Pipeline(...)"}

        def to_html(self, path):
            asked["path"] = path

    def fake(estimator, X, y, groups, **options):
        asked.update(options, estimator=estimator, n=len(X))
        return Report()

    monkeypatch.setattr("sklearn_clipsid.report.evaluate", fake)
    html = str(tmp_path / "report.html")
    status, _, err = evaluate(file, "--html", html)
    assert status == 0
    assert Report.models["detector"].startswith(
        "Detectors with the settings of detector.skops, each fitted to a part of"
    )
    assert (asked["path"], asked["n"], asked["max_fpr"]) == (html, 40, 0.4)
    assert isinstance(asked["estimator"][-1], LogisticRegression)
    assert "that were fitted to parts of the images; the saved one is" in err
    # Behind the encoder, as other baselines, and not to be fitted.
    name, saved = list(asked["baselines"].items())[-1]
    data = load_image_folder(folder)
    rows = model[0].transform(data.data)
    np.testing.assert_allclose(
        saved.fit(rows[::2], data.target[::2]).decision_function(rows),
        model.decision_function(data.data),
        atol=1e-5,
    )
    assert name == "the saved one, which may know these images"


def test_a_report_is_written(save, evaluate, tmp_path):
    file, _ = save(LogisticRegression())
    html = tmp_path / "report.html"
    status, _, err = evaluate(file, "--html", str(html))
    assert status == 0, err
    page = html.read_text(encoding="utf-8")
    assert "Detectors with the settings of detector.skops, each fitted" in page
    assert page.count("the saved one, which may know these images") > 2


def test_a_report_that_cannot_be_written_is_found_before_the_work(
    save, evaluate, tmp_path, encoded, monkeypatch
):
    file, _ = save(LogisticRegression())
    encoded.clear()
    status, _, err = evaluate(file, "--html", file)
    assert (status, encoded) == (2, [])
    assert "ends in .html, to be replaced" in err
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, _, err = evaluate(file, "--html", str(tmp_path / "report.html"))
    assert (status, encoded) == (2, [])
    assert "--html needs matplotlib, which is not installed" in err


def test_a_recipe_loses_its_thresholds_and_keeps_the_saved_detector(save, folder):
    _, model = save(AbstainingClassifier(LogisticRegression(), max_fpr=0.4, cv=2))
    data = load_image_folder(folder)
    outer = FixedThresholdClassifier(FrozenEstimator(model))
    recipe = recipe_of(outer.fit(data.data, data.target))
    assert [type(step) for _, step in recipe.estimator.steps] == [
        CLIPEmbedder,
        LogisticRegression,
    ]
    assert recipe.max_fpr == 0.4
    np.testing.assert_allclose(
        recipe.saved.decision_function(model[0].transform(data.data)),
        model.decision_function(data.data),
        atol=1e-5,
    )


def test_a_frozen_part_is_no_recipe():
    from sklearn.calibration import CalibratedClassifierCV

    with pytest.raises(ValueError, match="frozen part, which cannot be fitted anew"):
        recipe_of(CalibratedClassifierCV(FrozenEstimator(LogisticRegression())))


def test_info_says_which_encoder_and_which_limits(save, capsys):
    file, model = save(AbstainingClassifier(LogisticRegression(), max_fpr=0.4, cv=2))
    assert main(["info", file, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["labels"] == [0, 1]
    assert facts["encoder"] == model[0].fingerprint_
    assert facts["verdicts"]["synthetic above a score of"] == model[-1].thresholds_[1]
    assert facts["verdicts"]["photographs it was chosen on"] == 10
    assert facts["saved with"].keys() >= {"sklearn_clipsid", "scikit-learn"}
    assert main(["info", file]) == 0
    out = capsys.readouterr().out
    assert "AbstainingClassifier" in out
    assert f"  weights: {model[0].fingerprint_['weights']}\n" in out


def test_info_knows_detectors_of_embeddings(tmp_path, capsys):
    X = np.random.default_rng(0).normal(size=(9, 4))
    file = str(tmp_path / "head.skops")
    dump(LogisticRegression().fit(X, [0, 1, 0, 1, 0, 1, 0, 1, 1]), file)
    assert main(["info", file]) == 0
    out = capsys.readouterr().out
    assert "encoder: none: it takes embeddings\n" in out
    assert "verdicts: none: no AbstainingClassifier has chosen thresholds\n" in out
