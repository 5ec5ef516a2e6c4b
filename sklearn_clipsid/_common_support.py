"""Train without the sources that have no counterpart in the other class."""

from numbers import Real

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    MetaEstimatorMixin,
    _fit_context,
    clone,
)
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    _raise_for_params,
    _routing_enabled,
    process_routing,
)
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import (
    _check_method_params,
    _estimator_has,
    check_is_fitted,
    validate_data,
)

from sklearn_clipsid._class_sources import read_class_sources
from sklearn_clipsid._finite_rows import check_finite_rows
from sklearn_clipsid._warn_user import warn_user

SHRINKAGE = 0.5  # of the covariance within sources
FLOATS = {"dtype": (np.float64, np.float32), "ensure_all_finite": False}


class CommonSupportClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    r"""Fit a detector without the sources that have no counterpart in the other class.

    Let faces be in the data as synthetic images of one generator only. They can be
    told from all photographs by their content, and so the detector learns that faces
    are synthetic. This classifier finds such sources by their distance to the nearest
    source of another class, and fits a detector to the rows of all others: studies of
    treatments leave out, in the same way, who has no counterpart among the treated
    [1]_.

    Parameters
    ----------
    estimator : classifier
        The detector. Scale the features before: its place is at the end of a pipeline,
        behind a :class:`~sklearn.preprocessing.StandardScaler`.

    max_distance : float, default=2.0
        A source takes part if it is no further from the other class than so many times
        the median of all sources. At 1 or more, there are rows of both classes left.

    Attributes
    ----------
    estimator_ : classifier
        The fitted detector.

    classes_ : ndarray of shape (n_classes,)
        The labels.

    sources_ : ndarray of shape (n_sources,)
        Names of the photo sources and generators, class by class.

    distances_ : ndarray of shape (n_sources,)
        Squared distance of each to the nearest source of another class, where the
        median is 1.

    kept_ : ndarray of bool of shape (n_sources,)
        Which of them the detector was fitted to.

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
    SourceEraser : Erases directions in which the sources of a class differ.
    sklearn_clipsid.model_selection.LeaveOneGeneratorOut : Holds out sources.

    Notes
    -----
    The squared distance of two sources is :math:`(m_g - m_h)^\top S^{-1} (m_g - m_h)`
    of their means. :math:`S` is the covariance of all rows within their sources, shrunk
    by half towards a multiple of the identity. The mean of few rows is uncertain, which
    adds to its distance: a source of ten images seems further away than it is.

    **Do not choose `max_distance` by the score of held-out sources.** It helps with
    content that no source of the other class in your data shows. No source that is
    held out of these data shows it either, and so its score says nothing of the gain.

    **What it costs.** Fewer rows. And a generator that is far from all photographs
    because of its traces, not its content, is left out as well. On the pooled features
    of ViT-B/16 those were FLUX.1 and SDXL, which are then missed; after block 8 of 12
    neither was far. Choose the block by held-out sources, and read ``sources_[~kept_]``
    (``benchmarks/generalising.py``).

    References
    ----------
    .. [1] R. Crump, V. Hotz, G. Imbens, O. Mitnik, "Dealing with limited overlap in
       estimation of average treatment effects", Biometrika 96, 2009.

    Examples
    --------
    No photograph is like the images of the third generator:

    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_clipsid import CommonSupportClassifier
    >>> rng = np.random.default_rng(0)
    >>> sources = ["COCO", "RAISE", "GLIDE", "SD1.4", "StyleGAN"]
    >>> means = np.array([[0, 0], [3, 0], [0, 2], [3, 2], [12, 1]])
    >>> groups = np.repeat(sources, 50)
    >>> X = np.repeat(means, 50, axis=0) + rng.standard_normal((250, 2))
    >>> y = np.repeat([0, 0, 1, 1, 1], 50)
    >>> detector = CommonSupportClassifier(LogisticRegression())
    >>> detector = detector.fit(X, y, groups=groups)
    >>> detector.sources_[~detector.kept_].tolist()
    ['StyleGAN']
    """

    # Routed by default: without groups a detector would be another one.
    __metadata_request__fit = {"groups": True}

    _parameter_constraints = {
        "estimator": [HasMethods(["fit", "predict"])],
        "max_distance": [Interval(Real, 1, None, closed="left")],
    }

    def __init__(self, estimator, max_distance=2.0):
        self.estimator = estimator
        self.max_distance = max_distance

    # `estimator` is not validated yet.
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, groups=None, **params):
        """Leave sources out, and fit the detector to the others.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        y : array-like of shape (n_samples,)
            Labels of two classes.

        groups : array-like of shape (n_samples,) or (n_samples, 2), default=None
            The generator or photo source of each row; pair ids in a second column
            are not used here. None takes the rows of a class for one source, so that
            all take part.

        **params : dict
            Passed to `fit` of the detector, as are the groups where it asks for them;
            metadata routing must be enabled.

        Returns
        -------
        self : CommonSupportClassifier
            The fitted classifier.
        """
        _raise_for_params(params, self, "fit")
        X, y = validate_data(self, X, y, **FLOATS)
        check_finite_rows(X, self)
        sources = _read_sources(y, groups)
        D = _squared_distances(X, sources)  # (n_sources, n_sources)
        same_class = np.equal.outer(sources.class_of, sources.class_of)
        nearest = np.where(same_class, np.inf, D).min(axis=1)  # (n_sources,)
        self.distances_ = nearest / np.median(nearest)
        self.sources_, self.kept_ = sources.names, self.distances_ <= self.max_distance
        rows = np.flatnonzero(self.kept_[sources.of_row])
        if _routing_enabled():
            params = process_routing(self, "fit", groups=groups, **params).estimator.fit
        params = _check_method_params(X, params, indices=rows)
        self.estimator_ = clone(self.estimator).fit(X[rows], y[rows], **params)
        return self

    def predict(self, X):
        """Return the labels that the detector gives.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            Labels out of `classes_`.
        """
        X = self._validated(X)
        return self.estimator_.predict(X)

    @available_if(_estimator_has("decision_function"))
    def decision_function(self, X):
        """Return the decision function of the detector.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        decision : ndarray of shape (n_samples,)
            As the detector says.
        """
        X = self._validated(X)
        return self.estimator_.decision_function(X)

    @available_if(_estimator_has("predict_proba"))
    def predict_proba(self, X):
        """Return the probabilities of the detector.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        probability : ndarray of shape (n_samples, n_classes)
            As the detector says, in the order of `classes_`.
        """
        X = self._validated(X)
        return self.estimator_.predict_proba(X)

    @property
    def classes_(self):
        """The labels, in sorted order."""
        return self.estimator_.classes_

    def get_metadata_routing(self):
        """Say which metadata are taken here, and which go to the detector.

        Returns
        -------
        routing : MetadataRouter
            What is asked for.
        """
        return (
            MetadataRouter(owner=self)
            .add_self_request(self)
            .add(
                estimator=self.estimator,
                method_mapping=MethodMapping().add(caller="fit", callee="fit"),
            )
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def _validated(self, X):
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, **FLOATS)
        check_finite_rows(X, self)
        return X


def _read_sources(y, groups):
    """Return the sources of both classes."""
    y_type = type_of_target(y, input_name="y", raise_unknown=True)
    if y_type != "binary":
        raise ValueError(
            "Only binary classification is supported. Unknown label type: "
            f"{y_type}. Pass one of two labels for each row."
        )
    if groups is None:
        warn_user(
            "Got groups=None, so the rows of a class count as one source and all take "
            "part; pass the generator or photo source of each row as groups, in a "
            "pipeline without metadata routing as commonsupportclassifier__groups."
        )
        groups = y
    sources = read_class_sources(y, groups)
    if len(sources.labels) < 2:
        raise ValueError(
            f"Got y with 1 class, {sources.labels[0].item()!r}, but expected "
            "photographs and synthetic images; add the other."
        )
    return sources


def _squared_distances(X, sources):
    """Return Mahalanobis distances of the means of sources."""
    means = sources.means(X)  # (n_sources, n_features)
    within = X - means.astype(X.dtype)[sources.of_row]
    S = within.T @ within / len(X)  # (n_features, n_features)
    # Where rows are as their sources, S would have no inverse.
    scale = np.trace(S) / len(S) or 1.0
    S = (1 - SHRINKAGE) * S + SHRINKAGE * scale * np.eye(len(S))
    centred = means - means.mean(axis=0)  # (n_sources, n_features)
    G = centred @ cho_solve(cho_factor(S), centred.T)  # (n_sources, n_sources)
    squared = np.diag(G)
    # The median must not be 0, nor be made of rounding errors.
    rounding = len(S) * np.finfo(G.dtype).eps * squared.max() or 1.0
    return np.maximum(squared[:, None] + squared - 2 * G, rounding)
