import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from sklearn_clipsid import _cluster_bootstrap
from sklearn_clipsid._cluster_bootstrap import (
    Rankings,
    _Classes,
    _draw_twice,
    _inflation,
    bootstrap_generators,
    draw_counts,
    logit_interval,
)
from sklearn_clipsid._generator_rows import (
    arrange_generators,
    choose_negatives,
)

FAKE, REAL = 0, 1
NO_PAIR = -1


def one_generator(positive, pair=None):
    pair = np.full(len(positive), NO_PAIR) if pair is None else pair
    group = np.where(positive, FAKE, REAL)
    return arrange_generators(positive, ["GAN", "real"], group, pair, "shared")


def scored(rows, score, **kwargs):
    options = {"n_boot": 200, "level": 0.95, "random_state": 0} | kwargs
    return bootstrap_generators(rows, np.atleast_2d(score), **options)


# ---- scores


@pytest.mark.parametrize("n_distinct", [1, 3, 1_000_000])
def test_scores_under_weights_are_those_of_scikit_learn(rng, n_distinct):
    group = np.repeat([0, 1, 2], [15, 5, 20])
    positive = group < 2
    rows = arrange_generators(
        positive, ["a", "b", "real"], group, np.full(40, NO_PAIR), "shared"
    )
    for _ in range(30):
        score = rng.integers(0, n_distinct, 40).astype(float)
        weight = rng.poisson(1.0, size=(40, 5)).astype(float)
        weight[[0, 15, 20]] += 1
        result = Rankings(score, rows).score(weight[np.argsort(rows.cluster)])
        for j in range(2):
            of = (group == j) | ~positive
            expected = [
                [metric(positive[of], score[of], sample_weight=w[of]) for w in weight.T]
                for metric in (average_precision_score, roc_auc_score)
            ]
            np.testing.assert_allclose(result[:, j], expected, rtol=0, atol=1e-12)


def test_the_mean_comes_last_and_counts_each_generator_alike(rng):
    group = np.repeat([0, 1, 2], [30, 5, 40])
    positive = group < 2
    score = rng.normal(size=(2, 75)) + positive
    names, pair = ["FLUX", "GAN", "real"], np.full(75, NO_PAIR)
    rows = arrange_generators(positive, names, group, pair, "shared")
    result = scored(rows, score)
    assert rows.names == ["FLUX", "GAN"]
    np.testing.assert_allclose(rows.prevalence, [30 / 70, 5 / 45])
    for model in range(2):
        for g in range(2):
            ranked = (group == g) | ~positive
            expected = average_precision_score(positive[ranked], score[model, ranked])
            assert result.value[0, model, g] == pytest.approx(expected)
        np.testing.assert_allclose(
            result.value[:, model, 2], result.value[:, model, :2].mean(axis=1)
        )
    assert (result.low < result.value).all() and (result.value < result.high).all()


def test_means_are_over_the_generators_that_are_asked_for(rng):
    group = np.repeat([0, 1, 2, 3], [30, 5, 20, 40])
    score = rng.normal(size=95) + (group < 3)
    names, pair = ["a", "b", "c", "real"], np.full(95, NO_PAIR)
    rows = arrange_generators(group < 3, names, group, pair, "shared")
    means = [np.array([1]), np.array([0, 2]), np.array([0, 1, 2])]
    result = scored(rows, score, means=means)
    over_all = scored(rows, score)
    for part in ("value", "low", "high"):
        some, every = getattr(result, part), getattr(over_all, part)
        np.testing.assert_array_equal(some[..., [0, 2]], every[..., [1, 3]])
    np.testing.assert_allclose(
        result.value[..., 1], over_all.value[..., [0, 2]].mean(axis=-1)
    )


def test_a_mean_does_without_generators_that_a_draw_lacks(rng):
    # Of 30 pairs one holds the only image of "b", which a third of all draws lack.
    positive = np.tile([True, False], 30)
    group = np.where(positive, 0, 2)
    group[0] = 1
    rows = arrange_generators(
        positive, ["a", "b", "real"], group, np.repeat(np.arange(30), 2), "shared"
    )
    score = rng.normal(size=60) + positive
    both, alone = np.array([0, 1]), np.array([0])
    result = scored(rows, score, means=[both, alone])
    assert result.n_redrawn == 0 and np.isfinite([result.low, result.high]).all()
    assert scored(rows, score, means=[both, np.array([1])]).n_redrawn > 100
    without = scored(rows, score, means=[alone])
    np.testing.assert_array_equal(without.low[..., 0], result.low[..., 1])


def test_matched_photographs_are_those_of_the_group():
    group = np.array([0, 0, 1, 1])
    positive = np.array([True, False, True, False])
    assert choose_negatives(positive, group) == "matched"
    rows = arrange_generators(positive, ["a", "b"], group, group, "matched")
    assert [list(own) for own in rows.own] == [[0], [2]]
    assert [list(photographs) for photographs in rows.photographs] == [[1], [3]]
    group = np.array([0, 0, 1, 2])
    assert choose_negatives(positive, group) == "shared"
    with pytest.raises(ValueError, match="no photograph to rank the images of 'b'"):
        arrange_generators(positive, ["a", "b", "real"], group, group, "matched")


# ---- draws


def test_draws_take_whole_pairs_and_keep_the_number_of_single_images():
    # Three pairs of both classes, four single fakes and two single photographs.
    positive = np.array([True, False] * 3 + [True] * 4 + [False] * 2)
    pair = np.array([0, 0, 1, 1, 2, 2] + [NO_PAIR] * 6)
    rows = one_generator(positive, pair)
    counts = draw_counts(rows.stratum, 500, np.random.RandomState(0))
    weight = counts[:, rows.cluster]
    np.testing.assert_array_equal(weight[:, 0:6:2], weight[:, 1:6:2])
    for part, n in ((slice(0, 6, 2), 3), (slice(6, 10), 4), (slice(10, 12), 2)):
        assert (weight[:, part].sum(axis=1) == n).all()
        np.testing.assert_allclose(weight[:, part].mean(axis=0), 1, atol=0.15)


def test_draws_without_a_class_are_drawn_again_and_counted():
    # Two of six pairs hold an image of the generator: (4 / 6) ** 6 = 8.8 % lack it.
    positive = np.array([True, False, True, False, *[False] * 8])
    pair = np.repeat(np.arange(6), 2)
    group = np.where(positive, 0, 1)
    group[5::2] = 2  # a second generator keeps the other pairs in the same stratum
    positive[5::2] = True
    rows = arrange_generators(positive, ["a", "real", "z"], group, pair, "shared")
    result = scored(rows, np.arange(12.0), n_boot=4000)
    absent = (4 / 6) ** 6 + (2 / 6) ** 6
    assert result.n_redrawn == pytest.approx(4000 * absent / (1 - absent), rel=0.15)


def test_generators_that_most_draws_lack_are_an_error():
    # Each of 30 generators has one image in one pair: 1e-6 of the draws hold all.
    positive = np.array([True, False] * 30)
    group = np.where(positive, np.repeat(np.arange(30), 2), 30)
    names = [f"g{j:02}" for j in range(30)] + ["real"]
    pair = np.repeat(np.arange(30), 2)
    rows = arrange_generators(positive, names, group, pair, "shared")
    with pytest.raises(ValueError, match=r"without image of 'g\d\d'.*test on more"):
        scored(rows, np.arange(60.0))


def test_small_blocks_draw_as_large_ones_do(rng, monkeypatch):
    positive = np.tile([True, False], 50)
    score = rng.normal(size=100) + positive
    rows = one_generator(positive, np.repeat(np.arange(50), 2))
    expected = scored(rows, score, n_boot=3000)
    monkeypatch.setattr(_cluster_bootstrap, "BLOCK", 1)
    result = scored(rows, score, n_boot=3000)
    np.testing.assert_array_equal(result.value, expected.value)
    np.testing.assert_allclose(result.low, expected.low, rtol=0.02)
    np.testing.assert_array_equal(scored(rows, score, n_boot=3000).low, result.low)


def test_draws_of_draws_vary_less_by_as_much_as_draws_do():
    # A mean of 10 has a variance of 1 / 10, of draws .9 / 10, and of theirs .81 / 10.
    stratum, value = np.zeros(10, dtype=int), np.arange(10.0)
    counts = _draw_twice(stratum, 40_000, np.random.RandomState(0))
    assert (counts.sum(axis=2) == 10).all() and not counts[1][counts[0] == 0].any()
    draws, again = counts @ value / 10
    inflation = _inflation(draws, again, np.ones(40_000, dtype=bool))
    assert inflation == pytest.approx(10 / 9, rel=0.02)
    again[::2] = 1e6  # lack a class
    assert _inflation(draws, again, np.arange(40_000) % 2 == 1) == pytest.approx(
        10 / 9, rel=0.03
    )
    assert _inflation(draws, again, np.zeros(40_000, dtype=bool)) == 1


def test_all_models_are_scored_on_the_same_draws(rng):
    positive = np.tile([True, False], 20)
    score = rng.normal(size=40) + positive
    result = scored(one_generator(positive), np.stack([score, score]))
    np.testing.assert_array_equal(result.low[:, 0], result.low[:, 1])


# ---- intervals


def test_the_standard_error_is_that_of_delong(rng):
    positive = np.arange(400) < 150
    score = rng.normal(size=400) + positive
    wins = (score[positive][:, None] > score[~positive]).astype(float)
    expected = np.sqrt(
        wins.mean(axis=1).var(ddof=1) / 150 + wins.mean(axis=0).var(ddof=1) / 250
    )
    result = scored(one_generator(positive), score, n_boot=2000)
    value, low, high = (
        np.log(x / (1 - x))[1, 0, 0] for x in (result.value, result.low, result.high)
    )
    auc = result.value[1, 0, 0]
    reach = 1.976 * expected / (auc * (1 - auc))  # t with 149 degrees of freedom
    assert (high - value) == pytest.approx(reach, rel=0.06)
    assert (value - low) == pytest.approx(reach, rel=0.1)


def test_images_of_one_pair_are_not_counted_as_independent(rng):
    positive = np.tile([True, False], 100)
    score = rng.normal(size=200) + positive
    copies = np.repeat(np.arange(200), 4)
    clustered = scored(one_generator(positive[copies], copies), score[copies])
    single = scored(one_generator(positive), score)
    naive = scored(one_generator(positive[copies]), score[copies])
    width = [(r.high - r.low)[1, 0, 0] for r in (clustered, single, naive)]
    assert width[0] == pytest.approx(width[1], rel=0.15)
    assert width[2] == pytest.approx(width[1] / 2, rel=0.15)


def test_limits_follow_from_the_spread_of_the_draws():
    draws = 0.5 + 0.001 * norm.ppf(np.linspace(0, 1, 10_002)[1:-1])
    low, high = logit_interval(
        np.array([0.5]), draws[np.newaxis], np.array([10**9]), 0.9
    )
    reach = norm.ppf(0.95) * 0.001 / 0.25
    np.testing.assert_allclose(np.log(high / (1 - high)), reach, rtol=1e-2)
    np.testing.assert_allclose(low, 1 - high)


def test_skewed_draws_widen_the_side_that_they_warn_of():
    value, n_clusters = np.array([0.98]), np.array([10**9])
    draws = np.array([[0.96, 0.97, 0.98, 0.99, 1.0]])
    low, high = logit_interval(value, draws, n_clusters, 0.95)
    reach = [np.log(x / (1 - x)) for x in (low, value, high)]
    assert reach[1] - reach[0] > 1.2 * (reach[2] - reach[1])
    mirrored = logit_interval(1 - value, 1 - draws, n_clusters, 0.95)
    np.testing.assert_allclose(mirrored, (1 - high, 1 - low))


def test_draws_that_are_too_high_on_average_lower_the_lower_limit_only():
    spread = 0.01 * norm.ppf(np.linspace(0, 1, 1002)[1:-1])
    value, n_clusters = np.array([0.5]), np.array([10**9])
    (low, high), (low_of_high, _), (low_of_low, _) = (
        logit_interval(value, draws[np.newaxis], n_clusters, 0.95)
        for draws in (0.5 + spread, 0.51 + spread, 0.49 + spread)
    )
    assert low_of_high < low - 0.01
    np.testing.assert_allclose(low_of_low, low, atol=0.01)
    np.testing.assert_allclose(low, 1 - high)


def test_freedom_is_that_of_the_clusters_that_the_variance_comes_from():
    pair = np.repeat(np.arange(30), 2)
    n_clusters, freedom = _Classes(
        one_generator(pair * 0 + [1, 0] * 30 == 1, pair)
    ).count([0])
    assert (n_clusters, freedom) == (30, pytest.approx(29))
    for n_own, n_real in ((25, 25), (20, 1000)):
        rows = one_generator(np.arange(n_own + n_real) < n_own)
        n_clusters, freedom = _Classes(rows).count([0])
        expected = (1 / n_own + 1 / n_real) ** 2 / (1 / n_own**3 + 1 / n_real**3) - 1
        assert (n_clusters, freedom) == (n_own, pytest.approx(expected))
    # The mean over generators is as uncertain as the one with four images makes it.
    group = np.repeat([0, 1, 2], [4, 400, 10**5])
    rows = arrange_generators(
        group < 2, ["a", "b", "real"], group, np.full(len(group), NO_PAIR), "shared"
    )
    n_clusters, freedom = _Classes(rows).count([0, 1])
    assert n_clusters == 8
    assert freedom == pytest.approx(3, rel=0.05)


def test_a_perfect_ranking_is_not_certain():
    positive = np.arange(60) < 20
    result = scored(one_generator(positive), positive.astype(float))
    np.testing.assert_allclose(result.low, 0.025 ** (1 / 20))
    np.testing.assert_array_equal(result.high, 1)
    reverse = scored(one_generator(positive), -positive.astype(float))
    assert reverse.low[1, 0, 0] == 0
    assert reverse.high[1, 0, 0] == pytest.approx(1 - 0.025 ** (1 / 20))


def test_one_cluster_says_nothing_about_others():
    single = one_generator(np.arange(30) < 1)
    one_pair = one_generator(np.array([True, False]), np.array([0, 0]))
    for rows, score in ((single, np.arange(30.0)), (one_pair, np.array([1.0, 0.0]))):
        result = scored(rows, score)
        np.testing.assert_array_equal(result.low, 0)
        np.testing.assert_array_equal(result.high, 1)


def test_constant_scores_are_worth_the_prevalence():
    positive = np.arange(40) < 10
    result = scored(one_generator(positive), np.zeros(40))
    for limits in (result.value, result.low, result.high):
        np.testing.assert_allclose(limits[:, 0, 0], [0.25, 0.5])


def test_intervals_hold_the_truth_about_as_often_as_they_promise():
    rng = np.random.RandomState(0)
    positive = np.tile([True, False], 60)
    rows = one_generator(positive, np.repeat(np.arange(60), 2))
    covered = 0
    for seed in range(300):
        score = np.repeat(rng.normal(size=60), 2) + rng.normal(size=120) + 2 * positive
        result = scored(rows, score, random_state=seed)
        truth = norm.cdf(1)  # two normals of variance 2 that are 2 apart
        covered += result.low[1, 0, 0] <= truth <= result.high[1, 0, 0]
    assert 0.92 <= covered / 300 <= 0.98
