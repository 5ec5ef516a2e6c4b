import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn import config_context
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_clipsid import OrthogonalLinearDetector
from sklearn_clipsid._common_support import CommonSupportClassifier
from sklearn_clipsid._source_eraser import SourceEraser

NAMES = np.array(["COCO", "RAISE", "faces", "GLIDE", "SD1.4", "StyleGAN"])
CLASS = np.array([0, 0, 0, 1, 1, 1])
# The first feature is content, the second the traces of a generator.
MEANS = np.array([[0.0, 0], [2, 0], [12, 0], [0, 1], [2, 1], [12, 1]])


@pytest.fixture
def draw(rng):
    """Draw rows of the sources that are named, in two features and two of noise."""

    def draw(*names, n=60):
        which = np.repeat(np.flatnonzero(np.isin(NAMES, names)), n)
        noise = 0.5 * rng.standard_normal((len(which), 4))
        return np.pad(MEANS[which], ((0, 0), (0, 2))) + noise, CLASS[which], which

    return draw


def test_a_source_is_left_out_only_where_it_has_no_counterpart(draw):
    model = CommonSupportClassifier(LogisticRegression())
    X, y, which = draw(*NAMES[:5])  # photographs of faces, and no synthetic ones
    model.fit(X, y, NAMES[which])
    assert model.sources_[~model.kept_].tolist() == ["faces"]
    X, y, which = draw(*NAMES)
    assert model.fit(X, y, NAMES[which]).kept_.all()


def test_content_of_one_class_is_not_learned(draw):
    X, y, which = draw(*NAMES[[0, 1, 3, 4, 5]])
    unseen, label, _ = draw("faces", "GLIDE", n=500)
    plain = LogisticRegression().fit(X, y)
    model = CommonSupportClassifier(LogisticRegression()).fit(X, y, NAMES[which])
    assert roc_auc_score(label, plain.decision_function(unseen)) < 0.6
    assert roc_auc_score(label, model.decision_function(unseen)) > 0.8


def test_the_detector_is_fitted_to_the_rows_that_are_kept(draw):
    X, y, which = draw(*NAMES[:5])
    model = CommonSupportClassifier(RidgeClassifier()).fit(X, y, NAMES[which])
    alone = RidgeClassifier().fit(X[which != 2], y[which != 2])
    np.testing.assert_array_equal(model.estimator_.coef_, alone.coef_)
    np.testing.assert_array_equal(model.predict(X), alone.predict(X))
    np.testing.assert_array_equal(model.classes_, [0, 1])


def test_distances_are_those_of_mahalanobis_over_their_median(draw):
    X, y, which = draw(*NAMES[:5])
    model = CommonSupportClassifier(LogisticRegression()).fit(X, y, NAMES[which])
    means = np.array([X[which == g].mean(axis=0) for g in range(5)])
    W = np.mean([np.cov(X[which == g].T, bias=True) for g in range(5)], axis=0)
    S = np.linalg.inv(0.5 * W + 0.5 * np.trace(W) / 4 * np.eye(4))
    nearest = [
        min((m - o) @ S @ (m - o) for o in means[CLASS[:5] != c])
        for m, c in zip(means, CLASS)
    ]
    np.testing.assert_allclose(model.distances_, nearest / np.median(nearest))
    np.testing.assert_array_equal(model.kept_, model.distances_ <= 2)


@pytest.mark.parametrize("seed", range(5))
def test_both_classes_stay_however_strict_it_is(seed):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(8), 20)
    X = 9 * rng.standard_normal((8, 3))[groups] + rng.standard_normal((160, 3))
    model = CommonSupportClassifier(LogisticRegression(), max_distance=1)
    model.fit(X, groups // 5, groups)
    assert set(groups[model.kept_[groups]] // 5) == {0, 1}


def test_nothing_is_left_out_of_two_sources(draw):
    X, y, which = draw("COCO", "StyleGAN")
    model = CommonSupportClassifier(LogisticRegression()).fit(X, y, NAMES[which])
    assert model.distances_.tolist() == [1, 1]
    assert model.kept_.all()


def test_sources_that_are_copies_do_not_hide_those_that_are_not(draw):
    X, y, which = draw(*NAMES)
    X[y == 1] = X[y == 0]
    model = CommonSupportClassifier(LogisticRegression()).fit(X, y, NAMES[which])
    assert model.distances_.tolist() == [1] * 6
    X[which == 5] += 99
    assert model.fit(X, y, NAMES[which]).kept_.tolist() == [True, True, False] * 2


def test_rows_may_be_sources_of_their_own(draw):
    X, y, _ = draw("COCO", "GLIDE", n=5)
    model = CommonSupportClassifier(LogisticRegression()).fit(X, y, np.arange(10))
    nearest = ((X[:5, None] - X[5:]) ** 2).sum(axis=2).min(axis=1)
    ratio = model.distances_[:5] / model.distances_[0]
    np.testing.assert_allclose(ratio, nearest / nearest[0])


def test_without_groups_all_rows_take_part_and_a_warning_says_so(draw):
    X, y, _ = draw(*NAMES[:5])
    model = CommonSupportClassifier(LogisticRegression())
    match = "Got groups=None.*commonsupportclassifier__groups"
    with pytest.warns(UserWarning, match=match):
        model.fit(X, y)
    np.testing.assert_array_equal(
        model.estimator_.coef_, LogisticRegression().fit(X, y).coef_
    )


def test_a_pipeline_takes_the_groups_by_the_name_of_the_step(draw):
    X, y, which = draw(*NAMES[:5])
    chain = make_pipeline(
        StandardScaler(),
        CommonSupportClassifier(OrthogonalLinearDetector(2, random_state=0)),
    )
    chain.fit(X, y, commonsupportclassifier__groups=NAMES[which])
    assert chain[-1].kept_.tolist() == [True, True, False, True, True]


def test_groups_and_weights_of_kept_rows_are_routed_to_the_detector(draw, rng):
    X, y, which = draw(*NAMES[:5])
    weight = rng.random(len(y))
    with config_context(enable_metadata_routing=True):
        detector = RidgeClassifier().set_fit_request(sample_weight=True)
        chain = make_pipeline(SourceEraser(1), detector)
        model = CommonSupportClassifier(chain)
        model.fit(X, y, groups=NAMES[which], sample_weight=weight)
        kept = which != 2
        alone = chain.fit(
            X[kept], y[kept], groups=NAMES[which][kept], sample_weight=weight[kept]
        )
    np.testing.assert_array_equal(
        model.decision_function(X), alone.decision_function(X)
    )


def test_a_search_routes_the_groups_to_each_training_part(draw):
    X, y, which = draw(*NAMES)
    part = np.where(np.isin(which, [0, 3]), 0, 1)
    with config_context(enable_metadata_routing=True):
        search = GridSearchCV(
            make_pipeline(CommonSupportClassifier(LogisticRegression())),
            {"commonsupportclassifier__max_distance": [1, 2]},
            cv=[next(LeaveOneGroupOut().split(X, y, part))],
            scoring="roc_auc",
            error_score="raise",
        ).fit(X, y, groups=NAMES[which])
    # A warning, and so an error here, would say that a fit got no groups.
    assert search.cv_results_["mean_test_score"].shape == (2,)


def test_parameters_of_the_detector_need_routing(draw):
    X, y, which = draw(*NAMES)
    model = CommonSupportClassifier(LogisticRegression())
    with pytest.raises(ValueError, match="enable_metadata_routing=True"):
        model.fit(X, y, NAMES[which], sample_weight=np.ones(len(y)))


def test_methods_are_those_of_the_detector(draw):
    X, y, which = draw(*NAMES)
    ridge = CommonSupportClassifier(RidgeClassifier()).fit(X, y, NAMES[which])
    assert not hasattr(ridge, "predict_proba")
    logistic = CommonSupportClassifier(LogisticRegression()).fit(X, y, NAMES[which])
    np.testing.assert_array_equal(
        logistic.predict_proba(X), logistic.estimator_.predict_proba(X)
    )


def test_names_of_a_frame_are_noted(draw):
    X, y, which = draw(*NAMES)
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = CommonSupportClassifier(LogisticRegression()).fit(frame, y, NAMES[which])
    assert model.feature_names_in_.tolist() == list("abcd")
    np.testing.assert_array_equal(model.predict(frame), model.estimator_.predict(X))


def test_skops_reads_it_without_trusting_more_than_its_class(draw):
    X, y, which = draw(*NAMES)
    model = CommonSupportClassifier(RidgeClassifier()).fit(X, y, NAMES[which])
    saved = skops.io.dumps(model)
    path = "sklearn_clipsid._common_support.CommonSupportClassifier"
    assert skops.io.get_untrusted_types(data=saved) == [path]
    read = skops.io.loads(saved, trusted=[path])
    np.testing.assert_array_equal(read.decision_function(X), model.decision_function(X))


def test_one_class_is_refused(draw):
    X, y, which = draw("COCO", "RAISE")
    with pytest.raises(ValueError, match="Got y with 1 class, 0, but expected"):
        CommonSupportClassifier(LogisticRegression()).fit(X, y, NAMES[which])


@pytest.mark.filterwarnings("ignore:Got groups=None")
@pytest.mark.parametrize("groups", [NAMES, None])
def test_three_classes_are_refused(draw, groups):
    X, _, which = draw(*NAMES)
    groups = None if groups is None else groups[which]
    with pytest.raises(ValueError, match=r"Only binary classification.*multiclass"):
        CommonSupportClassifier(LogisticRegression()).fit(X, which % 3, groups)


def test_groups_that_do_not_fit_are_refused(draw):
    X, y, which = draw(*NAMES)
    model = CommonSupportClassifier(LogisticRegression())
    with pytest.raises(ValueError, match="Got groups with 359 rows but expected 360"):
        model.fit(X, y, NAMES[which][1:])
    with pytest.raises(ValueError, match=r"Got no value of groups for row\(s\) 7"):
        model.fit(X, y, np.where(np.arange(360) == 7, "", NAMES[which]))


@pytest.mark.parametrize("max_distance", [0.9, "far"])
def test_a_bad_distance_is_named(draw, max_distance):
    X, y, which = draw(*NAMES)
    model = CommonSupportClassifier(LogisticRegression(), max_distance=max_distance)
    with pytest.raises(ValueError, match="The 'max_distance' parameter"):
        model.fit(X, y, NAMES[which])


def test_rows_of_unreadable_images_are_refused_by_number(draw):
    X, y, which = draw(*NAMES)
    model = CommonSupportClassifier(LogisticRegression()).fit(X, y, NAMES[which])
    X[3] = np.nan
    for use in (lambda: model.fit(X, y, NAMES[which]), lambda: model.predict(X)):
        with pytest.raises(ValueError, match="Classifier contains NaN in 1 of 360"):
            use()
