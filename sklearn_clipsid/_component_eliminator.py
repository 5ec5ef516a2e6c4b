"""Remove components of features that hurt on generators not seen (Gaintseva et al.)."""

from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils import ClassifierTags
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import (
    _check_feature_names_in,
    check_is_fitted,
    validate_data,
)

from sklearn_clipsid._backward_ridge import BackwardRidge
from sklearn_clipsid._finite_rows import check_finite_rows
from sklearn_clipsid._nested_folds import best_place, nested_folds, read_binary_labels


class ComponentEliminator(TransformerMixin, BaseEstimator):
    r"""Remove coordinates or principal components that hurt on unseen generators.

    Some components of an embedding tell the generators of the training set from its
    photographs, and mislead about others. Greedy backward elimination [1]_ removes,
    again and again, the one without which a classifier is best on generators, and on
    photo sources, that it was not trained on. How many to remove is decided on further
    generators that had no say in which.

    Parameters
    ----------
    basis : {"coordinates", "principal"}, default="coordinates"
        What is removed:

        - "coordinates": columns of X; `transform` returns the others;
        - "principal": principal components of X; `transform` returns all columns, with
          the removed components set to their mean, so that X stays in its space.

    max_removed : int, default=64
        How many to remove, at most. One is always kept.

    patience : int, default=8
        Stop when `score_path_` has had no new best for so many removals.

    tol : float, default=0.001
        What counts as a new best: an AUC larger by more than this.

    alpha : float, default=0.3
        Ridge penalty of the classifier inside, in units of the mean variance of the
        features.

    cv : cross-validation splitter, default=None
        Has to split parts of the rows as well. None is `LeaveOneGeneratorOut` on
        `groups`; without `groups` it is a stratified 5-fold cross-validation (fewer
        folds where a class has fewer rows), which says nothing of unseen generators,
        with a warning.

    pos_label : int, float, bool or str, default=None
        The label of synthetic images. None is the second label in sorted order.

    n_jobs : int, default=None
        Validation folds that are worked on at once, in threads.

    Attributes
    ----------
    support_ : ndarray of bool of shape (n_components,)
        Which coordinates or principal components are kept. Principal components are
        in the order of their variance.

    removed_ : ndarray of int of shape (n_removed,)
        Which are removed, in the order of their removal.

    score_path_ : ndarray of shape (n_checked + 1,)
        Mean AUC after 0, 1, … removals on validation folds that had no part in
        choosing them. `removed_` is as long as the path was at its best.

    selection_path_ : ndarray of shape (n_removed + 1,)
        Mean AUC after 0, 1, … removals on the folds that chose them: too good, as the
        maximum of many scores always is.

    mean_ : ndarray of shape (`n_features_in_`,)
        Mean of X.

    removed_components_ : ndarray of shape (n_removed, `n_features_in_`)
        Directions of unit norm that are removed.

    n_features_in_ : int
        Number of features seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features seen in `fit`, when they are all strings.

    See Also
    --------
    sklearn_clipsid.model_selection.LeaveOneGeneratorOut : The folds inside.
    sklearn.feature_selection.SequentialFeatureSelector : Fits anew for each candidate.

    Notes
    -----
    **The classifier inside** is ridge regression on labels of -1 and 1, the direction
    of regularised linear discriminant analysis. Rows are centred on their training
    mean, where the paper has a logistic regression without bias: AUC ignores a
    constant. With the inverse :math:`P = (A^\top A + n \lambda I)^{-1}` of its
    training rows and the weights :math:`w`, the scores of validation rows V without
    component j are

    .. math:: s_{-j} = s - \frac{w_j}{P_{jj}} (V P)_{\cdot j}

    and the inverse without it is :math:`P - P_{\cdot j} P_{j \cdot} / P_{jj}`. Rank-one
    updates thus give what a refit for each candidate would, and nothing is done in
    blocks. A step costs one sort of the validation scores for each candidate.

    **Honest numbers.** Each validation fold is held out in turn; on the rest, folds
    are made again, and the component is removed that leaves the highest mean AUC on
    them; the path of the held-out fold is its own AUC. `score_path_` is the mean of
    these paths. Its best place says how many components all rows together remove. With
    n generators that are n (n - 1) classifiers, and at least three generators are
    needed: one to train on, one to choose on, one to check on. A principal component
    is one of all rows that `fit` gets, found without labels.

    **Expect little.** Removals that nothing stops fit the folds that choose them. On
    4,134 real embeddings, with 64 principal components removed, the mean AUC on those
    folds went from .833 to .955, and on generators and photo sources held out from all
    of it from .795 to .787; with coordinates to .889 and .785
    (``benchmarks/elimination.py --features projected --every 3``). With its own stop
    the eliminator removed 3.0 principal components or 0.3 coordinates on average there,
    and left the AUC where it was, within .001. No code of the paper is public, so that
    this is a reading of its text. The best of `score_path_` is a little too good as
    well, as its length was chosen; report what cross-validation of the whole pipeline
    says.

    References
    ----------
    .. [1] T. Gaintseva et al., "Improving Interpretability and Robustness for the
       Detection of AI-Generated Images", arXiv 2406.15035.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_clipsid import ComponentEliminator
    >>> rng = np.random.default_rng(0)
    >>> groups = np.repeat(["GAN", "LDM", "SD", "real"], [50, 50, 50, 150])
    >>> y = (groups != "real").astype(int)
    >>> X = rng.normal(size=(300, 3)) + y[:, None] * [1, 1, 0]
    >>> X[:, 2] += np.select([groups == "GAN", groups == "LDM"], [5, -9])
    >>> eliminator = ComponentEliminator().fit(X, y, groups)
    >>> eliminator.removed_.tolist()
    [2]
    >>> eliminator.transform(X).shape
    (300, 2)
    """

    _parameter_constraints = {
        "basis": [StrOptions({"coordinates", "principal"})],
        "max_removed": [Interval(Integral, 0, None, closed="left")],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "cv": [HasMethods(["split"]), None],
        "pos_label": [Real, str, "boolean", None],
        "n_jobs": [Integral, None],
    }

    # Routed by default: without groups other components would be removed.
    __metadata_request__fit = {"groups": True}

    def __init__(
        self,
        basis="coordinates",
        *,
        max_removed=64,
        patience=8,
        tol=0.001,
        alpha=0.3,
        cv=None,
        pos_label=None,
        n_jobs=None,
    ):
        self.basis = basis
        self.max_removed = max_removed
        self.patience = patience
        self.tol = tol
        self.alpha = alpha
        self.cv = cv
        self.pos_label = pos_label
        self.n_jobs = n_jobs

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, groups=None):
        """Choose what to remove.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        y : array-like of shape (n_samples,)
            Labels of two classes.

        groups : array-like of shape (n_samples,) or (n_samples, 2), default=None
            The generator of each synthetic image and the source of each photograph;
            in a second column, if there is one, the pair ids.

        Returns
        -------
        self : ComponentEliminator
            The fitted transformer.
        """
        X, y = validate_data(
            self, X, y, ensure_all_finite=False, ensure_min_samples=2, dtype="numeric"
        )
        check_finite_rows(X, self)
        synthetic = read_binary_labels(y, self.pos_label)
        Z, directions = self._components(X)  # (n_samples, n_components)
        folds = nested_folds(self, y, synthetic, groups)
        task = BackwardRidge(Z, synthetic, self.alpha * Z.var(axis=0).mean())
        self.score_path_ = self._check_removals(task, folds)
        n_removed = best_place(self.score_path_, self.tol)
        splits = [fold.split for fold in folds]
        self.removed_, self.selection_path_ = task.eliminate(splits, n_removed)
        self.support_ = np.ones(Z.shape[1], dtype=bool)
        self.support_[self.removed_] = False
        self.removed_components_ = directions[self.removed_]
        return self

    def transform(self, X):
        """Remove the components.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        X_left : ndarray of shape (n_samples, n_kept) or (n_samples, n_features)
            The coordinates that are kept, or, with ``basis="principal"``, all of
            them with the removed components at their mean.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, ensure_all_finite=False)
        check_finite_rows(X, self)
        if self.basis == "coordinates":
            return X[:, self.support_]
        directions = self.removed_components_
        removed = (X - self.mean_) @ directions.T  # (n_samples, n_removed)
        left = X - removed @ directions
        return left.astype(np.result_type(X, np.float32), copy=False)

    def get_feature_names_out(self, input_features=None):
        """Return the names of the features that `transform` returns.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the input features.

        Returns
        -------
        names : ndarray of str
            Those of the coordinates that are kept, or of all with
            ``basis="principal"``.
        """
        check_is_fitted(self)
        names = _check_feature_names_in(self, input_features)
        return names[self.support_] if self.basis == "coordinates" else names

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.classifier_tags = ClassifierTags(multi_class=False)
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _components(self, X):
        """Return centred rows in the basis, and the directions of the basis."""
        if (X == X[0]).all():
            raise ValueError(
                f"Got {len(X)} rows of X that are all equal but expected rows that "
                "differ; check the features."
            )
        X = X.astype(np.float64)
        self.mean_ = X.mean(axis=0)
        X -= self.mean_
        if self.basis == "coordinates":
            return X, np.eye(X.shape[1])
        directions = np.linalg.svd(X, full_matrices=False)[2]
        return X @ directions.T, directions  # (n_components, n_features)

    def _check_removals(self, task, folds):
        """Return the mean AUC by number of removals, of folds without a say in them."""
        # Rounds, as the folds are too large to be kept in memory all at once.
        removed = [np.arange(0)] * len(folds)
        path = np.array([np.mean([task.ridge(fold.split).auc() for fold in folds])])
        most = min(self.max_removed, task.Z.shape[1] - 1)
        while len(path) <= most:
            n_steps = min(self.patience, most + 1 - len(path))
            results = Parallel(n_jobs=self.n_jobs, prefer="threads")(
                delayed(task.check)(fold, n_steps, known)
                for fold, known in zip(folds, removed)
            )
            for j, (order, _) in enumerate(results):
                removed[j] = np.append(removed[j], order)
            path = np.append(path, np.mean([scores for _, scores in results], axis=0))
            n_removed = best_place(path, self.tol)
            if len(path) - 1 - n_removed >= self.patience:
                return path[: n_removed + self.patience + 1]
        return path
