import pickle

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from scipy.special import expit
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from sklearn_clipsid import ConceptBottleneckClassifier
from sklearn_clipsid._gated_concepts import gated_loss_grad
from sklearn_clipsid.datasets import load_sample_embeddings

CLASS_PATH = "sklearn_clipsid._concept_bottleneck.ConceptBottleneckClassifier"
NAMES = ["grain", "blur", "tint"]
ARRAYS = (
    "concept_embeddings_",
    "concept_weights_",
    "intercept_",
    "gate_coef_",
    "gate_intercept_",
)
ALL_GATES = pytest.mark.parametrize("gates", ["embedding", "similarity", "none"])


def make_rows(n_samples=300):
    """Two classes that differ in the first of three concepts among five features."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_samples, 5))
    y = (X[:, 0] + 0.3 * rng.normal(size=n_samples) > 0).astype(int)
    return X, y


CONCEPTS = np.array([[2.0, 0, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0.1, 0, 0, 0.1]])


@pytest.fixture
def rows():
    return make_rows()


@pytest.fixture(scope="module")
def sample():
    return load_sample_embeddings(features="projected")


def detector(**parameters):
    parameters = {"max_iter": 20, "random_state": 0} | parameters
    return ConceptBottleneckClassifier(CONCEPTS, NAMES, **parameters)


@pytest.fixture(params=["embedding", "similarity", "none"])
def fitted(request):
    return detector(gates=request.param).fit(*make_rows())


def assert_equal_bytes(one, other):
    for name in ARRAYS:
        one_array, other_array = getattr(one, name), getattr(other, name)
        assert np.asarray(one_array).tobytes() == np.asarray(other_array).tobytes()


def published_model(oracles, name):
    """Put the arrays of a published checkpoint into a detector."""
    file = oracles / "clip_cues" / f"{name}.ckpt"
    state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    state = {key.split("model.")[1]: v.double().numpy() for key, v in state.items()}
    T = state["text_embeddings"]
    model = ConceptBottleneckClassifier(T)
    model.n_features_in_, model.classes_ = T.shape[1], np.array([0, 1])
    model.concept_embeddings_, model.concept_names_ = model._concepts(T.shape[1])
    model.gates_, model.gate_coef_ = "embedding", state["W_concepts.weight"]
    model.gate_intercept_ = state["W_concepts.bias"]
    model.concept_weights_ = state["W_classifier.weight"][0]
    model.intercept_ = state["W_classifier.bias"]
    return model


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["combined", "synthclic"])
def test_the_published_models_give_the_published_outputs(oracles, name):
    forward = np.load(oracles / "clip_cues" / "concepts_forward.npz")
    name = f"cm_antonyms_{name}"
    model, X = published_model(oracles, name), forward["E"]
    S, M, contributions = model._terms(X)
    for ours, theirs in (
        (S, "image_to_concept_sims_raw"),
        (M, "per_image_concept_samples"),
        (contributions, "per_concept_logit_contribution"),
        (model.decision_function(X)[:, None], "class_logits"),
    ):
        np.testing.assert_allclose(ours, forward[f"{name}__{theirs}"], atol=1e-4)
    explanation = model.explain(X, top=168)
    weights = np.sort(explanation["weight"], axis=1)
    np.testing.assert_array_equal(weights[0], np.sort(model.concept_weights_))


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["combined", "synthclic"])
def test_the_terms_of_the_loss_equal_those_of_the_reference(oracles, name):
    forward = np.load(oracles / "clip_cues" / "concepts_forward.npz")
    name = f"cm_antonyms_{name}"
    model, X = published_model(oracles, name), forward["E"].astype(np.float64)
    E = X / np.linalg.norm(X, axis=1, keepdims=True)
    arrays = (model.gate_coef_.ravel(), model.gate_intercept_)
    cross_entropy, divergence = gated_loss_grad(
        np.concatenate([*arrays, model.concept_weights_, model.intercept_]),
        E,
        E @ model.concept_embeddings_.T,
        forward["y"].astype(np.float64),
        np.ones(len(X)),
        temperature=0.1,
        sparsity=1e-4,
        gate_prior=1e-4,
    )
    total = cross_entropy + 1e-4 * divergence
    for ours, theirs in (
        (cross_entropy, "cross_entropy"),
        (total, "total"),
    ):
        expected = forward[f"{name}__loss_{theirs}"]
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)
    # The reference adds up hundreds in single precision, which tells 3e-5 apart.
    expected = forward[f"{name}__loss_kl_divergence"]
    np.testing.assert_allclose(divergence, expected, rtol=1e-7, atol=1e-5)


@pytest.mark.oracle
def test_the_published_directions_are_those_of_the_checkpoints(oracles):
    directions = np.load(
        oracles / "clip_cues" / "antonym_direction_embeddings_vitl14_336.npy"
    )
    model = published_model(oracles, "cm_antonyms_combined")
    np.testing.assert_allclose(model.concept_embeddings_, directions, atol=1e-5)


def test_contributions_and_intercept_are_the_decision(fitted, rows):
    X, _ = rows
    logits = fitted.transform(X).sum(axis=1) + fitted.intercept_
    np.testing.assert_array_equal(fitted.decision_function(X), logits)
    np.testing.assert_allclose(fitted.predict_proba(X)[:, 1], expit(logits))
    np.testing.assert_array_equal(fitted.predict(X), (logits > 0).astype(int))


def test_a_contribution_is_similarity_times_gate_times_weight(fitted, rows):
    X, _ = rows
    E = X / np.linalg.norm(X, axis=1, keepdims=True)
    similarities = E @ fitted.concept_embeddings_.T
    gates = fitted.gate_probabilities(X)
    expected = similarities * gates * fitted.concept_weights_
    np.testing.assert_allclose(fitted.transform(X), expected, atol=1e-12)


def test_gates_see_the_embedding_the_similarities_or_nothing(rows):
    X, y = rows
    E = X / np.linalg.norm(X, axis=1, keepdims=True)
    similarities = E @ (CONCEPTS / np.linalg.norm(CONCEPTS, axis=1)[:, None]).T
    models = {g: detector(gates=g).fit(X, y) for g in ("embedding", "similarity")}
    for gates, seen in (("embedding", E), ("similarity", similarities)):
        model = models[gates]
        logits = seen @ model.gate_coef_.T + model.gate_intercept_
        np.testing.assert_allclose(model.gate_probabilities(X), expit(logits))
    without = detector(gates="none").fit(X, y)
    assert (without.gate_probabilities(X) == 1).all()
    assert without.gate_coef_ is without.gate_intercept_ is None


def test_only_gates_on_the_embedding_see_what_no_concept_sees(rows):
    X, y = rows
    unseen = np.array([0, 0, 1, -1, 0])  # orthogonal to all concepts
    reflected = X - np.outer(X @ unseen, unseen)
    np.testing.assert_allclose(reflected @ CONCEPTS.T, X @ CONCEPTS.T, atol=1e-12)
    for gates, blind in (("embedding", False), ("similarity", True), ("none", True)):
        model = detector(gates=gates).fit(X, y)
        same = np.allclose(model.transform(X), model.transform(reflected))
        assert same == blind


def test_without_gates_it_is_logistic_regression_on_the_similarities(rows):
    X, y = rows
    model = ConceptBottleneckClassifier(
        CONCEPTS,
        gates="none",
        alpha=0,
        max_iter=400,
        early_stopping=False,
        batch_size=len(y),
        random_state=0,
    ).fit(X, y)
    E = X / np.linalg.norm(X, axis=1, keepdims=True)
    probe = LogisticRegression(C=np.inf).fit(E @ model.concept_embeddings_.T, y)
    np.testing.assert_allclose(model.concept_weights_, probe.coef_[0], atol=1e-2)
    np.testing.assert_allclose(model.intercept_, probe.intercept_, atol=1e-2)


def test_decay_shrinks_the_weights_of_the_concepts(rows):
    free, decayed = (
        detector(gates="none", alpha=alpha, max_iter=200).fit(*rows)
        for alpha in (0, 1.0)
    )
    assert np.linalg.norm(decayed.concept_weights_) < 0.5 * np.linalg.norm(
        free.concept_weights_
    )


def test_more_sparsity_closes_gates(rows):
    loose, strict = (
        detector(sparsity=sparsity, max_iter=100).fit(*rows)
        for sparsity in (1e-4, 1e-1)
    )
    assert strict.concept_usage_.mean() < 0.5 * loose.concept_usage_.mean()


@ALL_GATES
def test_the_first_concept_is_found(gates):
    X, y = make_rows(1200)
    model = detector(gates=gates, max_iter=60).fit(X[:800], y[:800])
    assert roc_auc_score(y[800:], model.decision_function(X[800:])) > 0.9
    assert model.concept_auc_.argmax() == 0
    top = model.explain(X, top=1)["concept"][:, 0]
    assert (top == "grain").mean() > 0.5


def test_aligned_weights_start_with_the_sign_of_the_class_gap(rows):
    X, y = rows
    X[:, [0, 2]] *= -1
    for seed in range(5):
        slow = {"max_iter": 1, "learning_rate_init": 1e-9, "random_state": seed}
        weights = detector(early_stopping=False, **slow).fit(X, y).concept_weights_
        E = X / np.linalg.norm(X, axis=1, keepdims=True)
        gap = (E[y == 1].mean(axis=0) - E[y == 0].mean(axis=0)) @ CONCEPTS.T
        np.testing.assert_array_equal(np.sign(weights), np.sign(gap))
        start = detector(early_stopping=False, init="random", **slow).fit(X, y)
        np.testing.assert_allclose(
            np.abs(start.concept_weights_), np.abs(weights), atol=1e-6
        )


def test_an_explanation_is_sorted_and_adds_up(fitted, rows):
    X, _ = rows
    explanation = fitted.explain(X, top=10)
    assert explanation.shape == (len(X), 3)  # no more than there are
    size = np.abs(explanation["contribution"])
    assert (np.diff(size, axis=1) <= 0).all()
    np.testing.assert_allclose(
        explanation["contribution"].sum(axis=1) + fitted.intercept_,
        fitted.decision_function(X),
    )
    np.testing.assert_allclose(
        explanation["similarity"] * explanation["gate"] * explanation["weight"],
        explanation["contribution"],
    )
    columns = [NAMES.index(name) for name in explanation["concept"][0]]
    np.testing.assert_array_equal(
        explanation["contribution"][0], fitted.transform(X)[0, columns]
    )
    assert fitted.explain(X[:2]).shape == (2, 3)
    assert fitted.explain(X[:2], top=1).shape == (2, 1)


def test_an_explanation_makes_a_table(fitted, rows):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(fitted.explain(rows[0][:1])[0])
    columns = ["concept", "similarity", "gate", "weight", "contribution"]
    assert table.columns.tolist() == columns
    assert set(table["concept"]) == set(NAMES)


def test_columns_have_the_names_of_the_concepts(fitted, rows):
    X, _ = rows
    assert fitted.get_feature_names_out().tolist() == NAMES
    pytest.importorskip("pandas")
    table = fitted.set_output(transform="pandas").transform(X)
    assert table.columns.tolist() == NAMES
    # What is computed from the contributions does not become a table.
    assert isinstance(fitted.decision_function(X), np.ndarray)


def test_usage_and_auc_are_those_of_the_training_rows(fitted, rows):
    X, y = rows
    usage = (fitted.gate_probabilities(X) > 0.5).mean(axis=0)
    np.testing.assert_allclose(fitted.concept_usage_, usage)
    E = X / np.linalg.norm(X, axis=1, keepdims=True)
    similarities = E @ fitted.concept_embeddings_.T
    auc = np.array([roc_auc_score(y, column) for column in similarities.T])
    np.testing.assert_allclose(fitted.concept_auc_, auc)


@ALL_GATES
@pytest.mark.parametrize("factor", [2.0**-70, 2.0**70])
def test_only_directions_count(gates, factor, rows):
    X, y = rows
    model = detector(gates=gates, max_iter=3).fit(X, y)
    scaled = ConceptBottleneckClassifier(
        factor * CONCEPTS, NAMES, gates=gates, max_iter=3, random_state=0
    ).fit(X * np.geomspace(1, factor, len(X))[:, None], y)
    np.testing.assert_allclose(
        scaled.transform(factor * X), model.transform(X), atol=1e-6
    )
    np.testing.assert_allclose(np.linalg.norm(model.concept_embeddings_, axis=1), 1)


@ALL_GATES
def test_a_row_of_zeros_gets_the_intercept(gates, rows):
    model = detector(gates=gates, max_iter=3).fit(*rows)
    assert model.decision_function(np.zeros((1, 5))) == model.intercept_


def test_a_concept_that_no_image_has_is_taken(rows):
    X, y = rows
    X[:, 4] = 0
    T = np.vstack([CONCEPTS[:2], [[0, 0, 0, 0, 1]]])
    for gates in ("embedding", "similarity", "none"):
        model = ConceptBottleneckClassifier(T, NAMES, gates=gates, max_iter=3)
        assert np.isfinite(model.fit(X, y).transform(X)).all()
        assert model.concept_auc_[2] == 0.5


def test_without_directions_each_feature_is_a_concept(rows):
    X, y = rows
    model = ConceptBottleneckClassifier(max_iter=2).fit(X, y)
    np.testing.assert_array_equal(model.concept_embeddings_, np.eye(5))
    assert model.get_feature_names_out().tolist() == ["x0", "x1", "x2", "x3", "x4"]
    pandas = pytest.importorskip("pandas")
    model.fit(pandas.DataFrame(X, columns=list("abcde")), y)
    assert model.get_feature_names_out().tolist() == list("abcde")
    model.set_params(concept_names=list("fghij")).fit(X, y)
    assert model.get_feature_names_out().tolist() == list("fghij")


def test_concepts_without_names_are_numbered(rows):
    model = ConceptBottleneckClassifier(CONCEPTS, max_iter=1).fit(*rows)
    assert model.concept_names_.tolist() == ["concept0", "concept1", "concept2"]


def test_labels_may_be_strings(rows):
    X, y = rows
    words = np.array(["photograph", "synthetic"])[y]
    named, plain = detector().fit(X, words), detector().fit(X, y)
    assert_equal_bytes(named, plain)
    assert set(named.predict(X)) == {"photograph", "synthetic"}


def test_class_weights_shift_the_decision(rows):
    X, y = rows
    shares = [
        detector(gates="none", class_weight=weight).fit(X, y).predict(X).mean()
        for weight in ({0: 5, 1: 1}, None, {0: 1, 1: 5})
    ]
    assert shares == sorted(shares)
    assert shares[0] < shares[2]


def test_negative_class_weights_are_refused(rows):
    with pytest.raises(ValueError, match=r"Got class_weight=.* at least 0"):
        detector(class_weight={0: -1, 1: 1}).fit(*rows)


def test_early_stopping_returns_the_best_epoch(sample):
    directions = np.random.default_rng(0).standard_normal((4, 512))
    model = ConceptBottleneckClassifier(
        directions, learning_rate_init=0.1, n_iter_no_change=5, random_state=0
    ).fit(sample.data, sample.target)
    curve = model.validation_loss_curve_
    best = int(curve.argmin()) + 1
    assert model.n_iter_ == len(curve) == len(model.loss_curve_)
    assert model.n_iter_ - best == 5
    short = clone(model).set_params(max_iter=best).fit(sample.data, sample.target)
    assert_equal_bytes(model, short)


def test_the_sample_is_detected_through_random_directions(sample):
    """Why the documentation warns of gates that see the embedding."""
    X, y = sample.data, sample.target
    directions = np.random.default_rng(0).standard_normal((20, 512))
    auc = {}
    for gates in ("embedding", "none"):
        model = ConceptBottleneckClassifier(
            directions, gates=gates, max_iter=40, random_state=0
        ).fit(X[::2], y[::2])
        auc[gates] = roc_auc_score(y[1::2], model.decision_function(X[1::2]))
    assert auc["embedding"] > auc["none"] + 0.1


def test_the_same_seed_gives_the_same_bytes(fitted, rows):
    again = clone(fitted)
    assert not hasattr(again, "concept_weights_")
    assert_equal_bytes(again.fit(*rows), fitted)
    again.set_params(random_state=1).fit(*rows)
    assert not np.array_equal(again.concept_weights_, fitted.concept_weights_)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64])
def test_any_dtype_is_taken_and_the_fitted_arrays_are_float64(dtype, rows):
    X, y = rows
    X = (100 * X).astype(dtype)
    model = detector(max_iter=2).fit(X, y)
    assert all(getattr(model, name).dtype == np.float64 for name in ARRAYS)
    assert model.transform(X).dtype == np.float64
    # The noise of the gates is another one in single precision.
    model = detector(gates="none", max_iter=2).fit(X, y)
    exact = clone(model).fit(X.astype(np.float64), y)
    np.testing.assert_allclose(exact.transform(X), model.transform(X), atol=1e-4)


def test_training_changes_neither_rows_nor_directions(rows):
    X, y = rows
    kept, directions = X.copy(), CONCEPTS.copy()
    ConceptBottleneckClassifier(directions, max_iter=2).fit(X, y)
    np.testing.assert_array_equal(X, kept)
    np.testing.assert_array_equal(directions, CONCEPTS)


def test_a_fitted_detector_keeps_its_gates(rows):
    X, y = rows
    model = detector(gates="similarity", max_iter=3).fit(X, y)
    before = model.transform(X)
    np.testing.assert_array_equal(model.set_params(gates="none").transform(X), before)


def replaced(row, value):
    rows = CONCEPTS.copy()
    rows[row] = value
    return rows


@pytest.mark.parametrize(
    ("directions", "names", "message"),
    [
        (CONCEPTS[:, :4], NAMES, "row 0 has 4, row 1 has 4, row 2 has 4"),
        ([*CONCEPTS[:2], [1.0]], NAMES, r"than X \(row 2 has 1\).* n_features = 5"),
        (CONCEPTS[:0], [], r"shape \(0, 5\)"),
        (CONCEPTS[None], NAMES, "row 0 has 15"),
        (replaced(1, np.nan), NAMES, r"NaN or infinity .* row 1 \(blur\)"),
        (replaced(2, -np.inf), None, r"NaN or infinity .* row 2 \(concept2\)"),
        (replaced([0, 2], 0), NAMES, r"zero in rows 0 \(grain\), 2 \(tint\)"),
        (CONCEPTS, NAMES[:2], "2 concept_names for 3 rows"),
        (CONCEPTS, ["a", "b", "a"], r"name 'a' twice, in rows 0 and 2"),
        (CONCEPTS, ["a", " ", "c"], r"concept_names\[1\] = ' '"),
        (CONCEPTS, ["a", "b", 3], r"concept_names\[2\] = 3"),
        (CONCEPTS, ["a", None, "c"], r"concept_names\[1\] = None"),
    ],
)
def test_what_is_wrong_with_the_concepts_is_named(directions, names, message, rows):
    model = ConceptBottleneckClassifier(directions, names)
    with pytest.raises(ValueError, match=message):
        model.fit(*rows)


def test_columns_of_concepts_are_those_of_the_rows(rows):
    X, y = rows
    frame = pd.DataFrame(X, columns=list("abcde"))
    concepts = pd.DataFrame(CONCEPTS, columns=list("edcba"))
    with pytest.raises(ValueError, match="columns are not those of X"):
        ConceptBottleneckClassifier(concepts).fit(frame, y)
    model = ConceptBottleneckClassifier(concepts[list("abcde")], max_iter=2)
    assert model.fit(frame, y).concept_embeddings_.shape == CONCEPTS.shape


@pytest.mark.parametrize(
    ("concepts", "names", "message"),
    [
        (CONCEPTS[0], None, r"concepts\.directions\[\[0\]\] for a single one"),
        ({"directions": CONCEPTS}, None, "of type dict but expected a matrix"),
        (CONCEPTS, {"a", "b", "c"}, "of type set but expected a list"),
        (CONCEPTS, "abc", "of type str but expected a list"),
    ],
)
def test_concepts_are_a_matrix_and_a_list_of_names(rows, concepts, names, message):
    from sklearn_clipsid._concept_vocabulary import check_concepts

    with pytest.raises(ValueError, match=message):
        check_concepts(concepts, names, 5)


def test_single_and_double_precision_draw_the_same_gates(rows):
    X, y = rows
    models = [
        detector(max_iter=3, random_state=0).fit(X.astype(dtype), y)
        for dtype in (np.float32, np.float64)
    ]
    weights = [model.concept_weights_ for model in models]
    np.testing.assert_allclose(*weights, rtol=1e-3)


def test_a_frame_of_directions_is_taken(rows):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(CONCEPTS, index=NAMES)
    model = ConceptBottleneckClassifier(frame, frame.index, max_iter=1).fit(*rows)
    assert model.concept_names_.tolist() == NAMES


@pytest.mark.parametrize(("value", "kind"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_rows_that_are_not_finite_are_named(fitted, rows, value, kind):
    X, y = rows
    X[3, 1] = X[17, 0] = value
    message = f"contains {kind} in 2 of 300 rows: 3, 17"
    for method in (fitted.transform, fitted.predict, fitted.explain):
        with pytest.raises(ValueError, match=message):
            method(X)
    with pytest.raises(ValueError, match=message):
        fitted.fit(X, y)


def test_other_than_two_classes_are_refused(rows):
    X, y = rows
    with pytest.raises(ValueError, match=r"Only binary .* OrthogonalLinearDetector"):
        detector().fit(X, np.arange(len(y)) % 3)
    with pytest.raises(ValueError, match=r"Got only one class \(\[1\]\)"):
        detector().fit(X, np.ones_like(y))


def test_another_width_is_refused(fitted, rows):
    with pytest.raises(ValueError, match=r"X has 4 features, but .* expecting 5"):
        fitted.explain(rows[0][:, :4])


def test_no_concepts_are_no_explanation(fitted, rows):
    with pytest.raises(ValueError, match="top == 0, must be >= 1"):
        fitted.explain(rows[0], top=0)
    with pytest.raises(TypeError, match="top must be an instance of int"):
        fitted.explain(rows[0], top=2.5)


def test_a_detector_that_is_not_fitted_says_so(rows):
    for method in ("predict", "explain", "gate_probabilities"):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            getattr(detector(), method)(rows[0])
    with pytest.raises(NotFittedError, match="not fitted yet"):
        detector().get_feature_names_out()


def test_training_that_diverges_is_refused(rows):
    model = detector(learning_rate_init=1e300, early_stopping=False)
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="lower them"):
        model.fit(*rows)


@pytest.mark.parametrize(
    "parameters",
    [{"gates": "all"}, {"gate_prior": 0.0}, {"temperature": 0}, {"sparsity": -1}],
)
def test_parameters_out_of_range_are_refused(parameters, rows):
    with pytest.raises(ValueError, match=f"The '{next(iter(parameters))}' parameter"):
        detector(**parameters).fit(*rows)


def test_pickle_and_skops_return_the_same_bits(fitted, rows):
    X, _ = rows
    data = skops.io.dumps(fitted)
    assert skops.io.get_untrusted_types(data=data) == [CLASS_PATH]
    for loaded in (
        pickle.loads(pickle.dumps(fitted)),
        skops.io.loads(data, trusted=[CLASS_PATH]),
    ):
        assert loaded.explain(X).tobytes() == fitted.explain(X).tobytes()
        assert loaded.get_feature_names_out().tolist() == NAMES
        assert_equal_bytes(loaded, fitted)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("classes_", np.array([1, 0]), "two sorted labels"),
        ("classes_", np.array([0, 1, 2]), "two sorted labels"),
        ("concept_weights_", np.zeros(2), "Got concept_weights_ of shape"),
        ("concept_weights_", np.full(3, np.nan), "not all finite"),
        ("intercept_", None, "Got intercept_ of shape"),
        ("concept_names_", np.array(["a", "b", "a"]), "twice"),
        ("concept_embeddings_", np.eye(5)[:3, :4], "other widths"),
        ("concept_embeddings_", None, "Got concept_embeddings_=None"),
        ("concept_embeddings_", 2 * np.eye(5)[:3], "not of unit norm"),
        ("gates_", "all", "Got gate"),
    ],
)
def test_a_state_that_no_fit_can_have_made_is_refused(fitted, name, value, message):
    state = fitted.__getstate__() | {name: value}
    with pytest.raises(ValueError, match=message):
        ConceptBottleneckClassifier().__setstate__(state)


def test_a_detector_that_is_not_fitted_can_be_pickled():
    loaded = pickle.loads(pickle.dumps(detector()))
    np.testing.assert_array_equal(loaded.concept_embeddings, CONCEPTS)
