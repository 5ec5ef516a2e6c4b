import json

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
    rows = [json.loads(line) for line in out.splitlines()]
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
    header, *rows = out.splitlines()
    assert header.split() == ["images", "AUC", "AP", "called", "synthetic", "undecided"]
    assert [row.split()[0] for row in rows] == [
        *["generator"] * 3,
        "mean",
        *["photo"] * 2,
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
    assert out.splitlines()[0].split() == ["images", "called", "synthetic"]


def test_the_report_is_about_the_recipe(save, evaluate, tmp_path, monkeypatch, folder):
    file, _ = save(AbstainingClassifier(LogisticRegression(), max_fpr=0.4, cv=2))
    asked = {}

    class Report:
        def to_html(self, path):
            asked["path"] = path

    def fake(estimator, X, y, groups, **options):
        asked.update(options, estimator=estimator, n=len(X))
        return Report()

    monkeypatch.setattr("sklearn_clipsid.report.evaluate", fake)
    html = str(tmp_path / "report.html")
    status, _, err = evaluate(file, "--html", html)
    assert status == 0
    assert (asked["path"], asked["n"], asked["max_fpr"]) == (html, 40, 0.4)
    assert isinstance(asked["estimator"][-1], LogisticRegression)
    assert "not about the saved one" in err


def test_a_report_is_written(save, evaluate, tmp_path):
    file, _ = save(LogisticRegression())
    html = tmp_path / "report.html"
    status, _, err = evaluate(file, "--html", str(html))
    assert status == 0, err
    assert "Detection report" in html.read_text(encoding="utf-8")


def test_a_recipe_loses_its_thresholds():
    head = LogisticRegression()
    inner = AbstainingClassifier(head, max_fpr=0.2, cv="prefit")
    outer = FixedThresholdClassifier(
        FrozenEstimator(make_pipeline(CLIPEmbedder(), inner))
    )
    recipe = recipe_of(outer)
    assert recipe.estimator[-1] is head
    assert recipe.max_fpr == 0.2


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
    assert facts["verdicts"]["synthetic above"] == model[-1].thresholds_[1]
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
