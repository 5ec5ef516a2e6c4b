"""Fetch SynthBuster+, photographs of RAISE and synthetic images of 13 generators."""

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
    "synthbuster_plus",
    "marco-willi/synthbuster-plus",
    {"train": (8960,), "validation": (2239,), "test": (2800,)},
)


@document_fetch
@validate_params(FETCH_CONSTRAINTS, prefer_skip_nested_validation=True)
def fetch_synthbuster_plus(
    *,
    data_home: str | os.PathLike[str] | None = None,
    split: str | None = None,
    download_if_missing: bool = True,
    revision: str = "main",
    n_retries: int = 3,
    delay: float = 1.0,
    endpoint: str | None = None,
) -> Bunch:
    """Fetch SynthBuster+: 1,000 photographs and 12,999 images of 13 generators.

    The photographs are those of RAISE-1k. To the nine generators of Synthbuster [2]_,
    SynthBuster+ adds Imagen 3, Stable Diffusion 3 medium, FLUX.1 dev and FLUX.1
    schnell [1]_.

    =================   ==============================================
    Classes                                                          2
    Samples per class                    1000 (real), 12999 (synthetic)
    Samples total                                                13999
    Samples per part     8960 (train), 2239 (validation), 2800 (test)
    =================   ==============================================

    {parameters_and_returns}

    See Also
    --------
    fetch_synthclic : Fetch photographs of CLIC2020 and four recent generators.
    fetch_cnnspot : Fetch GANs and earlier diffusion models.
    load_image_folder : Load the paths of your own images.

    {notes}

    References
    ----------
    .. [1] Willi, Mathys & Graber, arXiv:2602.12381, 2026.
    .. [2] Bammey, "Synthbuster: Towards Detection of Diffusion Model Generated
       Images", IEEE Open Journal of Signal Processing, 2024.

    Examples
    --------
    >>> from sklearn_clipsid.datasets import fetch_synthbuster_plus
    >>> images = fetch_synthbuster_plus(split="test")  # doctest: +SKIP
    >>> images.data.shape  # doctest: +SKIP
    (2800,)
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
