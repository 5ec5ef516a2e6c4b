"""Show many images, each with the concepts that moved its logit most."""

import numpy as np

from sklearn_clipsid._image_sequence import as_images
from sklearn_clipsid._optional import import_optional
from sklearn_clipsid._read_image import read_image
from sklearn_clipsid.inspection._contribution_display import (
    check_contributions,
    check_count,
)
from sklearn_clipsid.inspection._figure_style import (
    MAX_LABEL,
    short_name,
    sign_colour,
    signed,
    true_minus,
)

DPI = 100  # at which a pixel of a thumbnail is a pixel of the figure
MARGIN = 6  # pixels between two thumbnails of a strip
ROW = 24  # pixels of one concept: a line of text, and the bar below
CHARACTER = 6.3  # pixels of a wide letter, in the small type


def plot_collage(
    images,
    contributions,
    names,
    *,
    y_true=None,
    y_score=None,
    display_labels=("real", "synthetic"),
    top=3,
    n_cols=4,
    thumbnail=220,
    fig=None,
):
    """Plot images with their labels, scores and largest contributions.

    Under each image stand the concepts that moved its logit most, with a bar to the
    left (towards real, blue) or to the right (towards synthetic, orange). The bars of
    all images have one scale.

    Parameters
    ----------
    images : sequence of images of shape (n_samples,)
        What `CLIPEmbedder` takes: paths, encoded bytes, `PIL.Image.Image` or uint8
        arrays.

    contributions : array-like of shape (n_samples, n_concepts)
        What each concept adds to the logit of each image.

    names : array-like of str of shape (n_concepts,)
        Names of the concepts.

    y_true : array-like of shape (n_samples,), default=None
        Labels, written above the images; 0 and 1 are called real and synthetic.

    y_score : array-like of shape (n_samples,), default=None
        Scores, written above the images, such as probabilities.

    display_labels : sequence of two str, default=("real", "synthetic")
        What to call the classes, the one of the higher logit last. Where labels are
        words, pass ``detector.classes_``.

    top : int, default=3
        Concepts per image, at most all.

    n_cols : int, default=4
        Images side by side.

    thumbnail : int, default=220
        Longer side of the drawn images in pixels, at 100 dots per inch.

    fig : matplotlib Figure or SubFigure, default=None
        Where to draw. None makes a figure that fits.

    Returns
    -------
    figure : matplotlib Figure
        The figure.

    See Also
    --------
    ConceptContributionDisplay : Shows all of one logit, or compares the classes.
    ConceptBottleneckClassifier : Its `transform` returns contributions.

    Notes
    -----
    Images are drawn as `CLIPEmbedder` reads them by default: the first frame, not
    rotated as the EXIF orientation says. The concepts shown are not all that there are,
    so their bars do not add up to the score.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> import numpy as np
    >>> from sklearn_clipsid.inspection import plot_collage
    >>> images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype="u1")
    >>> figure = plot_collage(
    ...     images,
    ...     [[0.5, -1.0], [0.1, 0.3]],
    ...     ["grain", "blur"],
    ...     y_true=[0, 1],
    ...     y_score=[0.38, 0.6],
    ... )
    >>> [ax.get_title() for ax in figure.axes]
    ['real, score 0.38', 'synthetic, score 0.60']
    >>> plt.close(figure)
    """
    plt = import_optional("matplotlib.pyplot", extra="plot", caller="plot_collage")
    for name, value in {"top": top, "n_cols": n_cols, "thumbnail": thumbnail}.items():
        check_count(name, value)
    images = as_images(images)
    C, names = check_contributions(contributions, names)
    _check_lengths(len(images), C, y_true, y_score)
    titles = _titles(len(images), y_true, y_score, display_labels)
    n_cols = min(n_cols, len(images))
    n_rows = -(-len(images) // n_cols)
    order = np.argsort(-np.abs(C), axis=1, kind="stable")[:, :top]
    shown = np.take_along_axis(C, order, axis=1)  # (n_samples, top)
    texts = np.reshape(signed(shown.ravel()), shown.shape)
    half_width = thumbnail / 2 / (np.abs(shown).max() or 1.0)  # pixels of a logit of 1
    height = thumbnail + ROW * shown.shape[1] + 4  # of one image with its bars
    pixels = [
        read_thumbnail(image, thumbnail, f"at index {index}")
        for index, image in enumerate(images)
    ]
    if fig is None:
        size = (max(n_cols * (thumbnail + 16), 280), n_rows * (height + 46) + 50)
        fig = plt.figure(figsize=np.divide(size, DPI), layout="constrained")
    axes = fig.subplots(n_rows, n_cols, squeeze=False).ravel()
    for ax in axes[len(images) :]:
        ax.remove()
    for i, ax in enumerate(axes[: len(images)]):
        ax.imshow(on_square(pixels[i], thumbnail), extent=(0, thumbnail, thumbnail, 0))
        ax.set(xlim=(0, thumbnail), ylim=(height, 0))
        ax.set_title(titles[i], fontsize=9)
        ax.axis("off")
        # The layout makes room for a title only where it stands at the top of its cell.
        ax.set_anchor("N")
        labels = [names[concept] for concept in order[i]]
        _draw_bars(ax, thumbnail, labels, texts[i], shown[i] * half_width)
    fig.supxlabel(
        "contribution to the logit\n← {} (blue)    {} (orange) →".format(
            *map(short_name, display_labels)
        ),
        fontsize=9,
    )
    return fig


def read_thumbnail(image, size, place):
    """Return the pixels of an image, at most so many on a side, or name the image."""
    decoded = read_image(image, place)  # a copy, which may be made small
    decoded.thumbnail((size, size))
    return np.asarray(decoded)  # (height, width, 3)


def on_square(pixels, size):
    """Return white pixels with an image in their middle."""
    square = np.full((size, size, 3), 255, dtype=np.uint8)
    height, width = pixels.shape[:2]
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = pixels
    return square


def thumbnail_strip(images, thumbnail, place):
    """Return thumbnails side by side, as one array of pixels."""
    gap = np.full((thumbnail, MARGIN, 3), 255, dtype=np.uint8)
    parts = []
    for rank, image in enumerate(images, start=1):
        pixels = read_thumbnail(image, thumbnail, f"{rank} of {len(images)} {place}")
        parts += [on_square(pixels, thumbnail), gap]
    return np.hstack(parts[:-1])


def _check_lengths(n_images, C, y_true, y_score):
    if len(C) != n_images:
        raise ValueError(
            f"Got {n_images} images for {len(C)} rows of contributions but expected "
            "one image for each row."
        )
    for name, column in {"y_true": y_true, "y_score": y_score}.items():
        if column is not None and np.shape(column) != (n_images,):
            raise ValueError(
                f"Got {name} of shape {np.shape(column)} for {n_images} images but "
                "expected one value for each."
            )


def _titles(n_images, y_true, y_score, display_labels):
    if len(display_labels) != 2:
        raise ValueError(
            f"Got display_labels={display_labels!r} but expected two, the first of "
            "what lowers the logit."
        )
    parts = [[] for _ in range(n_images)]
    if y_true is not None:
        # Labels are 0 and 1, or those that are to be shown.
        words = {label: label for label in display_labels}
        words |= dict(enumerate(display_labels))
        for part, value in zip(parts, np.asarray(y_true).tolist()):
            if value not in words and not isinstance(value, str):
                raise ValueError(
                    f"Got {value!r} in y_true but expected 0, 1 or words; pass "
                    "display_labels=detector.classes_."
                )
            part.append(str(words.get(value, value)))
    if y_score is not None:
        for part, score in zip(parts, np.asarray(y_score, dtype=float)):
            part.append(true_minus(f"score {score:.2f}"))
    return [short_name(", ".join(part)) for part in parts]


def _draw_bars(ax, thumbnail, labels, texts, widths):
    """Write each concept under the image, above a bar from the middle."""
    limit = min(MAX_LABEL, max(int(thumbnail / CHARACTER) - len(texts[0]) - 1, 4))
    for rank, (label, text, width) in enumerate(zip(labels, texts, widths)):
        line = thumbnail + 4 + rank * ROW
        ax.text(
            0,
            line + 1,
            f"{text} {short_name(label, limit)}",
            fontsize=7.5,
            va="top",
            color="0.1",
        )
        ax.barh(line + 18, width, 5, left=thumbnail / 2, color=sign_colour(width))
        ax.vlines(thumbnail / 2, line + 14, line + 22, color="0.2", linewidth=0.8)
