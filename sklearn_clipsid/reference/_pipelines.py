"""Put the embedder that a published head was trained behind before it."""

from sklearn.pipeline import make_pipeline

from sklearn_clipsid._clip_embedder import CLIPEmbedder
from sklearn_clipsid._precomputed_embedder import PrecomputedEmbedder
from sklearn_clipsid.reference._detectors import KINDS, kind_of
from sklearn_clipsid.reference._heads import load_reference_head

# What decides which vector an image gets, beside the encoder.
SETTINGS = ("features", "normalize", "resize", "apply_exif")
RECIPE = ("model_name", "pretrained", "features", "normalize", "resize")


def reference_pipeline(
    name, checkpoint, *, embedder=None, concept_names=None, **embedder_params
):
    """Make a published detector of images: its embedder, its preprocessing, its head.

    No weights are downloaded before the first image is embedded, and nothing is fitted:
    the pipeline predicts as it is.

    Parameters
    ----------
    name : str
        Of a published detector, or its kind for a checkpoint with other training data;
        see `list_reference_detectors`.

    checkpoint : str or PathLike
        The file of the head; see `load_reference_head`.

    embedder : CLIPEmbedder or PrecomputedEmbedder, default=None
        One of your own, which must give the features that the head was trained on.
        None makes it.

    concept_names : array-like of str of shape (n_concepts,), default=None
        Names for a concept model; see `load_reference_head`.

    **embedder_params : dict
        Parameters of the `CLIPEmbedder` that is made, such as ``pretrained=`` (a local
        file of the same weights), ``cache_dir=``, ``device=`` or ``precision=``.

    Returns
    -------
    pipeline : Pipeline
        From images to verdicts; 1 is synthetic.

    Raises
    ------
    ValueError
        When embedder and head do not belong together. The message says which of the
        two is wrong, and in what: model, features, normalisation, resizing or width.

    See Also
    --------
    list_reference_detectors : The names, with papers, training data and licences.
    load_reference_head : The head alone, for embeddings that you have.
    soft_or_fusion : Fuses the scores of several detectors.

    Notes
    -----
    Of weights in a local file or a repository only architecture and preprocessing are
    compared with the published ones: that they are the same weights is your word.

    Pixels are those of the published code, but for the concept models, whose processor
    may crop one pixel beside ours.

    Pipelines of the same features share their embeddings: in one process, or through
    one `cache_dir`, each image is embedded once for all of them.

    Examples
    --------
    >>> from sklearn_clipsid.reference import reference_pipeline
    >>> detector = reference_pipeline(
    ...     "clip_orthogonal_combined", "clip_orthogonal_combined.ckpt"
    ... )  # doctest: +SKIP
    >>> detector.predict_proba(["photo.jpg"])[:, 1]  # doctest: +SKIP
    """
    kind = kind_of(name)
    head = load_reference_head(checkpoint, kind, concept_names=concept_names)
    if embedder is None:
        recipe = {key: getattr(KINDS[kind], key) for key in RECIPE}
        embedder = CLIPEmbedder(**recipe | embedder_params)
    elif embedder_params:
        raise ValueError(
            f"Got an embedder and {', '.join(embedder_params)}, but expected one of "
            "both; set the parameters of the embedder itself."
        )
    width = _check_embedder(embedder, name, KINDS[kind])
    if head.n_features_in_ != width:
        raise ValueError(
            f"Got {str(checkpoint)!r}, whose head takes {head.n_features_in_} features,"
            f" but expected {width}, as the {KINDS[kind].features} features of "
            f"{KINDS[kind].model_name} for {name!r} have: the head is wrong, not the "
            "embedder. Pass the published file."
        )
    return make_pipeline(embedder, head)


def _check_embedder(embedder, name, kind):
    """Refuse an embedder that is not the published one; return the right width."""
    from sklearn_clipsid._clip._described_encoder import describe_encoder

    published = describe_encoder(kind.model_name, kind.pretrained)
    # No published detector rotates images.
    settings = {key: getattr(kind, key, False) for key in SETTINGS}
    got, encoder = _seen_of(embedder)
    wrong = [
        f"{key}={got[key]!r}, not {settings[key]!r}"
        for key in SETTINGS
        # The concept models scale rows themselves.
        if got[key] != settings[key]
        and not (key == "normalize" and kind is KINDS["cm_antonyms"])
    ]
    wrong += [
        f"{key} {value!r}, not {published[key]!r}"
        for key, value in encoder.items()
        if value != published[key]
    ]
    if wrong:
        raise ValueError(
            f"Got an embedder with {'; '.join(wrong)}, but expected what {name!r} was "
            "trained on: the embedder is wrong, not the head. Leave these settings to "
            f"reference_pipeline, or pass CLIPEmbedder({kind.model_name!r}, "
            f"{kind.pretrained!r}, features={kind.features!r}, "
            f"normalize={kind.normalize}, resize={kind.resize!r})."
        )
    return published["embed_dim" if kind.features == "projected" else "width"]


def _seen_of(embedder):
    """Return the settings of an embedder, and what is known of its encoder."""
    from sklearn_clipsid._clip._described_encoder import describe_encoder

    if isinstance(embedder, PrecomputedEmbedder):
        fingerprint = embedder._open().fingerprint
        truth = {"True": True, "False": False}
        got = {key: truth.get(fingerprint[key], fingerprint[key]) for key in SETTINGS}
        return got, {"config": fingerprint["config"]}
    if not isinstance(embedder, CLIPEmbedder):
        raise TypeError(
            f"Got embedder={embedder!r:.80} but expected a CLIPEmbedder or a "
            "PrecomputedEmbedder, or None to have it made."
        )
    encoder = describe_encoder(
        embedder.model_name, embedder.pretrained, **embedder._weights_place()
    )
    del encoder["config"]  # whose digest says no more
    if encoder["tag"] is None:  # of files and repositories
        del encoder["tag"]
    return {key: getattr(embedder, key) for key in SETTINGS}, encoder
