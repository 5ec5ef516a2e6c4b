"""Hold what an evaluation found, and write it in several formats."""

import json
import os
from dataclasses import dataclass, field, fields
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sklearn.utils.validation import check_is_fitted

from sklearn_clipsid._skops_import import import_skops
from sklearn_clipsid.report._findings import findings
from sklearn_clipsid.report._html import render_html
from sklearn_clipsid.report._markdown import render_markdown, section_texts
from sklearn_clipsid.report._sections import make_sections

TITLE = "Detection report"


@dataclass(repr=False, eq=False, kw_only=True)
class DetectionReport:
    """What `evaluate` found.

    It prints as a summary. Tables are lists of dict, of which
    ``pandas.DataFrame(report.summary)`` makes a frame.

    Parameters
    ----------
    models : dict of str
        The detector and the baselines as they print, without folders.

    options : dict
        "max_fpr", "level" and "n_boot".

    counts : dict of dict
        Numbers of images under "generators" and "sources".

    n_pairs : int
        Motifs that several images share.

    settings_skipped : dict of str
        Why there is no setting of a name.

    summary : list of dict
        One row per setting and model: "auc" and "ap" with intervals, prevalence with
        its range, "cllr" and "min_cllr".

    generators, sources : list of dict
        The same of the detector for each generator, and for each photo source, by
        setting. `sources` is empty where all photographs are of one.

    pairs : list of dict
        ROC AUC of the detector for each generator against each photo source.

    operating_point : list of dict
        One row per setting: rates of verdicts with Wilson intervals.

    calibration, roc : list of dict
        Points of the two curves, by setting.

    failures : list of dict
        The worst errors in the last setting.

    robustness, leaks : list of dict or None
        Rows of `robustness_table` and of `leak_audit`.

    robustness_skipped, leaks_skipped : str or None
        Why there are none.

    n_near_duplicates : int or None
        Synthetic images that look like a photograph.

    versions, encoder : dict of str
        What it was made with.

    images : sequence of images or None
        The images, for thumbnails.

    See Also
    --------
    evaluate : Makes it.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_clipsid.report import evaluate
    >>> groups = np.repeat(["GAN", "SD", "COCO", "RAISE"], 20)
    >>> y = np.repeat([1, 0], 40)
    >>> X = np.random.RandomState(0).normal(size=(80, 2)) + y[:, None]
    >>> report = evaluate(
    ...     LogisticRegression(), X, y, groups, max_fpr=0.2, n_boot=20, random_state=0
    ... )
    >>> report.to_markdown().splitlines()[0]
    '# Detection report'
    >>> sorted(report.to_dict()["counts"]["sources"].items())
    [('COCO', 20), ('RAISE', 20)]
    """

    models: dict
    options: dict
    counts: dict
    n_pairs: int
    settings_skipped: dict
    summary: list
    generators: list
    sources: list
    pairs: list
    operating_point: list
    calibration: list
    roc: list
    failures: list
    robustness: list | None
    leaks: list | None
    robustness_skipped: str | None
    leaks_skipped: str | None
    n_near_duplicates: int | None
    versions: dict
    encoder: dict
    images: Any = field(default=None)

    @property
    def settings(self):
        """Names of the settings, the one that holds out most last."""
        return list(dict.fromkeys(row["setting"] for row in self.summary))

    @property
    def subject(self):
        """What was evaluated, in one sentence."""
        real, synthetic = self.counts["sources"], self.counts["generators"]
        n_real, n_synthetic = sum(real.values()), sum(synthetic.values())
        share = n_synthetic / (n_real + n_synthetic)
        text = (
            f"{n_real} photographs of {_count(real, 'source')} and {n_synthetic} "
            f"synthetic images of {_count(synthetic, 'generator')}: "
            f"{100 * share:.0f} % are synthetic."
        )
        if self.n_pairs:
            text += f" {self.n_pairs} motifs are shown by several images."
        return text

    @property
    def findings(self):
        """What the tables mean, in sentences, the most important first."""
        return findings(self)

    def __repr__(self):
        lines = [TITLE, self.subject, " ".join(self.models["detector"].split()), ""]
        names = [row["setting"] for row in self.summary]
        width = max(map(len, names))
        models = max(len(row["model"]) for row in self.summary)
        for row in self.summary:
            interval = f"{row['auc_low']:.3f} to {row['auc_high']:.3f}"
            lines.append(
                f"{row['setting']:<{width}}  {row['model']:<{models}}  "
                f"AUC {row['auc']:.3f} ({interval})  AP {row['ap']:.3f}  "
                f"prevalence {row['prevalence']:.2f}"
            )
        return "\n".join([*lines, "", *(f"- {text}" for text in self.findings)])

    def _repr_html_(self):
        if find_spec("matplotlib") is None:  # a notebook should not fail for figures
            return f"<pre>{escape(repr(self))}</pre>"
        # A frame keeps the style of the page and that of the notebook apart.
        page = escape(render_html(TITLE, self, make_sections(self)))
        style = "width: 100%; height: 45rem; border: 1px solid #ccc"
        return f'<iframe srcdoc="{page}" style="{style}" title="{TITLE}"></iframe>'

    def to_dict(self):
        """Return everything but the images.

        Returns
        -------
        report : dict
            Of what JSON can hold.
        """
        columns = {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if one.name != "images"
        }
        return columns | {"findings": self.findings}

    def to_json(self, path):
        """Write everything but the images and figures.

        Parameters
        ----------
        path : str or PathLike
            Where to write.
        """
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False)
        Path(path).write_text(text + "\n", encoding="utf-8")

    def to_markdown(self, path=None):
        """Write the report as text with tables.

        Parameters
        ----------
        path : str or PathLike, default=None
            Where to write, if anywhere.

        Returns
        -------
        text : str
            Markdown, as GitHub reads it.
        """
        text = render_markdown(TITLE, self.subject, make_sections(self))
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def to_html(self, path):
        """Write one file with all tables, figures and the worst errors as thumbnails.

        The page needs no other file, no network and no script. It names no folder.
        Figures need matplotlib. Thumbnails are read from the images again; without
        them set ``report.images = None``.

        Parameters
        ----------
        path : str or PathLike
            Where to write.
        """
        folder = Path(path).parent
        if not folder.is_dir():
            raise FileNotFoundError(
                f"Got path={os.fspath(path)!r} but there is no folder {str(folder)!r}; "
                "make it first."
            )
        page = render_html(TITLE, self, make_sections(self))
        Path(path).write_text(page, encoding="utf-8")

    def to_card(self, model):
        """Make a model card of a detector.

        Parameters
        ----------
        model : estimator, str or PathLike
            The fitted detector that the report is about, or its file.

        Returns
        -------
        card : skops.card.Card
            With the findings and tables. ``card.save("README.md")`` writes it.
        """
        if not isinstance(model, (str, os.PathLike)):
            check_is_fitted(model)
        import_skops()  # first and quickly, as skops.card imports it slowly
        from skops.card import Card

        card = Card(model, model_diagram=False, template=None)
        card.add(**{TITLE: self.subject})
        for title, text in section_texts(make_sections(self)):
            card.add(**{f"{TITLE}/{title}": text})
        return card


def _count(groups, what):
    return f"{len(groups)} {what}{'s' * (len(groups) != 1)}"
