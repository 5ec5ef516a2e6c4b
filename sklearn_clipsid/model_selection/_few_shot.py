"""Train on a few images of one generator, and test on all others (Cozzolino et al.)."""

from numbers import Integral

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.utils import Bunch, _safe_indexing, check_random_state, column_or_1d
from sklearn.utils._response import _get_response_values

from sklearn_clipsid._first_few import first_few
from sklearn_clipsid._groups import check_length, positive_rows, read_groups
from sklearn_clipsid._progress import slow_bar
from sklearn_clipsid.model_selection._split import LeaveOneGeneratorOut


def few_shot_curve(
    estimator,
    X,
    y,
    groups,
    sizes=(10, 100, 1000),
    *,
    train_generators=None,
    n_repeats=5,
    hold_out_real_source="auto",
    pair_id=None,
    random_state=None,
    n_jobs=None,
    pos_label=1,
):
    """Train on few images of one generator, and test on all other generators.

    A learning curve of generalisation [1]_: N photographs and N synthetic images of
    one generator are drawn for training, and the images of each other generator are
    ranked against photographs that were not drawn.

    Parameters
    ----------
    estimator : classifier
        Cloned and fitted once for each training set. It needs `decision_function` or
        `predict_proba`.

    X : array-like or sequence of images of shape (n_samples, ...)
        What the estimator takes.

    y : array-like of shape (n_samples,)
        Binary labels.

    groups : array-like of shape (n_samples,) or (n_samples, 2)
        The generator of each synthetic image and the source of each photograph; in a
        second column, if there is one, the pair ids.

    sizes : int or sequence of int, default=(10, 100, 1000)
        How many photographs, and as many synthetic images, to train on.

    train_generators : str or sequence of str, default=None
        Generators to train on, each by itself. They need as many images as the
        largest size. None takes all. All are tested on, except on themselves.

    n_repeats : int, default=5
        How often training images are drawn. Each repeat tests on the next real fold.

    hold_out_real_source : "auto" or bool, default="auto"
        How photographs are split: into one real fold per photo source (`True`), into
        five at random (`False`), or `True` where there are two or more sources. One
        fold is tested on, and the others are drawn from.

    pair_id : array-like of shape (n_samples,), default=None
        The pair ids, where `groups` has one column.

    random_state : int, RandomState instance or None, default=None
        Draws training images. Pass an int for the same result on each call.

    n_jobs : int, default=None
        Training generators and repeats that are worked on at a time.

    pos_label : int, float, bool or str, default=1
        The label of synthetic images.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        table : structured ndarray
            One row per size, training generator, repeat and test generator, with the
            fields `size`, `train`, `repeat`, `test`, `n_real`, `n_synthetic` (both of
            the test set) and `auc`. ``pandas.DataFrame(table)`` takes it.
        summary : structured ndarray
            One row per size: the mean `auc` over all rows of that size, the `lowest`
            and `highest` mean over test generators of a single training set, and
            `below_chance`, the share of rows with an AUC below .5.
        sizes : ndarray of shape (n_sizes,)
            The sizes, in ascending order.
        train_generators, test_generators : list
            Names, in sorted order.

    See Also
    --------
    sklearn_clipsid.inspection.FewShotDisplay : Draws the curve.
    sklearn.model_selection.learning_curve : The same for images like the training ones.
    CrossGeneratorSplit : Trains on one generator with all images it has.

    Notes
    -----
    Smaller training sets of a repeat are part of the larger ones, and all sizes of a
    repeat are tested on the same images. A size that a generator is too small for is
    an error, as a curve over ever fewer generators would not be one.

    **Pairs.** Test images that share a pair with an image of the largest training set
    of the repeat are left out, for all sizes; `n_real` and `n_synthetic` say what is
    left. Ids that are missing or occur once make no pair.

    **The published curve** is a mean over 18 generators of images at full size, with
    training photographs from COCO and synthetic images from their captions. Its test
    photographs come from COCO as well, among others; with ``hold_out_real_source=True``
    the task here is harder.

    References
    ----------
    .. [1] D. Cozzolino et al., "Raising the Bar of AI-generated Image Detection with
       CLIP", CVPR Workshops 2024, arXiv 2312.00195.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_clipsid.datasets import load_sample_embeddings
    >>> from sklearn_clipsid.model_selection import few_shot_curve
    >>> sample = load_sample_embeddings()
    >>> result = few_shot_curve(
    ...     LogisticRegression(C=0.01),
    ...     *(sample.data, sample.target, sample.generator),
    ...     sizes=(5, 50),
    ...     train_generators=["SD1.4"],
    ...     n_repeats=7,
    ...     random_state=0,
    ... )
    >>> few, many = result.summary["auc"]
    >>> bool(0.5 < few < many)
    True
    """
    positive, y = positive_rows(y, pos_label), column_or_1d(y)
    check_length(X, len(positive), "X")
    names, group, pair, n_pairs = read_groups(groups, pair_id, len(positive))
    sizes = _check_sizes(sizes)
    _check_repeats(n_repeats)
    trained, tested = _read_generators(names, group, positive, train_generators, sizes)
    rng = check_random_state(random_state)
    real_fold = _split_photographs(positive, group, pair, hold_out_real_source, rng)
    _check_photographs(real_fold, n_repeats, sizes)
    tasks = []
    for repeat in range(n_repeats):
        in_test = real_fold == repeat % (real_fold.max() + 1)
        photographs = rng.permutation(np.flatnonzero(~positive & ~in_test))
        for j in trained:
            fakes = rng.permutation(np.flatnonzero(positive & (group == j)))
            drawn = np.concatenate([fakes[: sizes[-1]], photographs[: sizes[-1]]])
            free = _without_pairs_of(drawn, pair, n_pairs)
            tests = _test_sets(names, group, positive, in_test, free, tested, j)
            tasks.append((repeat, names[j], fakes, photographs, tests))
    done = slow_bar(
        Parallel(n_jobs=n_jobs, return_as="generator")(
            delayed(_curve)(estimator, X, y, sizes, pos_label, *task) for task in tasks
        ),
        "training sets",
        len(tasks),
    )
    table = _tabulate([row for rows in done for row in rows])
    return Bunch(
        table=table,
        summary=_summarise(table),
        sizes=sizes,
        train_generators=[names[j] for j in trained],
        test_generators=[names[j] for j in tested],
    )


def _curve(
    estimator, X, y, sizes, pos_label, repeat, trained, fakes, photographs, tests
):
    """Return the rows of the table of one training generator and one repeat."""
    lines = []
    in_tests = np.unique(np.concatenate([rows for _, rows in tests]))
    for size in sizes:
        train = np.concatenate([fakes[:size], photographs[:size]])
        model = clone(estimator).fit(_safe_indexing(X, train), y[train])
        score, _ = _get_response_values(
            model,
            _safe_indexing(X, in_tests),
            ["decision_function", "predict_proba"],
            pos_label,
        )
        for name, rows in tests:
            is_synthetic = y[rows] == pos_label
            auc = roc_auc_score(is_synthetic, score[np.searchsorted(in_tests, rows)])
            counts = np.count_nonzero(~is_synthetic), np.count_nonzero(is_synthetic)
            lines.append((size, str(trained), repeat, str(name), *counts, auc))
    return lines


def _test_sets(names, group, positive, in_test, free, tested, trained):
    """Return the name and the rows of each test set."""
    photographs = np.flatnonzero(in_test & free)
    tests = []
    for j in tested:
        if j == trained:
            continue
        own = np.flatnonzero(positive & (group == j) & free)
        if not len(own) or not len(photographs):
            what = f"image of {names[j]!r}" if len(photographs) else "photograph"
            raise ValueError(
                f"Got no {what} to test on that shares no pair with the images of "
                f"{names[trained]!r} and the photographs that are trained on, but "
                "expected one or more; lower sizes, or leave out the pair ids."
            )
        tests.append((names[j], np.concatenate([own, photographs])))
    return tests


def _without_pairs_of(drawn, pair, n_pairs):
    """Return which rows share no pair with the drawn ones."""
    taken = np.zeros(n_pairs + 1, dtype=bool)  # the last stands for "no pair"
    taken[pair[drawn]] = True
    taken[-1] = False
    return ~taken[pair]


def _split_photographs(positive, group, pair, by_source, rng):
    """Return the real fold of each photograph, and -1 for synthetic images."""
    if positive.all():
        raise ValueError(
            "Got synthetic images only but expected photographs among the rows; add "
            "rows whose label is not pos_label, or check the labels."
        )
    cv = LeaveOneGeneratorOut(hold_out_real_source=by_source, random_state=rng)
    cv._check_parameters()
    real_fold = np.full(len(positive), -1)
    real_fold[~positive], _ = cv._split_photographs(group[~positive], pair[~positive])
    return real_fold


def _read_generators(names, group, positive, train_generators, sizes):
    """Return the numbers of the generators to train on, and to test on."""
    tested, counts = np.unique(group[positive], return_counts=True)
    if len(tested) < 2:
        raise ValueError(
            f"Got images of {names[tested[0]]!r} only but expected two or more "
            "generators in groups; add another, to test on what was not trained on."
        )
    n_images = {names[j]: int(count) for j, count in zip(tested, counts)}
    asked = n_images if train_generators is None else train_generators
    asked = [asked] if isinstance(asked, str) else list(asked)
    unknown = [repr(name) for name in asked if name not in n_images]
    if unknown or not asked:
        raise ValueError(
            f"Got train_generators with {first_few(unknown) or 'no name'} but expected "
            f"some of {list(n_images)}."
        )
    wanted = [name for name in n_images if name in asked]  # in sorted order
    small = [f"{name!r} has {n_images[name]}" for name in wanted]
    small = [text for text, name in zip(small, wanted) if n_images[name] < sizes[-1]]
    if small:
        enough = [name for name in wanted if n_images[name] >= sizes[-1]]
        raise ValueError(
            f"Got sizes up to {sizes[-1]} but {first_few(small)} images; lower sizes"
            + (f" or pass train_generators={enough!r}." if enough else ".")
        )
    return [names.index(name) for name in wanted], tested.tolist()


def _check_photographs(real_fold, n_repeats, sizes):
    """Refuse a size for which some repeat has too few photographs to draw from."""
    counts = np.bincount(real_fold[real_fold >= 0])
    left = len(real_fold[real_fold >= 0]) - counts[:n_repeats]
    if left.min() < sizes[-1]:
        raise ValueError(
            f"Got sizes up to {sizes[-1]} but only {left.min()} photographs beside a "
            f"real fold of {counts[left.argmin()]} to test on; lower sizes, add "
            "photographs, or pass hold_out_real_source=False."
        )


def _check_sizes(sizes):
    sizes = np.atleast_1d(np.asarray(sizes))
    if sizes.ndim != 1 or not len(sizes) or sizes.dtype.kind not in "iu":
        raise ValueError(
            f"Got sizes={sizes.tolist()!r} but expected one or more integers, the "
            "numbers of photographs and of synthetic images to train on."
        )
    if sizes.min() < 1 or len(np.unique(sizes)) < len(sizes):
        raise ValueError(
            f"Got sizes={sizes.tolist()!r} but expected different numbers of 1 or more."
        )
    return np.sort(sizes)


def _check_repeats(n_repeats):
    is_integer = isinstance(n_repeats, Integral) and not isinstance(n_repeats, bool)
    if not is_integer or n_repeats < 1:
        raise ValueError(
            f"Got n_repeats={n_repeats!r} but expected an integer of 1 or more."
        )


def _tabulate(lines):
    fields = ["size", "train", "repeat", "test", "n_real", "n_synthetic", "auc"]
    width = [max(len(line[place]) for line in lines) for place in (1, 3)]
    types = [int, f"U{width[0]}", int, f"U{width[1]}", int, int, float]
    # Sorted by size first, then as they were computed: by repeat and generator.
    lines = sorted(lines, key=lambda line: line[0])
    return np.array(lines, dtype=list(zip(fields, types)))


def _summarise(table):
    lines = []
    for size in np.unique(table["size"]):
        rows = table[table["size"] == size]
        trainings = np.unique(rows[["train", "repeat"]])
        means = [
            rows["auc"][rows[["train", "repeat"]] == one].mean() for one in trainings
        ]
        below = (rows["auc"] < 0.5).mean()
        lines.append((size, rows["auc"].mean(), min(means), max(means), below))
    numbers = ["auc", "lowest", "highest", "below_chance"]
    return np.array(lines, dtype=[("size", int), *((name, float) for name in numbers)])
