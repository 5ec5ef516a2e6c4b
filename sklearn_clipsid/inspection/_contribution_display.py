"""Draw what each concept adds to a logit, for one image or for two classes."""

from numbers import Integral

import numpy as np

from sklearn_clipsid._first_few import first_few
from sklearn_clipsid._optional import import_optional
from sklearn_clipsid.inspection._additive_detector import (
    contributions_and_intercept,
    label_codes,
    without_steps_before,
)
from sklearn_clipsid.inspection._figure_style import (
    REAL_COLOUR,
    SYNTHETIC_COLOUR,
    class_words,
    percent,
    short_name,
    sign_colour,
    signed,
)


class ConceptContributionDisplay:
    """Bars of what each concept adds to the logit.

    For one image, the largest contributions, the sum of the others and the intercept,
    so that the bars add up to the logit. For several, the mean contributions over each
    class side by side, sorted by the size of their difference. It is recommended to use
    `from_estimator`.

    Parameters
    ----------
    contributions : array-like of shape (n_samples, n_concepts)
        What each concept adds to the logit of each image.

    names : array-like of str of shape (n_concepts,)
        Names of the concepts.

    intercept : float
        What is added to all logits.

    y : array-like of int of shape (n_samples,), default=None
        Labels, 1 for synthetic and 0 for real. Several images need them, of both
        classes; that of a single image is written into the title.

    probability : float, default=None
        Probability that a single image is synthetic, for the title.

    gates_open : array-like of bool of shape (n_samples, n_concepts), default=None
        Which concepts have an open gate. Their shares in each class are written beside
        the bars of several images.

    display_labels : sequence of str of length 2, default=("real", "synthetic")
        What to call the classes.

    Attributes
    ----------
    labels_ : list of str
        What the bars stand for, from the top, not shortened.

    values_ : ndarray of shape (n_bars, 1) or (n_bars, 2)
        What was drawn: contributions to one logit, or the means over real and over
        synthetic images. Each column adds up to the (mean) logit.

    gate_shares_ : ndarray of shape (n_named_bars, 2) or None
        Share of the real and of the synthetic images whose gate is open, for the bars
        that stand for one concept.

    bars_ : tuple of matplotlib BarContainer
        One, or those of the real and those of the synthetic images.

    ax_ : matplotlib Axes
        Axes with the bars.

    figure_ : matplotlib Figure
        Figure with the axes.

    See Also
    --------
    ConceptBottleneckClassifier : Its `transform` returns contributions.
    plot_collage : Shows many images, each with its largest contributions.

    Notes
    -----
    A contribution is part of the sum that is the logit. It does not say that changing
    the concept in the image would change the verdict by as much.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn_clipsid.inspection import ConceptContributionDisplay
    >>> display = ConceptContributionDisplay(
    ...     [[0.5, -1.25, 0.25, 0.25]],
    ...     names=["grain", "blur", "glow", "text"],
    ...     intercept=0.5,
    ... ).plot(top=2)
    >>> display.labels_
    ['blur', 'grain', 'other concepts (2)', 'intercept']
    >>> display.values_.ravel().tolist()
    [-1.25, 0.5, 0.5, 0.5]
    >>> plt.close(display.figure_)
    """

    def __init__(
        self,
        contributions,
        *,
        names,
        intercept,
        y=None,
        probability=None,
        gates_open=None,
        display_labels=("real", "synthetic"),
    ):
        self.contributions = contributions
        self.names = names
        self.intercept = intercept
        self.y = y
        self.probability = probability
        self.gates_open = gates_open
        self.display_labels = display_labels

    def plot(self, ax=None, *, top=10, name=None):
        """Draw the bars.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a figure, whose height grows with `top`.

        top : int, default=10
            Concepts with a bar of their own, at most all; the others share one.

        name : str, default=None
            What the title begins with, such as the name of the file.

        Returns
        -------
        display : ConceptContributionDisplay
            The display, with what was drawn.
        """
        plt = import_optional(
            "matplotlib.pyplot", extra="plot", caller="ConceptContributionDisplay"
        )
        C, names, y = self._checked(top)
        if len(C) == 1:
            columns = C.T  # (n_concepts, 1)
            size = np.abs(columns[:, 0])
        else:
            columns = np.column_stack([C[y == code].mean(axis=0) for code in (0, 1)])
            size = np.abs(columns[:, 1] - columns[:, 0])
        order = np.argsort(-size, kind="stable")
        self._select(columns, names, order[:top], order[top:])
        self.gate_shares_ = None
        if self.gates_open is not None and len(C) > 1:
            is_open = np.asarray(self.gates_open, dtype=bool)[:, order[:top]]
            self.gate_shares_ = np.column_stack(
                [is_open[y == code].mean(axis=0) for code in (0, 1)]
            )
        if ax is None:
            height = 1.4 + len(self.labels_) * (0.34 if len(C) == 1 else 0.48)
            _, ax = plt.subplots(figsize=(9, height), layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        if len(C) == 1:
            self._draw_image(len(order[:top]))
        else:
            self._draw_classes(y, len(order[:top]))
        title = self._title(y)
        if name is not None:
            title = f"{short_name(name)}\n{title}"
        self.ax_.set_title(title, fontsize="medium", pad=26 if len(C) > 1 else None)
        return self

    @classmethod
    def from_estimator(cls, estimator, X, y=None, *, top=10, name=None, ax=None):
        """Draw the contributions of a fitted detector.

        Parameters
        ----------
        estimator : classifier or Pipeline
            Fitted, for two classes, and such that
            ``transform(X).sum(axis=1) + intercept_`` equals ``decision_function(X)``,
            as of `ConceptBottleneckClassifier`; or a pipeline that ends in one.

        X : array-like of shape (n_samples, n_features)
            What the estimator takes: one row to explain one image, several to compare
            the classes.

        y : array-like of shape (n_samples,), default=None
            Labels, out of the estimator's classes. Several rows need them.

        top : int, default=10
            Concepts with a bar of their own, at most all; the others share one.

        name : str, default=None
            What the title begins with, such as the name of the file.

        ax : matplotlib Axes, default=None
            Where to draw. None makes a figure.

        Returns
        -------
        display : ConceptContributionDisplay
            The display, with what was drawn.
        """
        estimator, X = without_steps_before(estimator, X)
        contributions, intercept = contributions_and_intercept(estimator, X)
        classes = np.asarray(estimator.classes_)
        probability = gates_open = None
        if len(contributions) == 1 and hasattr(estimator, "predict_proba"):
            probability = float(np.asarray(estimator.predict_proba(X))[0, 1])
        if len(contributions) > 1 and hasattr(estimator, "gate_probabilities"):
            gates = np.asarray(estimator.gate_probabilities(X))
            # Without gates there is nothing to say about them.
            gates_open = None if (gates == 1).all() else gates > 0.5
        display = cls(
            contributions,
            names=estimator.get_feature_names_out(),
            intercept=intercept,
            y=None if y is None else label_codes(y, classes),
            probability=probability,
            gates_open=gates_open,
            display_labels=class_words(classes),
        )
        return display.plot(ax, top=top, name=name)

    def _checked(self, top):
        check_count("top", top)
        C, names = check_contributions(self.contributions, self.names)
        if np.size(self.intercept) != 1 or not np.isfinite(self.intercept).all():
            raise ValueError(
                f"Got intercept={self.intercept!r} but expected one finite number."
            )
        if self.gates_open is not None and np.shape(self.gates_open) != C.shape:
            raise ValueError(
                f"Got gates_open of shape {np.shape(self.gates_open)} but expected "
                f"that of the contributions, {C.shape}."
            )
        return C, names, self._checked_labels(len(C))

    def _checked_labels(self, n_samples):
        if self.y is None:
            if n_samples == 1:
                return None
            raise ValueError(
                f"Got {n_samples} images without y but expected the labels of several "
                "images, whose classes are compared; pass y, or one row to explain one "
                "image."
            )
        y = np.asarray(self.y)
        if y.shape != (n_samples,) or not np.isin(y, (0, 1)).all():
            raise ValueError(
                f"Got y of shape {y.shape} with the values "
                f"{first_few([repr(v) for v in np.unique(y).tolist()])} but expected "
                f"0 (real) or 1 (synthetic) for each of {n_samples} images."
            )
        if n_samples > 1 and len(np.unique(y)) == 1:
            raise ValueError(
                f"Got {n_samples} images of one class "
                f"({self.display_labels[int(y[0])]}) but expected both, which are "
                "compared; add the other class, or pass one row to explain one image."
            )
        return y.astype(int)

    def _select(self, columns, names, shown, others):
        """Note the labels and values of all bars."""
        intercept = np.full(columns.shape[1], np.ravel(self.intercept)[0], dtype=float)
        self.labels_ = [names[concept] for concept in shown]
        rows = [columns[shown]]
        if len(others):
            self.labels_.append(f"other concepts ({len(others)})")
            rows.append(columns[others].sum(axis=0))
        self.labels_.append("intercept")
        self.values_ = np.vstack([*rows, intercept])  # (n_bars, 1 or 2)

    def _draw_image(self, n_named):
        values = self.values_[:, 0]
        colours = [sign_colour(value) for value in values]
        bars = self.ax_.barh(np.arange(len(values)), values, 0.7, color=colours)
        self.bars_ = (bars,)
        self.ax_.bar_label(bars, signed(values), padding=3, fontsize=9)
        self._finish_axes("contribution to the logit", n_named)

    def _draw_classes(self, y, n_named):
        colours = (REAL_COLOUR, SYNTHETIC_COLOUR)
        texts = signed(self.values_.ravel())
        self.bars_ = tuple(
            self.ax_.barh(
                np.arange(len(self.values_)) + (-0.2, 0.2)[code],
                self.values_[:, code],
                0.38,
                color=colours[code],
                label=f"{self.display_labels[code]} (n = {(y == code).sum():,})",
            )
            for code in (0, 1)
        )
        for code, bars in enumerate(self.bars_):
            self.ax_.bar_label(bars, texts[code::2], padding=3, fontsize=8)
        self.ax_.legend(
            loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False
        )
        self._finish_axes("mean contribution to the logit", n_named)
        if self.gate_shares_ is not None:
            side = self.ax_.secondary_yaxis("right")
            side.set_yticks(
                np.arange(len(self.gate_shares_)),
                [" | ".join(map(percent, pair)) for pair in self.gate_shares_],
            )
            side.tick_params(length=0)
            side.spines["right"].set_visible(False)
            side.set_ylabel("gate open in " + " | ".join(self.display_labels))

    def _finish_axes(self, what, n_named):
        ax, n_bars = self.ax_, len(self.labels_)
        ax.set_yticks(np.arange(n_bars), [short_name(name) for name in self.labels_])
        ax.set_ylim(n_bars - 0.5, -0.5)
        ax.axhline(n_named - 0.5, color="0.6", linewidth=0.8, linestyle=":")
        ax.axvline(0, color="0.2", linewidth=0.8)
        ax.margins(x=0.14)  # for the numbers at the bars
        ax.grid(axis="x", alpha=0.4)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        real, synthetic = self.display_labels
        ax.set_xlabel(f"← towards {real}     {what}     towards {synthetic} →")

    def _title(self, y):
        logits = signed(self.values_.sum(axis=0))
        real, synthetic = self.display_labels
        if self.values_.shape[1] == 2:
            return (
                f"The bars add up to a mean logit of {logits[0]} ({real}) "
                f"and {logits[1]} ({synthetic})"
            )
        title = f"The bars add up to the logit {logits[0]}"
        if self.probability is not None:
            title += f"\n{synthetic} with probability {self.probability:.2f}"
        if y is not None:
            title += f" (label: {self.display_labels[y[0]]})"
        return title


def check_count(name, value):
    """Refuse what is not an integer of at least 1."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"Got {name}={value!r} but expected an integer of at least 1.")


def check_contributions(contributions, names):
    """Return contributions as a finite matrix, and one string per column."""
    C = np.asarray(contributions, dtype=np.float64)
    if C.ndim != 2 or 0 in C.shape:
        raise ValueError(
            f"Got contributions of shape {C.shape} but expected (n_samples, "
            "n_concepts), neither of them 0; one image is one row, contributions[:1]."
        )
    bad = np.flatnonzero(~np.isfinite(C).all(axis=1))
    if len(bad):
        raise ValueError(
            f"Got NaN or infinity in contributions, in {len(bad)} of {len(C)} rows: "
            f"{first_few([str(row) for row in bad])}; leave these images out."
        )
    names = [str(name) for name in names]
    if len(names) != C.shape[1]:
        raise ValueError(
            f"Got {len(names)} names for {C.shape[1]} columns of contributions but "
            "expected one name per column."
        )
    return C, names
