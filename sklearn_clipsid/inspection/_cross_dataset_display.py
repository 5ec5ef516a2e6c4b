"""Draw the matrix of training sets against test sets."""

from collections.abc import Mapping

import numpy as np

from sklearn_clipsid._optional import import_optional
from sklearn_clipsid.inspection._figure_style import short_name

MANY = 5  # columns; the names of more are slanted
MAX_NAME, MAX_UPRIGHT = 32, 20  # characters


class CrossDatasetDisplay:
    """Heat map of the mean average precision of each training set on each test set.

    It is recommended to use `from_result`.

    Parameters
    ----------
    matrix : array-like of shape (n_train_sets, n_test_sets)
        Scores between 0 and 1.

    train_names : sequence of str of shape (n_train_sets,)
        What the rows stand for.

    test_names : sequence of str of shape (n_test_sets,)
        What the columns stand for.

    low : array-like of shape (n_train_sets, n_test_sets), default=None
        Lower limits of the intervals, written beneath the scores.

    high : array-like of shape (n_train_sets, n_test_sets), default=None
        Upper limits of the intervals.

    chance : array-like of shape (n_test_sets,), default=None
        What random scores get on each test set, written beneath its name.

    score_name : str, default="mean average precision"
        What the numbers are.

    Attributes
    ----------
    image_ : matplotlib AxesImage
        The heat map.

    texts_ : ndarray of shape (n_train_sets, n_test_sets), dtype=object
        The numbers in the cells, matplotlib Text.

    frames_ : list of matplotlib Rectangle
        Those around the cells of a training and a test set of one name.

    ax_ : matplotlib Axes
        Axes with the heat map.

    figure_ : matplotlib Figure or SubFigure
        Figure with the axes.

    See Also
    --------
    GeneratorAPDisplay : Draws what is behind one cell.
    sklearn_clipsid.model_selection.cross_dataset_validate : Makes the matrix.

    Notes
    -----
    Cells of a training and a test set of one name are framed: they were scored on
    held-out images of the generators that were trained on. Compare numbers in one
    column; those of two columns differ with prevalence as well.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn_clipsid.inspection import CrossDatasetDisplay
    >>> display = CrossDatasetDisplay(
    ...     [[0.96, 0.5], [0.67, 0.995]],
    ...     train_names=["CNNSpot", "SynthBuster+"],
    ...     test_names=["CNNSpot", "SynthBuster+"],
    ... ).plot()
    >>> [text.get_text() for text in display.texts_[0]]
    ['.960', '.500']
    >>> plt.close(display.figure_)
    """

    def __init__(
        self,
        matrix,
        *,
        train_names,
        test_names,
        low=None,
        high=None,
        chance=None,
        score_name="mean average precision",
    ):
        self.matrix = matrix
        self.train_names = train_names
        self.test_names = test_names
        self.low = low
        self.high = high
        self.chance = chance
        self.score_name = score_name

    def plot(self, ax=None):
        """Draw the heat map.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a figure that grows with the matrix.

        Returns
        -------
        display : CrossDatasetDisplay
            The display, with what was drawn.
        """
        plt = import_optional(
            "matplotlib.pyplot", extra="plot", caller="CrossDatasetDisplay"
        )
        matrix, low, high, chance = self._checked()
        if ax is None:
            n_rows, n_columns = matrix.shape
            width = 1.6 if n_columns <= MANY else 0.7 if low is None else 1.3
            size = 3.1 + width * n_columns, 1.7 + 0.6 * n_rows
            _, ax = plt.subplots(figsize=size, layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        self.image_ = ax.imshow(matrix, cmap="cividis", vmin=0, vmax=1, aspect="auto")
        self.texts_ = np.empty(matrix.shape, dtype=object)
        for (i, j), score in np.ndenumerate(matrix):
            text = three_digits(score)
            if low is not None:
                text += f"\n[{three_digits(low[i, j])}, {three_digits(high[i, j])}]"
            # White on the dark half of the colours, black on the light one.
            colour = "white" if score < 0.5 else "black"
            self.texts_[i, j] = ax.text(
                j, i, text, ha="center", va="center", color=colour, linespacing=1.5
            )
        self._frame_own_cells(plt)
        self._finish_axes(chance)
        return self

    @classmethod
    def from_result(cls, result, *, ax=None):
        """Draw what `cross_dataset_validate` returned.

        Parameters
        ----------
        result : Bunch
            With `matrix`, `low`, `high`, `chance`, `train_names` and `test_names`.

        ax : matplotlib Axes, default=None
            Where to draw. None makes a figure.

        Returns
        -------
        display : CrossDatasetDisplay
            The display, with what was drawn.
        """
        needed = "matrix train_names test_names low high chance".split()
        keys = result if isinstance(result, Mapping) else ()
        missing = [key for key in needed if key not in keys]
        if missing:
            raise ValueError(
                f"Got a result without {', '.join(missing)} but expected what "
                "cross_dataset_validate returned; draw another matrix with "
                "CrossDatasetDisplay(matrix, ...).plot()."
            )
        return cls(**{key: result[key] for key in needed}).plot(ax)

    def _checked(self):
        shape = (len(self.train_names), len(self.test_names))
        matrix = _checked_shares("matrix", self.matrix, shape)
        if (self.low is None) != (self.high is None):
            raise ValueError(
                "Got one limit of the intervals but expected both; pass low and high."
            )
        low, high, chance = (
            None if values is None else _checked_shares(name, values, expected)
            for name, values, expected in (
                ("low", self.low, shape),
                ("high", self.high, shape),
                ("chance", self.chance, shape[1:]),
            )
        )
        return matrix, low, high, chance

    def _frame_own_cells(self, plt):
        test_names = list(self.test_names)
        self.frames_ = []
        for i, name in enumerate(self.train_names):
            if name in test_names:
                corner = test_names.index(name) - 0.47, i - 0.47
                frame = plt.Rectangle(corner, 0.94, 0.94, fill=False, linewidth=2)
                self.frames_.append(self.ax_.add_patch(frame))
        if self.frames_:
            self.ax_.annotate(
                "framed: held-out images of the generators\nthat were trained on",
                (0, 0),
                (0, -8),
                xycoords="axes fraction",
                textcoords="offset points",
                va="top",
                fontsize="small",
            )

    def _finish_axes(self, chance):
        ax = self.ax_
        is_slanted = len(self.test_names) > MANY
        limit = MAX_NAME if is_slanted else MAX_UPRIGHT
        columns = [short_name(name, limit) for name in self.test_names]
        if chance is not None:
            columns = [
                f"{name}\nchance {three_digits(level)[:3]}"
                for name, level in zip(columns, np.round(chance, 2))
            ]
        rows = [short_name(name, MAX_NAME) for name in self.train_names]
        slanted = {"rotation": 40, "ha": "left", "rotation_mode": "anchor"}
        ax.set_xticks(
            np.arange(len(columns)), columns, **(slanted if is_slanted else {})
        )
        ax.set_yticks(np.arange(len(rows)), rows)
        ax.xaxis.tick_top()
        ax.xaxis.set_label_position("top")
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_xlabel("tested on", labelpad=8)
        ax.set_ylabel("trained on", labelpad=8)
        ax.figure.colorbar(self.image_, ax=ax, label=self.score_name)


def three_digits(score):
    """Write a score between 0 and 1 without its zero."""
    text = f"{score:.3f}"
    return text if text.startswith("1") else text[1:]


def _checked_shares(name, values, shape):
    values = np.asarray(values, dtype=np.float64)
    if values.shape != shape or not values.size:
        raise ValueError(
            f"Got {name} of shape {values.shape} but expected {shape}, as there are "
            "names."
        )
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(
            f"Got {name} with NaN or numbers outside of 0 to 1 but expected scores "
            "between them; leave out data sets without a score."
        )
    return values
