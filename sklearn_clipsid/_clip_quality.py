"""Predict opinion scores from image features and learned prompts (arXiv 2408.15098)."""

from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin, _fit_context, clone
from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit
from sklearn.utils import check_array, check_random_state, column_or_1d
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import _num_samples, check_is_fitted, validate_data

from sklearn_clipsid._adam import Adam, minimize_minibatch
from sklearn_clipsid._clip_embedder import CLIPEmbedder
from sklearn_clipsid._finite_rows import check_finite_rows
from sklearn_clipsid._first_few import first_few
from sklearn_clipsid._groups import check_length, list_rows, read_sources
from sklearn_clipsid._image_sequence import as_images
from sklearn_clipsid._quality_network import QualityNetwork, score_rows
from sklearn_clipsid._quality_prompts import FreePrompts, TextPrompts
from sklearn_clipsid._training_rows import MIN_SAMPLES_TO_STOP_EARLY
from sklearn_clipsid._unit_rows import unit_rows
from sklearn_clipsid.metrics import srcc_score

QUALITY_WORDS = ("terrible", "bad", "poor", "average", "good", "perfect")
MIN_STEPS_PER_EPOCH = 8  # few rows are visited several times
FLOATS = {"dtype": (np.float64, np.float32), "ensure_all_finite": False}
DAMAGED = "the saved regressor is damaged or was changed by hand."


class CLIPQualityRegressor(RegressorMixin, BaseEstimator):
    r"""Predict opinion scores of images from CLIP features and learned prompts.

    The model of Tang, Wang, Peng and Dong [1]_: a prompt for each of six levels of
    quality is a learned context, shared by all, and a fixed word. The features of an
    image and of the prompts go side by side into a network of two layers, which is
    fitted to the opinion scores. CLIP stays frozen.

    Parameters
    ----------
    embedder : CLIPEmbedder, transformer, "passthrough" or None, default=None
        Makes the image features, of any kind. None is
        ``CLIPEmbedder(features="projected")``, those of [1]_. With "passthrough", X
        holds the features themselves.

    prompts : {"auto", "context", "features"}, default="auto"
        What is learned of the prompts. "context": the context vectors, through the
        frozen text tower of the embedder's checkpoint, as in [1]_. "features": what
        comes out of a text tower, directly, without any. "auto": "context" where the
        embedder is a CLIPEmbedder whose checkpoint holds a text tower, else
        "features".

    quality_words : sequence of str, default=("terrible", "bad", ..., "perfect")
        The word of each prompt; "poor", "average" and "good" lie between. Without a
        text tower only their number counts.

    n_context : int, default=16
        Context vectors, for ``prompts="context"``.

    n_hidden : int, default=512
        Hidden units.

    dropout : float, default=0.5
        Share of the inputs and hidden units that are set to zero in training, drawn
        anew for each row of a step.

    scale_features : bool, default=True
        Whether to centre the image features, and to multiply them by one number so that
        their mean variance is 1. [1]_ does not.

    alpha : float, default=5e-4
        Decoupled weight decay.

    learning_rate_init : float, default=1e-3
        Step size of Adam.

    batch_size : int, default=32
        Rows per step.

    max_iter : int, default=100
        Epochs at most. An epoch takes at least eight steps: fewer rows than eight
        batches are visited several times.

    early_stopping : bool or "auto", default="auto"
        Whether to stop when the squared error on rows set aside no longer falls, and
        to return the best epoch. "auto": from 200 rows on, if the share is one group at
        least.

    validation_fraction : float, default=0.1
        Share of the rows, or of the groups, that is set aside.

    n_iter_no_change : int, default=20
        Epochs in a row without a new minimum before stopping.

    random_state : int, RandomState instance or None, default=None
        Initialisation, rows set aside, order of the batches and dropout.

    Attributes
    ----------
    embedder_ : transformer or None
        The fitted embedder; None with "passthrough".

    prompts_ : {"context", "features"}
        What was learned of the prompts.

    context_ : ndarray of shape (n_context, width) or None
        The context vectors, None with ``prompts_="features"``.

    prompt_features_ : ndarray of shape (n_words, d_prompt)
        Features of the prompts, of unit norm.

    coefs_ : list of two ndarrays
        W₁ of shape (d_image + n_words * d_prompt, n_hidden), the rows of the image
        first, and w₂ of shape (n_hidden,).

    intercepts_ : list of two ndarrays
        b₁ of shape (n_hidden,) and b₂ of shape (1,).

    feature_mean_ : ndarray of shape (d_image,)
        What is subtracted from the unit features of an image.

    feature_scale_ : float
        What the difference is multiplied by.

    target_mean_, target_scale_ : float
        Mean and standard deviation of the training scores.

    n_iter_ : int
        Epochs run.

    loss_curve_ : ndarray of shape (`n_iter_`,)
        Squared error per epoch, with dropout, in units of `target_scale_` squared.

    validation_loss_curve_ : ndarray of shape (`n_iter_`,) or None
        The same of the rows set aside, without dropout.

    n_features_in_ : int
        Number of features seen in `fit`, with "passthrough" alone.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Their names, when they are all strings.

    See Also
    --------
    CLIPEmbedder : Makes the features, each once.
    sklearn_clipsid.metrics.quality_scorers : PLCC, SRCC and KRCC.
    sklearn_clipsid.datasets.load_quality_scores : Reads two published sets.
    sklearn.linear_model.RidgeCV : The baseline to beat.

    Notes
    -----
    With the unit features f of an image and :math:`t_1, …, t_6` of the prompts

    .. math:: \hat y = w_2^\top \max(0, W_1^\top [f; t_1; …; t_6] + b_1) + b_2

    and the mean of :math:`(\hat y - y)^2` over a batch is minimised with Adam, where
    the scores y are standardised and dropout acts on both layers.

    **The prompts do not see the image.** They are the same numbers beside every one.
    Once training has ended, their part of :math:`W_1^\top [f; …]` is a constant vector,
    a bias of the first layer, and a network without prompts can give the same scores.
    So what is learned through a text tower, or without one, is the same model at test
    time; the text tower only decides which :math:`t_c` can be reached, and is neither
    needed nor stored for `predict`. In training the prompts add noise through dropout,
    and parameters to the bias.

    **What it costs.** With ``prompts="context"`` each step goes through the text tower
    and back: seconds on a CPU for a large one. ``prompts="features"`` needs none of
    that. The images are embedded once, and answered from the embedder's cache in the
    next fit and in `predict`.

    **What differs from the published code.** There, scores are not standardised, image
    features not scaled, training images cropped and mirrored at random, and the
    optimiser is SGD with a cosine schedule over 100 epochs.

    With `groups`, such as the prompt that images were generated from or the photograph
    that they were made of, no group lies on both sides of the rows set aside. Split by
    them outside as well (:class:`~sklearn.model_selection.GroupKFold`).

    References
    ----------
    .. [1] Z. Tang, Z. Wang, B. Peng, J. Dong, "CLIP-AGIQA: Boosting the Performance of
       AI-Generated Image Quality Assessment with CLIP", 2024, arXiv 2408.15098.

    Examples
    --------
    >>> from sklearn_clipsid import CLIPEmbedder, CLIPQualityRegressor
    >>> embedder = CLIPEmbedder(features="projected", cache_dir="embeddings")
    >>> regressor = CLIPQualityRegressor(embedder, random_state=0)
    >>> regressor.fit(paths, scores).predict(more_paths)  # doctest: +SKIP

    On features that are there already:

    >>> import numpy as np
    >>> X = np.random.default_rng(0).standard_normal((300, 8))
    >>> y = 3 + X[:, 0]
    >>> regressor = CLIPQualityRegressor("passthrough", n_hidden=16, random_state=0)
    >>> bool(regressor.fit(X[:200], y[:200]).score(X[200:], y[200:]) > 0.9)
    True
    """

    # Routed by default: without groups other rows would be set aside.
    __metadata_request__fit = {"groups": True}

    _parameter_constraints = {
        "embedder": [
            HasMethods(["fit", "transform"]),
            StrOptions({"passthrough"}),
            None,
        ],
        "prompts": [StrOptions({"auto", "context", "features"})],
        "quality_words": ["array-like"],
        "n_context": [Interval(Integral, 1, None, closed="left")],
        "n_hidden": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "scale_features": ["boolean"],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "early_stopping": ["boolean", StrOptions({"auto"})],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        embedder=None,
        *,
        prompts="auto",
        quality_words=QUALITY_WORDS,
        n_context=16,
        n_hidden=512,
        dropout=0.5,
        scale_features=True,
        alpha=5e-4,
        learning_rate_init=1e-3,
        batch_size=32,
        max_iter=100,
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=20,
        random_state=None,
    ):
        self.embedder = embedder
        self.prompts = prompts
        self.quality_words = quality_words
        self.n_context = n_context
        self.n_hidden = n_hidden
        self.dropout = dropout
        self.scale_features = scale_features
        self.alpha = alpha
        self.learning_rate_init = learning_rate_init
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.random_state = random_state

    # `embedder` is not validated yet.
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, groups=None):
        """Embed the images, and fit prompts and network to their scores.

        Parameters
        ----------
        X : sequence of images of shape (n_samples,)
            What the embedder takes: paths, for `CLIPEmbedder`. With "passthrough", an
            array of shape (n_samples, n_features).

        y : array-like of shape (n_samples,)
            Opinion scores; larger is better.

        groups : array-like of shape (n_samples,), default=None
            What images have in common; see Notes.

        Returns
        -------
        self : CLIPQualityRegressor
            The fitted regressor.
        """
        random_state = check_random_state(self.random_state)
        for name in ("coefs_", "n_features_in_", "feature_names_in_"):
            vars(self).pop(name, None)  # not fitted until training has ended
        y = self._read_scores(y, X)
        train, held_out = self._split(len(y), groups, random_state)
        self.embedder_ = self._make_embedder()
        context = self._make_context()  # before the images, as it may fail
        X = self._fit_scale(self._unit_features(X, reset=True))  # (n_samples, d_image)
        y = ((y - self.target_mean_) / self.target_scale_).astype(X.dtype)
        prompts = (
            FreePrompts(len(self.quality_words), X.shape[1])
            if context is None
            else TextPrompts(context)
        )
        network = QualityNetwork(prompts, X.shape[1], self.n_hidden)
        self._minimise(network, X, y, train, held_out, random_state)
        return self

    def predict(self, X):
        """Predict opinion scores.

        Parameters
        ----------
        X : sequence of images of shape (n_samples,)
            As in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            In the units of the training scores; not clipped to their range.
        """
        check_is_fitted(self, "coefs_")
        X = self._unit_features(X)
        X = (X - self.feature_mean_) * self.feature_scale_  # (n_samples, d_image)
        (W1, w2), (b1, b2) = self.coefs_, self.intercepts_
        scores = score_rows(X, self.prompt_features_, [W1, b1, w2, b2])
        return scores * self.target_scale_ + self.target_mean_

    def score(self, X, y):
        """Return Spearman's rank correlation (SRCC) of predicted and opinion scores.

        It is what image quality predictors are compared by, where other regressors of
        scikit-learn return R².

        Parameters
        ----------
        X : sequence of images of shape (n_samples,)
            As in `fit`.

        y : array-like of shape (n_samples,)
            Opinion scores.

        Returns
        -------
        score : float
            From -1 to 1.

        Raises
        ------
        ValueError
            For fewer than two images, and where all scores or all predictions are the
            same: there is no rank correlation then.
        """
        return srcc_score(y, self.predict(X))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        if not isinstance(self.embedder, str):
            tags.input_tags.string = True
            tags.input_tags.one_d_array = True
            tags.input_tags.two_d_array = False
        return tags

    def __setstate__(self, state):
        super().__setstate__(state)
        if {"coefs_", "intercepts_"} & vars(self).keys():
            # Of the class: the state itself could hold that name.
            type(self)._check_stored_arrays(self)

    def _read_scores(self, y, X):
        """Check the scores, and note their mean and scale."""
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but "
                "the target y is None; pass the opinion score of each image."
            )
        if not isinstance(self.embedder, str):
            X = as_images(X)
        try:
            y = column_or_1d(y, dtype=np.float64, warn=True)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Got y that is no column of numbers ({error}) but expected the "
                "opinion score of each image; pass a 1d array of numbers."
            ) from error
        check_length(y, _num_samples(X), "y")
        not_finite = ~np.isfinite(y)
        if not_finite.any():
            raise ValueError(
                f"Got y that is NaN or infinite for {list_rows(not_finite)} but "
                "expected an opinion score for each image; leave out images without "
                "one, in groups as well."
            )
        if len(y) < 2:
            raise ValueError(
                f"Got {len(y)} sample but expected at least two images with scores; "
                "add images."
            )
        if (y == y[0]).all():
            raise ValueError(
                f"Got y with the same score ({y[0]:g}) for all {len(y)} images but "
                "expected scores that differ; add images of other quality."
            )
        with np.errstate(over="ignore", invalid="ignore"):
            self.target_mean_, self.target_scale_ = float(y.mean()), float(y.std())
        if not 0 < self.target_scale_ < np.inf:
            raise ValueError(
                f"Got y with a standard deviation of {self.target_scale_:g} but "
                "expected a number above 0; rescale the scores, to 0 to 100 say."
            )
        return y

    def _split(self, n_samples, groups, random_state):
        """Return the rows to train on, and those to stop on."""
        if groups is not None:
            groups = read_sources(column_or_1d(groups), n_samples)[1]
        n_groups = n_samples if groups is None else len(np.unique(groups))
        # Fewer groups would set aside more than the share that was asked for.
        enough = self.validation_fraction * n_groups >= 1
        enough &= n_samples >= MIN_SAMPLES_TO_STOP_EARLY
        if not (enough if self.early_stopping == "auto" else self.early_stopping):
            return np.arange(n_samples), np.arange(0)
        if n_groups == 1:
            raise ValueError(
                "Got groups with one group but expected at least two with "
                "early_stopping=True, as a group lies on one side; pass "
                "early_stopping=False."
            )
        splitter = ShuffleSplit if groups is None else GroupShuffleSplit
        splits = splitter(
            1, test_size=self.validation_fraction, random_state=random_state
        )
        return next(splits.split(np.empty(n_samples), groups=groups))

    def _make_embedder(self):
        if self.embedder is None:
            return CLIPEmbedder(features="projected")
        return None if isinstance(self.embedder, str) else clone(self.embedder)

    def _make_context(self):
        """Return the prompts of a text tower, or None where none is used."""
        words = [*self.quality_words]
        if not words or not all(isinstance(w, str) and w.strip() for w in words):
            raise ValueError(
                f"Got quality_words={words!r} but expected at least one word, and "
                "words only; pass a list of strings."
            )
        embedder = self.embedder_
        self.prompts_ = self.prompts
        if self.prompts == "auto":
            self.prompts_ = "context" if _has_text_tower(embedder) else "features"
        if self.prompts_ == "features":
            return None
        if not _has_text_tower(embedder):
            raise ValueError(
                f"Got prompts='context' with embedder={self.embedder!r}, of which no "
                "text tower can be taken, but expected a CLIPEmbedder (itself, not in "
                "a Pipeline) whose checkpoint holds both towers; pass "
                "prompts='features', which is the same model at test time, or such a "
                "checkpoint."
            )
        from sklearn_clipsid._clip._prompts import ContextPrompts

        return ContextPrompts(embedder._text_tower(), words, self.n_context)

    def _unit_features(self, X, reset=False):
        if self.embedder_ is None:
            X = validate_data(self, X, reset=reset, **FLOATS)
        else:
            n_images = _num_samples(X)
            embed = self.embedder_.fit_transform if reset else self.embedder_.transform
            X = check_array(embed(X), input_name="what the embedder returned", **FLOATS)
            check_length(X, n_images, "what the embedder returned")
        check_finite_rows(X, self)
        return unit_rows(X)[0]  # (n_samples, d_image)

    def _fit_scale(self, X):
        """Note how features are scaled, and do it."""
        mean, spread = np.zeros(X.shape[1]), 1.0
        if self.scale_features:
            mean = X.mean(axis=0, dtype=np.float64)
            spread = float(np.sqrt(X.var(axis=0, dtype=np.float64).mean()))
        self.feature_mean_ = mean
        # Less is what rounding makes of unit rows that are all the same.
        self.feature_scale_ = 1 / spread if spread > 1e-6 else 1.0
        return ((X - mean) * self.feature_scale_).astype(X.dtype)

    def _minimise(self, network, X, y, train, held_out, random_state):
        def loss_grad(params, batch):
            masks = network.draw_masks(len(batch), self.dropout, random_state, X.dtype)
            loss, grad = network.loss_grad(params, X[batch], y[batch], masks)
            if not (np.isfinite(loss) and np.isfinite(grad).all()):
                raise ValueError(
                    f"Got a loss of {loss:.3g}, or its gradient, that is not finite in "
                    f"the batch of the rows {first_few([str(row) for row in batch])} "
                    f"with learning_rate_init={self.learning_rate_init} and "
                    f"alpha={self.alpha}; training stopped. Lower them."
                )
            return loss, grad

        params, self.loss_curve_, self.validation_loss_curve_ = minimize_minibatch(
            Adam(
                network.start(random_state).astype(X.dtype),
                learning_rate=self.learning_rate_init,
                weight_decay=self.alpha,
                decoupled=True,
            ),
            loss_grad,
            train,
            batch_size=self.batch_size,
            max_iter=self.max_iter,
            random_state=random_state,
            min_steps=MIN_STEPS_PER_EPOCH,
            validation_loss=_validation_loss(network, X[held_out], y[held_out]),
            n_iter_no_change=self.n_iter_no_change,
        )
        self.n_iter_ = len(self.loss_curve_)
        if not np.isfinite(params).all():
            raise ValueError(
                f"Got parameters that are not finite after {self.n_iter_} epochs with "
                f"learning_rate_init={self.learning_rate_init} and alpha={self.alpha} "
                "but expected the training to converge; lower them."
            )
        self._store(network, params)

    def _store(self, network, params):
        values, (W1, b1, w2, b2) = network.unpack(params.astype(np.float64))
        self.context_ = None
        if self.prompts_ == "context":
            self.context_ = values.reshape(network.prompts.shape)
        self.prompt_features_ = network.prompts.encode(values)[0]
        self.coefs_, self.intercepts_ = [W1, w2], [b1, b2]

    def _check_stored_arrays(self):
        """Refuse a state that no fit can have made, such as a tampered file."""
        try:
            (W1, w2), (b1, b2) = self.coefs_, self.intercepts_
            (n_inputs, n_hidden), d = W1.shape, len(self.feature_mean_)
            shapes = [(n_hidden,), (n_hidden,), (1,), (d,)]
            fits = [a.shape for a in (w2, b1, b2, self.feature_mean_)] == shapes
            fits &= n_inputs == d + self.prompt_features_.size
            scales = (self.feature_scale_, self.target_mean_, self.target_scale_)
            fits &= self.feature_scale_ > 0 and self.target_scale_ > 0
            fits &= len(self.prompt_features_) == len(self.quality_words)
            arrays = (W1, w2, b1, b2, self.feature_mean_, self.prompt_features_)
            fits &= all(array.dtype.kind == "f" for array in arrays)
            fits &= all(np.isfinite(array).all() for array in (*arrays, *scales))
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f"Got arrays that do not make a network ({error}) but expected those "
                f"of a fitted one; {DAMAGED}"
            ) from error
        if not fits:
            raise ValueError(
                "Got arrays of shapes that do not go together, or that are not finite, "
                f"but expected those of a fitted network; {DAMAGED}"
            )


def _has_text_tower(embedder):
    if not isinstance(embedder, CLIPEmbedder):
        return False
    from sklearn_clipsid._clip._prompts import has_text_tower

    return has_text_tower(
        embedder.model_name, embedder.pretrained, **embedder._weights_place()
    )


def _validation_loss(network, X, y):
    """Return the function of the parameters to stop on, None without rows."""
    if not len(X):
        return None
    return lambda params: float(np.mean((network.predict(params, X) - y) ** 2))
