import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_clipsid import OrthogonalLinearDetector
from sklearn_clipsid.inspection import AxisDisplay

pytestmark = pytest.mark.usefixtures("plt")


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 20)
    return rng.standard_normal((40, 5)) + y[:, None] * [2, 1, 0.5, 0, 0], y


@pytest.fixture(scope="module")
def canonical(data):
    return OrthogonalLinearDetector(
        4, axes="canonical", max_iter=20, random_state=0
    ).fit(*data)


@pytest.fixture(scope="module")
def images():
    """Grey squares; the grey level tells the row."""
    return [np.full((10, 10, 3), 5 * row, dtype=np.uint8) for row in range(40)]


def rows_in(picture):
    """The rows of the grey squares of 10 pixels that stand side by side."""
    pixels = np.asarray(picture.get_array())
    return (pixels[5, 5::16, 0] // 5).tolist()


def tick_labels(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def test_bars_are_the_shares_and_the_remainder_is_hatched(canonical):
    display = AxisDisplay.from_estimator(canonical)
    assert display.order_.tolist() == [0, 1, 2, 3]
    lengths = [bar.get_width() for bar in display.bars_]
    np.testing.assert_allclose(lengths, canonical.axis_share_, atol=1e-12)
    hatched = [bar.get_hatch() is not None for bar in display.bars_]
    assert hatched == canonical.axis_is_remainder_.tolist()
    assert sum(hatched) == 1
    labels = tick_labels(display.ax_)
    assert ["do not read" in label for label in labels] == hatched
    assert display.thumbnails_ == []
    percentage = round(100 * canonical.axis_share_[0])
    assert display.ax_.get_title().startswith(f"Axis 0 makes {percentage}% of the gap")


def test_the_largest_shares_are_drawn_and_the_others_are_counted():
    display = AxisDisplay(
        [0.1, -0.2, 0.6, 0.0, 0.5],
        is_remainder=[False, False, True, False, False],
        is_undefined=[False, False, False, True, False],
        names=list("abcde"),
    ).plot(n_axes=3)
    assert display.order_.tolist() == [2, 4, 0]
    assert tick_labels(display.ax_) == [
        "axis 2 (remainder: do not read)\nc",
        "axis 4\ne",
        "axis 0\na",
    ]
    assert display.ax_.get_title() == (
        "The remainder (axis 2) makes 60% of the gap between the classes\n"
        "2 axes not shown: \N{MINUS SIGN}20%"
    )


def test_undefined_axes_come_last_without_a_bar(plt):
    display = AxisDisplay(
        [0.0, 1.2, -0.2],
        is_remainder=[False] * 3,
        is_undefined=[True, False, False],
        names=["a", "b", "c"],
    ).plot()
    assert display.order_.tolist() == [1, 2, 0]
    assert display.bars_[2].get_width() == 0
    assert tick_labels(display.ax_)[2] == "axis 0"
    texts = [text.get_text() for text in display.ax_.texts]
    assert texts == ["120%", "\N{MINUS SIGN}20%", " undefined (a row of zeros)"]


def test_classes_without_a_gap_are_said_to_have_none():
    display = AxisDisplay([0.0, 0.0], is_remainder=[False, True]).plot()
    assert "do not differ" in display.ax_.get_title()


def test_ends_hold_the_images_of_lowest_and_highest_activation(canonical, data, images):
    X, _ = data
    display = AxisDisplay.from_estimator(
        canonical, X, images=images, n_images=3, thumbnail=10
    )
    A = canonical.transform(X)
    for (low, high), activation in zip(display.thumbnails_, A.T):
        order = np.argsort(activation).tolist()
        assert rows_in(low) == order[:3]
        assert rows_in(high) == order[-3:]
    assert len(display.ax_) == len(display.thumbnails_) == 4


def test_learned_axes_warn_and_point_to_synthetic_as_well(data, images):
    X, y = data
    learned = OrthogonalLinearDetector(4, max_iter=20, random_state=3).fit(X, y)
    with pytest.warns(UserWarning, match="learned: .* axes='canonical'") as caught:
        display = AxisDisplay.from_estimator(
            learned, X, images=images, n_images=20, thumbnail=10
        )
    assert caught[0].filename == __file__
    A = learned.transform(X)
    gap = A[y == 1].mean(axis=0) - A[y == 0].mean(axis=0)
    assert (gap < 0).any() and (gap > 0).any()
    for axis, (low, _) in zip(display.order_, display.thumbnails_):
        order = np.argsort(A[:, axis] * np.sign(gap[axis])).tolist()
        assert rows_in(low) == order[:20]


def test_rows_of_zeros_are_undefined(data, images):
    X, y = data
    line = X[:, :1] * [1.0, 1.0, 1.0]
    flat = OrthogonalLinearDetector(3, axes="canonical", max_iter=3, random_state=0)
    flat.fit(line, y)
    is_zero = ~flat.components_.any(axis=1)
    assert is_zero.any()
    display = AxisDisplay.from_estimator(
        flat, line, images=images, n_images=1, thumbnail=10
    )
    for axis, ends in zip(display.order_, display.thumbnails_):
        assert len(ends) == (0 if is_zero[axis] else 2)
        assert [len(end) for end in display.images[axis]] == [not is_zero[axis]] * 2


def test_the_steps_before_the_detector_are_applied(canonical, data, images):
    X, _ = data
    pipe = make_pipeline(FunctionTransformer(np.negative), canonical)
    ends = [
        AxisDisplay.from_estimator(
            model, rows, images=images, n_images=2, thumbnail=10
        ).images
        for model, rows in [(canonical, X), (pipe, -X)]
    ]
    np.testing.assert_array_equal(*ends)
    bars = AxisDisplay.from_estimator(pipe).bars_
    assert bars[0].get_width() == pytest.approx(canonical.axis_share_[0])


def test_paths_and_pil_images_are_accepted(image_files, plt):
    from PIL import Image

    pairs = [(image_files[:2], [Image.open(path) for path in image_files[2:4]])]
    figure = plt.figure()
    display = AxisDisplay([1.0], is_remainder=[False], images=pairs).plot(fig=figure)
    assert display.figure_ is figure
    assert [picture.get_array().shape for picture in display.thumbnails_[0]] == [
        (96, 2 * 96 + 6, 3)
    ] * 2
    words = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert words[:2] == ["low end (real)", "high end (synthetic)"]


def test_axes_of_the_caller_are_used(canonical, plt):
    figure, ax = plt.subplots()
    display = AxisDisplay.from_estimator(canonical, ax=ax)
    assert display.ax_ is ax and display.figure_ is figure
    assert len(plt.get_fignums()) == 1


def test_labels_do_not_overlap(canonical, data, images):
    names = ["a name that goes on and on and on until it is cut off"] * 4
    display = AxisDisplay.from_estimator(canonical, data[0], images=images, names=names)
    figure = display.figure_
    figure.canvas.draw()
    boxes = [figure._suptitle.get_window_extent()]
    boxes += [
        label.get_window_extent()
        for ax in display.ax_
        for label in ax.get_yticklabels()
    ]
    boxes += [text.get_window_extent() for ax in figure.axes for text in ax.texts]
    boxes += [picture.get_window_extent() for p in display.thumbnails_ for picture in p]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1


def test_an_unreadable_image_is_named_and_leaves_no_figure(canonical, data, plt):
    images = [b"no image"] * 40
    with pytest.raises(ValueError, match="image 1 of 2 at the low end of axis 0, a by"):
        AxisDisplay.from_estimator(canonical, data[0], images=images, n_images=2)
    assert not plt.get_fignums()


def test_detectors_without_such_axes_are_refused(data):
    X, y = data
    with pytest.raises(TypeError, match="LogisticRegression, which has no components_"):
        AxisDisplay.from_estimator(LogisticRegression().fit(X, y))
    three = OrthogonalLinearDetector(3, max_iter=2).fit(X, np.arange(40) % 3)
    with pytest.raises(ValueError, match="detector of 3 classes but expected two"):
        AxisDisplay.from_estimator(three)
    continued = OrthogonalLinearDetector(2, max_iter=2).fit(X, y).partial_fit(X, y)
    with pytest.raises(ValueError, match="without axis_share_, which a published"):
        AxisDisplay.from_estimator(continued)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"X": None}, "Got images without X"),
        ({"X": np.zeros((3, 5))}, "Got 40 images for 3 rows of X"),
        ({"n_images": 21}, "Got n_images=21 for 40 images but expected at most half"),
        ({"n_images": 0}, "Got n_images=0"),
        ({"n_axes": 0}, "Got n_axes=0"),
        ({"thumbnail": -1}, "Got thumbnail=-1"),
        ({"names": ["a"]}, "Got names of length 1 for 4 shares"),
        ({"images": "a.jpg"}, "Got one str"),
        ({"ax": "an Axes"}, "Got ax and images but expected fig"),
        ({"images": None, "fig": "a Figure"}, "Got fig without images but expected ax"),
    ],
    ids=str,
)
def test_what_cannot_be_drawn_is_named(canonical, data, images, arguments, message):
    with pytest.raises(ValueError, match=message):
        AxisDisplay.from_estimator(
            canonical, **{"X": data[0], "images": images} | arguments
        )


@pytest.mark.parametrize("pair", [([], []), (["a.png"], []), (["a.png"],)], ids=str)
def test_an_end_without_images_is_refused(pair):
    with pytest.raises(ValueError, match="for axis 0 but expected a low and a high"):
        AxisDisplay([1.0], is_remainder=[False], images=[pair]).plot()
    with pytest.raises(ValueError, match=r"Got shares of shape \(1, 1\)"):
        AxisDisplay([[1.0]], is_remainder=[False]).plot()


def test_shares_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="Got shares that are NaN or infinite"):
        AxisDisplay([np.nan, 0.5], is_remainder=[False, True]).plot()
