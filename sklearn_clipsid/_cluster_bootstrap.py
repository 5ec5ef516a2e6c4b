"""Draw whole clusters of rows again to tell how far a ranking score may be off."""

from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
from scipy.sparse import csr_array
from scipy.special import expit, logit, stdtrit
from sklearn.utils import check_random_state

from sklearn_clipsid._first_few import first_few

BLOCK = 2**16  # weights held at a time, few enough for the processor's cache
LEAST_DRAWS = 16  # held at a time
MAX_ROUNDS = 200
LEAST_FREEDOM = 0.1  # Student's t is 1e13 then


@dataclass
class GeneratorScores:
    """Scores of several models, [metric, model, mean].

    Parameters
    ----------
    value, low, high : ndarray of shape (2, n_models, n_means)
        Average precision and ROC AUC, and the limits of their intervals.

    n_redrawn : int
        Draws that lacked a class and were drawn again.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n_redrawn: int


def check_draws(n_boot, level):
    """Refuse options that no interval can be drawn with, before anything is scored.

    Parameters
    ----------
    n_boot, level
        As of `cross_dataset_validate`.
    """
    if not isinstance(n_boot, Integral) or isinstance(n_boot, bool) or n_boot < 2:
        raise ValueError(
            f"Got n_boot={n_boot!r} but expected an integer of 2 or more; the default "
            "is 1000."
        )
    if not isinstance(level, Real) or isinstance(level, bool) or not 0 < level < 1:
        raise ValueError(
            f"Got level={level!r} but expected a number between 0 and 1, both excluded."
        )


def bootstrap_generators(rows, scores, *, n_boot, level, random_state, means=None):
    """Return `GeneratorScores` of models, with intervals from one set of draws.

    Parameters
    ----------
    rows : GeneratorRows
        The test set.

    scores : ndarray of shape (n_models, n_samples)
        Larger for synthetic images.

    n_boot, level, random_state
        As of `cross_dataset_validate`.

    means : list of ndarray of int, default=None
        Places of the generators of each mean that is wanted; where a draw lacks some of
        them, the others make the mean. None scores each generator, and all of them.
    """
    single = [np.array([j]) for j in range(len(rows.names))]
    means = [*single, np.arange(len(rows.names))] if means is None else means
    rankings = [Rankings(score, rows) for score in scores]
    classes = _Classes(rows)
    value = _score(rankings, np.ones((len(rows.stratum), 1)), means)[..., 0]
    rng = check_random_state(random_state)
    block = max(LEAST_DRAWS, BLOCK // len(rows.stratum))
    parts, lacks, n_redrawn = [], [], 0
    for start in range(0, n_boot, block):
        n_draws = min(block, n_boot - start)
        counts, again, n_more = _draw(rows.stratum, classes, means, n_draws, rng)
        n_redrawn += n_more
        lacks.append(classes.lack(again, means).any(axis=0))
        again[lacks[-1]] = counts[lacks[-1]]
        weight = np.ascontiguousarray(np.vstack([counts, again]).T, dtype=np.float64)
        part = _score(rankings, weight, means)
        parts.append((part[..., :n_draws], part[..., n_draws:]))
    draws, again = np.concatenate(parts, axis=-1)
    n_clusters, freedom = np.transpose([classes.count(of) for of in means])
    inflation = _inflation(draws, again, ~np.concatenate(lacks))
    low, high = logit_interval(value, draws, n_clusters, level, freedom, inflation)
    return GeneratorScores(value, low, high, n_redrawn)


def logit_interval(value, draws, n_clusters, level, freedom=None, inflation=1.0):
    """Return intervals of scores by the spread of the logits of their draws.

    Parameters
    ----------
    value : ndarray of shape (..., n)
        Scores between 0 and 1.

    draws : ndarray of shape (..., n, n_draws)
        The same of each draw.

    n_clusters : ndarray of shape (n,)
        Clusters of the rarer class.

    level : float
        Share of intervals that should hold the truth.

    freedom : ndarray of shape (n,), default=None
        Degrees of freedom of the spread. None stands for one less than `n_clusters`.

    inflation : ndarray of shape (..., n), default=1
        Variance of scores relative to that of draws, which is less at any rate.

    Returns
    -------
    low, high : ndarray of shape (..., n)
        Limits, between 0 and 1.
    """
    tail = (1 - level) / 2
    freedom = n_clusters - 1.0 if freedom is None else freedom
    freedom = np.maximum(freedom, LEAST_FREEDOM)
    # A mean of n draws with replacement has n - 1 nths of the variance.
    t = stdtrit(freedom, 1 - tail) * np.sqrt(np.maximum(inflation, 1 + 1 / freedom))
    is_inside = (value > 0) & (value < 1)
    p = np.where(is_inside, value, 0.5)
    # Draws that are too high show how much too high the score itself may be, on
    # average (each image counts itself in average precision) and at most.
    too_high = np.maximum(draws.mean(axis=-1) - p, 0) / (p * (1 - p))
    up, down = _semideviations(p, draws)
    low, high = expit(logit(p) - too_high - t * up), expit(logit(p) + t * down)
    # A ranking without an error has no spread. m pairs of other clusters would all be
    # in order with a probability of AUC ** m.
    if_perfect = tail ** (1 / np.maximum(n_clusters, 2.0))
    low = np.where(is_inside, low, if_perfect * (value == 1))
    high = np.where(is_inside, high, 1 - if_perfect * (value == 0))
    # One cluster says nothing about others.
    return np.where(n_clusters > 1, low, 0.0), np.where(n_clusters > 1, high, 1.0)


def _inflation(draws, again, is_drawn):
    """Tell how much less draws of draws vary than draws do, as these do than scores.

    `again` holds the scores of one draw from each draw; `is_drawn` tells where it did
    not lack a class.
    """
    if not is_drawn.any():
        return 1.0
    of_again = (again - draws).var(axis=-1, where=is_drawn)
    of_draws = draws.var(axis=-1)
    return np.divide(of_draws, of_again, out=np.ones_like(of_draws), where=of_again > 0)


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
    for side in (deviation, -deviation):
        squares = (np.maximum(side, 0) ** 2).sum(axis=-1)
        n = np.maximum((side > 0).sum(axis=-1), 1)
        sides.append(np.maximum(np.sqrt(squares / n), error))
    return sides


class Rankings:
    """The order that a model puts images in, highest score first, ties and all."""

    def __init__(self, score, rows):
        self.n_generators = len(rows.names)
        self.sets = {}  # generators with the same photographs share their order
        for j, (own, photographs) in enumerate(zip(rows.own, rows.photographs)):
            key = photographs.tobytes()
            if key not in self.sets:
                ranked = photographs[np.argsort(-score[photographs], kind="stable")]
                self.sets[key] = rows.cluster[ranked], -score[ranked], []
            _, others, generators = self.sets[key]
            own = own[np.argsort(-score[own], kind="stable")]
            ends = np.searchsorted(-score[own], -score[own], side="right")  # of ties
            above = np.searchsorted(others, -score[own])  # photographs before it
            level = np.searchsorted(others, -score[own], side="right")  # or tied
            generators.append((j, rows.cluster[own], ends, above, level))

    def score(self, weight):
        """Return AP and AUC, (2, n_generators, n_draws), by weights of the clusters.

        Both are NaN where either class has no weight.
        """
        result = np.empty((2, self.n_generators, weight.shape[1]))
        for photographs, _, generators in self.sets.values():
            errors = _cumulative(weight[photographs])  # (n_photographs + 1, n_draws)
            for j, clusters, ends, above, level in generators:
                own = weight[clusters]  # (n_own, n_draws)
                hits = _cumulative(own)
                n_own = hits[-1]
                hits, wrong = hits[ends], errors[level]
                # Nothing seen means that nothing weighs anything yet.
                precision = hits / np.maximum(hits + wrong, 1)
                precision = np.einsum("ij,ij->j", own, precision)
                wrong += errors[above]
                wrong = np.einsum("ij,ij->j", own, wrong)
                n_pairs = n_own * errors[-1]
                n_pairs[n_pairs == 0] = np.nan
                result[0, j] = precision * errors[-1] / n_pairs
                result[1, j] = 1 - wrong / (2 * n_pairs)
        return result


def _cumulative(weight):
    """Sum up the rows above each position, none above the first."""
    total = np.empty((len(weight) + 1, weight.shape[1]))
    total[0] = 0
    np.cumsum(weight, axis=0, out=total[1:])
    return total


def _score(rankings, weight, means):
    """Return [metric, model, mean, draw], over the generators that a draw holds."""
    scores = np.stack([ranking.score(weight) for ranking in rankings], axis=1)
    # Generators come first, so that sums over some of them are of whole blocks.
    scores = np.ascontiguousarray(np.moveaxis(scores, 2, 0))
    is_held = ~np.isnan(scores)
    result = np.empty((*scores.shape[1:3], len(means), weight.shape[1]))
    for number, of in enumerate(means):
        total = scores[of].sum(axis=0, where=is_held[of])
        result[:, :, number] = total / is_held[of].sum(axis=0)
    return result


class _Classes:
    """What each draw needs one or more of, and which clusters hold how many of it."""

    def __init__(self, rows):
        parts, self.what, index = {}, [], []
        for kind, of in (("image of", rows.own), ("photograph for", rows.photographs)):
            for name, part in zip(rows.names, of):
                # Generators often share their photographs.
                index.append(parts.setdefault(part.tobytes(), (len(parts), part))[0])
                if len(self.what) < len(parts):
                    self.what.append(f"{kind} {name!r}")
        self.index = np.reshape(index, (2, len(rows.names)))
        members = [part for _, part in parts.values()]
        self.sizes = np.array([len(part) for part in members])
        columns = rows.cluster[np.concatenate(members)]
        ends = np.append(0, np.cumsum(self.sizes))
        shape = len(members), len(rows.stratum)
        self.holds = csr_array((np.ones_like(columns), columns, ends), shape)
        self.holds.sum_duplicates()

    def lack(self, counts, means):
        """Tell which draws hold no generator of a mean, (n_means, n_draws)."""
        is_held = self.holds @ counts.T > 0  # (n_needed, n_draws)
        is_held = is_held[self.index].all(axis=0)  # (n_generators, n_draws)
        return ~np.stack([is_held[of].any(axis=0) for of in means])

    def count(self, of):
        """Count what the mean over some generators rests on.

        Returns the clusters of the rarer class, as if all generators had as few as
        the rarest, and Satterthwaite's degrees of freedom if the rows of a cluster
        move together.
        """
        n_clusters, variance = [], 0
        for index in self.index[:, of]:
            weight = np.bincount(index, minlength=len(self.sizes))
            share = weight / self.sizes / len(of) @ self.holds  # (n_clusters,)
            variance = variance + share**2
            fewest = np.diff(self.holds.indptr)[index].min()
            n_clusters += [np.count_nonzero(share), fewest * len(of)]
        return min(n_clusters), variance.sum() ** 2 / (variance**2).sum() - 1


def _draw(stratum, classes, means, n_draws, rng):
    """Return draws, one draw from each of these, and how many lacked a class."""
    counts = _draw_twice(stratum, n_draws, rng)
    n_redrawn = 0
    for _ in range(MAX_ROUNDS):
        lacks = classes.lack(counts[0], means)
        bad = np.flatnonzero(lacks.any(axis=0))
        if not len(bad):
            return *counts, n_redrawn
        n_redrawn += len(bad)
        counts[:, bad] = _draw_twice(stratum, len(bad), rng)
    lacks = (classes.holds @ counts[0].T == 0).sum(axis=1)
    often = [classes.what[j] for j in np.argsort(-lacks, kind="stable")]
    raise ValueError(
        f"Got draws of clusters without {first_few(often, 2)} {MAX_ROUNDS} times over "
        "but expected every class in most draws; test on more images of these, which "
        "now stand in very few clusters of many, or leave them out."
    )


def draw_counts(stratum, n_draws, rng):
    """Draw as many clusters as there are from each stratum, with replacement.

    Takes the stratum of each cluster, and returns how often each draw holds each
    cluster, (n_draws, n_clusters).
    """
    return _draw_twice(stratum, n_draws, rng)[0]


def _draw_twice(stratum, n_draws, rng):
    """Draw clusters, and from each draw again, (2, n_draws, n_clusters)."""
    counts = np.zeros((2, n_draws, len(stratum)), dtype=np.int32)
    for one in np.unique(stratum):
        members = np.flatnonzero(stratum == one)
        shape = n_draws, len(members)
        start = len(members) * np.arange(n_draws)[:, np.newaxis]  # of each draw
        drawn = start + rng.randint(len(members), size=shape)
        again = drawn.ravel()[start + rng.randint(len(members), size=shape)]
        for level, each in enumerate((drawn, again)):
            count = np.bincount(each.ravel(), minlength=each.size)
            counts[level][:, members] = count.reshape(shape)
    return counts
