"""Turn held-out scores into the tables of a report."""

import numpy as np
from scipy.special import logit
from sklearn.metrics import roc_auc_score

from sklearn_clipsid._cluster_bootstrap import bootstrap_generators
from sklearn_clipsid.metrics import (
    log_likelihood_ratio_cost,
    minimum_log_likelihood_ratio_cost,
    wilson_interval,
)

N_BINS = 10
LEAST_IMAGES = 20  # in a bin
FPR_GRID = np.geomspace(0.001, 1, 61)
ROUNDING = 1e-9
N_FAILURES = 12


def ranking_tables(settings, scores, options):
    """Compute average precision and AUC, with intervals from one set of draws.

    Parameters
    ----------
    settings : dict of Setting
        What was tested.

    scores : dict of dict of Scores
        By setting and model.

    options : Options
        Of `evaluate`.

    Returns
    -------
    summary, generators, sources, pairs : list of dict
        Means over all cells for each setting and model; and of the detector alone the
        means for each generator, for each photo source, and the single cells.
    """
    summary, generators, sources, pairs = [], [], [], []
    for name, setting in settings.items():
        rows = setting.as_generator_rows()
        means = _means(setting)
        result = bootstrap_generators(
            rows,
            np.stack([of_model.score for of_model in scores[name].values()]),
            n_boot=options.n_boot,
            level=options.level,
            random_state=options.seed,
            means=[of for _, _, of in means],
        )
        prevalence = rows.prevalence
        for number, (what, called, of) in enumerate(means):
            ranked = _ranking_columns(result, number, prevalence[of])
            if what == "all":
                for i, model in enumerate(scores[name]):
                    summary.append({"setting": name, "model": model} | ranked[i])
            else:
                table = generators if what == "generator" else sources
                row = {what: called, "setting": name}
                row["n_images"] = _n_images(setting, what, of)
                table.append(row | ranked[0])
        if setting.cells[0].source is not None:
            detector = next(iter(scores[name].values()))
            for cell, part in zip(setting.cells, _cells(setting, detector.score)):
                pair = {"setting": name}
                pair |= {"generator": cell.generator, "source": cell.source}
                pair |= {"n_synthetic": len(cell.own), "n_real": len(cell.photographs)}
                pairs.append(pair | {"auc": float(roc_auc_score(*part))})
    return summary, generators, sources, pairs


def _means(setting):
    """Return what each mean is over: (kind, name, places of its cells)."""
    means = [("all", "", np.arange(len(setting.cells)))]
    for what in ("generator", "source"):
        names = [getattr(cell, what) for cell in setting.cells]
        for name in sorted({name for name in names if name is not None}):
            of = np.array([j for j, other in enumerate(names) if other == name])
            means.append((what, name, of))
    return means


def _n_images(setting, what, of):
    """Count the different images of a generator, or of a photo source, in its cells."""
    cells = [setting.cells[j] for j in of]
    places = [c.own if what == "generator" else c.photographs for c in cells]
    return len(np.unique(setting.row[np.concatenate(places)]))


def _ranking_columns(result, number, prevalence):
    """Return the columns of a row for each model."""
    columns = []
    for model in range(result.value.shape[1]):
        row = {}
        for metric, name in enumerate(("ap", "auc")):
            for column, part in (
                (name, result.value),
                (f"{name}_low", result.low),
                (f"{name}_high", result.high),
            ):
                row[column] = float(part[metric, model, number])
        row["prevalence"] = float(prevalence.mean())
        row["prevalence_low"] = float(prevalence.min())
        row["prevalence_high"] = float(prevalence.max())
        columns.append(row)
    return columns


def add_evidence(summary, settings, scores):
    """Add to the summary what needs more than a ranking.

    Parameters
    ----------
    summary : list of dict
        Changed in place: gets Cllr with its minimum, None where a model has no
        probabilities.

    settings, scores
        As of `ranking_tables`.
    """
    for row in summary:
        setting = settings[row["setting"]]
        p = scores[row["setting"]][row["model"]].probability
        weight = setting.balanced_weight()
        row["cllr"] = row["min_cllr"] = None
        if p is not None:
            # As in sklearn.metrics.log_loss: a rounded probability is no certainty.
            margin = np.finfo(p.dtype).eps
            ratio = logit(np.clip(p, margin, 1 - margin)) - logit(setting.prior)
            row["cllr"] = log_likelihood_ratio_cost(
                setting.positive, ratio, sample_weight=weight
            )
            row["min_cllr"] = minimum_log_likelihood_ratio_cost(
                setting.positive, ratio, sample_weight=weight
            )


def _cells(setting, score):
    """Yield labels and scores of each cell."""
    for cell in setting.cells:
        rows = np.concatenate([cell.own, cell.photographs])
        yield setting.positive[rows], score[rows]


def operating_table(settings, scores, level):
    """Tell what the verdicts were worth.

    Parameters
    ----------
    settings : dict of Setting
        What was tested.

    scores : dict of Scores
        Of the detector, by setting.

    level : float
        Of the intervals.

    Returns
    -------
    table : list of dict
        Of each setting the fewest images of each class that a detector was trained on,
        and the shares of wrong, right and withheld verdicts. Images that
        several detectors judged count with their mean, and the Wilson intervals with
        the number of images.
    """
    table = []
    for name, setting in settings.items():
        verdict = scores[name].verdict
        row = {"setting": name}
        fewest = setting.n_trained.min(axis=0).tolist()
        row["n_real_trained"], row["n_synthetic_trained"] = fewest
        for column, positive, wanted in (
            ("fpr", False, 1),
            ("real_undecided", False, 0),
            ("tpr", True, 1),
            ("fnr", True, -1),
            ("synthetic_undecided", True, 0),
        ):
            tested = setting.positive == positive
            place = np.unique(setting.row[tested], return_inverse=True)[1]
            of_image = np.bincount(place, verdict[tested] == wanted)
            rate = float((of_image / np.bincount(place)).mean())
            n_images = len(of_image)
            n_events = round(rate * n_images)
            low, high = wilson_interval(n_events, n_images, level=level)
            row |= {column: rate, f"{column}_low": low, f"{column}_high": high}
            row["n_synthetic" if positive else "n_real"] = n_images
        table.append(row)
    return table


def calibration_table(settings, scores):
    """Compare probabilities with what came true, at the prevalence of training.

    Parameters
    ----------
    settings : dict of Setting
        What was tested.

    scores : dict of Scores
        Of the detector, by setting.

    Returns
    -------
    table : list of dict
        Up to ten parts of each setting by rising probability, with the mean probability
        and the share of synthetic images; empty where there are no probabilities.
    """
    table = []
    for name, setting in settings.items():
        p = scores[name].probability
        if p is None:
            return []
        # Tests have another share of synthetic images than the training of a detector.
        prior = np.where(setting.positive, setting.prior, 1 - setting.prior)
        weight = setting.balanced_weight() * prior
        # Images of equal probability stay together.
        place = np.unique(p, return_inverse=True)[1]
        mass = np.bincount(place, weight)
        middle = (np.cumsum(mass) - mass / 2) / mass.sum()
        n_images = len(np.unique(setting.row))
        n_bins = int(np.clip(n_images // LEAST_IMAGES, 2, N_BINS))
        part = np.minimum(middle * n_bins, n_bins - 1).astype(int)[place]
        for number in np.unique(part):
            rows = part == number
            share = np.average(setting.positive[rows], weights=weight[rows])
            mean = np.average(p[rows], weights=weight[rows])
            row = {"setting": name, "probability": float(mean)}
            row |= {"synthetic": float(share), "weight": float(weight[rows].sum())}
            table.append(row)
    return table


def roc_table(settings, scores):
    """Average ROC curves over cells, at given false positive rates.

    Parameters
    ----------
    settings : dict of Setting
        What was tested.

    scores : dict of Scores
        Of the detector, by setting.

    Returns
    -------
    table : list of dict
        Of each setting and false positive rate the mean true positive rate.
    """
    table = []
    for name, setting in settings.items():
        # Below one photograph in all, a rate is not what it is called.
        fewest = min(len(cell.photographs) for cell in setting.cells)
        grid = FPR_GRID[FPR_GRID * fewest >= 1 - ROUNDING]
        curves = []
        for cell in setting.cells:
            real = np.sort(scores[name].score[cell.photographs])[::-1]
            own = scores[name].score[cell.own]
            # As many photographs may lie above the limit, the next one is on it.
            n_above = np.floor(grid * len(real) + ROUNDING).astype(int)
            limit = np.append(real, -np.inf)[n_above]
            curves.append((own[:, np.newaxis] > limit).mean(axis=0))
        for fpr, tpr in zip(grid, np.mean(curves, axis=0)):
            table.append({"setting": name, "fpr": float(fpr), "tpr": float(tpr)})
    return table


def failure_table(name, setting, of_detector, images):
    """Find the images that were judged wrong most often.

    Parameters
    ----------
    name : str
        The setting.

    setting : Setting
        What was tested.

    of_detector : Scores
        Of the detector in this setting.

    images : ImageRows
        All images.

    Returns
    -------
    table : list of dict
        False alarms first, then misses, the worst of each first: the row of the image,
        its group, its mean score, and the share of wrong verdicts among its tests.
    """
    n_images = len(images.positive)
    n_tests = np.bincount(setting.row, minlength=n_images)
    wrong = of_detector.verdict == np.where(setting.positive, -1, 1)
    n_wrong = np.bincount(setting.row, weights=wrong, minlength=n_images)
    total = np.bincount(setting.row, weights=of_detector.score, minlength=n_images)
    mean = total / np.maximum(n_tests, 1)
    table = []
    for kind, rows, worst_first in (
        ("false alarm", ~images.positive, -mean),
        ("miss", images.positive, mean),
    ):
        candidates = np.flatnonzero(rows & (n_wrong > 0))
        share = n_wrong[candidates] / n_tests[candidates]
        order = np.lexsort((worst_first[candidates], -share))
        for row in candidates[order][:N_FAILURES]:
            table.append(
                {
                    "kind": kind,
                    "setting": name,
                    "row": int(row),
                    "group": images.names[images.group[row]],
                    "score": float(mean[row]),
                    "wrong": float(n_wrong[row] / n_tests[row]),
                }
            )
    return table
