"""Draw what compression, scaling and the like do to a detector."""

import numpy as np

from sklearn_clipsid._optional import import_optional
from sklearn_clipsid.inspection._figure_style import percent, short_name

AP_COLOUR, AUC_COLOUR, FLIP_COLOUR = "#009E73", "#CC79A7", "#595959"
FIELDS = ("operation", "strength", "ap", "auc", "flips")


class RobustnessDisplay:
    """Average precision, ROC AUC and flipped verdicts of edited images.

    A detector may rank edited images as well as before and still change its verdicts,
    as all scores have moved past the threshold: the two halves of the figure differ.

    Parameters
    ----------
    table : structured ndarray of shape (n_rows,)
        ``robustness_table(...).table``. The first row is that of the clean images.

    Attributes
    ----------
    ax_ : ndarray of matplotlib Axes of shape (2,)
        Axes of the scores and of the flips.

    bars_ : list of matplotlib Rectangle
        Flips, one bar per row of the table.

    figure_ : matplotlib Figure or SubFigure
        Figure with the axes.

    See Also
    --------
    sklearn_clipsid.model_selection.robustness_table : Makes the table.

    Notes
    -----
    Each operation is a block of rows. Dotted lines are the scores of the clean images.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> import numpy as np
    >>> from sklearn_clipsid.inspection import RobustnessDisplay
    >>> fields = [
    ...     ("operation", "U5"), ("strength", float), ("ap", float), ("auc", float),
    ...     ("flips", float),
    ... ]
    >>> rows = [("clean", 0, .95, .94, 0), ("jpeg", 75, .9, .88, .1)]
    >>> display = RobustnessDisplay(np.array(rows, fields)).plot()
    >>> plt.close(display.figure_)
    """

    def __init__(self, table):
        self.table = table

    def plot(self, ax=None):
        """Draw the table.

        Parameters
        ----------
        ax : sequence of matplotlib Axes of length 2, default=None
            Where to draw scores and flips. None makes a figure.

        Returns
        -------
        display : RobustnessDisplay
            The display, with what was drawn.
        """
        plt = import_optional(
            "matplotlib.pyplot", extra="plot", caller="RobustnessDisplay"
        )
        table = _check_table(self.table)
        if ax is not None and np.shape(ax) != (2,):
            raise ValueError(
                f"Got ax of shape {np.shape(ax)} but expected two axes, for the scores "
                "and for the flips; pass those of plt.subplots(ncols=2)."
            )
        heights = _heights(table["operation"])
        if ax is None:
            size = (9, 1.6 + 0.26 * heights[-1])
            _, ax = plt.subplots(
                ncols=2, figsize=size, width_ratios=(3, 2), layout="constrained"
            )
        self.ax_, self.figure_ = np.asarray(ax), ax[0].figure
        _draw_scores(ax[0], heights, table)
        self.bars_ = _draw_flips(ax[1], heights, table)
        labels = [_label(*row) for row in zip(table["operation"], table["strength"])]
        ax[0].set_yticks(heights, labels)
        ax[1].set_yticks([])
        for one in ax:
            one.set_ylim(heights[-1] + 0.7, -0.7)
            one.spines[["top", "right"]].set_visible(False)
        self.figure_.suptitle(_title(table, labels), fontsize="medium")
        return self


def _draw_scores(ax, heights, table):
    for name, column, colour, style in (
        ("average precision", "ap", AP_COLOUR, {"marker": "o"}),
        # Hollow, as the two often coincide.
        ("ROC AUC", "auc", AUC_COLOUR, {"marker": "s", "ms": 9, "mfc": "none"}),
    ):
        ax.axvline(table[column][0], color=colour, linestyle=":", linewidth=1.2)
        ax.plot(
            table[column],
            heights,
            color=colour,
            ls="none",
            mew=1.5,
            label=name,
            **style,
        )
    lowest = min(table["ap"].min(), table["auc"].min())
    ax.set_xlim(min(0.5, lowest) - 0.02, 1.02)
    ax.grid(axis="y", color="0.92")
    ax.set_axisbelow(True)
    ax.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        borderaxespad=2,  # below the numbers of the axis
        ncols=2,
        frameon=False,
    )


def _draw_flips(ax, heights, table):
    bars = ax.barh(heights, table["flips"], 0.6, color=FLIP_COLOUR)
    ax.bar_label(bars, [percent(share) for share in table["flips"]], padding=3)
    ax.set_xlim(0, 1.2 * max(table["flips"].max(), 0.05))  # room for the numbers
    ax.xaxis.set_major_formatter(lambda value, _: percent(value))
    ax.set_xlabel("verdicts that flip")
    return list(bars)


def _heights(operations):
    """Return the places of the rows, with a gap between operations."""
    is_new = np.append(False, operations[1:] != operations[:-1])
    return np.arange(len(operations)) + 0.6 * np.cumsum(is_new)


def _label(operation, strength):
    operation = short_name(operation)
    return operation if operation == "clean" else f"{operation} {strength:g}"


def _title(table, labels):
    worst = np.argmax(table["flips"])
    if not table["flips"][worst]:
        return "No verdict flips"
    before, after = table["auc"][[0, worst]]
    return (
        f"Worst for verdicts: {labels[worst]} flips "
        f"{percent(table['flips'][worst])}; ROC AUC {before:.2f} to {after:.2f}"
    )


def _check_table(table):
    names = getattr(getattr(table, "dtype", None), "names", None)
    missing = [name for name in FIELDS if name not in (names or ())]
    if missing:
        raise ValueError(
            f"Got a table without {', '.join(missing)} but expected a structured "
            "array; pass robustness_table(...).table."
        )
    if not len(table) or table["operation"][0] != "clean":
        raise ValueError(
            "Got a table whose first row is not 'clean' but expected that of the "
            "images as they are, which the others are compared with."
        )
    return table
