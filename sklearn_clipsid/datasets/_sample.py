"""Load CLIP embeddings of real and synthetic images that come with the package."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from sklearn_clipsid.datasets._label_words import TARGET_NAMES

_FOLDER = Path(__file__).parent
_FEATURES = ("pooled", "projected")

# What the rows were computed with. A detector fitted on them only means something
# behind an encoder with this fingerprint.
SAMPLE_ENCODER: dict[str, str] = {
    "architecture": "ViT-B-16-quickgelu",
    "config": "1d4f448db5c69afe",
    "weights": "4c1cde252ba91dec73944ba439c5ce36",
    "resize": "model",
    "image_size": "224",
    "precision": "bf16",
    "apply_exif": "False",
    "normalize": "False",
}


def load_sample_embeddings(
    *, features: str = "pooled", return_X_y: bool = False
) -> Bunch | tuple[np.ndarray, np.ndarray]:
    """Load CLIP embeddings of 980 photographs and 1,070 synthetic images.

    The photographs come from 7 sources, the synthetic images from 11 generators.

    =================   ==================================
    Classes                                              2
    Samples per class          980 (real), 1070 (synthetic)
    Samples total                                     2050
    Dimensionality         768 (pooled) or 512 (projected)
    =================   ==================================

    Parameters
    ----------
    features : {"pooled", "projected"}, default="pooled"
        Which vector of each image to load: the class token after the last layer
        normalisation, or its projection into the space shared with texts.

    return_X_y : bool, default=False
        Whether to return `(data, target)` instead of a Bunch.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        data : ndarray of shape (2050, n_features), dtype=float32
            The embeddings, not normalised.
        target : ndarray of shape (2050,), dtype=int
            1 for synthetic images, 0 for photographs.
        generator : ndarray of shape (2050,), dtype=str
            Generator of a synthetic image, photo source of a photograph. Pass it as
            `groups` to the splitters.
        pair_id : ndarray of shape (2050,), dtype=str
            Name shared by the images of one motif (one prompt, or one photographed
            object), "" where unknown.
        source : ndarray of shape (2050,), dtype=str
            Public repository that the image was taken from.
        sha256 : ndarray of shape (2050,), dtype=str
            Digest of the image file as published.
        feature_names : list of str
            The names that :class:`~sklearn_clipsid.CLIPEmbedder` gives its outputs.
        target_names : list of str
            `["real", "synthetic"]`.
        encoder : dict
            Fingerprint of the encoder that computed the rows.
        DESCR : str
            How the rows were made, their sources, licences and limits.
        filename : str
            Path of the file with the arrays.

    (data, target) : tuple, if `return_X_y=True`
        The embeddings and their labels.

    See Also
    --------
    load_image_folder : Load the paths of your own images.
    make_paired_images : Write a small set of stand-in images.

    Notes
    -----
    What is fitted on these rows is bound to the encoder that made them: do not use
    it behind another encoder.

    Examples
    --------
    >>> from sklearn_clipsid.datasets import load_sample_embeddings
    >>> sample = load_sample_embeddings()
    >>> sample.data.shape
    (2050, 768)
    >>> sample.target_names
    ['real', 'synthetic']
    >>> X, y = load_sample_embeddings(features="projected", return_X_y=True)
    >>> X.shape, y.mean().round(3)
    ((2050, 512), np.float64(0.522))
    """
    check_features(features)
    filename = _FOLDER / "data" / "clip_vitb16_sample.npz"
    with np.load(filename) as arrays:
        # Stored in half precision, which is more than bfloat16 can tell apart.
        X = arrays[features].astype(np.float32)  # (n_samples, n_features)
        y = arrays["target"].astype(np.int64)  # (n_samples,)
        columns = {
            name: arrays[name] for name in ("generator", "pair_id", "source", "sha256")
        }
    if return_X_y:
        return X, y
    return Bunch(
        data=X,
        target=y,
        **columns,
        feature_names=[f"clipembedder{i}" for i in range(X.shape[1])],
        target_names=list(TARGET_NAMES),
        encoder=sample_fingerprint(features),
        DESCR=_description(),
        filename=str(filename),
    )


def check_features(features: str) -> None:
    """Raise unless there is a sample of these features.

    Parameters
    ----------
    features : str
        To be loaded.
    """
    if features not in _FEATURES:
        raise ValueError(
            f"Got features={features!r} but expected one of {_FEATURES}; other "
            "features can be had from your own images with CLIPEmbedder."
        )


def sample_fingerprint(features: str) -> dict[str, Any]:
    """Return the fingerprint of the encoder of the sample.

    Parameters
    ----------
    features : {"pooled", "projected"}
        Which of its features.

    Returns
    -------
    fingerprint : dict
        As `CLIPEmbedder` computes it.
    """
    return SAMPLE_ENCODER | {"features": features}


def _description() -> str:
    """Complete the description with the table of sources, which is data."""
    text = (_FOLDER / "descr" / "sample_embeddings.rst").read_text(encoding="utf-8")
    with open(_FOLDER / "data" / "sources.csv", encoding="utf-8", newline="") as stream:
        rows = [
            (
                row["generator"],
                TARGET_NAMES[int(row["label"])],
                row["n"],
                row["source_repo"],
                row["licence"],
            )
            for row in csv.DictReader(stream)
        ]
    return text.rstrip() + "\n\n" + _rst_table(rows)


def _rst_table(rows: Sequence[tuple[str, ...]]) -> str:
    header = ("Generator or source", "Class", "Images", "Repository", "Licence")
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    rule = "  ".join("=" * width for width in widths)
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
        for row in (header, *rows)
    ]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule]) + "\n"
