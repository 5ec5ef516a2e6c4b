"""Draw the average precision of each generator with its interval."""

import numpy as np
from sklearn.utils._response import _get_response_values

from sklearn_clipsid._cluster_bootstrap import (
    arrange_generators,
    bootstrap_generators,
    choose_negatives,
)
from sklearn_clipsid._groups import (
    check_length,
    list_rows,
    positive_rows,
    read_pairs,
    read_sources,
)
from sklearn_clipsid._optional import import_optional
from sklearn_clipsid.inspection._figure_style import SYNTHETIC_COLOUR, short_name

MEAN_COLOUR = "#595959"


class GeneratorAPDisplay:
    """Bars of the average precision of each generator, with intervals.

    It is recommended to use `from_estimator` or `from_predictions`.

    Parameters
    ----------
    average_precision : array-like of shape (n_generators,)
        Average precision of each generator against photographs.

    low : array-like of shape (n_generators,)
        Lower limits of the intervals.

    high : array-like of shape (n_generators,)
        Upper limits of the intervals.

    names : sequence of str of shape (n_generators,)
        The generators.

    prevalence : array-like of shape (n_generators,)
        Share of synthetic images in each ranking, the average precision of random
        scores. It is marked in each bar.

    mean : tuple of 3 floats
        Mean over generators, and the limits of its interval.

    level : float, default=0.95
        Confidence level of the intervals, for the label.

    Attributes
    ----------
    order_ : ndarray of int
        The generators from the top, the hardest first.

    bars_ : matplotlib BarContainer
        Their bars, and at last that of the mean.

    ax_ : matplotlib Axes
        Axes with the bars.

    figure_ : matplotlib Figure or SubFigure
        Figure with the axes.

    See Also
    --------
    CrossDatasetDisplay : Draws the means of several data sets.
    sklearn_clipsid.metrics.average_precision_by_generator : Computes the values alone.

    Notes
    -----
    Intervals come from drawing pairs again, see
    :func:`~sklearn_clipsid.model_selection.cross_dataset_validate`.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn_clipsid.inspection import GeneratorAPDisplay
    >>> display = GeneratorAPDisplay.from_predictions(
    ...     [1, 1, 1, 0, 0],
    ...     [0.9, 0.8, 0.3, 0.5, 0.1],
    ...     ["GAN", "GAN", "SD", "COCO", "COCO"],
    ...     random_state=0,
    ... )
    >>> [round(float(bar.get_width()), 2) for bar in display.bars_]
    [0.5, 1.0, 0.75]
    >>> plt.close(display.figure_)
    """

    def __init__(
        self, average_precision, *, low, high, names, prevalence, mean, level=0.95
    ):
        self.average_precision = average_precision
        self.low = low
        self.high = high
        self.names = names
        self.prevalence = prevalence
        self.mean = mean
        self.level = level

    def plot(self, ax=None):
        """Draw the bars.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a figure, whose height grows with the number of
            generators.

        Returns
        -------
        display : GeneratorAPDisplay
            The display, with what was drawn.
        """
        plt = import_optional(
            "matplotlib.pyplot", extra="plot", caller="GeneratorAPDisplay"
        )
        ap, low, high, prevalence = self._checked()
        self.order_ = np.argsort(ap, kind="stable")
        ap, low, high = (
            np.append(values[self.order_], own)
            for values, own in zip((ap, low, high), self.mean)
        )
        if ax is None:
            size = 8, 1.3 + 0.36 * len(ap)
            _, ax = plt.subplots(figsize=size, layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        position = np.arange(len(ap))
        colours = [SYNTHETIC_COLOUR] * len(self.order_) + [MEAN_COLOUR]
        self.bars_ = ax.barh(position, ap, 0.7, color=colours)
        reach = np.maximum([ap - low, high - ap], 0)
        ax.errorbar(ap, position, xerr=reach, fmt="none", ecolor="black", capsize=3)
        ax.plot(
            prevalence[self.order_],
            position[:-1],
            linestyle="none",
            marker="|",
            markersize=14,
            markeredgewidth=2,
            color="black",
            label="random scores",
        )
        self._finish_axes(ap, low, high)
        return self

    @classmethod
    def from_predictions(
        cls,
        y_true,
        y_score,
        groups,
        *,
        pair_id=None,
        negatives="auto",
        n_boot=1000,
        level=0.95,
        random_state=None,
        pos_label=1,
        ax=None,
    ):
        """Draw the average precision of given scores.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            Binary labels.

        y_score : array-like of shape (n_samples,)
            Scores, larger for synthetic images.

        groups : array-like of shape (n_samples,) or (n_samples, 2)
            The generator of each synthetic image and the source of each photograph; in
            a second column, if there is one, the pair ids.

        pair_id : array-like of shape (n_samples,), default=None
            Shared by the images of one motif, which are drawn together.

        negatives : {'auto', 'shared', 'matched'}, default='auto'
            The photographs that a generator is ranked against: all, or those of its
            group; 'auto' takes those of the group where all groups with synthetic
            images have some.

        n_boot : int, default=1000
            Number of bootstrap draws.

        level : float, default=0.95
            Confidence level of the intervals.

        random_state : int, RandomState instance or None, default=None
            Draws the pairs.

        pos_label : int, float, bool or str, default=1
            The label of synthetic images.

        ax : matplotlib Axes, default=None
            Where to draw. None makes a figure.

        Returns
        -------
        display : GeneratorAPDisplay
            The display, with what was drawn.
        """
        if negatives not in ("auto", "shared", "matched"):
            raise ValueError(
                f"Got negatives={negatives!r} but expected 'auto', 'shared' or "
                "'matched'."
            )
        positive = positive_rows(y_true, pos_label, name="y_true")
        y_score = _checked_scores(y_score, len(positive))
        names, group, second_column = read_sources(groups, len(positive))
        if second_column is not None and pair_id is not None:
            raise ValueError(
                "Got pair ids twice but expected them once; pass either pair_id or a "
                "second column of groups."
            )
        pair, _ = read_pairs(
            pair_id if second_column is None else second_column, len(positive)
        )
        if negatives == "auto":
            negatives = choose_negatives(positive, group)
        rows = arrange_generators(positive, names, group, pair, negatives)
        result = bootstrap_generators(
            rows,
            y_score[np.newaxis],
            n_boot=n_boot,
            level=level,
            random_state=random_state,
        )
        value, low, high = (
            part[0, 0] for part in (result.value, result.low, result.high)
        )
        display = cls(
            value[:-1],
            low=low[:-1],
            high=high[:-1],
            names=[str(name) for name in rows.names],
            prevalence=rows.prevalence,
            mean=(value[-1], low[-1], high[-1]),
            level=level,
        )
        return display.plot(ax)

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y,
        groups,
        *,
        pair_id=None,
        negatives="auto",
        n_boot=1000,
        level=0.95,
        random_state=None,
        pos_label=1,
        ax=None,
    ):
        """Draw the average precision of a fitted detector.

        Parameters
        ----------
        estimator : classifier
            Fitted, with `decision_function` or `predict_proba`.

        X : array-like of shape (n_samples, n_features)
            What the estimator takes.

        y : array-like of shape (n_samples,)
            Binary labels.

        groups : array-like of shape (n_samples,) or (n_samples, 2)
            The generator of each synthetic image and the source of each photograph; in
            a second column, if there is one, the pair ids.

        pair_id : array-like of shape (n_samples,), default=None
            Shared by the images of one motif, which are drawn together.

        negatives : {'auto', 'shared', 'matched'}, default='auto'
            The photographs that a generator is ranked against.

        n_boot : int, default=1000
            Number of bootstrap draws.

        level : float, default=0.95
            Confidence level of the intervals.

        random_state : int, RandomState instance or None, default=None
            Draws the pairs.

        pos_label : int, float, bool or str, default=1
            The label of synthetic images.

        ax : matplotlib Axes, default=None
            Where to draw. None makes a figure.

        Returns
        -------
        display : GeneratorAPDisplay
            The display, with what was drawn.
        """
        y_score, _ = _get_response_values(
            estimator,
            X,
            response_method=["decision_function", "predict_proba"],
            pos_label=pos_label,
        )
        return cls.from_predictions(
            y,
            y_score,
            groups,
            pair_id=pair_id,
            negatives=negatives,
            n_boot=n_boot,
            level=level,
            random_state=random_state,
            pos_label=pos_label,
            ax=ax,
        )

    def _checked(self):
        columns = []
        for name in ("average_precision", "low", "high", "prevalence"):
            values = np.asarray(getattr(self, name), dtype=np.float64)
            if values.shape != (len(self.names),) or not len(values):
                raise ValueError(
                    f"Got {name} of shape {values.shape} for {len(self.names)} names "
                    "but expected one number per generator, and one or more."
                )
            if not ((values >= 0) & (values <= 1)).all():
                raise ValueError(
                    f"Got {name} with NaN or numbers outside of 0 to 1 but expected "
                    "numbers between them."
                )
            columns.append(values)
        if len(self.mean) != 3:
            raise ValueError(
                f"Got mean={self.mean!r} but expected the mean and two limits."
            )
        return columns

    def _finish_axes(self, ap, low, high):
        ax = self.ax_
        names = [short_name(self.names[j]) for j in self.order_]
        ax.set_yticks(np.arange(len(ap)), [*names, "mean over generators"])
        ax.set_ylim(len(ap) - 0.5, -0.5)
        ax.set_xlim(0, 1)
        ax.set_xlabel("average precision")
        # Outside of the axes, where no bar and no whisker can run through them.
        side = ax.secondary_yaxis("right")
        side.set_yticks(
            np.arange(len(ap)),
            [f"{v:.3f} [{a:.3f}, {b:.3f}]" for v, a, b in zip(ap, low, high)],
        )
        side.tick_params(length=0)
        side.spines["right"].set_visible(False)
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
        ax.set_title(f"whiskers: {self.level:.0%} interval", fontsize=10, loc="right")
        ax.axhline(len(ap) - 1.5, color="0.6", linewidth=0.8, linestyle=":")
        ax.grid(axis="x", alpha=0.4)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)


def _checked_scores(y_score, n_samples):
    y_score = np.asarray(y_score, dtype=np.float64)
    if y_score.ndim != 1:
        raise ValueError(
            f"Got y_score of shape {y_score.shape} but expected (n_samples,); pass the "
            "column of the synthetic class."
        )
    check_length(y_score, n_samples, "y_score")
    not_finite = ~np.isfinite(y_score)
    if not_finite.any():
        raise ValueError(
            f"Got y_score that is NaN or infinite for {list_rows(not_finite)} but "
            "expected finite scores; score or leave out these rows."
        )
    return y_score
