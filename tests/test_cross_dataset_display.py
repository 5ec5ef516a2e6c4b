import sys

import numpy as np
import pytest
from sklearn.utils import Bunch

from sklearn_clipsid.inspection import CrossDatasetDisplay

MATRIX = [[0.964, 0.4962], [0.6692, 0.9952], [0.88, 1.0]]
TRAIN = ["CNNSpot", "SynthBuster+", "combined"]
TEST = ["CNNSpot", "SynthBuster+"]


pytestmark = pytest.mark.usefixtures("plt")


def display(**changes):
    options = {"train_names": TRAIN, "test_names": TEST} | changes
    return CrossDatasetDisplay(options.pop("matrix", MATRIX), **options)


def written(shown):
    return [[text.get_text() for text in row] for row in shown.texts_]


def test_each_cell_holds_its_number():
    shown = display().plot()
    assert written(shown) == [[".964", ".496"], [".669", ".995"], [".880", "1.000"]]
    np.testing.assert_array_equal(shown.image_.get_array(), MATRIX)
    for (i, j), text in np.ndenumerate(shown.texts_):
        assert text.get_position() == (j, i)
    names = [label.get_text() for label in shown.ax_.get_yticklabels()]
    assert names == TRAIN
    assert (shown.ax_.get_ylabel(), shown.ax_.get_xlabel()) == (
        "trained on",
        "tested on",
    )


def test_intervals_and_chance_are_written_beside():
    matrix = np.array(MATRIX)
    shown = display(
        low=matrix - 0.25, high=np.ones((3, 2)), chance=[0.5, 0.1234]
    ).plot()
    assert written(shown)[0] == [".964\n[.714, 1.000]", ".496\n[.246, 1.000]"]
    names = [label.get_text() for label in shown.ax_.get_xticklabels()]
    assert names == ["CNNSpot\nchance .50", "SynthBuster+\nchance .12"]


def test_numbers_stand_out_from_their_cell():
    shown = display(matrix=np.linspace(0, 1, 6).reshape(3, 2)).plot()
    weights = np.array([0.2126, 0.7152, 0.0722])
    for text, score in zip(shown.texts_.ravel(), np.linspace(0, 1, 6)):
        cell = np.array(shown.image_.cmap(score)[:3])
        light = weights @ np.where(
            cell <= 0.04045, cell / 12.92, ((cell + 0.055) / 1.055) ** 2.4
        )
        ink = 1.0 if text.get_color() == "white" else 0.0
        contrast = (max(light, ink) + 0.05) / (min(light, ink) + 0.05)
        assert contrast > 4.5  # what WCAG asks of text


def test_the_cells_of_a_data_set_on_itself_are_framed():
    shown = display().plot()
    centres = [
        (frame.get_x() + frame.get_width() / 2, frame.get_y() + frame.get_height() / 2)
        for frame in shown.frames_
    ]
    np.testing.assert_allclose(centres, [(0, 0), (1, 1)])
    assert display(train_names=["a", "b", "c"]).plot().frames_ == []


def test_a_result_and_the_axes_of_the_caller_are_taken(plt):
    result = Bunch(
        matrix=MATRIX,
        low=np.array(MATRIX) - 0.1,
        high=np.ones((3, 2)),
        chance=[0.5, 0.5],
        train_names=TRAIN,
        test_names=TEST,
    )
    _, ax = plt.subplots()
    shown = CrossDatasetDisplay.from_result(result, ax=ax)
    assert shown.ax_ is ax and shown.figure_ is ax.figure
    assert written(shown)[0][0] == ".964\n[.864, 1.000]"
    larger = CrossDatasetDisplay.from_result(result)
    assert larger.figure_ is not ax.figure


def test_a_result_of_something_else_is_refused():
    for result in (None, np.zeros(2), {"matrix": MATRIX, "low": None}):
        with pytest.raises(ValueError, match=r"without .*train_names, test_names"):
            CrossDatasetDisplay.from_result(result)


def test_names_of_many_columns_are_not_cut(plt):
    names = [f"StyleGAN-thisrentaldoesnotexist{j}" for j in range(6)]
    shown = display(matrix=np.eye(6), train_names=names, test_names=names).plot()
    for labels in (shown.ax_.get_xticklabels(), shown.ax_.get_yticklabels()):
        assert [label.get_text() for label in labels] == names
    shown.figure_.canvas.draw()
    box = shown.ax_.get_tightbbox()
    width, height = shown.figure_.canvas.get_width_height()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


def test_all_that_is_written_is_inside_the_figure():
    long = "a data set with a very long name indeed"
    shown = display(
        train_names=[long, "b", "c"],
        test_names=[long, "b"],
        low=MATRIX,
        high=MATRIX,
        chance=[0.5, 0.5],
    ).plot()
    shown.figure_.canvas.draw()
    box = shown.ax_.get_tightbbox()
    width, height = shown.figure_.canvas.get_width_height()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
    cells = [text.get_window_extent() for text in shown.texts_[0]]
    assert cells[0].x1 < cells[1].x0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"matrix": [0.5, 0.5]}, r"Got matrix of shape \(2,\) but expected \(3, 2\)"),
        ({"train_names": TEST}, r"Got matrix of shape \(3, 2\) but expected \(2, 2\)"),
        ({"matrix": np.full((3, 2), np.nan)}, "Got matrix with NaN or numbers outside"),
        ({"matrix": np.full((3, 2), 96.4)}, "Got matrix with NaN or numbers outside"),
        ({"low": MATRIX}, "Got one limit of the intervals but expected both"),
        ({"chance": [0.5]}, r"Got chance of shape \(1,\) but expected \(2,\)"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        display(**changes).plot()


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"CrossDatasetDisplay needs .*\[plot\]"):
        display().plot()
