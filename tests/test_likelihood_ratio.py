import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import log_loss

from sklearn_clipsid.metrics import (
    log_likelihood_ratio_cost,
    minimum_log_likelihood_ratio_cost,
)


@pytest.fixture
def ratios(rng):
    y = np.repeat([0, 1], [30, 10])
    return y, 2 * y - 1 + rng.normal(size=40)


def test_a_ratio_of_one_costs_one_bit_at_any_prevalence():
    assert log_likelihood_ratio_cost([0, 1, 1, 1], np.zeros(4)) == 1


def test_the_cost_is_log_loss_in_bits_with_classes_of_equal_weight(ratios):
    y, ratio = ratios
    weight = np.where(y == 1, 3.0, 1.0)  # 10 against 30 images
    expected = log_loss(y, expit(ratio), sample_weight=weight) / np.log(2)
    assert log_likelihood_ratio_cost(y, ratio) == pytest.approx(expected, rel=1e-12)


def test_certainty_costs_nothing_when_right_and_everything_when_wrong():
    y = [0, 0, 1]
    assert log_likelihood_ratio_cost(y, [-np.inf, -np.inf, np.inf]) == 0
    assert log_likelihood_ratio_cost(y, [-np.inf, np.inf, np.inf]) == np.inf


def test_weights_repeat_rows_and_zero_leaves_them_out(ratios):
    y, ratio = ratios
    times = np.arange(40) % 3
    for cost in (log_likelihood_ratio_cost, minimum_log_likelihood_ratio_cost):
        repeated = cost(np.repeat(y, times), np.repeat(ratio, times))
        assert cost(y, ratio, sample_weight=times) == pytest.approx(repeated, rel=1e-12)
    wrong = np.append(ratio, np.inf)
    weight = np.append(np.ones(40), 0)
    assert np.isfinite(
        log_likelihood_ratio_cost(np.append(y, 0), wrong, sample_weight=weight)
    )


def test_the_minimum_is_not_above_any_monotone_calibration(ratios, rng):
    y, score = ratios
    least = minimum_log_likelihood_ratio_cost(y, score)
    for _ in range(50):
        slope, shift = rng.exponential(), rng.normal()
        assert least <= log_likelihood_ratio_cost(y, slope * score + shift)
    assert minimum_log_likelihood_ratio_cost(y, np.exp(score)) == least


def test_the_minimum_of_two_pools_is_that_of_their_shares():
    # Half of the photographs and a quarter of the synthetic images score 0, the others
    # 1: the ratios are 1/2 and 3/2.
    y = [0, 0, 0, 0, 1, 1, 1, 1]
    score = [0, 0, 1, 1, 0, 1, 1, 1]
    ratio = np.log(np.where(score, 3 / 2, 1 / 2))
    expected = log_likelihood_ratio_cost(y, ratio)
    assert minimum_log_likelihood_ratio_cost(y, score) == pytest.approx(expected)


def test_scores_that_separate_or_say_nothing_have_the_extreme_minima():
    assert minimum_log_likelihood_ratio_cost([0, 0, 1], [-np.inf, 1, np.inf]) == 0
    assert minimum_log_likelihood_ratio_cost([0, 0, 1], [5, 5, 5]) == 1


@pytest.mark.parametrize(
    ("y", "ratio", "options", "message"),
    [
        ([0, 1], [0, np.nan], {}, r"that is NaN for row\(s\) 1 but expected numbers"),
        ([0, 1], [0], {}, "Got .* with 1 rows but expected 2"),
        ([0, 1], [[0, 1]], {}, r"Got .* of shape \(1, 2\)"),
        ([0, 1], [0, 1], {"sample_weight": [1, 0]}, "Got no synthetic image"),
        ([1, 1], [0, 1], {}, "Got no photograph"),
        ([0, 1], [0, 1], {"sample_weight": [1]}, "Got sample_weight with 1 rows"),
    ],
)
def test_what_cannot_be_judged_is_refused(y, ratio, options, message):
    for cost in (log_likelihood_ratio_cost, minimum_log_likelihood_ratio_cost):
        with pytest.raises(ValueError, match=message):
            cost(y, ratio, **options)
