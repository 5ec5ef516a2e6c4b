"""Edit held-out images, and look at their files, where there are any."""

import os

import numpy as np
from sklearn.pipeline import Pipeline

from sklearn_clipsid._clip_embedder import CLIPEmbedder
from sklearn_clipsid.datasets import leak_audit
from sklearn_clipsid.datasets._leak_audit import MIN_IMAGES
from sklearn_clipsid.model_selection import robustness_table
from sklearn_clipsid.report._held_out_scores import fit_detector, inner_splits

OPERATIONS = {
    "jpeg": (75, 40),
    "webp": (75,),
    "resize": (0.5,),
    "blur": (1,),
    "noise": (5,),
    "screenshot": (75,),
}


def audit_files(images, rows, options):
    """Run `leak_audit`, or say why not.

    Parameters
    ----------
    images : sequence of images or None
        The images.

    rows : ImageRows
        What is known of each.

    options : Options
        Of `evaluate`.

    Returns
    -------
    columns : dict
        "leaks", the cues as a list of dict or None; "n_near_duplicates"; and
        "leaks_skipped", the reason.
    """
    reason = None
    if images is None:
        reason = "The evaluation was given features, no files."
    elif not all(isinstance(image, (str, os.PathLike)) for image in images):
        reason = "Images were given as pixels, not as files."
    elif np.bincount(rows.positive, minlength=2).min() < MIN_IMAGES:
        reason = f"It needs {MIN_IMAGES} photographs and as many synthetic images."
    if reason is not None:
        return {"leaks": None, "n_near_duplicates": None, "leaks_skipped": reason}
    report = leak_audit(
        images,
        rows.positive,
        rows.pair_id,
        n_boot=options.n_boot,
        random_state=options.seed,
        n_jobs=options.n_jobs,
        pos_label=True,
    )
    leaks = [dict(zip(report.table.dtype.names, row.tolist())) for row in report.table]
    n_near_duplicates = len(report.near_duplicates)
    return {
        "leaks": leaks,
        "n_near_duplicates": n_near_duplicates,
        "leaks_skipped": None,
    }


def edit_held_out_images(pipeline, data, setting, n_edited, operations, options):
    """Run `robustness_table` on one in-domain test fold, or say why not.

    Parameters
    ----------
    pipeline : EmbeddedPipeline
        The embedder, what it takes, and the head.

    data : Data
        Features of all rows.

    setting : Setting
        In domain.

    n_edited, operations, options
        As of `evaluate`.

    Returns
    -------
    columns : dict
        "robustness", the rows as a list of dict or None; "robustness_skipped", the
        reason.
    """
    embedder, images = pipeline.embedder, pipeline.images
    reason = None
    if n_edited == 0:
        reason = "It was left out (n_edited=0)."
    elif not isinstance(embedder, CLIPEmbedder):
        reason = (
            "It needs a pipeline that starts with CLIPEmbedder, as edited images have "
            "to be embedded anew."
        )
    if reason is not None:
        return {"robustness": None, "robustness_skipped": reason}
    train, test = setting.splits[0]
    inner = inner_splits(data.images, train, np.random.RandomState(options.seed))
    model = fit_detector(pipeline.head, data, train, inner, options)
    shown = _both_classes(test, data.images, n_edited)
    result = robustness_table(
        Pipeline([("embedder", embedder), ("detector", model)]),
        [images[row] for row in shown],
        data.y[shown],
        OPERATIONS if operations is None else operations,
        threshold=float(model.thresholds_[1]),
        apply_exif=embedder.apply_exif,
        pos_label=options.pos_label,
        random_state=options.seed,
        n_jobs=options.n_jobs,
    )
    table = [dict(zip(result.table.dtype.names, row.tolist())) for row in result.table]
    return {"robustness": table, "robustness_skipped": None}


def _both_classes(rows, images, n_wanted):
    """Choose rows, half of them photographs, evenly from their groups."""
    chosen = []
    for positive, n in ((False, n_wanted // 2), (True, n_wanted - n_wanted // 2)):
        own = rows[images.positive[rows] == positive]
        chosen.append(evenly(own, images.kind[own], n))
    return np.sort(np.concatenate(chosen))


def evenly(rows, kind, n_wanted):
    """Choose rows, as many of each kind as there are, until there are enough.

    Parameters
    ----------
    rows : ndarray of int
        To choose from.

    kind : ndarray of shape (n_rows,)
        Generator or photo source.

    n_wanted : int
        How many rows.

    Returns
    -------
    chosen : ndarray of int
        In rising order.
    """
    turn = np.empty(len(rows), dtype=int)
    for one in np.unique(kind):
        turn[kind == one] = np.arange((kind == one).sum())
    return np.sort(rows[np.argsort(turn, kind="stable")[:n_wanted]])
