"""Draw the figures of a report, narrow enough for a telephone."""

import io
import warnings

import numpy as np

from sklearn_clipsid._optional import import_optional
from sklearn_clipsid.inspection import RobustnessDisplay
from sklearn_clipsid.inspection._figure_style import short_name

WIDTH = 5.4  # inches
# Okabe and Ito's colours, which stay apart in all common forms of colour blindness.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
MARKERS = "osD^vP*"


def draw_figure(name, report):
    """Draw one figure.

    Parameters
    ----------
    name : {"settings", "pairs", "roc", "calibration", "robustness"}
        Which one.

    report : DetectionReport
        What it shows.

    Returns
    -------
    image : bytes
        SVG.
    """
    matplotlib = import_optional("matplotlib", extra="plot", caller="to_html")
    from matplotlib.figure import Figure

    draw = {
        "settings": _draw_settings,
        "pairs": _draw_pairs,
        "roc": _draw_roc,
        "calibration": _draw_calibration,
        "robustness": _draw_robustness,
    }[name]
    # Text as paths looks alike on every machine; the salt makes files reproducible.
    style = {"svg.fonttype": "path", "svg.hashsalt": name}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # Of scripts that the font of the figures lacks; tables have the names.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(layout="constrained")
        draw(figure, report)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def _draw_settings(figure, report):
    models = list(dict.fromkeys(row["model"] for row in report.summary))
    settings = report.settings
    figure.set_size_inches(WIDTH, 1.3 + 0.75 * len(settings))
    ax = figure.subplots()
    for i, model in enumerate(models):
        rows = [row for row in report.summary if row["model"] == model]
        offset = 0.2 * (i - (len(models) - 1) / 2)
        ax.errorbar(
            [row["auc"] for row in rows],
            np.arange(len(settings)) + offset,
            xerr=np.maximum(
                [
                    [row["auc"] - row["auc_low"] for row in rows],
                    [row["auc_high"] - row["auc"] for row in rows],
                ],
                0,
            ),
            fmt=MARKERS[i % len(MARKERS)],
            color=COLOURS[i % len(COLOURS)],
            capsize=3,
            label=short_name(model, 24),
        )
    ax.axvline(0.5, color="0.5", linestyle=":", linewidth=1)
    ax.set_yticks(
        range(len(settings)), [name.replace(" and ", "\nand ") for name in settings]
    )
    ax.set(ylim=(len(settings) - 0.5, -0.5), xlabel="ROC AUC (0.5: random scores)")
    lowest = min(row["auc_low"] for row in report.summary)
    ax.set_xlim(min(0.48, lowest - 0.02), 1.01)
    _finish(ax)
    figure.legend(loc="outside upper center", ncols=min(len(models), 3), frameon=False)


def _draw_pairs(figure, report):
    rows = [row for row in report.pairs if row["setting"] == report.settings[-1]]
    generators = _by_mean(rows, "generator")
    sources = _by_mean(rows, "source")
    auc = np.full((len(generators), len(sources)), np.nan)
    for row in rows:
        place = generators.index(row["generator"]), sources.index(row["source"])
        auc[place] = row["auc"]
    figure.set_size_inches(
        max(WIDTH, 2 + 0.48 * len(sources)), 1.9 + 0.28 * len(generators)
    )
    ax = figure.subplots()
    image = ax.imshow(auc, cmap="PuOr", vmin=0, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(auc):
        if np.isfinite(value):
            colour = "white" if abs(value - 0.5) > 0.33 else "black"
            text = f"{value:.2f}".removeprefix("0")
            ax.text(j, i, text, ha="center", va="center", color=colour, fontsize=8)
    names = [short_name(name, 20) for name in sources]
    ax.set_xticks(range(len(sources)), names, rotation=40, ha="right", fontsize=8)
    names = [short_name(name, 26) for name in generators]
    ax.set_yticks(range(len(generators)), names, fontsize=8)
    ax.set(xlabel="unseen photo source", ylabel="unseen generator")
    figure.colorbar(image, label="ROC AUC", shrink=0.8)


def _by_mean(rows, what):
    """Return the names in order of their mean AUC, the hardest first."""
    values = {}
    for row in rows:
        values.setdefault(row[what], []).append(row["auc"])
    return sorted(values, key=lambda name: np.mean(values[name]))


def _draw_roc(figure, report):
    figure.set_size_inches(WIDTH, 3.9)
    ax = figure.subplots()
    for i, name in enumerate(report.settings):
        rows = [row for row in report.roc if row["setting"] == name]
        ax.plot(
            [row["fpr"] for row in rows],
            [row["tpr"] for row in rows],
            color=COLOURS[i],
            linestyle=("-", "--", "-.", ":")[i],
            label=name,
        )
    limit = report.options["max_fpr"]
    ax.axvline(limit, color="0.6", linewidth=1)
    grid = sorted({row["fpr"] for row in report.roc})
    ax.plot(grid, grid, color="0.5", linewidth=1, label="random scores")
    ax.set(
        xscale="log",
        xlim=(min(*grid, limit), 1),
        ylim=(0, 1.01),
        xlabel="photographs called synthetic (false positive rate)",
        ylabel="synthetic images found",
    )
    ax.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    _finish(ax)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)


def _draw_calibration(figure, report):
    figure.set_size_inches(WIDTH, 4.3)
    ax = figure.subplots()
    for i, name in enumerate(report.settings):
        rows = [row for row in report.calibration if row["setting"] == name]
        ax.plot(
            [row["probability"] for row in rows],
            [row["synthetic"] for row in rows],
            marker=MARKERS[i],
            color=COLOURS[i],
            linestyle=("-", "--", "-.", ":")[i],
            label=name,
        )
    ax.plot([0, 1], [0, 1], color="0.5", linestyle=":", linewidth=1)
    ax.set(
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        xlabel="predicted probability of synthetic",
        ylabel="share that is synthetic",
        aspect="equal",
    )
    _finish(ax)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)


def _draw_robustness(figure, report):
    names = list(report.robustness[0])
    table = np.array(
        [tuple(row[name] for name in names) for row in report.robustness],
        [(n, "U40" if n == "operation" else float) for n in names],
    )
    n_operations = len(np.unique(table["operation"]))
    figure.set_size_inches(6.2, 1.6 + 0.26 * (len(table) + 0.6 * n_operations))
    axes = figure.subplots(ncols=2, width_ratios=(3, 2))
    RobustnessDisplay(table).plot(ax=axes)


def _finish(ax):
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="0.92")
    ax.set_axisbelow(True)
