"""Say in a few sentences what the tables of a report mean."""

import numpy as np

from sklearn_clipsid.datasets._cue_auc import TOGETHER

LEAST_CONFIDENCE = 0.95


def percent(share):
    """Write a share as a percentage, with a digit more where it is small."""
    digits = 1 if 0 < share < 0.0995 else 0
    return f"{100 * share:.{digits}f}".removesuffix(".0") + " %"


def two_digits(value):
    """Write a number with two decimals."""
    return "∞" if np.isinf(value) else f"{value:.2f}"


def interval(row, name, write=two_digits):
    """Write the limits of an interval."""
    low, high = write(row[f"{name}_low"]), write(row[f"{name}_high"])
    return f"{low.removesuffix(' %')}\N{EN DASH}{high}"


def findings(report):
    """Write what a reader should know first.

    Parameters
    ----------
    report : DetectionReport
        The report.

    Returns
    -------
    sentences : list of str
        The most important first.
    """
    found = [_headline(report), _weakest(report), *_baselines(report)]
    found += [_operating_point(report), *_few_photographs(report), *_cost(report)]
    return [*found, *_leaks(report), *_robustness(report), *_one_source(report)]


def _of_detector(report, setting):
    return next(row for row in report.summary if row["setting"] == setting)


def _headline(report):
    known, unknown = (_of_detector(report, report.settings[place]) for place in (0, -1))
    what = "generators and photo sources" if report.sources else "generators"
    return (
        f"On {what} that it has not seen, the detector has a ROC AUC of "
        f"{two_digits(unknown['auc'])} ({interval(unknown, 'auc')}); on those that it "
        f"has seen, {two_digits(known['auc'])}. Use the first figure for images of "
        "unknown origin."
    )


def _weakest(report):
    last = report.settings[-1]
    worst = min(
        (row for row in report.generators if row["setting"] == last),
        key=lambda row: row["auc"],
    )
    text = f"The hardest unseen generator is {worst['generator']} "
    text += f"(ROC AUC {two_digits(worst['auc'])})"
    if report.sources:
        worst = min(
            (row for row in report.sources if row["setting"] == last),
            key=lambda row: row["auc"],
        )
        text += f", the hardest unseen photo source {worst['source']} "
        text += f"({two_digits(worst['auc'])})"
    return text + "."


def _baselines(report):
    last = report.settings[-1]
    own, *others = (row for row in report.summary if row["setting"] == last)
    if not others:
        return []
    best = max(others, key=lambda row: row["auc"])
    figures = f"{two_digits(best['auc'])} against {two_digits(own['auc'])}"
    if best["auc"] >= own["auc"]:
        text = f"{best['model'].capitalize()} does as well or better there: {figures}."
    elif best["auc"] > own["auc_low"]:
        text = (
            f"It is hardly better there than {best['model']}, which lies within its "
            f"interval: {figures}."
        )
    else:
        text = f"It is better there than {best['model']}: {figures}."
    return [text]


def _operating_point(report):
    limit, row = report.options["max_fpr"], report.operating_point[-1]
    false_alarms = f"{percent(row['fpr'])} of the photographs were called synthetic"
    if row["fpr_low"] > limit:
        text = (
            f"Thresholds for {percent(limit)} false alarms do not hold: {false_alarms}"
        )
    else:
        text = f"With thresholds for {percent(limit)} false alarms {false_alarms}"
    return (
        f"{text} in the hardest setting; {percent(row['tpr'])} of the synthetic images "
        f"were found, {percent(row['synthetic_undecided'])} left undecided."
    )


def _few_photographs(report):
    limit = report.options["max_fpr"]
    needed = int(np.log(1 - LEAST_CONFIDENCE) / np.log(1 - limit)) + 1
    n_photographs = sum(report.counts["sources"].values())
    if n_photographs >= needed:
        return []
    return [
        f"{n_photographs} photographs are too few to promise {percent(limit)} false "
        f"alarms with a confidence of 95 %; it takes {needed} in training."
    ]


def _cost(report):
    cost = _of_detector(report, report.settings[-1])["cllr"]
    if cost is None or cost <= 1:
        return []
    return [
        f"On unseen images its probabilities mislead: the cost Cllr is "
        f"{two_digits(cost)} bits, and 1 would be had for saying nothing."
    ]


def _leaks(report):
    leaking = [row["cue"] for row in report.leaks or () if row["leaks"]]
    leaking = [cue for cue in leaking if cue != TOGETHER] or leaking
    if not leaking:
        return []
    return [
        f"The files give the label away by {', '.join(leaking)}. All figures of this "
        "report may be about that and not about pictures; make the files alike with "
        "equalize_images and evaluate again."
    ]


def _robustness(report):
    if report.robustness is None:
        return []
    clean, *edited = report.robustness
    if not edited:
        return []
    worst = min(edited, key=lambda row: row["auc"])
    return [
        f"Of the edits, {worst['operation']} {worst['strength']:g} hurts most: ROC AUC "
        f"{two_digits(worst['auc'])} instead of {two_digits(clean['auc'])}, and "
        f"{percent(worst['flips'])} of the verdicts flip."
    ]


def _one_source(report):
    if report.sources:
        return []
    return [
        "All photographs are of one source, so that it is not known what the detector "
        "makes of others. Name the sources in groups, or add photographs."
    ]
