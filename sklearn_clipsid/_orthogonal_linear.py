"""Detect synthetic images by k decorrelated linear activations (arXiv 2602.12381)."""

from math import prod
from numbers import Integral, Real

import numpy as np
from scipy.special import expit, softmax
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
    clone,
)
from sklearn.utils import check_random_state, check_scalar
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import (
    _check_partial_fit_first_call,
    check_classification_targets,
)
from sklearn.utils.validation import (
    check_is_fitted,
    validate_data,
)

from sklearn_clipsid._adam import Adam, minimize_minibatch, run_epoch
from sklearn_clipsid._axis_stability import bootstrap_axes, matched_cosines
from sklearn_clipsid._canonical_axes import axis_shares, canonical_axes, class_gaps
from sklearn_clipsid._cross_entropy import soft_cross_entropy
from sklearn_clipsid._finite_rows import check_finite_rows
from sklearn_clipsid._training_rows import split_for_early_stopping, weighted_rows

# Mean norm of the features on which the published weight decay was chosen.
PUBLISHED_ROW_NORM = 32.95
# One batch an epoch leaves the head near its random start. Eight steps raise the AUC on
# the rest of the packaged sample from .72 to .77 with 20 images and from .87 to .89
# with 100, and change nothing with 400 (benchmarks/few_shot.py). From 449 training rows
# on this is the published schedule.
MIN_STEPS_PER_EPOCH = 8
FLOATS = [np.float64, np.float32]
DAMAGED = "the saved detector is damaged or was changed by hand."


def _can_continue(detector):
    if detector.axes != "learned":
        raise AttributeError(
            f"Got axes={detector.axes!r} but expected axes='learned' for partial_fit: "
            "canonical axes are uncorrelated over all training rows, so they need them "
            "at once; use fit, or axes='learned'."
        )
    return True


class OrthogonalLinearDetector(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClassifierMixin, BaseEstimator
):
    r"""Linear detector on k activations that are kept orthogonal over each batch.

    The head of Willi, Mathys and Graber [1]_: k linear activations of the embedding,
    without a nonlinearity, are summed to one logit. A penalty on their cosines over the
    batch keeps them from saying the same. At test time the detector is exactly linear;
    `transform` returns the activations.

    Parameters
    ----------
    n_components : int, default=8
        Number of activations k, at most the number of features.

    ortho_weight : float, default=0.33
        Weight λ of the penalty.

    alpha : float, default=0.01
        L2 decay of all parameters, biases included, coupled with Adam.

    label_smoothing : float, default=0.1
        Probability s with which the targets treat a label as flipped. Then
        `predict_proba` estimates s + (1 - 2s) p. The estimate is not clipped: as the
        logit is linear, clear images get less than s or more than 1 - s.

    learning_rate_init : float, default=1e-3
        Step size of Adam.

    batch_size : int, default=64
        Rows per step. The penalty depends on it, so it is part of the model.

    max_iter : int, default=200
        Epochs at most. An epoch takes at least eight steps: fewer rows than eight
        batches are visited several times.

    early_stopping : bool or "auto", default="auto"
        Whether to stop when the smoothed cross-entropy on a stratified validation
        split no longer falls, and to return the best epoch. "auto": from 200 samples
        on, if each class has at least two.

    validation_fraction : float, default=0.1
        Share of the rows used to stop early.

    n_iter_no_change : int, default=5
        Epochs in a row without a new minimum before stopping.

    scale_features : "auto", float or None, default="auto"
        `alpha` only means something at a known scale of the features. "auto" multiplies
        them by one number so that their mean row norm is 32.95, that of the published
        features; a float is that number; None leaves them alone. The scale is folded
        into the fitted arrays.

    axes : {"learned", "canonical"}, default="learned"
        How the decision is written as k activations; it is the same to the bit.
        "learned" keeps those of the training, which depend on the random start.
        "canonical" replaces them by uncorrelated ones that come back (Notes). Choose
        it before you read single axes.

    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, as in scikit-learn.

    random_state : int, RandomState instance or None, default=None
        Initialisation, validation split and order of the batches.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels. Of two, the second is the positive class.

    components_ : ndarray of shape (n_components, n_features)
        W₁ in the units of X, or the canonical axes.

    n_components_ : int
        Number of activations of the fitted detector.

    activation_intercept_ : ndarray of shape (n_components,)
        b₁.

    activation_weights_ : ndarray of shape (n_outputs, n_components)
        w₂; one output for two classes, else one per class.

    coef_ : ndarray of shape (n_outputs, n_features)
        ``activation_weights_ @ components_``: the whole detector as one direction.

    intercept_ : ndarray of shape (n_outputs,)
        The intercept that goes with `coef_`.

    axes_ : {"learned", "canonical"}
        Which axes `components_` holds.

    axis_share_ : ndarray of shape (n_components,)
        Share of each activation in the gap between the classes' mean logits on the
        training rows; they sum to 1 and may be negative. With several classes, of the
        squared deviations of the mean logits. Not there after `partial_fit` and for a
        published head.

    axis_is_remainder_ : ndarray of bool of shape (n_components,)
        Which canonical axes depend on the training of the head; none of the learned
        counts.

    feature_scale_ : float
        The number by which features were multiplied while fitting.

    n_iter_ : int
        Epochs run.

    loss_curve_ : ndarray of shape (`n_iter_`,)
        Cross-entropy plus penalty per epoch.

    validation_loss_curve_ : ndarray of shape (`n_iter_`,) or None
        Smoothed cross-entropy on the validation split per epoch.

    n_features_in_ : int
        Number of features seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features seen in `fit`, when they are all strings.

    See Also
    --------
    CLIPEmbedder : Makes the features.
    sklearn.linear_model.LogisticRegression : The linear probe (k = 1, no penalty).

    Notes
    -----
    With activations :math:`A = X W_1^\top + b_1` and logits
    :math:`z = A w_2 + b_2`, each step minimises over a batch

    .. math:: \mathrm{BCE}(z, y') + λ \| I_k - Â^\top Â \|_F,
        \qquad y' = y (1 - s) + (1 - y) s,

    where the columns of Â are those of A scaled to unit norm over the batch. They are
    not centred, so the penalty acts on cosines, not on correlations, and its norm is
    not squared. More than two classes use softmax with s spread over the other classes.

    The validation loss has a floor: the entropy of s, .325 at s = .1.

    Sample weights act on the loss, the penalty and the feature scale as repetition
    does; batches are drawn from the distinct rows.

    Learned activations depend on the random start (mean absolute cosine .29 between
    matched activations of two seeds in [1]_): do not read single rows of `components_`
    then.

    **Canonical axes.** Axes 1 to k - 1 come from rows and labels alone: each is the
    direction whose activation has the largest covariance with the mean-difference
    score :math:`δ^\top x` (δ is the difference of the class means), among those
    uncorrelated with the axes before it. The last is the remainder, that part of
    `coef_` whose activation is uncorrelated with all others; only it depends on the
    random start. Activations are centred and scaled to unit variance over the training
    rows, point to ``classes_[1]``, and are sorted by `axis_share_`, so their penalty
    over the training set is zero. Axes that rows and labels do not define (no more
    variance, equal class means) are rows of zeros. With m > 2 classes the last
    min(k, m) axes are the principal axes of the data within the span of the
    remainders, and the others use the deviations of all class means.

    References
    ----------
    .. [1] M. Willi, M. Mathys, M. Graber, "Synthetic Image Detection with CLIP:
       Understanding and Assessing Predictive Cues", 2026, arXiv 2602.12381.

    Examples
    --------
    >>> from sklearn_clipsid import OrthogonalLinearDetector
    >>> from sklearn_clipsid.datasets import load_sample_embeddings
    >>> X, y = load_sample_embeddings(return_X_y=True)
    >>> detector = OrthogonalLinearDetector(n_components=4, random_state=0).fit(X, y)
    >>> detector.transform(X[:3]).shape
    (3, 4)
    >>> bool(detector.score(X, y) > 0.9)
    True
    """

    _parameter_constraints = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "ortho_weight": [Interval(Real, 0, None, closed="left")],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "label_smoothing": [Interval(Real, 0, 0.5, closed="left")],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "early_stopping": ["boolean", StrOptions({"auto"})],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "scale_features": [
            StrOptions({"auto"}),
            Interval(Real, 0, None, closed="neither"),
            None,
        ],
        "axes": [StrOptions({"learned", "canonical"})],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_components=8,
        *,
        ortho_weight=0.33,
        alpha=0.01,
        label_smoothing=0.1,
        learning_rate_init=1e-3,
        batch_size=64,
        max_iter=200,
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=5,
        scale_features="auto",
        axes="learned",
        class_weight=None,
        random_state=None,
    ):
        self.n_components = n_components
        self.ortho_weight = ortho_weight
        self.alpha = alpha
        self.label_smoothing = label_smoothing
        self.learning_rate_init = learning_rate_init
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.scale_features = scale_features
        self.axes = axes
        self.class_weight = class_weight
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Fit the detector.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        y : array-like of shape (n_samples,)
            Labels, 1 for synthetic; or the generators, to attribute images to them.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights; an integer weight acts as repetition.

        Returns
        -------
        self : OrthogonalLinearDetector
            The fitted detector.
        """
        X, y = validate_data(self, X, y, dtype=FLOATS, ensure_all_finite=False)
        check_finite_rows(X, self)
        check_classification_targets(y)
        random_state = check_random_state(self.random_state)
        X, y, weights = weighted_rows(X, y, sample_weight, self.class_weight)
        self.classes_, codes = np.unique(y, return_inverse=True)
        params = self._start(X, weights, random_state).astype(X.dtype)
        targets = self._smoothed_targets(codes).astype(X.dtype)  # (n, n_outputs)
        train, held_out = split_for_early_stopping(
            codes, self.early_stopping, self.validation_fraction, random_state
        )
        params, self.loss_curve_, self.validation_loss_curve_ = minimize_minibatch(
            self._optimiser(params),
            self._objective(X, targets, weights),
            train,
            batch_size=self.batch_size,
            max_iter=self.max_iter,
            random_state=random_state,
            min_steps=MIN_STEPS_PER_EPOCH,
            validation_loss=self._validation_loss(
                X[held_out], targets[held_out], weights[held_out]
            ),
            n_iter_no_change=self.n_iter_no_change,
        )
        self.n_iter_ = len(self.loss_curve_)
        self._store(params)
        self._choose_axes(X, codes, weights)
        return self

    @available_if(_can_continue)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Visit new data of known classes once.

        The optimiser's moments start afresh at each call, and the feature scale stays
        that of the first.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        y : array-like of shape (n_samples,)
            Labels out of the known classes.

        classes : array-like of shape (n_classes,), default=None
            All labels; needed at the first call of a detector that is not fitted.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights.

        Returns
        -------
        self : OrthogonalLinearDetector
            The updated detector.
        """
        first = not hasattr(self, "components_")
        X, y = validate_data(
            self, X, y, dtype=FLOATS, ensure_all_finite=False, reset=first
        )
        check_finite_rows(X, self)
        check_classification_targets(y)
        random_state = check_random_state(self.random_state)
        _check_partial_fit_first_call(self, classes)
        self._check_known(y)
        X, y, weights = weighted_rows(X, y, sample_weight, self.class_weight)
        if first:
            params = self._start(X, weights, random_state)
            self.loss_curve_, self.validation_loss_curve_ = np.empty(0), None
        else:
            params = self._parameters()
        optimiser = self._optimiser(params.astype(X.dtype))
        targets = self._smoothed_targets(np.searchsorted(self.classes_, y))
        objective = self._objective(X, targets.astype(X.dtype), weights)
        rows = np.arange(len(X))
        loss = run_epoch(optimiser, objective, rows, self.batch_size, random_state)
        self.loss_curve_ = np.append(self.loss_curve_, loss)
        self.n_iter_ = len(self.loss_curve_)
        self._store(optimiser.params)
        return self

    def transform(self, X):
        """Return the activations.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        Returns
        -------
        activations : ndarray of shape (n_samples, n_components)
            ``X @ components_.T + activation_intercept_``.
        """
        X = self._checked(X)
        return X @ self.components_.T + self.activation_intercept_  # (n, k)

    def decision_function(self, X):
        """Return the logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        Returns
        -------
        logits : ndarray of shape (n_samples,) or (n_samples, n_classes)
            Positive for ``classes_[1]`` when there are two classes.
        """
        X = self._checked(X)
        logits = X @ self.coef_.T + self.intercept_  # (n_samples, n_outputs)
        return logits[:, 0] if logits.shape[1] == 1 else logits

    def predict_proba(self, X):
        """Return the probabilities of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            Each row sums to 1. They are those of smoothed labels: s + (1 - 2s) p for
            two classes. Calibrate them before reading them as p
            (`sklearn.calibration.CalibratedClassifierCV`).
        """
        logits = self.decision_function(X)
        if logits.ndim == 1:
            positive = expit(logits)
            return np.column_stack([1 - positive, positive])  # (n_samples, 2)
        return softmax(logits, axis=1)  # (n_samples, n_classes)

    def predict(self, X):
        """Return the likelier class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            Values of `classes_`.
        """
        logits = self.decision_function(X)
        codes = (logits > 0).astype(int) if logits.ndim == 1 else logits.argmax(axis=1)
        return self.classes_[codes]

    def axis_stability(
        self, X, y, n_boot=20, *, groups=None, sample_weight=None, random_state=None
    ):
        """Compare the axes with those of detectors fitted to bootstrap samples.

        The cosines of axes that mean nothing are not 0: canonical axes of permuted
        labels still lie where the features vary. Permute `y` to see how high they are.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The training rows.

        y : array-like of shape (n_samples,)
            Their labels.

        n_boot : int, default=20
            Number of samples drawn with replacement, each class keeping its size. Each
            fit has another seed.

        groups : array-like of shape (n_samples,), default=None
            Whole groups are drawn instead of rows, such as motifs, or generators and
            photo sources, to see how far the axes would come back with other ones.

        sample_weight : array-like of shape (n_samples,), default=None
            The weights of the fit.

        random_state : int, RandomState instance or None, default=None
            Draws the samples and the seeds of the fits.

        Returns
        -------
        cosines : ndarray of shape (n_boot, n_components)
            Absolute cosine, in the units of X, of each row of `components_` with its
            match in the refitted detector: one to one, the largest sum (Hungarian
            method). Rows of zeros get 0.
        """
        check_is_fitted(self)
        check_scalar(n_boot, "n_boot", Integral, min_val=1)
        self._checked(X)  # another width is an error before the first fit
        refits = bootstrap_axes(
            clone(self).set_params(n_components=self.n_components_, axes=self.axes_),
            X,
            y,
            sample_weight,
            groups,
            n_boot,
            random_state,
        )
        return np.array([matched_cosines(self.components_, axes) for axes in refits])

    def __setstate__(self, state):
        super().__setstate__(state)
        if {"components_", "coef_"} & vars(self).keys():
            # Of the class: the state itself could hold that name.
            type(self)._check_stored_arrays(self)

    @property
    def _n_features_out(self):
        return self.components_.shape[0]

    def _check_known(self, y):
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(
                f"Got the labels {unknown.tolist()} but expected some of the classes "
                f"{self.classes_.tolist()}; fit again to add a class."
            )

    def _start(self, X, weights, random_state):
        """Fix the shapes and the scale of the features, and draw the parameters."""
        self._check_problem(X)
        self.n_components_ = self.n_components
        self.feature_scale_ = self._choose_scale(X, weights)
        return self._initialise(random_state)

    def _check_problem(self, X):
        if len(self.classes_) < 2:
            raise ValueError(
                f"Got only one class ({self.classes_.tolist()}) but expected at least "
                "two; add photographs (0) or synthetic images (1)."
            )
        if self.n_components > X.shape[1]:
            raise ValueError(
                f"Got n_components={self.n_components} but expected at most "
                f"n_features = {X.shape[1]}; lower n_components."
            )

    def _choose_scale(self, X, weights):
        if self.scale_features is None:
            return 1.0
        if self.scale_features != "auto":
            return float(self.scale_features)
        norms = np.sqrt(np.einsum("ij,ij->i", X, X, dtype=np.float64))  # (n_samples,)
        mean = float(np.average(norms, weights=weights))
        return PUBLISHED_ROW_NORM / mean if mean > 0 else 1.0

    def _shapes(self):
        k, d = self.n_components_, self.n_features_in_
        n_outputs = 1 if len(self.classes_) == 2 else len(self.classes_)
        return (k, d), (k,), (n_outputs, k), (n_outputs,)

    def _unpack(self, params):
        """View a flat vector as W₁, b₁, w₂ and b₂."""
        arrays, start = [], 0
        for shape in self._shapes():
            stop = start + prod(shape)
            arrays.append(params[start:stop].reshape(shape))
            start = stop
        return arrays

    def _initialise(self, random_state):
        """Draw W₁ with orthonormal rows, the rest as torch's Linear does."""
        (k, d), _, (n_outputs, _), _ = self._shapes()
        q, r = np.linalg.qr(random_state.standard_normal((d, k)))
        W1 = (q * np.sign(np.diag(r))).T  # (k, d)
        b1 = random_state.uniform(-1, 1, k) / np.sqrt(d)
        W2 = random_state.uniform(-1, 1, (n_outputs, k)) / np.sqrt(k)
        b2 = random_state.uniform(-1, 1, n_outputs) / np.sqrt(k)
        return np.concatenate([W1.ravel(), b1, W2.ravel(), b2])

    def _optimiser(self, params):
        return Adam(
            params, learning_rate=self.learning_rate_init, weight_decay=self.alpha
        )

    def _smoothed_targets(self, codes):
        n_classes = len(self.classes_)
        s = self.label_smoothing
        if n_classes == 2:
            return np.where(codes[:, None] == 1, 1 - s, s)  # (n_samples, 1)
        targets = np.full((len(codes), n_classes), s / (n_classes - 1))
        targets[np.arange(len(codes)), codes] = 1 - s
        return targets  # (n_samples, n_classes)

    def _validation_loss(self, X, targets, weights):
        """Return the function of the parameters to stop on, None without rows."""
        if not len(X):
            return None

        def validation_loss(params):
            W1, b1, W2, b2 = self._unpack(params)
            direction = self.feature_scale_ * (W2 @ W1)  # (n_outputs, n_features)
            logits = X @ direction.T + (W2 @ b1 + b2)
            return soft_cross_entropy(logits, targets, weights / weights.mean())[0]

        return validation_loss

    def _objective(self, X, targets, weights):
        """Return the function of parameters and batch that a step minimises."""
        grad = np.empty(sum(prod(shape) for shape in self._shapes()), X.dtype)
        views = self._unpack(grad)

        def loss_grad(params, batch):
            loss = self._loss_grad(
                self._unpack(params), X[batch], targets[batch], weights[batch], views
            )
            return loss, grad

        return loss_grad

    def _loss_grad(self, arrays, X, targets, weights, out):
        """Return the loss of a batch and write its gradient to the arrays `out`."""
        W1, b1, W2, b2 = arrays
        scale = X.dtype.type(self.feature_scale_)
        A = (X @ W1.T) * scale + b1  # (n_samples, n_components)
        cross_entropy, dZ = soft_cross_entropy(A @ W2.T + b2, targets, weights)
        penalty, dA = _gram_penalty(A, weights)
        dA *= self.ortho_weight
        dA += dZ @ W2  # (n_samples, n_components)
        np.matmul((dA * scale).T, X, out=out[0])
        dA.sum(axis=0, out=out[1])
        np.matmul(dZ.T, A, out=out[2])
        dZ.sum(axis=0, out=out[3])
        return cross_entropy + self.ortho_weight * penalty

    def _parameters(self):
        """Return the flat parameters that `_store` took apart."""
        b2 = self.intercept_ - self.activation_weights_ @ self.activation_intercept_
        return np.concatenate(
            [
                self.components_.ravel() / self.feature_scale_,
                self.activation_intercept_,
                self.activation_weights_.ravel(),
                b2,
            ]
        )

    def _store(self, params):
        W1, b1, W2, b2 = self._unpack(params.astype(np.float64))
        components = self.feature_scale_ * W1
        coef = W2 @ components  # (n_outputs, n_features)
        intercept = W2 @ b1 + b2  # (n_outputs,)
        if not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
            raise ValueError(
                f"Got a direction that is not finite after {self.n_iter_} epochs with "
                f"learning_rate_init={self.learning_rate_init} and "
                f"feature_scale_={self.feature_scale_:.3g} but expected the training "
                "to converge; lower learning_rate_init or change scale_features."
            )
        self.components_ = components
        self.activation_intercept_ = b1.copy()
        self.activation_weights_ = W2.copy()
        self.coef_ = coef
        self.intercept_ = intercept
        self.axes_ = "learned"
        self.axis_is_remainder_ = np.zeros(self.n_components_, dtype=bool)
        vars(self).pop("axis_share_", None)  # of other rows

    def _choose_axes(self, X, codes, weights):
        """Keep the learned axes or replace them, and measure their shares."""
        self.axes_ = self.axes
        if self.axes == "canonical":
            gaps = class_gaps(X, codes, weights)  # (n_gaps, n_features)
            (
                self.components_,
                self.activation_intercept_,
                self.activation_weights_,
                self.axis_is_remainder_,
            ) = canonical_axes(X, weights, gaps, self.coef_, self.n_components_)
            gaps = gaps @ self.components_.T
        else:
            A = X @ self.components_.T.astype(X.dtype)  # (n_samples, n_components)
            gaps = class_gaps(A, codes, weights)
        self.axis_share_ = axis_shares(self.activation_weights_, gaps)

    def _checked(self, X):
        check_is_fitted(self)
        X = validate_data(self, X, dtype=FLOATS, ensure_all_finite=False, reset=False)
        check_finite_rows(X, self)
        return X

    def _check_stored_arrays(self):
        """Refuse a state that no fit can have made, such as a tampered file."""
        classes = np.asarray(getattr(self, "classes_", None))
        scale = getattr(self, "feature_scale_", None)
        is_scale = isinstance(scale, float) and 0 < scale < np.inf
        if classes.ndim != 1 or not np.array_equal(np.unique(classes), classes):
            raise ValueError(
                f"Got classes_={classes!r} but expected sorted and distinct labels; "
                f"{DAMAGED}"
            )
        if not is_scale or not {"n_components_", "n_features_in_"} <= vars(self).keys():
            raise ValueError(
                f"Got feature_scale_={scale!r} but expected a positive number beside "
                f"n_components_ and n_features_in_; {DAMAGED}"
            )
        names = ("components_", "activation_intercept_", "activation_weights_")
        expected = dict(zip((*names, "intercept_"), self._shapes()))
        expected["coef_"] = (expected["intercept_"][0], expected["components_"][1])
        if hasattr(self, "axis_share_"):
            expected["axis_share_"] = expected["activation_intercept_"]
        for name, shape in expected.items():
            value = getattr(self, name, None)
            array = np.asarray(value)
            finite = array.dtype == np.float64 and np.isfinite(array).all()
            if not isinstance(value, np.ndarray) or array.shape != shape or not finite:
                raise ValueError(
                    f"Got {name} of shape {array.shape}, "
                    f"{'' if finite else 'not '}all finite, but expected finite "
                    f"numbers of shape {shape}; {DAMAGED}"
                )
        is_remainder = np.asarray(getattr(self, "axis_is_remainder_", None))
        if is_remainder.dtype != bool or is_remainder.shape != (self.n_components_,):
            raise ValueError(
                f"Got axis_is_remainder_={is_remainder!r} but expected "
                f"{self.n_components_} times true or false; {DAMAGED}"
            )
        product = self.activation_weights_ @ self.components_
        if not np.allclose(self.coef_, product, atol=1e-9 * np.abs(product).max()):
            raise ValueError(
                "Got a coef_ that is not activation_weights_ @ components_ but "
                f"expected the product; {DAMAGED}"
            )


def _gram_penalty(A, weights):
    """Return ‖I - ÂᵀÂ‖_F of the activations over the batch, and its gradient in A."""
    root = np.sqrt(weights)[:, None]
    A = A * root
    norms = np.sqrt(np.einsum("ij,ij->j", A, A))  # (n_components,)
    np.maximum(norms, 1e-12, out=norms)
    A /= norms
    cosines = A.T @ A  # (n_components, n_components)
    np.fill_diagonal(cosines, 0)
    penalty = np.sqrt(np.einsum("ij,ij->", cosines, cosines))
    if penalty == 0:  # k = 1, or exact orthogonality, where the norm has its kink
        return 0.0, np.zeros_like(A)
    grad = A @ (cosines * (2 / penalty))  # in the unit columns
    grad -= A * np.einsum("ij,ij->j", A, grad)
    grad *= root / norms
    return float(penalty), grad
