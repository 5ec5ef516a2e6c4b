import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneGroupOut, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_clipsid.inspection import GeneratorAPDisplay
from sklearn_clipsid.inspection._generator_ranking import rank_folds
from sklearn_clipsid.metrics import average_precision_by_generator
from sklearn_clipsid.model_selection import CrossGeneratorSplit, LeaveOneGeneratorOut

pytestmark = pytest.mark.usefixtures("plt")


@pytest.fixture
def scored(rng):
    """Thirty photographs with images of three generators, the last one hard."""
    groups = np.array(["photos", "GAN", "SD", "FLUX"] * 30)
    y = (groups != "photos").astype(int)
    score = rng.normal(size=120) + np.tile([0, 2, 1, 0.2], 30)
    return y, score, groups, np.repeat([f"p{j}" for j in range(30)], 4)


def from_predictions(y, score, groups, **kwargs):
    options = {"n_boot": 100, "random_state": 0} | kwargs
    return GeneratorAPDisplay.from_predictions(y, score, groups, **options)


def lengths(shown):
    return [bar.get_width() for bar in shown.bars_]


def test_bars_are_the_average_precisions_from_the_hardest_generator_down(scored):
    y, score, groups, _ = scored
    expected = average_precision_by_generator(y, score, groups)
    shown = from_predictions(y, score, groups)
    labels = [label.get_text() for label in shown.ax_.get_yticklabels()]
    assert labels == [*sorted(expected, key=expected.get), "mean over generators"]
    values = sorted(expected.values())
    np.testing.assert_allclose(lengths(shown), [*values, np.mean(values)])
    bottom, top = shown.ax_.get_ylim()
    assert bottom > top  # the hardest stands at the top
    (side,) = shown.ax_.child_axes
    assert side.get_yticklabels()[0].get_text().startswith(f"{values[0]:.3f} [")


def test_whiskers_reach_from_limit_to_limit(scored):
    y, score, groups, pair = scored
    shown = from_predictions(y, score, groups, pair_id=pair)
    (whiskers,) = shown.ax_.containers[1].lines[2]
    ends = np.array([segment[:, 0] for segment in whiskers.get_segments()])
    np.testing.assert_allclose(ends[:-1, 0], np.array(shown.low)[shown.order_])
    np.testing.assert_allclose(ends[:-1, 1], np.array(shown.high)[shown.order_])
    np.testing.assert_allclose(ends[-1], shown.mean[1:])
    assert (ends[:, 0] < lengths(shown)).all() and (lengths(shown) < ends[:, 1]).all()


def test_random_scores_are_marked_at_the_prevalence(scored):
    y, score, groups, _ = scored
    keep = (groups != "SD") | (np.arange(120) < 40)  # 10 of SD, 30 of the others
    shown = from_predictions(y[keep], score[keep], groups[keep])
    (marks,) = (line for line in shown.ax_.lines if line.get_label() == "random scores")
    by_name = dict(zip(np.array(shown.names)[shown.order_], marks.get_xdata()))
    assert by_name == pytest.approx({"GAN": 0.5, "SD": 0.25, "FLUX": 0.5})


def test_pairs_may_be_a_second_column(scored):
    y, score, groups, pair = scored
    one = from_predictions(y, score, groups, pair_id=pair)
    other = from_predictions(y, score, np.column_stack([groups, pair]))
    np.testing.assert_array_equal(one.low, other.low)
    unpaired = from_predictions(y, score, groups)
    assert (unpaired.low != one.low).any()
    with pytest.raises(ValueError, match="Got pair ids twice"):
        from_predictions(y, score, np.column_stack([groups, pair]), pair_id=pair)


def test_matched_photographs_are_taken_where_all_groups_have_some(rng):
    groups, y = np.repeat(["biggan", "progan"], 20), np.tile([0, 1], 20)
    score = rng.normal(size=40) + y
    for negatives, kind in (("auto", "matched"), ("shared", "shared")):
        expected = average_precision_by_generator(y, score, groups, negatives=kind)
        shown = from_predictions(y, score, groups, negatives=negatives)
        assert dict(zip(shown.names, shown.average_precision)) == pytest.approx(
            expected
        )
    with pytest.raises(ValueError, match="Got negatives='all' but expected 'auto'"):
        from_predictions(y, score, groups, negatives="all")


def test_the_scores_of_an_estimator_are_those_of_the_synthetic_class(scored, plt):
    y, score, groups, _ = scored
    words = np.where(y == 1, "fake", "photo")  # "fake" sorts first
    X = score[:, np.newaxis]
    _, ax = plt.subplots()
    shown = GeneratorAPDisplay.from_estimator(
        LogisticRegression().fit(X, words),
        X,
        words,
        groups,
        n_boot=10,
        random_state=0,
        pos_label="fake",
        ax=ax,
    )
    expected = average_precision_by_generator(y, score, groups)
    assert dict(zip(shown.names, shown.average_precision)) == pytest.approx(expected)
    assert shown.ax_ is ax and shown.figure_ is ax.figure


# ---- folds


@pytest.fixture
def held_out(scored):
    """Features, labels, groups, pairs and the result of leaving generators out."""
    y, score, groups, pair = scored
    X = np.column_stack([score, score[::-1]])
    cv = LeaveOneGeneratorOut(n_real_folds=2)
    return X, y, groups, pair, validate(X, y, groups, cv)


def validate(X, y, groups, cv, model=None, **kwargs):
    return cross_validate(
        LogisticRegression() if model is None else model,
        X,
        y,
        groups=groups,
        cv=cv,
        return_estimator=True,
        return_indices=True,
        **kwargs,
    )


def from_cv_results(result, X, y, groups, **kwargs):
    options = {"n_boot": 100, "random_state": 0} | kwargs
    return GeneratorAPDisplay.from_cv_results(result, X, y, groups, **options)


def test_bars_of_folds_are_the_scores_of_cross_validation(held_out):
    X, y, groups, _, _ = held_out
    cv = LeaveOneGeneratorOut(n_real_folds=2)
    result = validate(X, y, groups, cv, scoring="average_precision")
    shown = from_cv_results(result, X, y, groups)
    assert shown.names == ["FLUX", "GAN", "SD"]  # in the order of the folds
    np.testing.assert_allclose(shown.average_precision, result["test_score"])
    assert shown.mean[0] == pytest.approx(result["test_score"].mean())
    np.testing.assert_allclose(
        shown.prevalence, [y[test].mean() for test in result["indices"]["test"]]
    )
    assert (shown.low < shown.average_precision).all()
    assert (shown.average_precision < shown.high).all()


def test_a_photograph_of_two_folds_is_drawn_into_both(held_out):
    X, y, groups, pair, result = held_out
    tests = result["indices"]["test"]
    row = np.concatenate(tests)
    for pair_id, unit in ((None, np.arange(120)), (pair, pair)):
        rows, scores = rank_folds(result, X, y, groups, pair_id, 1)
        drawn_together = rows.cluster[:, None] == rows.cluster
        np.testing.assert_array_equal(drawn_together, unit[row][:, None] == unit[row])
        assert len(scores) == len(row) == sum(len(test) for test in tests)
        assert len(rows.stratum) == len(np.unique(unit[row]))
    own, photographs = rows.own[1], rows.photographs[1]  # GAN, in test fold 1
    assert set(groups[row[own]]) == {"GAN"}
    np.testing.assert_array_equal(np.sort(row[[*own, *photographs]]), tests[1])
    np.testing.assert_allclose(
        scores[own], result["estimator"][1].decision_function(X[row[own]])
    )


def test_each_draw_holds_as_many_photographs_of_each_fold(held_out):
    X, y, groups, _, result = held_out
    rows, _ = rank_folds(result, X, y, groups, None, 1)
    # Folds 0 and 2 share their photographs, fold 1 has the others.
    strata = [set(rows.stratum[rows.cluster[part]]) for part in rows.photographs]
    assert strata[0] == strata[2] and len(strata[0]) == 1
    assert not strata[0] & strata[1]


def test_random_scores_of_folds_have_an_ap_near_the_prevalence(rng):
    groups = np.repeat(["GAN", "SD", "photos"], 400)
    y, X = (groups != "photos").astype(int), rng.normal(size=(1200, 2))
    result = validate(X, y, groups, LeaveOneGeneratorOut(n_real_folds=2))
    shown = from_cv_results(result, X, y, groups)
    np.testing.assert_allclose(shown.average_precision, 2 / 3, atol=0.06)
    np.testing.assert_allclose(shown.prevalence, 2 / 3)


def test_folds_of_paths_and_of_labels_in_words(held_out):
    X, y, groups, pair, result = held_out
    expected = from_cv_results(result, X, y, groups, pair_id=pair)
    paths = [f"{i}.png" for i in range(len(X))]
    read = FunctionTransformer(lambda paths: X[[int(p[:-4]) for p in paths]])
    words = np.where(y == 1, "fake", "photo")
    shown = from_cv_results(
        validate(
            paths,
            words,
            groups,
            LeaveOneGeneratorOut(n_real_folds=2, pos_label="fake"),
            make_pipeline(read, LogisticRegression()),
        ),
        paths,
        words,
        np.column_stack([groups, pair]),
        pos_label="fake",
    )
    np.testing.assert_allclose(shown.average_precision, expected.average_precision)
    np.testing.assert_allclose(shown.low, expected.low)


def test_results_without_detectors_or_rows_are_refused(held_out):
    X, y, groups, _, result = held_out
    with pytest.raises(ValueError, match="cv_results without estimator and indices"):
        from_cv_results(None, X, y, groups)
    for key in ("estimator", "indices"):
        lacking = {k: v for k, v in result.items() if k != key}
        with pytest.raises(ValueError, match=f"without {key} but .*return_indices=Tr"):
            from_cv_results(lacking, X, y, groups)
    with pytest.raises(
        ValueError, match=r"Got row \d+ in test fold 0 but 60 rows of X"
    ):
        from_cv_results(result, X[:60], y[:60], groups[:60])
    with pytest.raises(ValueError, match="Got X with 119 rows but expected 120"):
        from_cv_results(result, X[1:], y, groups)
    with pytest.raises(ValueError, match="Got groups=None"):
        from_cv_results(result, X, y, None)


def test_folds_that_rank_no_generator_of_their_own_are_refused(held_out):
    X, y, groups, _, result = held_out
    of = [np.flatnonzero(groups == name) for name in ("GAN", "SD", "photos")]
    for tests, message in (
        (of[:1], "test fold 0 of synthetic images only but .*LeaveOneGeneratorOut"),
        (of[2:], "test fold 0 of photographs only but expected both classes"),
        ([np.arange(120)], "test fold 0 with the generators 'FLUX', 'GAN', 'SD' but"),
        (
            [np.append(of[0], of[2]), np.append(of[0], of[2])],
            "'GAN' in test folds 0 and 1 but .*a CrossGeneratorSplit with CrossDatas",
        ),
    ):
        result["indices"] = {"test": tests}
        with pytest.raises(ValueError, match=message):
            from_cv_results(result, X, y, groups)


@pytest.mark.parametrize("cv", [LeaveOneGroupOut(), CrossGeneratorSplit()])
def test_splitters_of_other_folds_are_refused(scored, cv):
    y, score, groups, _ = scored
    X = score[:, np.newaxis]
    if isinstance(cv, LeaveOneGroupOut):  # every training part needs both classes
        groups = np.where(y == 1, groups, np.where(np.arange(120) < 60, "GAN", "SD"))
    result = validate(X, y, groups, cv)
    with pytest.raises(ValueError, match="cross-validate with cv=LeaveOneGeneratorOut"):
        from_cv_results(result, X, y, groups)


def test_a_fold_whose_fit_failed_is_named(held_out):
    X, y, groups, _, result = held_out
    result["estimator"][1] = LogisticRegression()  # as cross_validate leaves it
    with pytest.raises(ValueError, match="Got no fitted detector of test fold 1 but"):
        from_cv_results(result, X, y, groups)


def test_scores_of_a_fold_that_are_no_numbers_name_the_rows(held_out):
    X, y, groups, _, result = held_out

    class Broken(LogisticRegression):
        def decision_function(self, X):
            return np.where(np.arange(len(X)) == 1, np.nan, 0.0)

    result["estimator"][2] = Broken().fit(X, y)
    row = result["indices"]["test"][2][1]
    with pytest.raises(ValueError, match=rf"test fold 2 .* for row\(s\) {row} but"):
        from_cv_results(result, X, y, groups)


# ---- drawing and errors


def test_an_estimator_has_to_be_fitted(scored):
    y, score, groups, _ = scored
    with pytest.raises(NotFittedError, match="not fitted yet"):
        GeneratorAPDisplay.from_estimator(
            LogisticRegression(), score[:, np.newaxis], y, groups
        )


def test_figures_grow_with_the_number_of_generators():
    heights = []
    for n in (2, 20):
        half = np.full(n, 0.5)
        shown = GeneratorAPDisplay(
            half,
            low=half,
            high=half,
            names=[f"g{j}" for j in range(n)],
            prevalence=half,
            mean=(0.5, 0.4, 0.6),
        ).plot()
        heights.append(shown.figure_.get_figheight())
    assert heights[1] - heights[0] == pytest.approx(18 * 0.36)


@pytest.mark.parametrize(
    ("score", "groups", "message"),
    [
        ([0.1, 0.2, 0.3], ["GAN", "GAN", "real", "real"], "Got y_score with 3 rows"),
        ([[0.1]] * 4, ["GAN", "GAN", "real", "real"], r"Got y_score of shape \(4, 1\)"),
        ([0.1, np.nan, 0, 0], ["GAN"] * 4, r"NaN or infinite for row\(s\) 1 but"),
        ([0.1, 0.2, 0, 0], ["GAN", None, "real", "real"], r"groups for row\(s\) 1 but"),
    ],
)
def test_rows_that_cannot_be_ranked_are_refused(score, groups, message):
    with pytest.raises(ValueError, match=message):
        from_predictions([1, 1, 0, 0], score, groups)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_boot": 1}, "Got n_boot=1 but expected an integer of 2 or more"),
        ({"level": 95}, "Got level=95 but expected a number between 0 and 1"),
    ],
)
def test_draws_are_checked_before_anything_is_scored(held_out, options, message):
    X, y, groups, _, result = held_out
    with pytest.raises(ValueError, match=message):
        from_cv_results(result, X, y, groups, **options)
    with pytest.raises(ValueError, match=message):
        from_predictions(y, X[:, 0], groups, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"low": [0.5]},
            r"Got low of shape \(1,\) for 2 names but expected one number",
        ),
        ({"high": [0.5, 1.5]}, "Got high with NaN or numbers outside of 0 to 1"),
        ({"mean": (0.5, 0.4)}, r"Got mean=\(0.5, 0.4\) but expected the mean and two"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changes, message):
    options = {
        "low": [0.4, 0.4],
        "high": [0.6, 0.6],
        "names": ["a", "b"],
        "prevalence": [0.5, 0.5],
        "mean": (0.5, 0.4, 0.6),
    }
    with pytest.raises(ValueError, match=message):
        GeneratorAPDisplay([0.5, 0.5], **options | changes).plot()
