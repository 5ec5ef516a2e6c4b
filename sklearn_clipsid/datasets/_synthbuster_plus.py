"""Fetch SynthBuster+, photographs of RAISE and synthetic images of 13 generators."""

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
    "synthbuster_plus",
    "marco-willi/synthbuster-plus",
    {"train": (8960,), "validation": (2239,), "test": (2800,)},
)


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
    verbose: bool | int = True,
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

    Parameters
    ----------
    data_home : str or path-like, default=None
        Folder for the images, of which the data set takes `clipsid/synthbuster_plus`.
        By default scikit-learn's, see :func:`sklearn.datasets.get_data_home`.

    split : {"train", "validation", "test"}, default=None
        Part to fetch, all by default. No photograph's motif is in two parts.

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
            Generator of a synthetic image, photo source of a photograph. Pass it as
            `groups` to the splitters.
        pair_id : ndarray of shape (n_images,), dtype=str
            The `image_id` that a photograph shares with its synthetic images. It is
            therefore **not unique**; keep the images of one together in splits.
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
    fetch_synthclic : Fetch photographs of CLIC2020 and four recent generators.
    fetch_cnnspot : Fetch GANs and earlier diffusion models.
    load_image_folder : Load the paths of your own images.

    Notes
    -----
    Needs the extra `datasets`. An interrupted download goes on with the next call, in
    the middle of a file. Images are written once, byte by byte as they are stored,
    and named by their sha256; the downloaded files are then removed.

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
            caller="fetch_synthbuster_plus",
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
