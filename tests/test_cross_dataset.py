import csv

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import Bunch

from sklearn_clipsid import _progress
from sklearn_clipsid.model_selection import (
    cross_dataset_validate,
    mean_average_precision_matrix,
)


def make_set(rng, generators, n_pairs, shift):
    """Photographs, each paired with one image of each generator."""
    group = np.array(["photos", *generators] * n_pairs)
    y = (group != "photos").astype(int)
    X = rng.normal(size=(len(y), 3)) + np.outer(y, shift)
    pair = np.repeat(
        [f"{generators[0]}{j}" for j in range(n_pairs)], 1 + len(generators)
    )
    order = rng.permutation(len(y))
    return Bunch(
        data=X[order], target=y[order], generator=group[order], pair_id=pair[order]
    )


@pytest.fixture
def datasets(rng):
    return {
        "GANs": make_set(rng, ["BigGAN", "ProGAN"], 60, [2, 0, 0]),
        "diffusion": make_set(rng, ["FLUX", "SD"], 40, [0, 1, 0]),
    }


def validate(datasets, estimator=None, **kwargs):
    options = {"n_boot": 50, "random_state": 0} | kwargs
    return cross_dataset_validate(
        LogisticRegression() if estimator is None else estimator, datasets, **options
    )


class SecondOfPath(ClassifierMixin, BaseEstimator):
    """Score a path by the number in its name, after any training."""

    def fit(self, X, y):
        assert all(isinstance(path, str) for path in X) and len(X) == len(y)
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, X):
        return np.array([float(path.split("_")[1]) for path in X])

    def predict(self, X):
        return self.classes_[(self.decision_function(X) > 0).astype(int)]


# ---- what the numbers are


def test_every_cell_is_trained_on_one_set_and_scored_by_generator(datasets):
    result = validate(datasets)
    assert result.train_names == ["GANs", "diffusion", "combined"]
    assert result.test_names == ["GANs", "diffusion"]
    table = pd.DataFrame(result.table).set_index(["train", "test", "generator"])
    assert len(table) == 3 * 2 * 2
    for trained in result.train_names:
        parts = [trained] if trained in datasets else list(datasets)
        rows = [result.train_indices[name] for name in parts]
        X = np.concatenate([datasets[n].data[r] for n, r in zip(parts, rows)])
        y = np.concatenate([datasets[n].target[r] for n, r in zip(parts, rows)])
        model = LogisticRegression().fit(X, y)
        for tested in result.test_names:
            one, rows = datasets[tested], result.test_indices[tested]
            score = model.decision_function(one.data[rows])
            for name in np.setdiff1d(one.generator, "photos"):
                ranked = np.isin(one.generator[rows], [name, "photos"])
                y, s = one.target[rows][ranked], score[ranked]
                line = table.loc[trained, tested, name]
                assert line["ap"] == pytest.approx(average_precision_score(y, s))
                assert line["auc"] == pytest.approx(roc_auc_score(y, s))
                assert line["ap_low"] < line["ap"] < line["ap_high"]
                assert line["n_synthetic"] == y.sum()
                assert line["n_real"] == (1 - y).sum()
                assert line["prevalence"] == y.mean()
                assert line["negatives"] == "shared"


def test_the_matrix_holds_the_means_over_generators(datasets):
    result = validate(datasets)
    frame = pd.DataFrame(result.table)
    means = frame.groupby(["train", "test"])[["ap", "auc", "prevalence"]].mean()
    for line in result.summary:
        expected = means.loc[line["train"], line["test"]]
        for field in ("ap", "auc", "prevalence"):
            assert line[field] == pytest.approx(expected[field])
        i = result.train_names.index(line["train"])
        j = result.test_names.index(line["test"])
        limits = result.low[i, j], result.matrix[i, j], result.high[i, j]
        assert limits == pytest.approx([line[f] for f in ("ap_low", "ap", "ap_high")])
    np.testing.assert_allclose(result.chance, 0.5)
    kinds = frame.drop_duplicates(["train", "test"])["kind"].tolist()
    assert kinds == (
        "in-domain cross-dataset cross-dataset in-domain combined combined".split()
    )


def test_random_scores_have_a_mean_average_precision_near_the_prevalence(rng):
    datasets = {}
    for name, n_fakes in {"few": 100, "many": 900}.items():
        y = np.repeat([0, 1], [1000, n_fakes])
        generator = np.where(y == 1, f"of {name}", "photos")
        data = rng.normal(size=(len(y), 2))
        datasets[name] = Bunch(data=data, target=y, generator=generator)
    result = validate(datasets, test_size=0.5)
    np.testing.assert_allclose(result.chance, [100 / 1100, 900 / 1900])
    np.testing.assert_allclose(
        result.matrix, np.broadcast_to(result.chance, (3, 2)), atol=0.05
    )
    assert (np.abs(result.summary["auc"] - 0.5) < 0.1).all()


def test_a_tree_that_knows_its_training_rows_by_heart_is_not_perfect_in_domain(rng):
    y = np.repeat([0, 1], 200)
    data = Bunch(data=rng.normal(size=(400, 3)), target=y, generator=y.astype(str))
    result = validate({"noise": data}, DecisionTreeClassifier(random_state=0))
    assert result.train_names == ["noise"]  # nothing to combine
    assert result.matrix[0, 0] < 0.65


@pytest.mark.oracle
def test_published_tables_make_the_published_matrix(oracles):
    path = oracles / "published" / "clipcues_per_generator_ap.csv"
    columns = {"train": [], "test": [], "generator": [], "ap": []}
    with path.open() as file:
        for row in csv.DictReader(file):
            for train in ("cnnspot", "synthbuster_plus", "synthclic", "combined"):
                values = train, row["test_corpus"], row["generator"]
                for column, value in zip(columns, (*values, row[f"ap_train_{train}"])):
                    columns[column].append(value)
    matrix, train_names, test_names = mean_average_precision_matrix(columns)
    assert train_names == ["cnnspot", "synthbuster_plus", "synthclic", "combined"]
    assert test_names == ["cnnspot", "synthbuster-plus", "synthclic"]
    published = [  # arXiv:2602.12381, matched linear probes
        [0.9640, 0.4962, 0.5214],
        [0.6692, 0.9952, 0.6112],
        [0.4222, 0.7940, 0.9239],
        [0.8799, 0.9761, 0.8670],
    ]
    np.testing.assert_allclose(matrix, published, rtol=0, atol=1e-4)


# ---- what is trained and tested on


def test_pairs_stay_in_one_part_of_every_size(datasets):
    result = validate(datasets)
    for name, one in datasets.items():
        train, test = result.train_indices[name], result.test_indices[name]
        assert sorted([*train, *test]) == list(range(len(one.target)))
        assert not set(one.pair_id[train]) & set(one.pair_id[test])
        assert len(test) == len(one.target) // 4


@pytest.mark.parametrize("as_paths", [False, True])
def test_photographs_of_two_sets_are_not_trained_on_in_one_and_tested_in_the_other(
    rng, as_paths
):
    photographs = rng.normal(size=(50, 2))
    datasets = {}
    for name in ("GAN", "SD"):
        data = np.concatenate([photographs, rng.normal(size=(50, 2)) + 1])
        if as_paths:
            data = [f"{i if i < 50 else name}_{x[0]}" for i, x in enumerate(data)]
        generator = np.repeat(["photos", name], 50)
        target = np.repeat([0, 1], 50)
        datasets[name] = Bunch(data=data, target=target, generator=generator)
    estimator = SecondOfPath() if as_paths else LogisticRegression()
    result = validate(datasets, estimator)
    trained, tested = (
        [set(part[name][part[name] < 50]) for name in datasets]
        for part in (result.train_indices, result.test_indices)
    )
    assert trained[0] == trained[1] and tested[0] == tested[1]
    assert not trained[0] & tested[0]
    # Together they hold 38 photographs, not twice 38, and 38 fakes of each generator.
    sizes = dict(zip(result.summary["train"], result.summary["n_train"]))
    assert sizes == {"GAN": 76, "SD": 76, "combined": 114}


def test_the_split_of_a_data_set_is_respected(datasets):
    one = datasets["GANs"]
    part = np.array([int(pair[6:]) for pair in one.pair_id])
    one.split = np.where(part < 30, "train", np.where(part < 40, "validation", "test"))
    result = validate(datasets)
    for indices, word in (
        (result.train_indices, "train"),
        (result.test_indices, "test"),
    ):
        np.testing.assert_array_equal(
            indices["GANs"], np.flatnonzero(one.split == word)
        )
    assert result.summary["n_train"].tolist() == [90, 90, 90, 90, 180, 180]


def test_equal_rows_of_two_pairs_are_dealt_together(rng):
    photographs = np.repeat(rng.normal(size=(20, 2)), 2, axis=0)  # each in two pairs
    fakes = rng.normal(size=(40, 2))
    one = Bunch(
        data=np.concatenate([photographs, fakes]),
        target=np.repeat([0, 1], 40),
        generator=np.repeat(["photos", "SD"], 40),
        pair_id=np.tile(np.arange(40), 2),
    )
    result = validate({"mine": one})
    motif = one.pair_id // 2
    tested = motif[result.test_indices["mine"]]
    assert sorted(np.bincount(tested, minlength=20)) == [0] * 15 + [4] * 5


def test_rows_are_dealt_as_the_split_of_another_data_set_has_them(datasets):
    one = datasets["GANs"]
    one.split = np.where(np.arange(180) < 90, "train", "test")
    one.pair_id = None
    same = np.arange(0, 180, 2)  # rows of the other data set, which has no split
    twin = {k: v[same] for k, v in one.items() if k in ("data", "target", "generator")}
    datasets["twin"] = Bunch(**twin)
    result = validate(datasets)
    np.testing.assert_array_equal(result.train_indices["twin"], np.arange(45))
    np.testing.assert_array_equal(result.test_indices["twin"], np.arange(45, 90))


def test_lists_and_frames_of_features_are_told_apart_by_their_rows(datasets):
    expected = validate(datasets)
    datasets["GANs"].data = datasets["GANs"].data.tolist()
    datasets["diffusion"].data = pd.DataFrame(datasets["diffusion"].data, dtype=object)
    result = validate(datasets)
    np.testing.assert_array_equal(result.table, expected.table)
    copy = Bunch(**datasets["GANs"])
    result = validate({"one": datasets["GANs"], "copy": copy}, combined=False)
    np.testing.assert_array_equal(
        result.test_indices["one"], result.test_indices["copy"]
    )


def test_cnnspot_groups_are_ranked_against_their_own_photographs(datasets, rng):
    y = np.tile([0, 1], 60)
    generator = np.repeat(["biggan", "deepfake"], 60)
    data = rng.normal(size=(120, 3))
    datasets["CNNSpot"] = Bunch(data=data, target=y, generator=generator)
    table = validate(datasets).table
    table = table[table["train"] == "GANs"]
    assert dict(zip(table["test"], table["negatives"])) == {
        "GANs": "shared",
        "diffusion": "shared",
        "CNNSpot": "matched",
    }
    matched = table[table["negatives"] == "matched"]
    assert matched["generator"].tolist() == ["biggan", "deepfake"]
    np.testing.assert_array_equal(matched["n_real"], [8, 8])  # a quarter of 30


def test_paths_go_through_the_pipeline_of_the_estimator(datasets):
    features = validate(datasets)
    lookup = {}
    for name, one in datasets.items():
        paths = [f"{name}/{i}.png" for i in range(len(one.data))]
        lookup.update(zip(paths, one.data))
        one.data = paths
    embed = FunctionTransformer(lambda paths: np.stack([lookup[p] for p in paths]))
    by_path = validate(datasets, make_pipeline(embed, LogisticRegression()))
    np.testing.assert_allclose(by_path.matrix, features.matrix)


def test_labels_may_be_words(datasets):
    expected = validate(datasets)
    for one in datasets.values():
        one.target = np.where(one.target == 1, "fake", "photo")  # "fake" sorts first
    result = validate(datasets, pos_label="fake")
    np.testing.assert_allclose(result.matrix, expected.matrix)
    for one in datasets.values():
        one.data = pd.DataFrame(one.data, columns=list("abc"))
        one.generator = pd.Series(one.generator)
    framed = validate(datasets, pos_label="fake")
    np.testing.assert_array_equal(framed.table, result.table)


def test_an_int_gives_the_same_result_with_any_number_of_jobs(datasets):
    expected = validate(datasets).table
    np.testing.assert_array_equal(validate(datasets).table, expected)
    np.testing.assert_array_equal(validate(datasets, n_jobs=2).table, expected)
    assert (validate(datasets, random_state=1).table["ap"] != expected["ap"]).any()
    plain = validate(datasets, combined=False)
    np.testing.assert_array_equal(plain.table, expected[: len(plain.table)])


def test_a_bar_appears_only_when_it_takes_long(datasets, capsys, monkeypatch):
    validate(datasets)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(_progress, "SECONDS_OF_SILENCE", 0)
    validate(datasets)
    assert "training sets" in capsys.readouterr().err


# ---- errors


ROWS = np.arange(360.0).reshape(120, 3)


def changed(datasets, **fields):
    datasets["diffusion"] = Bunch(**(datasets["diffusion"] | fields))
    return datasets


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target": np.repeat(["a", "b"], 60)}, "'diffusion': Got target .*pos_label"),
        ({"target": np.repeat([1, 2], 60)}, r"labels \[0, 1\] in data set 'GANs' and "),
        ({"target": np.ones(120)}, "'diffusion': Got synthetic images only"),
        ({"target": np.zeros(120)}, "'diffusion': Got target with the labels 0.0"),
        ({"target": np.ones(119)}, "'diffusion': Got target with 119 rows but exp"),
        ({"generator": None}, "'diffusion': Got no generator but expected a Bunch"),
        ({"generator": ["SD"] * 119}, "'diffusion': Got generator with 119 rows"),
        ({"generator": [["SD", "p"]] * 120}, "'diffusion': Got generator with two col"),
        ({"generator": [""] * 120}, r"'diffusion': Got no value .* row\(s\) 0, 1, 2"),
        ({"pair_id": ["p"] * 119}, "'diffusion': Got pair_id with 119 rows"),
        (
            {"pair_id": ["p"] * 120},
            "'diffusion': Got no image of .*'FLUX', 'SD' in the",
        ),
        (
            {"data": np.zeros((120, 2, 2))},
            r"'diffusion': Got data of shape \(120, 2, 2",
        ),
        (
            {"data": np.zeros(120)},
            r"'diffusion': Got data of shape \(120,\) and type",
        ),
        ({"data": "folder"}, r"'diffusion': Got data of type str \('folder'\) but exp"),
        ({"data": csr_array(np.eye(120))}, "'diffusion': Got data of type csr_array"),
        ({"data": []}, "'diffusion': Got no rows but expected some"),
        ({"data": ["a.png"] * 120}, "Got features in data set 'GANs' and paths or im"),
        ({"data": np.zeros((120, 4))}, "Got 3 features in data set 'GANs' and 4 in"),
        ({"data": np.diag([np.nan] * 120)[:, :3] + ROWS}, "'diffusion': Input X conta"),
        (
            {"split": ["train"] * 120},
            "'diffusion': Got split with the values .'train'.",
        ),
        ({"split": ["a", "test"] * 60}, "'diffusion': Got split with the values"),
    ],
)
def test_errors_name_the_data_set(datasets, fields, message):
    with pytest.raises(ValueError, match=message):
        validate(changed(datasets, **fields))


@pytest.mark.parametrize("wrong", [None, ([[0.0]], [1]), Bunch(generator=["SD"])])
def test_what_is_no_data_set_is_named(datasets, wrong):
    datasets["diffusion"] = wrong
    with pytest.raises(ValueError, match="'diffusion': Got no data and no target"):
        validate(datasets)


def test_a_generator_without_test_images_is_named(datasets):
    one = datasets["diffusion"]
    fields = {
        "split": np.where(one.generator == "SD", "train", "test"),
        "pair_id": None,
    }
    fields["split"][np.flatnonzero(one.generator == "photos")[:5]] = "train"
    with pytest.raises(
        ValueError, match=r"'diffusion': Got no image of .*'SD' in the t"
    ):
        validate(changed(datasets, **fields))


def test_training_on_one_class_is_refused(datasets):
    one = datasets["diffusion"]
    split = np.where(
        (one.generator == "SD") & (np.arange(120) % 2 == 0), "train", "test"
    )
    with pytest.raises(
        ValueError, match="'diffusion': Got a training part without both"
    ):
        validate(changed(datasets, split=split, pair_id=None))


def test_a_split_that_tests_on_training_rows_is_refused(datasets):
    twice = np.concatenate([datasets["GANs"].data[:5], datasets["diffusion"].data[5:]])
    split = np.where(np.arange(120) < 60, "test", "train")
    datasets["GANs"].split = np.where(np.arange(180) < 90, "train", "test")
    for one in datasets.values():
        one.pair_id = None
    message = r"Got 5 test rows .* of 'GANs' \(train\) and 'diffusion' \(test\)"
    with pytest.raises(ValueError, match=message):
        validate(changed(datasets, data=twice, split=split))


def test_a_split_that_tears_pairs_is_warned_of(datasets):
    split = np.where(np.arange(120) < 60, "test", "train")
    with pytest.warns(UserWarning, match="'diffusion', .* pairs stand in both parts"):
        validate(changed(datasets, split=split))


def test_splits_that_tear_pairs_between_data_sets_are_warned_of(datasets):
    for one in datasets.values():
        n = len(one.target)
        one.split = np.where(np.arange(n) < n // 2, "train", "test")
        one.pair_id = [""] * n
    datasets["GANs"].pair_id[0] = datasets["diffusion"].pair_id[-1] = "motif"
    with pytest.warns(UserWarning, match="'diffusion', 1 pairs stand"):
        validate(datasets)


def test_scores_that_are_no_numbers_name_both_sets(datasets):
    class Broken(LogisticRegression):
        def decision_function(self, X):
            return np.full(len(X), np.nan)

    message = r"scores of data set 'GANs' that are NaN .* training on 'GANs'"
    with pytest.raises(ValueError, match=message):
        validate(datasets, Broken())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_size": 1}, "Got test_size=1 but expected a number between"),
        ({"level": 95}, "Got level=95 but expected a number between"),
        ({"n_boot": 1}, "Got n_boot=1 but expected an integer of 2 or more"),
        ({"combined": "yes"}, "Got combined='yes' but expected True or False"),
    ],
)
def test_options_are_checked(datasets, options, message):
    with pytest.raises(ValueError, match=message):
        validate(datasets, **options)


def test_data_sets_come_by_name(datasets):
    for wrong in ({}, list(datasets.values())):
        with pytest.raises(ValueError, match="expected a dict with one or more"):
            validate(wrong)
    with pytest.raises(
        ValueError, match=r"Got the names \[1, '1'\] but expected names"
    ):
        validate(dict(zip((1, "1"), datasets.values())))
    datasets["combined"] = datasets.pop("GANs")
    with pytest.raises(ValueError, match="Got a data set called 'combined'"):
        validate(datasets)
    assert "combined" in validate(datasets, combined=False).train_names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ap": [0.5, np.nan]}, "Got ap=nan for train='a', test='b', generator='y'"),
        ({"ap": [0.5]}, "Got columns of different lengths"),
        ({"generator": ["x", "x"], "test": ["a", "a"]}, "Got generator 'x' twice"),
        ({"train": ["a", "b"]}, "Got no generator for train='a', test='b'"),
    ],
)
def test_tables_that_make_no_matrix_are_refused(change, message):
    table = {"train": "aa", "test": "ab", "generator": "xy", "ap": [0.5, 0.6]}
    table = {name: list(column) for name, column in table.items()} | change
    with pytest.raises(ValueError, match=message):
        mean_average_precision_matrix(table)
