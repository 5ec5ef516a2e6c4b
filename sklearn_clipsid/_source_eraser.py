"""Erase the directions in which sources of one class differ."""

from numbers import Integral

import numpy as np
from sklearn.base import (
    BaseEstimator,
    OneToOneFeatureMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from sklearn_clipsid._class_sources import read_class_sources
from sklearn_clipsid._finite_rows import check_finite_rows
from sklearn_clipsid._first_few import first_few
from sklearn_clipsid._warn_user import warn_user

SMALLEST_SINGULAR_VALUE = 0.01  # that LEACE erases, as published
# Rows that are not finite are refused by number.
FLOATS = {"dtype": (np.float64, np.float32), "ensure_all_finite": False}


class SourceEraser(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    r"""Erase the directions in which sources of one class differ.

    Photographs of two sources differ in what they show and in how they were taken, and
    images of two generators in their prompts and in their traces. None of that tells
    a photograph from a synthetic image, but a detector leans on it. This step takes
    such directions out of the features; they keep their number and their names.

    Parameters
    ----------
    n_directions : int, default=8
        How many directions to erase, at most as many as there are sources, less one
        of each class. None erases all in which they differ.

    method : {'between', 'leace'}, default='between'
        "between": the principal directions of the means of the sources within their
        class, projected out. "leace": the closed form of least-squares concept
        erasure [1]_. With all directions, it changes the features as little as it takes
        for no linear model to tell the sources of a class apart.

    Attributes
    ----------
    directions_ : ndarray of shape (n_erased, n_features)
        The directions that are taken out. There are fewer than `n_directions` where
        the sources do not differ in so many.

    weights_ : ndarray of shape (n_erased, n_features)
        How much of each direction a row has: ``(X - mean_) @ weights_.T``. Equal to
        `directions_` with ``method="between"``.

    strengths_ : ndarray of shape (n_erased,)
        Singular values, falling: how much the sources differ in each direction.

    mean_ : ndarray of shape (n_features,)
        Mean of the features, which is left as it is.

    n_features_in_ : int
        Number of features seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features seen in `fit`, when they are all strings.

    Warns
    -----
    UserWarning
        When `fit` gets no groups.

    See Also
    --------
    CommonSupportClassifier : Leaves out sources that have no counterpart.
    BlockSelector : Chooses an earlier transformer block, which transfers better.
    sklearn_clipsid.model_selection.LeaveOneGeneratorOut : Holds out sources.
    sklearn.discriminant_analysis.LinearDiscriminantAnalysis : Weakens all directions
        in which images of a class differ, whatever their source.

    Notes
    -----
    Let :math:`\mu` be the mean of all rows, :math:`m_g` that of source :math:`g` out of
    :math:`G`, and :math:`\mu_c` the mean of those of its class, in which each source
    counts alike, however many rows it has. "between" takes the leading eigenvectors
    :math:`V` of the scatter between sources and within classes,

    .. math:: \frac{1}{G} \sum_g (m_g - \mu_{c(g)}) (m_g - \mu_{c(g)})^\top,

    and returns :math:`x - V^\top V (x - \mu)`. With "leace", :math:`W` is the inverse
    square root of the covariance of the features, and :math:`U` holds the left
    singular vectors of :math:`W \Sigma_{xz}` with singular values above 0.01, where
    :math:`z` has a column for each source, centred within the class and divided by the
    root of the share of its rows; it returns :math:`x - W^{+} U U^\top W (x - \mu)`.
    The code of the authors also shrinks the covariance, and mixes in an orthogonal
    projection where the variance would grow; this class does neither.

    **The classes.** Only differences *within* a class are erased, so that the means of
    the classes are not made equal. But photographs of faces and of landscapes may
    differ in the same direction as photographs and synthetic images do, and what the
    two have in common goes with the rest. More directions are not safer: choose their
    number by held-out sources.

    **A source without a counterpart.** Let faces be in the data as synthetic images
    of one generator only. Erasing how that generator differs from the others makes a
    detector find its faces as synthetic as all their images are, and so it keeps on
    calling faces synthetic. `CommonSupportClassifier` leaves that generator out.

    References
    ----------
    .. [1] N. Belrose et al., "LEACE: Perfect linear concept erasure in closed form",
       NeurIPS 2023, arXiv 2306.03819.

    Examples
    --------
    Two photo sources and two generators differ in the first feature, the classes in
    the second:

    >>> import numpy as np
    >>> from sklearn_clipsid import SourceEraser
    >>> X = np.array([[0.0, 0], [4, 0], [0, 1], [4, 1]])
    >>> y = [0, 0, 1, 1]
    >>> groups = ["COCO", "FFHQ", "SD1.4", "StyleGAN"]
    >>> eraser = SourceEraser(n_directions=1).fit(X, y, groups=groups)
    >>> eraser.transform(X)
    array([[2., 0.],
           [2., 0.],
           [2., 1.],
           [2., 1.]])

    In a pipeline, the groups are named after the step:

    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> detector = make_pipeline(SourceEraser(n_directions=1), LogisticRegression())
    >>> detector = detector.fit(X, y, sourceeraser__groups=groups)
    """

    # Routed by default: without groups a detector would be another one.
    __metadata_request__fit = {"groups": True}

    _parameter_constraints = {
        "n_directions": [Interval(Integral, 1, None, closed="left"), None],
        "method": [StrOptions({"between", "leace"})],
    }

    def __init__(self, n_directions=8, method="between"):
        self.n_directions = n_directions
        self.method = method

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, groups=None):
        """Find the directions.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        y : array-like of shape (n_samples,)
            The class of each row.

        groups : array-like of shape (n_samples,) or (n_samples, 2), default=None
            The generator or photo source of each row; pair ids in a second column
            are not used. None takes each row for a source of its own.

        Returns
        -------
        self : SourceEraser
            The fitted transformer.
        """
        X, y = validate_data(self, X, y, ensure_min_samples=2, **FLOATS)
        check_finite_rows(X, self)
        sources = _read_sources(y, groups)
        n_directions = self._check_n_directions(sources)
        self.mean_ = X.mean(axis=0)  # (n_features,)
        means = sources.means(X)  # (n_sources, n_features)
        if self.method == "between":
            D = _differences(means, sources.class_of, np.ones(len(means)))
            rounding = np.abs(means).max() * max(D.shape) * np.finfo(X.dtype).eps
            weights, self.strengths_ = _principal_directions(D, n_directions, rounding)
            directions = weights  # (n_directions, n_features)
        else:
            D = _differences(means, sources.class_of, sources.n_rows)
            covariance = np.cov(X, rowvar=False, bias=True).reshape(2 * D.shape[1:])
            directions, weights, self.strengths_ = _leace(D, covariance, n_directions)
        self.directions_ = directions.astype(X.dtype, copy=False)
        self.weights_ = weights.astype(X.dtype, copy=False)
        return self

    def transform(self, X):
        """Erase the directions.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        X_erased : ndarray of shape (n_samples, n_features)
            ``X - (X - mean_) @ weights_.T @ directions_``.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, **FLOATS)
        check_finite_rows(X, self)
        return X - (X - self.mean_) @ self.weights_.T @ self.directions_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _check_n_directions(self, sources):
        n_sources, n_classes = len(sources.names), len(sources.labels)
        most = n_sources - n_classes
        if self.n_directions is None:
            return most
        if self.n_directions > most:
            raise ValueError(
                f"Got n_directions={self.n_directions} but expected at most {most}, as "
                f"{n_sources} sources of {n_classes} classes differ within their "
                "classes in no more directions; lower n_directions, add sources, or "
                "pass None for all directions."
            )
        return self.n_directions


def _read_sources(y, groups):
    """Return the sources of each class, two or more."""
    if groups is None:
        warn_user(
            "Got groups=None, so each row counts as a source of its own; pass the "
            "generator or photo source of each row as groups, in a pipeline without "
            "metadata routing as sourceeraser__groups."
        )
        return read_class_sources(y, np.arange(len(y)))
    sources = read_class_sources(y, groups)
    alone = np.flatnonzero(np.bincount(sources.class_of) < 2)  # classes
    if len(alone):
        only = [
            f"y={sources.labels[c].item()!r} of {name.item()!r} only"
            for c, name in zip(sources.class_of, sources.names)
            if c in alone
        ]
        raise ValueError(
            f"Got rows of {first_few(only)} but expected two or more sources in each "
            "class, as their differences are erased; add rows of another source, or "
            "name the sources in groups."
        )
    return sources


def _differences(means, class_of, weights):
    """Return how sources differ from their class, scaled by the roots of weights."""
    D = means.copy()  # (n_sources, n_features)
    for c in np.unique(class_of):
        own = class_of == c
        D[own] -= np.average(D[own], axis=0, weights=weights[own])
    return D * np.sqrt(weights / weights.sum())[:, None]


def _principal_directions(D, n_directions, rounding):
    """Return the right singular vectors of the differences, and singular values."""
    _, s, V = np.linalg.svd(D, full_matrices=False)
    kept = s[:n_directions] > rounding  # sources that do not differ have no direction
    return V[:n_directions][kept], s[:n_directions][kept]


def _leace(D, covariance, n_directions):
    """Return what LEACE takes out, how much of it a row has, and singular values."""
    eigenvalues, Q = np.linalg.eigh(covariance)
    smallest = eigenvalues[-1] * len(Q) * np.finfo(Q.dtype).eps
    kept = eigenvalues > smallest
    Q, roots = Q[:, kept], np.sqrt(eigenvalues[kept])
    # D.T is the cross-covariance with the sources, over the roots of their shares.
    U, s, _ = np.linalg.svd((Q / roots).T @ D.T, full_matrices=False)
    kept = s[:n_directions] > SMALLEST_SINGULAR_VALUE
    U = U[:, :n_directions][:, kept]  # (n_kept, n_erased)
    return (Q * roots @ U).T, (Q / roots @ U).T, s[:n_directions][kept]
