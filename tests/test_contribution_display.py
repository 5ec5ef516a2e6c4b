import numpy as np
import pytest
from matplotlib.colors import to_hex
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_clipsid import ConceptBottleneckClassifier, OrthogonalLinearDetector
from sklearn_clipsid.inspection import ConceptContributionDisplay

BLUE, ORANGE = "#0072b2", "#e69f00"
MINUS = "\N{MINUS SIGN}"
NAMES = ["grain", "blur", "glow", "text", "hands", "grid"]


pytestmark = pytest.mark.usefixtures("plt")


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 30)
    return rng.standard_normal((60, 6)) + y[:, None], y


@pytest.fixture(scope="module")
def detector(data):
    return ConceptBottleneckClassifier(
        concept_names=NAMES, gates="none", max_iter=30, random_state=0
    ).fit(*data)


def lengths(bars):
    return np.array([bar.get_width() for bar in bars])


def tick_labels(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


@pytest.mark.parametrize("top", [1, 3, 6, 99])
def test_the_bars_of_an_image_add_up_to_its_logit(detector, data, top):
    X, _ = data
    display = ConceptContributionDisplay.from_estimator(detector, X[:1], top=top)
    logit = detector.decision_function(X[:1])[0]
    assert lengths(display.bars_[0]).sum() == pytest.approx(logit)
    np.testing.assert_allclose(display.values_[:, 0], lengths(display.bars_[0]))
    assert len(display.labels_) == min(top, 6) + (top < 6) + 1
    title = display.ax_.get_title()
    assert f"{abs(logit):.2f}" in title
    assert f"probability {detector.predict_proba(X[:1])[0, 1]:.2f}" in title


def test_the_largest_contributions_stand_at_the_top_coloured_by_sign():
    display = ConceptContributionDisplay(
        [[0.5, -2.0, 0.0, 1.0]], names=["a", "b", "c", "d"], intercept=-0.25
    ).plot(top=3)
    assert display.labels_ == ["b", "d", "a", "other concepts (1)", "intercept"]
    np.testing.assert_array_equal(display.values_[:, 0], [-2, 1, 0.5, 0, -0.25])
    colours = [to_hex(bar.get_facecolor()) for bar in display.bars_[0]]
    assert colours[:3] + colours[4:] == [BLUE, ORANGE, ORANGE, BLUE]
    low, high = display.ax_.get_ylim()
    assert low > high  # the first bar is at the top
    assert tick_labels(display.ax_) == display.labels_
    written = [text.get_text() for text in display.ax_.texts]
    assert written == [f"{MINUS}2.00", "+1.00", "+0.50", "0.00", f"{MINUS}0.25"]


def test_several_images_show_the_means_of_both_classes(detector, data):
    X, y = data
    display = ConceptContributionDisplay.from_estimator(detector, X, y, top=4)
    C = detector.transform(X)
    means = np.array([C[y == 0].mean(axis=0), C[y == 1].mean(axis=0)]).T
    order = np.argsort(-np.abs(means[:, 1] - means[:, 0]))
    assert display.labels_[:4] == [NAMES[concept] for concept in order[:4]]
    np.testing.assert_allclose(display.values_[:4], means[order[:4]])
    np.testing.assert_allclose(display.values_[4], means[order[4:]].sum(axis=0))
    logits = detector.decision_function(X)
    np.testing.assert_allclose(
        display.values_.sum(axis=0), [logits[y == 0].mean(), logits[y == 1].mean()]
    )
    for code, colour in enumerate((BLUE, ORANGE)):
        bars = display.bars_[code]
        np.testing.assert_allclose(lengths(bars), display.values_[:, code])
        assert {to_hex(bar.get_facecolor()) for bar in bars} == {colour}
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert legend == ["real (n = 30)", "synthetic (n = 30)"]
    assert display.gate_shares_ is None  # there are no gates to speak of


def test_how_often_gates_open_is_written_beside_the_means(data):
    X, y = data
    gated = ConceptBottleneckClassifier(
        concept_names=NAMES, max_iter=60, sparsity=1e-2, random_state=0
    ).fit(X, y)
    display = ConceptContributionDisplay.from_estimator(gated, X, y, top=5)
    is_open = gated.gate_probabilities(X) > 0.5
    columns = [NAMES.index(name) for name in display.labels_[:5]]
    expected = [is_open[y == code][:, columns].mean(axis=0) for code in (0, 1)]
    np.testing.assert_allclose(display.gate_shares_, np.transpose(expected))
    assert 0 < display.gate_shares_.min() + display.gate_shares_.max() < 2
    (side,) = display.ax_.child_axes
    assert tick_labels(side)[0] == " | ".join(
        f"{round(100 * share)}%" for share in display.gate_shares_[0]
    )


def test_the_steps_before_the_detector_are_applied(detector, data):
    X, y = data
    turned = make_pipeline(FunctionTransformer(np.negative), detector)
    alone = ConceptContributionDisplay.from_estimator(detector, X, y)
    piped = ConceptContributionDisplay.from_estimator(turned, -X, y)
    np.testing.assert_allclose(piped.values_, alone.values_)
    only = ConceptContributionDisplay.from_estimator(make_pipeline(detector), X, y)
    np.testing.assert_array_equal(only.values_, alone.values_)


def test_classes_keep_their_names(data):
    X, y = data
    words = np.array(["photo", "sdxl"])[y]
    named = ConceptBottleneckClassifier(gates="none", max_iter=2, random_state=0)
    display = ConceptContributionDisplay.from_estimator(
        named.fit(X, words), X[-1:], words[-1:], name="a.jpg"
    )
    title = display.ax_.get_title()
    assert title.startswith("a.jpg\n") and title.endswith("(label: sdxl)")
    assert "towards photo" in display.ax_.get_xlabel()
    with pytest.raises(ValueError, match=r"Got the labels '0', '1' in y .*'photo'"):
        ConceptContributionDisplay.from_estimator(named, X, y.astype(str))


def test_axes_of_the_caller_are_used(detector, data, plt):
    figure, ax = plt.subplots()
    display = ConceptContributionDisplay.from_estimator(detector, data[0][:1], ax=ax)
    assert display.ax_ is ax and display.figure_ is figure
    assert len(plt.get_fignums()) == 1


def test_figures_grow_with_the_number_of_bars(detector, data):
    heights = [
        ConceptContributionDisplay.from_estimator(
            detector, data[0][:1], top=top
        ).figure_.get_figheight()
        for top in (1, 5)
    ]
    assert heights[0] < heights[1]


def test_long_names_are_cut_and_dollars_are_no_formula():
    names = ["x" * 80, "from $5 to $6", "two\nlines"]
    display = ConceptContributionDisplay([[3, 2, 1]], names=names, intercept=0).plot()
    assert tick_labels(display.ax_)[:3] == [
        "x" * 39 + "…",
        r"from \$5 to \$6",
        "two lines",
    ]
    assert display.labels_[:3] == names


def test_a_transform_that_does_not_add_up_is_refused_with_the_way_out(data):
    X, y = data
    head = OrthogonalLinearDetector(3, max_iter=5, random_state=0).fit(X, y)
    with pytest.raises(
        ValueError, match="in row 0 where decision_function is"
    ) as raised:
        ConceptContributionDisplay.from_estimator(head, X, y)
    assert "intercept_ - activation_weights_ @ activation_intercept_" in str(
        raised.value
    )
    display = ConceptContributionDisplay(
        head.transform(X) * head.activation_weights_,
        names=head.get_feature_names_out(),
        intercept=head.intercept_
        - head.activation_weights_ @ head.activation_intercept_,
        y=y,
    ).plot()
    logits = head.decision_function(X)
    np.testing.assert_allclose(
        display.values_.sum(axis=0), [logits[y == 0].mean(), logits[y == 1].mean()]
    )


def test_other_estimators_are_refused(data):
    X, y = data
    with pytest.raises(TypeError, match="LogisticRegression, which has no transform"):
        ConceptContributionDisplay.from_estimator(LogisticRegression().fit(X, y), X, y)
    head = OrthogonalLinearDetector(3, max_iter=2).fit(X, np.arange(60) % 3)
    with pytest.raises(ValueError, match="with 3 logits per image"):
        ConceptContributionDisplay.from_estimator(head, X)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contributions": [1.0, 2.0]}, r"shape \(2,\) but expected \(n_samples"),
        ({"contributions": [[1.0, np.nan]]}, "NaN or infinity in .* 1 of 1 rows: 0"),
        ({"names": ["a"]}, "Got 1 names for 2 columns"),
        ({"intercept": np.inf}, "Got intercept=inf"),
        ({"y": None}, "Got 2 images without y"),
        ({"y": [0, 2]}, r"the values 0, 2 but expected 0 \(real\) or 1"),
        ({"y": [0]}, r"Got y of shape \(1,\)"),
        ({"y": [1, 1]}, r"2 images of one class \(synthetic\)"),
        ({"gates_open": [[True, False]]}, r"gates_open of shape \(1, 2\)"),
    ],
    ids=str,
)
def test_what_cannot_be_drawn_is_named(change, message, plt):
    arguments = {
        "contributions": [[1.0, 2.0], [0.0, -1.0]],
        "names": ["a", "b"],
        "intercept": 0.0,
        "y": [0, 1],
    } | change
    with pytest.raises(ValueError, match=message):
        ConceptContributionDisplay(**arguments).plot()
    assert not plt.get_fignums()


@pytest.mark.parametrize("top", [0, 1.5, True])
def test_the_number_of_concepts_is_checked(top):
    with pytest.raises(ValueError, match=f"Got top={top} but expected an integer"):
        ConceptContributionDisplay([[1.0]], names=["a"], intercept=0).plot(top=top)
