"""Describe a saved detector: versions, encoder, parameters and limits."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

STAMPED_PACKAGES = (
    "sklearn_clipsid",
    "scikit-learn",
    "numpy",
    "scipy",
    "skops",
    "open_clip_torch",
    "torch",
    "pillow",
)


def package_versions() -> dict[str, str]:
    """Return the installed versions of what a saved detector depends on."""
    versions = {"python": platform.python_version()}
    for package in STAMPED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def render_card(estimator: Any, stamp: dict[str, Any]) -> str:
    """Write the model card that lies in the file.

    Parameters
    ----------
    estimator : estimator
        The detector as it is saved.

    stamp : dict
        "estimator", "versions" and the fingerprints "encoders".

    Returns
    -------
    card : str
        Markdown.
    """
    from skops.card import Card

    encoders = "\n".join(
        "- " + ", ".join(f"{key}: `{value}`" for key, value in sorted(encoder.items()))
        for encoder in stamp["encoders"]
    )
    versions = "\n".join(f"- {k}: {v}" for k, v in sorted(stamp["versions"].items()))
    title = f"{stamp['estimator']} for synthetic image detection"
    card = Card(
        estimator,
        model_diagram=False,
        template={
            title: (
                "Load it with `sklearn_clipsid.persistence.load(file)`, and with "
                "`pretrained=PATH` where the encoder was a local checkpoint. By this "
                "package's convention 1 is synthetic and 0 is a photograph."
            ),
            f"{title}/Encoder": encoders or "None: it takes embeddings.",
            f"{title}/Versions": versions,
            f"{title}/Limits": (
                "The scores are about whole images, not about edited or inpainted "
                "parts. Detectors generalise unevenly to generators and photo sources "
                "that they were not trained on: evaluate with both held out before "
                "relying on a verdict, and choose the threshold on your own "
                "photographs."
            ),
        },
    )
    # The directions of concepts would fill pages.
    with np.printoptions(threshold=1, edgeitems=1):
        card.add_hyperparams(section=f"{title}/Parameters")
    return card.render()
