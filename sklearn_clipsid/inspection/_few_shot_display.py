"""Draw how well few images of one generator do for all others."""

import numpy as np

from sklearn_clipsid._optional import import_optional
from sklearn_clipsid.inspection._figure_style import percent, short_name

COLOUR, PUBLISHED_COLOUR = "#0072B2", "#595959"
FIELDS = ("size", "train", "repeat", "test", "auc")


class FewShotDisplay:
    """Mean AUC on unseen generators by the number of training images.

    The curve is the mean over training generators, draws and test generators. It hides
    much: a thin line is one training generator, and the band goes from the worst to
    the best of all training sets.

    Parameters
    ----------
    table : structured ndarray
        ``few_shot_curve(...).table``.

    published : dict, default=None
        Curves to compare with: for each name a pair of sizes and AUCs between 0 and 1.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the curve.

    line_ : matplotlib Line2D
        The mean.

    generator_lines_ : list of matplotlib Line2D
        One line per training generator.

    published_lines_ : list of matplotlib Line2D
        One line per published curve.

    figure_ : matplotlib Figure or SubFigure
        Figure with the axes.

    See Also
    --------
    sklearn_clipsid.model_selection.few_shot_curve : Makes the table.

    Notes
    -----
    A published curve was measured on other generators and photographs. Compare its
    slope rather than its height.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> import numpy as np
    >>> from sklearn_clipsid.inspection import FewShotDisplay
    >>> fields = [
    ...     ("size", int), ("train", "U3"), ("repeat", int), ("test", "U3"),
    ...     ("auc", float),
    ... ]
    >>> rows = [(10, "GAN", 0, "SD", .6), (100, "GAN", 0, "SD", .7)]
    >>> published = {"Cozzolino et al.": ([10, 100], [.779, .848])}
    >>> display = FewShotDisplay(np.array(rows, fields), published).plot()
    >>> plt.close(display.figure_)
    """

    def __init__(self, table, published=None):
        self.table = table
        self.published = published

    def plot(self, ax=None):
        """Draw the curve.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a figure.

        Returns
        -------
        display : FewShotDisplay
            The display, with what was drawn.
        """
        plt = import_optional(
            "matplotlib.pyplot", extra="plot", caller="FewShotDisplay"
        )
        table, published = _check_table(self.table), _check_published(self.published)
        if ax is None:
            _, ax = plt.subplots(figsize=(6, 4), layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        sizes, generators, means = _means(table)  # (n_sizes, n_trained, n_repeats)
        single = means.reshape(len(sizes), -1)
        self.generator_lines_ = [
            ax.plot(sizes, one, color=COLOUR, alpha=0.35, linewidth=0.8)[0]
            for one in means.mean(axis=2).T
        ]
        ax.fill_between(
            sizes, single.min(axis=1), single.max(axis=1), color=COLOUR, alpha=0.1, lw=0
        )
        label = f"mean of {len(generators)} training generators"
        curve = single.mean(axis=1)
        (self.line_,) = ax.plot(sizes, curve, color=COLOUR, marker="o", label=label)
        style = {"color": PUBLISHED_COLOUR, "linestyle": "--", "marker": "s"}
        self.published_lines_ = [
            ax.plot(*curves, label=short_name(name), **style)[0]
            for name, curves in published.items()
        ]
        _dress(ax, [sizes, *(one for one, _ in published.values())])
        ax.set_title(_title(table, sizes, curve), fontsize="medium")
        return self


def _dress(ax, sizes):
    shown = np.unique(np.concatenate(sizes))
    ax.set_xscale("log")
    ax.set_xticks(shown, [f"{size:,.0f}" for size in shown])
    ax.set_xticks([], minor=True)
    ax.axhline(0.5, color="0.6", linestyle=":", linewidth=1)
    ax.set_xlabel("photographs, and as many synthetic images, to train on")
    ax.set_ylabel("ROC AUC on the other generators")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="lower right")


def _means(table):
    """Return sizes, training generators, and the mean over test generators of each."""
    sizes, generators, repeats = (
        np.unique(table[name]) for name in ("size", "train", "repeat")
    )
    means = np.empty((len(sizes), len(generators), len(repeats)))
    for place in np.ndindex(means.shape):
        keys = sizes[place[0]], generators[place[1]], repeats[place[2]]
        rows = np.logical_and.reduce(
            [table[name] == key for name, key in zip(("size", "train", "repeat"), keys)]
        )
        if not rows.any():
            raise ValueError(
                f"Got a table without size={keys[0]}, train={str(keys[1])!r}, "
                f"repeat={keys[2]} but expected each training generator and repeat at "
                "each size; pass few_shot_curve(...).table, without rows left out."
            )
        means[place] = table["auc"][rows].mean()
    return sizes, generators, means


def _title(table, sizes, curve):
    below = percent((table["auc"][table["size"] == sizes[-1]] < 0.5).mean())
    end = f"{below} of pairs below chance with {sizes[-1]:,}"
    if len(sizes) == 1:
        return f"AUC {curve[0]:.2f}; {end}"
    few, many = (f"{curve[i]:.2f} with {sizes[i]:,}" for i in (0, -1))
    return f"AUC {few}, {many}; {end}"


def _check_table(table):
    names = getattr(getattr(table, "dtype", None), "names", None)
    missing = [name for name in FIELDS if name not in (names or ())]
    if missing:
        raise ValueError(
            f"Got a table without {', '.join(missing)} but expected a structured "
            "array; pass few_shot_curve(...).table."
        )
    if not len(table):
        raise ValueError("Got a table without rows but expected one or more.")
    return table


def _check_published(published):
    if not isinstance(published, dict | None):
        raise ValueError(
            f"Got published of type {type(published).__name__} but expected a dict; "
            "pass {name: (sizes, auc)} for each curve."
        )
    curves = {}
    for name, pair in (published or {}).items():
        sizes, auc = (np.asarray(one, dtype=np.float64) for one in pair)
        if sizes.ndim != 1 or sizes.shape != auc.shape or not len(sizes):
            raise ValueError(
                f"Got the published curve {name!r} with sizes of shape {sizes.shape} "
                f"and AUCs of shape {auc.shape} but expected as many of both."
            )
        if not ((auc >= 0) & (auc <= 1)).all() or not (sizes >= 1).all():
            raise ValueError(
                f"Got the published curve {name!r} with the sizes {sizes.tolist()} and "
                f"the AUCs {auc.tolist()} but expected sizes of 1 or more, and AUCs "
                "between 0 and 1; divide percent by 100."
            )
        curves[name] = sizes, auc
    return curves
