"""Fetch CNNSpot-small, the benchmark of GANs and earlier diffusion models."""

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
    "cnnspot",
    "marco-willi/cnnspot-small",
    # The paper drew 4,000 test images for some of its tables, and used all for others.
    {"train": (2000,), "validation": (2000,), "test": (4000, 108310)},
)


@document_fetch
@validate_params(FETCH_CONSTRAINTS, prefer_skip_nested_validation=True)
def fetch_cnnspot(
    *,
    data_home: str | os.PathLike[str] | None = None,
    split: str | None = None,
    download_if_missing: bool = True,
    revision: str = "main",
    n_retries: int = 3,
    delay: float = 1.0,
    endpoint: str | None = None,
) -> Bunch:
    """Fetch CNNSpot-small: GANs and earlier diffusion models, each with photographs.

    Detectors are trained on ProGAN and tested on the other subsets [1]_, to which
    diffusion models were added later [2]_. The paper [3]_ uses this smaller copy.

    `generator` is the evaluation subset, and **photographs bear its name as well**:
    with `negatives="matched"`
    :func:`~sklearn_clipsid.metrics.average_precision_by_generator` compares each
    generator with the photographs of its own subset.

    =================   =====================================================
    Classes                                                                2
    Samples per part    2000 (train), 2000 (validation), 4000 or 108310 (test)
    =================   =====================================================

    {parameters_and_returns}

    See Also
    --------
    fetch_synthbuster_plus : Fetch photographs of RAISE and 13 generators.
    fetch_synthclic : Fetch photographs of CLIC2020 and four recent generators.
    load_image_folder : Load the paths of your own images.

    {notes}

    References
    ----------
    .. [1] Wang et al., "CNN-Generated Images Are Surprisingly Easy to Spot... for
       Now", CVPR 2020.
    .. [2] Ojha, Li & Lee, "Towards Universal Fake Image Detectors that Generalize
       Across Generative Models", CVPR 2023.
    .. [3] Willi, Mathys & Graber, arXiv:2602.12381, 2026.

    Examples
    --------
    >>> from sklearn_clipsid.datasets import fetch_cnnspot
    >>> images = fetch_cnnspot(split="train")  # doctest: +SKIP
    >>> images.data.shape  # doctest: +SKIP
    (2000,)
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
