"""Draw the axes of a detector: their shares, and the images at their ends."""

import numpy as np

from sklearn_clipsid._image_sequence import as_images
from sklearn_clipsid._optional import import_optional
from sklearn_clipsid._warn_user import warn_user
from sklearn_clipsid.inspection._additive_detector import without_steps_before
from sklearn_clipsid.inspection._collage import DPI, MARGIN, thumbnail_strip
from sklearn_clipsid.inspection._contribution_display import check_count
from sklearn_clipsid.inspection._figure_style import class_words, percent, short_name

SHARE_COLOUR = "#595959"
AXIS_ATTRIBUTES = ("components_", "activation_weights_", "axis_is_remainder_")


class AxisDisplay:
    """Bars of the axes' shares of the class gap, and images at the axes' ends.

    It is recommended to use `from_estimator`.

    Parameters
    ----------
    shares : array-like of shape (n_axes,)
        Share of each axis in the gap between the classes' mean logits; may be negative.

    is_remainder : array-like of bool of shape (n_axes,)
        Which axes depend on the random start of the training. They are hatched.

    is_undefined : array-like of bool of shape (n_axes,), default=None
        Which axes are rows of zeros. None if none is.

    names : sequence of str of shape (n_axes,), default=None
        What to write beside the axes.

    images : sequence of shape (n_axes,) of pairs, default=None
        The images at the low and at the high end of each axis, from low to high, as
        `CLIPEmbedder` takes them. None draws bars alone.

    display_labels : sequence of str of length 2, default=("real", "synthetic")
        What to call the low and the high end.

    Attributes
    ----------
    order_ : ndarray of int
        The axes that were drawn, from the top: largest share first, undefined last.

    bars_ : list of matplotlib Rectangle
        Their bars; those of undefined axes have no length.

    thumbnails_ : list of pairs of matplotlib AxesImage
        Their images at the low and the high end, one row of pixels each; () for an
        undefined axis. Empty without images.

    ax_ : matplotlib Axes or list of Axes
        Axes with the bars; with images, one per axis drawn.

    figure_ : matplotlib Figure or SubFigure
        Figure with the axes.

    See Also
    --------
    OrthogonalLinearDetector : Has the axes.
    ConceptContributionDisplay : Draws the parts of a single logit.

    Notes
    -----
    Images at an end are those whose activation is the lowest or the highest, not
    examples of a class. What they have in common to the eye need not be what the axis
    measures: look at several, and compare with images from the middle.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn_clipsid import OrthogonalLinearDetector
    >>> from sklearn_clipsid.datasets import load_sample_embeddings
    >>> from sklearn_clipsid.inspection import AxisDisplay
    >>> X, y = load_sample_embeddings(return_X_y=True)
    >>> detector = OrthogonalLinearDetector(3, axes="canonical", random_state=0)
    >>> display = AxisDisplay.from_estimator(detector.fit(X, y))
    >>> display.order_.tolist()
    [0, 1, 2]
    >>> plt.close(display.figure_)
    """

    def __init__(
        self,
        shares,
        *,
        is_remainder,
        is_undefined=None,
        names=None,
        images=None,
        display_labels=("real", "synthetic"),
    ):
        self.shares = shares
        self.is_remainder = is_remainder
        self.is_undefined = is_undefined
        self.names = names
        self.images = images
        self.display_labels = display_labels

    def plot(self, ax=None, *, n_axes=None, thumbnail=96, fig=None):
        """Draw the axes.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw bars alone. None makes a figure.

        n_axes : int, default=None
            Axes drawn, those with the largest shares. None draws all.

        thumbnail : int, default=96
            Longer side of the drawn images in pixels, at 100 dots per inch.

        fig : matplotlib Figure or SubFigure, default=None
            Where to draw bars and images. None makes a figure that fits.

        Returns
        -------
        display : AxisDisplay
            The display, with what was drawn.
        """
        plt = import_optional("matplotlib.pyplot", extra="plot", caller="AxisDisplay")
        self._check(ax, n_axes, thumbnail, fig)
        # Rounding would put the number of an empty bar on the side of its sign.
        shares = np.round(np.asarray(self.shares, dtype=np.float64), 12) + 0.0
        rank = np.where(self._undefined(), np.inf, -shares)
        self.order_ = np.argsort(rank, kind="stable")[:n_axes]
        self.bars_, self.thumbnails_ = [], []
        if self.images is None:
            self._draw_bars_alone(plt, ax, shares)
        else:
            self._draw_rows(plt, fig, shares, thumbnail)
        return self

    @classmethod
    def from_estimator(
        cls,
        detector,
        X=None,
        *,
        images=None,
        names=None,
        n_images=4,
        n_axes=None,
        thumbnail=96,
        ax=None,
        fig=None,
    ):
        """Draw the axes of a fitted `OrthogonalLinearDetector`.

        Parameters
        ----------
        detector : OrthogonalLinearDetector or Pipeline
            Fitted, for two classes; or a pipeline that ends in one. Use
            ``axes="canonical"``: learned axes depend on the seed.

        X : array-like of shape (n_samples, n_features), default=None
            What the detector takes. Needed with `images`, whose order along the axes it
            decides; the shares are those of the training rows.

        images : sequence of images of shape (n_samples,), default=None
            The images of the rows of X, as `CLIPEmbedder` takes them. None draws bars
            alone.

        names : sequence of str of shape (n_components,), default=None
            What to write beside the axes.

        n_images : int, default=4
            Images at each end.

        n_axes : int, default=None
            Axes drawn, those with the largest shares. None draws all.

        thumbnail : int, default=96
            Longer side of the drawn images in pixels, at 100 dots per inch.

        ax : matplotlib Axes, default=None
            Where to draw bars alone.

        fig : matplotlib Figure or SubFigure, default=None
            Where to draw bars and images.

        Returns
        -------
        display : AxisDisplay
            The display, with what was drawn.
        """
        detector, X = without_steps_before(detector, X)
        _check_detector(detector)
        ends = None
        if images is not None:
            images = as_images(images)
            ends = [
                tuple([images[row] for row in rows] for rows in pair)
                for pair in _rows_at_ends(detector, X, len(images), n_images)
            ]
        display = cls(
            detector.axis_share_,
            is_remainder=detector.axis_is_remainder_,
            is_undefined=~detector.components_.any(axis=1),
            names=names,
            images=ends,
            display_labels=class_words(detector.classes_),
        )
        return display.plot(ax, n_axes=n_axes, thumbnail=thumbnail, fig=fig)

    def _check(self, ax, n_axes, thumbnail, fig):
        check_count("thumbnail", thumbnail)
        if n_axes is not None:
            check_count("n_axes", n_axes)
        if self.images is None and fig is not None:
            raise ValueError(
                "Got fig without images but expected ax, as there is only one; pass ax."
            )
        if self.images is not None and ax is not None:
            raise ValueError(
                "Got ax and images but expected fig, as each axis of the detector has "
                "axes of its own; pass fig, which may be a SubFigure."
            )
        if np.ndim(self.shares) != 1 or not len(self.shares):
            raise ValueError(
                f"Got shares of shape {np.shape(self.shares)} but expected (n_axes,), "
                "with at least one axis."
            )
        if not np.isfinite(np.asarray(self.shares, dtype=float)).all():
            raise ValueError(
                "Got shares that are NaN or infinite but expected numbers."
            )
        for name in ("is_remainder", "is_undefined", "names", "images"):
            column = getattr(self, name)
            if column is not None and len(column) != len(self.shares):
                raise ValueError(
                    f"Got {name} of length {len(column)} for {len(self.shares)} shares "
                    "but expected one for each axis."
                )
        for axis in np.flatnonzero(~self._undefined()) if self.images else ():
            sizes = [len(end) for end in self.images[axis]]
            if len(sizes) != 2 or len(set(sizes)) > 1 or not sizes[0]:
                raise ValueError(
                    f"Got ends of {sizes} images for axis {axis} but expected a low "
                    "and a high end, of equally many images, at least one."
                )

    def _undefined(self):
        if self.is_undefined is None:
            return np.zeros(len(self.shares), dtype=bool)
        return np.asarray(self.is_undefined, dtype=bool)

    def _draw_bars_alone(self, plt, ax, shares):
        if ax is None:
            height = 1.2 + 0.5 * len(self.order_)
            _, ax = plt.subplots(figsize=(8, height), layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        for position, axis in enumerate(self.order_):
            self._draw_bar(ax, position, axis, shares)
        positions = np.arange(len(self.order_))
        ax.set_yticks(positions, [self._label(axis) for axis in self.order_])
        ax.set_ylim(len(self.order_) - 0.5, -0.5)
        _finish_bar_axes(ax, shares[self.order_])
        ax.set_title(self._title(shares), fontsize="medium")

    def _draw_rows(self, plt, fig, shares, thumbnail):
        # Before there is a figure, which an unreadable image would leave open.
        strips = [self._strips(axis, thumbnail) for axis in self.order_]
        strip = max(np.shape(ends)[2] if ends else 1 for ends in strips)  # pixels
        widths = [280, strip, 5 * MARGIN, strip]
        heights = [16] + [thumbnail + 24] * len(self.order_)  # below the headings
        if fig is None:
            size = (sum(widths) + 360, sum(heights) + 110)  # labels on the left
            fig = plt.figure(figsize=np.divide(size, DPI), layout="constrained")
        grid = fig.add_gridspec(
            len(heights), 4, width_ratios=widths, height_ratios=heights
        )
        for column, end, word in zip((1, 3), ("low", "high"), self.display_labels):
            heading = fig.add_subplot(grid[0, column])
            heading.axis("off")
            heading.text(0.5, 0.5, f"{end} end ({word})", ha="center", va="center")
        self.figure_, self.ax_ = fig, []
        for row, (axis, ends) in enumerate(zip(self.order_, strips), start=1):
            ax = fig.add_subplot(grid[row, 0])
            self._draw_bar(ax, 0, axis, shares)
            ax.set_yticks([0], [self._label(axis)])
            ax.set_ylim(0.5, -0.5)
            _finish_bar_axes(ax, shares[self.order_])
            if row < len(self.order_):
                ax.set_xlabel("")
                ax.tick_params(labelbottom=False)
            self.ax_.append(ax)
            drawn = []
            for column, pixels in zip((1, 3), ends):
                cell = fig.add_subplot(grid[row, column])
                cell.axis("off")
                drawn.append(cell.imshow(pixels))
            self.thumbnails_.append(tuple(drawn))
        fig.suptitle(self._title(shares), fontsize="medium")

    def _strips(self, axis, thumbnail):
        if self._undefined()[axis]:
            return []
        return [
            thumbnail_strip(images, thumbnail, f"at the {end} end of axis {axis}")
            for end, images in zip(("low", "high"), self.images[axis])
        ]

    def _draw_bar(self, ax, position, axis, shares):
        if self._undefined()[axis]:
            (bar,) = ax.barh(position, 0.0, 0.6)
            ax.text(0, position, " undefined (a row of zeros)", va="center")
        else:
            is_remainder = self.is_remainder[axis]
            style = {"color": SHARE_COLOUR}
            if is_remainder:
                style = {
                    "facecolor": "white",
                    "edgecolor": SHARE_COLOUR,
                    "hatch": "///",
                }
            bars = ax.barh(position, shares[axis], 0.6, **style)
            ax.bar_label(bars, [percent(shares[axis])], padding=3)
            (bar,) = bars
        self.bars_.append(bar)

    def _label(self, axis):
        lines = [f"axis {axis}"]
        if self.is_remainder[axis]:
            lines[0] += " (remainder: do not read)"
        if self.names is not None and not self._undefined()[axis]:
            lines.append(short_name(self.names[axis]))
        return "\n".join(lines)

    def _title(self, shares):
        if not shares.any():
            return "The classes' mean logits do not differ: no axis has a share"
        largest = self.order_[0]
        who = f"Axis {largest}"
        if self.is_remainder[largest]:
            who = f"The remainder (axis {largest})"
        title = f"{who} makes {percent(shares[largest])} of the gap between the classes"
        hidden = np.setdiff1d(np.arange(len(shares)), self.order_)
        if len(hidden):
            title += f"\n{len(hidden)} axes not shown: {percent(shares[hidden].sum())}"
        return title


def _check_detector(detector):
    """Refuse what has no axes to draw, and warn where they depend on luck."""
    missing = [name for name in AXIS_ATTRIBUTES if not hasattr(detector, name)]
    if missing:
        raise TypeError(
            f"Got {type(detector).__name__}, which has no {' and no '.join(missing)}, "
            "but expected a fitted OrthogonalLinearDetector, or a Pipeline that ends "
            "in one."
        )
    if len(detector.classes_) != 2:
        raise ValueError(
            f"Got a detector of {len(detector.classes_)} classes but expected two, as "
            "the ends of an axis are called real and synthetic; fit one detector for "
            "each generator against photographs."
        )
    if not hasattr(detector, "axis_share_"):
        raise ValueError(
            "Got a detector without axis_share_, which a published head lacks and "
            "partial_fit removes, but expected the shares of its axes; use fit."
        )
    if detector.axes_ != "canonical":
        warn_user(
            "The axes of this detector are learned: single ones depend on "
            "random_state and are not to be read. Fit with axes='canonical', which "
            "decides the same."
        )


def _rows_at_ends(detector, X, n_samples, n_images):
    """Return, for each axis, the rows of X at its low and its high end, ascending."""
    check_count("n_images", n_images)
    if X is None:
        raise ValueError(
            "Got images without X but expected their rows, whose activations order "
            "them; pass X."
        )
    A = np.asarray(detector.transform(X), dtype=np.float64)
    if len(A) != n_samples:
        raise ValueError(
            f"Got {n_samples} images for {len(A)} rows of X but expected one image for "
            "each row."
        )
    if 2 * n_images > n_samples:
        raise ValueError(
            f"Got n_images={n_images} for {n_samples} images but expected at most "
            "half of them, as no image can be at both ends; lower n_images."
        )
    # share = weight * class gap / total gap: its sign and that of the weight tell which
    # end is synthetic. Canonical axes point there already.
    signs = np.sign(detector.axis_share_ * detector.activation_weights_[0])
    pairs = []
    for activation, sign, axis in zip(A.T, signs, detector.components_):
        order = np.argsort(activation if sign >= 0 else -activation, kind="stable")
        n = n_images if axis.any() else 0
        pairs.append((order[:n], order[n_samples - n :]))
    return pairs


def _finish_bar_axes(ax, shares):
    low, high = min(0, shares.min()), max(0, shares.max())
    room = 0.2 * ((high - low) or 1.0)  # for the numbers at the bars
    ax.set_xlim(low - room * (low < 0), high + room)
    ax.axvline(0, color="0.2", linewidth=0.8)
    ax.xaxis.set_major_formatter(lambda value, _: percent(value))
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_xlabel("share of the gap between the classes' mean logits")
