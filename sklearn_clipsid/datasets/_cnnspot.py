"""Fetch CNNSpot-small, the benchmark of GANs and earlier diffusion models."""

import os

from sklearn.utils import Bunch
from sklearn.utils._param_validation import validate_params

from sklearn_clipsid.datasets._hub_images import (
    FETCH_CONSTRAINTS,
    HubDataset,
    HubFetch,
    fetch_hub_images,
)

_DATASET = HubDataset(
    "cnnspot",
    "marco-willi/cnnspot-small",
    # The paper drew 4,000 test images for some of its tables, and used all for others.
    {"train": (2000,), "validation": (2000,), "test": (4000, 108310)},
)


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
    verbose: bool | int = True,
) -> Bunch:
    """Fetch CNNSpot-small: GANs and earlier diffusion models, each with photographs.

    Detectors are trained on ProGAN and tested on the other subsets [1]_, to which
    diffusion models were added later [2]_. The paper [3]_ uses this smaller copy.

    ================   ====================================================
    Classes                                                               2
    Samples per part   2000 (train), 2000 (validation), 4000 or 108310 (test)
    ================   ====================================================

    Parameters
    ----------
    data_home : str or path-like, default=None
        Folder for the images, of which the data set takes `clipsid/cnnspot`. By
        default scikit-learn's, see :func:`sklearn.datasets.get_data_home`.

    split : {"train", "validation", "test"}, default=None
        Part to fetch, all by default.

    download_if_missing : bool, default=True
        Whether to download what is not there, instead of raising an error.

    revision : str, default="main"
        Branch, tag or commit of the repository. The first call writes down which
        commit a branch stands for, and later calls keep to it.

    n_retries : int, default=3
        Number of further tries for each file.

    delay : float, default=1.0
        Seconds between tries.

    endpoint : str, default=None
        Address of the hub. None stands for that of huggingface_hub, which the
        environment variable `HF_ENDPOINT` sets.

    verbose : bool, default=True
        Whether to show a bar for what takes longer than five seconds.

    Returns
    -------
    :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        data : ndarray of shape (n_images,), dtype=object
            Paths of the images, as str.
        target : ndarray of shape (n_images,), dtype=int
            1 for synthetic images, 0 for photographs.
        generator : ndarray of shape (n_images,), dtype=str
            Evaluation subset, named for its generator. **Photographs bear the name
            as well**, so that `negatives="matched"` of
            :func:`~sklearn_clipsid.metrics.average_precision_by_generator` compares
            each generator with the photographs of its own subset.
        pair_id : ndarray of shape (n_images,), dtype=str
            The `image_id`, which is **not unique**.
        split : ndarray of shape (n_images,), dtype=str
            Part that the image belongs to.
        ds_name : ndarray of shape (n_images,), dtype=str
            Column of that name.
        target_names : list of str
            `["real", "synthetic"]`.
        DESCR : str
            What the images are, and what to mind.
        folder : str
            Folder of the images.

    Raises
    ------
    OSError
        If a file cannot be had, or is not what the hub declares.
    ValueError
        If columns, labels or the sizes of the parts are not the published ones.

    See Also
    --------
    fetch_synthbuster_plus : Fetch photographs of RAISE and 13 generators.
    fetch_synthclic : Fetch photographs of CLIC2020 and four recent generators.
    load_image_folder : Load the paths of your own images.

    Notes
    -----
    Needs the extra `datasets`. An interrupted download goes on with the next call, in
    the middle of a file. Images are written once, byte by byte as they are stored,
    and named by their sha256; the downloaded files are then removed.

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
            caller="fetch_cnnspot",
            data_home=data_home,
            split=split,
            download_if_missing=download_if_missing,
            revision=revision,
            n_retries=n_retries,
            delay=delay,
            endpoint=endpoint,
            verbose=verbose,
        )
    )
