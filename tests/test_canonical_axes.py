import io
import itertools
import pickle

import numpy as np
import pytest
import skops.io
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sklearn_clipsid import OrthogonalLinearDetector, persistence
from sklearn_clipsid._axis_stability import matched_cosines
from sklearn_clipsid._canonical_axes import axis_shares, canonical_axes, class_gaps
from sklearn_clipsid._orthogonal_linear import _gram_penalty
from sklearn_clipsid.datasets import load_sample_embeddings

CLASS_PATH = "sklearn_clipsid._orthogonal_linear.OrthogonalLinearDetector"
CANONICAL = OrthogonalLinearDetector(
    4, axes="canonical", max_iter=5, early_stopping=False, random_state=0
)
PROBLEMS = pytest.mark.parametrize(
    ("k", "n_classes"), [(1, 2), (2, 2), (8, 2), (1, 3), (3, 3), (8, 3), (2, 5)]
)
N_SEEDS, N_BOOT = 5, 5


@pytest.fixture(scope="module")
def sample():
    return load_sample_embeddings()


@pytest.fixture(scope="module")
def fits(sample):
    """Seeds of both kinds of axes, on the packaged sample."""
    return {
        axes: [
            OrthogonalLinearDetector(axes=axes, random_state=seed).fit(
                sample.data, sample.target
            )
            for seed in range(N_SEEDS)
        ]
        for axes in ("learned", "canonical")
    }


def make_blobs(n_classes=2, n_samples=300, n_features=10, seed=1):
    rng = np.random.default_rng(seed)
    y = np.arange(n_samples) % n_classes
    centres = rng.standard_normal((n_classes, n_features))
    noise = rng.standard_normal((n_samples, n_features))
    return centres[y] + noise * np.linspace(0.5, 2, n_features) + 3, y


def axes_of(X, y, coef, k, weights=None):
    weights = np.ones(len(y)) if weights is None else weights
    return canonical_axes(X, weights, class_gaps(X, y, weights), coef, k)


def largest_correlation(A):
    """Between activations that vary, with their number."""
    A = A[:, A.std(axis=0) > 1e-6]
    correlation = np.atleast_2d(np.corrcoef(A, rowvar=False))
    return np.abs(correlation - np.diag(np.diag(correlation))).max(), A.shape[1]


@PROBLEMS
def test_the_decision_is_that_of_the_learned_axes_to_the_bit(k, n_classes):
    X, y = make_blobs(n_classes)
    detector = clone(CANONICAL).set_params(n_components=k)
    canonical = clone(detector).fit(X, y)
    learned = detector.set_params(axes="learned").fit(X, y)
    for method in ("decision_function", "predict_proba", "predict"):
        one, other = getattr(canonical, method)(X), getattr(learned, method)(X)
        assert one.tobytes() == other.tobytes()
    assert not np.allclose(canonical.components_, learned.components_)


@PROBLEMS
def test_the_weighted_activations_add_up_to_the_decision(k, n_classes):
    X, y = make_blobs(n_classes)
    detector = clone(CANONICAL).set_params(n_components=k).fit(X, y)
    b2 = detector.intercept_ - (
        detector.activation_weights_ @ detector.activation_intercept_
    )
    unseen = 5 * np.random.default_rng(2).standard_normal((50, X.shape[1]))
    Z = detector.transform(unseen) @ detector.activation_weights_.T + b2
    expected = detector.decision_function(unseen)
    np.testing.assert_allclose(np.squeeze(Z), expected, atol=1e-12)


@PROBLEMS
def test_activations_are_standardised_and_uncorrelated(k, n_classes):
    X, y = make_blobs(n_classes)
    A = clone(CANONICAL).set_params(n_components=k).fit(X, y).transform(X)
    np.testing.assert_allclose(A.T @ A / len(A), np.eye(k), atol=1e-8)
    np.testing.assert_allclose(A.mean(axis=0), 0, atol=1e-12)
    assert _gram_penalty(A, np.ones(len(A)))[0] < 1e-8  # the paper's


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activations_of_real_embeddings_are_uncorrelated(sample, dtype):
    X = sample.data.astype(dtype)
    detector = OrthogonalLinearDetector(16, axes="canonical", max_iter=2)
    detector.fit(X, sample.target)
    correlation, n_axes = largest_correlation(detector.transform(X))
    assert correlation < 1e-8
    assert n_axes == 16


def test_axes_are_sorted_by_their_share_of_the_class_gap_and_point_to_synthetic(fits):
    for detector in fits["canonical"]:
        shares = detector.axis_share_
        assert shares.sum() == pytest.approx(1)
        assert (np.diff(shares) <= 0).all()
        assert shares[-1] > 0
        assert (detector.activation_weights_ > 0).all()


@pytest.mark.parametrize("axes", ["learned", "canonical"])
def test_a_share_is_that_of_the_gap_between_mean_contributions(sample, fits, axes):
    X, y = sample.data, sample.target
    detector = fits[axes][0]
    contributions = detector.transform(X) * detector.activation_weights_
    gaps = contributions[y == 1].mean(axis=0) - contributions[y == 0].mean(axis=0)
    Z = detector.decision_function(X)
    expected = gaps / (Z[y == 1].mean() - Z[y == 0].mean())
    np.testing.assert_allclose(detector.axis_share_, expected, atol=1e-5)


def test_shares_of_several_classes_sum_to_one():
    X, y = make_blobs(5)
    shares = CANONICAL.fit(X, y).axis_share_
    assert shares.sum() == pytest.approx(1)
    assert (np.diff(shares) <= 0).all()


def test_the_axes_maximise_covariance_with_the_mean_difference_score():
    """Against many directions: each uncorrelated with the axes before, unit length."""
    X, y = make_blobs()
    X = X - X.mean(axis=0)
    cov = X.T @ X / len(X)
    delta = X[y == 1].mean(axis=0) - X[y == 0].mean(axis=0)
    coef = np.random.default_rng(0).standard_normal((1, X.shape[1]))
    V, _, _, is_remainder = axes_of(X, y, coef, 4)
    U = V[~is_remainder]
    U = U[np.argsort([-(u @ cov @ delta) / np.linalg.norm(u) for u in U])]
    np.testing.assert_allclose(
        U[0] / np.linalg.norm(U[0]), cov @ delta / np.linalg.norm(cov @ delta)
    )
    rivals = np.random.default_rng(1).standard_normal((2000, X.shape[1]))
    for j in range(3):
        Q = np.linalg.qr(cov @ U[:j].T)[0] if j else np.zeros((X.shape[1], 0))
        R = rivals - (rivals @ Q) @ Q.T
        R /= np.linalg.norm(R, axis=1, keepdims=True)
        own = U[j] @ cov @ delta / np.linalg.norm(U[j])
        assert np.abs(R @ cov @ delta).max() < own


@pytest.mark.parametrize("k", [1, 2, 5])
def test_only_the_remainder_depends_on_the_decision(k):
    X, y = make_blobs()
    rng = np.random.default_rng(0)
    one, other = (
        axes_of(X, y, rng.standard_normal((1, X.shape[1])), k) for _ in range(2)
    )
    (V, *_, V_rest), (U, *_, U_rest) = one, other
    assert V_rest.sum() == U_rest.sum() == 1
    cosines = matched_cosines(V[~V_rest], U[~U_rest])
    np.testing.assert_allclose(cosines, np.ones(k - 1))
    assert matched_cosines(V[V_rest], U[U_rest])[0] < 0.99


def test_with_one_axis_the_remainder_is_the_decision():
    X, y = make_blobs()
    detector = clone(CANONICAL).set_params(n_components=1).fit(X, y)
    assert matched_cosines(detector.components_, detector.coef_) == pytest.approx(1)
    assert detector.axis_share_.tolist() == [1]
    assert detector.axis_is_remainder_.tolist() == [True]


def test_axes_turn_with_the_features():
    X, y = make_blobs()
    rng = np.random.default_rng(0)
    coef = rng.standard_normal((1, X.shape[1]))
    Q = np.linalg.qr(rng.standard_normal((X.shape[1], X.shape[1])))[0]
    V, b, W, _ = axes_of(X, y, coef, 5)
    V_turned, b_turned, W_turned, _ = axes_of(X @ Q, y, coef @ Q, 5)
    np.testing.assert_allclose(V_turned, V @ Q, atol=1e-9)
    np.testing.assert_allclose(b_turned, b, atol=1e-9)
    np.testing.assert_allclose(W_turned, W, atol=1e-9)


@pytest.mark.parametrize("factor", [2.0**-70, 1e-3, 2.0**70])
def test_a_constant_factor_of_the_features_changes_nothing(factor):
    X, y = make_blobs()
    A = clone(CANONICAL).fit(X, y).transform(X)
    scaled = clone(CANONICAL).fit(X * factor, y).transform(X * factor)
    np.testing.assert_allclose(scaled, A, atol=1e-6)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_a_weight_equals_repetition(n_classes):
    X, y = make_blobs(n_classes)
    counts = np.random.default_rng(0).integers(1, 4, len(y))
    coef = np.random.default_rng(1).standard_normal((max(n_classes - 1, 1), X.shape[1]))
    weighted = axes_of(X, y, coef, 6, counts)
    repeated = axes_of(np.repeat(X, counts, axis=0), np.repeat(y, counts), coef, 6)
    for one, other in zip(weighted, repeated):
        np.testing.assert_allclose(one, other, atol=1e-9)


def test_weighted_activations_are_uncorrelated_under_the_weights():
    X, y = make_blobs()
    weights = np.random.default_rng(0).uniform(0.1, 3, len(y))
    detector = clone(CANONICAL).set_params(class_weight={0: 1, 1: 4})
    A = detector.fit(X, y, sample_weight=weights).transform(X)
    weights = weights * np.where(y == 1, 4, 1)
    cov = (A.T * weights) @ A / weights.sum()
    np.testing.assert_allclose(cov, np.eye(4), atol=1e-8)


def test_weight_zero_equals_removal():
    X, y = make_blobs()
    weights = np.ones(len(y))
    weights[::3] = 0
    weighted = clone(CANONICAL).fit(X, y, sample_weight=weights)
    removed = clone(CANONICAL).fit(X[weights > 0], y[weights > 0])
    assert weighted.components_.tobytes() == removed.components_.tobytes()
    assert weighted.axis_share_.tobytes() == removed.axis_share_.tobytes()


def degenerate_problems():
    rng = np.random.default_rng(0)
    X, y = make_blobs(n_features=6)
    wide, few = rng.standard_normal((12, 30)), np.arange(12) % 2
    mirrored = np.concatenate([X[y == 0], X[y == 0]])
    return {
        # name: (X, y, number of axes that are not zero)
        "rank": (X[:, :2] @ rng.standard_normal((2, 6)), y, 3),
        "fewer rows than features": (wide, few, 6),
        "features with an offset": (X + 1e5, y, 6),
        "a constant feature": (np.column_stack([X[:, :5], np.full(len(X), 7.0)]), y, 6),
        "equal class means": (mirrored, np.repeat([0, 1], len(mirrored) // 2), 1),
        "isotropic": (np.vstack([np.eye(6), -np.eye(6)]), np.repeat([0, 1], 6), 2),
        "two rows": (X[:2], y[:2], 2),
        "zeros": (np.zeros((20, 6)), np.arange(20) % 2, 1),
        # Where rows are alike but for rounding, the class means may differ by it.
        "equal rows": (np.tile(rng.standard_normal(6), (21, 1)), np.arange(21) % 2, 1),
    }


@pytest.mark.parametrize("name", degenerate_problems())
def test_where_the_data_define_fewer_axes_the_last_are_zero(name):
    X, y, n_axes = degenerate_problems()[name]
    detector = clone(CANONICAL).set_params(n_components=6).fit(X, y)
    is_axis = detector.components_.any(axis=1)
    assert is_axis.tolist() == [True] * n_axes + [False] * (6 - n_axes)
    A = detector.transform(X)
    varying = A.std(axis=0) > 1e-6
    cov = A[:, varying].T @ A[:, varying] / len(A)
    np.testing.assert_allclose(cov, np.eye(varying.sum()), atol=1e-8)
    unseen = np.random.default_rng(3).standard_normal((9, X.shape[1]))
    Z = detector.transform(unseen) @ detector.activation_weights_[0]
    difference = Z - detector.decision_function(unseen)
    np.testing.assert_allclose(difference, difference[0], atol=1e-8)
    assert not detector.axis_share_[~is_axis].any()
    pickle.loads(pickle.dumps(detector))  # passes the checks of what it stores


def test_a_small_remainder_is_uncorrelated_as_well():
    X, y = make_blobs()
    rng = np.random.default_rng(0)
    coef = rng.standard_normal((1, X.shape[1]))
    V, _, _, is_remainder = axes_of(X, y, coef, 4)
    nearly_spanned = rng.standard_normal((1, 3)) @ V[~is_remainder] + 1e-9 * coef
    V, b, _, is_remainder = axes_of(X, y, nearly_spanned, 4)
    assert is_remainder.sum() == 1
    A = X @ V.T + b
    np.testing.assert_allclose(A.T @ A / len(A), np.eye(4), atol=1e-10)


def test_zero_rows_stay_behind_axes_of_negative_share():
    X, y = make_blobs(n_features=6)
    X[:, 2:] = 0
    coef = np.array([[0.4, 1, 0, 0, 0, 0]])
    V, _, W, _ = axes_of(X, y, coef, 4)
    shares = axis_shares(W, class_gaps(X, y, np.ones(len(y))) @ V.T)
    assert V.any(axis=1).tolist() == [True, True, False, False]
    assert shares[0] > 1
    assert shares[1] < 0
    assert shares.sum() == pytest.approx(1)


def test_no_gap_has_no_shares():
    weights, gaps = np.ones((1, 3)), np.zeros((1, 3))
    assert axis_shares(weights, gaps).tolist() == [0, 0, 0]


def test_axes_over_seeds_come_back_as_learned_ones_do_not(fits):
    means = {
        axes: np.mean(
            [
                matched_cosines(one.components_, other.components_)
                for one, other in itertools.combinations(detectors, 2)
            ]
        )
        for axes, detectors in fits.items()
    }
    assert means["canonical"] > 0.94
    assert means["learned"] < 0.3


def test_axes_over_bootstrap_samples_come_back(sample, fits):
    cosines = fits["canonical"][0].axis_stability(
        sample.data, sample.target, N_BOOT, random_state=0
    )
    assert cosines.shape == (N_BOOT, 8)
    assert cosines.mean() > 0.84
    # The first carries half of the gap and the first three 70 %.
    assert cosines[:, 0].min() > 0.97
    assert fits["canonical"][0].axis_share_[0] > 0.4
    learned = fits["learned"][0]
    cosines = learned.axis_stability(sample.data, sample.target, N_BOOT, random_state=0)
    assert cosines.mean() < 0.3


def test_the_matched_cosines_ignore_order_sign_and_length(rng):
    V = rng.standard_normal((4, 9))
    others = V[[2, 0, 3, 1]] * np.array([[-1], [2], [1], [1e-9]])
    np.testing.assert_allclose(matched_cosines(V, others), np.ones(4))
    np.testing.assert_allclose(matched_cosines(V[:3], np.zeros((3, 9))), np.zeros(3))
    A, B = np.eye(3)[:2], np.array([[1, 0, 0], [1, 1, 0]])
    np.testing.assert_allclose(matched_cosines(A, B), [1, np.sqrt(0.5)])


def test_the_stability_can_be_repeated_and_leaves_the_detector_alone():
    X, y = make_blobs()
    names = np.array(["photograph", "synthetic"])[y]
    detector = clone(CANONICAL).fit(X, names)
    kept = pickle.dumps(detector)
    detector.set_params(n_components=2)  # what is measured is the fitted detector
    one, other = (
        detector.axis_stability(X, names, n_boot=2, random_state=0) for _ in range(2)
    )
    np.testing.assert_array_equal(one, other)
    assert pickle.dumps(detector.set_params(n_components=4)) == kept
    assert one.shape == (2, 4)
    assert ((one > 0) & (one <= 1 + 1e-12)).all()
    assert (one < 1 - 1e-6).all()  # other rows, other axes
    assert not np.allclose(one[0], one[1])


def test_rows_of_weight_zero_are_not_drawn():
    X, y = make_blobs()
    weights = np.ones(len(y))
    weights[::3] = 0
    detector = clone(CANONICAL).fit(X, y, sample_weight=weights)
    weighted = detector.axis_stability(
        X, y, n_boot=2, sample_weight=weights, random_state=0
    )
    removed = detector.axis_stability(
        X[weights > 0], y[weights > 0], n_boot=2, random_state=0
    )
    np.testing.assert_allclose(weighted, removed)


def test_the_stability_is_that_of_the_weighted_fit():
    (X, y), (others, _) = make_blobs(), make_blobs(seed=2)
    X, y = np.concatenate([X, others]), np.concatenate([y, y])
    weights = np.repeat([1, 1e-3], len(others))
    detector = clone(CANONICAL).fit(X, y, sample_weight=weights)
    weighted = detector.axis_stability(
        X, y, sample_weight=weights, n_boot=5, random_state=0
    )
    unweighted = detector.axis_stability(X, y, n_boot=5, random_state=0)
    of_data = ~detector.axis_is_remainder_
    assert weighted[:, of_data].mean() > unweighted[:, of_data].mean() + 0.05


def test_the_stability_needs_a_fitted_detector():
    with pytest.raises(NotFittedError):
        clone(CANONICAL).axis_stability(*make_blobs())


def test_generators_get_canonical_axes_too(sample):
    synthetic = sample.target == 1
    X, generator = sample.data[synthetic], sample.generator[synthetic]
    detector = OrthogonalLinearDetector(16, axes="canonical", random_state=0)
    detector.fit(X, generator)
    correlation, n_axes = largest_correlation(detector.transform(X))
    assert correlation < 1e-8
    assert n_axes == 16
    # Eleven logits: five axes of the rows and labels, eleven within the remainders.
    assert detector.axis_is_remainder_.sum() == 11


def test_continued_training_needs_learned_axes():
    X, y = make_blobs()
    detector = clone(CANONICAL).fit(X, y)
    assert not hasattr(detector, "partial_fit")
    with pytest.raises(AttributeError) as error:
        detector.partial_fit(X, y)
    assert "expected axes='learned' for partial_fit" in str(error.value.__cause__)
    Z = detector.decision_function(X)
    detector.set_params(axes="learned", learning_rate_init=1e-12).partial_fit(X, y)
    np.testing.assert_allclose(detector.decision_function(X), Z, atol=1e-6)
    assert not detector.axis_is_remainder_.any()
    assert not hasattr(detector, "axis_share_")


def test_other_axes_are_refused():
    with pytest.raises(ValueError, match="The 'axes' parameter"):
        OrthogonalLinearDetector(2, axes="principal").fit(*make_blobs())


@pytest.mark.parametrize("n_classes", [2, 3])
def test_saved_axes_return_bit_for_bit(n_classes):
    X, y = make_blobs(n_classes)
    detector = clone(CANONICAL).fit(X, y)
    file = io.BytesIO()
    persistence.dump(detector, file)
    file.seek(0)
    data = skops.io.dumps(detector)
    assert skops.io.get_untrusted_types(data=data) == [CLASS_PATH]
    for loaded in (
        pickle.loads(pickle.dumps(detector)),
        skops.io.loads(data, trusted=[CLASS_PATH]),
        persistence.load(file),
    ):
        assert loaded.axes == "canonical"
        assert loaded.transform(X).tobytes() == detector.transform(X).tobytes()
        assert loaded.axis_share_.tobytes() == detector.axis_share_.tobytes()
        assert loaded.axis_is_remainder_.tolist() == (
            detector.axis_is_remainder_.tolist()
        )


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("axis_share_", lambda array: array[1:]),
        ("axis_share_", lambda array: array * np.nan),
        ("axis_is_remainder_", lambda array: array[1:]),
        ("axis_is_remainder_", lambda array: array.astype(float)),
        ("axis_is_remainder_", lambda array: None),
    ],
)
def test_damaged_axes_are_refused(name, change):
    state = clone(CANONICAL).fit(*make_blobs()).__getstate__()
    state[name] = change(state[name])
    with pytest.raises(ValueError, match=f"Got {name}.* damaged or"):
        OrthogonalLinearDetector().__setstate__(state)


def test_whole_groups_are_drawn(sample):
    X, y = sample.data, sample.target
    detector = OrthogonalLinearDetector(2, axes="canonical", max_iter=2).fit(X, y)
    alone = detector.axis_stability(X, y, 2, groups=np.arange(len(y)), random_state=0)
    coarse = detector.axis_stability(
        X, y, 2, groups=np.arange(len(y)) % 6, random_state=0
    )
    # Six groups that each hold a sixth of all rows say less than as many rows.
    assert coarse[:, 0].mean() < alone[:, 0].mean()


def test_samples_without_a_class_are_drawn_again_and_at_last_refused():
    X, y = np.random.RandomState(0).standard_normal((60, 3)), np.arange(60) % 2
    detector = OrthogonalLinearDetector(1, axes="canonical", max_iter=2).fit(X, y)
    stability = detector.axis_stability(X, y, 8, groups=y, random_state=0)
    assert stability.shape == (8, 1)  # half of the samples lack a class
    y = np.arange(60) % 20  # of 20 groups one class each, some are always missing
    detector = OrthogonalLinearDetector(1, max_iter=2).fit(X, y)
    with pytest.raises(ValueError, match="lacked a class, but expected several groups"):
        detector.axis_stability(X, y, groups=y, random_state=0)


@pytest.mark.parametrize(
    ("n_boot", "error"), [(0, ValueError), (-1, ValueError), (2.5, TypeError)]
)
def test_the_number_of_samples_is_checked(n_boot, error):
    X, y = np.random.RandomState(0).standard_normal((60, 3)), np.arange(60) % 2
    detector = OrthogonalLinearDetector(1, axes="canonical", max_iter=2).fit(X, y)
    with pytest.raises(error, match="n_boot"):
        detector.axis_stability(X, y, n_boot)
    with pytest.raises(ValueError, match="X has 2 features"):
        detector.axis_stability(X[:, :2], y)


def test_the_fitted_detector_remembers_its_axes():
    X, y = np.random.RandomState(0).standard_normal((60, 3)), np.arange(60) % 2
    detector = OrthogonalLinearDetector(1, axes="canonical", max_iter=2).fit(X, y)
    assert detector.axes_ == "canonical"
    detector.set_params(axes="learned").partial_fit(X, y)
    assert detector.axes_ == "learned"
