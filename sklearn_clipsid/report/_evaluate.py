"""Evaluate a detector in domain and out of it, beside baselines, in one call."""

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import clone, is_classifier
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.validation import _num_samples

from sklearn_clipsid._cluster_bootstrap import check_draws
from sklearn_clipsid._finite_rows import check_finite_rows
from sklearn_clipsid._groups import check_length
from sklearn_clipsid._image_sequence import as_images
from sklearn_clipsid._loaded_parts import parts_of
from sklearn_clipsid._model_card import package_versions
from sklearn_clipsid._portable_part import leave_machine_behind
from sklearn_clipsid.model_selection._cross_generator import check_share
from sklearn_clipsid.model_selection._robustness import check_operations
from sklearn_clipsid.report._detection_report import DetectionReport
from sklearn_clipsid.report._file_checks import audit_files, edit_held_out_images
from sklearn_clipsid.report._held_out_scores import (
    Data,
    default_baselines,
    score_settings,
    split_pipeline,
)
from sklearn_clipsid.report._settings import lay_out_settings, read_image_rows
from sklearn_clipsid.report._tables import (
    add_evidence,
    calibration_table,
    failure_table,
    operating_table,
    ranking_tables,
    roc_table,
)

DETECTOR = "detector"


@dataclass
class Options:
    """What all parts of an evaluation share; as of `evaluate`, and a drawn seed."""

    max_fpr: float
    n_boot: int
    level: float
    n_jobs: int | None
    pos_label: Any
    seed: int


def evaluate(
    estimator,
    X,
    y,
    groups,
    *,
    pair_id=None,
    images=None,
    baselines=None,
    max_fpr=0.01,
    n_edited=100,
    operations=None,
    n_boot=1000,
    level=0.95,
    random_state=None,
    n_jobs=None,
    pos_label=1,
):
    """Report how well a detector does, on what it knows and on what it does not.

    The detector is fitted and tested in four settings, always all of them: in domain;
    with the generator held out; with the photo source held out; and with each pair of
    a generator and a photo source held out. Two baselines go through the same. The
    report adds what an honest one needs: prevalence, intervals, each generator by
    itself, calibration, verdicts at a threshold that was chosen without the test
    images, recompressed and scaled images, and what the files give away without a look
    at the picture.

    Parameters
    ----------
    estimator : classifier
        Cloned. It needs `decision_function` or `predict_proba`. Of a pipeline that
        starts with `CLIPEmbedder` or `PrecomputedEmbedder` each image is embedded once.

    X : array-like of shape (n_samples, n_features) or sequence of images
        What the estimator takes: features, or mostly paths.

    y : array-like of shape (n_samples,)
        Binary labels.

    groups : array-like of shape (n_samples,) or (n_samples, 2)
        The generator of each synthetic image and the source of each photograph; in a
        second column, if there is one, the pair ids. At least two generators, and five
        images of each group.

    pair_id : array-like of shape (n_samples,), default=None
        The pair ids, where `groups` has one column: images of one motif share it, and
        are never on both sides of a split.

    images : sequence of images of shape (n_samples,), default=None
        The images of the rows of `X`, mostly as paths, for the leak audit and the
        thumbnails. None takes `X` if that holds images, else the report does without.

    baselines : dict of classifier, default=None
        What to compare with, by name; they take what the estimator takes after its
        encoder. None stands for logistic regression (``C=0.001`` on standardised
        features) and nine nearest neighbours by cosine, both after the steps of a
        pipeline before its last, and for nothing where X holds images that no encoder
        of this package embeds, or is sparse. `{}` is none.

    max_fpr : float, default=0.01
        Share of photographs that may be called synthetic, and of synthetic images that
        may be called real, at the operating point.

    n_edited : int, default=100
        Images for the robustness table, half of them photographs, taken evenly from the
        groups of one in-domain test fold; fewer if it has fewer. Each is embedded once
        for every operation. 0 leaves the table out.

    operations : sequence of str or dict, default=None
        As of `robustness_table`. None compresses, scales, blurs and adds noise, at one
        or two strengths.

    n_boot : int, default=1000
        Number of bootstrap draws.

    level : float, default=0.95
        Confidence level of the intervals, except those of the leak audit.

    random_state : int, RandomState instance or None, default=None
        Deals rows into folds and draws. Pass an int for the same report on each call.

    n_jobs : int, default=None
        Detectors that are fitted at a time.

    pos_label : int, float, bool or str, default=1
        The label of synthetic images.

    Returns
    -------
    report : DetectionReport
        It prints as a summary, and writes HTML, Markdown and a model card.

    See Also
    --------
    sklearn_clipsid.model_selection.LeaveOneGeneratorOut : The splits behind it.
    sklearn_clipsid.model_selection.cross_dataset_validate : Tests on other data sets.
    sklearn_clipsid.model_selection.robustness_table : Tests on edited images.
    sklearn_clipsid.datasets.leak_audit : Finds what files give away.

    Notes
    -----
    **Settings.** In domain, images are dealt into five folds, generator by generator
    and source by source. `LeaveOneGeneratorOut` with random photographs makes the
    second setting, with ``every_real_fold=True`` the fourth. In the third each source
    is tested together with a part of each generator. More than ten sources are put
    together into ten, of similar size. Where there is one source only, or where pairs
    leave nothing to train on, the report has fewer settings and says why.

    A search whose splitter asks for groups, such as
    ``GridSearchCV(..., cv=LeaveOneGeneratorOut())``, gets those of the training images
    if metadata routing is enabled.

    **Ranking.** Each test fold ranks one generator against photographs. The summary is
    the mean over these, by one detector each, with intervals as those of
    `cross_dataset_validate`: an image that stands in several test folds is drawn once
    for all of them. Average precision depends on prevalence, which differs between
    settings: compare settings by ROC AUC.

    **Operating point.** In each trial an `AbstainingClassifier` chooses its thresholds
    by three-fold cross-validation within the training images. The table says what its
    verdicts were worth on the test images.

    **Cllr** takes ``logit(p) - logit(s)`` as logarithm of the likelihood ratio, where p
    is the probability and s the share of synthetic images in training. It is unfair to
    classifiers with class weights. Probabilities of 0 and 1 count as the nearest other
    number, as in :func:`sklearn.metrics.log_loss`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_clipsid.report import evaluate
    >>> rng = np.random.RandomState(0)
    >>> groups = np.repeat(["GAN", "SD", "COCO", "RAISE"], 50)
    >>> y = np.isin(groups, ["GAN", "SD"]).astype(int)
    >>> X = rng.normal(size=(200, 3)) + 2 * y[:, None]
    >>> report = evaluate(
    ...     LogisticRegression(), X, y, groups, max_fpr=0.1, n_boot=100, random_state=0
    ... )
    >>> [row["setting"] for row in report.summary if row["model"] == "detector"]
    ['in-domain', 'unseen generator', 'unseen source', 'both unseen']
    >>> report.to_html("report.html")  # doctest: +SKIP
    """
    _check_options(estimator, max_fpr, n_edited, operations, n_boot, level)
    rng = check_random_state(random_state)
    options = Options(
        float(max_fpr),
        int(n_boot),
        float(level),
        n_jobs,
        pos_label,
        rng.randint(np.iinfo(np.int32).max),
    )
    pipeline = _embed(estimator, X, images)
    data = _read_data(pipeline, y, groups, pair_id, pos_label)
    rows = data.images
    models = {DETECTOR: pipeline.head} | _read_baselines(baselines, pipeline)
    settings, skipped = lay_out_settings(rows, rng)
    on_files = audit_files(pipeline.images, rows, options)
    scores = score_settings(models, data, settings, options)
    on_edits = edit_held_out_images(
        pipeline, data, settings["in-domain"], n_edited, operations, options
    )
    return DetectionReport(
        models=_describe(models | {DETECTOR: estimator}),
        options={
            name: getattr(options, name) for name in ("max_fpr", "level", "n_boot")
        },
        counts={"generators": rows.count(True), "sources": rows.count(False)},
        n_pairs=int(rows.pair.max() + 1),
        settings_skipped=skipped,
        versions=package_versions(),
        encoder=dict(getattr(pipeline.embedder, "fingerprint_", {})),
        images=pipeline.images,
        **_score_tables(settings, scores, rows, options),
        **on_files,
        **on_edits,
    )


def _check_options(estimator, max_fpr, n_edited, operations, n_boot, level):
    if not is_classifier(estimator):
        raise TypeError(
            f"Got {estimator!r:.80} but expected a classifier; pass a detector or a "
            "pipeline that ends with one."
        )
    check_share("max_fpr", max_fpr)
    check_draws(n_boot, level)
    if not isinstance(n_edited, Integral) or isinstance(n_edited, bool) or n_edited < 0:
        raise ValueError(
            f"Got n_edited={n_edited!r} but expected an integer of 0 or more."
        )
    if n_edited == 1:
        raise ValueError(
            "Got n_edited=1 but expected 2 or more, of both classes, or 0 for none."
        )
    check_operations(operations)


@dataclass
class EmbeddedPipeline:
    """A detector taken apart: what it makes of images, and what it does with that."""

    embedder: Any  # None where X is taken as it is
    head: Any
    features: Any
    images: Any
    is_table: bool  # of features, which may be sparse


def _embed(estimator, X, images):
    """Embed each image once if the estimator begins with an encoder of ours."""
    embedder, head = split_pipeline(estimator)
    if embedder is not None:
        images = as_images(X if images is None else images)
        # Of many images this takes longest, so that a bar is shown.
        features = clone(embedder).set_params(**_bar(embedder)).fit_transform(X)
        embedder.fit(X)  # notes its fingerprint
        return EmbeddedPipeline(embedder, head, features, images, is_table=True)
    X, is_table = _read_table(X)
    if not is_table:
        X = as_images(X)
        images = X if images is None else images
    images = None if images is None else as_images(images)
    return EmbeddedPipeline(None, head, X, images, is_table)


def _read_table(X):
    """Return lists of numbers as an array, and whether X is a table of features."""
    if issparse(X) or (hasattr(X, "columns") and X.shape[1] > 1):
        return X, True
    if isinstance(X, (list, tuple)) and len(X):
        # Rows of numbers; images have two or three dimensions, paths have none.
        is_row = isinstance(X[0], (list, tuple, np.ndarray)) and np.ndim(X[0]) == 1
        X = np.asarray(X) if is_row else X
    if isinstance(X, np.ndarray) and X.dtype.kind in "fib" and X.ndim != 2:
        raise ValueError(
            f"Got X of shape {X.shape} and type {X.dtype} but expected features of "
            "shape (n_samples, n_features), or images."
        )
    is_table = isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind in "fiub"
    return X, is_table


def _bar(embedder):
    """Return the parameter that shows progress, where the embedder has one."""
    return {"verbose": True} if "verbose" in embedder.get_params() else {}


def _read_baselines(baselines, pipeline):
    if baselines is None:
        # Those of dense features alone; they center them.
        is_dense = pipeline.is_table and not issparse(pipeline.features)
        return default_baselines(pipeline.head) if is_dense else {}
    if not isinstance(baselines, dict):
        raise TypeError(
            f"Got baselines of type {type(baselines).__name__} but expected a dict of "
            "classifiers by name, {} for none."
        )
    for name, baseline in baselines.items():
        is_model = hasattr(baseline, "fit") and is_classifier(baseline)
        if name == DETECTOR or not is_model:
            raise ValueError(
                f"Got the baseline {name!r}: {baseline!r:.80} but expected a "
                f"classifier under a name other than {DETECTOR!r}."
            )
    return baselines


def _read_data(pipeline, y, groups, pair_id, pos_label):
    X = pipeline.features
    if isinstance(X, np.ndarray) and X.ndim == 2:
        check_finite_rows(X, pipeline.head)
    rows = read_image_rows(y, groups, pair_id, _num_samples(X), pos_label)
    if pipeline.images is not None:
        check_length(pipeline.images, _num_samples(X), "images")
    return Data(X, column_or_1d(y), rows)


def _describe(models):
    """Write models down, without the folders of this machine."""
    texts = {}
    for name, model in models.items():
        portable = clone(model)
        for part in list(parts_of(portable)):
            leave_machine_behind(part)
        with np.printoptions(threshold=1, edgeitems=1):
            texts[name] = repr(portable)
    return texts


def _score_tables(settings, scores, rows, options):
    of_detector = {name: of_model[DETECTOR] for name, of_model in scores.items()}
    summary, generators, sources, pairs = ranking_tables(settings, scores, options)
    add_evidence(summary, settings, scores)
    last = list(settings)[-1]
    return {
        "summary": summary,
        "generators": generators,
        "sources": sources,
        "pairs": pairs,
        "operating_point": operating_table(settings, of_detector, options.level),
        "calibration": calibration_table(settings, of_detector),
        "roc": roc_table(settings, of_detector),
        "failures": failure_table(last, settings[last], of_detector[last], rows),
    }
