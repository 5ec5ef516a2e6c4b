import numpy as np
import pytest
from scipy.stats import false_discovery_control, linregress

from sklearn_clipsid.inspection import _cue_profile, cue_profile

NAMES = ["grain", "blur", "tint"]
DIRECTIONS = np.array([[3.0, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0.1]])
FIELDS = ["r_real", "r_synthetic", "r", "partial_r", "low", "high", "p_value"]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def images(rng):
    """Scores, embeddings and labels of 90 images whose logit follows the first cue."""
    X, y = rng.standard_normal((90, 5)) + 0.3, np.arange(90) % 3 % 2
    z = unit(X)[:, 0] * np.where(y, 2, 1) + 3 * y + 0.4 * rng.standard_normal(90)
    return z, X, y


def few(*arguments, **options):
    """A profile of few draws, for what does not depend on them."""
    return cue_profile(*arguments, **{"n_boot": 20, "random_state": 0} | options)


def test_r_is_the_correlation_within_each_class_and_their_mean(images):
    z, X, y = images
    table = few(z, X, y, DIRECTIONS, NAMES).table
    assert table["name"].tolist() == NAMES
    cues = unit(X) @ unit(DIRECTIONS).T
    for j, row in enumerate(table):
        real, synthetic = (
            np.corrcoef(z[y == label], cues[y == label, j])[0, 1] for label in (0, 1)
        )
        assert row["r_real"] == pytest.approx(real)
        assert row["r_synthetic"] == pytest.approx(synthetic)
        assert row["r"] == pytest.approx((real + synthetic) / 2)


def test_a_gap_between_the_classes_is_no_correlation(rng):
    X, y = rng.standard_normal((2000, 5)), np.arange(2000) % 2
    X[:, 0] += 6 * y
    z = 10 * y + rng.standard_normal(2000)
    table = few(z, X, y, DIRECTIONS, NAMES).table
    assert np.corrcoef(z, unit(X)[:, 0])[0, 1] > 0.8
    assert abs(table["r"][0]) < 0.1


def test_partial_r_is_the_correlation_of_residuals(images, monkeypatch):
    z, X, y = images
    monkeypatch.setattr(_cue_profile, "RIDGE", 0)
    table = few(z, X, y, DIRECTIONS[:2], NAMES[:2]).table
    cues = unit(X) @ unit(DIRECTIONS).T
    expected = []
    for label in (0, 1):
        z_class, (one, other) = z[y == label], cues[y == label, :2].T
        pair = []
        for cue, held in ((one, other), (other, one)):
            left = [v - linregress(held, v).slope * held for v in (z_class, cue)]
            pair.append(np.corrcoef(*left)[0, 1])
        expected.append(pair)
    np.testing.assert_allclose(table["partial_r"], np.mean(expected, axis=0))


def test_the_ridge_shrinks_the_partial_r_of_a_single_cue(images):
    table = few(*images, DIRECTIONS[:1], NAMES[:1]).table
    assert table["partial_r"][0] == pytest.approx(table["r"][0] / 1.001)


def test_cues_that_say_the_same_share_their_partial_r(rng):
    X, y = rng.standard_normal((600, 5)), np.arange(600) % 2
    z = unit(X)[:, 0] + 0.1 * rng.standard_normal(600)
    table = few(z, X, y, DIRECTIONS[[0, 1, 0]], NAMES).table
    assert table["r"][0] == pytest.approx(table["r"][2])
    assert table["partial_r"][0] == pytest.approx(table["partial_r"][2])
    alone = few(z, X, y, DIRECTIONS[:2], NAMES[:2]).table
    assert 0 < table["partial_r"][0] < 0.8 * alone["partial_r"][0]


def naive_draws(z, X, y, clusters, n_boot, n_random, seed):
    """The same draws, and a correlation of the rows that each one has."""
    random_state = np.random.RandomState(seed)
    random = random_state.standard_normal((n_random, X.shape[1]))
    cues, draws, n_redrawn = unit(X) @ unit(DIRECTIONS).T, [], 0
    values = list(dict.fromkeys(clusters))
    while len(draws) < n_boot:
        drawn = random_state.randint(len(values), size=len(values))
        rows = np.concatenate([np.flatnonzero(clusters == values[g]) for g in drawn])
        own = [rows[y[rows] == label] for label in (0, 1)]
        if any(len(np.unique(z[r])) < 2 for r in own):
            n_redrawn += 1
            continue
        r = [[np.corrcoef(z[r], c[r])[0, 1] for c in cues.T] for r in own]
        draws.append(np.mean(r, axis=0))
    return np.array(draws), n_redrawn, unit(random)


@pytest.mark.parametrize("n_rows", [90, 14])
@pytest.mark.parametrize("block", [2**22, 60])
def test_the_bootstrap_is_a_loop_over_draws_of_groups(
    images, n_rows, block, monkeypatch
):
    z, X, y = (array[:n_rows] for array in images)
    motif = np.array([f"motif {j // 2}" for j in range(n_rows)])
    monkeypatch.setattr(_cue_profile, "BLOCK", block)
    options = {"n_boot": 200, "n_random": 7, "random_state": 3, "level": 0.8}
    profile = cue_profile(z, X, y, DIRECTIONS, NAMES, groups=motif, **options)
    draws, n_redrawn, random = naive_draws(z, X, y, motif, 200, 7, 3)
    assert profile.n_redrawn == n_redrawn
    assert (n_redrawn > 0) == (n_rows == 14)
    low, high = np.quantile(draws, [0.1, 0.9], axis=0)
    np.testing.assert_allclose(profile.table["low"], low, atol=1e-12)
    np.testing.assert_allclose(profile.table["high"], high, atol=1e-12)
    p = 2 * np.minimum((draws < 0).mean(axis=0), (draws > 0).mean(axis=0))
    p = np.clip(p, 1 / 200, 1)
    np.testing.assert_allclose(profile.table["p_value"], p)
    np.testing.assert_allclose(profile.table["p_adjusted"], false_discovery_control(p))
    r = np.mean(
        [
            [np.corrcoef(z[y == k], c[y == k])[0, 1] for c in (unit(X) @ random.T).T]
            for k in (0, 1)
        ],
        axis=0,
    )
    assert profile.floor == pytest.approx(np.quantile(np.abs(r), 0.95))
    np.testing.assert_array_equal(
        profile.table["above_floor"], np.abs(profile.table["r"]) > profile.floor
    )


def test_copies_of_an_image_are_no_evidence(images):
    z, X, y = images
    once = few(z, X, y, DIRECTIONS, NAMES, n_boot=300).table
    copied = [np.repeat(array, 4, axis=0) for array in images]
    options = {"n_boot": 300, "groups": np.repeat(np.arange(90), 4)}
    together = few(*copied, DIRECTIONS, NAMES, **options).table
    for field in FIELDS:
        np.testing.assert_allclose(together[field], once[field], atol=1e-9)
    apart = few(*copied, DIRECTIONS, NAMES, n_boot=300).table
    width = (apart["high"] - apart["low"]) / (once["high"] - once["low"])
    assert (width < 0.65).all()  # about one half


def test_images_without_a_group_are_groups_of_their_own(images):
    z, X, y = images
    named = [None if j % 2 else f"motif {j // 4}" for j in range(90)]
    numbered = [f"alone {j}" if j % 2 else f"motif {j // 4}" for j in range(90)]
    one, other = (
        few(z, X, y, DIRECTIONS, NAMES, groups=groups, n_boot=400).table
        for groups in (named, numbered)
    )
    for bound in ("low", "high"):  # of other draws: motifs are numbered first
        np.testing.assert_allclose(one[bound], other[bound], atol=0.08)


def test_of_noise_as_much_is_significant_as_the_level_says():
    rng = np.random.default_rng(5)
    p_values, n_found = [], 0
    for seed in range(12):
        X, y = rng.standard_normal((300, 64)), np.arange(300) % 2
        table = cue_profile(
            rng.standard_normal(300), X, y, np.eye(64)[:50], random_state=seed
        ).table
        p_values += table["p_value"].tolist()
        n_found += (table["p_adjusted"] < 0.05).sum()
    assert 0.03 < np.mean(np.array(p_values) < 0.05) < 0.08
    assert n_found <= 3


def test_a_cue_that_moves_the_score_is_found_among_others(rng):
    X, y = rng.standard_normal((400, 64)), np.arange(400) % 2
    z = X[:, 3] + 0.5 * X[:, 7] + rng.standard_normal(400)
    profile = cue_profile(z, X, y, np.eye(64)[:20], random_state=0)
    table = profile.table
    found = ["direction3", "direction7"]
    assert table["name"][table["above_floor"]].tolist() == found
    assert (table["p_adjusted"][[3, 7]] < 0.01).all()
    assert 0.1 < profile.floor < 0.25
    assert ((table["low"] < table["r"]) & (table["r"] < table["high"])).all()


def test_only_directions_of_images_and_cues_count(images, rng):
    z, X, y = images
    table = few(z, X, y, DIRECTIONS, NAMES).table
    scaled = few(
        5 - 3e20 * z,
        X * np.geomspace(1e-30, 1e30, 90)[:, None],
        y,
        1e-20 * DIRECTIONS,
        NAMES,
    ).table
    np.testing.assert_allclose(scaled["r"], -table["r"])
    np.testing.assert_allclose(scaled["low"], -table["high"], atol=1e-9)


def test_the_same_seed_gives_the_same_profile(images):
    one, same, other = (
        few(*images, DIRECTIONS, NAMES, random_state=seed) for seed in (1, 1, 2)
    )
    assert one.table.tobytes() == same.table.tobytes()
    assert one.floor == same.floor != other.floor
    assert (one.table["low"] != other.table["low"]).any()
    np.testing.assert_array_equal(one.table["r"], other.table["r"])


def test_labels_may_be_words(images):
    z, X, y = images
    words = np.array(["photograph", "synthetic"])[y]
    named = few(z, X, words, DIRECTIONS, NAMES, pos_label="synthetic")
    assert named.table.tobytes() == few(z, X, y, DIRECTIONS, NAMES).table.tobytes()


def test_half_precision_is_taken(images):
    z, X, y = images
    half = few(z, X.astype(np.float16), y, DIRECTIONS, NAMES).table
    exact = few(z, X, y, DIRECTIONS, NAMES).table
    np.testing.assert_allclose(half["r"], exact["r"], atol=1e-2)


def test_the_inputs_stay_as_they_are(images):
    kept = [array.copy() for array in images]
    few(*images, DIRECTIONS, NAMES)
    for array, copy in zip(images, kept):
        np.testing.assert_array_equal(array, copy)


def changed(array, row, value):
    array = np.array(array, dtype=float)
    array[row] = value
    return array


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z, X, y: (z, X, 0 * y), "expected rows with y_true == pos_label=1"),
        (lambda z, X, y: (z, X, 0 * y + 1), "label 1 alone but expected photographs"),
        (lambda z, X, y: (z, X, np.arange(90) % 3), "y_true with 3 labels"),
        (lambda z, X, y: (z[1:], X, y), "y_score with 89 rows but expected 90"),
        (lambda z, X, y: (z, X[1:], y), "X with 89 rows but expected 90"),
        (lambda z, X, y: (changed(z, [3, 5], np.nan), X, y), r"y_score, in .* 3, 5,"),
        (
            lambda z, X, y: (z, changed(X, 4, np.inf), y),
            r"infinity in X, in row\(s\) 4",
        ),
        (lambda z, X, y: (z, changed(X, 4, 0), y), r"X of zeros in row\(s\) 4 but"),
        (lambda z, X, y: (z * y, X, y), "vary within the 60 photographs"),
        (lambda z, X, y: (z * (1 - y), X, y), "vary within the 30 synthetic images"),
        (lambda z, X, y: (0 * z + 0.1, X, y), "y_score that does not vary"),
        (
            lambda z, X, y: (z, np.where([1, 1, 1, 1, 0], X, 0), y),
            r"directions whose cue .* such as row 2 \(tint\)",
        ),
        (
            lambda z, X, y: (z[:3], X[:3], y[:3] * [1, 1, 0]),
            "vary within the 1 synthetic",
        ),
        (
            lambda z, X, y: (z[:4], X[:4], [0, 0, 1, 1]),
            r"\d+ bootstrap draws .* too few groups \(4\)",
        ),
    ],
)
def test_images_that_have_no_profile_are_refused(images, change, message):
    with pytest.raises(ValueError, match=message):
        few(*change(*images), DIRECTIONS, NAMES)


@pytest.mark.parametrize(
    ("directions", "names", "message"),
    [
        (DIRECTIONS[:, :4], NAMES, "directions of other widths .*row 0 has 4"),
        (changed(DIRECTIONS, 1, np.nan), NAMES, r"in directions, in row 1 \(blur\)"),
        (changed(DIRECTIONS, 1, 0), None, r"are zero in row 1 \(direction1\)"),
        (DIRECTIONS, ["a", "b", "a"], "'a' twice, in rows 0 and 2 of names"),
        (DIRECTIONS, NAMES[:2], "Got 2 names for 3 rows of directions"),
    ],
)
def test_what_is_wrong_with_the_cues_is_named(images, directions, names, message):
    with pytest.raises(ValueError, match=message):
        few(*images, directions, names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": ["same"] * 90}, "groups with one value but expected several"),
        ({"groups": ["a", "b"]}, "with 2 rows but expected 90"),
        ({"n_boot": 0}, "The 'n_boot' parameter"),
        ({"n_random": 0}, "The 'n_random' parameter"),
        ({"level": 1.0}, "The 'level' parameter"),
        ({"random_state": "a"}, "The 'random_state' parameter"),
    ],
)
def test_what_is_wrong_with_an_option_is_named(images, options, message):
    with pytest.raises(ValueError, match=message):
        few(*images, DIRECTIONS, NAMES, **options)


def test_the_table_makes_a_frame(images):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(few(*images, DIRECTIONS, NAMES).table)
    assert frame.columns.tolist() == [
        "name",
        *FIELDS,
        "p_adjusted",
        "above_floor",
    ]
