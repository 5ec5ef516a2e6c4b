"""Correlate the scores of a detector with named cues, within each class."""

from numbers import Integral, Real

import numpy as np
from scipy.stats import false_discovery_control
from sklearn.utils import Bunch, check_array, check_random_state, column_or_1d
from sklearn.utils._param_validation import Interval, validate_params

from sklearn_clipsid._concept_vocabulary import check_concepts
from sklearn_clipsid._groups import (
    check_length,
    list_rows,
    positive_rows,
    read_pairs,
)
from sklearn_clipsid._unit_rows import unit_rows

RIDGE = 1e-3
FLOOR_QUANTILE = 0.95
# What varies less than this, on a scale of 1, varies by rounding errors.
CONSTANT = 1e-12
# Numbers in the largest array of a step of the bootstrap: 32 MiB.
BLOCK = 2**22
CLASSES = ("photographs", "synthetic images")


@validate_params(
    {
        "n_boot": [Interval(Integral, 1, None, closed="left")],
        "n_random": [Interval(Integral, 1, None, closed="left")],
        "level": [Interval(Real, 0, 1, closed="neither")],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def cue_profile(
    y_score,
    X,
    y_true,
    directions,
    names=None,
    *,
    groups=None,
    n_boot=1000,
    n_random=128,
    level=0.95,
    random_state=None,
    pos_label=1,
):
    r"""Correlate scores with named cues among photographs and synthetic images.

    A cue is a named direction, and its score on an image their cosine. Correlations are
    taken within each class: over both classes, everything that differs between
    photographs and synthetic images correlates with a detector that works.

    .. warning::
        Correlation only: a cue that varies with the score is not its cause. What the
        detector uses may vary with the cue, and so may the content of the images.

    Parameters
    ----------
    y_score : array-like of shape (n_samples,)
        Scores, larger for synthetic images: logits of images that the detector was not
        fitted to.

    X : array-like of shape (n_samples, n_features)
        Embeddings of the same images in the space of the directions, as
        ``CLIPEmbedder(features="projected")`` makes them.

    y_true : array-like of shape (n_samples,)
        Binary labels.

    directions : array-like of shape (n_directions, n_features)
        The cues, such as differences between the text embeddings of antonyms; of any
        length.

    names : array-like of str of shape (n_directions,), default=None
        Their names, all different. None numbers them.

    groups : array-like of shape (n_samples,), default=None
        Images that are no independent evidence, such as a photograph and the synthetic
        images made after it, have the same value here. The bootstrap draws such groups,
        not images. Images whose value is missing, and with None all of them, are each a
        group of their own.

    n_boot : int, default=1000
        Number of bootstrap draws.

    n_random : int, default=128
        Number of random directions that `floor` is made of.

    level : float, default=0.95
        Level of the intervals.

    random_state : int, RandomState instance or None, default=None
        Random directions and bootstrap draws.

    pos_label : int, float, bool or str, default=1
        The label of synthetic images.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        Dictionary-like, with attributes:

        table : structured ndarray of shape (n_directions,)
            One row per direction, in the order in which they were given:
            ``pandas.DataFrame(table)`` makes a table of it. Its fields are "name";
            "r_real", "r_synthetic" and "r", the correlation within the photographs,
            within the synthetic images and the mean of the two; "partial_r", the same
            mean of the correlations with all other cues held fixed; "low" and "high",
            the interval of r; "p_value" of r and "p_adjusted" for all directions; and
            "above_floor", whether the absolute r is larger than `floor`.
        floor : float
            The 95th percentile of the absolute r of random directions.
        n_redrawn : int
            How many draws were repeated, see Notes.

    See Also
    --------
    name_components : Compares directions, without images.
    sklearn_clipsid.ConceptBottleneckClassifier : Detects by named directions.

    Notes
    -----
    With unit embeddings ê and unit directions :math:`t_j` the cue scores are
    :math:`c_j = ê^\top t_j`, and

    .. math:: r_j = \frac{1}{2} \big(\mathrm{corr}_{y=0}(z, c_j)
        + \mathrm{corr}_{y=1}(z, c_j)\big) .

    These correlations and their floor are those of [1]_. The partial correlation within
    a class is
    :math:`-P_{0j} / \sqrt{P_{00} P_{jj}}`, with the inverse P of the correlation
    matrix of z and all cues, 0.001 added to its diagonal. Cues that say the same share
    it among them: with many of them it is small for all.

    Intervals are percentiles of r over draws of as many groups as there are, with
    replacement. The p-value is twice the share of the draws on the rarer side of 0,
    at least ``1 / n_boot``; "p_adjusted" controls the false discovery rate after
    Benjamini and Hochberg [2]_. k cues that are as significant as can be have a
    "p_adjusted" of ``n_directions / (k * n_boot)``: to find a single one among 168 at
    the level of 0.05 takes an `n_boot` of 3,400. With a few hundred images p-values are
    somewhat too small, of 100 images and cues of noise 1.6 % are below 0.01.

    A draw in which the scores or a cue do not vary within a
    class has no r, and is repeated. If more draws had to be repeated than were asked
    for, there are too few groups, which is an error.

    Almost any direction correlates with a score that is itself made from the
    embedding: of 100 random directions in 4,214 CLIP ViT-B/16 embeddings, with the
    logits of a linear probe, 56 are significant at 0.05 by "p_adjusted". Hence `floor`:
    an r below it is no more than that of a random direction, however significant.
    Floor, intervals and p-values are about images like these.

    References
    ----------
    .. [1] M. Willi, M. Mathys, M. Graber, "Synthetic Image Detection with CLIP:
       Understanding and Assessing Predictive Cues", 2026, arXiv 2602.12381.

    .. [2] Y. Benjamini, Y. Hochberg, "Controlling the False Discovery Rate", Journal
       of the Royal Statistical Society B 57, 1995.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_clipsid.inspection import cue_profile
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.standard_normal((400, 16)), np.arange(400) % 2
    >>> logits = X[:, 0] + y + 0.5 * rng.standard_normal(400)
    >>> profile = cue_profile(
    ...     logits, X, y, np.eye(16)[:2], ["grain", "blur"], random_state=0
    ... )
    >>> profile.table["name"][profile.table["above_floor"]].tolist()
    ['grain']
    >>> float(profile.table["r"][0].round(1))
    0.9
    >>> (profile.table["p_adjusted"] < 0.01).tolist()
    [True, False]
    """
    E, z, positive = _check_images(y_score, X, y_true, pos_label)
    if names is None:
        names = [f"direction{j}" for j in range(len(directions))]
    T, names = check_concepts(
        directions, names, E.shape[1], called=("directions", "names")
    )
    cluster = _check_groups(groups, len(z))
    random_state = check_random_state(random_state)
    random, _ = unit_rows(random_state.standard_normal((n_random, E.shape[1])))
    random_names = [f"random {j}" for j in range(n_random)]
    C, D = E @ T.T, E @ random.T  # (n_samples, n_directions), (n_samples, n_random)
    classes, random_r = [], []
    for rows, name in zip((~positive, positive), CLASSES):
        z_class = _standardise_scores(z[rows], name)
        C_class = _standardise_cues(C[rows], names, name)
        D_class = _standardise_cues(D[rows], random_names, name)
        classes.append((z_class, C_class, cluster[rows]))
        random_r.append(z_class @ D_class / len(z_class))
    floor = float(np.quantile(np.abs(np.mean(random_r, axis=0)), FLOOR_QUANTILE))
    draws, n_redrawn = _bootstrap(classes, cluster.max() + 1, n_boot, random_state)
    fields = {"name": names} | _correlations(classes) | _evidence(draws, level)
    fields["above_floor"] = np.abs(fields["r"]) > floor
    table = np.empty(len(names), [(key, f.dtype) for key, f in fields.items()])
    for key, column in fields.items():
        table[key] = column
    return Bunch(table=table, floor=floor, n_redrawn=n_redrawn)


def _check_images(y_score, X, y_true, pos_label):
    """Return unit embeddings, scores and which rows are synthetic."""
    positive = positive_rows(y_true, pos_label, name="y_true")
    if positive.all():
        raise ValueError(
            f"Got y_true with the label {pos_label!r} alone but expected photographs "
            "as well; add them, as correlations are taken within both classes."
        )
    z = column_or_1d(y_score, dtype=np.float64)
    check_length(z, len(positive), "y_score")
    X = check_array(X, dtype=np.float64, ensure_all_finite=False, input_name="X")
    check_length(X, len(positive), "X")
    for name, bad in (
        ("y_score", ~np.isfinite(z)),
        ("X", ~np.isfinite(X).all(axis=1)),
    ):
        if bad.any():
            raise ValueError(
                f"Got NaN or infinity in {name}, in {list_rows(bad)}, but expected "
                "numbers; leave these images out of y_score, X, y_true and groups."
            )
    E, zero = unit_rows(X)
    if len(zero):
        is_zero = np.isin(np.arange(len(X)), zero)
        raise ValueError(
            f"Got an X of zeros in {list_rows(is_zero)} but expected embeddings; leave "
            "these images out of y_score, X, y_true and groups."
        )
    return E, z, positive


def _check_groups(groups, n_samples):
    """Return the number of the group of each row, from 0."""
    cluster, n_pairs = read_pairs(groups, n_samples)
    alone = np.flatnonzero(cluster < 0)
    cluster[alone] = n_pairs + np.arange(len(alone))
    if cluster.max() == 0:
        raise ValueError(
            "Got groups with one value but expected several; the bootstrap draws "
            "groups. Pass the pair id or motif of each image, or None."
        )
    return cluster


def _standardise_scores(z, class_name):
    largest = np.abs(z).max() or 1.0
    z = z / largest
    z -= z.mean()
    deviation = np.sqrt((z**2).mean())
    if deviation <= CONSTANT:
        raise ValueError(
            f"Got a y_score that does not vary within the {len(z)} {class_name} but "
            "expected scores that do, as it has no correlation; pass logits rather "
            "than verdicts, and enough images of both classes."
        )
    return z / deviation


def _standardise_cues(C, names, class_name):
    C -= C.mean(axis=0)
    deviation = np.sqrt(np.einsum("ij,ij->j", C, C) / len(C))
    constant = np.flatnonzero(deviation <= CONSTANT)
    if len(constant):
        j = constant[0]
        raise ValueError(
            f"Got directions whose cue score does not vary within the {len(C)} "
            f"{class_name}, such as row {j} ({names[j]}), but expected cues that do; "
            "leave them out, and check that one encoder made X and directions."
        )
    C /= deviation
    return C


def _correlations(classes):
    real, synthetic = (z @ C / len(z) for z, C, _ in classes)
    return {
        "r_real": real,
        "r_synthetic": synthetic,
        "r": (real + synthetic) / 2,
        "partial_r": np.mean(
            [_partial_correlations(z, C) for z, C, _ in classes], axis=0
        ),
    }


def _evidence(draws, level):
    """Return intervals and p-values out of bootstrap draws (n_boot, n_directions)."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    rarer = np.minimum((draws <= 0).mean(axis=0), (draws >= 0).mean(axis=0))
    p_value = np.clip(2 * rarer, 1 / len(draws), 1)
    p_adjusted = false_discovery_control(p_value, method="bh")
    return {"low": low, "high": high, "p_value": p_value, "p_adjusted": p_adjusted}


def _partial_correlations(z, C):
    """Correlate z with each column of C, both free of all other columns."""
    columns = np.column_stack([z, C])
    matrix = columns.T @ columns / len(z)  # (1 + n_directions, 1 + n_directions)
    matrix.flat[:: len(matrix) + 1] += RIDGE
    P = np.linalg.inv(matrix)
    return -P[0, 1:] / np.sqrt(P[0, 0] * np.diag(P)[1:])


def _bootstrap(classes, n_clusters, n_boot, random_state):
    """Draw clusters with replacement and return the mean r of the classes.

    Parameters
    ----------
    classes : list of tuple
        Of each class the standardised scores and cues, and the cluster of each row.

    n_clusters : int
        How many clusters there are, and are drawn.

    n_boot : int
        Number of draws.

    random_state : RandomState instance
        Source of randomness.

    Returns
    -------
    r : ndarray of shape (n_boot, n_directions)
        One row per draw.

    n_redrawn : int
        How many draws had no r.
    """
    n_rows = sum(len(z) for z, _, _ in classes)
    n_at_once = max(1, BLOCK // n_rows)
    kept, n_kept, n_redrawn = [], 0, 0
    while n_kept < n_boot:
        n_draws = min(n_at_once, n_boot - n_kept)
        counts = np.empty((n_draws, n_clusters))
        for row in counts:
            drawn = random_state.randint(n_clusters, size=n_clusters)
            row[:] = np.bincount(drawn, minlength=n_clusters)
        r = np.mean([_weighted_r(*rows, counts) for rows in classes], axis=0)
        usable = ~np.isnan(r).any(axis=1)
        kept.append(r[usable])
        n_kept += len(kept[-1])
        n_redrawn += n_draws - len(kept[-1])
        if n_redrawn > n_boot:
            raise ValueError(
                f"Got {n_redrawn} bootstrap draws in which the scores or a cue do not "
                f"vary within a class, for {n_kept} others, but expected few; there "
                f"are too few groups ({n_clusters}): bring more images, or leave out "
                "directions that hardly vary."
            )
    return np.concatenate(kept), n_redrawn


def _weighted_r(z, C, cluster, counts):
    """Correlate z with the columns of C under many weights, NaN where one is constant.

    Parameters
    ----------
    z : ndarray of shape (n_rows,)
        Standardised scores.

    C : ndarray of shape (n_rows, n_directions)
        Standardised cues.

    cluster : ndarray of shape (n_rows,)
        Cluster of each row.

    counts : ndarray of shape (n_draws, n_clusters)
        How often each was drawn.

    Returns
    -------
    r : ndarray of shape (n_draws, n_directions)
        Correlations.
    """
    W = counts[:, cluster]  # (n_draws, n_rows)
    total = W.sum(axis=1)
    total[total == 0] = np.nan  # a draw without the class
    W /= total[:, None]
    mean_z = W @ z
    var_z = _variance(mean_z, W @ z**2)
    r = np.empty((len(counts), C.shape[1]))
    width = max(1, BLOCK // len(C))
    for first in range(0, C.shape[1], width):
        block = C[:, first : first + width]
        mean = W @ block
        var = _variance(mean, W @ block**2)
        covariance = W @ (z[:, None] * block) - mean_z[:, None] * mean
        r[:, first : first + width] = covariance / np.sqrt(var_z[:, None] * var)
    return r


def _variance(mean, mean_square):
    variance = mean_square - mean**2
    # What a constant leaves here is its rounding error.
    return np.where(variance > CONSTANT * mean_square, variance, np.nan)
