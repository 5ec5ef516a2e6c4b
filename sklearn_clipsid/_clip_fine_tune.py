"""Fine-tune CLIP to tell photographs and generators apart (Moskowitz et al. 2024)."""

import os
from numbers import Integral, Real

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state, column_or_1d, compute_class_weight
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import (
    _check_partial_fit_first_call,
    check_classification_targets,
)
from sklearn.utils.validation import check_is_fitted

from sklearn_clipsid._class_vectors import (
    caption_vectors,
    class_means,
    uses_text_tower,
)
from sklearn_clipsid._clip._cosine_model import (
    CLASS_VECTORS,
    LOG_SCALE,
    TEXT,
    CosineModel,
)
from sklearn_clipsid._clip._fine_tuning import TrainingRecipe, TrainingSet, fine_tune
from sklearn_clipsid._clip_embedder import CLIPEmbedder
from sklearn_clipsid._frozen_rows import FrozenEncoder, ImageRows
from sklearn_clipsid._groups import check_length, list_rows
from sklearn_clipsid._image_sequence import as_images
from sklearn_clipsid._pair_split import hold_out_pairs, pair_units
from sklearn_clipsid._progress import RowProgress
from sklearn_clipsid._training_key import training_key
from sklearn_clipsid._training_rows import MIN_SAMPLES_TO_STOP_EARLY
from sklearn_clipsid._unit_rows import unit_rows
from sklearn_clipsid._warn_user import warn_user

# Of the tower. Low-rank updates start from zero and take larger steps.
LEARNING_RATES = {"all": 1e-5, "blocks": 1e-4, "lora": 1e-3, "head": 0.0}
DAMAGED = "the file is damaged or was changed by hand."
LARGEST_SEED = 2**31 - 1


class CLIPFineTuneClassifier(ClassifierMixin, BaseEstimator):
    r"""Fine-tune CLIP to tell photographs and generators apart.

    Classes are captions, and an image belongs to the caption whose embedding is nearest
    to its own, as in CLIP itself [1]_. Training moves images towards the caption of
    their class. One model says whether an image is AI-generated and which generator
    made it. With two classes it is a detector.

    Only what training changes is kept, as arrays. The other weights are those of the
    embedder, and the model refuses to work with any others.

    Parameters
    ----------
    embedder : CLIPEmbedder, default=None
        The encoder: weights, resizing, precision, device. Its `features` and
        `normalize` say what `embed` returns. None takes ``CLIPEmbedder()``.

    train : {"all", "blocks", "lora", "head"}, default="blocks"
        What is trained beside the temperature. "head": the class vectors. "blocks": the
        last `n_blocks` transformer blocks, the last LayerNorm and the projection as
        well. "lora": updates of rank `lora_rank` of the four matrices of these blocks
        instead [2]_. "all": the whole image tower, and the text tower if class vectors
        start from it.

    n_blocks : int, default=2
        How many of the last blocks "blocks" and "lora" train.

    lora_rank : int, default=8
        Rank of the updates of ``train="lora"``.

    caption : str, default="a photo from {label}"
        The caption of a class, with its label in the place of ``{label}``.

    class_vectors : {"auto", "text", "means"}, default="auto"
        Where class vectors start: from the text embeddings of the captions, or from the
        mean direction of the embedded training images of the class. "auto" takes the
        text tower if the weights hold one.

    logit_scale : float, default=30.0
        The factor of the cosines at the start, which is learned.

    real_label : int or str, default=None
        The class of photographs. None takes "real" or 0, if that is a class.

    learning_rate_init : float or "auto", default="auto"
        Largest learning rate of the towers. "auto" takes 1e-5 for "all", 1e-4 for
        "blocks" and 1e-3 for "lora".

    head_learning_rate_init : float, default=1e-3
        Largest learning rate of the class vectors and the temperature.

    alpha : float, default=0.01
        Weight decay of AdamW, on the matrices of the towers.

    batch_size : int, default=16
        Images of a training step.

    max_iter : int, default=10
        Epochs, at most.

    warmup_fraction : float, default=0.1
        Share of the steps in which learning rates rise. They fall along a cosine
        afterwards.

    max_grad_norm : float, default=1.0
        Longer gradients are scaled to this norm. None leaves them.

    early_stopping : bool or "auto", default="auto"
        Whether to hold out `validation_fraction` of the images, keep the state of the
        lowest loss on them and stop `n_iter_no_change` epochs after it. "auto": from
        200 images on, if each class has two.

    validation_fraction : float, default=0.1
        Share of each class to hold out, one image at least.

    n_iter_no_change : int, default=3
        Epochs without a new minimum before stopping.

    augment : bool, default=False
        Whether to train on another random view of each image in every epoch: cropped,
        scaled, mirrored and compressed as by `ViewAugmentedClassifier`. The frozen
        blocks then run in every epoch.

    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the loss. `fit` scales those of the images to a mean
        of 1; `partial_fit` takes them as they are, and no "balanced".

    checkpoint_dir : str or PathLike, default=None
        Folder in which `fit` writes its state after each epoch. `fit` with the same
        images, labels, parameters and weights takes it up from there. Needs an integer
        `random_state`.

    random_state : int, RandomState instance or None, default=None
        Draws held-out images, batches, views and the start of low-rank updates.

    verbose : bool, default=False
        Whether to draw a progress bar of the training on standard error.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.

    captions_ : list of str
        Their captions.

    class_vectors_ : ndarray of shape (n_classes, d_projected), dtype float32
        The vectors that images are compared with. Their length means nothing.

    logit_scale_ : float
        The factor of the cosines.

    tensors_ : dict of ndarray
        What has been trained of the towers, named as in the checkpoint of the encoder,
        with ``.lora_up`` and ``.lora_down`` for updates and ``text.`` before those of
        the text tower.

    embedder_ : CLIPEmbedder
        The encoder before training, with its fingerprint.

    loss_curve_ : ndarray of shape (`n_iter_`,)
        Mean training loss of each epoch.

    validation_loss_curve_ : ndarray of shape (`n_iter_`,) or None
        Loss on the held-out images after each epoch. None without early stopping.

    n_iter_ : int
        Epochs.

    Warns
    -----
    ConvergenceWarning
        When a loss or gradient is not finite. It names the batch; training stops, and
        the last sound state is kept.

    See Also
    --------
    CLIPEmbedder : The frozen encoder; the usual first step.
    OrthogonalLinearDetector : Classifies frozen embeddings, or those of `embed`.
    ViewAugmentedClassifier : Trains a detector of frozen embeddings on views.

    Notes
    -----
    With image embedding :math:`f(x)`, class vectors :math:`g_c`, which the text tower
    makes of captions or which are trained themselves, and N scaling to unit norm, `fit`
    minimises

    .. math:: -\frac{1}{n} \sum_i \log \frac{e^{z_{iy_i}}}{\sum_c e^{z_{ic}}},
        \qquad z_{ic} = e^t \langle N(f(x_i)), N(g_c) \rangle .

    [1]_ tells pairs of images and captions apart within a batch. Where a batch holds
    several images of one class, several captions are right. So the loss here goes over
    the captions of all classes. The learning rates and the number of epochs of [1]_ are
    not known to us. `predict_synthetic_proba` is 1 - P(real).

    **What it costs.** What lies before the trained blocks never changes. It is computed
    once for each image and held in memory while `fit` runs: 296 KiB for each image for
    ViT-B/16 in bf16, twice that in fp32. 512 MiB of it are remembered for other folds,
    and nothing of it is written to the `cache_dir` of the embedder, which serves
    ``train="head"`` alone. Of the last block only what the class token needs is
    computed. Two blocks of a ViT-B/16 are 54 MB in a file, updates of rank 8 are 0.8
    MB.

    **Held-out images.** Images of one pair are on one side. Pass ``groups`` with pair
    ids in a second column, as to
    :class:`~sklearn_clipsid.model_selection.LeaveOneGeneratorOut`. A cross-validation
    hands them on to `fit` with ``sklearn.set_config(enable_metadata_routing=True)``.

    **Taken up again.** On one machine and on a CPU, training that was broken off ends
    with the weights that it would have had. A checkpoint is a file of arrays named
    after its training, so that the folds of a cross-validation share a folder. It
    holds four times the trained weights until training is over, then once. Delete the
    folder when you are done. The frozen part runs again after a new start. In another
    composition of batches its last bits may differ.

    **Seen generators only.** A class for each generator has no place for a generator
    that is new. Test detection on generators that were held out before relying on it.

    References
    ----------
    .. [1] A. Moskowitz, T. Gaona, J. Peterson, "Detecting AI-Generated Images via
       CLIP", 2024, arXiv 2404.08788.

    .. [2] E. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR
       2022, arXiv 2106.09685.

    Examples
    --------
    >>> from sklearn_clipsid import CLIPEmbedder, CLIPFineTuneClassifier
    >>> embedder = CLIPEmbedder("ViT-B-16-quickgelu", "openai", precision="auto")
    >>> model = CLIPFineTuneClassifier(embedder, train="blocks", random_state=0)
    >>> model.fit(paths, generators).predict(more_paths)  # doctest: +SKIP
    >>> model.predict_synthetic_proba(more_paths)  # doctest: +SKIP
    """

    # Routed by default: without pair ids other rows would be set aside.
    __metadata_request__fit = {"groups": True}

    _parameter_constraints = {
        "embedder": [CLIPEmbedder, None],
        "train": [StrOptions({"all", "blocks", "lora", "head"})],
        "n_blocks": [Interval(Integral, 1, None, closed="left")],
        "lora_rank": [Interval(Integral, 1, None, closed="left")],
        "caption": [str],
        "class_vectors": [StrOptions({"auto", "text", "means"})],
        "logit_scale": [Interval(Real, 1e-4, 1e4, closed="both")],
        "real_label": "no_validation",
        "learning_rate_init": [
            Interval(Real, 0, 1e4, closed="both"),
            StrOptions({"auto"}),
        ],
        "head_learning_rate_init": [Interval(Real, 0, 1e4, closed="both")],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "warmup_fraction": [Interval(Real, 0, 1, closed="left")],
        "max_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
        "early_stopping": ["boolean", StrOptions({"auto"})],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "augment": ["boolean"],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "checkpoint_dir": [str, os.PathLike, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        embedder=None,
        *,
        train="blocks",
        n_blocks=2,
        lora_rank=8,
        caption="a photo from {label}",
        class_vectors="auto",
        logit_scale=30.0,
        real_label=None,
        learning_rate_init="auto",
        head_learning_rate_init=1e-3,
        alpha=0.01,
        batch_size=16,
        max_iter=10,
        warmup_fraction=0.1,
        max_grad_norm=1.0,
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=3,
        augment=False,
        class_weight=None,
        checkpoint_dir=None,
        random_state=None,
        verbose=False,
    ):
        self.embedder = embedder
        self.train = train
        self.n_blocks = n_blocks
        self.lora_rank = lora_rank
        self.caption = caption
        self.class_vectors = class_vectors
        self.logit_scale = logit_scale
        self.real_label = real_label
        self.learning_rate_init = learning_rate_init
        self.head_learning_rate_init = head_learning_rate_init
        self.alpha = alpha
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.warmup_fraction = warmup_fraction
        self.max_grad_norm = max_grad_norm
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.augment = augment
        self.class_weight = class_weight
        self.checkpoint_dir = checkpoint_dir
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, groups=None):
        """Fine-tune the encoder.

        Parameters
        ----------
        X : sequence of images of shape (n_samples,)
            What :class:`~sklearn_clipsid.CLIPEmbedder` takes.

        y : array-like of shape (n_samples,)
            Labels: the generator of each image and "real", or 0 and 1.

        groups : array-like of shape (n_samples, 2), default=None
            Sources and pair ids. Images of one pair are held out together for early
            stopping; sources are not used.

        Returns
        -------
        self : CLIPFineTuneClassifier
            The fitted classifier.
        """
        images, y = self._checked(X, y)
        vars(self).pop("tensors_", None)  # not fitted until training has ended
        self.classes_, codes = np.unique(y, return_inverse=True)
        self._start_encoder(images)
        random_state = check_random_state(self.random_state)
        train, held_out = self._split(codes, groups, random_state)
        weights = self._weights(codes)
        seed = random_state.randint(LARGEST_SEED)
        encoder = self._encoder()
        model = self._model(encoder)
        texts = self._text_vectors(encoder)
        images = ImageRows(encoder, images, self.augment, seed)
        rows = TrainingSet(images, codes, weights / weights.mean(), train, held_out)
        start = self._start(model, rows, seed, texts)
        return self._run(model, start, rows, self._recipe(seed, self.max_iter))

    @_fit_context(prefer_skip_nested_validation=False)
    def partial_fit(self, X, y, classes=None):
        """Visit new images of known classes once.

        Learning rates are the largest ones. The optimiser's moments start afresh at
        each call, and no images are held out.

        Parameters
        ----------
        X : sequence of images of shape (n_samples,)
            What :class:`~sklearn_clipsid.CLIPEmbedder` takes.

        y : array-like of shape (n_samples,)
            Labels out of the known classes.

        classes : array-like of shape (n_classes,), default=None
            All labels; needed at the first call of a classifier that is not fitted.
            Images of each must be in this call, unless class vectors start from texts.

        Returns
        -------
        self : CLIPFineTuneClassifier
            The updated classifier.
        """
        first = not hasattr(self, "tensors_")
        images, y = self._checked(X, y)
        if first:
            vars(self).pop("classes_", None)  # of a call that failed
        _check_partial_fit_first_call(self, classes)
        codes = self._known_codes(y)
        weights = self._weights(codes, partial=True)
        seed = check_random_state(self.random_state).randint(LARGEST_SEED)
        if first:
            self._start_encoder(images)
        encoder = self._encoder() if first else self._tuned_encoder()[0]
        model = self._model(encoder)
        before = self._text_vectors(encoder) if first else self._continued(model)
        images = ImageRows(encoder, images, self.augment, seed)
        all_rows = np.arange(len(codes))
        rows = TrainingSet(images, codes, weights, all_rows, all_rows[:0])
        start = self._start(model, rows, seed, before) if first else before
        n_done = 0 if first else self.n_iter_
        return self._run(model, start, rows, self._recipe(seed, None), n_done)

    def decision_function(self, X):
        """Return the logits.

        Parameters
        ----------
        X : sequence of images of shape (n_samples,)
            What :class:`~sklearn_clipsid.CLIPEmbedder` takes.

        Returns
        -------
        logits : ndarray of shape (n_samples,) or (n_samples, n_classes)
            Positive for ``classes_[1]`` when there are two classes.
        """
        logits = self._logits(X)  # (n_samples, n_classes)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X):
        """Return the probabilities of the classes.

        Parameters
        ----------
        X : sequence of images of shape (n_samples,)
            What :class:`~sklearn_clipsid.CLIPEmbedder` takes.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            Each row sums to 1.
        """
        return softmax(self._logits(X), axis=1)  # (n_samples, n_classes)

    def predict(self, X):
        """Return the likeliest class.

        Parameters
        ----------
        X : sequence of images of shape (n_samples,)
            What :class:`~sklearn_clipsid.CLIPEmbedder` takes.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            Values of `classes_`.
        """
        codes = self._logits(X).argmax(axis=1)  # says so when it is not fitted
        return self.classes_[codes]

    def predict_synthetic_proba(self, X):
        """Return the probability that an image is no photograph.

        Parameters
        ----------
        X : sequence of images of shape (n_samples,)
            What :class:`~sklearn_clipsid.CLIPEmbedder` takes.

        Returns
        -------
        probabilities : ndarray of shape (n_samples,)
            1 minus the probability of `real_label`.
        """
        check_is_fitted(self, "tensors_")
        real = self._real_code()
        return 1 - self.predict_proba(X)[:, real]

    def embed(self, X):
        """Return the tuned features.

        Parameters
        ----------
        X : sequence of images of shape (n_samples,)
            What :class:`~sklearn_clipsid.CLIPEmbedder` takes.

        Returns
        -------
        embeddings : ndarray of shape (n_samples, n_features)
            Those that the embedder names, after training. With ``train="head"``
            those of the embedder itself.
        """
        check_is_fitted(self, "tensors_")
        if self.train == "head":
            self._tuned_encoder()
            return self.embedder_.transform(X)
        rows = self._embedded(X, 1 if self.embedder_.features == "projected" else 0)
        return unit_rows(rows)[0] if self.embedder_.normalize else rows

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags

    def __setstate__(self, state):
        super().__setstate__(state)
        if "tensors_" in vars(self):
            # Of the class: the state itself could hold that name.
            type(self)._check_stored_arrays(self)

    def _checked(self, X, y):
        """Return the images and their labels, or say what is wrong with them."""
        images = as_images(X)
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but "
                "the target y is None; pass the generator of each image, or 'real'."
            )
        y = column_or_1d(y, warn=True)
        check_length(y, len(images), "y")
        is_text = np.array([isinstance(label, str) for label in y.tolist()])
        if is_text.any() and not is_text.all():
            raise ValueError(
                f"Got y with texts and other labels in {list_rows(~is_text)} but "
                "expected labels of one kind; write all of them as texts, and leave "
                "out images without a label."
            )
        check_classification_targets(y)
        self._check_parameters()
        return images, y

    def _check_parameters(self):
        if "{label}" not in self.caption:
            raise ValueError(
                f"Got caption={self.caption!r} but expected '{{label}}' in it, where "
                "the name of a class goes; else all classes have one caption."
            )
        embedder = self._asked_embedder()
        if embedder.features not in ("pooled", "projected"):
            raise ValueError(
                f"Got an embedder with features={embedder.features!r} but expected "
                "'pooled' or 'projected', which embed(X) returns; set one of them."
            )
        if embedder.on_error != "raise":
            raise ValueError(
                f"Got an embedder with on_error={embedder.on_error!r} but expected "
                "'raise', as a row of NaN has no class; leave out the images that "
                "cannot be read."
            )
        is_fixed = isinstance(self.random_state, Integral)
        if self.checkpoint_dir is not None and not is_fixed:
            raise ValueError(
                f"Got random_state={self.random_state!r} with a checkpoint_dir but "
                "expected an integer, or the next run would draw other batches than "
                "the one it takes up; pass random_state=0."
            )
        if self.checkpoint_dir is not None:
            try:
                os.makedirs(os.path.expanduser(self.checkpoint_dir), exist_ok=True)
            except OSError as error:
                raise ValueError(
                    f"Got checkpoint_dir={self.checkpoint_dir!r}, which cannot be made "
                    f"({error.strerror}), but expected a folder; pass another."
                ) from error

    def _asked_embedder(self):
        return CLIPEmbedder() if self.embedder is None else self.embedder

    def _start_encoder(self, images):
        """Note which encoder this is, and which captions its classes have."""
        if len(self.classes_) < 2:
            raise ValueError(
                f"Got only one class ({self.classes_.tolist()}) but expected at least "
                "two; add photographs, or images of another generator."
            )
        self._real_code(required=self.real_label is not None)
        self.captions_ = [
            self.caption.replace("{label}", str(label)) for label in self.classes_
        ]
        self.embedder_ = clone(self._asked_embedder()).fit(images)

    def _real_code(self, required=True):
        """Return which class is real; None when that is unknown and not required."""
        classes = self.classes_.tolist()
        guesses = ["real", 0] if self.real_label is None else [self.real_label]
        for guess in guesses:
            if guess in classes:
                return classes.index(guess)
        if not required:
            return None
        raise ValueError(
            f"Got real_label={self.real_label!r} but expected one of the classes "
            f"{classes}; pass the one whose images are photographs. A fitted model "
            "takes it by set_params(real_label=...)."
        )

    def _known_codes(self, y):
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(
                f"Got the labels {unknown.tolist()} but expected some of the classes "
                f"{self.classes_.tolist()}; fit again to add a class."
            )
        return np.searchsorted(self.classes_, y)

    def _split(self, codes, groups, random_state):
        """Return the rows to train on and those to stop on."""
        unit = pair_units(groups, len(codes))
        everything = np.arange(len(codes))
        stop = self.early_stopping
        if stop == "auto":
            enough = len(codes) >= MIN_SAMPLES_TO_STOP_EARLY
            stop = enough and np.bincount(codes).min() >= 2
        if not stop:
            return everything, everything[:0]
        train, held_out = hold_out_pairs(
            codes, unit, self.validation_fraction, random_state
        )
        if not len(held_out) and self.early_stopping is True:
            raise ValueError(
                f"Got {len(codes)} images of which no pair can be held out to stop on, "
                "as each holds the last image of a class; pass early_stopping=False."
            )
        return train, held_out

    def _weights(self, codes, partial=False):
        """Return the weight of each image."""
        if partial and self.class_weight == "balanced":
            raise ValueError(
                "Got class_weight='balanced' in partial_fit, which does not see all "
                "images, but expected a dict or None; pass the weights that "
                "sklearn.utils.compute_class_weight gives for all labels."
            )
        of_class = compute_class_weight(
            self.class_weight, classes=self.classes_, y=self.classes_[codes]
        )
        weights = of_class[codes]  # (n_samples,)
        sound = (of_class >= 0).all() and np.isfinite(of_class).all()
        if not sound or (not partial and weights.sum() == 0):
            raise ValueError(
                f"Got class_weight={self.class_weight!r} but expected finite weights "
                "of at least 0, and one above it."
            )
        return weights

    def _encoder(self):
        return FrozenEncoder.of(
            self.embedder_, self.train, self.n_blocks, self.lora_rank
        )

    def _tuned_encoder(self):
        """Return the encoder and what was trained of it, if they go together."""
        encoder = self._encoder()
        of_image_tower = {
            name: array
            for name, array in self.tensors_.items()
            if not name.startswith(TEXT)
        }
        encoder.tunable.check(of_image_tower)
        return encoder, of_image_tower

    def _model(self, encoder):
        """Return what is trained: the tower, and all of the text tower or no part."""
        text = None
        if self.train == "all" and uses_text_tower(encoder, self.class_vectors):
            text = (self.embedder_._text_tower(), self.captions_)
        return CosineModel(encoder.tunable, text)

    def _text_vectors(self, encoder):
        """Return what the text tower makes of the captions, None where none is used."""
        if not uses_text_tower(encoder, self.class_vectors):
            return None
        return caption_vectors(self.embedder_, self.captions_)

    def _start(self, model, rows, seed, vectors):
        """Return all trained tensors as they are before training."""
        tensors = model.tower.start(seed)
        start = tensors | model.start_of_text()
        start[LOG_SCALE] = np.log(np.array(self.logit_scale, dtype=np.float32))
        if model.trains_text:
            return start
        if vectors is None:
            embed = model.tower.embedder(tensors)
            vectors = class_means(
                lambda batch: embed(rows.rows_of(batch))[1],
                rows.codes,
                rows.train,
                self.classes_,
                self.batch_size,
            )
        return start | {CLASS_VECTORS: vectors}  # (n_classes, d_projected)

    def _continued(self, model):
        """Return all trained tensors as the last call left them."""
        start = dict(self.tensors_)
        has_text = any(name.startswith(TEXT) for name in start)
        if has_text != model.trains_text:
            raise ValueError(
                f"Got class_vectors={self.class_vectors!r} but expected what it was at "
                "the first call; set it as it was, or fit again."
            )
        start[LOG_SCALE] = np.log(np.array(self.logit_scale_, dtype=np.float32))
        return start if has_text else start | {CLASS_VECTORS: self.class_vectors_}

    def _recipe(self, seed, max_iter):
        rate = self.learning_rate_init
        return TrainingRecipe(
            learning_rate=LEARNING_RATES[self.train] if rate == "auto" else rate,
            head_learning_rate=self.head_learning_rate_init,
            weight_decay=self.alpha,
            batch_size=self.batch_size,
            max_iter=max_iter,
            warmup_fraction=self.warmup_fraction,
            max_norm=self.max_grad_norm,
            n_iter_no_change=self.n_iter_no_change,
            seed=seed,
        )

    def _run(self, model, start, rows, recipe, n_done=0):
        """Train, and keep what has changed."""
        with RowProgress(
            self,
            (recipe.max_iter or 1) * len(rows.train),
            self.batch_size,
            description=f"training, {self.train}",
            verbose=self.verbose,
        ) as progress:
            tensors, history = fine_tune(
                model,
                start,
                rows,
                recipe,
                n_done=n_done,
                checkpoint=self._checkpoint(start, rows, recipe),
                on_batch=progress.update,
            )
        self._store(model, tensors, history, n_done)
        return self

    def _checkpoint(self, start, rows, recipe):
        """Return the file that this very training is taken up from, or None."""
        if self.checkpoint_dir is None or recipe.max_iter is None:
            return None
        known = {"encoder": self.embedder_.fingerprint_, "captions": self.captions_}
        name = f"{training_key(recipe, start, known, rows)}.safetensors"
        return os.path.join(os.path.expanduser(self.checkpoint_dir), name)

    def _store(self, model, tensors, history, n_done):
        self.class_vectors_ = model.class_vector_array(tensors)
        tensors.pop(CLASS_VECTORS, None)
        self.logit_scale_ = float(np.exp(tensors.pop(LOG_SCALE)))
        self.tensors_ = tensors
        before = self.loss_curve_ if n_done else []
        self.loss_curve_ = np.array([*before, *history.loss])
        stops = history.validation_loss
        self.validation_loss_curve_ = np.array(stops) if stops else None
        self.n_iter_ = len(self.loss_curve_)
        if history.failure:
            kept = "that before this call" if n_done else "the start"
            if history.loss:
                kept = f"that after epoch {history.best_epoch + 1}"
            warn_user(
                f"Got {history.failure} but expected finite numbers; training stopped, "
                f"and the state kept is {kept}. Lower learning_rate_init or "
                "head_learning_rate_init.",
                ConvergenceWarning,
            )

    def _embedded(self, X, which):
        """Return the tuned features of images: 0 for pooled, 1 for projected."""
        check_is_fitted(self, "tensors_")
        images = as_images(X)
        encoder, tensors = self._tuned_encoder()
        embed = encoder.tunable.embedder(tensors)
        return encoder.rows_of(images, finish=lambda rows: embed(rows)[which])

    def _logits(self, X):
        """Return scaled cosines to the class vectors, (n_samples, n_classes)."""
        f = unit_rows(self._embedded(X, 1))[0].astype(np.float64)
        g = unit_rows(self.class_vectors_.astype(np.float64))[0]
        return self.logit_scale_ * (f @ g.T)

    def _check_stored_arrays(self):
        """Refuse a state that no fit can have made, such as a tampered file."""
        classes = np.asarray(getattr(self, "classes_", None))
        vectors = getattr(self, "class_vectors_", None)
        scale = getattr(self, "logit_scale_", None)
        captions = getattr(self, "captions_", None)
        is_dict = isinstance(self.tensors_, dict)
        arrays = dict(self.tensors_ if is_dict else {}, class_vectors_=vectors)
        for name, value in arrays.items():
            array = np.asarray(value)
            is_float = array.dtype == np.float32
            finite = bool(is_float and np.isfinite(array).all())
            if not isinstance(value, np.ndarray) or not finite:
                raise ValueError(
                    f"Got {name} of dtype {array.dtype}, "
                    f"{'' if finite else 'not '}all finite, but expected finite "
                    f"numbers of dtype float32; {DAMAGED}"
                )
        is_scale = isinstance(scale, float) and 0 < scale < np.inf
        if vectors.ndim != 2 or classes.shape != vectors.shape[:1] or not is_scale:
            raise ValueError(
                f"Got class vectors of shape {vectors.shape} and logit_scale_={scale!r}"
                f" but expected one vector for each class of {classes.shape} and a "
                f"positive number; {DAMAGED}"
            )
        in_order = np.array_equal(np.unique(classes), classes)
        named = isinstance(captions, list) and len(captions) == len(classes)
        embeds = isinstance(getattr(self, "embedder_", None), CLIPEmbedder)
        if not (is_dict and in_order and named and embeds):
            raise ValueError(
                f"Got classes_={classes.tolist()!r}, captions_={captions!r} and "
                f"tensors_ of {type(self.tensors_).__name__} but expected sorted and "
                "distinct labels, a caption for each, a dict, and a CLIPEmbedder in "
                f"embedder_; {DAMAGED}"
            )
