import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn import config_context
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sklearn_clipsid._source_eraser import SourceEraser
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut

METHODS = ["between", "leace"]
PHOTOS, GENERATORS = ["COCO", "FFHQ", "RAISE"], ["GLIDE", "SD1.4", "StyleGAN", "VQDM"]


@pytest.fixture
def data(rng):
    """Twelve features, in which 7 sources of unequal size differ in 5 directions."""
    groups = np.repeat(PHOTOS + GENERATORS, [30, 50, 20, 40, 10, 30, 20])
    y = np.isin(groups, GENERATORS).astype(int)
    source = np.unique(groups, return_inverse=True)[1]
    noise = rng.standard_normal((len(y), 12)) @ rng.standard_normal((12, 12))
    X = noise + 3 * rng.standard_normal((7, 12))[source]
    X[:, 0] += 4 * y
    return X, y, groups


def source_means(X, y, groups):
    """Means of the sources, less that of all rows of their class."""
    return np.array(
        [
            X[groups == name].mean(axis=0) - X[y == y[groups == name][0]].mean(axis=0)
            for name in np.unique(groups)
        ]
    )


@pytest.mark.parametrize("method", METHODS)
def test_sources_of_a_class_have_one_mean_once_all_directions_are_erased(data, method):
    X, y, groups = data
    eraser = SourceEraser(None, method=method).fit(X, y, groups)
    assert eraser.directions_.shape == eraser.weights_.shape == (5, 12)
    erased = eraser.transform(X)
    np.testing.assert_allclose(source_means(erased, y, groups), 0, atol=1e-9)
    np.testing.assert_allclose(erased.mean(axis=0), X.mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(eraser.transform(erased), erased, atol=1e-9)


def test_between_projects_out_the_leading_eigenvectors_of_the_scatter(data):
    X, y, groups = data
    means = np.array([X[groups == name].mean(axis=0) for name in PHOTOS + GENERATORS])
    scatter = sum(len(m) * np.cov(m.T, bias=True) for m in (means[:3], means[3:])) / 7
    values, vectors = np.linalg.eigh(scatter)
    V = vectors[:, :-3:-1]  # (12, 2)
    eraser = SourceEraser(2).fit(X, y, groups)
    np.testing.assert_allclose(eraser.strengths_**2, values[:-3:-1])
    centred = X - X.mean(axis=0)
    np.testing.assert_allclose(eraser.transform(X), X - centred @ V @ V.T)


def test_leace_is_the_published_closed_form(data):
    X, y, groups = data
    Z = pd.get_dummies(groups).to_numpy(float)
    Z = Z - LinearRegression().fit(y[:, None], Z).predict(y[:, None])
    centred = X - X.mean(axis=0)
    values, Q = np.linalg.eigh(centred.T @ centred / len(X))
    W = Q / np.sqrt(values) @ Q.T
    U, s, _ = np.linalg.svd(W @ centred.T @ Z / len(X), full_matrices=False)
    U = U[:, s > 0.01]
    expected = X - centred @ (np.linalg.inv(W) @ U @ U.T @ W).T
    erased = SourceEraser(None, method="leace").fit_transform(X, y, groups=groups)
    np.testing.assert_allclose(erased, expected)


def test_leace_changes_the_features_least(data):
    X, y, groups = data
    changes = [
        ((SourceEraser(None, method=m).fit(X, y, groups).transform(X) - X) ** 2).mean()
        for m in ("leace", "between")
    ]
    assert changes[0] < changes[1]


@pytest.mark.parametrize("method", METHODS)
def test_the_classes_keep_a_difference_that_sources_do_not_have(rng, method):
    # Sources differ in the first two features, the classes in the third.
    means = rng.standard_normal((8, 2)) * 5
    groups = np.repeat(np.arange(8), 40)
    y = groups // 4
    X = np.column_stack([means[groups], 3.0 * y]) + rng.standard_normal((320, 3))
    erased = SourceEraser(2, method=method).fit(X, y, groups).transform(X)
    gap = erased[y == 1].mean(axis=0) - erased[y == 0].mean(axis=0)
    assert gap[2] == pytest.approx(3, abs=0.3)
    if method == "between":  # LEACE leaves in the first what the third foretells
        assert np.abs(gap[:2]).max() < 0.3


@pytest.mark.parametrize("method", METHODS)
def test_it_works_with_fewer_rows_than_features(rng, method):
    X, groups = rng.standard_normal((20, 50)), np.repeat(np.arange(5), 4)
    y = (groups > 1).astype(int)
    erased = SourceEraser(None, method=method).fit_transform(X, y, groups=groups)
    np.testing.assert_allclose(source_means(erased, y, groups), 0, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_sources_that_do_not_differ_leave_the_features_alone(method):
    X = np.tile([[0.1, 2.3], [0.7, 4.1], [3.3, 1.9]], (4, 1))
    X = X[[0, 1, 2, 2, 1, 0, 1, 2, 0, 0, 2, 1]]  # other rounding errors
    eraser = SourceEraser(1, method=method)
    groups, y = np.repeat(list("abcd"), 3), np.repeat([0, 1], 6)
    np.testing.assert_array_equal(eraser.fit_transform(X, y, groups=groups), X)
    assert eraser.directions_.shape == (0, 2)


def test_a_source_with_rows_of_both_classes_is_one_of_each(data):
    X, y, _ = data
    shared = np.array(["web", "camera"])[np.arange(len(y)) % 2]
    named = np.char.add(shared, y.astype(str))
    erased = SourceEraser(2).fit(X, y, shared).transform(X)
    np.testing.assert_array_equal(SourceEraser(2).fit(X, y, named).transform(X), erased)


def test_pair_ids_in_a_second_column_are_not_used(data):
    X, y, groups = data
    two_columns = np.column_stack([groups, np.arange(len(y)).astype(str)])
    np.testing.assert_array_equal(
        SourceEraser(2).fit(X, y, two_columns).directions_,
        SourceEraser(2).fit(X, y, groups).directions_,
    )


def test_without_groups_each_row_is_a_source_and_a_warning_says_so(data):
    X, y, _ = data
    with pytest.warns(UserWarning, match="Got groups=None.*sourceeraser__groups"):
        eraser = SourceEraser(1).fit(X, y)
    within = X - np.array([X[y == c].mean(axis=0) for c in (0, 1)])[y]
    leading = np.linalg.svd(within)[2][0]
    assert abs(eraser.directions_[0] @ leading) == pytest.approx(1)


def test_a_pipeline_takes_the_groups_by_the_name_of_the_step(data):
    X, y, groups = data
    chain = make_pipeline(SourceEraser(3), LogisticRegression())
    chain.fit(X, y, sourceeraser__groups=groups)
    alone = SourceEraser(3).fit(X, y, groups)
    np.testing.assert_array_equal(chain[0].directions_, alone.directions_)


def test_a_search_routes_the_groups_to_each_training_part(data):
    X, y, groups = data
    with config_context(enable_metadata_routing=True):
        search = GridSearchCV(
            make_pipeline(SourceEraser(), LogisticRegression()),
            {"sourceeraser__n_directions": [1, 2], "sourceeraser__method": METHODS},
            cv=LeaveOneGeneratorOut(),
            scoring="roc_auc",
            error_score="raise",
        ).fit(X, y, groups=groups)
    # A warning, and so an error here, would say that a fit got no groups.
    assert search.cv_results_["mean_test_score"].shape == (4,)


def test_single_precision_is_kept(data):
    X, y, groups = data
    eraser = SourceEraser(2).fit(X.astype("f4"), y, groups)
    assert eraser.transform(X.astype("f4")).dtype == np.float32
    exact = SourceEraser(2).fit(X, y, groups).transform(X)
    np.testing.assert_allclose(eraser.transform(X.astype("f4")), exact, atol=1e-4)


def test_names_and_index_of_a_frame_are_kept(data):
    X, y, groups = data
    frame = pd.DataFrame(X, columns=[f"pc{i}" for i in range(12)]).set_index(groups)
    eraser = SourceEraser(2).set_output(transform="pandas").fit(frame, y, groups)
    assert eraser.transform(frame).columns.equals(frame.columns)
    assert eraser.transform(frame).index.equals(frame.index)


def test_skops_reads_it_without_trusting_more_than_its_class(data):
    X, y, groups = data
    eraser = SourceEraser(2, method="leace").fit(X, y, groups)
    saved = skops.io.dumps(eraser)
    path = "sklearn_clipsid._source_eraser.SourceEraser"
    assert skops.io.get_untrusted_types(data=saved) == [path]
    read = skops.io.loads(saved, trusted=[path])
    np.testing.assert_array_equal(read.transform(X), eraser.transform(X))


def test_more_directions_than_sources_allow_are_refused(data):
    X, y, groups = data
    match = r"n_directions=6 but expected at most 5, as 7 sources of 2 classes"
    with pytest.raises(ValueError, match=match):
        SourceEraser(6).fit(X, y, groups)


def test_a_class_of_one_source_is_refused_by_name(data):
    X, y, groups = data
    one = np.where(y == 0, "COCO", groups)
    match = r"rows of y=0 of 'COCO' only but expected two or more sources in each class"
    with pytest.raises(ValueError, match=match):
        SourceEraser(2).fit(X, y, one)
    with pytest.raises(ValueError, match=r"y=0 of 'photo' only, y=1 of 'fake' only"):
        SourceEraser(2).fit(X, y, np.where(y == 0, "photo", "fake"))


def test_groups_that_do_not_fit_are_refused(data):
    X, y, groups = data
    with pytest.raises(ValueError, match="Got groups with 199 rows but expected 200"):
        SourceEraser(2).fit(X, y, groups[1:])
    with pytest.raises(ValueError, match=r"Got groups of shape \(200, 3\)"):
        SourceEraser(2).fit(X, y, np.column_stack([groups] * 3))
    with pytest.raises(ValueError, match=r"Got no value of groups for row\(s\) 7"):
        SourceEraser(2).fit(X, y, np.where(np.arange(200) == 7, "", groups))


@pytest.mark.parametrize(
    "parameter", [{"n_directions": 0}, {"n_directions": 1.5}, {"method": "pca"}]
)
def test_a_bad_parameter_is_named(data, parameter):
    X, y, groups = data
    with pytest.raises(ValueError, match=f"The '{next(iter(parameter))}' parameter"):
        SourceEraser(**parameter).fit(X, y, groups)


def test_rows_of_unreadable_images_are_refused_by_number(data):
    X, y, groups = data
    eraser = SourceEraser(2).fit(X, y, groups)
    X[3] = np.nan
    for use in (lambda: eraser.fit(X, y, groups), lambda: eraser.transform(X)):
        with pytest.raises(ValueError, match="SourceEraser contains NaN in 1 of 200"):
            use()
