"""Score images again after what happens to them on their way to a viewer."""

from functools import partial
from numbers import Real

import numpy as np
from scipy.ndimage import gaussian_filter
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.utils import Bunch, check_random_state
from sklearn.utils._response import _get_response_values_binary
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from sklearn_clipsid._groups import check_length, positive_rows
from sklearn_clipsid._image_sequence import as_images
from sklearn_clipsid._progress import slow_bar
from sklearn_clipsid._read_image import read_image

# What is held in memory at once, decoded: 192 MB, four times that when it is enlarged.
MAX_IMAGES = 32
MAX_PIXELS = 64_000_000
SCREEN = 1080  # pixels


def jpeg(pixels, strength, random_state):
    """Compress with a quality of Pillow's encoder."""
    from sklearn_clipsid._clip import compress_jpeg

    return compress_jpeg(pixels, round(strength))


def webp(pixels, strength, random_state):
    """Compress with a quality of Pillow's encoder."""
    from sklearn_clipsid._clip import compress_webp

    return compress_webp(pixels, round(strength))


def resize(pixels, strength, random_state):
    """Scale both sides by a factor."""
    return _scaled(pixels, strength)


def crop(pixels, strength, random_state):
    """Keep a share of both sides, in the centre."""
    size = [max(round(strength * side), 1) for side in pixels.shape[:2]]
    top, left = ((side - kept) // 2 for side, kept in zip(pixels.shape, size))
    return pixels[top : top + size[0], left : left + size[1]]


def blur(pixels, strength, random_state):
    """Blur with a Gaussian of a standard deviation in pixels."""
    sigma = (strength, strength, 0)
    return _rounded(gaussian_filter(pixels.astype(np.float32), sigma, mode="reflect"))


def noise(pixels, strength, random_state):
    """Add Gaussian noise of a standard deviation in grey levels of 255."""
    drawn = random_state.standard_normal(pixels.shape).astype(np.float32)
    return _rounded(pixels + np.float32(strength) * drawn)


def screenshot(pixels, strength, random_state):
    """Show on a screen of 1,080 pixels, and share as JPEG of a quality."""
    # The PNG between the two loses nothing.
    return jpeg(_scaled(pixels, SCREEN / max(pixels.shape[:2])), strength, random_state)


# Name: function and strengths.
OPERATIONS = {
    "jpeg": (jpeg, (95, 75, 50, 30)),
    "webp": (webp, (90, 75, 50)),
    "resize": (resize, (2, 0.75, 0.5, 0.25)),
    "crop": (crop, (0.9, 0.75, 0.5)),
    "blur": (blur, (0.5, 1, 2)),
    "noise": (noise, (2, 5, 10)),
    "screenshot": (screenshot, (90, 75, 50)),
}
# Pillow takes a JPEG quality of 0 for its default.
RANGES = {
    "jpeg": (1, 100),
    "webp": (0, 100),
    "resize": (0.01, 10),
    "crop": (0.01, 1),
    "blur": (0, 1000),
    "noise": (0, 1000),
    "screenshot": (1, 100),
}
COLUMNS = ("ap", "auc", "fpr", "tpr", "flips", "score_shift")


def robustness_table(
    estimator,
    images,
    y,
    operations=None,
    *,
    threshold=None,
    apply_exif=False,
    pos_label=1,
    random_state=None,
    n_jobs=None,
):
    """Measure what compression, scaling and the like do to a detector.

    Images reach a viewer compressed, scaled and cropped. A detector that is right
    about the original file may look at what gets lost on the way.

    Parameters
    ----------
    estimator : classifier
        Fitted, and taking images: mostly a pipeline that starts with `CLIPEmbedder`.

    images : sequence of images of shape (n_samples,)
        What :class:`~sklearn_clipsid.CLIPEmbedder` takes, and neither training images
        nor features.

    y : array-like of shape (n_samples,)
        Binary labels.

    operations : sequence of str or dict, default=None
        What is done to the images: names, or a dict of names and strengths, such as
        ``{"jpeg": [90, 40]}``. A new name comes with its function, ``{"grey":
        (function, strengths)}``; ``function(pixels, strength, random_state)`` takes and
        returns an ndarray of shape (height, width, 3) and dtype uint8. None does all of
        these:

        - "jpeg", "webp": compress with a quality;
        - "resize": scale both sides by a factor;
        - "crop": keep a share of both sides, in the centre;
        - "blur": Gaussian of a standard deviation in pixels;
        - "noise": Gaussian of a standard deviation in grey levels of 255;
        - "screenshot": scale the long side to 1,080 pixels, then JPEG of a quality, as
          social networks leave images.

    threshold : float, default=None
        Images with a higher score are called synthetic. None takes the verdicts of
        ``estimator.predict``.

    apply_exif : bool, default=False
        Whether to rotate images as their EXIF orientation says; set it as in the
        `CLIPEmbedder` of the estimator.

    pos_label : int, float, bool or str, default=1
        The label of synthetic images.

    random_state : int, RandomState instance or None, default=None
        Noise. An image gets the same noise at all strengths.

    n_jobs : int, default=None
        Threads that edit images.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        table : structured ndarray of shape (n_rows,)
            The images as they are, called "clean" with strength 0, and each operation
            at each strength: ``pandas.DataFrame(table)`` makes a table of it. Its
            fields are "operation", "strength", "n" (images), "ap" (average precision)
            and "auc"; "fpr" and "tpr", the shares of photographs and of synthetic
            images that are called synthetic; "flips", the share of images whose verdict
            is not that on the clean image; and "score_shift", the mean difference to
            the score of the clean image.
        scores : ndarray of shape (n_rows, n_samples)
            The score of each image: decision function, or probability where there is
            none.
        verdicts : ndarray of bool of shape (n_rows, n_samples)
            Whether it is called synthetic.

    See Also
    --------
    sklearn_clipsid.inspection.RobustnessDisplay : Draws the table.
    sklearn_clipsid.concepts.photographic_edits : Stronger edits, that stand for a
        property each.

    Notes
    -----
    Images are decoded once, at full resolution, and in small batches: neither more
    images nor more operations need more memory. Blur, noise and compression are in
    pixels of the file. A photograph of 24 megapixels that the encoder scales to 224
    pixels loses little by a blur of 2 pixels, which says nothing about small images.

    Average precision depends on the share of photographs: compare rows of one table
    only. A verdict that flips may have been wrong before; "fpr" and "tpr" tell.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from sklearn_clipsid.model_selection import robustness_table
    >>> def contrast(images):
    ...     return np.array([[image.std()] for image in images])
    >>> rng = np.random.default_rng(0)
    >>> smooth = [np.full((32, 32, 3), 100, dtype=np.uint8) for _ in range(10)]
    >>> rough = [rng.integers(256, size=(32, 32, 3), dtype=np.uint8) for _ in range(10)]
    >>> images, y = smooth + rough, np.repeat([0, 1], 10)
    >>> detector = make_pipeline(FunctionTransformer(contrast), LogisticRegression())
    >>> result = robustness_table(detector.fit(images, y), images, y, {"blur": [1, 9]})
    >>> result.table[["operation", "strength", "flips"]].tolist()
    [('clean', 0.0, 0.0), ('blur', 1.0, 0.5), ('blur', 9.0, 0.5)]
    """
    check_is_fitted(estimator)
    images = _check_images(images)
    positive = _check_labels(y, pos_label, len(images))
    classes = np.asarray(getattr(estimator, "classes_", [pos_label])).tolist()
    if pos_label not in classes:
        raise ValueError(
            f"Got pos_label={pos_label!r} for an estimator fitted to the labels "
            f"{classes} but expected one of them; rename the labels in y."
        )
    if threshold is not None and (
        not isinstance(threshold, Real) or np.isnan(threshold)
    ):
        raise ValueError(
            f"Got threshold={threshold!r} but expected a number; pass None for the "
            "verdicts of estimator.predict."
        )
    steps = check_operations(operations)
    seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    scores = np.empty((1 + len(steps), len(images)))
    verdicts = np.empty(scores.shape, dtype=bool)
    score = partial(_score, estimator, threshold=threshold, pos_label=pos_label)
    with slow_bar(None, "robustness", scores.size, unit="image") as bar:
        for rows, batch in _batches(images, apply_exif):
            scores[0, rows], verdicts[0, rows] = score(batch)
            bar.update(len(batch))
            for row, step in enumerate(steps, start=1):
                edited = Parallel(n_jobs=n_jobs, prefer="threads")(
                    delayed(_edited)(pixels, step, seed, index)
                    for pixels, index in zip(batch, range(len(images))[rows])
                )
                scores[row, rows], verdicts[row, rows] = score(edited)
                bar.update(len(batch))
    names = [("clean", 0.0), *(step[:2] for step in steps)]
    table = _measure(names, scores, verdicts, positive)
    return Bunch(table=table, scores=scores, verdicts=verdicts)


def _measure(names, scores, verdicts, positive):
    """Return the table out of names, scores and verdicts of its rows."""
    texts = np.array([name for name, _ in names])
    fields = [("operation", texts.dtype), ("strength", float), ("n", int)]
    table = np.empty(len(names), fields + [(column, float) for column in COLUMNS])
    table["operation"] = texts
    table["strength"] = [strength for _, strength in names]
    table["n"] = len(positive)
    table["ap"] = [average_precision_score(positive, score) for score in scores]
    table["auc"] = [roc_auc_score(positive, score) for score in scores]
    table["fpr"] = verdicts[:, ~positive].mean(axis=1)
    table["tpr"] = verdicts[:, positive].mean(axis=1)
    table["flips"] = (verdicts != verdicts[0]).mean(axis=1)
    table["score_shift"] = (scores - scores[0]).mean(axis=1)
    return table


def _score(estimator, batch, *, threshold, pos_label):
    """Return scores and verdicts."""
    try:
        score, _ = _get_response_values_binary(
            estimator,
            batch,
            ["decision_function", "predict_proba"],
            pos_label=pos_label,
        )
        if threshold is not None:
            return score, score > threshold
        # Not embedded again: CLIPEmbedder remembers the images of a batch.
        return score, np.asarray(estimator.predict(batch)) == pos_label
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{type(estimator).__name__} could not score images as uint8 arrays "
            f"({error}), but a fitted classifier of images was expected; put a "
            "CLIPEmbedder in front: make_pipeline(CLIPEmbedder(...), detector)."
        ) from error


def _batches(images, apply_exif):
    """Yield slices of the images and their pixels, not too many at once."""
    batch, n_pixels, first = [], 0, 0
    for index in range(len(images)):
        image = read_image(images[index], f"at index {index}", apply_exif=apply_exif)
        pixels = np.asarray(image)  # (height, width, 3)
        size = pixels.shape[0] * pixels.shape[1]
        if batch and (len(batch) == MAX_IMAGES or n_pixels + size > MAX_PIXELS):
            yield slice(first, index), batch
            batch, n_pixels, first = [], 0, index
        batch.append(pixels)
        n_pixels += size
    yield slice(first, len(images)), batch


def _edited(pixels, step, seed, index):
    name, strength, function = step
    random_state = np.random.RandomState([seed, index])
    try:
        edited = function(pixels, strength, random_state)
    # Of encoders, whose formats limit the size, and of the functions of users.
    except Exception as error:
        raise ValueError(
            f"Could not apply {name!r} with strength {strength!r} to the image at "
            f"index {index}, of {pixels.shape[1]} x {pixels.shape[0]} pixels: "
            f"{type(error).__name__}: {error}. Leave out the operation or the image."
        ) from error
    shape, dtype = np.shape(edited), getattr(edited, "dtype", type(edited).__name__)
    if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ValueError(
            f"Got pixels of type {dtype} and shape {shape} from {name!r} with strength "
            f"{strength!r} but expected uint8 of shape (height, width, 3)."
        )
    return edited


def _check_images(images):
    if not isinstance(images, (list, tuple)) and np.ndim(images) == 2:
        if np.asarray(images).dtype.kind in "fib":
            raise ValueError(
                f"Got a table of numbers of shape {np.shape(images)} but expected "
                "images, as features cannot be compressed or scaled; pass the paths of "
                "the images and a pipeline that starts with CLIPEmbedder."
            )
    return as_images(images)


def _check_labels(y, pos_label, n_samples):
    """Return which images are synthetic."""
    positive = positive_rows(y, pos_label, name="y")
    check_length(positive, n_samples, "y")
    if positive.all():
        raise ValueError(
            f"Got y with the label {pos_label!r} alone but expected photographs as "
            "well, as synthetic images are ranked against them; add some."
        )
    return positive


def check_operations(operations):
    """Return name, strength and function of each row of the table."""
    if operations is None:
        operations = OPERATIONS
    elif isinstance(operations, str) or not hasattr(operations, "keys"):
        names = [operations] if isinstance(operations, str) else list(operations)
        operations = {name: OPERATIONS.get(name, ()) for name in names}
    steps = []
    for name, strengths in operations.items():
        if name in OPERATIONS and not _has_function(strengths):
            strengths = (OPERATIONS[name][0], strengths)
        if not _has_function(strengths):
            raise ValueError(
                f"Got the operation {name!r} but expected one of {list(OPERATIONS)}, "
                "or a new one with its function, "
                f"{{{name!r}: (function, strengths)}}."
            )
        function, strengths = strengths
        for strength in np.atleast_1d(strengths).tolist():
            _check_strength(name, strength)
            steps.append((name, float(strength), function))
    if not steps:
        raise ValueError(
            f"Got operations={operations!r} but expected at least one operation and "
            "strength; None does all of them."
        )
    return steps


def _has_function(strengths):
    return (
        isinstance(strengths, tuple) and len(strengths) == 2 and callable(strengths[0])
    )


def _check_strength(name, strength):
    is_number = isinstance(strength, Real) and np.isfinite(strength)
    low, high = RANGES.get(name, (-np.inf, np.inf))
    if not is_number or not low <= strength <= high:
        raise ValueError(
            f"Got strength {strength!r} of {name!r} but expected a number from {low:g} "
            f"to {high:g}."
        )


def _scaled(pixels, factor):
    from sklearn_clipsid._clip import resize_pixels

    height, width = pixels.shape[:2]
    size = max(round(factor * width), 1), max(round(factor * height), 1)
    return resize_pixels(pixels, size, "bicubic")


def _rounded(pixels):
    return np.rint(np.clip(pixels, 0, 255)).astype(np.uint8)
