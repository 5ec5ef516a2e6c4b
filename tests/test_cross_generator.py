import pickle

import numpy as np
import pytest
from sklearn import clone, config_context
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import cross_val_predict, cross_validate

from sklearn_clipsid.model_selection import CrossGeneratorSplit

GENERATORS = ["FLUX", "GAN", "SD"]


@pytest.fixture
def unpaired(rng):
    """Three generators of 20 images each and 40 photographs, shuffled."""
    groups = np.repeat([*GENERATORS, "real"], [20, 20, 20, 40])
    groups = rng.permutation(groups)
    y = (groups != "real").astype(int)
    return rng.normal(size=(100, 3)) + y[:, None], y, groups


@pytest.fixture
def synthclic(rng):
    """Twenty photographs, each with one image of three generators and one pair id."""
    pair = np.repeat([f"p{j}" for j in range(20)], 4)
    groups = np.array(["real", *GENERATORS] * 20)
    order = rng.permutation(80)
    y = (groups != "real").astype(int)
    X = rng.normal(size=(80, 3)) + y[order, None]
    return X, y[order], groups[order], pair[order]


def splits(cv, y, groups, **kwargs):
    return list(cv.split(None, y, groups, **kwargs))


def assert_same_splits(one, other):
    for (train, test), (other_train, other_test) in zip(one, other, strict=True):
        np.testing.assert_array_equal(train, other_train)
        np.testing.assert_array_equal(test, other_test)


def test_all_ordered_pairs_train_on_one_generator_and_test_on_the_other(unpaired):
    X, y, groups = unpaired
    cv = CrossGeneratorSplit()
    result = list(cv.split(X, y, groups))
    assert len(result) == cv.get_n_splits(X, y, groups) == 9
    for i, (train, test) in enumerate(result):
        assert set(groups[train]) == {GENERATORS[i // 3], "real"}
        assert set(groups[test]) == {GENERATORS[i % 3], "real"}
        assert not set(train) & set(test)
        assert (y[train].sum(), (1 - y[train]).sum()) == (15, 30)
        assert (y[test].sum(), (1 - y[test]).sum()) == (5, 10)


def test_a_row_shares_its_training_set_and_a_column_its_test_set(unpaired):
    _, y, groups = unpaired
    result = splits(CrossGeneratorSplit(), y, groups)
    for i in range(3):
        for j in range(3):
            np.testing.assert_array_equal(result[3 * i + j][0], result[3 * i][0])
            np.testing.assert_array_equal(result[3 * i + j][1], result[j][1])


def test_cnnspot_groups_bring_their_own_photographs():
    groups = np.repeat(["biggan", "deepfake", "progan"], 8)
    y = np.tile([0, 1], 12)
    names = ["biggan", "deepfake", "progan"]
    for i, (train, test) in enumerate(splits(CrossGeneratorSplit(), y, groups)):
        assert set(groups[train]) == {names[i // 3]}
        assert set(groups[test]) == {names[i % 3]}
        assert set(y[train]) == set(y[test]) == {0, 1}


def test_no_pair_is_in_both_parts(synthclic):
    _, y, groups, pair = synthclic
    for columns in ({}, {"pair_id": pair}):
        given = groups if columns else np.column_stack([groups, pair])
        result = splits(CrossGeneratorSplit(), y, given, **columns)
        trained = set(np.concatenate([pair[train] for train, _ in result]))
        tested = set(np.concatenate([pair[test] for _, test in result]))
        assert len(trained) == 15 and len(tested) == 5
        assert not trained & tested


def test_the_same_seed_gives_the_same_splits(unpaired):
    _, y, groups = unpaired
    one = splits(CrossGeneratorSplit(random_state=3), y, groups)
    assert_same_splits(one, splits(CrossGeneratorSplit(random_state=3), y, groups))
    other = splits(CrossGeneratorSplit(random_state=4), y, groups)
    assert any(set(a[1]) != set(b[1]) for a, b in zip(one, other))
    text = np.where(y == 1, "fake", "real")
    named = CrossGeneratorSplit(random_state=3, pos_label="fake")
    assert_same_splits(one, splits(named, text, groups))


@pytest.mark.parametrize("routing", [False, True])
def test_cross_validate_makes_a_matrix(synthclic, routing):
    X, y, groups, pair = synthclic
    cv = CrossGeneratorSplit()
    expected = []
    for train, test in cv.split(X, y, groups, pair_id=pair):
        score = LogisticRegression().fit(X[train], y[train]).decision_function(X[test])
        expected.append(average_precision_score(y[test], score))
    kwargs = {"groups": np.column_stack([groups, pair])}
    if routing:
        kwargs = {"params": {"groups": groups, "pair_id": pair}}
    with config_context(enable_metadata_routing=routing):
        result = cross_validate(
            LogisticRegression(), X, y, cv=cv, scoring="average_precision", **kwargs
        )
    matrix = result["test_score"].reshape(3, 3)
    np.testing.assert_allclose(matrix, np.reshape(expected, (3, 3)))


def test_cross_val_predict_refuses_repeated_test_folds(unpaired):
    X, y, groups = unpaired
    with pytest.raises(ValueError, match="only works for partitions"):
        cross_val_predict(
            LogisticRegression(), X, y, cv=CrossGeneratorSplit(), groups=groups
        )


def test_the_splitter_clones_pickles_and_prints():
    cv = CrossGeneratorSplit(0.5, pos_label="fake")
    for copy in (cv, clone(cv, safe=False), pickle.loads(pickle.dumps(cv))):
        assert (
            repr(copy).split()
            == (
                "CrossGeneratorSplit(pos_label='fake', random_state=0, test_size=0.5)"
            ).split()
        )


# ---- errors

Y = [1, 1, 1, 1, 0, 0]
GROUPS = ["a", "a", "b", "b", "real", "real"]


@pytest.mark.parametrize(
    ("y", "groups", "message"),
    [
        (None, GROUPS, "Got y=None"),
        (Y, None, "Got groups=None"),
        (Y, GROUPS[:5], "Got groups with 5 rows but expected 6"),
        (Y, ["a", "a", "b", None, "real", "real"], r"groups for row\(s\) 3 but"),
        ([1] * 6, GROUPS, "Got synthetic images only"),
        ([0] * 6, GROUPS, "labels 0 but expected rows with y == pos_label=1"),
        (Y, ["a"] * 4 + ["real"] * 2, "Got images of 'a' only .* two or more"),
        ([1, 1, 1, 0, 0, 0], ["a", "a", "b", *["real"] * 3], "no fake of 'b' to test"),
        (
            [1, 1, 1, 1, 1, 0],
            ["a", "a", "b", "b", "b", "real"],
            "no photograph for 'a'",
        ),
    ],
)
def test_rows_that_cannot_be_split_are_refused(y, groups, message):
    with pytest.raises(ValueError, match=message):
        splits(CrossGeneratorSplit(), y, groups)


@pytest.mark.parametrize("value", [0, 1, -0.5, "half", True, None])
def test_test_size_is_checked_when_splitting(value):
    with pytest.raises(ValueError, match=r"Got test_size=.* between 0 and 1"):
        CrossGeneratorSplit(value).get_n_splits(None, Y, GROUPS)


def test_labels_and_pairs_fit_the_rows():
    cv = CrossGeneratorSplit()
    with pytest.raises(ValueError, match="Got y with 6 rows but expected 7"):
        list(cv.split(np.zeros((7, 2)), Y, GROUPS))
    with pytest.raises(ValueError, match="Got pair_id with 5 rows but expected 6"):
        splits(cv, Y, GROUPS, pair_id=range(5))
    with pytest.raises(ValueError, match="Got pair ids twice"):
        splits(cv, Y, np.column_stack([GROUPS, range(6)]), pair_id=range(6))
