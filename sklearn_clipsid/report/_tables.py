"""Turn held-out scores into the tables of a report."""

import numpy as np
from scipy.special import logit
from sklearn.metrics import roc_auc_score

from sklearn_clipsid._cluster_bootstrap import bootstrap_generators
from sklearn_clipsid.metrics import (
    log_likelihood_ratio_cost,
    minimum_log_likelihood_ratio_cost,
    tpr_at_fpr_score,
    wilson_interval,
)

N_BINS = 10
FPR_GRID = np.geomspace(0.001, 1, 61)
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
                table.append({what: called, "setting": name} | ranked[0])
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


def add_evidence(summary, settings, scores, options):
    """Add to the summary what needs more than a ranking.

    Parameters
    ----------
    summary : list of dict
        Changed in place: gets the true positive rate at the allowed false alarms, and
        Cllr with its minimum, None where a model has no probabilities.

    settings, scores, options
        As of `ranking_tables`.
    """
    for row in summary:
        setting = settings[row["setting"]]
        of_model = scores[row["setting"]][row["model"]]
        row["tpr_at_fpr"] = float(
            np.mean(
                [
                    tpr_at_fpr_score(*part, max_fpr=options.max_fpr)
                    for part in _cells(setting, of_model.score)
                ]
            )
        )
        weight = setting.balanced_weight()
        row["cllr"] = row["min_cllr"] = None
        if of_model.probability is not None:
            prior = setting.prior[setting.trial]
            # Probabilities of 0 and 1 are infinite ratios, and a wrong one costs so.
            with np.errstate(divide="ignore"):
                ratio = logit(of_model.probability) - logit(prior)
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


def operating_table(settings, scores):
    """Tell what the verdicts were worth.

    Parameters
    ----------
    settings : dict of Setting
        What was tested.

    scores : dict of Scores
        Of the detector, by setting.

    Returns
    -------
    table : list of dict
        Of each setting the shares of wrong, right and withheld verdicts. Images that
        several detectors judged count with their mean, and the Wilson intervals with
        the number of images.
    """
    table = []
    for name, setting in settings.items():
        verdict = scores[name].verdict
        row = {"setting": name}
        for column, positive, wanted in (
            ("fpr", False, 1),
            ("real_undecided", False, 0),
            ("tpr", True, 1),
            ("fnr", True, -1),
            ("synthetic_undecided", True, 0),
        ):
            tested = setting.positive == positive
            n_images = len(np.unique(setting.row[tested]))
            rate = float((verdict[tested] == wanted).mean())
            low, high = wilson_interval(round(rate * n_images), n_images)
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
        Ten parts of each setting by rising probability, with the mean probability and
        the share of synthetic images; empty where there are no probabilities.
    """
    table = []
    for name, setting in settings.items():
        p = scores[name].probability
        if p is None:
            return []
        prior = setting.prior.mean()
        # Test folds have other shares of synthetic images than training.
        weight = setting.balanced_weight()
        weight *= np.where(setting.positive, prior, 1 - prior)
        order = np.argsort(p, kind="stable")
        part = np.minimum(np.cumsum(weight[order]) * N_BINS, N_BINS - 1e-9).astype(int)
        for number in np.unique(part):
            rows = order[part == number]
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
        curves = []
        for cell in setting.cells:
            real = np.sort(scores[name].score[cell.photographs])[::-1]
            own = scores[name].score[cell.own]
            # The photograph that is not to be exceeded, were as many called synthetic.
            allowed = np.floor(FPR_GRID * len(real) * (1 + 1e-10)).astype(int)
            limit = np.append(real, -np.inf)[allowed]
            curves.append((own[:, np.newaxis] > limit).mean(axis=0))
        for fpr, tpr in zip(FPR_GRID, np.mean(curves, axis=0)):
            table.append({"setting": name, "fpr": float(fpr), "tpr": float(tpr)})
    return table


def failure_table(name, setting, of_detector, images):
    """Find the images that were judged wrong with most confidence.

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
        # Few are wrong in most trials; those are the ones to look at first.
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
