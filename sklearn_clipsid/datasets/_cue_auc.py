"""Rank images by each cue with classifiers that did not see them, and bound the AUC."""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.utils.parallel import Parallel, delayed
from threadpoolctl import threadpool_limits

from sklearn_clipsid._cluster_bootstrap import (
    draw_counts,
)
from sklearn_clipsid._generator_rows import (
    strata_of_clusters,
)
from sklearn_clipsid._progress import slow_bar
from sklearn_clipsid.datasets._file_cues import Cue

LEVEL = 0.95
BLOCK = 2**22  # numbers of clusters that are held at a time, 16 MB
TOGETHER = "all together"


def cross_validate(
    cues: dict[str, Cue],
    positive: np.ndarray,
    fold: np.ndarray,
    random_state: np.random.RandomState,
    n_jobs: int | None,
) -> dict[str, np.ndarray]:
    """Score each image by each cue, with classifiers that were not fitted to it.

    Parameters
    ----------
    cues : dict of dict of ndarray of shape (n_images,)
        What is known of the images, by the name of the cue: columns that differ.

    positive : ndarray of shape (n_images,), dtype=bool
        Which images are synthetic.

    fold : ndarray of shape (n_images,), dtype=int
        The test fold of each image.

    random_state : RandomState instance
        Seed of the classifiers.

    n_jobs : int or None
        Number of processes.

    Returns
    -------
    scores : dict of ndarray of shape (n_images,)
        By cue, and for all of them together. A cue that is the same in all files has
        none.
    """
    columns = {name: list(cue.values()) for name, cue in cues.items()}
    columns[TOGETHER] = [column for own in columns.values() for column in own]
    told = {name: np.column_stack(own) for name, own in columns.items() if own}
    seed = random_state.randint(np.iinfo(np.int32).max)
    scores = Parallel(n_jobs=n_jobs, return_as="generator")(
        delayed(_out_of_fold_scores)(X, positive, fold, seed) for X in told.values()
    )
    bar = slow_bar(scores, "fitting to cues", len(told), unit="cue")
    return dict(zip(told, list(bar)))


def _out_of_fold_scores(
    X: np.ndarray, positive: np.ndarray, fold: np.ndarray, seed: int
) -> np.ndarray:
    model = HistGradientBoostingClassifier(
        max_iter=50,
        max_leaf_nodes=15,
        min_samples_leaf=5,
        early_stopping=False,
        random_state=seed,
    )
    cv = PredefinedSplit(fold)
    # On so little work several threads wait for each other.
    with threadpool_limits(1, "openmp"):
        scores = cross_val_predict(model, X, positive, cv=cv, method="predict_proba")
    return scores[:, 1]


class _Ranking:
    """Scores that are compared within a fold, as each has a classifier of its own."""

    def __init__(self, score: np.ndarray, positive: np.ndarray, fold: np.ndarray):
        levels, place = np.unique(
            np.column_stack([fold, score]), axis=0, return_inverse=True
        )
        self.fold_of_level = levels[:, 0].astype(np.intp)  # (n_levels,)
        self.place = place.reshape(-1)  # (n_images,)
        self.positive = positive

    def auc(self, weight: np.ndarray) -> float:
        """Return the share of pairs in the right order, NaN if there is none."""
        n_levels = len(self.fold_of_level)
        synthetic, photos = (
            np.bincount(self.place, weight * rows, minlength=n_levels)
            for rows in (self.positive, ~self.positive)
        )
        photos_of_fold = np.bincount(self.fold_of_level, photos)
        earlier_folds = np.cumsum(photos_of_fold) - photos_of_fold
        # Photographs of the same fold below each level; those at it count half.
        below = np.cumsum(photos) - photos / 2 - earlier_folds[self.fold_of_level]
        n_pairs = synthetic @ photos_of_fold[self.fold_of_level]
        return float(synthetic @ below / n_pairs) if n_pairs else np.nan


def bootstrap_aucs(
    scores: dict[str, np.ndarray],
    positive: np.ndarray,
    fold: np.ndarray,
    cluster: np.ndarray,
    n_boot: int,
    random_state: np.random.RandomState,
) -> dict[str, tuple[float, float, float]]:
    """Return the AUC of each score, and the bounds of its interval.

    Parameters
    ----------
    scores : dict of ndarray of shape (n_images,)
        From `cross_validate`.

    positive : ndarray of shape (n_images,), dtype=bool
        Which images are synthetic.

    fold : ndarray of shape (n_images,), dtype=int
        The test fold of each image.

    cluster : ndarray of shape (n_images,), dtype=int
        The group of each image, from 0. Groups are drawn.

    n_boot : int
        Number of draws.

    random_state : RandomState instance
        Source of the draws.

    Returns
    -------
    aucs : dict of tuple of float
        AUC, lower and upper bound.
    """
    if not scores:
        return {}
    rankings = [_Ranking(score, positive, fold) for score in scores.values()]
    every = np.ones(len(positive))
    aucs = np.array([ranking.auc(every) for ranking in rankings])  # (n_scores,)
    draws = _draw_aucs(rankings, positive, cluster, n_boot, random_state)
    # Not `logit_interval`: with few groups it is so wide that it hides real leaks, and
    # noise hardly ever leaks by percentiles either, as 0.6 is far from chance. These
    # shrink to nothing where the ranking is perfect, but so would that of noise be for
    # m groups of a class with a probability of AUC ** m.
    n_groups = min(len(np.unique(cluster[own])) for own in (positive, ~positive))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=1)
    low = np.minimum(low, tail ** (1 / n_groups))
    return dict(zip(scores, zip(aucs.tolist(), low.tolist(), high.tolist())))


def _draw_aucs(
    rankings: list[_Ranking],
    positive: np.ndarray,
    cluster: np.ndarray,
    n_boot: int,
    random_state: np.random.RandomState,
) -> np.ndarray:
    """Return the AUCs of draws, of shape (n_scores, n_draws)."""
    # Not `bootstrap_generators`, with folds for generators: it wants every fold to
    # hold both classes in every draw, which hardly ever happens where groups are few.
    stratum = strata_of_clusters(cluster, positive.astype(np.intp))
    block = max(1, BLOCK // len(stratum))
    draws = []
    with slow_bar(None, "bootstrap", n_boot, unit="draw") as bar:
        for start in range(0, n_boot, block):
            n_draws = min(block, n_boot - start)
            for counts in draw_counts(stratum, n_draws, random_state):
                weight = counts[cluster]  # (n_images,)
                draws.append([ranking.auc(weight) for ranking in rankings])
                bar.update()
    aucs = np.array(draws).T
    # Draws whose classes are in different folds rank nothing, at most one in seven.
    return aucs[:, np.isfinite(aucs[0])]
