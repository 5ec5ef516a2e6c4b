import csv

import numpy as np
import pytest
import torch

from sklearn_clipsid import OrthogonalLinearDetector
from sklearn_clipsid.datasets import load_sample_embeddings
from sklearn_clipsid.inspection import name_components

NAMES = ["grain", "blur", "tint"]
DIRECTIONS = np.array([[3.0, 0, 0, 0], [0, 0.5, 0, 0], [1, 1, 0, 0]])
POLES = [["grainy", "smooth"], ["blurred", "sharp"], ["tinted", "neutral"]]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_names_are_ranked_by_the_absolute_cosine():
    R = np.array([[0, -5.0, 0, 0], [2, 1, 0, 2]])
    found = name_components(R, DIRECTIONS, NAMES, top=3)
    cosines = unit(R) @ unit(DIRECTIONS).T
    np.testing.assert_allclose(found.cosines, cosines)
    assert found.table["name"].tolist() == [
        ["blur", "tint", "grain"],
        ["tint", "grain", "blur"],
    ]
    np.testing.assert_allclose(found.table["cosine"][0], [-1, -np.sqrt(0.5), 0])
    np.testing.assert_allclose(
        found.table["cosine"][1], [np.sqrt(0.5), 2 / 3, 1 / 3], atol=1e-12
    )


def test_the_pole_is_the_one_that_the_component_points_to():
    R = np.array([[-4.0, 1, 0, 0]])
    found = name_components(R, DIRECTIONS, NAMES, poles=POLES, top=2)
    assert found.table["pole"].tolist() == [["smooth", "neutral"]]
    plain = name_components(R, DIRECTIONS, NAMES, top=3)
    assert plain.table["pole"].tolist() == [["-grain", "-tint", "+blur"]]


def test_signs_turn_components_to_synthetic(rng):
    R = rng.standard_normal((3, 4))
    signs = [1, -1, -1.0]
    turned = name_components(R, DIRECTIONS, NAMES, poles=POLES, signs=signs)
    by_hand = name_components(
        R * np.reshape(signs, (3, 1)), DIRECTIONS, NAMES, poles=POLES
    )
    np.testing.assert_array_equal(turned.table, by_hand.table)
    assert not np.array_equal(
        turned.cosines, name_components(R, DIRECTIONS, NAMES).cosines
    )


def test_learned_axes_turn_with_the_signs_of_their_weights():
    X, y = load_sample_embeddings(return_X_y=True)
    detector = OrthogonalLinearDetector(n_components=4, random_state=0).fit(X, y)
    activations = detector.transform(X)
    gaps = activations[y == 1].mean(axis=0) - activations[y == 0].mean(axis=0)
    signs = np.sign(detector.activation_weights_[0])
    towards = unit(X[y == 1].mean(axis=0) - X[y == 0].mean(axis=0, keepdims=True))
    found = name_components(detector.components_, towards, ["gap"], signs=signs)
    np.testing.assert_array_equal(np.sign(found.cosines[:, 0]), signs * np.sign(gaps))
    coef = name_components(detector.coef_, towards, ["gap"])
    assert coef.table["pole"].tolist() == [["+gap"]]


def test_components_go_through_the_projection_as_embeddings_do(rng):
    P = rng.standard_normal((9, 4))
    component = rng.standard_normal(9)
    found = name_components(component, DIRECTIONS, NAMES, P)
    np.testing.assert_allclose(
        found.cosines[0],
        unit(DIRECTIONS) @ P.T @ component / np.linalg.norm(component @ P),
    )
    # The component that is made of a direction has its name.
    made_of = DIRECTIONS[[2, 0]] @ np.linalg.pinv(P)
    found = name_components(made_of, DIRECTIONS, NAMES, P, top=1)
    assert found.table["name"].tolist() == [["tint"], ["grain"]]
    np.testing.assert_allclose(found.table["cosine"], 1)


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_only_directions_count(factor, rng):
    R, P = rng.standard_normal((2, 5)), rng.standard_normal((5, 4))
    found = name_components(R, DIRECTIONS, NAMES, P)
    scaled = name_components(factor * R, factor * DIRECTIONS, NAMES, factor * P)
    np.testing.assert_allclose(scaled.cosines, found.cosines)


def test_one_component_is_a_table_of_one_row(rng):
    r = rng.standard_normal(4)
    one, row = (name_components(R, DIRECTIONS, NAMES, top=2) for R in (r, r[None]))
    np.testing.assert_array_equal(one.table, row.table)
    assert one.table.shape == one.above_chance.shape == (1, 2)
    assert name_components(r, DIRECTIONS, NAMES, top=9).table.shape == (1, 3)


def test_chance_is_the_level_of_random_components(rng):
    T = rng.standard_normal((50, 64))
    R = rng.standard_normal((5000, 64))
    found = name_components(R, T, [f"word {j}" for j in range(50)], top=1)
    assert 1 - found.above_chance.mean() == pytest.approx(0.95, abs=0.015)
    np.testing.assert_array_equal(
        found.above_chance, np.abs(found.table["cosine"]) > found.chance
    )


def test_chance_has_its_closed_form_in_one_two_and_three_dimensions():
    def chance(n_directions, n_features):
        T = np.arange(1.0, 1 + n_directions * n_features).reshape(n_directions, -1)
        names = [f"word {j}" for j in range(n_directions)]
        return name_components(np.ones(n_features), T, names).chance

    assert chance(2, 1) == 1  # cosines are 1 or -1
    assert chance(1, 2) == pytest.approx(np.cos(0.05 * np.pi / 2))  # even angles
    assert chance(1, 3) == pytest.approx(0.95)  # even heights on a sphere
    assert chance(40, 3) == pytest.approx(0.95 ** (1 / 40))


@pytest.mark.oracle
def test_heads_of_pooled_features_are_not_compared_with_texts(oracles):
    folder = oracles / "clip_cues"
    T = np.load(folder / "antonym_direction_embeddings_vitl14_336.npy")
    with (folder / "antonyms.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [row["attribute_name"] for row in rows]
    state = torch.load(folder / "clip_orthogonal_synthclic.ckpt", weights_only=True)
    (W1,) = (
        tensor.double().numpy()
        for key, tensor in state["state_dict"].items()
        if key.endswith("layers.0.weight")
    )
    message = (
        "width 1,024 and directions of width 768 .* 1,024 pooled features, the "
        r"directions in the 768-d joint space .* cannot be compared\. Pass "
        r"projection=embedder\.projection\(\)"
    )
    with pytest.raises(ValueError, match=message):
        name_components(W1, T, names)
    projection = np.random.default_rng(0).standard_normal((1024, 768))
    poles = [[row["positive"], row["negative"]] for row in rows]
    found = name_components(W1, T, names, projection, poles=poles)
    assert found.table.shape == (8, 5)
    assert found.chance == pytest.approx(0.13, abs=0.01)


def replaced(row, value):
    rows = np.arange(12.0).reshape(3, 4)
    rows[row] = value
    return rows


R = replaced(0, 1.0)
P = np.eye(4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((replaced(1, np.nan), DIRECTIONS, NAMES), "infinity in components, in row 1"),
        ((replaced([0, 2], 0), DIRECTIONS, NAMES), "zero in rows 0, 2 .* Canonical"),
        ((np.ones((1, 1, 4)), DIRECTIONS, NAMES), "dim 3"),
        ((R, replaced(1, np.inf), NAMES), r"infinity in directions, in row 1 \(blur\)"),
        ((R, replaced(2, 0), NAMES), r"directions that are zero in row 2 \(tint\)"),
        ((R, DIRECTIONS, None), "names=None but expected a name for each"),
        ((R, DIRECTIONS, NAMES[:2]), "Got 2 names for 3 rows of directions"),
        ((R, DIRECTIONS, ["a", "b", "a"]), "'a' twice, in rows 0 and 2 of names"),
        ((R, DIRECTIONS, ["a", "", "c"]), r"Got names\[1\] = ''"),
        ((R[:, :3], DIRECTIONS, NAMES), "components of width 3 .* of width 4"),
        ((R[:, :3], DIRECTIONS, NAMES, np.ones((4, 3))), r"\(4, 3\) .* \(3, 4\)"),
        ((R, DIRECTIONS, NAMES, np.full((4, 4), np.nan)), "projection contains NaN"),
        ((R, DIRECTIONS, NAMES, P * 0), "projection takes to zero, in rows 0, 1, 2"),
        (([[1, -1, 0, 0]], DIRECTIONS, NAMES, np.ones((4, 4))), "to zero, in row 0"),
    ],
)
def test_what_is_wrong_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        name_components(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"poles": POLES[:2]}, r"poles of shape \(2, 2\) but expected \(3, 2\)"),
        ({"poles": NAMES}, r"poles of shape \(3,\)"),
        ({"poles": [*POLES[:2], ["a", None]]}, r"\['a', None\] in row 2 \(tint\)"),
        ({"signs": [1, 1]}, r"signs of shape \(2,\) but expected \(3,\)"),
        ({"signs": [1, 0, -2]}, r"1 and -1 \(row 1 has 0, row 2 has -2\)"),
        ({"top": 0}, "The 'top' parameter"),
    ],
)
def test_what_is_wrong_with_an_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        name_components(R, DIRECTIONS, NAMES, **options)


def test_axes_of_zeros_are_named():
    X = np.random.default_rng(0).standard_normal((40, 1)) * np.ones(4)
    axes = OrthogonalLinearDetector(3, axes="canonical", random_state=0).fit(
        X, (X[:, 0] > 0).astype(int)
    )
    with pytest.raises(ValueError, match="zero in row"):
        name_components(axes.components_, DIRECTIONS, NAMES)


def test_the_table_makes_a_frame():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(name_components(R, DIRECTIONS, NAMES).table[0])
    assert frame.columns.tolist() == ["name", "pole", "cosine"]
