"""Put a report into words and tables that every format shows alike."""

from typing import NamedTuple

import numpy as np

from sklearn_clipsid.report._findings import (
    exact_percent,
    findings,
    interval,
    percent,
    two_digits,
)
from sklearn_clipsid.report._settings import MEANING

MEASURE = (
    "ROC AUC is the share of pairs of a synthetic image and a photograph in which the "
    "synthetic one has the higher score: 0.5 is guessing, 1 is perfect."
)
LIMITS = (
    "A score says that an image resembles the synthetic images of the training data "
    "more than its photographs, as the encoder sees them. It is no proof.",
    "The intervals tell what other test images would have shown. What other "
    "generators, photo sources or training images would show is not in them.",
    "Images that were edited or inpainted in part are out of scope.",
    "Average precision depends on the share of synthetic images: compare it between "
    "models, in one row. Settings are compared by ROC AUC.",
)


class Cell(NamedTuple):
    """A text, an interval below it, and a shade from 0 to 1."""

    text: str
    interval: str = ""
    shade: float | None = None


class Table(NamedTuple):
    """Rows of cells; the first column names the row."""

    header: list
    rows: list
    caption: str = ""


class Bullets(NamedTuple):
    """A list of sentences."""

    items: list


class Codes(NamedTuple):
    """A list of labels with a piece of code or a name each."""

    items: list


class Figure(NamedTuple):
    """A figure by its name, what it shows for those who do not see it, and notes."""

    name: str
    alt: str
    caption: str = ""


class Failures(NamedTuple):
    """The images that were judged wrong, as pictures where the format has them."""

    rows: list
    header: list
    table: list


class Section(NamedTuple):
    """A heading and what stands below it; a text is a paragraph."""

    title: str
    blocks: list


def make_sections(report):
    """Write the sections of a report.

    Parameters
    ----------
    report : DetectionReport
        The report.

    Returns
    -------
    sections : list of Section
        From the summary to the limits.
    """
    return [
        Section("In short", [Bullets(findings(report)), MEASURE]),
        _settings_section(report),
        _generator_section(report),
        *_source_section(report),
        _verdict_section(report),
        _probability_section(report),
        _robustness_section(report),
        _leak_section(report),
        _failure_section(report),
        Section("What this report does not say", [Bullets(list(LIMITS))]),
        _origin_section(report),
    ]


def _estimate(row, name):
    shade = row[name] if name == "auc" else None
    return Cell(two_digits(row[name]), interval(row, name), shade)


def _rate(row, name):
    return Cell(percent(row[name]), interval(row, name, percent))


def _settings_section(report):
    models = list(dict.fromkeys(row["model"] for row in report.summary))
    by_key = {(row["setting"], row["model"]): row for row in report.summary}
    tables = []
    for metric, title in (("auc", "ROC AUC"), ("ap", "Average precision")):
        rows = []
        for name in report.settings:
            own = [_estimate(by_key[name, model], metric) for model in models]
            if metric == "ap":
                own.append(_estimate(by_key[name, models[0]], "prevalence"))
            rows.append([Cell(name), *own])
        header = ["setting", *models]
        caption = f"{title}, mean over tests, with {_level(report)} interval."
        if metric == "ap":
            header.append("prevalence")
            caption += (
                " Random scores get the prevalence, the share of synthetic images. Its "
                "range over tests stands below it."
            )
        tables.append(Table(header, rows, caption))
    meaning = [f"{name}: {MEANING[name]}" for name in report.settings]
    skipped = report.settings_skipped.items()
    meaning += [f"{name}: not tested. {reason}" for name, reason in skipped]
    alt = "ROC AUC of each model in each setting, with intervals."
    blocks = [Bullets(meaning), Figure("settings", alt), *tables]
    return Section("What it knows, and what it does not", blocks)


def _level(report):
    return exact_percent(report.options["level"])


def _generator_section(report):
    text = "ROC AUC of the detector on each generator against photographs."
    if report.n_pairs:
        text += (
            " A test leaves out images whose motif is among its training images, so "
            "that some rest on few images and have wide intervals."
        )
    blocks = [text, _by_group(report, report.generators, "generator")]
    return Section("Each generator", blocks)


def _by_group(report, table, what):
    by_key = {(row[what], row["setting"]): row for row in table}
    settings = [name for name in report.settings if any(k[1] == name for k in by_key)]
    n_images = {}
    for (name, _), row in by_key.items():
        n_images[name] = max(row["n_images"], n_images.get(name, 0))

    def auc(name):
        # Pairs may leave a group without a test in some settings.
        row = by_key.get((name, settings[-1]))
        return np.inf if row is None else row["auc"]

    rows = [
        [Cell(name, f"{n_images[name]} images")] for name in sorted(n_images, key=auc)
    ]
    for cells in rows:
        for setting in settings:
            row = by_key.get((cells[0].text, setting))
            cells.append(Cell("-") if row is None else _estimate(row, "auc"))
    return Table([what, *settings], rows, f"The hardest {what} first.")


def _source_section(report):
    if not report.sources:
        return []
    alt = "Heat map of the ROC AUC of each generator against each photo source."
    caption = "Each generator against each photo source, both unseen; hardest first."
    blocks = [
        "ROC AUC of the detector against the photographs of each source. Below 0.5 "
        "they look more synthetic to it than the synthetic images.",
        _by_group(report, report.sources, "source"),
        Figure("pairs", alt, caption),
    ]
    return [Section("Each photo source", blocks)]


def _verdict_section(report):
    limit = exact_percent(report.options["max_fpr"])
    header = ["setting", "false alarms", "found", "missed"]
    header.append("undecided (real / synthetic)")
    rows = [
        [
            Cell(row["setting"]),
            *(_rate(row, column) for column in ("fpr", "tpr", "fnr")),
            Cell(_undecided(row)),
        ]
        for row in report.operating_point
    ]
    text = (
        "Each detector chose two thresholds on held-out training images, so that at "
        f"most {limit} of photographs should be called synthetic (false alarms) and at "
        f"most {limit} of synthetic images real (missed); between them it is "
        "undecided. This is what the verdicts were worth on the test images."
    )
    caption = (
        f"With {_level(report)} Wilson intervals, as if images were independent; those "
        "of one source are not."
    )
    table = Table(header, rows, caption)
    alt = "Share of synthetic images found against false alarms, by setting."
    caption = (
        "Found with the best threshold of each test, which is known only afterwards; "
        "thresholds of the table were chosen beforehand. A curve begins where its "
        f"tests have enough photographs. Vertical line: the limit of {limit}."
    )
    return Section("Verdicts", [text, table, Figure("roc", alt, caption)])


def _undecided(row):
    real, synthetic = row["real_undecided"], row["synthetic_undecided"]
    return f"{percent(real).removesuffix(' %')} / {percent(synthetic)}"


def _probability_section(report):
    if not report.calibration:
        text = "The detector has no predict_proba, so that there is nothing to judge."
        return Section("Probabilities", [text])
    models = list(dict.fromkeys(row["model"] for row in report.summary))
    by_key = {(row["setting"], row["model"]): row for row in report.summary}
    rows = [
        [Cell(name), *(_cost(by_key[name, model]) for model in models)]
        for name in report.settings
    ]
    text = (
        "Cllr is the cost of the likelihood ratios in bits: 0 is perfect, 1 says "
        "nothing, more than 1 is worse than saying nothing. Best: what the best "
        "monotone calibration would leave; the rest was lost. Probabilities of "
        "exactly 0 and 1, as nearest neighbours have, cost much where they are wrong."
    )
    alt = "Share of synthetic images against predicted probability, by setting."
    blocks = [text, Table(["setting", *models], rows), Figure("calibration", alt)]
    return Section("Probabilities", blocks)


def _cost(row):
    if row["cllr"] is None:
        return Cell("no probabilities")
    return Cell(two_digits(row["cllr"]), f"best {two_digits(row['min_cllr'])}")


def _robustness_section(report):
    title = "After the upload"
    if report.robustness is None:
        return Section(title, [f"Not tested. {report.robustness_skipped}"])
    rows = [
        [
            Cell(_operation(row)),
            Cell(two_digits(row["auc"]), "", row["auc"]),
            Cell(two_digits(row["ap"])),
            Cell(percent(row["fpr"])),
            Cell(percent(row["tpr"])),
            Cell(percent(row["flips"])),
        ]
        for row in report.robustness
    ]
    n_images = report.robustness[0]["n"]
    text = (
        f"What editing does to {n_images} images of one in-domain test fold. Verdicts "
        "are those of the upper threshold."
    )
    header = ["operation", "ROC AUC", "AP", "false alarms", "found", "verdicts flipped"]
    alt = "AUC and average precision after each operation, and verdicts that flip."
    return Section(title, [text, Table(header, rows), Figure("robustness", alt)])


def _operation(row):
    if row["operation"] == "clean":
        return "clean"
    return f"{row['operation']} {row['strength']:g}"


def _leak_section(report):
    title = "What the files give away"
    if report.leaks is None:
        return Section(title, [f"Not looked at. {report.leaks_skipped}"])
    rows = []
    for row in report.leaks:
        limits = f"{two_digits(row['low'])}\N{EN DASH}{two_digits(row['high'])}"
        cells = [Cell(row["cue"]), Cell(two_digits(row["auc"]), limits)]
        rows.append([*cells, Cell(row["verdict"]), Cell(row["saw"])])
    text = (
        "ROC AUC of the label from one cue of the file alone, without a look at the "
        "picture. A cue leaks where its interval lies above 0.6: a detector may have "
        "learned it. Synthetic images that look like a photograph: "
        f"{report.n_near_duplicates}."
    )
    remedies = [
        f"{row['cue']}: {row['remedy']}." for row in report.leaks if row["leaks"]
    ]
    header = ["cue", "ROC AUC", "verdict", "what differs most"]
    blocks = [text, Table(header, rows)]
    if remedies:
        blocks += ["What to do:", Bullets(remedies)]
    return Section(title, blocks)


def _failure_section(report):
    text = (
        f"The worst errors in the setting “{report.settings[-1]}”, where several "
        "detectors judge most images: first those that most of them judged wrong. Rows "
        "count from 0."
    )
    if not report.failures:
        row = report.operating_point[-1]
        text += f" No verdict is wrong; undecided: {_undecided(row)}."
        return Section("Failures", [text])
    rows = [
        [
            Cell(row["kind"]),
            Cell(row["group"]),
            Cell(str(row["row"])),
            Cell(f"{row['score']:.2f}"),
            Cell(percent(row["wrong"])),
        ]
        for row in report.failures
    ]
    header = ["error", "generator or source", "row", "score", "of its tests wrong"]
    return Section("Failures", [text, Failures(report.failures, header, rows)])


def _origin_section(report):
    items = [(name, " ".join(model.split())) for name, model in report.models.items()]
    encoder = report.encoder or {"": "unknown, as features were given"}
    items += [(f"encoder {key}".strip(), value) for key, value in encoder.items()]
    items += [(f"version of {key}", value) for key, value in report.versions.items()]
    items += [(key, str(value)) for key, value in report.options.items()]
    return Section("Made from", [Codes(items)])
