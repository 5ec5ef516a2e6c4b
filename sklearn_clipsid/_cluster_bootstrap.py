"""Draw whole clusters of rows again to tell how far a ranking score may be off."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, stdtrit
from sklearn.utils import check_random_state

from sklearn_clipsid._first_few import first_few

BLOCK = 2**20  # weights held at a time, 8 MB
MAX_ROUNDS = 200


@dataclass
class GeneratorRows:
    """Which rows each generator is ranked on, and which are drawn together.

    Parameters
    ----------
    names : list
        The generators.

    own : list of ndarray
        Indices of the images of each generator.

    photographs : list of ndarray
        Indices of the photographs that these are ranked against.

    cluster : ndarray of shape (n_samples,)
        Number of the cluster of each row, from 0.

    stratum : ndarray of shape (n_clusters,)
        Clusters of one stratum stand in for one another.
    """

    names: list
    own: list
    photographs: list
    cluster: np.ndarray
    stratum: np.ndarray

    @property
    def prevalence(self):
        """Share of synthetic images in each ranking, which random scores get as AP."""
        n_own = np.array([len(rows) for rows in self.own])
        return n_own / (n_own + [len(rows) for rows in self.photographs])


@dataclass
class GeneratorScores:
    """Scores of several models, [metric, model, generator], the mean coming last.

    Parameters
    ----------
    value, low, high : ndarray of shape (2, n_models, n_generators + 1)
        Average precision and ROC AUC, and the limits of their intervals.

    n_redrawn : int
        Draws that lacked a class and were drawn again.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n_redrawn: int


def choose_negatives(positive, group):
    """Tell what photographs the generators of a data set are ranked against.

    Parameters
    ----------
    positive : ndarray of shape (n_samples,)
        Mask of the synthetic images.

    group : ndarray of shape (n_samples,)
        Number of the generator or photo source.

    Returns
    -------
    negatives : {'matched', 'shared'}
        'matched' where every group with a synthetic image has photographs.
    """
    both = np.isin(np.unique(group[positive]), group[~positive])
    return "matched" if both.all() else "shared"


def arrange_generators(positive, names, group, pair, negatives):
    """Find the rows of each generator, and the clusters.

    Parameters
    ----------
    positive : ndarray of shape (n_samples,)
        Mask of the synthetic images.

    names : list
        Generators and photo sources.

    group : ndarray of shape (n_samples,)
        Index into `names`.

    pair : ndarray of shape (n_samples,)
        Number of the pair, -1 for rows without one.

    negatives : {'matched', 'shared'}
        Whether photographs count for their own group only.

    Returns
    -------
    rows : GeneratorRows
        For all groups that hold a synthetic image.
    """
    matched = negatives == "matched"
    present = np.unique(group[positive])
    own = [np.flatnonzero(positive & (group == j)) for j in present]
    photographs = [
        np.flatnonzero(~positive & (group == j) if matched else ~positive)
        for j in present
    ]
    without = [repr(names[j]) for j, rows in zip(present, photographs) if not len(rows)]
    if without:
        raise ValueError(
            f"Got no photograph to rank the images of {first_few(without)} against but "
            f"expected one or more with negatives={negatives!r}; add photographs"
            + (" of these groups or pass negatives='shared'." if matched else ".")
        )
    cluster = cluster_rows(pair)
    # How many images there are of each generator was decided by who collected them.
    kind = np.where(positive, group, len(names) + (group if matched else 0))
    return GeneratorRows(
        names=[names[j] for j in present],
        own=own,
        photographs=photographs,
        cluster=cluster,
        stratum=strata_of_clusters(cluster, kind),
    )


def cluster_rows(pair):
    """Give each pair, and each row without one, a number.

    Parameters
    ----------
    pair : ndarray of shape (n_samples,)
        Number of the pair, -1 for rows without one.

    Returns
    -------
    cluster : ndarray of shape (n_samples,)
        From 0, without gaps.
    """
    unit = np.where(pair >= 0, pair, ~np.arange(len(pair)))
    return np.unique(unit, return_inverse=True)[1]


def strata_of_clusters(cluster, kind):
    """Put clusters whose rows are all of one kind into the stratum of that kind.

    Parameters
    ----------
    cluster : ndarray of shape (n_samples,)
        Number of the cluster of each row.

    kind : ndarray of int of shape (n_samples,)
        Not negative.

    Returns
    -------
    stratum : ndarray of shape (n_clusters,)
        The kind, or -1 for clusters that mix kinds.
    """
    first = kind[np.unique(cluster, return_index=True)[1]]  # (n_clusters,)
    mixed = np.bincount(cluster, weights=kind != first[cluster]) > 0
    return np.where(mixed, -1, first)


def bootstrap_generators(rows, scores, *, n_boot, level, random_state):
    """Score models on each generator, with intervals from one set of draws.

    Parameters
    ----------
    rows : GeneratorRows
        The test set.

    scores : ndarray of shape (n_models, n_samples)
        Larger for synthetic images.

    n_boot, level, random_state
        As of `cross_dataset_validate`.

    Returns
    -------
    result : GeneratorScores
        Values and intervals.
    """
    rankings = [
        [_Ranking(score, own, photographs) for score in scores]
        for own, photographs in zip(rows.own, rows.photographs)
    ]
    value = _score(rankings, np.ones((len(rows.cluster), 1)))[..., 0]
    rng = check_random_state(random_state)
    block = max(1, BLOCK // len(rows.cluster))
    parts, n_redrawn = [], 0
    for start in range(0, n_boot, block):
        counts, again = _draw(rows, min(block, n_boot - start), rng)
        weight = counts.T[rows.cluster].astype(np.float64)  # (n_samples, n_draws)
        parts.append(_score(rankings, weight))
        n_redrawn += again
    draws = np.concatenate(parts, axis=-1)
    low, high = logit_interval(value, draws, _independent(rows), level)
    return GeneratorScores(value, low, high, n_redrawn)


def logit_interval(value, draws, n_clusters, level):
    """Return intervals of scores by the spread of the logits of their draws.

    Parameters
    ----------
    value : ndarray of shape (..., n)
        Scores between 0 and 1.

    draws : ndarray of shape (..., n, n_draws)
        The same of each draw.

    n_clusters : ndarray of shape (n,)
        Clusters of the rarer class, which make the degrees of freedom.

    level : float
        Share of intervals that should hold the truth.

    Returns
    -------
    low, high : ndarray of shape (..., n)
        Limits, between 0 and 1.
    """
    tail = (1 - level) / 2
    m = np.maximum(n_clusters, 2.0)
    # Draws with replacement vary less than samples do; at 1,000 clusters this is 1.
    t = stdtrit(m - 1, 1 - tail) * m / (m - 1)
    is_inside = (value > 0) & (value < 1)
    p = np.where(is_inside, value, 0.5)
    up, down = _semideviations(p, draws)
    # A ranking without an error has no spread. m pairs of other clusters would all be
    # in order with a probability of AUC ** m.
    if_perfect = tail ** (1 / m)
    # Draws that are too high show how much too high the score itself may be.
    low = np.where(is_inside, expit(logit(p) - t * up), if_perfect * (value == 1))
    high = np.where(
        is_inside, expit(logit(p) + t * down), 1 - if_perfect * (value == 0)
    )
    # One cluster says nothing about others.
    return np.where(n_clusters > 1, low, 0.0), np.where(n_clusters > 1, high, 1.0)


def _semideviations(value, draws):
    """Return how far the logits of draws lie above and below that of the score.

    Each is at least the standard error by the delta method, as the skewness near 0
    and 1 is to widen intervals only. No logit counts for more than two of these: that
    of a perfect draw is infinite.
    """
    error = draws.std(axis=-1) / (value * (1 - value))
    bound = 2 * error[..., np.newaxis]
    deviation = np.clip(logit(draws) - logit(value)[..., np.newaxis], -bound, bound)
    sides = []
    for side in (deviation > 0, deviation < 0):
        squares = (deviation**2).sum(axis=-1, where=side)
        sides.append(
            np.maximum(np.sqrt(squares / np.maximum(side.sum(axis=-1), 1)), error)
        )
    return sides


def weighted_ap_and_auc(positive, score, weight):
    """Compute average precision and ROC AUC under many integer weightings.

    Parameters
    ----------
    positive : ndarray of shape (n_samples,)
        Mask of the synthetic images.

    score : ndarray of shape (n_samples,)
        Larger for synthetic images.

    weight : ndarray of shape (n_samples, n_draws)
        How often each row counts. Both classes need one positive weight in each draw.

    Returns
    -------
    result : ndarray of shape (2, n_draws)
        Average precision and ROC AUC.
    """
    ranking = _Ranking(score, np.flatnonzero(positive), np.flatnonzero(~positive))
    return ranking.score(np.asarray(weight, dtype=np.float64))


class _Ranking:
    """The order of the rows of one generator, highest score first, ties and all."""

    def __init__(self, score, own, photographs):
        rows = np.concatenate([own, photographs])
        order = np.argsort(-score[rows], kind="stable")
        self.rows = rows[order]
        self.positive = np.flatnonzero(order < len(own))  # positions in the ranking
        ranked = score[self.rows]
        # A tie begins at its first row and ends after its last.
        ends = np.append(np.flatnonzero(np.diff(ranked)) + 1, len(ranked))
        tie = np.searchsorted(ends, self.positive, side="right")
        self.end, self.begin = ends[tie], np.append(0, ends)[tie]
        self.end_positive = np.searchsorted(self.positive, self.end)
        self.begin_positive = np.searchsorted(self.positive, self.begin)

    def score(self, weight):
        """Return average precision and AUC of each column of weights."""
        weight = weight[self.rows]  # (n_ranked, n_draws)
        own = weight[self.positive]  # (n_positive, n_draws)
        above, own_above = _cumulative(weight), _cumulative(own)
        n_own, n_all = own_above[-1], above[-1]
        hits, seen = own_above[self.end_positive], above[self.end]
        # Nothing seen means that nothing weighs anything yet: the hit has no weight.
        average_precision = (own * (hits / np.maximum(seen, 1))).sum(axis=0) / n_own
        errors = seen - hits + above[self.begin] - own_above[self.begin_positive]
        auc = 1 - (own * errors).sum(axis=0) / (2 * n_own * (n_all - n_own))
        return np.stack([average_precision, auc])


def _cumulative(weight):
    """Sum up the rows above each position, none above the first."""
    total = np.zeros((len(weight) + 1, weight.shape[1]))
    np.cumsum(weight, axis=0, out=total[1:])
    return total


def _score(rankings, weight):
    """Return [metric, model, generator, draw], the mean over generators coming last."""
    scores = np.array([[r.score(weight) for r in models] for models in rankings])
    scores = scores.transpose(2, 1, 0, 3)
    return np.concatenate([scores, scores.mean(axis=2, keepdims=True)], axis=2)


def _draw(rows, n_draws, rng):
    """Return how often each draw holds each cluster, and the number of redraws."""
    counts = draw_counts(rows.stratum, n_draws, rng)
    needed = {}
    for name, own, photographs in zip(rows.names, rows.own, rows.photographs):
        needed[f"image of {name!r}"] = np.unique(rows.cluster[own])
        needed[f"photograph for {name!r}"] = np.unique(rows.cluster[photographs])
    n_redrawn = 0
    for _ in range(MAX_ROUNDS):
        lacks = {
            what: ~(counts[:, clusters] > 0).any(axis=1)
            for what, clusters in needed.items()
        }
        bad = np.flatnonzero(np.any(list(lacks.values()), axis=0))
        if not len(bad):
            return counts, n_redrawn
        n_redrawn += len(bad)
        counts[bad] = draw_counts(rows.stratum, len(bad), rng)
    often = sorted(lacks, key=lambda what: -lacks[what].sum())
    raise ValueError(
        f"Got draws of clusters without {first_few(often, 2)} {MAX_ROUNDS} times over "
        "but expected every class in most draws; test on more images of these, which "
        "now stand in very few clusters of many, or leave them out."
    )


def draw_counts(stratum, n_draws, rng):
    """Draw as many clusters as there are from each stratum, with replacement.

    Parameters
    ----------
    stratum : ndarray of shape (n_clusters,)
        Stratum of each cluster.

    n_draws : int
        Number of draws.

    rng : RandomState
        Source of randomness.

    Returns
    -------
    counts : ndarray of int of shape (n_draws, n_clusters)
        How often each draw holds each cluster.
    """
    counts = np.zeros((n_draws, len(stratum)), dtype=np.int32)
    for one in np.unique(stratum):
        members = np.flatnonzero(stratum == one)
        drawn = rng.randint(len(members), size=(n_draws, len(members)))
        drawn += len(members) * np.arange(n_draws)[:, np.newaxis]
        drawn = np.bincount(drawn.ravel(), minlength=n_draws * len(members))
        counts[:, members] = drawn.reshape(n_draws, len(members))
    return counts


def _independent(rows):
    """Count the clusters of the rarer class, of each generator and of all."""

    def count(indices):
        return len(np.unique(rows.cluster[indices]))

    n = [min(count(own), count(real)) for own, real in zip(rows.own, rows.photographs)]
    of_all = min(count(np.concatenate(part)) for part in (rows.own, rows.photographs))
    return np.array([*n, of_all])
