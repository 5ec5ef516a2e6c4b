import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn import config_context
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import LinearSVC

from sklearn_clipsid import BlockSelector, CLIPEmbedder
from sklearn_clipsid.metrics import wilson_interval
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut
from sklearn_clipsid.report import _tables as tables
from sklearn_clipsid.report import evaluate
from sklearn_clipsid.report._file_checks import evenly
from sklearn_clipsid.report._findings import findings, percent
from sklearn_clipsid.report._held_out_scores import Scores, default_baselines
from sklearn_clipsid.report._settings import (
    ImageRows,
    Setting,
    lay_out_settings,
    read_image_rows,
)

SETTINGS = [
    "in-domain",
    "unseen generator",
    "unseen source",
    "both unseen",
]
GENERATORS, SOURCES = ["DALL-E", "GAN", "SD"], ["COCO", "RAISE"]


def make_rows(n_each=20, sources=SOURCES):
    groups = np.repeat([*GENERATORS, *sources], n_each)
    return np.isin(groups, GENERATORS).astype(int), groups


@pytest.fixture(scope="module")
def data():
    """Three generators and two photo sources, each with a place of its own."""
    y, groups = make_rows()
    rng = np.random.default_rng(0)
    names, code = np.unique(groups, return_inverse=True)
    X = rng.normal(size=(len(y), 4)) + rng.normal(size=(len(names), 4))[code]
    return X + y[:, None], y, groups


@pytest.fixture(scope="module")
def report(data):
    options = {"max_fpr": 0.2, "n_boot": 50, "random_state": 0}
    return evaluate(LogisticRegression(), *data, **options)


# ---- what is trained and tested on


@pytest.fixture
def paired():
    """Thirty motifs: a photograph and an image of each generator, and single images."""
    y, groups = make_rows(40)
    pair = [f"motif {i}" if i < 30 else "" for i in range(40)]
    pair = np.tile(np.array(pair, dtype=object), 5)
    pair[groups == "RAISE"] = ""
    return read_image_rows(y, groups, pair, len(y), 1)


def test_each_setting_holds_out_what_it_says(paired):
    settings = lay_out_settings(paired, np.random.RandomState(0))[0]
    assert list(settings) == SETTINGS
    group = np.array(paired.names)[paired.group]
    for name, setting in settings.items():
        for train, test in setting.splits:
            assert not np.intersect1d(train, test).size
            shared = np.intersect1d(paired.pair[train], paired.pair[test])
            assert set(shared) <= {-1}
            own, real = (
                set(group[test[paired.positive[test] == kind]]) for kind in (1, 0)
            )
            trained = set(group[train])
            assert own and real
            assert (own & trained == set()) == (
                name in ("unseen generator", "both unseen")
            )
            assert (real & trained == set()) == (
                name in ("unseen source", "both unseen")
            )


def test_in_domain_tests_each_image_once_and_knows_every_group(paired):
    setting = lay_out_settings(paired, np.random.RandomState(0))[0]["in-domain"]
    np.testing.assert_array_equal(np.sort(setting.row), np.arange(len(paired.group)))
    for train, test in setting.splits:
        assert set(paired.group[train]) == set(paired.group[test]) == set(range(5))


def test_unseen_sources_test_each_image_once_beside_the_photograph_of_its_pair(paired):
    setting = lay_out_settings(paired, np.random.RandomState(0))[0]["unseen source"]
    np.testing.assert_array_equal(np.sort(setting.row), np.arange(len(paired.group)))
    assert [cell.source for cell in setting.cells] == ["COCO"] * 3 + ["RAISE"] * 3
    in_pair = paired.pair >= 0
    assert set(setting.trial[np.isin(setting.row, np.flatnonzero(in_pair))]) == {0}


def test_every_generator_meets_every_source_unless_its_pairs_forbid(paired):
    setting = lay_out_settings(paired, np.random.RandomState(0))[0][SETTINGS[-1]]
    met = {(cell.generator, cell.source) for cell in setting.cells}
    assert met == {(g, s) for g in GENERATORS for s in SOURCES}
    beside_coco = next(cell for cell in setting.cells if cell.source == "COCO")
    assert len(beside_coco.own) == 40


def test_many_sources_are_put_together_into_ten():
    sources = [f"camera {i:02}" for i in range(13)]
    y, groups = make_rows(5, sources)
    rows = read_image_rows(y, groups, None, len(y), 1)
    settings, skipped = lay_out_settings(rows, np.random.RandomState(0))
    assert skipped == {}
    names = {cell.source for cell in settings["unseen source"].cells}
    assert len(names) == 10
    assert sorted(" + ".join(names).split(" + ")) == sources


def test_photographs_of_one_source_leave_two_settings(data):
    X, y, groups = data
    one = np.where(y == 1, groups, "real")
    report = evaluate(LogisticRegression(), X, y, one, n_boot=20, random_state=0)
    assert report.settings == SETTINGS[:2]
    assert report.sources == report.pairs == []
    assert set(report.settings_skipped) == {"unseen source", "both unseen"}
    assert "Not tested: both unseen. All photographs are of one source." in repr(report)


# ---- figures


def test_unseen_pairs_have_the_scores_of_a_loop_over_them(data, report):
    X, y, groups = data
    auc, ap = [], []
    for generator in GENERATORS:
        for source in SOURCES:
            test = np.isin(groups, [generator, source])
            fitted = clone(LogisticRegression()).fit(X[~test], y[~test])
            score = fitted.decision_function(X[test])
            auc.append(roc_auc_score(y[test], score))
            ap.append(average_precision_score(y[test], score))
    row = next(row for row in report.summary if row["setting"] == SETTINGS[-1])
    assert row["auc"] == pytest.approx(np.mean(auc), rel=1e-12)
    assert row["ap"] == pytest.approx(np.mean(ap), rel=1e-12)
    hardest = [r["auc"] for r in report.pairs if r["setting"] == SETTINGS[-1]]
    assert hardest == pytest.approx(auc, rel=1e-12)
    assert row["prevalence"] == row["prevalence_low"] == 0.5


def test_means_of_generators_and_sources_are_those_of_their_cells(report):
    cells = [row for row in report.pairs if row["setting"] == SETTINGS[-1]]
    for what, table in (("generator", report.generators), ("source", report.sources)):
        for row in table:
            if row["setting"] == SETTINGS[-1]:
                own = [cell["auc"] for cell in cells if cell[what] == row[what]]
                assert row["auc"] == pytest.approx(np.mean(own), rel=1e-12)
                assert row["auc_low"] <= row["auc"] <= row["auc_high"]


def test_a_constant_score_has_the_prevalence_as_ap_and_costs_one_bit(data):
    # No detector can fool the report by saying nothing.
    options = {"baselines": {}, "max_fpr": 0.3, "n_boot": 20, "random_state": 0}
    report = evaluate(DummyClassifier(), *data, **options)
    for row in report.summary:
        assert row["auc"] == 0.5
        assert row["ap"] == pytest.approx(row["prevalence"], rel=1e-12)
        assert row["cllr"] == pytest.approx(1, rel=1e-12)
    assert all(row["fpr"] == row["tpr"] == 0 for row in report.operating_point)


def test_random_scores_have_an_ap_near_the_prevalence(rng):
    y, groups = make_rows(60)
    X = rng.normal(size=(len(y), 4))
    options = {"baselines": {}, "max_fpr": 0.2, "n_boot": 200, "random_state": 0}
    report = evaluate(LogisticRegression(), X, y, groups, **options)
    for row in report.summary:
        assert row["auc_low"] < 0.5 < row["auc_high"]
        assert abs(row["ap"] - row["prevalence"]) < 0.1


def test_baselines_see_the_steps_before_the_detector(data):
    X, y, groups = data
    head = make_pipeline(BlockSelector(block=-1, n_blocks=2), LogisticRegression())
    baselines = default_baselines(head)
    assert [b.steps[0][0] for b in baselines.values()] == ["blockselector"] * 2
    report = evaluate(
        head, X, y, groups, max_fpr=0.2, n_boot=20, random_state=0, n_jobs=2
    )
    models = dict.fromkeys(row["model"] for row in report.summary)
    assert list(models) == ["detector", "logistic regression", "cosine kNN"]


def test_labels_may_be_words(data, report):
    X, y, groups = data
    words = np.where(y == 1, "fake", "photo")
    options = {"max_fpr": 0.2, "n_boot": 50, "random_state": 0, "pos_label": "fake"}
    same = evaluate(LogisticRegression(), X.tolist(), list(words), groups, **options)
    for table in ("summary", "operating_point"):
        for row, other in zip(getattr(same, table), getattr(report, table)):
            numbers = [key for key in row if not isinstance(row[key], str)]
            assert {k: row[k] for k in numbers} == pytest.approx(
                {k: other[k] for k in numbers}, rel=1e-9
            )


@pytest.fixture
def toy():
    """One test of two synthetic images and four photographs, by one detector."""
    positive = np.array([True, True, False, False, False, False])
    group = np.array([0, 0, 1, 1, 1, 1])
    images = ImageRows(positive, ["GAN", "COCO"], group, np.full(6, -1))
    setting = Setting("in-domain", [(np.arange(6), np.arange(6))], images)
    score = np.array([3.0, 0.5, 2.0, 1.0, -1.0, -2.0])
    probability = np.array([0.9, 0.6, 0.8, 0.7, 0.2, 0.1])
    return setting, Scores(score, probability, np.array([1, 0, 1, 0, -1, -1])), images


def test_rates_of_verdicts_are_counted(toy):
    setting, scores, _ = toy
    (row,) = tables.operating_table({"a": setting}, {"a": scores}, 0.95)
    rates = {name: row[name] for name in ("fpr", "tpr", "fnr", "real_undecided")}
    assert rates == {"fpr": 0.25, "tpr": 0.5, "fnr": 0, "real_undecided": 0.25}
    assert row["n_real"] == 4 and row["n_synthetic"] == 2
    assert (row["fpr_low"], row["fpr_high"]) == wilson_interval(1, 4)
    (wide,) = tables.operating_table({"a": setting}, {"a": scores}, 0.99)
    assert wide["fpr_high"] > row["fpr_high"]


def test_an_image_tested_by_several_detectors_counts_with_its_mean():
    positive = np.array([True, False, False])
    images = ImageRows(positive, ["GAN", "COCO"], np.array([0, 1, 1]), np.full(3, -1))
    splits = [(np.arange(3), np.arange(3))] * 2 + [(np.arange(3), np.arange(2))]
    setting = Setting("in-domain", splits, images)
    scores = Scores(np.zeros(8), None, np.array([1, 1, 0, -1, 0, 0, 1, 1]))
    (row,) = tables.operating_table({"a": setting}, {"a": scores}, 0.95)
    # Photograph 1 was called synthetic in two of three tests, 2 in none of two.
    assert row["n_real"] == 2 and row["fpr"] == pytest.approx(1 / 3)
    assert row["n_synthetic"] == 1 and row["tpr"] == pytest.approx(2 / 3)
    assert row["n_real_trained"] == 2 and row["n_synthetic_trained"] == 1
    failures = tables.failure_table("a", setting, scores, images)
    found = [(one["kind"], one["row"], one["wrong"]) for one in failures]
    assert found == [("false alarm", 1, 2 / 3), ("miss", 0, 1 / 3)]


def test_the_roc_curve_is_the_best_rate_at_each_share_of_false_alarms(toy):
    setting, scores, _ = toy
    points = tables.roc_table({"in-domain": setting}, {"in-domain": scores})
    fpr = np.array([row["fpr"] for row in points])
    # From one photograph in four on; two of them lie above the second synthetic image.
    assert 0.25 <= fpr[0] < 0.29 and fpr[-1] == 1
    expected = np.where(fpr * 4 >= 2 - 1e-9, 1, 0.5)
    np.testing.assert_array_equal([row["tpr"] for row in points], expected)


def test_calibration_is_judged_at_the_prevalence_of_training(toy):
    setting, scores, _ = toy
    points = tables.calibration_table({"in-domain": setting}, {"in-domain": scores})
    assert sum(row["weight"] for row in points) == pytest.approx(1)
    share = sum(row["weight"] * row["synthetic"] for row in points)
    assert share == pytest.approx(1 / 3)  # two of six rows trained on
    # Two halves, as there are few images: one synthetic of three in each.
    assert [row["synthetic"] for row in points] == pytest.approx([1 / 3, 1 / 3])
    assert [row["probability"] for row in points] == pytest.approx([0.3, 0.8])


def test_ties_and_trainings_of_other_prevalence_do_not_bend_the_calibration(rng):
    # Each detector says the prevalence of its training, which is right.
    groups = np.repeat(["GAN", "SD", "COCO", "RAISE"], [40, 20, 100, 15])
    y = np.isin(groups, ["GAN", "SD"]).astype(int)
    X = rng.normal(size=(len(y), 2))
    options = {"baselines": {}, "max_fpr": 0.2, "n_boot": 20, "random_state": 0}
    report = evaluate(DummyClassifier(), X, y, groups, **options)
    assert len({row["setting"] for row in report.calibration}) == 4
    for row in report.calibration:
        assert row["synthetic"] == pytest.approx(row["probability"])


def test_rows_are_chosen_evenly_from_all_kinds():
    kind = np.array([0] * 6 + [1] * 2 + [2] * 4)
    chosen = evenly(np.arange(12) + 100, kind, 7)
    assert np.bincount(kind[chosen - 100]).tolist() == [3, 2, 2]
    assert len(evenly(np.arange(12), kind, 99)) == 12


def test_a_detector_without_probabilities_has_no_cost(data):
    options = {"max_fpr": 0.2, "n_boot": 20, "random_state": 0}
    report = evaluate(LinearSVC(), *data, **options)
    costs = {(r["model"], r["cllr"] is None) for r in report.summary}
    assert ("detector", True) in costs and ("logistic regression", False) in costs
    assert report.calibration == []
    assert "The detector has no predict_proba" in report.to_markdown().replace("\\", "")


def test_a_search_gets_the_groups_that_its_splitter_asks_for(data):
    X, y, groups = data
    groups = np.where(np.arange(100) % 20 < 10, groups, np.char.add(groups, "2"))
    search = GridSearchCV(
        LogisticRegression(), {"C": [0.1, 1]}, cv=LeaveOneGeneratorOut()
    )
    options = {"baselines": {}, "max_fpr": 0.3, "n_boot": 20, "random_state": 0}
    refused("Got groups=None but", X, y, groups, search, **options)
    with config_context(enable_metadata_routing=True):
        report = evaluate(search, X, y, groups, **options)
    assert report.settings == SETTINGS


def test_five_images_of_each_group_are_enough(rng):
    sources = [f"camera {i:02}" for i in range(13)]
    y, groups = make_rows(5, sources)
    X = rng.normal(size=(len(y), 2)) + y[:, None]
    options = {"baselines": {}, "max_fpr": 0.2, "n_boot": 50, "random_state": 0}
    report = evaluate(LogisticRegression(), X, y, groups, **options)
    assert report.settings == SETTINGS
    for row in report.summary:
        assert 0 < row["auc_low"] < row["auc"] < row["auc_high"] <= 1


def test_what_pairs_forbid_is_left_out_with_the_reason(rng):
    # All synthetic images were made from photographs of RAISE.
    y, groups = make_rows(12)
    pair = np.array([f"motif {i}" for i in range(12)] * 5, dtype=object)
    pair[groups == "COCO"] = None
    X = rng.normal(size=(len(y), 2)) + y[:, None]
    options = {"baselines": {}, "max_fpr": 0.2, "n_boot": 50, "random_state": 0}
    report = evaluate(LogisticRegression(), X, y, groups, pair_id=pair, **options)
    assert report.settings == SETTINGS[:2]
    assert "apart from their pairs" in report.settings_skipped["unseen source"]
    assert "Pairs tie too much together" in report.settings_skipped["both unseen"]


def test_generators_that_go_with_their_source_are_not_tested_as_known():
    y, groups = make_rows(10)
    pair = np.array([f"motif {i}" for i in range(10)] * 5, dtype=object)
    pair[np.isin(groups, ["GAN", "SD", "COCO"])] = None  # DALL-E is paired with RAISE
    rows = read_image_rows(y, groups, pair, len(y), 1)
    setting = lay_out_settings(rows, np.random.RandomState(0))[0]["unseen source"]
    for train, test in setting.splits:
        synthetic = [set(groups[part[y[part] == 1]]) for part in (train, test)]
        assert synthetic[1] <= synthetic[0]
    X = np.random.default_rng(0).normal(size=(len(y), 2)) + y[:, None]
    options = {"baselines": {}, "max_fpr": 0.2, "n_boot": 50, "random_state": 0}
    report = evaluate(LogisticRegression(), X, y, groups, pair_id=pair, **options)
    # No test in the third setting, and one in the fourth.
    assert re.search(
        r"\| DALL-E \(10 images\) \|[^|]*\|[^|]*\| - \| 0\.", report.to_markdown()
    )


@pytest.mark.parametrize("kind", ["frame", "lists", "rows", "sparse"])
def test_tables_of_any_kind_are_features(data, report, kind):
    X, y, groups = data
    tables = {
        "frame": pd.DataFrame(X, columns=list("abcd")),
        "lists": X.tolist(),
        "rows": list(X),
        "sparse": csr_array(X),
    }
    baselines = {} if kind == "sparse" else None
    options = {"max_fpr": 0.2, "n_boot": 50, "random_state": 0}
    model = LogisticRegression()
    same = evaluate(model, tables[kind], y, groups, baselines=baselines, **options)
    own = [row["auc"] for row in report.summary if row["model"] == "detector"]
    found = [row["auc"] for row in same.summary if row["model"] == "detector"]
    assert found == pytest.approx(own)


def test_a_classifier_may_read_images_itself(pictures):
    def brightness(images):
        return np.array([[np.asarray(image).mean()] for image in images])

    _, y, groups = pictures
    rng = np.random.default_rng(0)
    images = [
        rng.integers(100 + 40 * label, size=(8 + row, 9, 3), dtype=np.uint8)
        for row, label in enumerate(y)
    ]
    model = make_pipeline(FunctionTransformer(brightness), LogisticRegression())
    report = evaluate(model, images, y, groups, max_fpr=0.2, n_boot=20, random_state=0)
    assert "It was compared with no baseline." in report.findings
    assert report.leaks_skipped == "Images were given as pixels, not as files."


def test_a_group_may_hold_both_classes_and_have_any_name(rng):
    # As in CNNSpot, whose generators come with photographs of their own.
    groups = np.repeat(["SD + LoRA", "GAN", "x" * 300], 20)
    y = np.tile([0, 1], 30)
    X = rng.normal(size=(60, 2)) + y[:, None]
    options = {"baselines": {}, "max_fpr": 0.2, "n_boot": 20, "random_state": 0}
    report = evaluate(LogisticRegression(), X, y, groups, **options)
    assert report.settings == SETTINGS
    assert "SD + LoRA (10 images)" in report.to_markdown()


def test_the_same_seed_makes_the_same_report(data, report):
    options = {"max_fpr": 0.2, "n_boot": 50, "random_state": 0, "n_jobs": 2}
    again = evaluate(LogisticRegression(), *data, **options)
    assert again.to_dict() == report.to_dict()


# ---- what it writes


class Page(HTMLParser):
    """Collects what a browser would fetch, and the order of tags."""

    def __init__(self, text):
        super().__init__()
        self.sources, self.tags, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        self.sources += [values[key] for key in ("src", "href") if key in values]
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def plotting():
    return pytest.importorskip("matplotlib", reason="figures need matplotlib")


def read_page(report, path):
    report.to_html(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    return path.read_text(encoding="utf-8")


def test_the_page_holds_all_it_needs(report, tmp_path, plotting):
    text = read_page(report, tmp_path / "report.html")
    page = Page(text)
    assert page.open == [] and "script" not in page.tags
    assert all(source.startswith("data:") for source in page.sources)
    assert not re.search(r"url\(|@import", text)
    assert page.tags.count("img") == 4  # settings, pairs, ROC, calibration
    assert text == read_page(report, tmp_path / "report.html")


def test_names_are_escaped(data, tmp_path, plotting):
    X, y, groups = data
    groups = np.array([f"<b>{g}|$x$" for g in groups])
    options = {"max_fpr": 0.2, "n_boot": 20, "random_state": 0}
    report = evaluate(LogisticRegression(), X, y, groups, **options)
    text = read_page(report, tmp_path / "report.html")
    assert "<b>" not in text and "&lt;b&gt;GAN|$x$" in text
    text = report.to_markdown()
    assert r"&lt;b>GAN\|$x$" in text and "<b>" not in text


def test_markdown_and_card_have_every_section(report, tmp_path):
    text = report.to_markdown(tmp_path / "report.md")
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == text
    titles = re.findall("^## (.*)", text, re.MULTILINE)
    assert titles[0] == "In short" and "Each photo source" in titles
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")
    pytest.importorskip("skops")
    card = report.to_card(LogisticRegression().fit([[0], [1]], [0, 1])).render()
    for title in titles:
        assert f"## {title}" in card
    assert "both unseen" in card


def test_a_page_into_no_folder_and_a_card_of_an_unfitted_model_are_refused(
    report, tmp_path
):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        report.to_html(tmp_path / "nowhere" / "report.html")
    with pytest.raises(NotFittedError):
        report.to_card(LogisticRegression())


def test_the_dict_is_plain(report, tmp_path):
    report.to_json(tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert read == report.to_dict()
    assert "images" not in read and read["findings"]
    # A neighbour's probability of 0 or 1 is no certainty, or no cost would be finite.
    assert np.isfinite([row["cllr"] for row in read["summary"]]).all()


def test_it_prints_a_summary(report):
    text = repr(report)
    assert "40 photographs of 2 sources and 60 synthetic images of 3 generators" in text
    assert len(re.findall("AUC .* prevalence 0", text)) == 12
    assert "In the setting “both unseen” the detector has a ROC AUC of" in text


# ---- what it says first


def found(report, **changes):
    """Findings of a report with other numbers."""
    return " ".join(findings(replace(report, **changes)))


def with_auc(report, setting, **auc_of):
    """The summary with other ROC AUCs in a setting, half a tenth around them."""
    changed = []
    for row in report.summary:
        auc = auc_of.get(row["model"].replace(" ", "_"))
        if row["setting"] == setting and auc is not None:
            row = row | {"auc": auc, "auc_low": auc - 0.05, "auc_high": auc + 0.05}
        changed.append(row)
    return changed


def test_baselines_are_named_when_they_are_as_good(report):
    def said(detector, other):
        models = {"detector": detector, "logistic_regression": other, "cosine_kNN": 0.1}
        return found(report, summary=with_auc(report, "both unseen", **models))

    assert "it is worse than logistic regression: 0.80 against 0.81." in said(0.8, 0.81)
    assert "it is as good as logistic regression: 0.80 against" in said(0.8, 0.801)
    assert "it is hardly better than logistic regression: 0.80" in said(0.8, 0.76)
    assert "it is better than logistic regression: 0.80" in said(0.8, 0.7)
    alone = [row for row in report.summary if row["model"] == "detector"]
    assert "It was compared with no baseline." in found(report, summary=alone)


def test_a_detector_that_guesses_or_errs_is_called_so(report):
    def said(auc):
        return found(report, summary=with_auc(report, "both unseen", detector=auc))

    assert "not shown to be better than guessing" in said(0.53)
    assert "worse than guessing would" in said(0.3)
    assert "guessing" not in said(0.6)


def test_thresholds_are_said_to_hold_or_not(report):
    def said(rate, low, high):
        changed = {"fpr": rate, "fpr_low": low, "fpr_high": high}
        rows = [row | {"fpr": 0.0} for row in report.operating_point]
        return found(report, operating_point=[rows[0], rows[1] | changed, *rows[2:]])

    assert "Thresholds for 20 % of errors held: 15 % (10" in said(0.15, 0.1, 0.19)
    assert "of errors were not refuted: 15 %" in said(0.15, 0.1, 0.3)
    text = said(0.4, 0.3, 0.5)
    assert "of errors do not hold: 40 % (30" in text and "50 %) of " in text
    assert "in the setting “unseen generator”. In “both unseen”" in text


def test_too_few_images_for_a_promise_are_counted_in_training(report):
    assert "too few" not in found(report)  # 13 of 20 at least, for 20 %
    options = report.options | {"max_fpr": 0.1}
    text = found(report, options=options)
    assert "on 20 photographs, too few to promise 10 % of errors" in text
    assert "it takes 29." in text


def test_probabilities_are_said_to_mislead(report):
    def said(cost):
        summary = [row | {"cllr": cost} for row in report.summary]
        return found(report, summary=summary)

    assert "its probabilities mislead: they cost 1.30 bits" in said(1.3)
    assert "its probabilities say next to nothing: they cost 1.01" in said(1.01)
    assert "probabilities" not in said(0.8)


def test_edits_are_blamed_only_where_they_do_harm(report):
    clean = {"operation": "clean", "strength": 0.0, "n": 8, "auc": 0.9, "flips": 0.0}
    jpeg = {"operation": "jpeg", "strength": 40.0, "n": 8, "auc": 0.7, "flips": 0.25}
    assert (
        "jpeg 40 lowers ROC AUC most, from 0.90 to 0.70; jpeg 40 flips 25 %"
        in found(report, robustness=[clean, jpeg])
    )
    harmless = jpeg | {"auc": 0.9, "flips": 0.0}
    assert "No edit of 8 images in domain lowers ROC AUC; jpeg 40 flips 0 %" in found(
        report, robustness=[clean, harmless]
    )


def test_shares_are_rounded_but_never_to_none_or_all():
    assert [percent(p) for p in (0, 0.0002, 0.004, 0.06, 0.25, 0.998, 1)] == [
        "0 %",
        "<0.1 %",
        "0.4 %",
        "6 %",
        "25 %",
        "99.8 %",
        "100 %",
    ]


# ---- with images


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Paths of 50 files; photographs are JPEG, which gives them away."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    y, groups = make_rows(10)
    rng = np.random.default_rng(0)
    paths = []
    for row, (label, group) in enumerate(zip(y, groups)):
        pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        suffix = "png" if label else "jpg"
        paths.append(folder / f"{row}-{group}.{suffix}")
        shade = np.uint8(30 * label + rng.integers(100))
        Image.fromarray(pixels // 4 + shade).save(paths[-1])
    return paths, y, groups


@pytest.fixture(scope="module")
def picture_report(pictures, tiny_clip):
    detector = make_pipeline(CLIPEmbedder(tiny_clip), LogisticRegression())
    return evaluate(
        detector,
        *pictures,
        max_fpr=0.2,
        n_edited=6,
        operations={"jpeg": [50], "resize": [0.5]},
        n_boot=50,
        random_state=0,
    )


def test_files_are_audited_and_held_out_images_edited(picture_report):
    leaking = [row["cue"] for row in picture_report.leaks if row["leaks"]]
    assert "format" in leaking
    names = [row["operation"] for row in picture_report.robustness]
    assert names == ["clean", "jpeg", "resize"]
    assert picture_report.robustness[0]["n"] == 6
    text = picture_report.to_markdown()
    assert "The files give the label away by format" in text
    assert "flips" in text and "jpeg 50" in text


def test_the_page_names_no_folder_and_shows_the_worst(
    picture_report, pictures, tmp_path, plotting
):
    text = read_page(picture_report, tmp_path / "report.html")
    folder = pictures[0][0].parent
    assert str(folder) not in text and folder.parent.name not in text
    page = Page(text)
    thumbnails = [s for s in page.sources if s.startswith("data:image/jpeg")]
    assert len(thumbnails) == len(picture_report.failures) > 0
    assert page.tags.count("img") - len(thumbnails) == 5
    assert all(source.startswith("data:") for source in page.sources)


def test_images_that_have_gone_are_named_with_the_remedy(picture_report, tmp_path):
    gone = replace(picture_report, images=["gone.png"] * 50)
    with pytest.raises(ValueError, match=r"gone\.png.*set report\.images = None"):
        gone.to_html(tmp_path / "report.html")
    gone.images = None
    assert "jpeg;base64" not in read_page(gone, tmp_path / "report.html")


def test_features_may_come_with_their_images(data, pictures):
    X, y, groups = data
    paths = [pictures[0][i % 50] for i in range(len(y))]
    options = {"max_fpr": 0.2, "n_boot": 20, "random_state": 0}
    report = evaluate(LogisticRegression(), X, y, groups, images=paths, **options)
    assert report.leaks is not None and report.robustness is None
    assert "starts with CLIPEmbedder" in report.robustness_skipped


def test_the_estimator_stays_as_it_was(pictures, tiny_clip):
    detector = make_pipeline(CLIPEmbedder(tiny_clip), LogisticRegression())
    options = {"baselines": {}, "max_fpr": 0.2, "n_edited": 0, "n_boot": 20}
    evaluate(detector, *pictures, random_state=0, **options)
    assert not hasattr(detector[0], "fingerprint_")
    assert not hasattr(detector[1], "coef_")


def test_each_image_is_embedded_once(pictures, tiny_clip, fresh_memo):
    detector = make_pipeline(CLIPEmbedder(tiny_clip), LogisticRegression())
    evaluate(detector, *pictures, max_fpr=0.2, n_edited=0, n_boot=20, random_state=0)
    info = fresh_memo.info()
    assert info.misses == len(pictures[0]) and info.hits == 0


# ---- errors


def refused(message, X, y, groups, estimator=None, error=ValueError, **options):
    with pytest.raises(error, match=message):
        evaluate(estimator or LogisticRegression(), X, y, groups, **options)


def test_rows_that_say_too_little_are_refused(data):
    X, y, groups = data
    refused("Got groups=None", X, y, None)
    refused("Got groups with 99 rows but expected 100", X, y, groups[:99])
    refused("Got y with 99 rows but expected 100", X, y[:99], groups)
    one = np.where(y == 1, "GAN", groups)
    refused("Got images of 'GAN' only but expected two or more", X, y, one)
    refused("Got synthetic images only", X, np.ones(100), groups)
    few = groups.copy()
    few[:3] = "new"
    refused(r"Got fewer than 5 images of 'new' \(3\)", X, y, few)
    broken = np.where(groups == "GAN", "SD\udcff", groups)
    refused(r"Got the group 'SD\\udcff', whose name is not valid", X, y, broken)
    refused("Got y without rows", X[:0], [], [])
    two = np.column_stack([groups, groups])
    refused("Got pair ids twice", X, y, two, pair_id=groups)


def test_other_arguments_are_checked_before_anything_is_fitted(data):
    X, y, groups = data
    refused("expected a classifier", X, y, groups, BlockSelector(), TypeError)
    refused("Got max_fpr=1.5", X, y, groups, max_fpr=1.5)
    refused("Got level=95", X, y, groups, level=95)
    refused("Got n_boot=1 but", X, y, groups, n_boot=1)
    refused("Got n_edited=-1 but", X, y, groups, n_edited=-1)
    refused("Got n_edited=1 but expected 2", X, y, groups, n_edited=1)
    refused("Got the operation 'jpg' but", X, y, groups, operations=["jpg"])
    refused("Got images with 2 rows but", X, y, groups, images=["a.png", "b.png"])
    refused("Got baselines of type list", X, y, groups, baselines=[], error=TypeError)
    for baselines in ({"detector": LogisticRegression()}, {"detector": 3}):
        refused("Got the baseline 'detector'", X, y, groups, baselines=baselines)
    refused(r"Got X of shape \(100, 4, 1\) and type float", X[..., None], y, groups)
    X = np.where(np.arange(100)[:, None] == 3, np.nan, X)
    refused("contains NaN in 1 of 100 rows: 3", X, y, groups)


def test_scores_that_are_not_finite_are_refused(data):
    class Broken(LogisticRegression):
        def decision_function(self, X):
            return np.full(len(X), np.nan)

    refused("Got a score of NaN from Broken", *data, Broken())
