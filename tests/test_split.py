import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import clone, config_context
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    LeaveOneGroupOut,
    cross_val_predict,
    cross_validate,
)

import sklearn_clipsid
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut

SAMPLE = Path(sklearn_clipsid.__file__).parent / "datasets/data/clip_vitb16_sample.npz"
GENERATORS = ["FLUX", "GAN", "SD", "imagen"]


@pytest.fixture
def unpaired(rng):
    """Four generators of 6 images each and 23 photographs of one source, shuffled."""
    groups = np.array(GENERATORS * 6 + ["real"] * 23)
    y = np.array([1] * 24 + [0] * 23)
    order = rng.permutation(len(y))
    return rng.normal(size=(len(y), 3)) + y[order, None], y[order], groups[order]


@pytest.fixture
def synthclic(rng):
    """Twenty photographs, each with one image of four generators and one pair id."""
    pair = np.repeat([f"p{j}" for j in range(20)], 5)
    groups = np.array(["real", *GENERATORS] * 20)
    y = (groups != "real").astype(int)
    order = rng.permutation(len(y))
    X = rng.normal(size=(len(y), 3)) + y[order, None]
    return X, y[order], groups[order], pair[order]


def splits(cv, y, groups, **kwargs):
    return list(cv.split(None, y, groups, **kwargs))


def assert_same_splits(one, other):
    assert len(one) == len(other)
    for (train, test), (other_train, other_test) in zip(one, other):
        np.testing.assert_array_equal(train, other_train)
        np.testing.assert_array_equal(test, other_test)


# ---- without pairs


def test_a_test_fold_is_one_generator_and_one_kfold_fold_of_the_photographs(unpaired):
    X, y, groups = unpaired
    photographs = np.flatnonzero(y == 0)
    folds = [
        photographs[test]
        for _, test in KFold(3, shuffle=True, random_state=7).split(photographs)
    ]
    cv = LeaveOneGeneratorOut(3, random_state=7)
    result = list(cv.split(X, y, groups))
    assert len(result) == cv.get_n_splits(X, y, groups) == 4
    for i, (train, test) in enumerate(result):
        fakes = np.flatnonzero(groups == GENERATORS[i])
        np.testing.assert_array_equal(test, np.sort(np.r_[fakes, folds[i % 3]]))
        np.testing.assert_array_equal(train, np.setdiff1d(np.arange(len(y)), test))


def test_whole_photo_sources_are_held_out_in_sorted_order():
    y = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0])
    groups = np.array(["c", "a", "b", "a", "RAISE", "COCO", "RAISE", "COCO", "RAISE"])
    tests = [set(groups[test]) for _, test in splits(LeaveOneGeneratorOut(), y, groups)]
    assert tests == [{"a", "COCO"}, {"b", "RAISE"}, {"c", "COCO"}]
    insisting = LeaveOneGeneratorOut(hold_out_real_source=True)
    assert_same_splits(
        splits(insisting, y, groups), splits(LeaveOneGeneratorOut(), y, groups)
    )


def test_sources_may_be_ignored():
    y = np.repeat([1, 0], 20)
    groups = np.array(["a", "b"] * 10 + ["COCO", "RAISE"] * 10)
    merged = np.where(y == 0, "real", groups)
    cv = LeaveOneGeneratorOut(hold_out_real_source=False)
    assert_same_splits(splits(cv, y, groups), splits(cv, y, merged))


def test_cnnspot_groups_of_both_labels_are_left_out_whole():
    groups = np.repeat(["biggan", "deepfake", "progan"], 4)
    y = np.tile([0, 1], 6)
    result = splits(LeaveOneGeneratorOut(), y, groups)
    assert_same_splits(result, list(LeaveOneGroupOut().split(y, y, groups)))


def test_the_same_seed_gives_the_same_splits(unpaired):
    _, y, groups = unpaired
    one = splits(LeaveOneGeneratorOut(random_state=3), y, groups)
    assert_same_splits(one, splits(LeaveOneGeneratorOut(random_state=3), y, groups))
    other = splits(LeaveOneGeneratorOut(random_state=4), y, groups)
    assert any(set(a[1]) != set(b[1]) for a, b in zip(one, other))


def test_text_and_boolean_labels_split_as_0_and_1_do(unpaired):
    _, y, groups = unpaired
    expected = splits(LeaveOneGeneratorOut(), y, groups)
    text = np.where(y == 1, "fake", "real")
    assert_same_splits(
        splits(LeaveOneGeneratorOut(pos_label="fake"), text, groups), expected
    )
    assert_same_splits(splits(LeaveOneGeneratorOut(), y == 1, groups), expected)
    assert_same_splits(splits(LeaveOneGeneratorOut(), list(y), groups), expected)


def test_generators_may_be_named_by_numbers(unpaired):
    _, y, groups = unpaired
    names, numbers = np.unique(groups, return_inverse=True)
    assert list(names) == [*GENERATORS, "real"]
    assert_same_splits(
        splits(LeaveOneGeneratorOut(), y, numbers),
        splits(LeaveOneGeneratorOut(), y, groups),
    )


def test_leave_one_group_out_has_one_class_in_each_test_fold_and_ours_has_two(unpaired):
    X, y, groups = unpaired
    for _, test in LeaveOneGroupOut().split(X, y, groups):
        assert len(np.unique(y[test])) == 1
    for train, test in LeaveOneGeneratorOut().split(X, y, groups):
        assert set(y[train]) == set(y[test]) == {0, 1}


# ---- with pairs


@pytest.mark.parametrize("n_real_folds", [2, 3, 5])
def test_no_pair_straddles_and_both_classes_stay_in_training(synthclic, n_real_folds):
    _, y, groups, pair = synthclic
    two_columns = np.column_stack([groups, pair])
    cv = LeaveOneGeneratorOut(n_real_folds)
    result = splits(cv, y, two_columns)
    assert len(result) == cv.get_n_splits(None, y, two_columns) == 4
    for i, (train, test) in enumerate(result):
        assert not set(pair[train]) & set(pair[test])
        assert set(y[train]) == set(y[test]) == {0, 1}
        assert GENERATORS[i] not in groups[train]
        # Each photograph in the test fold meets its own fake and no other.
        assert set(groups[test]) == {"real", GENERATORS[i]}
        assert np.sum(y[test] == 0) == np.sum(y[test] == 1)
        assert set(groups[train]) == {"real", *GENERATORS} - {GENERATORS[i]}
        assert len(train) == 4 * (20 - len(test) // 2)


def test_photographs_of_pairs_are_dealt_as_kfold_deals_them(synthclic):
    _, y, groups, pair = synthclic
    pairs = list(dict.fromkeys(pair[y == 0]))
    folds = KFold(5, shuffle=True, random_state=0).split(pairs)
    # Pairs are numbered as photographs first name them.
    for (_, test), (_, fold) in zip(
        splits(LeaveOneGeneratorOut(), y, groups, pair_id=pair), folds
    ):
        assert set(pair[test]) == {pairs[j] for j in fold}


def test_every_way_to_give_pairs_gives_the_same_splits(synthclic):
    _, y, groups, pair = synthclic
    cv = LeaveOneGeneratorOut()
    expected = splits(cv, y, np.column_stack([groups, pair]))
    frame = pd.DataFrame({"generator": groups, "pair": pair})
    for two_columns in (frame, frame.values.tolist(), list(zip(groups, pair))):
        assert_same_splits(splits(cv, y, two_columns), expected)
    for ids in (pair, list(pair), frame["pair"], frame[["pair"]].to_numpy()):
        assert_same_splits(splits(cv, y, groups, pair_id=ids), expected)
    assert_same_splits(
        splits(cv, pd.Series(y), frame["generator"], pair_id=frame["pair"]), expected
    )
    assert_same_splits(splits(cv, y, groups[:, None], pair_id=pair), expected)


@pytest.mark.parametrize(
    "pair_id",
    [
        [None] * 47,
        [""] * 47,
        [np.nan] * 47,
        np.full(47, np.nan),
        pd.Series([pd.NA] * 47),
        np.full(47, "nan"),
        list(range(47)),
    ],
    ids=["None", "empty", "nan", "float array", "NA", "text nan", "singles"],
)
def test_missing_and_single_pair_ids_are_no_pairs(unpaired, pair_id):
    _, y, groups = unpaired
    cv = LeaveOneGeneratorOut()
    assert_same_splits(splits(cv, y, groups, pair_id=pair_id), splits(cv, y, groups))


def test_nan_beside_text_in_a_list_makes_no_pair(unpaired):
    _, y, groups = unpaired
    cv = LeaveOneGeneratorOut()
    assert_same_splits(
        splits(cv, y, [[name, np.nan] for name in groups]), splits(cv, y, groups)
    )


def test_photographs_of_one_pair_share_a_fold():
    y = np.repeat([1, 0], [4, 24])
    groups = np.array(["a", "a", "b", "b"] + ["real"] * 24)
    burst = np.r_[np.full(4, -1.0), np.repeat(np.arange(8.0), 3)]
    burst[:4] = np.nan
    for train, test in splits(LeaveOneGeneratorOut(4), y, groups, pair_id=burst):
        assert not set(burst[train][y[train] == 0]) & set(burst[test][y[test] == 0])
        assert np.sum(y[test] == 0) == 6


def test_unpaired_fakes_are_tested_beside_paired_ones(synthclic):
    _, y, groups, pair = synthclic
    more = np.array(["SD", "SD", "imagen"])
    y, groups = np.append(y, [1, 1, 1]), np.append(groups, more)
    pair = np.append(pair, ["", "", "only once"])
    for i, (train, test) in enumerate(
        splits(LeaveOneGeneratorOut(), y, groups, pair_id=pair)
    ):
        unpaired_test = test[test >= 100]
        assert set(groups[unpaired_test]) == set(more) & {GENERATORS[i]}
        assert not set(unpaired_test) & set(train)
        assert set(range(100, 103)) == set(unpaired_test) | set(train[train >= 100])


def test_pairs_without_a_photograph_are_dealt_over_the_folds():
    prompt = np.tile([f"prompt {j}" for j in range(10)], 3)
    groups = np.array(np.repeat(["a", "b", "c"], 10).tolist() + ["real"] * 10)
    y = np.repeat([1, 0], [30, 10])
    pair = np.append(prompt, [""] * 10)
    tested = []
    for train, test in splits(LeaveOneGeneratorOut(5), y, groups, pair_id=pair):
        in_test = set(pair[test]) - {""}
        assert len(in_test) == 2
        assert not in_test & set(pair[train])
        tested.append(in_test)
    assert len(set.union(*tested)) == 6


def test_a_pair_over_two_photo_sources_belongs_to_both():
    y = np.array([1, 1, 1, 1, 0, 0, 0, 0])
    groups = np.array(["a", "a", "b", "b", "COCO", "COCO", "RAISE", "RAISE"])
    pair = np.array(["both", "", "both", "", "both", "", "both", ""])
    (train_a, test_a), (train_b, test_b) = splits(
        LeaveOneGeneratorOut(), y, groups, pair_id=pair
    )
    assert test_a.tolist() == [0, 1, 4, 5]
    assert train_a.tolist() == [3, 7]
    assert test_b.tolist() == [2, 3, 6, 7]
    assert train_b.tolist() == [1, 5]


# ---- inside scikit-learn


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("routing", [False, True])
def test_cross_validate_and_grid_search_take_groups(synthclic, columns, routing):
    X, y, groups, pair = synthclic
    if columns == 2:
        groups = np.column_stack([groups, pair])
    cv = LeaveOneGeneratorOut()
    expected = []
    for train, test in cv.split(X, y, groups):
        score = LogisticRegression().fit(X[train], y[train]).decision_function(X[test])
        expected.append(average_precision_score(y[test], score))
    kwargs = {"params": {"groups": groups}} if routing else {"groups": groups}
    with config_context(enable_metadata_routing=routing):
        result = cross_validate(
            LogisticRegression(), X, y, cv=cv, scoring="average_precision", **kwargs
        )
        search = GridSearchCV(
            LogisticRegression(), {"C": [0.1, 1]}, cv=cv, scoring="average_precision"
        ).fit(X, y, groups=groups)
    np.testing.assert_allclose(result["test_score"], expected)
    assert search.n_splits_ == 4
    np.testing.assert_allclose(
        [search.cv_results_[f"split{i}_test_score"][1] for i in range(4)], expected
    )


def test_pair_id_is_routed_beside_groups(synthclic):
    X, y, groups, pair = synthclic
    metadata = {"groups": groups, "pair_id": pair}
    expected = splits(LeaveOneGeneratorOut(), y, np.column_stack([groups, pair]))
    with config_context(enable_metadata_routing=True):
        result = cross_validate(
            LogisticRegression(),
            X,
            y,
            cv=LeaveOneGeneratorOut(),
            params=metadata,
            return_indices=True,
        )
        search = GridSearchCV(
            LogisticRegression(), {"C": [1.0]}, cv=LeaveOneGeneratorOut()
        ).fit(X, y, **metadata)
    indices = result["indices"]
    assert_same_splits(list(zip(indices["train"], indices["test"])), expected)
    assert search.best_score_ == pytest.approx(np.mean(result["test_score"]))


@pytest.mark.parametrize("routing", [False, True])
def test_cross_val_predict_refuses_overlapping_test_folds(unpaired, routing):
    X, y, groups = unpaired
    kwargs = {"params": {"groups": groups}} if routing else {"groups": groups}
    with (
        config_context(enable_metadata_routing=routing),
        pytest.raises(ValueError, match="only works for partitions"),
    ):
        cross_val_predict(
            LogisticRegression(), X, y, cv=LeaveOneGeneratorOut(3), **kwargs
        )


def test_as_many_unpaired_generators_as_real_folds_make_a_partition(unpaired):
    X, y, groups = unpaired
    tests = [test for _, test in LeaveOneGeneratorOut(4).split(X, y, groups)]
    assert sorted(np.concatenate(tests)) == list(range(len(y)))


def test_stacking_refuses_overlapping_test_folds(unpaired):
    X, y, groups = unpaired
    for cv, message in (
        (LeaveOneGeneratorOut(3), "Got groups=None"),
        (splits(LeaveOneGeneratorOut(3), y, groups), "only works for partitions"),
    ):
        stack = StackingClassifier([("lr", LogisticRegression())], cv=cv)
        with pytest.raises(ValueError, match=message):
            stack.fit(X, y)


def test_the_splitter_clones_pickles_and_prints():
    cv = LeaveOneGeneratorOut(3, hold_out_real_source=False, pos_label="fake")
    expected = (
        "LeaveOneGeneratorOut(every_real_fold=False, hold_out_real_source=False,\n"
        "           n_real_folds=3, pos_label='fake', random_state=0)"
    )
    for copy in (cv, clone(cv, safe=False), pickle.loads(pickle.dumps(cv))):
        assert repr(copy) == expected


# ---- errors


@pytest.mark.parametrize("value", [1, 0, 2.5, "5", True, None])
def test_n_real_folds_is_checked_when_splitting(unpaired, value):
    X, y, groups = unpaired
    cv = LeaveOneGeneratorOut(value)
    with pytest.raises(ValueError, match=r"Got n_real_folds=.* expected an integer"):
        cv.get_n_splits(X, y, groups)
    with pytest.raises(ValueError, match=r"Got n_real_folds=.* expected an integer"):
        next(cv.split(X, y, groups))


@pytest.mark.parametrize("value", ["always", 1, None])
def test_hold_out_real_source_is_checked_when_splitting(unpaired, value):
    _, y, groups = unpaired
    with pytest.raises(ValueError, match=r"Got hold_out_real_source=.*'auto', True or"):
        splits(LeaveOneGeneratorOut(hold_out_real_source=value), y, groups)


TOY_Y = [1, 1, 1, 0, 0, 0]
TOY_GROUPS = ["a", "a", "b", "real", "real", "real"]


@pytest.mark.parametrize(
    ("y", "groups", "message"),
    [
        (None, TOY_GROUPS, "Got y=None"),
        (TOY_Y, None, r"Got groups=None .*fit\(X, y, groups.*params=\{'groups'"),
        (TOY_Y, TOY_GROUPS[:5], "Got groups with 5 rows but expected 6"),
        (TOY_Y, np.zeros((6, 3)), r"Got groups of shape \(6, 3\)"),
        (TOY_Y, ["a", None, "b", "real", np.nan, ""], r"for row\(s\) 1, 4, 5 but"),
        (TOY_Y, ["a", "a", "b", 1, 1, 1], "types that cannot be sorted"),
        (TOY_Y, pd.Series(["a", "a", "b", "real", "real", pd.NA]), r"row\(s\) 5 but"),
        ([1, None, 1, 0, 0, 0], TOY_GROUPS, r"no value of y for row\(s\) 1 but"),
        ([1, 1, 2, 0, 0, 0], TOY_GROUPS, r"y with 3 labels \(0, 1, 2\)"),
        (
            ["fake"] * 3 + ["real"] * 3,
            TOY_GROUPS,
            "pos_label=1, .* pass pos_label='fake' or pos_label='real'",
        ),
        ([0] * 6, TOY_GROUPS, "labels 0 but expected rows with y == pos_label=1"),
        ([1] * 6, TOY_GROUPS, "Got synthetic images only"),
        (TOY_Y, ["a"] * 3 + ["real"] * 3, "Got images of 'a' only"),
        (TOY_Y, TOY_GROUPS, "Got 3 photographs .* n_real_folds=5; lower"),
    ],
)
def test_rows_that_cannot_be_split_are_refused(y, groups, message):
    with pytest.raises(ValueError, match=message):
        list(LeaveOneGeneratorOut().split(np.zeros((6, 2)), y, groups))


def test_labels_of_another_length_than_the_data_are_refused():
    with pytest.raises(ValueError, match="Got y with 6 rows but expected 7"):
        list(LeaveOneGeneratorOut().split(np.zeros((7, 2)), TOY_Y, TOY_GROUPS))


def test_many_rows_without_a_source_are_counted():
    groups = [None] * 30 + ["real"] * 10
    with pytest.raises(ValueError, match=r"8, 9, … \(30 in all\)"):
        splits(LeaveOneGeneratorOut(), [1] * 30 + [0] * 10, groups)


def test_held_out_sources_need_two_of_them(unpaired):
    _, y, groups = unpaired
    cv = LeaveOneGeneratorOut(hold_out_real_source=True)
    with pytest.raises(ValueError, match="Got photographs of one source"):
        splits(cv, y, groups)


def test_pair_ids_may_not_be_given_twice(synthclic):
    _, y, groups, pair = synthclic
    with pytest.raises(ValueError, match="Got pair ids twice"):
        splits(LeaveOneGeneratorOut(), y, np.column_stack([groups, pair]), pair_id=pair)


def test_pair_ids_of_another_length_are_refused(synthclic):
    _, y, groups, pair = synthclic
    with pytest.raises(ValueError, match="Got pair_id with 99 rows but expected 100"):
        splits(LeaveOneGeneratorOut(), y, groups, pair_id=pair[:-1])


def test_photographs_of_one_pair_count_once_against_n_real_folds(unpaired):
    _, y, groups = unpaired
    pair = np.where(y == 0, "one scene", "")
    with pytest.raises(ValueError, match="Got 1 photographs"):
        splits(LeaveOneGeneratorOut(), y, groups, pair_id=pair)


def test_a_generator_paired_with_one_source_is_tested_beside_that_source():
    # The only image of "b" is paired with COCO, though the turn of "b" is RAISE's.
    y = np.array([1, 1, 1, 1, 0, 0, 0, 0])
    groups = np.array(["a", "a", "b", "c", "COCO", "COCO", "RAISE", "RAISE"])
    pair = ["", "", "x", "", "x", "", "", ""]
    cv = LeaveOneGeneratorOut()
    tests = [test for _, test in cv.split(None, y, groups, pair_id=pair)]
    assert [sorted(set(groups[test])) for test in tests] == [
        ["COCO", "a"],
        ["COCO", "b"],
        ["COCO", "c"],
    ]


def test_every_real_fold_makes_all_pairs_of_generators_and_sources():
    y = np.repeat([1, 0], 6)
    groups = np.array(["a", "a", "b", "b", "c", "c", *["COCO"] * 3, *["RAISE"] * 3])
    cv = LeaveOneGeneratorOut(every_real_fold=True)
    result = splits(cv, y, groups)
    assert cv.get_n_splits(None, y, groups) == len(result) == 6
    pairs = [sorted(set(groups[test].tolist())) for _, test in result]
    assert pairs == [[s, g] for g in "abc" for s in ("COCO", "RAISE")]
    for (train, test), pair in zip(result, pairs):
        assert len(test) == 5 and not np.isin(groups[train], pair).any()
    one = splits(LeaveOneGeneratorOut(), y, groups)
    assert_same_splits(one, [result[0], result[3], result[4]])


def test_real_folds_that_a_generator_is_not_paired_with_are_left_out():
    # "b" is paired with COCO alone, "a" has no pairs.
    y = np.array([1, 1, 1, 1, 0, 0, 0, 0])
    groups = np.array(["a", "a", "b", "c", "COCO", "COCO", "RAISE", "RAISE"])
    pair = ["", "", "x", "", "x", "", "", ""]
    cv = LeaveOneGeneratorOut(every_real_fold=True)
    tests = [groups[test] for _, test in cv.split(None, y, groups, pair_id=pair)]
    assert [sorted(set(test.tolist())) for test in tests] == [
        ["COCO", "a"],
        ["RAISE", "a"],
        ["COCO", "b"],
        ["COCO", "c"],
        ["RAISE", "c"],
    ]


@pytest.mark.parametrize("value", ["all", 1, None])
def test_every_real_fold_is_checked_when_splitting(unpaired, value):
    _, y, groups = unpaired
    with pytest.raises(ValueError, match=r"Got every_real_fold=.* expected True or"):
        splits(LeaveOneGeneratorOut(every_real_fold=value), y, groups)


@pytest.mark.parametrize(
    ("groups", "pair", "missing"),
    [
        ("a b C C D D".split(), ["", "x", "x", "", "", ""], "fake"),
        ("a b C C D D".split(), ["", "", "x", "y", "x", "y"], "photograph"),
    ],
)
def test_training_on_one_class_is_refused(groups, pair, missing):
    y = [1, 1, 0, 0, 0, 0]
    with pytest.raises(ValueError, match=f"Got no {missing} to train on beside 'a'"):
        next(LeaveOneGeneratorOut().split(None, y, groups, pair_id=pair))


# ---- on real embeddings


@pytest.mark.parametrize(("hold_out", "auc"), [(False, 0.921), ("auto", 0.791)])
def test_random_photographs_flatter_a_logistic_regression(hold_out, auc):
    if not SAMPLE.exists():
        pytest.skip("the packaged sample is not here")
    with np.load(SAMPLE) as sample:
        X = sample["pooled"].astype(np.float32)
        y, groups = sample["target"], sample["generator"]
    X *= np.float32(32.95 / np.linalg.norm(X, axis=1).mean())
    # Single precision and a loose tolerance take a tenth of the time and move the
    # mean AUC by .001.
    model = LogisticRegression(C=0.01, tol=1e-2)
    scores = []
    cv = LeaveOneGeneratorOut(hold_out_real_source=hold_out)
    for train, test in cv.split(X, y, groups):
        score = model.fit(X[train], y[train]).decision_function(X[test])
        scores.append(roc_auc_score(y[test], score))
    assert np.mean(scores) == pytest.approx(auc, abs=0.01)
