"""Mix the features of all transformer blocks with learned weights (after RINE)."""

from numbers import Integral, Real

import numpy as np
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler
from sklearn.utils import ClassifierTags
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from sklearn_clipsid._block_selector import BlockSelector
from sklearn_clipsid._cross_entropy import soft_cross_entropy
from sklearn_clipsid._finite_rows import check_finite_rows
from sklearn_clipsid._nested_folds import read_binary_labels
from sklearn_clipsid._warn_user import warn_user

LARGEST_GRADIENT = 1e-5  # at which the minimum counts as found
FLOATS = {"dtype": (np.float64, np.float32), "ensure_all_finite": False}


class BlockMixer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    r"""Mix the class tokens of all transformer blocks with learned weights.

    Where `BlockSelector` takes one block, this step returns a weighted mean of all,
    as wide as one. The weights are positive, sum to 1 and are learned from the labels,
    in the spirit of RINE [1]_. Each feature of each block is standardised before.

    Parameters
    ----------
    weights : {"block", "feature"}, default="block"
        What has a weight of its own: each block, or each feature of each block, as in
        RINE. In the second case the weights of one feature sum to 1 over the blocks.

    alpha : float, default=0.3
        L2 penalty of the logistic regression that the weights are learned with. On n
        rows it is ``LogisticRegression(C=1 / (alpha * n))``.

    max_iter : int, default=1000
        Steps of L-BFGS, at most.

    n_blocks : int, default=None
        How many blocks the features hold. None recognises open_clip's ViT models by
        the width of their concatenated blocks.

    Attributes
    ----------
    block_weights_ : ndarray of shape (n_blocks,)
        The weight of each block; with ``weights="feature"`` the mean over its features.

    weights_ : ndarray of shape (n_blocks, width)
        The weight of each feature. With ``weights="block"`` those of a block are equal.

    mean_ : ndarray of shape (`n_features_in_`,)
        Mean of X.

    scale_ : ndarray of shape (`n_features_in_`,)
        Standard deviation of X; 1 where a feature is constant.

    n_blocks_ : int
        How many blocks the features hold.

    n_iter_ : int
        Steps of L-BFGS.

    n_features_in_ : int
        Width of all blocks together.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features seen in `fit`, when they are all strings.

    Warns
    -----
    ConvergenceWarning
        When the minimum was not found in `max_iter` steps.

    See Also
    --------
    BlockSelector : Takes one block, which a grid search can choose.
    CLIPEmbedder : Makes the features.

    Notes
    -----
    Let :math:`x_{lj}` be the standardised feature j of block l. With
    :math:`s_{lj} = e^{a_{lj}} / \sum_k e^{a_{kj}}`, or one such weight for all features
    of a block, `fit` minimises

    .. math:: \frac{1}{n} \sum_i \log\left(1 + e^{-y_i z_i}\right)
        + \frac{\alpha}{2} \sum_j w_j^2, \qquad
        z = b + \sum_j w_j \sum_l s_{lj} x_{lj}

    over a, w and b with labels of -1 and 1, from equal weights and :math:`w = 0`.
    `transform` returns :math:`\sum_l s_{lj} x_{lj}`. The direction w is not kept: a
    detector behind this step learns its own, and may be one that knows sources, such
    as `CommonSupportClassifier`. For given weights the loss is convex in w and b. It
    is not convex in all, so this is the minimum that is reached from equal weights,
    and another may be lower. Nothing is random.

    **Blocks share a basis.** Each block adds to what it gets from the one before, so
    that feature j means much the same in neighbours. That is why one w can serve all.

    **A mean varies less.** Features of the mix have a variance below 1 where blocks
    differ; put a `StandardScaler` between this step and a regularised detector.

    **What differs from RINE.** There, layers with ReLU are trained before and after
    the weighted sum, which here would be most of the model, and a contrastive loss
    is added.

    **Most weights become 0 or 1.** Where blocks differ, their mean is smaller than one
    block, so that w has to be larger and costs more. A feature with :math:`w_j` near 0
    has weights that mean nothing.

    **Expect little.** The weights say which mix tells the training classes apart, not
    which one transfers. On the class tokens of blocks 8 to 11 of 12 of 4,214 images,
    one weight for each block chose one block, and not always the same when other
    sources were held out. On generators and photo sources held out, the mean AUC was
    .748, below .766 to .786 of each block alone; with a weight for each feature it was
    .788, and with all features side by side .801. Before a `CommonSupportClassifier`
    the mixes reached .845 and .835, blocks alone .786 to .874
    (``benchmarks/block_weights.py``). A grid search over `BlockSelector` with folds of
    generators asks what transfers.

    References
    ----------
    .. [1] C. Koutlis, S. Papadopoulos, "Leveraging Representations from Intermediate
       Encoder-blocks for Synthetic Image Detection", arXiv 2402.19091.

    Examples
    --------
    Only the second of three blocks tells the classes apart:

    >>> import numpy as np
    >>> from sklearn_clipsid import BlockMixer
    >>> y = np.repeat([0, 1], 100)
    >>> tokens = np.random.default_rng(0).standard_normal((200, 3, 4))
    >>> tokens[:, 1] += 2 * y[:, None]
    >>> X = tokens.reshape(200, 12)
    >>> mixer = BlockMixer(n_blocks=3).fit(X, y)
    >>> mixer.block_weights_.argmax() + 1
    np.int64(2)
    >>> mixer.transform(X).shape
    (200, 4)
    """

    _parameter_constraints = {
        "weights": [StrOptions({"block", "feature"})],
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "n_blocks": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(self, weights="block", *, alpha=0.3, max_iter=1000, n_blocks=None):
        self.weights = weights
        self.alpha = alpha
        self.max_iter = max_iter
        self.n_blocks = n_blocks

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y):
        """Learn the weights.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_blocks * width)
            The features of all blocks.

        y : array-like of shape (n_samples,)
            Labels of two classes.

        Returns
        -------
        self : BlockMixer
            The fitted transformer.
        """
        X, y = validate_data(self, X, y, ensure_min_samples=2, **FLOATS)
        check_finite_rows(X, self)
        synthetic = read_binary_labels(y, pos_label=None)
        self.n_blocks_ = BlockSelector(n_blocks=self.n_blocks).fit(X).n_blocks_
        scaler = StandardScaler().fit(X)
        self.mean_, self.scale_ = scaler.mean_, scaler.scale_
        logits_of_weights = self._minimise(scaler.transform(X), synthetic)
        width = X.shape[1] // self.n_blocks_
        self.weights_ = softmax(logits_of_weights, axis=0) * np.ones(width)
        self.block_weights_ = self.weights_.mean(axis=1)  # (n_blocks,)
        return self

    def transform(self, X):
        """Mix the blocks.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_blocks * width)
            The features of all blocks.

        Returns
        -------
        X_mixed : ndarray of shape (n_samples, width)
            The weighted mean of the standardised features.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, **FLOATS)
        check_finite_rows(X, self)
        factors = self.weights_.ravel() / self.scale_  # (n_features_in_,)
        terms = (X - self.mean_.astype(X.dtype)) * factors.astype(X.dtype)
        return terms.reshape(len(X), *self.weights_.shape).sum(axis=1)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.classifier_tags = ClassifierTags(multi_class=False)
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @property
    def _n_features_out(self):
        return self.weights_.shape[1]

    def _minimise(self, X, synthetic):
        """Return a, one row for each block and one column or one for each feature."""
        width = X.shape[1] // self.n_blocks_
        n_columns = width if self.weights == "feature" else 1
        found = minimize(
            mixture_loss,
            np.zeros(self.n_blocks_ * n_columns + width + 1),
            args=(X, synthetic, self.n_blocks_, self.alpha),
            jac=True,
            method="L-BFGS-B",
            options={
                "maxiter": self.max_iter,
                "gtol": LARGEST_GRADIENT,
                "ftol": np.finfo(X.dtype).eps,
            },
        )
        self.n_iter_ = found.nit
        if not found.success:
            warn_user(
                f"Got no minimum within {found.nit} steps ({found.message}) but "
                "expected the weights to settle; raise max_iter or alpha.",
                ConvergenceWarning,
            )
        return _unpack(found.x, self.n_blocks_, width)[0]


def mixture_loss(params, X, synthetic, n_blocks, alpha):
    """Return the loss of weights and direction together, and its gradient.

    Parameters
    ----------
    params : ndarray of shape (n_params,)
        The logits of the weights, block by block and one or `width` of each; w; b.

    X : ndarray of shape (n_samples, n_blocks * width)
        Standardised features.

    synthetic : ndarray of bool of shape (n_samples,)
        The class.

    n_blocks : int
        How many blocks X has.

    alpha : float
        L2 penalty of w.

    Returns
    -------
    loss : float
        Mean log loss and penalty.

    grad : ndarray of shape (n_params,)
        Its derivative.
    """
    width = X.shape[1] // n_blocks
    a, w, b = _unpack(params, n_blocks, width)
    S = softmax(a, axis=0)  # (n_blocks, 1) or (n_blocks, width)
    logits = X @ (S * w).ravel().astype(X.dtype) + b  # (n_samples,)
    loss, dz = soft_cross_entropy(logits[:, None], synthetic[:, None], np.ones(len(X)))
    dC = (dz[:, 0].astype(X.dtype) @ X).reshape(n_blocks, width)  # of S * w
    dS = dC * w
    if a.shape[1] == 1:
        dS = dS.sum(axis=1, keepdims=True)
    da = S * (dS - (S * dS).sum(axis=0))
    dw = (S * dC).sum(axis=0) + alpha * w
    grad = np.concatenate([da.ravel(), dw, [dz.sum()]])
    return loss + alpha / 2 * (w @ w), grad


def _unpack(params, n_blocks, width):
    """View a flat vector as a, w and b."""
    split = len(params) - width - 1
    return params[:split].reshape(n_blocks, -1), params[split:-1], params[-1]
