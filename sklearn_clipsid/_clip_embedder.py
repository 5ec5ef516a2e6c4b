"""Embed images with a frozen CLIP image tower."""

import os
from numbers import Integral

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.utils._param_validation import Interval, StrOptions

from sklearn_clipsid._embedding_memo import MEMO, CacheInfo, EmbeddingMemo
from sklearn_clipsid._embedding_run import EmbeddingRun
from sklearn_clipsid._image_sequence import as_images, describe_unreadable
from sklearn_clipsid._lazy_encoder import (
    EncoderChangedError,
    LazyEncoder,
    check_same_encoder,
    feature_width,
)
from sklearn_clipsid._progress import CallbackSupportMixin, RowProgress, with_callbacks
from sklearn_clipsid._warn_user import warn_user


class CLIPEmbedder(
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseEstimator,
):
    """Embed images with a frozen CLIP image tower.

    The transformer learns nothing: `fit` only notes which encoder it is, so that a
    saved detector can refuse to score features of another one. The weights live in a
    cache of the process, outside the estimator, and are loaded at the first use;
    clones, cross-validation folds and saved files never carry them. Each image is
    embedded once per setting, in a process or with `cache_dir` for good: what is known
    is recognised by the content of the file, so that an overwritten file is never
    answered with an old vector.

    Parameters
    ----------
    model_name : str, default="ViT-L-14-336-quickgelu"
        An architecture of open_clip (``open_clip.list_models()``), or
        ``"hf-hub:ORG/REPO"`` or ``"local-dir:FOLDER"``, which hold their own
        configuration.

    pretrained : str, default="openai"
        The weights: a tag of the architecture (``open_clip.list_pretrained()``), the
        path of a .safetensors or .pt state dict, which may hold the image tower alone,
        or ``"hf-hub:…"`` / ``"local-dir:…"``. Files are read without running any code
        in them.

    features : {"pooled", "projected", "blocks", "heads"} or int, default="pooled"
        Which features to return. "pooled": the class token after the last LayerNorm,
        before the projection (the detector input of [1]_; ViT towers only).
        "projected": in the joint space of images and texts. An integer: the class token
        after that transformer block, counted from 1, or from the last as -1. "blocks":
        those of all blocks side by side, for `BlockSelector`. "heads": what each
        attention head of the last blocks adds to the projected embedding [2]_, for
        `HeadSelector`.

    head_blocks : int, default=4
        How many of the last blocks ``features="heads"`` takes apart. Ignored with other
        features.

    normalize : bool, default=False
        Whether to scale each row to unit Euclidean norm.

    resize : {"model", "bilinear", "crop", "squash"}, default="model"
        How an image becomes a square. "model": as the model's authors do, mostly
        bicubic on the shorter side and a centre crop. "bilinear": the same with
        bilinear interpolation, as [1]_. "crop": the centre at full resolution without
        any resizing, padded with black when the image is smaller. "squash": both sides,
        ignoring the aspect ratio.

    precision : {"fp32", "bf16", "fp16", "auto"}, default="fp32"
        Number format of the matrix products. "auto" takes "bf16" where the hardware
        multiplies it fast (CUDA, CPUs with AMX), else "fp32".

    device : str, default="auto"
        A torch device; "auto" takes CUDA, then MPS, then the CPU.

    batch_size : int, default=32
        Images per forward pass. It does not change the result beyond rounding.

    decode_threads : int or "auto", default="auto"
        Threads that decode images ahead of the forward pass; "auto" takes one per core
        that the process may use, 16 at most.

    cache_dir : str or PathLike, default=None
        Folder on a local disk in which embeddings are kept, for later runs and for
        other processes; any number of them share the work. An interrupted run goes on
        where it was. None remembers them in the memory of this process alone.

    weights_dir : str, default=None
        Where downloaded weights are kept; None for the hub's own folder.

    apply_exif : bool, default=False
        Whether to rotate images as their EXIF orientation says. Published detectors do
        not.

    local_files_only : bool, default=False
        Never download: use weights that are already on this machine.

    on_error : {"raise", "nan"}, default="raise"
        What to do with an image that cannot be read. "raise" names the first one, and
        keeps the rows computed before it. "nan" returns a row of NaN for each
        and warns once; no row is ever dropped.

    verbose : bool, default=False
        Whether to draw a progress bar on standard error.

    Attributes
    ----------
    fingerprint_ : dict of str
        What decides the numbers, noted by `fit`: architecture, digests of weights and
        configuration, features, resize, image size, resolved precision, EXIF rotation,
        normalisation.

    See Also
    --------
    OrthogonalLinearDetector : The usual next step.
    PrecomputedEmbedder : Stands in for it where all images are embedded.
    BlockSelector : Chooses a block of ``features="blocks"``.
    HeadSelector : Chooses among the heads of ``features="heads"``.

    Notes
    -----
    Pixels are exactly what Pillow's ``convert("RGB")`` gives of the first frame, never
    decoded at reduced size, which would destroy what a detector looks at. Only
    panoramas whose scaled copy would exceed 64 million pixels are resampled in the
    centre alone.

    A row does not depend on the others in its batch beyond a cosine distance of 1e-5
    (fp32) or 5e-4 (bf16). In bf16 the residual stream stays in fp32.

    **Heads.** A row of ``features="heads"`` holds one part of `d_projected` features
    for each head, block after block, and last the part of everything else: MLPs,
    biases, earlier blocks. ``row.reshape(-1, d_projected).sum(axis=0)`` is the
    projected embedding, before any `normalize`. A part is the output of the head at the
    class token, through the output matrix of its block, the last LayerNorm, with the
    mean and variance that it has for this image, and the projection. It is computed in
    fp32 from what the blocks see at `precision`, and takes little longer than the pass
    itself (``benchmarks/heads.py``). What later blocks make of a head counts as theirs.
    Rows are wide: 25,088 features or 98 KiB for four blocks of a ViT-B/16, half of that
    in the shards of `embed_to_shards`.

    A row is kept under the content of the image and the fingerprint of the encoder:
    weights, configuration, features, resizing, resolved precision, EXIF rotation. With
    `cache_dir` that is one SQLite file, to which each batch is written when it is
    done; a file of images that has not changed (path, size, times, inode) is not even
    read again, and a run that finds all its rows builds no model. Without, the memory
    holds 512 MiB: 131,000 pooled rows of a ViT-L, 5,400 with all its blocks. A run
    that exceeds it warns. For millions of images see `embed_to_shards`.

    At most ``SKLEARN_CLIPSID_MAX_MODELS`` (environment variable, default 2) models stay
    in memory.

    References
    ----------
    .. [1] M. Willi, M. Mathys, M. Graber, "Synthetic Image Detection with CLIP:
       Understanding and Assessing Predictive Cues", 2026, arXiv 2602.12381.

    .. [2] Y. Gandelsman, A. Efros, J. Steinhardt, "Interpreting CLIP's Image
       Representation via Text-Based Decomposition", ICLR 2024, arXiv 2310.05916.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_clipsid import CLIPEmbedder, OrthogonalLinearDetector
    >>> pipe = make_pipeline(
    ...     CLIPEmbedder("ViT-B-16-quickgelu", "openai", precision="auto"),
    ...     OrthogonalLinearDetector(n_components=8, random_state=0),
    ... )
    >>> pipe.fit(paths, y).predict_proba(more_paths)  # doctest: +SKIP
    """

    _parameter_constraints = {
        "model_name": [str],
        "pretrained": [str],
        "features": [StrOptions({"pooled", "projected", "blocks", "heads"}), Integral],
        "head_blocks": [Interval(Integral, 1, None, closed="left")],
        "normalize": ["boolean"],
        "resize": [StrOptions({"model", "bilinear", "crop", "squash"})],
        "precision": [StrOptions({"fp32", "bf16", "fp16", "auto"})],
        "device": [str, None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "decode_threads": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
        ],
        "cache_dir": [str, os.PathLike, None],
        "weights_dir": [str, os.PathLike, None],
        "apply_exif": ["boolean"],
        "local_files_only": ["boolean"],
        "on_error": [StrOptions({"raise", "nan"})],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        model_name="ViT-L-14-336-quickgelu",
        pretrained="openai",
        *,
        features="pooled",
        head_blocks=4,
        normalize=False,
        resize="model",
        precision="fp32",
        device="auto",
        batch_size=32,
        decode_threads="auto",
        cache_dir=None,
        weights_dir=None,
        apply_exif=False,
        local_files_only=False,
        on_error="raise",
        verbose=False,
    ):
        self.model_name = model_name
        self.pretrained = pretrained
        self.features = features
        self.head_blocks = head_blocks
        self.normalize = normalize
        self.resize = resize
        self.precision = precision
        self.device = device
        self.batch_size = batch_size
        self.decode_threads = decode_threads
        self.cache_dir = cache_dir
        self.weights_dir = weights_dir
        self.apply_exif = apply_exif
        self.local_files_only = local_files_only
        self.on_error = on_error
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Note which encoder this is; nothing is learned from the images.

        Parameters
        ----------
        X : sequence of images of shape (n_samples,)
            As in `transform`. The images are not read.

        y : None
            Ignored.

        Returns
        -------
        self : CLIPEmbedder
            The transformer with `fingerprint_`.
        """
        as_images(X)
        with self._cache() as cache:
            self.fingerprint_ = LazyEncoder(self, cache).fingerprint
        return self

    @with_callbacks
    def fit_transform(self, X, y=None):
        """Note the encoder and embed the images.

        Parameters
        ----------
        X : sequence of images of shape (n_samples,)
            As in `transform`.

        y : None
            Ignored.

        Returns
        -------
        embeddings : ndarray of shape (n_samples, n_features), dtype float32
            One row per image.
        """
        # Before the callbacks are set up, as scikit-learn tears them down after `fit`.
        self.fit(X)
        n_batches = -(-len(as_images(X)) // self.batch_size)
        context = self._begin_callbacks(n_batches)
        embeddings = self._embed(X, context)
        if context is not None:
            context.call_on_fit_task_end(estimator=self)
        return embeddings

    def transform(self, X):
        """Embed images.

        Parameters
        ----------
        X : sequence of images of shape (n_samples,)
            Paths, encoded bytes, `PIL.Image.Image` or uint8 arrays of shape
            (height, width, 3), in a list, a 1-D array, a Series or a frame of one
            column.

        Returns
        -------
        embeddings : ndarray of shape (n_samples, n_features), dtype float32
            One row per image, in their order.

        Raises
        ------
        ValueError
            When an image cannot be read and ``on_error="raise"``, or when the weights
            are not those noted by `fit`.
        """
        self._validate_params()
        return self._embed(X, context=None)

    def preprocess(self, X):
        """Return the pixels that the encoder sees.

        Parameters
        ----------
        X : sequence of images of shape (n_samples,)
            As in `transform`.

        Returns
        -------
        pixels : ndarray of shape (n_samples, size, size, 3), dtype uint8
            The images, resized and cropped as `resize` says. Embedding them again
            gives the same rows. One unreadable image is an error.
        """
        from sklearn_clipsid._read_image import read_model_input

        self._validate_params()
        recipe = self._image_tower().recipe.with_resize(self.resize)
        return read_model_input(as_images(X), recipe, self.apply_exif)

    def embed_text(self, texts):
        """Embed texts in the joint space of images and texts.

        Parameters
        ----------
        texts : sequence of str of shape (n_texts,)
            The texts.

        Returns
        -------
        embeddings : ndarray of shape (n_texts, d_projected), dtype float32
            One row per text, scaled to unit norm when `normalize` is set.
        """
        self._validate_params()
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError(
                f"Got texts={texts!s:.80} but expected at least one string, and "
                "strings only; pass a list of texts."
            )
        return self._scaled(self._text_tower().encode(texts, self.batch_size))

    def projection(self):
        """Return the matrix that takes pooled features to projected ones.

        Returns
        -------
        projection : ndarray of shape (d_pooled, d_projected), dtype float32
            ``pooled @ projection`` equals the projected features.
        """
        self._validate_params()
        return self._image_tower().projection

    def cache_info(self):
        """Return what the cache holds, and how often it was of use.

        Returns
        -------
        info : CacheInfo
            Of the whole `cache_dir`, for all settings and processes, or of the memory
            of this process: `rows` kept, `bytes` taken, and since the cache was begun
            or cleared, `hits` (images answered without a model) and `misses` (images
            embedded).
        """
        self._validate_params()
        if not self._has_cache():  # asking creates no folder
            return CacheInfo(0, 0, 0, 0)
        with self._cache() as cache:
            return cache.info()

    def clear_cache(self):
        """Forget all rows in `cache_dir`, or in the memory of this process.

        Those of other settings and processes are forgotten as well.
        """
        self._validate_params()
        if self._has_cache():
            with self._cache() as cache:
                cache.clear()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.requires_fit = False
        return tags

    @property
    def _n_features_out(self):
        with self._cache() if self._has_cache() else MEMO as cache:
            return feature_width(self, cache)

    @property
    def _tower_features(self):
        """The features, as an image tower is asked for them."""
        if self.features == "heads":
            return ("heads", self.head_blocks)
        return self.features

    def _weights_place(self):
        """Where to find weights."""
        return {
            "weights_dir": None if self.weights_dir is None else str(self.weights_dir),
            "local_files_only": self.local_files_only,
        }

    def _place(self):
        """Where to find weights and where to run them."""
        return {"device": self.device} | self._weights_place()

    def _image_tower(self):
        from sklearn_clipsid._clip import get_image_tower

        return get_image_tower(
            self.model_name, self.pretrained, precision=self.precision, **self._place()
        )

    def _text_tower(self):
        from sklearn_clipsid._clip import get_text_tower

        return get_text_tower(self.model_name, self.pretrained, **self._place())

    def _has_cache(self):
        return self.cache_dir is None or self._cache().is_there()

    def _cache(self):
        if self.cache_dir is None:
            return MEMO
        from sklearn_clipsid._embedding_cache import EmbeddingCache

        return EmbeddingCache(self.cache_dir)

    def _begin_callbacks(self, n_batches):
        if not hasattr(self, "_init_callback_context"):
            return None
        context = self._init_callback_context(max_subtasks=n_batches)
        context.call_on_fit_task_begin(estimator=self)
        return context

    def _embed(self, X, context):
        images = as_images(X)
        with self._cache() as cache:
            encoder = LazyEncoder(self, cache)
            fitted = getattr(self, "fingerprint_", {})
            check_same_encoder(fitted, encoder.fingerprint)
            try:
                embedded = self._run(images, encoder, cache, context)
            except EncoderChangedError:  # since the cache was told what it is
                check_same_encoder(fitted, encoder.fingerprint)
                embedded = self._run(images, encoder, cache, context)
        if embedded.errors:
            failures = [(i, images[i], why) for i, why in embedded.errors.items()]
            warn_user(describe_unreadable(failures))
        if not embedded.all_kept:
            warn_user(
                f"The rows of these {len(images)} images exceed the "
                f"{MEMO.max_bytes // 2**20} MiB that are remembered: another pass "
                "embeds some of them again. Pass cache_dir=FOLDER to keep all, or "
                "embed them once with transform() and cross-validate the detector on "
                "the array."
            )
        return self._scaled(embedded.rows)  # (n_samples, n_features)

    def _embed_apart(self, images):
        """Embed images without any cache, and tell what each contains."""
        nothing = EmbeddingMemo(max_bytes=0)
        embedded = self._run(images, LazyEncoder(self, nothing), nothing, None)
        return embedded._replace(rows=self._scaled(embedded.rows))

    def _run(self, images, encoder, cache, context):
        known = encoder.description
        with RowProgress(
            self,
            len(images),
            self.batch_size,
            description=f"{known['architecture']} on {known['device']}, "
            f"{known['precision']}",
            verbose=self.verbose,
            context=context,
        ) as progress:
            return EmbeddingRun(self, encoder, cache, progress).embed(images)

    def _scaled(self, rows):
        if self.normalize:
            rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return rows
