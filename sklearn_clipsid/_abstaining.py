"""Say neither real nor synthetic where too many such verdicts would be wrong."""

from numbers import Integral, Real

import numpy as np
from scipy.stats import binom, binomtest
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    MetaEstimatorMixin,
    _fit_context,
    clone,
)
from sklearn.model_selection import check_cv
from sklearn.utils import _safe_indexing, assert_all_finite, column_or_1d, get_tags
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils._response import _get_response_values_binary
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    _raise_for_params,
    process_routing,
)
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import (
    _check_method_params,
    _estimator_has,
    check_is_fitted,
    indexable,
)

from sklearn_clipsid._groups import list_rows, positive_rows
from sklearn_clipsid._warn_user import warn_user


class AbstainingClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    r"""Detector that also says "undecided".

    An image is called synthetic only above a score that few photographs reach, and
    real only below a score that few synthetic images fall short of. Both scores are
    chosen on images that the detector was not fitted to, with the margin that their
    number demands: that no photograph out of ten was above it promises little.

    Parameters
    ----------
    estimator : classifier
        A detector with `decision_function` or `predict_proba`; of both, the first is
        used. With ``cv="prefit"`` it is fitted already.

    max_fpr : float, default=0.01
        Largest share of photographs that may be called synthetic.

    max_fnr : float, default=None
        Largest share of synthetic images that may be called real. None is `max_fpr`.

    cv : int, cross-validation generator, iterable or "prefit", default=None
        How images are held out to choose the thresholds. None is a stratified 5-fold
        cross-validation; `LeaveOneGeneratorOut` says more about generators that are
        yet to come. The detector is then fitted to all images. "prefit" takes all
        images that `fit` gets as held out, and fits nothing.

    confidence : float, default=0.95
        Probability, over draws of the held-out images, that a limit is kept. It is
        also the level of the intervals.

    pos_label : int, float, bool or str, default=None
        The label of synthetic images. None is the second label in sorted order.

    n_jobs : int, default=None
        Folds that are fitted at once.

    Attributes
    ----------
    estimator_ : classifier
        The fitted detector.

    classes_ : ndarray of shape (2,)
        The labels.

    thresholds_ : ndarray of shape (2,)
        `decide` says "real" below the first, "synthetic" above the second, and
        otherwise "undecided". They are equal where one score keeps both limits.

    threshold_ : float
        `predict` says synthetic above it.

    fpr_, fnr_ : float
        Share of held-out photographs that are called synthetic, and of held-out
        synthetic images that are called real, by `decide`.

    fpr_interval_, fnr_interval_ : ndarray of shape (2,)
        Their Wilson intervals [2]_.

    undecided_rate_ : ndarray of shape (2,)
        Share of held-out photographs, and of held-out synthetic images, that are left
        undecided.

    n_real_, n_synthetic_ : int
        Number of held-out photographs and synthetic images.

    n_features_in_ : int
        Number of features seen in `fit`, where the detector counts them.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features seen in `fit`, where the detector notes them.

    Warns
    -----
    UserWarning
        When there are too few held-out photographs or synthetic images to promise a
        limit, with the number that it takes.

    See Also
    --------
    sklearn.model_selection.TunedThresholdClassifierCV : Chooses one threshold by any
        score.
    sklearn.model_selection.FixedThresholdClassifier : Uses a threshold that you chose.
    sklearn.calibration.CalibratedClassifierCV : Makes scores that are probabilities.
    sklearn_clipsid.model_selection.LeaveOneGeneratorOut : Holds out generators.

    Notes
    -----
    Of n held-out photographs, k may score above the upper threshold, which is the
    score of the next one. Whatever the distribution of the scores, the share of *all*
    photographs above it is more than :math:`\alpha` with a probability of
    :math:`P(\mathrm{Bin}(n, \alpha) \le k)` [1]_. Of all k for which that is at most
    ``1 - confidence`` the largest is taken: 4 of 1,000 for the default limits. Without
    such a k there are too few photographs. Then k is 0, and a warning says how many it
    takes: at a confidence of 95 % about ``3 / max_fpr``. The lower threshold is made
    in the same way from synthetic images.

    **What is promised, and what is not.** The limit on false alarms is kept among
    photographs like the held-out ones, which must be independent of one another; that
    on misses among images of generators like the held-out ones. A new camera, a new
    generator or a social network that recompresses images is another population, and
    photographs of one source are not independent. With limits of 5 %, of photographs
    of a source that a logistic regression had not seen in the packaged sample, 27 %
    were called synthetic with thresholds from random folds, and 10 % with those from
    `LeaveOneGeneratorOut` (user guide). Measure on your own images, and edited ones.

    With cross-validation, the limits are those of the detectors of the folds, which saw
    less than `estimator_`. An image that several folds hold out counts once, with its
    worst score: the highest for a photograph, the lowest for a synthetic image. Images
    that no fold holds out do not count. The intervals are about the very images that
    the thresholds were chosen on; they show how little few images say.

    `predict` says what the detector says by itself (synthetic above a decision
    function of 0 or a probability of 0.5), except where `decide` says the opposite. A
    threshold inside `estimator`, such as that of `FixedThresholdClassifier`, is passed
    over.

    References
    ----------
    .. [1] S. S. Wilks, "Determination of Sample Sizes for Setting Tolerance Limits",
       Annals of Mathematical Statistics 12, 1941.

    .. [2] E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical
       Inference", Journal of the American Statistical Association 22, 1927.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_clipsid import AbstainingClassifier
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([0, 1], 500)
    >>> X = rng.normal(size=(1000, 1)) + 2 * y[:, None]
    >>> detector = AbstainingClassifier(LogisticRegression(), max_fpr=.05).fit(X, y)
    >>> images = [[-1.0], [0.7], [4.0]]
    >>> detector.decide(images).tolist()
    ['real', 'undecided', 'synthetic']
    >>> detector.predict(images).tolist()
    [0, 0, 1]
    >>> detector.n_real_, detector.fpr_
    (500, 0.032)
    """

    _parameter_constraints = {
        "estimator": [
            HasMethods(["fit", "decision_function"]),
            HasMethods(["fit", "predict_proba"]),
        ],
        "max_fpr": [Interval(Real, 0, 1, closed="neither")],
        "max_fnr": [Interval(Real, 0, 1, closed="neither"), None],
        "cv": ["cv_object", StrOptions({"prefit"})],
        "confidence": [Interval(Real, 0, 1, closed="neither")],
        "pos_label": [Real, str, "boolean", None],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        estimator,
        *,
        max_fpr=0.01,
        max_fnr=None,
        cv=None,
        confidence=0.95,
        pos_label=None,
        n_jobs=None,
    ):
        self.estimator = estimator
        self.max_fpr = max_fpr
        self.max_fnr = max_fnr
        self.cv = cv
        self.confidence = confidence
        self.pos_label = pos_label
        self.n_jobs = n_jobs

    # Neither `estimator` nor `cv` is validated yet.
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, **params):
        """Fit the detector and choose the thresholds.

        Parameters
        ----------
        X : array-like or sequence of images of shape (n_samples, ...)
            What the detector takes.

        y : array-like of shape (n_samples,)
            Labels of two classes.

        **params : dict
            Passed to `fit` of the detector and to `split` of `cv`, such as `groups`
            for `LeaveOneGeneratorOut`; metadata routing must be enabled.

        Returns
        -------
        self : AbstainingClassifier
            The fitted classifier.
        """
        _raise_for_params(params, self, "fit")
        X, y = indexable(X, y)
        is_synthetic = self._read_labels(y)
        routed = process_routing(self, "fit", **params)
        if isinstance(self.cv, str):
            self.estimator_ = self._check_prefit(y)
            folds = [(slice(None), self._score(self.estimator_, X))]
        else:
            self.estimator_ = clone(self.estimator).fit(X, y, **routed.estimator.fit)
            folds = self._held_out_folds(X, y, routed)
        real, synthetic = _worst_scores(folds, is_synthetic)
        self._choose_thresholds(real, synthetic)
        self._note_rates(real, synthetic)
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        return self

    def predict(self, X):
        """Return the more likely label, never "undecided".

        Parameters
        ----------
        X : array-like or sequence of images of shape (n_samples, ...)
            What the detector takes.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            Labels out of `classes_`.
        """
        check_is_fitted(self)
        score = self._score(self.estimator_, X)
        return self._labels()[(score > self.threshold_).astype(int)]

    def decide(self, X):
        """Return the verdicts that keep the limits.

        Parameters
        ----------
        X : array-like or sequence of images of shape (n_samples, ...)
            What the detector takes.

        Returns
        -------
        verdicts : ndarray of shape (n_samples,)
            "real", "synthetic" or "undecided"; with labels other than 0 and 1, these
            as text, or "undecided".
        """
        check_is_fitted(self)
        score = self._score(self.estimator_, X)
        low, high = self.thresholds_
        real, synthetic = self._labels()
        if np.array_equal(self.classes_, [0, 1]):
            real, synthetic = "real", "synthetic"
        words = np.array([str(real), "undecided", str(synthetic)])
        return words[1 + (score > high).astype(int) - (score < low)]

    @available_if(_estimator_has("decision_function"))
    def decision_function(self, X):
        """Return the decision function of the detector.

        Parameters
        ----------
        X : array-like or sequence of images of shape (n_samples, ...)
            What the detector takes.

        Returns
        -------
        decision : ndarray of shape (n_samples,)
            As the detector says.
        """
        check_is_fitted(self)
        return self.estimator_.decision_function(X)

    @available_if(_estimator_has("predict_proba"))
    def predict_proba(self, X):
        """Return the probabilities of the detector.

        Parameters
        ----------
        X : array-like or sequence of images of shape (n_samples, ...)
            What the detector takes.

        Returns
        -------
        probability : ndarray of shape (n_samples, 2)
            As the detector says, in the order of `classes_`.
        """
        check_is_fitted(self)
        return self.estimator_.predict_proba(X)

    @property
    def classes_(self):
        """The labels, in sorted order."""
        return self.estimator_.classes_

    def get_metadata_routing(self):
        """Say which metadata go to the detector, and which to `cv`.

        Returns
        -------
        routing : MetadataRouter
            What is asked for.
        """
        return (
            MetadataRouter(owner=self)
            .add(
                estimator=self.estimator,
                method_mapping=MethodMapping().add(caller="fit", callee="fit"),
            )
            .add(
                splitter=self.cv,
                method_mapping=MethodMapping().add(caller="fit", callee="split"),
            )
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.input_tags = get_tags(self.estimator).input_tags
        return tags

    def _read_labels(self, y):
        """Return which rows are synthetic."""
        assert_all_finite(y, input_name="y")
        y_type = type_of_target(y, input_name="y")
        if y_type != "binary":
            raise ValueError(
                "Only binary classification is supported. Unknown label type: "
                f"{y_type}. Pass one of two labels for each row."
            )
        classes = np.unique(column_or_1d(y))
        if len(classes) < 2:
            raise ValueError(
                f"Got y with the labels {classes.tolist()}, one class or none, but "
                "expected photographs and synthetic images, as a threshold is chosen "
                "on either; add the other."
            )
        pos_label = classes[1] if self.pos_label is None else self.pos_label
        return positive_rows(y, pos_label)

    def _check_prefit(self, y):
        check_is_fitted(self.estimator, "classes_")
        classes = np.unique(column_or_1d(y))
        if not np.array_equal(self.estimator.classes_, classes):
            raise ValueError(
                f"Got y with the labels {classes.tolist()} for an estimator fitted to "
                f"{list(self.estimator.classes_)} but expected the same; rename them."
            )
        return self.estimator

    def _held_out_folds(self, X, y, routed):
        """Return the rows of each fold, and their scores."""
        cv = check_cv(self.cv, y, classifier=True)
        splits = list(cv.split(X, y, **routed.splitter.split))
        scored = Parallel(n_jobs=self.n_jobs)(
            delayed(self._fit_and_score)(X, y, *split, routed.estimator.fit)
            for split in splits
        )
        return [(test, score) for (_, test), score in zip(splits, scored)]

    def _fit_and_score(self, X, y, train, test, fit_params):
        estimator = clone(self.estimator).fit(
            _safe_indexing(X, train),
            _safe_indexing(y, train),
            **_check_method_params(X, fit_params, indices=train),
        )
        return self._score(estimator, _safe_indexing(X, test))

    def _score(self, estimator, X):
        """Return scores, larger for synthetic images."""
        score, _ = _get_response_values_binary(
            estimator,
            X,
            ["decision_function", "predict_proba"],
            pos_label=self.pos_label,
        )
        # No comparison with NaN holds: it would pass as undecided.
        if np.isnan(score).any():
            raise ValueError(
                f"Got a score of NaN from {type(estimator).__name__} for "
                f"{list_rows(np.isnan(score))} but expected numbers; leave these out."
            )
        return score

    def _choose_thresholds(self, real, synthetic):
        max_fnr = self.max_fpr if self.max_fnr is None else self.max_fnr
        high = _limit(real, self.max_fpr, self.confidence, "photographs", "max_fpr")
        low = -_limit(
            -synthetic, max_fnr, self.confidence, "synthetic images", "max_fnr"
        )
        # Where scikit-learn's classifiers draw the line themselves.
        own = 0.0 if hasattr(self.estimator_, "decision_function") else 0.5
        if low <= high:
            self.threshold_ = float(np.clip(own, low, high))
        else:  # any score between them keeps both limits
            self.threshold_ = float(own if high <= own <= low else (low + high) / 2)
            low = high = self.threshold_
        self.thresholds_ = np.array([low, high])

    def _note_rates(self, real, synthetic):
        low, high = self.thresholds_
        self.n_real_, self.n_synthetic_ = len(real), len(synthetic)
        self.fpr_, self.fpr_interval_ = _rate(real > high, self.confidence)
        self.fnr_, self.fnr_interval_ = _rate(synthetic < low, self.confidence)
        self.undecided_rate_ = np.array(
            [((s >= low) & (s <= high)).mean() for s in (real, synthetic)]
        )

    def _labels(self):
        """Return the label of photographs and that of synthetic images."""
        is_turned = self.pos_label is not None and self.pos_label == self.classes_[0]
        return self.classes_[::-1] if is_turned else self.classes_


def _worst_scores(folds, is_synthetic):
    """Return the highest score of each held-out photograph, the lowest of others."""
    sign = np.where(is_synthetic, -1, 1)
    worst = np.full(len(sign), -np.inf)
    is_held_out = np.zeros(len(sign), dtype=bool)
    for rows, score in folds:
        worst[rows] = np.maximum(worst[rows], sign[rows] * score)
        is_held_out[rows] = True
    real, synthetic = is_held_out & ~is_synthetic, is_held_out & is_synthetic
    if not real.any() or not synthetic.any():
        missing = "synthetic image" if real.any() else "photograph"
        raise ValueError(
            f"Got a cv that holds out no {missing} but expected both, as a threshold "
            "is chosen on either; use a splitter whose test folds hold both."
        )
    return worst[real], -worst[synthetic]


def images_needed(max_rate, confidence):
    """Return how many held-out images it takes to promise a rate of errors.

    Parameters
    ----------
    max_rate : float
        Largest share of errors.

    confidence : float
        Probability that it is kept.

    Returns
    -------
    n_images : int
        None of so few might be an error just by luck.
    """
    return int(np.log(1 - confidence) / np.log(1 - max_rate)) + 1


def _limit(scores, max_rate, confidence, what, parameter):
    """Return a score that is exceeded at most so often, with a margin for the few."""
    n = len(scores)
    n_above = int(binom.ppf(1 - confidence, n, max_rate)) - 1
    if n_above < 0:
        needed = images_needed(max_rate, confidence)
        bound = 1 - (1 - confidence) ** (1 / n)
        error = "synthetic" if what == "photographs" else "real"
        warn_user(
            f"Got {n} held-out {what} but expected at least {needed} to promise, with "
            f"a confidence of {confidence:.4g}, that at most {max_rate:.4g} of them "
            f"are called {error}: even with none of these {n} the share may be "
            f"{bound:.2g}. Add {what} or raise {parameter}."
        )
        n_above = 0
    return np.sort(scores)[n - 1 - n_above]


def _rate(is_wrong, confidence):
    test = binomtest(int(is_wrong.sum()), len(is_wrong))
    interval = test.proportion_ci(confidence_level=confidence, method="wilson")
    return float(is_wrong.mean()), np.array([interval.low, interval.high])
