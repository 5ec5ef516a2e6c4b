"""Detect synthetic images by named, sparsely gated concepts (arXiv 2602.12381)."""

from numbers import Integral, Real

import numpy as np
from scipy.special import expit
from scipy.stats import rankdata
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.utils import check_random_state, check_scalar
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import (
    _check_feature_names_in,
    check_is_fitted,
    validate_data,
)

from sklearn_clipsid._adam import AdamGroups, minimize_minibatch
from sklearn_clipsid._concept_vocabulary import check_concepts
from sklearn_clipsid._finite_rows import check_finite_rows
from sklearn_clipsid._gated_concepts import GatedConceptLoss, unpack
from sklearn_clipsid._training_rows import split_for_early_stopping, weighted_rows
from sklearn_clipsid._unit_rows import unit_rows

FLOATS = [np.float64, np.float32]
# As OrthogonalLinearDetector: one batch an epoch would leave few rows near the start.
MIN_STEPS_PER_EPOCH = 8
DAMAGED = "the saved detector is damaged or was changed by hand."


class ConceptBottleneckClassifier(ClassifierMixin, TransformerMixin, BaseEstimator):
    r"""Logistic model on similarities to named concepts, most of them gated off.

    The concept model of Willi, Mathys and Graber [1]_, which they take from concept
    discovery models [2]_: each image has a cosine similarity to each concept, a gate
    opens some of them, and the open ones are weighted and summed to one logit.
    `transform` returns the summands, one column per concept. For two classes.

    .. warning::
        With ``gates="embedding"``, as published, the gates see the whole embedding.
        They can decide by themselves, whatever the concepts are: with random directions
        in place of concepts the model detects about as well. Read its explanations as
        correlations, and compare with ``gates="similarity"``, ``gates="none"`` and
        random directions before you believe that a concept matters.

    Parameters
    ----------
    concept_embeddings : array-like of shape (n_concepts, n_features), default=None
        One direction per concept in the space of X, such as the difference of the text
        embeddings of two antonyms; of any length, as only the direction counts. None
        takes each feature of X as a concept.

    concept_names : array-like of str of shape (n_concepts,), default=None
        Distinct names. None numbers them, or takes the names of the features.

    gates : {"embedding", "similarity", "none"}, default="embedding"
        What the gates see: the embedding, as published; only the similarities to the
        concepts, each standardised; or there are none and all concepts count.

    init : {"aligned", "random"}, default="aligned"
        Sign with which the weight of a concept starts: that of the difference between
        the mean similarities of the classes, or a random one, as published. The gate
        of a concept with the wrong sign may close before the sign has turned, so few
        signs turn: read that of an aligned weight as the sign of that difference.

    temperature : float, default=0.1
        Temperature τ of the random gates while training.

    sparsity : float, default=1e-4
        Weight β of the divergence that closes gates.

    gate_prior : float, default=1e-4
        Probability π with which a gate would be open a priori.

    alpha : float, default=1e-4
        Decay of the concept weights and the intercept, decoupled (AdamW). The gates do
        not decay.

    learning_rate_init : float, default=0.01
        Step size of the concept weights.

    gate_learning_rate_init : float, default=0.01
        Step size of the gates.

    batch_size : int, default=256
        Rows per step.

    max_iter : int, default=400
        Epochs at most. An epoch takes at least eight steps: fewer rows than eight
        batches are visited several times.

    early_stopping : bool or "auto", default="auto"
        Whether to stop when the loss (cross-entropy plus divergence, gates without
        noise) on a stratified validation split no longer falls, and to return the best
        epoch. "auto": from 200 samples on, if each class has at least two.

    validation_fraction : float, default=0.1
        Share of the rows used to stop early.

    n_iter_no_change : int, default=40
        Epochs in a row without a new minimum before stopping. Gates go on closing long
        after the predictions have settled.

    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, as in scikit-learn.

    random_state : int, RandomState instance or None, default=None
        Initialisation, validation split, order of the batches and noise of the gates.

    Attributes
    ----------
    classes_ : ndarray of shape (2,)
        The labels. The second is the positive class.

    concept_embeddings_ : ndarray of shape (n_concepts, n_features)
        T, the directions at unit norm.

    concept_names_ : ndarray of shape (n_concepts,)
        Their names.

    gates_ : {"embedding", "similarity", "none"}
        What the gates see.

    concept_weights_ : ndarray of shape (n_concepts,)
        w.

    intercept_ : ndarray of shape (1,)
        b.

    gate_coef_ : ndarray of shape (n_concepts, n_features or n_concepts) or None
        A, which multiplies unit embeddings or similarities; None without gates.

    gate_intercept_ : ndarray of shape (n_concepts,) or None
        c.

    concept_usage_ : ndarray of shape (n_concepts,)
        Share of the training images whose gate is open (above one half). Not there for
        a published head.

    concept_auc_ : ndarray of shape (n_concepts,)
        AUC of each similarity alone on the training images: above one half where
        images of the positive class have more of the concept, whatever the sign of its
        weight. Not there for a published head.

    n_iter_ : int
        Epochs run.

    loss_curve_ : ndarray of shape (`n_iter_`,)
        Cross-entropy plus divergence per epoch, with noise.

    validation_loss_curve_ : ndarray of shape (`n_iter_`,) or None
        The same on the validation split, without noise.

    n_features_in_ : int
        Number of features seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features seen in `fit`, when they are all strings.

    See Also
    --------
    OrthogonalLinearDetector : Detects by directions without names.
    sklearn.linear_model.LogisticRegression : With ``gates="none"`` this on the
        similarities, regularised by stopping early.

    Notes
    -----
    With unit embeddings ê and unit directions :math:`t_j`,

    .. math:: s_j = ê^\top t_j, \qquad m_j = σ(a_j^\top ê + c_j), \qquad
        z = \sum_j w_j s_j m_j + b .

    Rows of X are scaled to unit norm here, so that their norms do not matter and no
    scaler is needed. Put none before it that treats features on their own: images would
    leave the space of the concepts, and names would mean something else. A row of zeros
    has the similarity 0 to all concepts. Texts share a space with *projected* features
    only.

    While training, each image draws its gates from a binary concrete distribution:
    :math:`m_j = σ((g_j + \log u - \log(1 - u)) / τ)` with gate logits g and uniform u.
    The loss is the mean over images of the cross-entropy plus
    :math:`β \sum_j \mathrm{KL}(\mathrm{Bern}(σ(g_j)) \| \mathrm{Bern}(π))`. For
    prediction, gates are their mean, between 0 and 1.

    With ``gates="similarity"`` and ``"none"``, whose gates and weights see nothing but
    cosines of a few hundredths, the similarities are divided by one number to a mean
    square of 1 while training; the number is folded into the fitted arrays.

    The published training started at random, moved the concept weights by a tenth
    and was ten times as long: ``init="random", learning_rate_init=0.001,
    max_iter=4000, n_iter_no_change=400``. Which concepts are used depends on the random
    start, and with aligned signs still on the noise.

    The gates are random per image, so that a weight of 2 would not equal repetition:
    `fit` takes `class_weight`, but no `sample_weight`.

    References
    ----------
    .. [1] M. Willi, M. Mathys, M. Graber, "Synthetic Image Detection with CLIP:
       Understanding and Assessing Predictive Cues", 2026, arXiv 2602.12381.

    .. [2] K. Panousis, D. Ienco, D. Marcos, "Sparse Linear Concept Discovery Models",
       ICCV Workshops 2023, arXiv 2308.10782.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_clipsid import ConceptBottleneckClassifier
    >>> from sklearn_clipsid.datasets import load_sample_embeddings
    >>> X, y = load_sample_embeddings(features="projected", return_X_y=True)
    >>> directions = np.random.default_rng(0).standard_normal((3, 512))
    >>> detector = ConceptBottleneckClassifier(
    ...     directions, ["one", "two", "three"], max_iter=5, random_state=0
    ... ).fit(X, y)
    >>> contributions = detector.transform(X)  # (n_samples, 3)
    >>> z = contributions.sum(axis=1) + detector.intercept_
    >>> bool(np.allclose(z, detector.decision_function(X)))
    True
    >>> detector.explain(X[:1], top=2).dtype.names
    ('concept', 'similarity', 'gate', 'weight', 'contribution')
    """

    _parameter_constraints = {
        "concept_embeddings": ["array-like", None],
        "concept_names": ["array-like", None],
        "gates": [StrOptions({"embedding", "similarity", "none"})],
        "init": [StrOptions({"aligned", "random"})],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "sparsity": [Interval(Real, 0, None, closed="left")],
        "gate_prior": [Interval(Real, 0, 1, closed="neither")],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "gate_learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "early_stopping": ["boolean", StrOptions({"auto"})],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        concept_embeddings=None,
        concept_names=None,
        *,
        gates="embedding",
        init="aligned",
        temperature=0.1,
        sparsity=1e-4,
        gate_prior=1e-4,
        alpha=1e-4,
        learning_rate_init=0.01,
        gate_learning_rate_init=0.01,
        batch_size=256,
        max_iter=400,
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=40,
        class_weight=None,
        random_state=None,
    ):
        self.concept_embeddings = concept_embeddings
        self.concept_names = concept_names
        self.gates = gates
        self.init = init
        self.temperature = temperature
        self.sparsity = sparsity
        self.gate_prior = gate_prior
        self.alpha = alpha
        self.learning_rate_init = learning_rate_init
        self.gate_learning_rate_init = gate_learning_rate_init
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.class_weight = class_weight
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y):
        """Fit the detector.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings in the space of the concepts.

        y : array-like of shape (n_samples,)
            Labels of two classes, 1 for synthetic.

        Returns
        -------
        self : ConceptBottleneckClassifier
            The fitted detector.
        """
        X, y = validate_data(self, X, y, dtype=FLOATS, ensure_all_finite=False)
        check_finite_rows(X, self)
        E, _ = unit_rows(X)
        _check_binary(y)
        self.concept_embeddings_, self.concept_names_ = self._concepts(X.shape[1])
        E, y, weights = weighted_rows(E, y, None, self.class_weight)
        self.classes_, codes = np.unique(y, return_inverse=True)
        self._check_classes()
        S = E @ self.concept_embeddings_.T.astype(E.dtype)  # (n_samples, n_concepts)
        random_state = check_random_state(self.random_state)
        H, mean, deviation, scale = self._gate_inputs(E, S)
        params = self._train(H, S / scale, codes, weights, random_state)
        self._store(params, mean, deviation, scale)
        self.concept_usage_ = (self._open_gates(E, S) > 0.5).mean(axis=0)
        self.concept_auc_ = _auc_by_column(S, codes)
        return self

    def decision_function(self, X):
        """Return the logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        Returns
        -------
        logits : ndarray of shape (n_samples,)
            Positive for ``classes_[1]``.
        """
        return self._terms(X)[2].sum(axis=1) + self.intercept_

    def predict_proba(self, X):
        """Return the probabilities of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, 2)
            Each row sums to 1.
        """
        positive = expit(self.decision_function(X))
        return np.column_stack([1 - positive, positive])  # (n_samples, 2)

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
        codes = (self.decision_function(X) > 0).astype(int)
        return self.classes_[codes]

    def transform(self, X):
        """Return what each concept adds to the logit.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        Returns
        -------
        contributions : ndarray of shape (n_samples, n_concepts)
            Similarity times gate times weight. The row sums and `intercept_` make the
            logits.
        """
        return self._terms(X)[2]

    def gate_probabilities(self, X):
        """Return how far the gates are open.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_concepts)
            From 0 (shut) to 1 (open); ones for a detector without gates.
        """
        return self._terms(X)[1]

    def explain(self, X, top=5):
        """Return the largest summands of the logit of each image.

        Part of a summand may be the same for all images. Compare it with those of other
        images (`transform`) before you take it for something special to this one.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        top : int, default=5
            Concepts per image, at most all.

        Returns
        -------
        explanation : structured ndarray of shape (n_samples, top)
            Sorted by the absolute value of the field "contribution", which is the
            product of the fields "similarity", "gate" and "weight". The field
            "concept" is the name. ``pandas.DataFrame(explanation[i])`` is the table of
            image i.
        """
        check_scalar(top, "top", Integral, min_val=1)
        S, M, contributions = self._terms(X)
        order = np.argsort(-np.abs(contributions), axis=1, kind="stable")[:, :top]
        fields = {
            "concept": self.concept_names_[order],
            "similarity": np.take_along_axis(S, order, axis=1),
            "gate": np.take_along_axis(M, order, axis=1),
            "weight": self.concept_weights_[order],
            "contribution": np.take_along_axis(contributions, order, axis=1),
        }
        dtype = [(name, column.dtype) for name, column in fields.items()]
        explanation = np.empty(order.shape, dtype)  # (n_samples, top)
        for name, column in fields.items():
            explanation[name] = column
        return explanation

    def get_feature_names_out(self, input_features=None):
        """Return the names of the concepts.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Ignored.

        Returns
        -------
        names : ndarray of str
            `concept_names_`.
        """
        check_is_fitted(self)
        return self.concept_names_.astype(object)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def __setstate__(self, state):
        super().__setstate__(state)
        if {"concept_weights_", "concept_embeddings_"} & vars(self).keys():
            # Of the class: the state itself could hold that name.
            type(self)._check_stored_arrays(self)

    def _concepts(self, n_features):
        if self.concept_embeddings is not None:
            self._check_columns()
            return check_concepts(
                self.concept_embeddings, self.concept_names, n_features
            )
        names = self.concept_names
        if names is None:
            names = _check_feature_names_in(self)
        return check_concepts(np.eye(n_features), names, n_features)

    def _check_columns(self):
        """Refuse a frame of concepts whose columns are in another order than X's."""
        columns = getattr(self.concept_embeddings, "columns", None)
        features = getattr(self, "feature_names_in_", None)
        named = columns is not None and all(isinstance(c, str) for c in columns)
        if named and features is not None and list(columns) != list(features):
            raise ValueError(
                "Got concept_embeddings whose columns are not those of X, or in "
                "another order, but expected the same; reorder them, or pass an array."
            )

    def _check_classes(self):
        if len(self.classes_) < 2:
            raise ValueError(
                f"Got only one class ({self.classes_.tolist()}) but expected two; add "
                "photographs (0) or synthetic images (1)."
            )

    def _gate_inputs(self, E, S):
        """Return what the gates see, its shift and divisor, and that of S."""
        if self.gates == "embedding":
            return E, np.zeros(E.shape[1]), 1.0, 1.0
        # Cosines are so small that gates and weights would take epochs to grow.
        scale = float(np.sqrt((S**2).mean())) or 1.0
        if self.gates == "none":
            return S[:, :0], None, None, scale
        mean, deviation = S.mean(axis=0), S.std(axis=0)
        deviation[deviation < 1e-6] = 1  # where only rounding varies
        return (S - mean) / deviation, mean, deviation, scale

    def _train(self, H, S, codes, weights, random_state):
        loss_grad = GatedConceptLoss(
            H,
            S,
            codes,
            weights,
            random_state,
            temperature=self.temperature,
            sparsity=self.sparsity,
            gate_prior=self.gate_prior,
        )
        train, held_out = split_for_early_stopping(
            codes, self.early_stopping, self.validation_fraction, random_state
        )
        params = self._initialise(H.shape[1], S[train], codes[train], random_state)
        params, self.loss_curve_, self.validation_loss_curve_ = minimize_minibatch(
            self._optimiser(params, S.shape[1]),
            loss_grad,
            train,
            batch_size=self.batch_size,
            max_iter=self.max_iter,
            random_state=random_state,
            min_steps=MIN_STEPS_PER_EPOCH,
            validation_loss=loss_grad.without_noise(held_out),
            n_iter_no_change=self.n_iter_no_change,
        )
        self.n_iter_ = len(self.loss_curve_)
        return params

    def _initialise(self, n_inputs, S, codes, random_state):
        """Draw A and w as torch's xavier_normal_ does, with c = 0 and b = 0.1."""
        n_concepts = S.shape[1]
        A = random_state.standard_normal(n_concepts * n_inputs)
        A *= np.sqrt(2 / (n_concepts + n_inputs))
        c = np.zeros(n_concepts if n_inputs else 0)
        w = random_state.standard_normal(n_concepts) * np.sqrt(2 / (n_concepts + 1))
        if self.init == "aligned":
            gap = S[codes == 1].mean(axis=0) - S[codes == 0].mean(axis=0)
            w = np.copysign(w, gap)
        return np.concatenate([A, c, w, [0.1]]).astype(S.dtype)

    def _optimiser(self, params, n_concepts):
        """Return Adam for the gates, and AdamW for the weights behind them."""
        first = len(params) - n_concepts - 1
        gates = {"learning_rate": self.gate_learning_rate_init}
        weights = {"learning_rate": self.learning_rate_init, "decoupled": True}
        weights["weight_decay"] = self.alpha
        return AdamGroups(
            params, [(slice(first), gates), (slice(first, None), weights)]
        )

    def _store(self, params, mean, deviation, scale):
        A, c, w, b = unpack(params.astype(np.float64), len(self.concept_names_))
        if not np.isfinite(params).all():
            raise ValueError(
                f"Got numbers that are not finite after {self.n_iter_} epochs with "
                f"learning_rate_init={self.learning_rate_init} and "
                f"gate_learning_rate_init={self.gate_learning_rate_init} but expected "
                "the training to converge; lower them."
            )
        self.gates_, self.gate_coef_, self.gate_intercept_ = self.gates, None, None
        if self.gates != "none":
            self.gate_coef_ = A / deviation
            self.gate_intercept_ = c - self.gate_coef_ @ mean
        self.concept_weights_, self.intercept_ = w / scale, b.copy()

    def _terms(self, X):
        """Return similarities, gates and contributions."""
        check_is_fitted(self)
        X = validate_data(
            self, X, dtype=np.float64, ensure_all_finite=False, reset=False
        )
        check_finite_rows(X, self)
        E, _ = unit_rows(X)
        S = E @ self.concept_embeddings_.T  # (n_samples, n_concepts)
        M = self._open_gates(E, S)
        return S, M, S * M * self.concept_weights_

    def _open_gates(self, E, S):
        if self.gates_ == "none":
            return np.ones(S.shape)
        H = E if self.gates_ == "embedding" else S
        return expit(H @ self.gate_coef_.T + self.gate_intercept_)

    def _check_stored_arrays(self):
        """Refuse a state that no fit can have made, such as a tampered file."""
        classes, gates = getattr(self, "classes_", None), getattr(self, "gates_", None)
        if np.shape(classes) != (2,) or not np.array_equal(np.unique(classes), classes):
            raise ValueError(
                f"Got classes_={classes!r} but expected two sorted labels; {DAMAGED}"
            )
        T = getattr(self, "concept_embeddings_", None)
        n_features = getattr(self, "n_features_in_", None)
        if not isinstance(T, np.ndarray):
            raise ValueError(
                f"Got concept_embeddings_={T!r} but expected an array; {DAMAGED}"
            )
        unit, _ = check_concepts(T, getattr(self, "concept_names_", None), n_features)
        if not np.allclose(T, unit, rtol=0, atol=1e-9):
            raise ValueError(
                f"Got concept_embeddings_ that are not of unit norm; {DAMAGED}"
            )
        expected = {"concept_weights_": (len(T),), "intercept_": (1,)}
        # Of the training rows, which a published head does not bring.
        measured = {"concept_usage_", "concept_auc_"} & vars(self).keys()
        expected |= dict.fromkeys(measured, (len(T),))
        if gates != "none":
            n_inputs = {"embedding": n_features, "similarity": len(T)}.get(gates, -1)
            expected["gate_coef_"] = (len(T), n_inputs)
            expected["gate_intercept_"] = (len(T),)
        for name, shape in expected.items():
            value = getattr(self, name, None)
            array = np.asarray(value)
            finite = array.dtype == np.float64 and np.isfinite(array).all()
            finite = finite and isinstance(value, np.ndarray)
            if array.shape != shape or not finite:
                raise ValueError(
                    f"Got {name} of shape {array.shape}, "
                    f"{'' if finite else 'not '}all finite, but expected finite "
                    f"numbers of shape {shape}; {DAMAGED}"
                )


def _check_binary(y):
    kind = type_of_target(y, input_name="y", raise_unknown=True)
    if kind != "binary":
        raise ValueError(
            f"Only binary classification is supported. The type of the target is "
            f"{kind}; to attribute images to generators use OrthogonalLinearDetector."
        )


def _auc_by_column(S, codes):
    """Return the AUC of each column."""
    n_positive = codes.sum()
    ranks = rankdata(S, axis=0)[codes == 1].sum(axis=0)  # (n_concepts,)
    wins = ranks - n_positive * (n_positive + 1) / 2
    return wins / (n_positive * (len(codes) - n_positive))
