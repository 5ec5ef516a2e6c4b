import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline

from sklearn_clipsid.inspection import FewShotDisplay
from sklearn_clipsid.model_selection import few_shot_curve

COUNTS = {"GAN": 30, "LDM": 20, "SD": 12, "COCO": 25, "RAISE": 35}
GROUPS = np.repeat(list(COUNTS), list(COUNTS.values()))
Y = np.isin(GROUPS, ["GAN", "LDM", "SD"]).astype(int)
N = len(Y)
X = np.random.default_rng(0).normal(size=(N, 3)) + Y[:, None] * [1, 0, 0]
X[:, 2] = np.arange(N)  # says which row it is
SIZES = (4, 10)


def two_features():
    return make_pipeline(
        ColumnTransformer([("two", "passthrough", [0, 1])]), LogisticRegression()
    )


class Spy(ClassifierMixin, BaseEstimator):
    """Score by the first feature, and note which rows come in."""

    trained, scored = [], []

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.trained.append(X[:, 2].astype(int))
        return self

    def decision_function(self, X):
        self.scored.append(X[:, 2].astype(int))
        return X[:, 0]


@pytest.fixture
def spy():
    Spy.trained.clear()
    Spy.scored.clear()
    return Spy()


def curve(estimator=None, groups=GROUPS, **options):
    options = {"sizes": SIZES, "random_state": 0} | options
    return few_shot_curve(estimator or Spy(), X, Y, groups, **options)


def test_as_many_photographs_as_images_of_one_generator_are_trained_on(spy):
    result = curve(spy, n_repeats=2)
    trained = iter(spy.trained)
    for _ in range(2):
        for generator in ("GAN", "LDM", "SD"):
            smaller = set()
            for size in SIZES:
                rows = next(trained)
                assert len(set(rows)) == 2 * size
                assert (Y[rows] == 0).sum() == size
                assert (GROUPS[rows[Y[rows] == 1]] == generator).all()
                assert smaller < set(rows)
                smaller = set(rows)
    assert result.sizes.tolist() == list(SIZES)
    assert result.train_generators == result.test_generators == ["GAN", "LDM", "SD"]


def test_each_repeat_tests_on_photographs_of_another_source(spy):
    curve(spy, n_repeats=3, train_generators=["LDM"])
    for repeat, source in enumerate(["COCO", "RAISE", "COCO"]):
        for which in (2 * repeat, 2 * repeat + 1):
            trained, scored = spy.trained[which], spy.scored[which]
            assert set(GROUPS[scored]) == {source, "GAN", "SD"}
            assert (GROUPS[scored] == source).sum() == COUNTS[source]
            assert source not in GROUPS[trained]


def test_photographs_at_random_are_not_tested_on_when_drawn(spy):
    curve(spy, n_repeats=5, hold_out_real_source=False)
    tested = [set(rows[Y[rows] == 0]) for rows in spy.scored]
    for trained, scored in zip(spy.trained, spy.scored):
        assert not set(trained) & set(scored)
    assert set.union(*tested) == set(np.flatnonzero(Y == 0))


def test_one_photo_source_is_split_at_random(spy):
    groups = np.where(Y == 1, GROUPS, "real")
    result = curve(spy, groups=groups, n_repeats=5)
    assert set(result.table["n_real"]) == {12}  # of 60, in five folds


def test_each_score_is_the_auc_of_one_generator_against_the_photographs():
    result = curve(n_repeats=2)
    assert len(result.table) == 2 * 3 * 2 * 2  # sizes, generators, repeats, others
    for row in result.table:
        source = ["COCO", "RAISE"][row["repeat"]]
        rows = (GROUPS == row["test"]) | (GROUPS == source)
        assert row["auc"] == roc_auc_score(Y[rows], X[rows, 0])
        assert (row["n_real"], row["n_synthetic"]) == (
            COUNTS[source],
            COUNTS[row["test"]],
        )
        assert row["train"] != row["test"]


def test_the_summary_is_that_of_the_rows():
    model = two_features()
    result = curve(model)
    for summary in result.summary:
        rows = result.table[result.table["size"] == summary["size"]]
        assert summary["auc"] == pytest.approx(rows["auc"].mean())
        of_training = [
            rows["auc"][(rows["train"] == name) & (rows["repeat"] == repeat)].mean()
            for name in ("GAN", "LDM", "SD")
            for repeat in range(5)
        ]
        assert summary["lowest"] == pytest.approx(min(of_training))
        assert summary["highest"] == pytest.approx(max(of_training))
        assert summary["below_chance"] == pytest.approx((rows["auc"] < 0.5).mean())


def test_a_seed_gives_the_same_draws_on_any_number_of_workers():
    model = two_features()
    first, again, other = (curve(model, random_state=seed) for seed in (0, 0, 1))
    parallel = curve(model, n_jobs=2)
    np.testing.assert_array_equal(first.table, again.table)
    np.testing.assert_array_equal(first.table, parallel.table)
    assert (first.table["auc"] != other.table["auc"]).any()


def test_labels_may_be_words_and_images_may_be_a_list():
    model = two_features()
    words = np.where(Y == 1, "fake", "real")
    result = few_shot_curve(
        *(model, X.tolist(), words.tolist(), GROUPS.tolist()),
        sizes=SIZES,
        random_state=0,
        pos_label="fake",
    )
    np.testing.assert_array_equal(result.table, curve(model).table)


@pytest.mark.parametrize("second_column", [True, False])
def test_no_pair_is_on_both_sides(spy, second_column):
    pair = np.concatenate([np.arange(count) for count in COUNTS.values()]).astype(str)
    pair[GROUPS == "RAISE"] = ""
    pairs = {"groups": np.column_stack([GROUPS, pair])}
    if not second_column:
        pairs = {"pair_id": pair}
    result = curve(spy, **pairs, sizes=(2, 6))
    for i in range(0, len(spy.trained), 2):
        largest = spy.trained[i + 1]
        np.testing.assert_array_equal(spy.scored[i], spy.scored[i + 1])
        assert not set(pair[largest]) - {""} & set(pair[spy.scored[i]])
    assert result.table["n_synthetic"].max() < COUNTS["GAN"]


def test_pairs_that_leave_nothing_to_test_on_are_an_error():
    pair = np.concatenate([np.arange(count) for count in COUNTS.values()]) % 12
    of_images = np.where(Y == 1, pair.astype(str), "")
    with pytest.raises(ValueError, match="Got no image of 'GAN' to test on that sha"):
        curve(pair_id=of_images, sizes=12, train_generators=["SD"])
    with pytest.raises(ValueError, match="Got no photograph to test on that shares"):
        curve(pair_id=pair, sizes=12, train_generators=["SD"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": 15}, r"'SD' has 12 images; .*train_generators=\['GAN', 'LDM'\]"),
        ({"sizes": 31}, r"'GAN' has 30, 'LDM' has 20, 'SD' has 12 images; lower size"),
        (
            {"sizes": 26, "train_generators": ["GAN"]},
            "only 25 photographs beside a real fold of 35",
        ),
        ({"sizes": ()}, r"sizes=\[\] but expected one or more integers"),
        ({"sizes": (0.5, 1.0)}, r"sizes=\[0.5, 1.0\] but expected one or more integ"),
        ({"sizes": (0, 4)}, r"sizes=\[0, 4\] but expected different numbers of 1"),
        ({"sizes": (4, 4)}, r"sizes=\[4, 4\] but expected different numbers of 1"),
        ({"n_repeats": 0}, "n_repeats=0 but expected an integer"),
        ({"n_repeats": True}, "n_repeats=True but expected an integer"),
        ({"train_generators": ["VAE"]}, r"with 'VAE' but expected some of \['GAN'"),
        ({"train_generators": "VAE"}, r"with 'VAE' but expected some of \['GAN'"),
        ({"train_generators": [3, "SD"]}, r"with 3 but expected some of \['GAN'"),
        ({"train_generators": []}, "with no name but expected some of"),
        ({"hold_out_real_source": 3}, "hold_out_real_source=3 but expected"),
        ({"groups": np.where(Y == 1, "GAN", GROUPS)}, "images of 'GAN' only but"),
        ({"groups": GROUPS[1:]}, f"Got groups with {N - 1} rows but expected {N}"),
        ({"groups": None}, "Got groups=None"),
    ],
    ids=str,
)
def test_a_bad_argument_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        curve(**options)


def test_photographs_are_needed():
    with pytest.raises(ValueError, match="Got synthetic images only"):
        few_shot_curve(Spy(), X[Y == 1], Y[Y == 1], GROUPS[Y == 1], sizes=SIZES)


@pytest.fixture
def plt():
    pytest.importorskip("matplotlib").use("Agg")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    yield pyplot
    pyplot.close("all")


def test_the_figure_shows_means_and_published_curves(plt):
    result = curve(two_features())
    published = {"18 generators": ([10, 100], [0.779, 0.848])}
    display = FewShotDisplay(result.table, published).plot()
    np.testing.assert_array_equal(display.line_.get_xdata(), SIZES)
    np.testing.assert_allclose(display.line_.get_ydata(), result.summary["auc"])
    assert len(display.generator_lines_) == 3
    means = np.mean([line.get_ydata() for line in display.generator_lines_], axis=0)
    np.testing.assert_allclose(means, result.summary["auc"])
    (line,) = display.published_lines_
    assert line.get_ydata().tolist() == [0.779, 0.848]
    labels = [text.get_text() for text in display.ax_.get_xticklabels()]
    assert labels == ["4", "10", "100"]
    few, many = result.summary["auc"]
    title = display.ax_.get_title()
    assert title.startswith(f"AUC {few:.2f} with 4, {many:.2f} with 10; ")
    assert title.endswith("of pairs below chance with 10")


def test_the_figure_takes_axes_and_a_single_size(plt):
    _, ax = plt.subplots()
    display = FewShotDisplay(curve(sizes=5).table).plot(ax)
    assert display.ax_ is ax
    assert display.published_lines_ == []
    assert ax.get_title().startswith("AUC 0.")


def test_what_cannot_be_drawn_is_refused(plt):
    table = curve().table
    with pytest.raises(ValueError, match="without size, train, repeat, test, auc"):
        FewShotDisplay(np.zeros(3)).plot()
    with pytest.raises(ValueError, match="a table without rows"):
        FewShotDisplay(table[:0]).plot()
    with pytest.raises(ValueError, match="without size=10, train='GAN', repeat=0"):
        FewShotDisplay(table[(table["size"] == 4) | (table["train"] != "GAN")]).plot()
    with pytest.raises(ValueError, match=r"'ours' with sizes of shape \(2,\) and AUCs"):
        FewShotDisplay(table, {"ours": ([1, 2], [0.5])}).plot()
    with pytest.raises(ValueError, match="divide percent by 100"):
        FewShotDisplay(table, {"ours": ([10], [77.9])}).plot()
    with pytest.raises(ValueError, match="expected sizes of 1 or more"):
        FewShotDisplay(table, {"ours": ([0.5], [0.7])}).plot()
    with pytest.raises(ValueError, match="published of type tuple but expected a dict"):
        FewShotDisplay(table, ([10], [0.7])).plot()
