"""Fit detectors as a setting says, and score the images that each was not fitted to."""

import warnings
from dataclasses import dataclass

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import _safe_indexing
from sklearn.utils._response import _get_response_values_binary

from sklearn_clipsid._abstaining import AbstainingClassifier
from sklearn_clipsid._clip_embedder import CLIPEmbedder
from sklearn_clipsid._groups import list_rows
from sklearn_clipsid._precomputed_embedder import PrecomputedEmbedder
from sklearn_clipsid._progress import slow_bar
from sklearn_clipsid.report._settings import deal_folds

INNER_FOLDS = 3


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
        The first step, if it is one of this package's.

    head : classifier
        All other steps.
    """
    if isinstance(estimator, Pipeline):
        first = estimator.steps[0][1]
        if isinstance(first, (CLIPEmbedder, PrecomputedEmbedder)):
            return first, Pipeline(estimator.steps[1:])
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


def score_settings(models, X, y, images, settings, options):
    """Fit every model in every trial of every setting.

    Parameters
    ----------
    models : dict of classifier
        The detector first, then the baselines.

    X : ndarray or sequence
        Features, or images.

    y : ndarray of shape (n_samples,)
        Labels.

    images : ImageRows
        What is known of each image.

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
            inner = inner_splits(images, train, rng)
            for model, estimator in models.items():
                folds = inner if model == detector else None
                tasks.append((estimator, X, y, train, test, folds, options))
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


def fit_and_score(estimator, X, y, train, test, inner, options):
    """Fit one detector and score its test rows.

    Parameters
    ----------
    estimator : classifier
        Cloned.

    X, y
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
    model = fit_detector(estimator, X, y, train, inner, options)
    X_test = _safe_indexing(X, test)
    score = _response(model, X_test, test, options.pos_label)
    fitted = model.estimator_ if inner is not None else model
    probability = verdict = None
    if hasattr(fitted, "predict_proba"):
        column = list(model.classes_).index(options.pos_label)
        probability = model.predict_proba(X_test)[:, column]
    if inner is not None:
        low, high = model.thresholds_
        verdict = (score > high).astype(int) - (score < low)
    return Scores(score, probability, verdict)


def fit_detector(estimator, X, y, train, inner, options):
    """Fit a detector, and choose its operating point where inner folds are given.

    Parameters
    ----------
    estimator, X, y, train, inner, options
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
        return model.fit(_safe_indexing(X, train), y[train])


def _response(model, X, rows, pos_label):
    score, _ = _get_response_values_binary(
        model, X, ["decision_function", "predict_proba"], pos_label=pos_label
    )
    if not np.isfinite(score).all():
        raise ValueError(
            f"Got scores that are NaN or infinite for {list_rows(~np.isfinite(score))} "
            f"of the {len(rows)} test rows {rows[:3].tolist()}, ... but expected "
            "finite ones; look at the features of these rows."
        )
    return score


def _joined(parts):
    """Put the results of the trials of one setting one after another."""
    columns = zip(*[(p.score, p.probability, p.verdict) for p in parts])
    return Scores(*[None if c[0] is None else np.concatenate(c) for c in columns])
