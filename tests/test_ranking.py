import csv
import json

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_validate

from sklearn_clipsid.metrics import (
    average_precision_by_generator,
    make_mean_average_precision_scorer,
    mean_average_precision_score,
)
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut


@pytest.fixture
def scored(rng):
    """Three generators of different size, photographs of two sources."""
    groups = np.array(["SD"] * 30 + ["GAN"] * 10 + ["FLUX"] * 20 + ["A", "B"] * 20)
    y = np.repeat([1, 0], [60, 40])
    return y, rng.normal(size=100) + y, groups


@pytest.fixture
def cnnspot(rng):
    """Three groups that hold both labels."""
    groups = np.repeat(["biggan", "deepfake", "progan"], 20)
    y = np.tile([0, 1], 30)
    return y, rng.normal(size=60) + y, groups


def test_each_generator_is_ranked_against_all_photographs(scored):
    y, score, groups = scored
    result = average_precision_by_generator(y, score, groups)
    assert list(result) == ["FLUX", "GAN", "SD"]
    for name, value in result.items():
        rows = (groups == name) | (y == 0)
        assert value == average_precision_score(y[rows], score[rows])
        assert type(name) is str and type(value) is float


def test_matched_negatives_are_those_of_the_group(cnnspot):
    y, score, groups = cnnspot
    result = average_precision_by_generator(y, score, groups, negatives="matched")
    assert list(result) == ["biggan", "deepfake", "progan"]
    for name, value in result.items():
        rows = groups == name
        assert value == average_precision_score(y[rows], score[rows])


def test_shared_negatives_of_mixed_groups_are_those_of_all_groups(cnnspot):
    y, score, groups = cnnspot
    result = average_precision_by_generator(y, score, groups)
    for name, value in result.items():
        rows = ((groups == name) & (y == 1)) | (y == 0)
        assert value == average_precision_score(y[rows], score[rows])


def test_the_mean_counts_each_generator_alike(scored):
    y, score, groups = scored
    by_generator = average_precision_by_generator(y, score, groups)
    mean = mean_average_precision_score(y, score, groups)
    assert mean == pytest.approx(np.mean(list(by_generator.values())))
    assert mean != pytest.approx(average_precision_score(y, score), abs=1e-3)


def test_with_one_generator_it_is_average_precision(scored):
    y, score, _ = scored
    groups = np.where(y == 1, "GAN", "real")
    expected = average_precision_score(y, score)
    for negatives in ("shared", "matched"):
        one_group = groups if negatives == "shared" else np.full(100, "GAN")
        result = mean_average_precision_score(y, score, one_group, negatives=negatives)
        assert result == pytest.approx(expected)


def test_perfect_scores_have_mean_average_precision_one(scored):
    y, _, groups = scored
    assert mean_average_precision_score(y, y, groups) == 1.0


def test_a_weight_equals_repetition(scored, rng):
    y, score, groups = scored
    weight = rng.integers(0, 4, size=100)
    weighted = average_precision_by_generator(y, score, groups, sample_weight=weight)
    repeated = average_precision_by_generator(
        np.repeat(y, weight), np.repeat(score, weight), np.repeat(groups, weight)
    )
    assert weighted == pytest.approx(repeated)


def test_every_form_of_groups_and_labels_gives_the_same(scored):
    y, score, groups = scored
    expected = average_precision_by_generator(y, score, groups)
    two_columns = np.column_stack([groups, np.arange(100)])
    for same in (list(groups), pd.Series(groups), two_columns, groups[:, None]):
        assert average_precision_by_generator(y, score, same) == expected
    text = np.where(y == 1, "fake", "real")
    for labels, pos_label in ((text, "fake"), (list(text), "fake"), (2 * y - 1, 1)):
        result = average_precision_by_generator(
            labels, list(score), groups, pos_label=pos_label
        )
        assert result == expected


@pytest.mark.oracle
def test_published_predictions_have_the_published_mean_average_precision(oracles):
    name = "synthclic_clip_orthogonal_synthclic"
    with (oracles / "published" / f"{name}_predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    data = (
        [int(row["label"]) for row in rows],
        [float(row["label_prob"]) for row in rows],
        [row["source"] for row in rows],
    )
    published = json.loads((oracles / "published" / f"{name}.json").read_text())
    expected = {
        source: metrics["ap"]
        for source, metrics in published["per_source_metrics"].items()
    }
    result = average_precision_by_generator(*data)
    assert result == pytest.approx(expected, abs=1e-6)
    assert mean_average_precision_score(*data) == pytest.approx(
        0.9208978243133309, abs=1e-6
    )


# ---- errors

Y = [1, 1, 1, 0, 0]
SCORE = [0.9, 0.8, 0.3, 0.5, 0.1]
GROUPS = ["GAN", "GAN", "SD", "real", "real"]


@pytest.mark.parametrize(
    ("y", "score", "groups", "message"),
    [
        (None, SCORE, GROUPS, "Got y_true=None"),
        (Y, SCORE, None, "Got groups=None"),
        (Y, SCORE, ["GAN", None, "SD", "real", "real"], r"groups for row\(s\) 1 but"),
        (Y, SCORE[:4], GROUPS, "Got y_score with 4 rows but expected 5"),
        (Y, SCORE, GROUPS[:4], "Got groups with 4 rows but expected 5"),
        (Y, np.zeros((5, 2)), GROUPS, "pass the column of the synthetic class"),
        (Y, [0.1, np.nan, 0.2, np.inf, 0.3], GROUPS, r"infinite for row\(s\) 1, 3 but"),
        (["f", "f", "f", "r", "r"], SCORE, GROUPS, "pass pos_label='f' or pos_label='"),
        ([0, 0, 0, 2, 1], SCORE, GROUPS, "y_true with 3 labels"),
        ([0] * 5, SCORE, GROUPS, "expected rows with y_true == pos_label=1"),
        ([1] * 5, SCORE, GROUPS, r"no photograph .* of \['GAN', 'SD', 'real'\] again"),
    ],
)
def test_rows_that_cannot_be_ranked_are_refused(y, score, groups, message):
    with pytest.raises(ValueError, match=message):
        average_precision_by_generator(y, score, groups)


def test_matched_negatives_name_every_group_without_photographs():
    y = [1, 1, 1, 0, 0]
    groups = ["GAN", "SD", "FLUX", "SD", "real"]
    with pytest.raises(ValueError, match=r"of \['FLUX', 'GAN'\] .* negatives='shared'"):
        average_precision_by_generator(y, SCORE, groups, negatives="matched")


def test_unknown_negatives_are_refused():
    with pytest.raises(ValueError, match="Got negatives='all' but expected 'shared'"):
        mean_average_precision_score(Y, SCORE, GROUPS, negatives="all")


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1, 1, 0, 1, 1], r"zero for all synthetic images of \['SD'\]"),
        ([1, 1, 1, 0, 0], r"no photograph \(of positive weight\)"),
        ([1, 1, 1, 1, -1], "Negative values"),
        ([1, 1], "Got sample_weight with 2 rows but expected 5"),
    ],
)
def test_weights_may_not_remove_a_class(weight, message):
    with pytest.raises(ValueError, match=message):
        average_precision_by_generator(Y, SCORE, GROUPS, sample_weight=weight)


# ---- the scorer


@pytest.fixture
def embedded(scored, rng):
    y, _, groups = scored
    return rng.normal(size=(100, 3)) + 0.5 * y[:, None], y, groups


def test_without_metadata_routing_the_scorer_says_what_to_type():
    with pytest.raises(
        RuntimeError,
        match=r"set_config\(enable_metadata_routing=True\).*params=\{'groups': groups\}"
        r".*LeaveOneGeneratorOut.*scoring='average_precision'",
    ):
        make_mean_average_precision_scorer()


@pytest.mark.parametrize("two_columns", [False, True])
def test_the_scorer_scores_each_test_fold_with_its_own_groups(embedded, two_columns):
    X, y, groups = embedded
    cv = StratifiedKFold(3)
    model = LogisticRegression()
    expected = []
    for train, test in cv.split(X, y):
        score = model.fit(X[train], y[train]).decision_function(X[test])
        expected.append(mean_average_precision_score(y[test], score, groups[test]))
    if two_columns:
        groups = np.column_stack([groups, [""] * 100])
    with config_context(enable_metadata_routing=True):
        scoring = make_mean_average_precision_scorer()
        result = cross_validate(
            model, X, y, cv=cv, scoring=scoring, params={"groups": groups}
        )
        search = GridSearchCV(model, {"C": [0.01, 1.0]}, cv=cv, scoring=scoring)
        search.fit(X, y, groups=groups)
    np.testing.assert_allclose(result["test_score"], expected)
    assert search.cv_results_["mean_test_score"][1] == pytest.approx(np.mean(expected))


def test_leaving_generators_out_average_precision_already_is_the_mean(embedded):
    X, y, groups = embedded
    cv = LeaveOneGeneratorOut()
    with config_context(enable_metadata_routing=True):
        result = cross_validate(
            LogisticRegression(),
            X,
            y,
            cv=cv,
            scoring={
                "plain": "average_precision",
                "by_generator": make_mean_average_precision_scorer(),
            },
            params={"groups": groups},
        )
    np.testing.assert_allclose(result["test_plain"], result["test_by_generator"])


def test_the_scorer_takes_the_column_of_pos_label(embedded):
    X, y, groups = embedded
    text = np.where(y == 1, "fake", "real")  # "fake" sorts first: classes_[0]
    with config_context(enable_metadata_routing=True):
        on_text = make_mean_average_precision_scorer(pos_label="fake")(
            LogisticRegression().fit(X, text), X, text, groups=groups
        )
        on_numbers = make_mean_average_precision_scorer()(
            LogisticRegression().fit(X, y), X, y, groups=groups
        )
    assert on_text == pytest.approx(on_numbers)


def test_the_scorer_passes_negatives_on(cnnspot, rng):
    y, _, groups = cnnspot
    X = rng.normal(size=(60, 3)) + 0.5 * y[:, None]
    model = LogisticRegression().fit(X, y)
    with config_context(enable_metadata_routing=True):
        scorer = make_mean_average_precision_scorer(negatives="matched")
        result = scorer(model, X, y, groups=groups)
    assert result == mean_average_precision_score(
        y, model.decision_function(X), groups, negatives="matched"
    )
