import csv
import pickle

import numpy as np
import pytest
import skops.io
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError

from sklearn_clipsid import TextSpan

CLASS_PATH = "sklearn_clipsid._text_span.TextSpan"
ARRAYS = ("components_", "mean_", "explained_variance_", "text_indices_")
TEXTS = ["grain", "blur", "bokeh", "warm tones"]


def published_loop(C, R, m, rank):
    """The algorithm as it was published, in its own steps."""
    V = np.linalg.svd(C, full_matrices=False)[2][:rank]
    R = R @ V.T @ np.linalg.inv(V @ V.T) @ V
    mean = C.mean(axis=0)
    C, reconstruction = C - mean, np.tile(mean, (len(C), 1))
    chosen = []
    for _ in range(m):
        P = C @ R.T
        j = P.std(axis=0, ddof=1).argmax()
        r = R[j].copy()
        a = C @ r / (r @ r)
        reconstruction += np.outer(a, r)
        C = C - np.outer(a, r)
        R = R - np.outer(R @ r / (r @ r), r)
        chosen.append(j)
    return chosen, reconstruction


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def features(rng):
    """Features of a falling spectrum with a mean far from zero, and 200 texts."""
    X = rng.standard_normal((120, 40)) * np.geomspace(1, 0.01, 40) + rng.random(40)
    return X, rng.standard_normal((200, 40))


@pytest.fixture
def fitted(rng):
    embeddings = rng.standard_normal((4, 6))
    X = rng.standard_normal((30, 6))
    return TextSpan(embeddings, TEXTS, n_components=3).fit(X), X


@pytest.mark.parametrize("rank", [10, 25, 80])
def test_it_is_the_published_algorithm(features, rank):
    X, T = features
    span = TextSpan(T, n_components=9, rank=rank).fit(X)
    chosen, reconstruction = published_loop(X, unit(T), 9, rank)
    assert span.text_indices_.tolist() == chosen
    ours = span.inverse_transform(span.transform(X))
    np.testing.assert_allclose(ours, reconstruction, rtol=0, atol=1e-12)
    left = ((X - reconstruction) ** 2).sum() / ((X - X.mean(axis=0)) ** 2).sum()
    assert span.explained_variance_ratio_.sum() == pytest.approx(1 - left)


@pytest.mark.oracle
def test_it_is_the_published_algorithm_on_embeddings_and_real_texts(oracles, rng):
    T, _ = antonyms(oracles)
    C = rng.standard_normal((300, 168)) * np.geomspace(1, 1e-3, 168) @ T
    C += 0.5 * T[0] + 0.01 * rng.standard_normal(C.shape)
    span = TextSpan(T, n_components=20).fit(C)
    chosen, reconstruction = published_loop(C, T, 20, 80)
    assert span.text_indices_.tolist() == chosen
    ours = span.inverse_transform(span.transform(C))
    np.testing.assert_allclose(ours, reconstruction, rtol=0, atol=1e-12)


def antonyms(oracles):
    folder = oracles / "clip_cues"
    T = np.load(folder / "antonym_direction_embeddings_vitl14_336.npy")
    with (folder / "antonyms.csv").open(encoding="utf-8") as file:
        return unit(T), [row["attribute_name"] for row in csv.DictReader(file)]


@pytest.mark.oracle
def test_the_texts_that_made_the_features_are_found_in_their_order(oracles, rng):
    T, names = antonyms(oracles)
    for _ in range(5):
        made_of = rng.choice(168, size=5, replace=False)
        amounts = rng.standard_normal((400, 5)) * [81, 27, 9, 3, 1]
        X = amounts @ T[made_of] + 3 * T[0] + 0.01 * rng.standard_normal((400, 768))
        span = TextSpan(T, names, n_components=5).fit(X)
        assert span.texts_.tolist() == [names[j] for j in made_of]
        assert span.explained_variance_ratio_.sum() > 0.99


def test_components_are_orthonormal_and_within_the_chosen_texts(features):
    X, T = features
    span = TextSpan(T, n_components=30).fit(X)
    product = span.components_ @ span.components_.T
    np.testing.assert_allclose(product, np.eye(30), rtol=0, atol=1e-12)
    chosen = T[span.text_indices_]  # X has full rank: nothing of a text is cut
    fit = np.linalg.lstsq(chosen.T, span.components_.T)[0]
    np.testing.assert_allclose(chosen.T @ fit, span.components_.T, atol=1e-9)


def test_texts_that_are_nearly_the_same_make_orthonormal_components(rng):
    T = rng.standard_normal(40) + 1e-7 * rng.standard_normal((9, 40))
    span = TextSpan(T, n_components=9).fit(rng.standard_normal((120, 40)))
    product = span.components_ @ span.components_.T
    np.testing.assert_allclose(product, np.eye(9), rtol=0, atol=1e-12)


def test_of_texts_only_what_the_features_span_counts(rng):
    basis, T = rng.standard_normal((3, 8)), rng.standard_normal((5, 8))
    X = rng.standard_normal((60, 3)) @ basis
    span = TextSpan(T, n_components=3).fit(X)
    within = np.linalg.pinv(basis) @ basis
    np.testing.assert_allclose(span.components_ @ within, span.components_)
    assert span.explained_variance_ratio_.sum() == pytest.approx(1)


def test_explained_variance_is_that_of_the_coefficients(features):
    X, T = features
    span = TextSpan(T, n_components=7, rank=12).fit(X)
    variance = span.transform(X).var(axis=0, ddof=1)
    np.testing.assert_allclose(span.explained_variance_, variance)
    np.testing.assert_allclose(
        span.explained_variance_ratio_, variance / X.var(axis=0, ddof=1).sum()
    )


def test_with_principal_axes_for_texts_it_is_principal_component_analysis(features):
    X, _ = features
    pca = PCA().fit(X)
    order = np.random.default_rng(1).permutation(40)
    span = TextSpan(pca.components_[order], n_components=5).fit(X)
    np.testing.assert_array_equal(order[span.text_indices_], range(5))
    np.testing.assert_allclose(span.transform(X), pca.transform(X)[:, :5], atol=1e-12)


def test_all_directions_give_all_of_the_features_back(features):
    X, _ = features
    span = TextSpan(n_components=40).fit(X)
    assert span.explained_variance_ratio_.sum() == pytest.approx(1)
    np.testing.assert_allclose(span.inverse_transform(span.transform(X)), X)


def test_only_the_directions_of_texts_count(features):
    X, T = features
    span = TextSpan(T, n_components=6).fit(X)
    scaled = TextSpan(T * np.geomspace(1e-30, 1e30, 200)[:, None], n_components=6)
    np.testing.assert_allclose(scaled.fit(X).components_, span.components_, atol=1e-9)


def test_it_stops_where_no_text_explains_anything(rng):
    T = rng.standard_normal((4, 32))
    X = rng.standard_normal((50, 2)) @ T[[2, 0]] + T[1]
    message = "n_components=4 but only 2 of 4 texts"
    with pytest.warns(UserWarning, match=message) as warned:
        span = TextSpan(T, TEXTS, n_components=4).fit(X)
    assert len(warned) == 1
    assert warned[0].filename == __file__
    assert span.n_components_ == 2
    assert span.transform(X).shape == (50, 2)
    np.testing.assert_allclose(span.inverse_transform(span.transform(X)), X)


def test_a_text_twice_is_chosen_once(rng):
    T = rng.standard_normal((3, 8))
    X = rng.standard_normal((50, 8))
    with pytest.warns(UserWarning, match="only 3 of 6 texts"):
        span = TextSpan(np.vstack([T, -2 * T]), n_components=6).fit(X)
    assert sorted(span.text_indices_ % 3) == [0, 1, 2]


def test_features_that_do_not_vary_are_refused(rng):
    T = rng.standard_normal((4, 8))
    for X in (np.tile(T[0], (9, 1)), np.zeros((9, 8))):
        with pytest.raises(ValueError, match="does not vary along any of 4 texts"):
            TextSpan(T, TEXTS, n_components=2).fit(X)


def test_texts_that_features_do_not_have_are_refused(rng):
    X = np.pad(rng.standard_normal((20, 4)), ((0, 0), (0, 4)))
    with pytest.raises(ValueError, match="does not vary along any of 3 texts"):
        TextSpan(np.eye(8)[5:], n_components=1).fit(X)


def test_columns_have_the_names_of_the_texts(fitted):
    span, X = fitted
    chosen = [TEXTS[j] for j in span.text_indices_]
    assert span.get_feature_names_out().tolist() == span.texts_.tolist() == chosen
    pytest.importorskip("pandas")
    table = span.set_output(transform="pandas").transform(X)
    assert table.columns.tolist() == chosen


def test_without_embeddings_each_feature_is_a_text(rng):
    X = rng.standard_normal((60, 3)) * [1, 9, 3]
    span = TextSpan(n_components=2).fit(X)
    assert span.texts_.tolist() == ["x1", "x2"]
    span.set_params(texts=list("abc")).fit(X)
    assert span.texts_.tolist() == ["b", "c"]
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["red", "green", "blue"])
    assert clone(span).set_params(texts=None).fit(frame).texts_[0] == "green"


def test_texts_without_names_are_numbered(fitted):
    span, X = fitted
    numbered = clone(span).set_params(texts=None).fit(X)
    assert numbered.texts_.tolist() == [f"text{j}" for j in span.text_indices_]


def replaced(row, value):
    rows = np.eye(4)
    rows[row] = value
    return rows


@pytest.mark.parametrize(
    ("embeddings", "texts", "message"),
    [
        (np.eye(5)[:4], TEXTS, r"Got text_embeddings of other widths .*row 0 has 5"),
        (replaced(1, np.nan), TEXTS, r"infinity in text_embeddings, in row 1 \(blur\)"),
        (replaced([0, 2], 0), None, r"that are zero in rows 0 \(text0\), 2 \(text2\)"),
        (np.eye(4), TEXTS[:3], "Got 3 texts for 4 rows of text_embeddings"),
        (np.eye(4), ["a", "b", "a", "c"], "'a' twice, in rows 0 and 2 of texts"),
        (np.eye(4), ["a", "b", " ", "c"], r"Got texts\[2\] = ' '"),
    ],
)
def test_what_is_wrong_with_the_texts_is_named(embeddings, texts, message, rng):
    with pytest.raises(ValueError, match=message):
        TextSpan(embeddings, texts, n_components=1).fit(rng.random((9, 4)))


def test_more_components_than_texts_are_refused(rng):
    with pytest.raises(ValueError, match=r"Got n_components=10 .* of texts, 4"):
        TextSpan(np.eye(4), TEXTS).fit(rng.random((9, 4)))


@pytest.mark.parametrize("parameter", [{"n_components": 0}, {"rank": 0}], ids=str)
def test_parameters_out_of_range_are_refused(parameter, rng):
    with pytest.raises(ValueError, match=f"The '{next(iter(parameter))}' parameter"):
        TextSpan(**parameter).fit(rng.random((9, 4)))


def test_rows_that_are_not_finite_are_named(fitted):
    span, X = fitted
    X[3, 1] = np.nan
    for method in (span.transform, span.fit):
        with pytest.raises(ValueError, match="contains NaN in 1 of 30 rows: 3"):
            method(X)


def test_another_width_is_refused(fitted):
    span, X = fitted
    with pytest.raises(ValueError, match="X has 5 features, but TextSpan is expecting"):
        span.transform(X[:, :5])
    with pytest.raises(ValueError, match=r"Got 6 columns .* component, 3"):
        span.inverse_transform(X)


def test_what_is_not_fitted_says_so():
    for method in ("transform", "inverse_transform", "get_feature_names_out"):
        with pytest.raises(NotFittedError):
            getattr(TextSpan(), method)(np.eye(4))


def test_pickle_and_skops_return_the_same_bits(fitted):
    span, X = fitted
    data = skops.io.dumps(span)
    assert skops.io.get_untrusted_types(data=data) == [CLASS_PATH]
    for loaded in (
        pickle.loads(pickle.dumps(span)),
        skops.io.loads(data, trusted=[CLASS_PATH]),
    ):
        assert loaded.transform(X).tobytes() == span.transform(X).tobytes()
        assert loaded.texts_.tolist() == span.texts_.tolist()
        assert all(
            getattr(loaded, name).tobytes() == getattr(span, name).tobytes()
            for name in ARRAYS
        )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("components_", None, "Got components_ of shape"),
        ("components_", np.eye(6)[:2], "Got components_ of shape"),
        ("components_", np.ones((3, 6)), "not orthogonal rows of unit norm"),
        ("mean_", np.full(6, np.nan), "Got mean_ of shape"),
        ("explained_variance_", np.array([2.0, 1.0, -1.0]), "below 0"),
        ("explained_variance_ratio_", np.zeros(2), "Got explained_variance_ratio_"),
        ("text_indices_", np.zeros(3), "Got text_indices_ of shape"),
        ("texts_", np.array(["a", "b", "a"]), "occur twice"),
        ("texts_", np.array([1, 2, 3]), "Got texts_ of shape"),
        ("n_components_", 2, "Got components_ of shape"),
        ("n_components_", None, "Got components_ of shape"),
    ],
)
def test_a_state_that_no_fit_can_have_made_is_refused(fitted, name, value, message):
    state = fitted[0].__getstate__() | {name: value}
    with pytest.raises(ValueError, match=message):
        TextSpan().__setstate__(state)


def test_what_is_not_fitted_can_be_pickled():
    assert pickle.loads(pickle.dumps(TextSpan(rank=3))).rank == 3
