"""Describe features by a few texts, chosen greedily (Gandelsman et al., TextSpan)."""

from numbers import Integral

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import (
    _check_feature_names_in,
    check_array,
    check_is_fitted,
    validate_data,
)

from sklearn_clipsid._concept_vocabulary import check_concepts
from sklearn_clipsid._finite_rows import check_finite_rows
from sklearn_clipsid._warn_user import warn_user

DAMAGED = "the saved transformer is damaged or was changed by hand."


class TextSpan(TransformerMixin, BaseEstimator):
    r"""Orthogonal basis of features, made of the texts that explain most variance.

    Principal component analysis restricted to named directions [1]_: in each step the
    text along which the features vary most becomes a component, and its direction is
    taken out of the features and of all other texts. Use it on what you want to
    describe in words, such as projected features of images or the contributions of one
    attention head.

    Parameters
    ----------
    text_embeddings : array-like of shape (n_texts, n_features), default=None
        One direction per text in the space of X, such as a text embedding or the
        difference between those of two antonyms; of any length, as only the direction
        counts. None takes each feature of X as a text.

    texts : array-like of str of shape (n_texts,), default=None
        The texts, all different. None numbers them, or takes the names of the
        features.

    n_components : int, default=10
        How many texts to choose, at most all of them.

    rank : int, default=80
        How many right singular vectors of X the texts are projected on. Parts of a
        text that the features hardly have do not count, then.

    Attributes
    ----------
    components_ : ndarray of shape (`n_components_`, n_features)
        What each chosen text adds to those before it, as directions of unit norm that
        are orthogonal to one another.

    texts_ : ndarray of shape (`n_components_`,)
        The chosen texts, in the order in which they were chosen.

    text_indices_ : ndarray of shape (`n_components_`,)
        Their rows in `text_embeddings`.

    mean_ : ndarray of shape (n_features,)
        Mean of the rows of X.

    explained_variance_ : ndarray of shape (`n_components_`,)
        Variance of X along each component.

    explained_variance_ratio_ : ndarray of shape (`n_components_`,)
        The same as a share of the variance of all features.

    n_components_ : int
        Number of components; fewer than `n_components` if no text is left that
        explains anything.

    n_features_in_ : int
        Number of features seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features seen in `fit`, when they are all strings.

    See Also
    --------
    ConceptBottleneckClassifier : Detects by named directions.
    sklearn.decomposition.PCA : Explains more with as many components, none of them
        named.

    Notes
    -----
    Texts are scaled to unit norm and projected into the span of the first `rank` right
    singular vectors of X (not centred), which makes the rows :math:`r_j`; they are not
    scaled again, so that texts that lie within the span are favoured. With the centred
    rows :math:`c_i`, each step chooses

    .. math:: j^* = \arg\max_j \, \mathrm{std}_i \, (c_i^\top r_j)

    and takes :math:`r_{j^*}` out of all :math:`c_i` and :math:`r_j`. The algorithm is
    the published one, computed within the span, where a step costs the same however
    many rows X has. It stops early where no text is left that explains anything; the
    published code would divide by zero there.

    A later text stands for what it *adds*: its component may have little in common
    with the text itself. And a text that varies with the features is not what they
    encode: among enough texts some will vary with anything.

    References
    ----------
    .. [1] Y. Gandelsman, A. Efros, J. Steinhardt, "Interpreting CLIP's Image
       Representation via Text-Based Decomposition", ICLR 2024, arXiv 2310.05916.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_clipsid import TextSpan
    >>> rng = np.random.default_rng(0)
    >>> embeddings = rng.standard_normal((4, 32))
    >>> amounts = rng.standard_normal((50, 4)) * [0, 3, 0, 1]
    >>> X = amounts @ embeddings
    >>> texts = ["grain", "blur", "bokeh", "warm tones"]
    >>> span = TextSpan(embeddings, texts, n_components=2).fit(X)
    >>> span.texts_.tolist()
    ['blur', 'warm tones']
    >>> bool(np.isclose(span.explained_variance_ratio_.sum(), 1))
    True
    >>> span.transform(X).shape
    (50, 2)
    """

    _parameter_constraints = {
        "text_embeddings": ["array-like", None],
        "texts": ["array-like", None],
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "rank": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(self, text_embeddings=None, texts=None, *, n_components=10, rank=80):
        self.text_embeddings = text_embeddings
        self.texts = texts
        self.n_components = n_components
        self.rank = rank

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Choose the texts.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features in the space of the texts.

        y : None
            Ignored.

        Returns
        -------
        self : TextSpan
            The fitted transformer.
        """
        X = validate_data(
            self, X, dtype=np.float64, ensure_all_finite=False, ensure_min_samples=2
        )
        check_finite_rows(X, self)
        T, texts = self._check_texts(X.shape[1])
        V, noise = _row_space(X, self.rank)  # (rank, n_features)
        self.mean_ = X.mean(axis=0)
        C = X - self.mean_
        # S.T @ S is the covariance within the span, without its rounding errors.
        S = np.linalg.qr(C @ V.T, mode="r") / np.sqrt(len(X) - 1)
        indices, basis = _greedy_basis(T @ V.T, S, self.n_components, noise)
        self._check_found(indices, texts)
        self.text_indices_, self.texts_ = indices, texts[indices]
        self.n_components_ = len(indices)
        self.components_ = basis @ V  # (n_components, n_features)
        self.explained_variance_ = ((basis @ S.T) ** 2).sum(axis=1)
        total = (C**2).sum() / (len(X) - 1)
        self.explained_variance_ratio_ = self.explained_variance_ / total
        return self

    def transform(self, X):
        """Return how much of each component each row has.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        coefficients : ndarray of shape (n_samples, n_components)
            ``(X - mean_) @ components_.T``.
        """
        check_is_fitted(self)
        X = validate_data(
            self, X, dtype=np.float64, ensure_all_finite=False, reset=False
        )
        check_finite_rows(X, self)
        return (X - self.mean_) @ self.components_.T

    def inverse_transform(self, X):
        """Return the features that the components account for.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Coefficients, as `transform` returns them.

        Returns
        -------
        features : ndarray of shape (n_samples, n_features)
            ``X @ components_ + mean_``: of all points that the components can reach
            from the mean, those nearest to what was transformed.
        """
        check_is_fitted(self)
        X = check_array(X, dtype=np.float64)
        if X.shape[1] != self.n_components_:
            raise ValueError(
                f"Got {X.shape[1]} columns but expected one per component, "
                f"{self.n_components_}; pass what transform returned."
            )
        return X @ self.components_ + self.mean_

    def get_feature_names_out(self, input_features=None):
        """Return the chosen texts.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Ignored.

        Returns
        -------
        names : ndarray of str
            `texts_`.
        """
        check_is_fitted(self)
        return self.texts_.astype(object)

    def __setstate__(self, state):
        super().__setstate__(state)
        if {"components_", "mean_", "texts_"} & vars(self).keys():
            # Of the class: the state itself could hold that name.
            type(self)._check_stored_arrays(self)

    def _check_texts(self, n_features):
        embeddings, texts = self.text_embeddings, self.texts
        if embeddings is None:
            embeddings = np.eye(n_features)
            texts = _check_feature_names_in(self) if texts is None else texts
        elif texts is None:
            texts = [f"text{i}" for i in range(len(embeddings))]
        T, texts = check_concepts(
            embeddings, texts, n_features, called=("text_embeddings", "texts")
        )
        if self.n_components > len(T):
            raise ValueError(
                f"Got n_components={self.n_components} but expected at most the number "
                f"of texts, {len(T)}; lower n_components or bring more texts."
            )
        return T, texts

    def _check_found(self, indices, texts):
        if not len(indices):
            raise ValueError(
                f"Got X that does not vary along any of {len(texts)} texts but "
                "expected rows that differ in the space of the texts; check that the "
                "rows are not all equal, and that one encoder made rows and texts."
            )
        if len(indices) < self.n_components:
            warn_user(
                f"Got n_components={self.n_components} but only {len(indices)} of "
                f"{len(texts)} texts explain anything of what is left of X within "
                f"rank={self.rank}; kept {len(indices)} components. Lower n_components."
            )

    def _check_stored_arrays(self):
        """Refuse a state that no fit can have made, such as a tampered file."""
        k, d = getattr(self, "n_components_", None), getattr(self, "n_features_in_", 0)
        expected = {
            "components_": ((k, d), np.float64),
            "mean_": ((d,), np.float64),
            "explained_variance_": ((k,), np.float64),
            "explained_variance_ratio_": ((k,), np.float64),
            "text_indices_": ((k,), np.integer),
            "texts_": ((k,), np.str_),
        }
        for name, (shape, kind) in expected.items():
            array = np.asarray(getattr(self, name, None))
            fits = array.shape == shape and np.issubdtype(array.dtype, kind)
            if not fits or (kind is np.float64 and not np.isfinite(array).all()):
                raise ValueError(
                    f"Got {name} of shape {array.shape} and type {array.dtype} but "
                    f"expected finite {kind.__name__} of shape {shape}; {DAMAGED}"
                )
        product = self.components_ @ self.components_.T
        if not k or not np.allclose(product, np.eye(k), rtol=0, atol=1e-9):
            raise ValueError(
                "Got components_ that are not orthogonal rows of unit norm; " + DAMAGED
            )
        if len(set(self.texts_.tolist())) < k or (self.explained_variance_ < 0).any():
            raise ValueError(
                "Got texts_ that occur twice or an explained_variance_ below 0; "
                + DAMAGED
            )


def _row_space(X, rank):
    """Return the leading right singular vectors, and the deviation that is rounding."""
    # The triangle has the same ones as X, and no left ones to be computed.
    _, s, V = np.linalg.svd(np.linalg.qr(X, mode="r"), full_matrices=False)
    smallest = s[0] * max(X.shape) * np.finfo(np.float64).eps
    rank = min(rank, np.count_nonzero(s > smallest))
    return V[:rank], smallest / np.sqrt(len(X) - 1)


def _greedy_basis(R, S, n_components, noise):
    """Choose rows of R along which rows with the covariance ``S.T @ S`` vary most.

    Parameters
    ----------
    R : ndarray of shape (n_texts, rank)
        Texts within the span.

    S : ndarray of shape (rank, rank)
        Factor of the covariance.

    n_components : int
        How many to choose, at most.

    noise : float
        Standard deviations up to this one are rounding errors.

    Returns
    -------
    indices : ndarray of shape (n_chosen,)
        Rows of R, in the order in which they were chosen.

    basis : ndarray of shape (n_chosen, rank)
        What they add, orthonormal.
    """
    R = R.copy()
    shortest = max(R.shape) * np.finfo(np.float64).eps  # of texts of unit norm
    indices, basis = [], np.empty((0, R.shape[1]))
    while len(indices) < n_components:
        # What was taken out of the texts need not be taken out of the rows as well:
        # their products are the same.
        j = int(np.linalg.norm(R @ S.T, axis=1).argmax())
        # Taken out twice, as similar texts leave little but rounding errors.
        r = R[j] - basis.T @ (basis @ R[j])
        length = np.linalg.norm(r)
        if length <= shortest or np.linalg.norm(S @ r) <= noise * length:
            break
        r /= length
        indices.append(j)
        basis = np.vstack([basis, r])
        R -= np.outer(R @ r, r)
    return np.array(indices, dtype=np.intp), basis
