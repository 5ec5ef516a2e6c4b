import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from sklearn_clipsid.inspection import GeneratorAPDisplay
from sklearn_clipsid.metrics import average_precision_by_generator


@pytest.fixture(autouse=True)
def plt():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    yield plt
    plt.close("all")


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
