"""Choose one transformer block out of the features of all of them."""

from numbers import Integral

from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import (
    _check_feature_names_in,
    check_is_fitted,
    validate_data,
)

from sklearn_clipsid._block_index import block_index

# (blocks, width) of the ViT image towers that open_clip knows; their products differ,
# so that the width of concatenated blocks tells which tower made them.
VIT_MEASURES = (
    (12, 384),
    (12, 512),
    (12, 768),
    (12, 896),
    (24, 1024),
    (32, 1280),
    (40, 1408),
    (48, 1664),
    (56, 1792),
)


class BlockSelector(TransformerMixin, BaseEstimator):
    """Select the class token of one transformer block.

    ``CLIPEmbedder(features="blocks")`` embeds each image once and returns all blocks
    side by side; this step picks one, so that which block generalises best becomes
    ordinary model selection [1]_ without embedding anything again.

    Parameters
    ----------
    block : int, default=-1
        The block, counted from 1, or from the last as -1.

    n_blocks : int, default=None
        How many blocks the features hold. None recognises open_clip's ViT models by
        the width of their concatenated blocks.

    Attributes
    ----------
    n_blocks_ : int
        How many blocks the features hold.

    n_features_in_ : int
        Width of all blocks together.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features seen in `fit`, when they are all strings.

    See Also
    --------
    CLIPEmbedder : Makes the features.
    BlockMixer : Mixes all blocks with learned weights.

    References
    ----------
    .. [1] C. Koutlis, S. Papadopoulos, "Leveraging Representations from Intermediate
       Encoder-blocks for Synthetic Image Detection", arXiv 2402.19091.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_clipsid import BlockSelector
    >>> X = np.arange(24.0).reshape(2, 12)  # 3 blocks of width 4
    >>> BlockSelector(block=2, n_blocks=3).fit_transform(X)
    array([[ 4.,  5.,  6.,  7.],
           [16., 17., 18., 19.]])
    """

    _parameter_constraints = {
        "block": [Integral],
        "n_blocks": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(self, block=-1, *, n_blocks=None):
        self.block = block
        self.n_blocks = n_blocks

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Learn how many blocks there are.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_blocks * width)
            The features of all blocks.

        y : None
            Ignored.

        Returns
        -------
        self : BlockSelector
            The fitted transformer.
        """
        # NaN rows stand for unreadable images; the detector behind names them.
        X = validate_data(self, X, ensure_all_finite=False)
        self.n_blocks_ = self.n_blocks or self._recognise(X.shape[1])
        if X.shape[1] % self.n_blocks_:
            raise ValueError(
                f"Got {X.shape[1]} features but expected a multiple of "
                f"n_blocks={self.n_blocks_}; pass the output of "
                "CLIPEmbedder(features='blocks') and the number of its blocks."
            )
        self._columns()
        return self

    def transform(self, X):
        """Return the features of the chosen block.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_blocks * width)
            The features of all blocks.

        Returns
        -------
        X_block : ndarray of shape (n_samples, width)
            The features of one.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, ensure_all_finite=False)
        return X[:, self._columns()]  # (n_samples, width)

    def get_feature_names_out(self, input_features=None):
        """Return the names of the chosen features.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the input features.

        Returns
        -------
        names : ndarray of str
            Those of the chosen block.
        """
        check_is_fitted(self)
        return _check_feature_names_in(self, input_features)[self._columns()]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _columns(self):
        width = self.n_features_in_ // self.n_blocks_
        # Checked at each use, as a slice beyond the last block would be empty.
        index = block_index(self.block, self.n_blocks_, called="block=")
        return slice(index * width, (index + 1) * width)

    def _recognise(self, n_features):
        for n_blocks, width in VIT_MEASURES:
            if n_blocks * width == n_features:
                return n_blocks
        raise ValueError(
            f"Got {n_features} features, which is none of open_clip's ViT models with "
            "all blocks side by side, but expected the output of "
            "CLIPEmbedder(features='blocks'); pass n_blocks for another model."
        )
