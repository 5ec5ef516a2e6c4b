import io

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    LeaveOneGroupOut,
    StratifiedKFold,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline

from sklearn_clipsid import ComponentEliminator
from sklearn_clipsid._backward_ridge import BackwardRidge, RidgeWithout
from sklearn_clipsid._nested_folds import NestedFold
from sklearn_clipsid.datasets import load_sample_embeddings
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut
from sklearn_clipsid.persistence import dump, load

NUISANCE = 4


def make_images(n=40, random_state=0):
    """Two coordinates tell all generators apart, the last tells some the wrong way."""
    rng = np.random.default_rng(random_state)
    groups = np.repeat(["GAN", "LDM", "SD", "VAE", "COCO", "RAISE"], n)
    y = np.isin(groups, ["GAN", "LDM", "SD", "VAE"]).astype(int)
    X = rng.normal(size=(len(y), NUISANCE + 1))
    X[:, :2] += 1.2 * y[:, None]
    X[:, NUISANCE] += np.select([groups == "GAN", groups == "LDM"], [9, -12])
    return X, y, groups


X, y, GROUPS = make_images()
N = len(y)


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def test_updates_give_what_a_refit_without_the_component_gives():
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(20, 20))
    A, V = rng.normal(size=(200, 20)) @ mixed, rng.normal(size=(50, 20)) @ mixed
    labels, labels_v = rng.random(200) < 0.6, rng.random(50) < 0.4
    penalty = 0.3
    updated = RidgeWithout(A, labels, V, labels_v, penalty)
    left = np.arange(20)

    def refit_scores(columns):
        ridge = Ridge(alpha=penalty * len(A), solver="cholesky")
        ridge.fit(A[:, columns], np.where(labels, 1, -1))
        return V[:, columns] @ ridge.coef_ - A[:, columns].mean(axis=0) @ ridge.coef_

    for worst in rng.permutation(20)[:15]:
        expected = np.array([refit_scores(left[left != one]) for one in left])
        got = updated.scores_without_each(left)
        assert np.abs(got - expected).max() < 1e-8
        np.testing.assert_allclose(
            updated.auc_without_each(left),
            [roc_auc_score(labels_v, one) for one in expected],
            atol=1e-12,
        )
        updated.remove(worst)
        left = left[left != worst]
        assert np.abs(updated.scores - refit_scores(left)).max() < 1e-8


def test_each_step_removes_what_leaves_the_highest_mean_auc():
    task = BackwardRidge(X, y == 1, 0.3)
    splits = list(LeaveOneGeneratorOut().split(X, y, GROUPS))

    def mean_auc(columns):
        return np.mean([task.ridge(split, columns).auc() for split in splits])

    left, expected = list(range(X.shape[1])), []
    for _ in range(3):
        worst = max(left, key=lambda one: mean_auc([j for j in left if j != one]))
        left.remove(worst)
        expected.append(worst)
    order, path = task.eliminate(splits, 3)
    assert order.tolist() == expected
    assert path[-1] == pytest.approx(mean_auc(left), abs=1e-12)
    continued, _ = task.eliminate(splits, 2, known=order[:1])
    assert continued.tolist() == expected[1:]


def test_labels_of_a_fold_have_no_say_in_what_is_removed_for_it():
    (train, test), *_ = LeaveOneGeneratorOut().split(X, y, GROUPS)
    inner = LeaveOneGeneratorOut().split(train, y[train], GROUPS[train])
    fold = NestedFold(train, test, [(train[one], train[two]) for one, two in inner])
    flipped = np.where(np.isin(np.arange(N), test), y == 0, y == 1)
    order, path = BackwardRidge(X, y == 1, 0.3).check(fold, 3, [])
    order_flipped, path_flipped = BackwardRidge(X, flipped, 0.3).check(fold, 3, [])
    np.testing.assert_array_equal(order, order_flipped)
    np.testing.assert_allclose(path, 1 - np.array(path_flipped), atol=1e-12)


def test_the_coordinate_that_misleads_is_removed():
    eliminator = ComponentEliminator().fit(X, y, GROUPS)
    assert eliminator.removed_[0] == NUISANCE
    assert eliminator.support_[:2].all()
    np.testing.assert_array_equal(
        np.flatnonzero(~eliminator.support_), np.sort(eliminator.removed_)
    )
    np.testing.assert_array_equal(eliminator.transform(X), X[:, eliminator.support_])
    assert eliminator.score_path_[1] > eliminator.score_path_[0] + 0.1
    assert len(eliminator.selection_path_) == len(eliminator.removed_) + 1


def test_the_principal_component_that_misleads_is_taken_out_of_the_rows():
    Q = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]
    rotated = X @ Q + 7
    eliminator = ComponentEliminator("principal").fit(rotated, y, GROUPS)
    assert eliminator.removed_[0] == 0  # it has the largest variance
    direction = eliminator.removed_components_[0]
    assert abs(direction @ Q[NUISANCE]) > 0.99
    left = eliminator.transform(rotated)
    assert left.shape == rotated.shape
    np.testing.assert_allclose(left.mean(axis=0), rotated.mean(axis=0), atol=1e-12)
    assert np.ptp(left @ direction) < 1e-12
    np.testing.assert_allclose(eliminator.transform(left), left, atol=1e-12)
    R = eliminator.removed_components_
    np.testing.assert_allclose(R @ R.T, np.eye(len(R)), atol=1e-12)
    taken = rotated - left  # lies in the span of the removed components
    np.testing.assert_allclose(taken @ R.T @ R, taken, atol=1e-12)


def test_nothing_is_removed_where_all_coordinates_help():
    rng = np.random.default_rng(0)
    informed = rng.normal(size=(N, 3)) + y[:, None]
    eliminator = ComponentEliminator().fit(informed, y, GROUPS)
    assert eliminator.support_.all()
    assert len(eliminator.removed_) == 0
    assert eliminator.score_path_.argmax() == 0
    np.testing.assert_array_equal(eliminator.transform(informed), informed)
    kept = ComponentEliminator("principal", max_removed=0).fit(informed, y, GROUPS)
    np.testing.assert_array_equal(kept.transform(informed), informed)


@pytest.mark.parametrize("basis", ["coordinates", "principal"])
def test_shuffled_labels_cannot_be_told_apart(basis):
    sample = load_sample_embeddings(features="projected")
    rng = np.random.default_rng(0)
    names = np.unique(sample.generator[sample.target == 1])[:6]
    few = (sample.target == 0) | np.isin(sample.generator, names)
    features = sample.data[rng.permutation(np.flatnonzero(few)), :40]
    target, groups = sample.target[few], sample.generator[few]
    folds = list(LeaveOneGeneratorOut().split(features, target, groups))
    eliminator = ComponentEliminator(basis, tol=0, max_removed=8)
    pipeline = make_pipeline(eliminator, LogisticRegression())
    auc = cross_val_score(
        pipeline,
        *(features, target),
        cv=folds,
        scoring="roc_auc",
        params={"componenteliminator__groups": groups},
    )
    assert abs(auc.mean() - 0.5) < 0.05
    eliminator.fit(features, target, groups)
    assert abs(eliminator.score_path_ - 0.5).max() < 0.05
    # The scores that chose would have said something else.
    task = BackwardRidge(features - features.mean(axis=0), target == 1, 1e-4)
    chosen_by = task.eliminate(folds, 20)[1]
    assert chosen_by[-1] > chosen_by[0] + 0.05


def test_the_search_ends_patience_steps_after_the_last_gain():
    eliminator = ComponentEliminator(patience=2).fit(X, y, GROUPS)
    n_removed = len(eliminator.removed_)
    assert len(eliminator.score_path_) == min(n_removed + 2, 4) + 1
    in_one_round = ComponentEliminator(patience=4).fit(X, y, GROUPS)
    n_same = len(eliminator.score_path_)
    np.testing.assert_allclose(
        in_one_round.score_path_[:n_same], eliminator.score_path_, atol=1e-12
    )


@pytest.mark.parametrize("most", [0, 1])
def test_no_more_than_max_removed_are_removed(most):
    eliminator = ComponentEliminator(max_removed=most).fit(X, y, GROUPS)
    assert len(eliminator.removed_) == most == len(eliminator.score_path_) - 1


def test_one_component_is_always_kept():
    noise = np.random.default_rng(0).normal(size=(N, 3))
    eliminator = ComponentEliminator(tol=0, patience=5).fit(noise, y, GROUPS)
    assert len(eliminator.score_path_) == 3
    assert eliminator.support_.any()


def test_the_scale_of_the_features_does_not_matter():
    paths = [
        ComponentEliminator().fit(scale * X + shift, y, GROUPS).score_path_
        for scale, shift in ((1, 0), (1000, 0), (1, 30))
    ]
    np.testing.assert_allclose(paths[1], paths[0], atol=1e-9)
    np.testing.assert_allclose(paths[2], paths[0], atol=1e-9)


def test_threads_change_nothing():
    alone, two = (ComponentEliminator(n_jobs=n).fit(X, y, GROUPS) for n in (None, 2))
    np.testing.assert_array_equal(alone.score_path_, two.score_path_)
    np.testing.assert_array_equal(alone.removed_, two.removed_)


def test_labels_may_be_words():
    words = np.where(y == 1, "fake", "real")
    eliminator = ComponentEliminator(pos_label="fake").fit(X, words, GROUPS.tolist())
    expected = ComponentEliminator().fit(X, y, GROUPS)
    np.testing.assert_array_equal(eliminator.score_path_, expected.score_path_)


def test_without_groups_folds_are_stratified():
    with pytest.warns(UserWarning, match="Got groups=None.*componenteliminator__gro"):
        eliminator = ComponentEliminator().fit(X, y)
    given = ComponentEliminator(cv=StratifiedKFold(5)).fit(X, y)
    np.testing.assert_array_equal(eliminator.score_path_, given.score_path_)


def test_pair_ids_may_stand_in_a_second_column():
    motif = np.arange(N) % 40  # one image of each generator, and one photograph
    has_none = GROUPS == np.where(motif < 20, "RAISE", "COCO")
    both = np.column_stack([GROUPS, np.where(has_none, "", motif.astype(str))])
    eliminator = ComponentEliminator().fit(X, y, both)
    paired = LeaveOneGeneratorOut().split(X, y, both)
    task = BackwardRidge(X, y == 1, 0.3 * X.var(axis=0).mean())
    expected = np.mean([task.ridge(split).auc() for split in paired])
    assert eliminator.score_path_[0] == pytest.approx(expected, abs=1e-12)


def test_groups_pass_through_pipelines():
    pipeline = make_pipeline(ComponentEliminator(), LogisticRegression())
    pipeline.fit(X, y, componenteliminator__groups=GROUPS)
    alone = ComponentEliminator().fit(X, y, GROUPS)
    np.testing.assert_array_equal(pipeline[0].removed_, alone.removed_)


@pytest.mark.usefixtures("routing")
def test_groups_are_routed_to_the_eliminator_and_the_splits():
    pipeline = make_pipeline(ComponentEliminator(), LogisticRegression())
    search = GridSearchCV(
        pipeline,
        {"componenteliminator__max_removed": [0, 1]},
        scoring="roc_auc",
        cv=LeaveOneGeneratorOut(),
    ).fit(X, y, groups=GROUPS)
    assert search.best_params_ == {"componenteliminator__max_removed": 1}
    assert search.best_estimator_[0].removed_.tolist() == [NUISANCE]


def test_names_are_those_of_the_features_that_are_left():
    frame = pd.DataFrame(X, columns=list("abcde"))
    fitted = ComponentEliminator(max_removed=1).set_output(transform="pandas")
    fitted.fit(frame, y, GROUPS)
    pd.testing.assert_frame_equal(fitted.transform(frame), frame[list("abcd")])
    fitted.set_params(basis="principal").fit(frame, y, GROUPS)
    assert fitted.transform(frame).columns.tolist() == list("abcde")


@pytest.mark.parametrize("basis", ["coordinates", "principal"])
@pytest.mark.parametrize("cv", [None, LeaveOneGeneratorOut(3)], ids=["", "cv"])
def test_it_is_saved_and_loaded_without_its_splitter(basis, cv):
    eliminator = ComponentEliminator(basis, cv=cv)
    pipeline = make_pipeline(eliminator, LogisticRegression())
    pipeline.fit(X, y, componenteliminator__groups=GROUPS)
    file = io.BytesIO()
    dump(pipeline, file)
    same = load(io.BytesIO(file.getvalue()))
    np.testing.assert_array_equal(same.predict_proba(X), pipeline.predict_proba(X))
    assert same[0].cv is None and pipeline[0].cv is cv


TWO = np.isin(GROUPS, ["GAN", "LDM", "COCO", "RAISE"])
WITH_NAN = np.where(np.arange(N)[:, None] == 7, np.nan, X)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((X, y, GROUPS[:-1]), f"Got groups with {N - 1} rows but expected {N}"),
        ((X, y, np.append(GROUPS[:-1], "")), f"no value of groups for .* {N - 1}"),
        ((X[TWO], y[TWO], GROUPS[TWO]), "'GAN', 'LDM' alone but expected three"),
        ((X, y, np.repeat("one", N)), "'one' alone but expected three or more"),
        ((X, np.ones(N), GROUPS), r"labels \[1.0\], one class, but expected"),
        ((X, np.arange(N) % 3, GROUPS), "Only binary classification is supported"),
        ((WITH_NAN, y, GROUPS), "NaN in 1 of 240 rows: 7"),
        ((np.ones_like(X), y, GROUPS), "240 rows of X that are all equal"),
        ((X[156:162], y[156:162], None), "Got 2 row.* of the rarer class"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rows_that_will_not_do_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        ComponentEliminator().fit(*rows)


def test_folds_of_one_class_are_refused():
    with pytest.raises(ValueError, match="validation part of split 0 holds 0 synth"):
        ComponentEliminator(cv=LeaveOneGroupOut()).fit(X, y, GROUPS)


def test_rows_too_few_for_folds_inside_folds_say_where():
    few = (y == 1) | (np.arange(N) % 10 == 0)
    groups = np.where(y == 1, GROUPS, "real")
    with pytest.raises(ValueError, match="fold 0 that ComponentEliminator can"):
        ComponentEliminator(cv=LeaveOneGeneratorOut(8)).fit(X[few], y[few], groups[few])
    cv = LeaveOneGeneratorOut(2)
    ComponentEliminator(cv=cv).fit(X[few], y[few], groups[few])


def test_unreadable_rows_are_refused_after_fitting_too():
    with pytest.raises(ValueError, match="NaN in 1 of 240 rows: 7"):
        ComponentEliminator().fit(X, y, GROUPS).transform(WITH_NAN)


@pytest.mark.parametrize(
    "parameter",
    [{"basis": "pca"}, {"max_removed": -1}, {"patience": 0}, {"alpha": 0}, {"cv": 5}],
    ids=str,
)
def test_a_bad_parameter_is_named(parameter):
    with pytest.raises(ValueError, match=f"The '{next(iter(parameter))}' parameter"):
        ComponentEliminator(**parameter).fit(X, y, GROUPS)
