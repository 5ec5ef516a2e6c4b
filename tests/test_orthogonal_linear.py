import pickle

import numpy as np
import pytest
import skops.io
import torch
from scipy.special import expit
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, train_test_split
from torch.nn import functional

from sklearn_clipsid import OrthogonalLinearDetector
from sklearn_clipsid._orthogonal_linear import _gram_penalty
from sklearn_clipsid.datasets import load_sample_embeddings
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut

ARRAYS = (
    "components_",
    "activation_intercept_",
    "activation_weights_",
    "coef_",
    "intercept_",
)
CLASS_PATH = "sklearn_clipsid._orthogonal_linear.OrthogonalLinearDetector"
# One batch an epoch, so that the order of the rows does not matter.
SINGLE_BATCH = {"batch_size": 10_000, "early_stopping": False, "random_state": 0}


@pytest.fixture(scope="module")
def sample():
    return load_sample_embeddings()


@pytest.fixture
def blobs():
    """Two overlapping classes of 150 rows each, five features."""
    return make_blobs(2)


@pytest.fixture
def fitted(blobs):
    return OrthogonalLinearDetector(2, max_iter=5, random_state=0).fit(*blobs)


def make_blobs(n_classes, n_samples=300, n_features=5):
    rng = np.random.default_rng(1)
    y = np.arange(n_samples) % n_classes
    centres = rng.standard_normal((n_classes, n_features))
    return centres[y] + rng.standard_normal((n_samples, n_features)), y


def assert_same_arrays(one, other, **tolerance):
    for name in ARRAYS:
        np.testing.assert_allclose(
            getattr(one, name), getattr(other, name), **tolerance, err_msg=name
        )


def assert_equal_bytes(one, other):
    for name in ARRAYS:
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name


def problem(k, n_classes, weighted, feature_scale=1.7):
    """Return a detector about to take a step, its parameters and one batch."""
    X, y = make_blobs(n_classes, n_samples=40, n_features=6)
    detector = OrthogonalLinearDetector(k)
    detector.n_components_, detector.n_features_in_ = k, X.shape[1]
    detector.classes_, detector.feature_scale_ = np.arange(n_classes), feature_scale
    weights = np.random.default_rng(2).uniform(0.1, 3, len(y)) if weighted else 1.0
    weights = weights * np.ones(len(y))
    params = detector._initialise(np.random.RandomState(3))
    return detector, params, X, y, weights / weights.mean()


PROBLEMS = pytest.mark.parametrize(
    ("k", "n_classes", "weighted"),
    [(1, 2, False), (1, 3, True), (4, 2, False), (4, 2, True), (4, 3, True)],
)


@PROBLEMS
def test_the_gradient_equals_finite_differences(k, n_classes, weighted):
    detector, params, X, y, weights = problem(k, n_classes, weighted)
    targets = detector._smoothed_targets(y)
    loss_grad = detector._objective(X, targets, weights)
    batch = np.arange(30)
    grad = loss_grad(params, batch)[1].copy()
    numeric = np.empty_like(params)
    for i in range(len(params)):
        step = np.zeros_like(params)
        step[i] = 1e-5
        above, below = (loss_grad(params + s, batch)[0] for s in (step, -step))
        numeric[i] = (above - below) / 2e-5
    np.testing.assert_allclose(grad, numeric, atol=1e-6)


def torch_loss(detector, params, X, y, weights):
    """Write the loss down as the paper does, for autograd."""
    W1, b1, W2, b2 = detector._unpack(params)
    s, n_classes = detector.label_smoothing, len(detector.classes_)
    A = (X * detector.feature_scale_) @ W1.T + b1
    Z = A @ W2.T + b2
    if n_classes == 2:
        target = y.double()[:, None]
        target = target * (1 - s) + (1 - target) * s
        losses = functional.binary_cross_entropy_with_logits(
            Z, target, reduction="none"
        )[:, 0]
    else:
        target = functional.one_hot(y, n_classes).double()
        target = target * (1 - s) + (1 - target) * s / (n_classes - 1)
        losses = functional.cross_entropy(Z, target, reduction="none")
    unit = functional.normalize(A * weights.sqrt()[:, None], dim=0)
    gram = unit.T @ unit
    penalty = torch.linalg.norm(torch.eye(len(gram)) - gram)
    return (weights * losses).mean() + detector.ortho_weight * penalty


@PROBLEMS
def test_loss_and_gradient_equal_those_of_torch(k, n_classes, weighted):
    detector, params, X, y, weights = problem(k, n_classes, weighted)
    if k == 1:  # where autograd divides by the norm of an exact zero
        detector.ortho_weight = 0
    loss_grad = detector._objective(X, detector._smoothed_targets(y), weights)
    loss, grad = loss_grad(params, np.arange(len(y)))
    theirs = torch.tensor(params, requires_grad=True)
    their_loss = torch_loss(detector, theirs, *map(torch.tensor, (X, y, weights)))
    their_loss.backward()
    assert loss == pytest.approx(their_loss.item(), abs=1e-12)
    np.testing.assert_allclose(grad, theirs.grad.numpy(), atol=1e-10)


def test_the_penalty_is_zero_with_one_activation_and_at_exact_orthogonality(rng):
    for A in (rng.standard_normal((9, 1)), np.eye(9)[:, :3]):
        penalty, grad = _gram_penalty(A, np.ones(9))
        assert penalty == 0
        np.testing.assert_array_equal(grad, np.zeros_like(A))


def test_the_penalty_is_the_norm_of_cosines_neither_centred_nor_squared(rng):
    A = rng.standard_normal((20, 2)) + 3
    cosine = A[:, 0] @ A[:, 1] / np.linalg.norm(A[:, 0]) / np.linalg.norm(A[:, 1])
    penalty, _ = _gram_penalty(A, np.ones(20))
    assert penalty == pytest.approx(np.sqrt(2) * abs(cosine))


def published_head(oracles, name):
    """Put the arrays of a published checkpoint into a detector."""
    file = oracles / "clip_cues" / f"{name}.ckpt"
    state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    state = {key.split("head.")[1]: v.double().numpy() for key, v in state.items()}
    if "fc.weight" in state:
        W1, b1 = state["fc.weight"], np.zeros(1)
        W2, b2 = np.ones((1, 1)), state["fc.bias"]
    else:
        W1, b1 = state["layers.0.weight"], state["layers.0.bias"]
        W2, b2 = state["to_logits.weight"], state["to_logits.bias"]
    detector = OrthogonalLinearDetector(len(W1))
    detector.n_components_, detector.n_features_in_ = W1.shape
    detector.classes_, detector.feature_scale_ = np.array([0, 1]), 1.0
    detector._store(np.concatenate([W1.ravel(), b1, W2.ravel(), b2]))
    return detector


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["combined", "synthclic"])
def test_the_published_heads_give_the_published_outputs(oracles, name):
    forward = np.load(oracles / "clip_cues" / "heads_forward.npz")
    name = f"clip_orthogonal_{name}"
    detector = published_head(oracles, name)
    A, logits = (
        detector.transform(forward["X"]),
        detector.decision_function(forward["X"]),
    )
    np.testing.assert_allclose(A, forward[f"{name}__activations"], atol=1e-4)
    np.testing.assert_allclose(logits, forward[f"{name}__logits"], atol=1e-4)


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["combined", "synthclic"])
def test_the_published_linear_probes_give_the_published_logits(oracles, name):
    forward = np.load(oracles / "clip_cues" / "heads_forward.npz")
    logits = published_head(oracles, f"linear_probe_{name}").decision_function(
        forward["X"]
    )
    expected = forward[f"linear_probe_{name}__logits"]
    np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["combined", "synthclic"])
def test_the_terms_of_the_loss_equal_those_of_the_reference(oracles, name):
    forward = np.load(oracles / "clip_cues" / "heads_forward.npz")
    name = f"clip_orthogonal_{name}"
    X, y = forward["X"].astype(np.float64), forward["y"].astype(int)
    detector = published_head(oracles, name)
    objective = detector._objective(X, detector._smoothed_targets(y), np.ones(len(y)))
    batch = np.arange(len(y))
    total, _ = objective(detector._parameters(), batch)
    penalty = 0.33 * _gram_penalty(detector.transform(X), np.ones(len(y)))[0]
    cross_entropy = total - penalty
    expected = forward[f"{name}__ortho_loss_weighted"]
    np.testing.assert_allclose(penalty, expected, atol=1e-5)
    expected = forward[f"{name}__cross_entropy_ls01"]
    np.testing.assert_allclose(cross_entropy, expected, atol=1e-5)


# What is left of the recipe without what it adds to logistic regression.
LOGISTIC_LIMIT = {
    "ortho_weight": 0,
    "alpha": 0,
    "label_smoothing": 0,
    "learning_rate_init": 0.02,
    "scale_features": None,
    "max_iter": 200,
    **SINGLE_BATCH,
}


def test_without_penalty_smoothing_and_decay_one_activation_is_logistic_regression(
    blobs,
):
    X, y = blobs
    detector = OrthogonalLinearDetector(
        1,
        **LOGISTIC_LIMIT,
    ).fit(X, y)
    probe = LogisticRegression(C=np.inf).fit(X, y)
    np.testing.assert_allclose(detector.coef_, probe.coef_, atol=1e-3)
    np.testing.assert_allclose(detector.intercept_, probe.intercept_, atol=1e-3)


def test_several_classes_without_penalty_are_multinomial_logistic_regression():
    X, y = make_blobs(3)
    detector = OrthogonalLinearDetector(
        3,
        **LOGISTIC_LIMIT,
    ).fit(X, y)
    probe = LogisticRegression(C=np.inf).fit(X, y)
    np.testing.assert_allclose(
        detector.predict_proba(X), probe.predict_proba(X), atol=1e-3
    )


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_decision_is_linear_in_the_activations(n_classes):
    X, y = make_blobs(n_classes)
    detector = OrthogonalLinearDetector(4, max_iter=3, random_state=0).fit(X, y)
    b2 = detector.intercept_ - (
        detector.activation_weights_ @ detector.activation_intercept_
    )
    Z = detector.transform(X) @ detector.activation_weights_.T + b2
    np.testing.assert_allclose(
        detector.decision_function(X), Z[:, 0] if n_classes == 2 else Z, atol=1e-10
    )


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 1, 1: 5}])
def test_integer_weights_equal_repetition(blobs, rng, class_weight):
    X, y = blobs
    counts = rng.integers(1, 4, len(y))
    detector = OrthogonalLinearDetector(
        2, max_iter=10, class_weight=class_weight, **SINGLE_BATCH
    )
    weighted = clone(detector).fit(X, y, sample_weight=counts)
    repeated = clone(detector).fit(np.repeat(X, counts, axis=0), np.repeat(y, counts))
    assert_same_arrays(weighted, repeated, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_weight_zero_equals_removal(blobs, class_weight):
    X, y = blobs
    weights = np.ones(len(y))
    weights[:100:2] = 0  # of one class
    detector = OrthogonalLinearDetector(
        2, max_iter=10, class_weight=class_weight, random_state=0
    )
    weighted = clone(detector).fit(X, y, sample_weight=weights)
    removed = clone(detector).fit(X[weights > 0], y[weights > 0])
    assert_equal_bytes(weighted, removed)


def test_class_weight_equals_sample_weight(blobs):
    X, y = blobs
    detector = OrthogonalLinearDetector(2, max_iter=3, random_state=0)
    by_class = clone(detector).set_params(class_weight={0: 1, 1: 5}).fit(X, y)
    by_row = clone(detector).fit(X, y, sample_weight=1 + 4 * y)
    assert_same_arrays(by_class, by_row, rtol=1e-12)


def test_flip_smoothing_shrinks_the_probabilities_as_documented():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20_000, 1))
    p = expit(X[:, 0])
    y = (rng.random(len(p)) < p).astype(int)
    detector = OrthogonalLinearDetector(1, label_smoothing=0.2, random_state=0)
    estimate = detector.fit(X, y).predict_proba(X)[:, 1]
    # Not to the last digit: a shrunk sigmoid is only nearly a sigmoid.
    np.testing.assert_allclose(np.abs(estimate - (0.2 + 0.6 * p)).mean(), 0, atol=0.02)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_probabilities_agree_with_the_predictions(n_classes):
    X, y = make_blobs(n_classes)
    detector = OrthogonalLinearDetector(2, max_iter=3, random_state=0).fit(X, y + 10)
    probabilities = detector.predict_proba(X)
    assert probabilities.shape == (len(y), n_classes)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_array_equal(
        detector.classes_[probabilities.argmax(axis=1)], detector.predict(X)
    )


def test_early_stopping_returns_the_best_epoch(sample):
    X, y = sample.data, sample.target
    detector = OrthogonalLinearDetector(4, random_state=0).fit(X, y)
    curve = detector.validation_loss_curve_
    best = int(curve.argmin()) + 1
    assert detector.n_iter_ == len(curve) == len(detector.loss_curve_)
    assert detector.n_iter_ - best == detector.n_iter_no_change
    short = clone(detector).set_params(max_iter=best).fit(X, y)
    assert_equal_bytes(detector, short)


def test_early_stopping_is_on_from_200_rows():
    X, y = make_blobs(2, n_samples=200)
    detector = OrthogonalLinearDetector(2, max_iter=2, random_state=0)
    assert detector.fit(X, y).validation_loss_curve_ is not None
    assert detector.fit(X[:199], y[:199]).validation_loss_curve_ is None
    detector.set_params(early_stopping=False).fit(X, y)
    assert detector.validation_loss_curve_ is None
    detector.set_params(early_stopping=True).fit(X[:199], y[:199])
    assert detector.validation_loss_curve_ is not None


def test_early_stopping_needs_two_rows_of_each_class():
    X, _ = make_blobs(2)
    y = (np.arange(len(X)) == 7).astype(int)
    detector = OrthogonalLinearDetector(2, max_iter=2, random_state=0).fit(X, y)
    assert detector.validation_loss_curve_ is None


def test_a_first_partial_fit_is_one_epoch_of_fit(sample):
    X, y = sample.data, sample.target
    detector = OrthogonalLinearDetector(
        4, max_iter=1, early_stopping=False, random_state=0
    )
    one, other = clone(detector).fit(X, y), clone(detector)
    assert_equal_bytes(one, other.partial_fit(X, y, classes=[0, 1]))
    assert other.n_iter_ == 1


def test_repeated_partial_fits_improve(sample):
    X, y = sample.data, sample.target
    detector = OrthogonalLinearDetector(4, random_state=0)
    scores = []
    for _ in range(4):
        detector.partial_fit(X, y, classes=[0, 1])
        scores.append(roc_auc_score(y, detector.decision_function(X)))
    assert detector.n_iter_ == len(detector.loss_curve_) == 4
    assert (np.diff(detector.loss_curve_) < 0).all()
    assert scores[-1] > scores[0] + 0.01


def test_partial_fit_after_fit_keeps_the_scale_and_restarts_the_moments(blobs):
    X, y = blobs
    detector = OrthogonalLinearDetector(2, max_iter=5, random_state=0).fit(X, y)
    saved, scale = pickle.loads(pickle.dumps(detector)), detector.feature_scale_
    detector.partial_fit(3 * X, y)
    assert detector.feature_scale_ == scale
    assert detector.n_iter_ == 6
    assert_equal_bytes(detector, saved.partial_fit(3 * X, y))


def test_partial_fit_takes_batches_without_all_classes(blobs):
    X, y = blobs
    detector = OrthogonalLinearDetector(2, random_state=0)
    detector.partial_fit(X[y == 0], y[y == 0], classes=[0, 1])
    photographs = detector.decision_function(X).mean()
    detector.partial_fit(X[y == 1], y[y == 1])
    assert detector.decision_function(X).mean() > photographs


def test_partial_fit_keeps_the_number_of_activations(blobs):
    detector = OrthogonalLinearDetector(2, max_iter=2, random_state=0).fit(*blobs)
    detector.set_params(n_components=4).partial_fit(*blobs)
    assert detector.components_.shape == (2, 5)
    assert detector.fit(*blobs).components_.shape == (4, 5)


def test_a_first_partial_fit_without_classes_is_refused(blobs):
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        OrthogonalLinearDetector(2).partial_fit(*blobs)


def test_partial_fit_names_unknown_labels(fitted, blobs):
    X, y = blobs
    with pytest.raises(ValueError, match=r"Got the labels \[2\] but expected .*0, 1"):
        fitted.partial_fit(X, y + 1)


def test_generators_of_the_sample_are_attributed(sample):
    synthetic = sample.target == 1
    X, generator = sample.data[synthetic], sample.generator[synthetic]
    X, X_test, generator, generator_test = train_test_split(
        X, generator, stratify=generator, random_state=0
    )
    detector = OrthogonalLinearDetector(random_state=0).fit(X, generator)
    assert detector.coef_.shape == (11, 768)
    assert detector.decision_function(X_test).shape == (len(X_test), 11)
    assert detector.transform(X_test).shape == (len(X_test), 8)
    assert detector.score(X_test, generator_test) > 0.6  # chance: 0.13


def test_features_are_scaled_to_the_published_row_norm(sample):
    X, y = sample.data, sample.target
    detector = OrthogonalLinearDetector(2, max_iter=1, random_state=0).fit(X, y)
    norms = np.linalg.norm(detector.feature_scale_ * X, axis=1)
    assert norms.mean() == pytest.approx(32.95, rel=1e-5)


def test_the_scale_is_a_weighted_mean(blobs):
    X, y = blobs
    detector = OrthogonalLinearDetector(2, max_iter=1, random_state=0)
    scale = detector.fit(X, y, sample_weight=1 + y).feature_scale_
    norms = np.linalg.norm(X, axis=1)
    assert scale == pytest.approx(32.95 / np.average(norms, weights=1 + y))


@pytest.mark.parametrize("factor", [2.0**-30, 1e-3, 2.0**70])
def test_a_constant_factor_of_the_features_changes_nothing(sample, factor):
    X, y = sample.data.astype(np.float64), sample.target
    detector = OrthogonalLinearDetector(2, max_iter=3, random_state=0)
    Z = clone(detector).fit(X, y).decision_function(X)
    scaled = clone(detector).fit(X * factor, y).decision_function(X * factor)
    np.testing.assert_allclose(scaled, Z, atol=1e-7)


@pytest.mark.parametrize("factor", [2.0**-70, 2.0**70])
def test_squares_beyond_single_precision_do_not_change_the_scale(blobs, factor):
    X, y = blobs[0].astype(np.float32), blobs[1]
    detector = OrthogonalLinearDetector(2, max_iter=1, random_state=0)
    plain = clone(detector).fit(X, y).feature_scale_
    scaled = clone(detector).fit(X * np.float32(factor), y).feature_scale_
    assert scaled * factor == pytest.approx(plain)


def test_a_given_scale_is_taken_and_none_is_one(blobs):
    X, y = blobs
    detector = OrthogonalLinearDetector(
        2, scale_features=1.5, max_iter=2, random_state=0
    )
    scaled = clone(detector).fit(X, y)
    assert scaled.feature_scale_ == 1.5
    plain = clone(detector).set_params(scale_features=None).fit(1.5 * X, y)
    assert plain.feature_scale_ == 1
    np.testing.assert_allclose(
        scaled.decision_function(X), plain.decision_function(1.5 * X), rtol=1e-8
    )


def test_rows_of_zeros_only_are_not_scaled(blobs):
    _, y = blobs
    X = np.zeros((len(y), 3))
    detector = OrthogonalLinearDetector(2, max_iter=1, random_state=0).fit(X, y)
    assert detector.feature_scale_ == 1
    assert np.isfinite(detector.coef_).all()


def test_the_same_seed_gives_the_same_bytes(blobs):
    detector = OrthogonalLinearDetector(2, max_iter=3, random_state=0)
    one, other = clone(detector).fit(*blobs), clone(detector).fit(*blobs)
    assert_equal_bytes(one, other)
    other.set_params(random_state=1).fit(*blobs)
    assert not np.allclose(one.components_, other.components_)


def test_the_initial_activations_are_orthonormal():
    detector, params, *_ = problem(4, 2, False)
    W1 = detector._unpack(params)[0]
    np.testing.assert_allclose(W1 @ W1.T, np.eye(4), atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_any_dtype_is_taken_and_the_fitted_arrays_are_float64(blobs, dtype):
    X, y = blobs
    X = (100 * X).astype(dtype)
    detector = OrthogonalLinearDetector(2, max_iter=3, random_state=0).fit(X, y)
    assert all(getattr(detector, name).dtype == np.float64 for name in ARRAYS)
    assert detector.transform(X).dtype == np.float64
    reference = clone(detector).fit(X.astype(np.float64), y)
    np.testing.assert_allclose(
        detector.decision_function(X), reference.decision_function(X), atol=1e-3
    )


def test_training_does_not_change_its_input(blobs):
    X, y = blobs
    kept = X.copy()
    OrthogonalLinearDetector(2, max_iter=2, random_state=0).fit(X, y)
    np.testing.assert_array_equal(X, kept)


@pytest.mark.parametrize(
    ("value", "kind"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")]
)
def test_rows_that_are_not_finite_are_named(fitted, blobs, value, kind):
    X, y = blobs
    X[3, 1] = X[17, 0] = value
    message = f"contains {kind} in 2 of 300 rows: 3, 17. Rows of unreadable images"
    for method in (fitted.transform, fitted.decision_function, fitted.predict):
        with pytest.raises(ValueError, match=message):
            method(X)
    for method in (fitted.fit, fitted.partial_fit):
        with pytest.raises(ValueError, match=message):
            method(X, y)


def test_many_rows_that_are_not_finite_are_counted(blobs):
    X, y = blobs
    X[:25] = np.nan
    with pytest.raises(ValueError, match=r"0, 1, .*, 19 and 5 more"):
        OrthogonalLinearDetector(2).fit(X, y)


def test_finite_rows_whose_sum_overflows_are_taken(fitted):
    X = np.full((3, 5), 3e38, dtype=np.float32)
    assert np.isfinite(fitted.transform(X)).all()


def test_one_class_is_refused(blobs):
    X, y = blobs
    with pytest.raises(ValueError, match=r"Got only one class \(\[1\]\)"):
        OrthogonalLinearDetector(2).fit(X[y == 1], y[y == 1])
    with pytest.raises(ValueError, match=r"Got only one class \(\[0\]\)"):
        OrthogonalLinearDetector(2).fit(X, y, sample_weight=y == 0)
    with pytest.raises(ValueError, match=r"Got only one class \(\[0\]\)"):
        OrthogonalLinearDetector(2).partial_fit(X, 0 * y, classes=[0])


def test_more_activations_than_features_are_refused(blobs):
    with pytest.raises(ValueError, match=r"n_components=6 but expected at most .* = 5"):
        OrthogonalLinearDetector(6).fit(*blobs)


def test_weights_that_are_negative_or_all_zero_are_refused(blobs):
    X, y = blobs
    with pytest.raises(ValueError, match="leave no row with a positive weight"):
        OrthogonalLinearDetector(2, class_weight={0: 0, 1: 0}).fit(X, y)
    weights = np.ones(len(y))
    weights[4] = -1
    with pytest.raises(ValueError, match=r"negative sample_weight \(-1"):
        OrthogonalLinearDetector(2).fit(X, y, sample_weight=weights)


def test_another_width_is_refused(fitted, blobs):
    X, y = blobs
    for method in (fitted.transform, fitted.predict_proba):
        with pytest.raises(ValueError, match=r"X has 4 features, but .* expecting 5"):
            method(X[:, :4])
    with pytest.raises(ValueError, match=r"X has 4 features, but .* expecting 5"):
        fitted.partial_fit(X[:, :4], y)


def test_a_detector_that_is_not_fitted_says_so(blobs):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        OrthogonalLinearDetector().predict(blobs[0])


@pytest.mark.parametrize("early_stopping", [True, False])
def test_training_that_diverges_is_refused(blobs, early_stopping):
    detector = OrthogonalLinearDetector(
        2, learning_rate_init=1e300, max_iter=2, early_stopping=early_stopping
    )
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="lower learning"):
        detector.fit(*blobs)


@pytest.mark.parametrize(
    "params",
    [
        {"n_components": 0},
        {"label_smoothing": 0.5},
        {"scale_features": 0.0},
        {"early_stopping": "yes"},
    ],
)
def test_parameters_out_of_range_are_refused(blobs, params):
    with pytest.raises(ValueError, match=f"The '{next(iter(params))}' parameter"):
        OrthogonalLinearDetector(2).set_params(**params).fit(*blobs)


def test_a_clone_is_not_fitted_and_fits_alike(fitted, blobs):
    copy = clone(fitted)
    assert not hasattr(copy, "components_")
    assert_equal_bytes(copy.fit(*blobs), fitted)


def test_pickle_and_skops_return_the_same_bits(fitted, blobs):
    X, _ = blobs
    data = skops.io.dumps(fitted)
    assert skops.io.get_untrusted_types(data=data) == [CLASS_PATH]
    for loaded in (
        pickle.loads(pickle.dumps(fitted)),
        skops.io.loads(data, trusted=[CLASS_PATH]),
    ):
        assert_equal_bytes(loaded, fitted)
        assert loaded.predict_proba(X).tobytes() == fitted.predict_proba(X).tobytes()
        assert loaded.get_params() == fitted.get_params()


def test_a_detector_that_is_not_fitted_can_be_pickled():
    loaded = pickle.loads(pickle.dumps(OrthogonalLinearDetector(3)))
    assert loaded.n_components == 3


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize(
    "change",
    [
        lambda array: array[..., :-1],
        lambda array: np.full_like(array, np.nan),
        lambda array: array.astype(object),
        lambda array: None,
    ],
    ids=["shape", "nan", "object", "missing"],
)
def test_a_damaged_array_is_refused(fitted, name, change):
    state = fitted.__getstate__()
    state[name] = change(state[name])
    with pytest.raises(ValueError, match=f"Got {name} of shape .* damaged or"):
        OrthogonalLinearDetector().__setstate__(state)


@pytest.mark.parametrize("name", ["coef_", "components_", "activation_weights_"])
def test_a_direction_that_does_not_match_its_factors_is_refused(fitted, name):
    state = fitted.__getstate__()
    state[name] = state[name] * 1.001
    with pytest.raises(ValueError, match=r"Got a coef_ that is not .* damaged or"):
        OrthogonalLinearDetector().__setstate__(state)


def test_a_direction_in_small_units_is_checked_as_strictly(blobs):
    X, y = blobs
    state = OrthogonalLinearDetector(2, max_iter=2).fit(1e12 * X, y).__getstate__()
    state["coef_"] = -state["coef_"]
    with pytest.raises(ValueError, match="Got a coef_ that is not"):
        OrthogonalLinearDetector().__setstate__(state)


def test_a_fitted_detector_survives_another_n_components(fitted, blobs):
    fitted.set_params(n_components=5)
    loaded = pickle.loads(pickle.dumps(fitted))
    assert_equal_bytes(loaded, fitted)


def test_set_output_gives_a_frame_of_named_activations(blobs):
    pandas = pytest.importorskip("pandas")
    X, y = blobs
    frame = pandas.DataFrame(X, columns=list("abcde"), index=np.arange(len(X)) + 7)
    detector = OrthogonalLinearDetector(2, max_iter=2, random_state=0)
    activations = detector.set_output(transform="pandas").fit(frame, y).transform(frame)
    names = ["orthogonallineardetector0", "orthogonallineardetector1"]
    assert activations.columns.tolist() == names
    assert detector.get_feature_names_out().tolist() == names
    assert activations.index.equals(frame.index)
    assert detector.feature_names_in_.tolist() == list("abcde")


def test_the_html_repr_names_the_parameters(fitted):
    html = fitted._repr_html_()
    assert "OrthogonalLinearDetector" in html
    assert "ortho_weight" in html


def test_the_number_of_activations_can_be_searched_over_generators(sample):
    search = GridSearchCV(
        OrthogonalLinearDetector(max_iter=3, random_state=0),
        {"n_components": [2, 8]},
        cv=LeaveOneGeneratorOut(),
        scoring="average_precision",
    )
    search.fit(sample.data, sample.target, groups=sample.generator)
    assert search.n_splits_ == 11
    assert search.best_estimator_.components_.shape[0] in (2, 8)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_unseen_generators_of_the_sample_are_told_from_photographs(sample):
    X, y = sample.data, sample.target
    detector = OrthogonalLinearDetector(random_state=0)
    cv = LeaveOneGeneratorOut(hold_out_real_source=False)
    scores = [
        roc_auc_score(
            y[test], clone(detector).fit(X[train], y[train]).decision_function(X[test])
        )
        for train, test in cv.split(X, y, sample.generator)
    ]
    assert np.mean(scores) > 0.89
