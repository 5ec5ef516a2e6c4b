"""Know the published detectors: where they come from and how they see an image."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Kind:
    """Detectors that differ in their training data alone."""

    paper: str
    repository: str
    licence: str
    model_name: str
    pretrained: str
    features: str
    normalize: bool
    resize: str


_WILLI = {
    "paper": "Willi, Mathys, Graber 2026, arXiv 2602.12381",
    "repository": "https://github.com/marco-willi/clip-cues",
    "licence": "MIT",
    "model_name": "ViT-L-14-336-quickgelu",
    "pretrained": "openai",
    "normalize": False,
}
#: How each kind sees an image.
KINDS = {
    "clip_orthogonal": Kind(**_WILLI, features="pooled", resize="bilinear"),
    "linear_probe": Kind(**_WILLI, features="pooled", resize="bilinear"),
    # Not bilinear: its training and its published inference use CLIP's own processor.
    "cm_antonyms": Kind(**_WILLI, features="projected", resize="model"),
    "universal_fake_detect": Kind(
        paper="Ojha, Li, Lee, CVPR 2023, arXiv 2302.10174",
        repository="https://github.com/WisconsinAIVision/UniversalFakeDetect",
        licence="MIT",
        model_name="ViT-L-14-quickgelu",
        pretrained="openai",
        features="projected",
        normalize=False,
        resize="crop",
    ),
    "clipdet": Kind(
        paper="Cozzolino et al., CVPR Workshops 2024, arXiv 2312.00195",
        repository="https://github.com/grip-unina/ClipBased-SyntheticImageDetection",
        licence="Apache-2.0",
        model_name="ViT-L-14",
        pretrained="commonpool_xl_s13b_b90k",
        features="pooled",
        normalize=True,
        resize="model",
    ),
}
_CORPORA = {
    "synthclic": "SynthCLIC",
    "synthbuster": "SynthBuster+",
    "cnnspot": "CNNSpot (ProGAN)",
    "combined": "SynthCLIC, SynthBuster+ and CNNSpot",
}
_LATENT = "10,000 COCO photographs, 10,000 images of latent diffusion"
#: Name of each detector: its kind and what it was trained on.
DETECTORS = {
    f"{kind}_{corpus}": (kind, training_data)
    for kind in ("clip_orthogonal", "linear_probe", "cm_antonyms")
    for corpus, training_data in _CORPORA.items()
} | {
    "universal_fake_detect": (
        "universal_fake_detect",
        "LSUN photographs and ProGAN images of CNNSpot",
    ),
    "clipdet_latent10k": ("clipdet", _LATENT),
    "clipdet_latent10k_plus": ("clipdet", f"{_LATENT}, with augmentation"),
}
#: mAP of these detectors, and on what it was measured.
PUBLISHED = {
    "clip_orthogonal_synthclic": (0.9209, "SynthCLIC test, 4 generators"),
    "linear_probe_combined": (0.8812, "SynthCLIC test, 4 generators"),
    "universal_fake_detect": (
        0.9014,
        "19 test sets, run again by others (arXiv 2411.15633)",
    ),
}


def list_reference_detectors():
    """List the published detectors that can be loaded.

    None of them comes with this package: get the files from the repositories.

    Returns
    -------
    detectors : list of dict
        One per published file: its `name` and `kind`, either of which
        `reference_pipeline` takes; `paper`, `training_data`, `licence` and
        `repository`; `published_map`, a mean average precision published for it, and
        `published_on`, on which images and, if not by its authors, by whom, both None
        where none was found; and the parameters of its `CLIPEmbedder`.
        ``pandas.DataFrame(detectors)`` is the table.

    See Also
    --------
    reference_pipeline : Makes a detector of images from a published file.

    Notes
    -----
    Figures of different test sets cannot be compared. The licence is that of the
    repository; those of the encoder's weights and of the training images are another
    matter.

    Examples
    --------
    >>> from sklearn_clipsid.reference import list_reference_detectors
    >>> detectors = list_reference_detectors()
    >>> len(detectors)
    15
    >>> detectors[0]["name"], detectors[0]["training_data"], detectors[0]["licence"]
    ('clip_orthogonal_synthclic', 'SynthCLIC', 'MIT')
    """
    rows = []
    for name, (kind, training_data) in DETECTORS.items():
        published_map, published_on = PUBLISHED.get(name, (None, None))
        rows.append(
            {
                "name": name,
                "kind": kind,
                "training_data": training_data,
                "published_map": published_map,
                "published_on": published_on,
                **asdict(KINDS[kind]),
            }
        )
    return rows


def kind_of(name):
    """Return the kind that the name of a detector stands for.

    Parameters
    ----------
    name : str
        Of a detector or of a kind.

    Returns
    -------
    kind : str
        A key of `KINDS`.
    """
    if name in list(KINDS):
        return name
    if name not in list(DETECTORS):
        raise ValueError(
            f"Got name={name!r} but expected a published detector "
            f"({', '.join(DETECTORS)}) or, for a file with other training data, its "
            f"kind ({', '.join(KINDS)}); see list_reference_detectors()."
        )
    return DETECTORS[name][0]
