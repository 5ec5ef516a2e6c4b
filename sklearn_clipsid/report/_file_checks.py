"""Edit held-out images, and look at their files, where there are any."""

import os

import numpy as np
from sklearn.pipeline import Pipeline

from sklearn_clipsid._clip_embedder import CLIPEmbedder
from sklearn_clipsid.datasets import leak_audit
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
    columns = {"leaks": None, "n_near_duplicates": None, "leaks_skipped": None}
    if images is None:
        return columns | {
            "leaks_skipped": "The evaluation was given features, no files."
        }
    if not all(isinstance(image, (str, os.PathLike)) for image in images):
        return columns | {"leaks_skipped": "Images were given as pixels, not as files."}
    report = leak_audit(
        images,
        rows.positive,
        np.where(rows.pair < 0, None, rows.pair.astype(object)),
        n_boot=options.n_boot,
        random_state=options.seed,
        n_jobs=options.n_jobs,
        pos_label=True,
    )
    leaks = [dict(zip(report.table.dtype.names, row.tolist())) for row in report.table]
    return columns | {"leaks": leaks, "n_near_duplicates": len(report.near_duplicates)}


def edit_held_out_images(
    embedder, head, images, X, y, rows, setting, n_edited, operations, options
):
    """Run `robustness_table` on one in-domain test fold, or say why not.

    Parameters
    ----------
    embedder : transformer or None
        Fitted first step of the pipeline.

    head : classifier
        The other steps.

    images : sequence of images or None
        What the embedder takes.

    X, y
        Features and labels.

    rows : ImageRows
        What is known of each image.

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
    inner = inner_splits(rows, train, np.random.RandomState(options.seed))
    model = fit_detector(head, X, y, train, inner, options)
    shown = evenly(test, rows.kind[test], n_edited)
    result = robustness_table(
        Pipeline([("embedder", embedder), ("detector", model)]),
        [images[row] for row in shown],
        y[shown],
        OPERATIONS if operations is None else operations,
        threshold=float(model.thresholds_[1]),
        apply_exif=embedder.apply_exif,
        pos_label=options.pos_label,
        random_state=options.seed,
        n_jobs=options.n_jobs,
    )
    table = [dict(zip(result.table.dtype.names, row.tolist())) for row in result.table]
    return {"robustness": table, "robustness_skipped": None}


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
