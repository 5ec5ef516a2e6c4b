"""Draw the average precision of each generator with its interval."""

import numpy as np

from sklearn_clipsid._cluster_bootstrap import bootstrap_generators, check_draws
from sklearn_clipsid._optional import import_optional
from sklearn_clipsid.inspection._figure_style import SYNTHETIC_COLOUR, short_name
from sklearn_clipsid.inspection._generator_ranking import (
    rank_folds,
    rank_predictions,
    score_rows,
)

MEAN_COLOUR = "#595959"


class GeneratorAPDisplay:
    """Bars of the average precision of each generator, with intervals.

    It is recommended to use `from_cv_results`, `from_estimator` or `from_predictions`.

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
    :func:`~sklearn_clipsid.model_selection.cross_dataset_validate`. They hold for the
    detectors as they are: what other training rows would do is not in them.
    `from_cv_results` ranks each generator with the photographs of its own fold by the
    detector of that fold. A photograph that several folds test is drawn into all of
    them or into none.

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
            size = 8, 1.2 + 0.36 * len(ap)
            _, ax = plt.subplots(figsize=size, layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        position = np.arange(len(ap))
        colours = [SYNTHETIC_COLOUR] * len(self.order_) + [MEAN_COLOUR]
        self.bars_ = ax.barh(position, ap, 0.7, color=colours)
        reach = np.maximum([ap - low, high - ap], 0)
        ax.errorbar(ap, position, xerr=reach, fmt="none", ecolor="black", capsize=3)
        mark = {"markersize": 14, "markeredgewidth": 2, "label": "random scores"}
        ax.plot(prevalence[self.order_], position[:-1], "k|", **mark)
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
        check_draws(n_boot, level)
        ranked = rank_predictions(
            y_true, y_score, groups, pair_id, negatives, pos_label
        )
        return cls._from_rows(*ranked, n_boot, level, random_state).plot(ax)

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
        return cls.from_predictions(
            y,
            score_rows(estimator, X, pos_label),
            groups,
            pair_id=pair_id,
            negatives=negatives,
            n_boot=n_boot,
            level=level,
            random_state=random_state,
            pos_label=pos_label,
            ax=ax,
        )

    @classmethod
    def from_cv_results(
        cls,
        cv_results,
        X,
        y,
        groups,
        *,
        pair_id=None,
        n_boot=1000,
        level=0.95,
        random_state=None,
        pos_label=1,
        ax=None,
    ):
        """Draw the average precision of each generator in the fold that held it out.

        Parameters
        ----------
        cv_results : dict
            What :func:`~sklearn.model_selection.cross_validate` returned with
            ``cv=LeaveOneGeneratorOut()``, ``return_estimator=True`` and
            ``return_indices=True``.

        X : array-like of shape (n_samples, n_features)
            What was cross-validated.

        y : array-like of shape (n_samples,)
            Binary labels.

        groups : array-like of shape (n_samples,) or (n_samples, 2)
            The generator of each synthetic image and the source of each photograph; in
            a second column, if there is one, the pair ids.

        pair_id : array-like of shape (n_samples,), default=None
            Shared by the images of one motif, which are drawn together.

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
        check_draws(n_boot, level)
        ranked = rank_folds(cv_results, X, y, groups, pair_id, pos_label)
        return cls._from_rows(*ranked, n_boot, level, random_state).plot(ax)

    @classmethod
    def _from_rows(cls, rows, scores, n_boot, level, random_state):
        options = {"n_boot": n_boot, "level": level, "random_state": random_state}
        result = bootstrap_generators(rows, scores[np.newaxis], **options)
        value, low, high = (
            part[0, 0] for part in (result.value, result.low, result.high)
        )
        return cls(
            value[:-1],
            low=low[:-1],
            high=high[:-1],
            names=[str(name) for name in rows.names],
            prevalence=rows.prevalence,
            mean=(value[-1], low[-1], high[-1]),
            level=level,
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
        # Not in a legend or title, which callers want to set themselves.
        ax.set_xlabel(
            f"average precision\nwhiskers: {self.level:.0%} interval, black marks: "
            "random scores"
        )
        # Outside of the axes, where no bar and no whisker can run through them.
        side = ax.secondary_yaxis("right")
        side.set_yticks(
            np.arange(len(ap)),
            [f"{v:.3f} [{a:.3f}, {b:.3f}]" for v, a, b in zip(ap, low, high)],
        )
        side.tick_params(length=0)
        side.spines["right"].set_visible(False)
        ax.axhline(len(ap) - 1.5, color="0.6", linewidth=0.8, linestyle=":")
        ax.grid(axis="x", alpha=0.4)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
