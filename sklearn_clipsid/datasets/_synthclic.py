"""Fetch SynthCLIC, photographs of CLIC2020 and synthetic images of their motifs."""

import os

from sklearn.utils import Bunch
from sklearn.utils._param_validation import validate_params

from sklearn_clipsid.datasets._hub_fetch import (
    FETCH_CONSTRAINTS,
    HubDataset,
    HubFetch,
    document_fetch,
)
from sklearn_clipsid.datasets._hub_images import fetch_hub_images

_DATASET = HubDataset(
    "synthclic",
    "marco-willi/synthclic",
    {"train": (8165,), "validation": (510,), "test": (2140,)},
)


@document_fetch
@validate_params(FETCH_CONSTRAINTS, prefer_skip_nested_validation=True)
def fetch_synthclic(
    *,
    data_home: str | os.PathLike[str] | None = None,
    split: str | None = None,
    download_if_missing: bool = True,
    revision: str = "main",
    n_retries: int = 3,
    delay: float = 1.0,
    endpoint: str | None = None,
) -> Bunch:
    """Fetch SynthCLIC: 2,163 photographs, each with four synthetic images.

    The photographs are those of CLIC2020. Imagen 3, Stable Diffusion 3 medium, FLUX.1
    dev and FLUX.1 schnell made one image of each motif [1]_. No motif is in two parts.

    =================   ============================================
    Classes                                                       2
    Samples per class                 2163 (real), 8652 (synthetic)
    Samples total                                             10815
    Samples per part     8165 (train), 510 (validation), 2140 (test)
    =================   ============================================

    {parameters_and_returns}

    See Also
    --------
    fetch_synthbuster_plus : Fetch photographs of RAISE and 13 generators.
    fetch_cnnspot : Fetch GANs and earlier diffusion models.
    load_image_folder : Load the paths of your own images.

    {notes}

    References
    ----------
    .. [1] Willi, Mathys & Graber, arXiv:2602.12381, 2026.

    Examples
    --------
    >>> from sklearn_clipsid.datasets import fetch_synthclic
    >>> images = fetch_synthclic(split="test")  # doctest: +SKIP
    >>> images.data.shape  # doctest: +SKIP
    (2140,)
    """
    return fetch_hub_images(
        HubFetch(
            dataset=_DATASET,
            data_home=data_home,
            split=split,
            download_if_missing=download_if_missing,
            revision=revision,
            n_retries=n_retries,
            delay=delay,
            endpoint=endpoint,
        )
    )
