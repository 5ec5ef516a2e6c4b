"""Say in a few sentences what the tables of a report mean."""

from sklearn_clipsid._abstaining import images_needed
from sklearn_clipsid.datasets._cue_auc import TOGETHER

CONFIDENCE = 0.95
# Cllr from here on is more than chance makes of probabilities that say nothing.
MISLEADING, SILENT = 1.1, 0.95


def percent(share):
    """Write a rate as a percentage, with a digit more near 0 and 100."""
    if 0 < share < 0.0005:
        return "<0.1 %"
    digits = 1 if 0 < share < 0.0995 or 0.995 <= share < 1 else 0
    return f"{100 * share:.{digits}f}".removesuffix(".0") + " %"


def exact_percent(share):
    """Write a share that somebody chose as a percentage."""
    return f"{100 * share:.6g} %"


def two_digits(value):
    """Write a number with two decimals."""
    return f"{value:.2f}"


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
    found = [_headline(report), *_baselines(report), _weakest(report)]
    found += [_operating_point(report), *_few_images(report), *_cost(report)]
    found += [*_leaks(report), *_robustness(report)]
    skipped = report.settings_skipped.items()
    return found + [f"Not tested: {name}. {reason}" for name, reason in skipped]


def _rows(report, setting):
    """Return the rows of the detector and of the baselines."""
    return [row for row in report.summary if row["setting"] == setting]


def _headline(report):
    known, unknown = (_rows(report, report.settings[place])[0] for place in (0, -1))
    text = (
        f"In the setting “{report.settings[-1]}” the detector has a ROC AUC of "
        f"{two_digits(unknown['auc'])} ({interval(unknown, 'auc')}), in domain of "
        f"{two_digits(known['auc'])}. Use the first figure for images of "
        "unknown origin."
    )
    if not report.sources:
        text += " It does not hold for photographs of sources that are not in training."
    if unknown["auc_high"] < 0.5:
        text += " It ranks such images worse than guessing would."
    elif unknown["auc_low"] <= 0.5:
        text += " That is not shown to be better than guessing."
    return text


def _baselines(report):
    own, *others = _rows(report, report.settings[-1])
    if not others:
        return ["It was compared with no baseline."]
    best = max(others, key=lambda row: row["auc"])
    name, verb = best["model"], "is hardly better than"
    if two_digits(best["auc"]) == two_digits(own["auc"]):
        verb = "is as good as"
    elif best["auc"] > own["auc"]:
        verb = "is worse than"
    elif best["auc"] < own["auc_low"]:
        verb = "is better than"
    return [
        f"In that setting it {verb} {name}: {two_digits(own['auc'])} against "
        f"{two_digits(best['auc'])}."
    ]


def _weakest(report):
    last = report.settings[-1]
    parts = []
    for what, table in (("generator", report.generators), ("source", report.sources)):
        rows = [row for row in table if row["setting"] == last]
        if rows:
            worst = min(rows, key=lambda row: row["auc"])
            figure = two_digits(worst["auc"])
            if worst["auc"] < 0.5:
                figure += ", worse than guessing"
            name = f"{worst[what]} ({figure})"
            parts.append(f"the {what} with the lowest ROC AUC is {name}")
    return f"There {', and '.join(parts)}."


def _operating_point(report):
    limit = report.options["max_fpr"]
    row = max(report.operating_point, key=lambda row: row["fpr"])
    verb = "were not refuted"
    if row["fpr_low"] > limit:
        verb = "do not hold"
    elif row["fpr_high"] <= limit:
        verb = "held"
    last = report.operating_point[-1]
    return (
        f"Thresholds for {exact_percent(limit)} of errors {verb}: "
        f"{percent(row['fpr'])} ({interval(row, 'fpr', percent)}) of {row['n_real']} "
        f"photographs were called synthetic in the setting “{row['setting']}”. In "
        f"“{last['setting']}” {percent(last['tpr'])} of the synthetic images were "
        f"found, {percent(last['fnr'])} called real, "
        f"{percent(last['synthetic_undecided'])} left undecided."
    )


def _few_images(report):
    limit = report.options["max_fpr"]
    needed = images_needed(limit, CONFIDENCE)
    few = []
    for name, words in (("real", "photographs"), ("synthetic", "synthetic images")):
        fewest = min(row[f"n_{name}_trained"] for row in report.operating_point)
        if fewest < needed:
            few.append(f"{fewest} {words}")
    if not few:
        return []
    return [
        f"Some detectors chose their thresholds on {' and '.join(few)}, too few to "
        f"promise {exact_percent(limit)} of errors with a confidence of "
        f"{percent(CONFIDENCE)}: it takes {needed}."
    ]


def _cost(report):
    cost = _rows(report, report.settings[-1])[0]["cllr"]
    if cost is None or cost < SILENT:
        return []
    verb = "mislead" if cost >= MISLEADING else "say next to nothing"
    return [
        f"There its probabilities {verb}: they cost {two_digits(cost)} bits (Cllr), "
        "where 1 is had for saying nothing."
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
    worst = min(edited, key=lambda row: row["auc"])
    flips = max(edited, key=lambda row: row["flips"])
    text = f"No edit of {clean['n']} images in domain lowers ROC AUC"
    if two_digits(worst["auc"]) < two_digits(clean["auc"]):
        text = (
            f"Of the edits of {clean['n']} images in domain, {_edit(worst)} lowers ROC "
            f"AUC most, from {two_digits(clean['auc'])} to {two_digits(worst['auc'])}"
        )
    return [f"{text}; {_edit(flips)} flips {percent(flips['flips'])} of the verdicts."]


def _edit(row):
    return f"{row['operation']} {row['strength']:g}"
