"""Score images with a detector from a file, whatever it is made of."""

import copy
import time
from pathlib import Path
from typing import NamedTuple
from zipfile import is_zipfile

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import Pipeline

from sklearn_clipsid._abstaining import AbstainingClassifier
from sklearn_clipsid._clip_embedder import CLIPEmbedder
from sklearn_clipsid._concept_bottleneck import ConceptBottleneckClassifier
from sklearn_clipsid._first_few import first_few
from sklearn_clipsid._loaded_parts import parts_of
from sklearn_clipsid._orthogonal_linear import OrthogonalLinearDetector
from sklearn_clipsid.cli._readable_images import embed_readable
from sklearn_clipsid.persistence import load
from sklearn_clipsid.reference import list_reference_detectors

WORDS = np.array(["real", "synthetic"])
N_SUMMANDS = 5
# What the heads of published detectors come in.
CHECKPOINTS = (".ckpt", ".pth", ".pt", ".bin", ".safetensors")
MAX_FPR = 0.01  # of a report, where the detector has no limit of its own
# Rows come in parts that take about so long, the first one of a single batch: threads
# that decode ahead stand still between two parts.
SECONDS, MOST_AT_ONCE = 2.0, 1024
# Half of what is remembered without a folder, so that a part always has room.
MEMORY = 2**28


class ScoredImage(NamedTuple):
    """What a detector says about one image."""

    path: str
    score: float | None = None  # decision function
    probability: float | None = None  # of being synthetic
    verdict: str | None = None
    explanation: list | None = None  # (name, summand of the logit), largest first
    error: str | None = None  # why it could not be read


def load_detector(filename, **place):
    """Load a detector from a .skops file.

    Parameters
    ----------
    filename : str
        The file.

    **place
        Parameters of `persistence.load`.

    Returns
    -------
    estimator : classifier
    """
    path = Path(filename)
    if path.suffix.lower() in CHECKPOINTS and path.is_file():
        known = {one["name"] for one in list_reference_detectors()}
        # Another name might be a command of its own, and this is made to be copied.
        name, file = (path.stem, path.name) if path.stem in known else ("NAME", "FILE")
        raise ValueError(
            f"Got {filename!r}, a checkpoint, which does not say which encoder it "
            "needs, but expected a .skops file. Make one of a published detector: "
            'python -c "from sklearn_clipsid.persistence import dump; from '
            "sklearn_clipsid.reference import reference_pipeline; "
            f"dump(reference_pipeline('{name}', '{file}'), 'detector.skops')\" "
            "(list_reference_detectors, from the same place, has the names)."
        )
    is_other = path.is_file() and path.suffix.lower() != ".skops"
    if path.is_dir() or (is_other and not is_zipfile(path)):
        raise ValueError(
            f"Got {filename!r} as DETECTOR, but expected a .skops file; the detector "
            "comes first, before images and folders."
        )
    if not path.exists():
        there = sorted(map(str, path.parent.glob("*.skops")))
        raise FileNotFoundError(
            f"Got {filename!r} but there is no such file; "
            + (f"did you mean {first_few(there)}?" if there else "name a .skops file.")
        )
    return load(filename, **place)


class Detector:
    """A detector of images that was loaded from a file.

    Parameters
    ----------
    options : argparse.Namespace
        `detector`, the file; `pretrained` and `cache_dir`.

    explain : bool, default=False
        Whether to take scores apart.

    Attributes
    ----------
    estimator : classifier
        What the file holds.

    decide : callable or None
        Gives verdicts, where a threshold was chosen for the detector.
    """

    def __init__(self, options, explain=False):
        self.estimator = load_detector(
            options.detector, pretrained=options.pretrained, cache_dir=options.cache_dir
        )
        embedder = embedder_of(self.estimator)
        if embedder is None:
            raise ValueError(
                f"Got {options.detector!r}, which takes embeddings, but expected a "
                "detector that takes images; save a pipeline that starts with "
                "CLIPEmbedder."
            )
        classes = getattr(self.estimator, "classes_", None)
        if not np.array_equal(classes, [0, 1]):
            raise ValueError(
                f"Got {options.detector!r}, a detector of {classes!s:.80}, but "
                "expected one of 0 (photographs) and 1 (synthetic images); use it in "
                "Python."
            )
        # It finds the images that cannot be read; the head gets the others, as rows
        # where they all come from this embedder, else as paths of what is remembered.
        self.reader = copy.copy(embedder).set_params(on_error="nan", verbose=False)
        self.takes_rows = (
            isinstance(self.estimator, Pipeline) and self.estimator[0] is embedder
        )
        self.head = self.estimator[1:] if self.takes_rows else self.estimator
        self.decide = decider_of(self.head)
        self.explain = explainer_of(self.head) if explain else None

    def score_in_parts(self, paths):
        """Score images, and yield what is done every few seconds.

        Parameters
        ----------
        paths : list of str
            The images.

        Yields
        ------
        scored : list of ScoredImage
            The next ones, in their order.
        """
        size = self.reader.batch_size
        start = 0
        while start < len(paths):
            begun = time.monotonic()
            part = paths[start : start + size]
            yield self.score(part)
            start += len(part)
            if time.monotonic() - begun < SECONDS:
                size = min(2 * size, MOST_AT_ONCE)
            # A full memory keeps what it has, and would embed the rest twice.
            if self.reader.cache_dir is None:
                if self.reader.cache_info().bytes > MEMORY:
                    self.reader.clear_cache()

    def score(self, paths):
        """Score images at once.

        Parameters
        ----------
        paths : list of str
            The images.

        Returns
        -------
        scored : list of ScoredImage
            In their order.
        """
        rows, reasons = embed_readable(self.reader, paths)
        readable = [i for i in range(len(paths)) if i not in reasons]
        images = rows[readable] if self.takes_rows else [paths[i] for i in readable]
        columns = self._score_readable(images) if readable else {}
        found = dict(zip(readable, zip(*columns.values())))
        return [
            ScoredImage(path, error=reasons[i])
            if i in reasons
            else ScoredImage(path, **dict(zip(columns, found[i])))
            for i, path in enumerate(paths)
        ]

    def _score_readable(self, X):
        """Return a list of values for each column."""
        head, columns = self.head, {}
        if hasattr(head, "decision_function"):
            columns["score"] = head.decision_function(X).tolist()
        if hasattr(head, "predict_proba"):
            columns["probability"] = head.predict_proba(X)[:, 1].tolist()
        if self.decide is not None:
            columns["verdict"] = self.decide(X).tolist()
        if self.explain is not None:
            columns["explanation"] = self.explain(X)
        return columns


def embedder_of(estimator):
    """Return the first embedder inside an estimator, or None."""
    parts = (part for part in parts_of(estimator) if isinstance(part, CLIPEmbedder))
    return next(parts, None)


def decider_of(estimator):
    """Return what gives verdicts on images, or None where no threshold was chosen.

    Parameters
    ----------
    estimator : classifier
        Fitted to labels 0 and 1.

    Returns
    -------
    decide : callable or None
        Takes images, returns an array of words.
    """
    if isinstance(estimator, Pipeline):
        decide = decider_of(estimator[-1])
        return decide and _behind_other_steps(estimator, decide)
    if isinstance(estimator, AbstainingClassifier):
        return estimator.decide
    if isinstance(estimator, FixedThresholdClassifier):
        return lambda X: WORDS[estimator.predict(X)]
    return None


class Recipe(NamedTuple):
    """How a detector was made, for making others like it."""

    estimator: object  # to be cloned and fitted
    max_fpr: float  # that verdicts were chosen for
    saved: object  # the detector as it is, behind the encoder if that comes first


def recipe_of(estimator):
    """Take the thresholds off a detector, which are chosen anew with each fit.

    Parameters
    ----------
    estimator : classifier
        Fitted.

    Returns
    -------
    recipe : Recipe
    """
    recipe = Recipe(
        *_without_thresholds(estimator, MAX_FPR), _behind_encoder(estimator)
    )
    if any(isinstance(part, FrozenEstimator) for part in parts_of(recipe.estimator)):
        raise ValueError(
            "Got a detector with a frozen part, which cannot be fitted anew, but "
            "expected one whose parts all can; leave --html out."
        )
    return recipe


def _without_thresholds(estimator, max_fpr):
    if isinstance(estimator, Pipeline):
        last, max_fpr = _without_thresholds(estimator[-1], max_fpr)
        return Pipeline(
            [*estimator.steps[:-1], (estimator.steps[-1][0], last)]
        ), max_fpr
    if isinstance(estimator, AbstainingClassifier):
        return _without_thresholds(estimator.estimator, estimator.max_fpr)
    if isinstance(estimator, (FixedThresholdClassifier, FrozenEstimator)):
        return _without_thresholds(estimator.estimator, max_fpr)
    return estimator, max_fpr


def _behind_encoder(estimator):
    """Return what scores rows where an encoder comes first, else images."""
    while isinstance(estimator, (AbstainingClassifier, FixedThresholdClassifier)):
        estimator = estimator.estimator_
    if isinstance(estimator, FrozenEstimator):
        return _behind_encoder(estimator.estimator)
    if isinstance(estimator, Pipeline) and isinstance(estimator[0], CLIPEmbedder):
        estimator = estimator[1:]
    return FrozenEstimator(estimator)


def explainer_of(estimator):
    """Return what takes the scores of images apart.

    Parameters
    ----------
    estimator : classifier
        Fitted.

    Returns
    -------
    explain : callable
        Takes images, returns for each a list of (name, summand of the logit).
    """
    if isinstance(estimator, Pipeline):
        return _behind_other_steps(estimator, explainer_of(estimator[-1]))
    if isinstance(estimator, (AbstainingClassifier, FixedThresholdClassifier)):
        return explainer_of(estimator.estimator_)
    if isinstance(estimator, FrozenEstimator):
        return explainer_of(estimator.estimator)
    if isinstance(estimator, ConceptBottleneckClassifier):
        return lambda X: _largest(estimator, estimator.transform(X))
    if isinstance(estimator, OrthogonalLinearDetector):
        weights = estimator.activation_weights_[0]
        return lambda X: _largest(estimator, estimator.transform(X) * weights)
    raise TypeError(
        f"Got a {type(estimator).__name__} to explain, whose scores have no named "
        "parts, but expected a ConceptBottleneckClassifier or an "
        "OrthogonalLinearDetector; leave --explain out."
    )


def _behind_other_steps(pipeline, method):
    """Let a method of the last step take what the pipeline takes."""
    if len(pipeline) == 1:
        return method
    return lambda X: method(pipeline[:-1].transform(X))


def _largest(estimator, summands):
    names = estimator.get_feature_names_out()
    order = np.argsort(-np.abs(summands), axis=1, kind="stable")[:, :N_SUMMANDS]
    return [
        [(str(names[j]), float(row[j])) for j in columns]
        for row, columns in zip(summands, order)
    ]
