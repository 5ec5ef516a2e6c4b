import numpy as np
import pytest

from sklearn_clipsid.inspection import RobustnessDisplay

pytestmark = pytest.mark.usefixtures("plt")

FIELDS = [
    ("operation", "U10"),
    ("strength", float),
    ("n", int),
    ("ap", float),
    ("auc", float),
    ("flips", float),
]
ROWS = [
    ("clean", 0, 50, 0.95, 0.93, 0.0),
    ("jpeg", 75, 50, 0.90, 0.88, 0.10),
    ("jpeg", 30, 50, 0.80, 0.70, 0.3),
    ("resize", 0.25, 50, 0.4, 0.55, 0.22),
]


@pytest.fixture
def table():
    return np.array(ROWS, FIELDS)


def test_points_and_bars_are_those_of_the_table(table):
    display = RobustnessDisplay(table).plot()
    scores, flips = display.ax_
    labels = [label.get_text() for label in scores.get_yticklabels()]
    assert labels == ["clean", "jpeg 75", "jpeg 30", "resize 0.25"]
    points = {line.get_label(): line for line in scores.lines}
    for name, column in (("average precision", "ap"), ("ROC AUC", "auc")):
        np.testing.assert_array_equal(points[name].get_xdata(), table[column])
        np.testing.assert_array_equal(points[name].get_ydata(), scores.get_yticks())
    assert points["ROC AUC"].get_markerfacecolor() == "none"  # hides nothing
    widths = [bar.get_width() for bar in display.bars_]
    np.testing.assert_array_equal(widths, table["flips"])
    assert [text.get_text() for text in flips.texts] == ["0%", "10%", "30%", "22%"]
    assert display.figure_ is scores.figure
    assert display.figure_.get_suptitle() == (
        "Worst for verdicts: jpeg 30 flips 30%; ROC AUC 0.93 to 0.70"
    )


def test_operations_stand_apart_and_read_downwards(table):
    display = RobustnessDisplay(table).plot()
    gaps = np.diff(display.ax_[0].get_yticks())
    assert gaps[0] == gaps[2] > gaps[1] == 1
    low, high = display.ax_[0].get_ylim()
    assert low > high
    assert display.ax_[1].get_ylim() == (low, high)


def test_everything_drawn_lies_within_the_axes(table):
    display = RobustnessDisplay(table).plot()
    low, high = display.ax_[0].get_xlim()
    assert low < 0.4 and high > 1
    assert display.ax_[1].get_xlim()[1] > 0.3
    # Scores of a good detector are drawn from chance on, not enlarged.
    good = RobustnessDisplay(table[:2]).plot().ax_[0]
    assert good.get_xlim() == pytest.approx((0.48, 1.02))


def test_nothing_that_flips_is_said(table):
    table["flips"] = 0
    assert RobustnessDisplay(table).plot().figure_.get_suptitle() == "No verdict flips"


def test_axes_may_be_given(table, plt):
    figure, axes = plt.subplots(ncols=2)
    display = RobustnessDisplay(table).plot(axes)
    assert display.figure_ is figure
    assert list(display.ax_) == list(axes)
    for wrong in (axes[0], axes[:1]):
        with pytest.raises(ValueError, match="expected two axes"):
            RobustnessDisplay(table).plot(wrong)


def test_a_wrong_table_is_named(table):
    for wrong, missing in (
        (table[["operation", "strength", "ap"]], "without auc, flips"),
        (np.zeros((3, 2)), "without operation"),
        (ROWS, "without operation"),
        (table[1:], "not 'clean'"),
        (table[:0], "not 'clean'"),
    ):
        with pytest.raises(ValueError, match=missing):
            RobustnessDisplay(wrong).plot()
