"""Fit detectors as a setting says, and score the images that each was not fitted to."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn import get_config
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import _safe_indexing
from sklearn.utils._response import _get_response_values_binary
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.parallel import Parallel, delayed

from sklearn_clipsid._abstaining import AbstainingClassifier
from sklearn_clipsid._clip_embedder import CLIPEmbedder
from sklearn_clipsid._first_few import first_few
from sklearn_clipsid._precomputed_embedder import PrecomputedEmbedder
from sklearn_clipsid._progress import slow_bar
from sklearn_clipsid.report._settings import ImageRows, deal_folds

INNER_FOLDS = 3


@dataclass
class Data:
    """Features or images of all rows, their labels, and what else is known of them."""

    X: Any
    y: np.ndarray
    images: ImageRows


@dataclass
class Scores:
    """What one model says of the tested rows of a setting.

    Parameters
    ----------
    score : ndarray of shape (n_tested,)
        Decision function, or probability where there is none.

    probability : ndarray of shape (n_tested,) or None
        Of being synthetic.

    verdict : ndarray of shape (n_tested,) or None
        1 for synthetic, -1 for real and 0 for undecided, at the operating point.
    """

    score: np.ndarray
    probability: np.ndarray | None
    verdict: np.ndarray | None


def split_pipeline(estimator):
    """Take the encoder off a pipeline, so that each image is embedded once.

    Parameters
    ----------
    estimator : classifier
        Pipeline or not.

    Returns
    -------
    embedder : transformer or None
        A copy of the first step, if it is one of this package's.

    head : classifier
        All other steps.
    """
    if isinstance(estimator, Pipeline):
        first = estimator.steps[0][1]
        if isinstance(first, (CLIPEmbedder, PrecomputedEmbedder)):
            return clone(first), Pipeline(estimator.steps[1:])
    return None, estimator


def default_baselines(head):
    """Return what a new detector has to beat on the same features.

    Parameters
    ----------
    head : classifier
        The detector, whose steps before the last are kept.

    Returns
    -------
    baselines : dict of classifier
        By name.
    """
    steps = head.steps[:-1] if isinstance(head, Pipeline) else []
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.001, max_iter=1000))
    neighbours = KNeighborsClassifier(9, weights="distance", metric="cosine")
    return {
        "logistic regression": Pipeline([*steps, ("probe", probe)]),
        "cosine kNN": Pipeline([*steps, ("neighbours", neighbours)]),
    }


def score_settings(models, data, settings, options):
    """Fit every model in every trial of every setting.

    Parameters
    ----------
    models : dict of classifier
        The detector first, then the baselines.

    data : Data
        All rows.

    settings : dict of Setting
        What to train and test on.

    options : Options
        Of `evaluate`.

    Returns
    -------
    scores : dict of dict of Scores
        By setting and model.
    """
    detector = next(iter(models))
    rng = np.random.RandomState(options.seed)
    tasks, keys = [], []
    for name, setting in settings.items():
        for number, (train, test) in enumerate(setting.splits):
            inner = inner_splits(data.images, train, rng)
            for model, estimator in models.items():
                folds = inner if model == detector else None
                tasks.append((estimator, data, train, test, folds, options))
                keys.append((name, model, number))
    parts = dict(zip(keys, _run(tasks, options.n_jobs)))
    return {
        name: {
            model: _joined([parts[name, model, n] for n in range(len(setting.splits))])
            for model in models
        }
        for name, setting in settings.items()
    }


def inner_splits(images, train, random_state):
    """Deal training rows into folds, on which the operating point is chosen.

    Parameters
    ----------
    images : ImageRows
        All images.

    train : ndarray of int
        Rows to deal.

    random_state : RandomState
        Deals them.

    Returns
    -------
    splits : list of (train, test)
        Places among the training rows.
    """
    fold = deal_folds(
        images.kind[train], images.cluster[train], INNER_FOLDS, random_state
    )
    return [
        (np.flatnonzero(fold != number), np.flatnonzero(fold == number))
        for number in range(INNER_FOLDS)
    ]


def _run(tasks, n_jobs):
    """Return the results in order, with a bar once they take long."""
    results = Parallel(n_jobs=n_jobs, return_as="generator")(
        delayed(fit_and_score)(*task) for task in tasks
    )
    return list(slow_bar(results, "fitting detectors", len(tasks), unit="fit"))


def fit_and_score(estimator, data, train, test, inner, options):
    """Fit one detector and score its test rows.

    Parameters
    ----------
    estimator : classifier
        Cloned.

    data : Data
        All rows.

    train, test : ndarray of int
        Rows.

    inner : list of (train, test) or None
        Folds of the training rows for the operating point, None for no verdicts.

    options : Options
        Of `evaluate`.

    Returns
    -------
    scores : Scores
        Of the test rows.
    """
    model = fit_detector(estimator, data, train, inner, options)
    X = _safe_indexing(data.X, test)
    score, _ = _get_response_values_binary(
        model, X, ["decision_function", "predict_proba"], pos_label=options.pos_label
    )
    if not np.isfinite(score).all():
        rows = [str(row) for row in test[~np.isfinite(score)]]
        raise ValueError(
            f"Got scores of {type(estimator).__name__} that are NaN or infinite for "
            f"row(s) {first_few(rows)} but expected finite ones; look at the features "
            "of these rows."
        )
    fitted = model.estimator_ if inner is not None else model
    probability = verdict = None
    if hasattr(fitted, "predict_proba"):
        column = list(model.classes_).index(options.pos_label)
        probability = model.predict_proba(X)[:, column]
    if inner is not None:
        low, high = model.thresholds_
        verdict = (score > high).astype(int) - (score < low)
    return Scores(score, probability, verdict)


def fit_detector(estimator, data, train, inner, options):
    """Fit a detector, and choose its operating point where inner folds are given.

    Parameters
    ----------
    estimator, data, train, inner, options
        As of `fit_and_score`.

    Returns
    -------
    model : classifier
        Fitted.
    """
    model = clone(estimator)
    if inner is not None:
        model = AbstainingClassifier(
            model, max_fpr=options.max_fpr, cv=inner, pos_label=options.pos_label
        )
    with warnings.catch_warnings():
        # Of each trial again; the report says it once.
        warnings.filterwarnings("ignore", r"Got \d+ held-out .* to promise")
        return model.fit(
            _safe_indexing(data.X, train),
            data.y[train],
            **_metadata(model, data.images, train),
        )


def _metadata(model, images, train):
    """Return groups and pairs if the model asks for them, as a search does for its cv.

    Only with metadata routing can it ask.
    """
    if not get_config()["enable_metadata_routing"]:
        return {}
    known = {"groups": images.group_name, "pair_id": images.pair_id}
    wanted = get_routing_for_object(model).consumes("fit", known)
    return {name: known[name][train] for name in wanted}


def _joined(parts):
    """Put the results of the trials of one setting one after another."""
    columns = zip(*[(p.score, p.probability, p.verdict) for p in parts])
    return Scores(*[None if c[0] is None else np.concatenate(c) for c in columns])
