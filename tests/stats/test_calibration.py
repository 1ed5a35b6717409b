import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.calibration import calibration_curve

from keel.core.errors import DataError
from keel.stats.calibration import TEMPERATURE_BOUNDS, expected_calibration_error, fit_temperature, reliability_bins
from keel.stats.intervals import wilson


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def drawn(n=4000, temperature=1.0, seed=0):
    """Logits, and labels drawn from sigmoid(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=n)
    return logits, (rng.random(n) < sigmoid(logits / temperature)).astype(float)


def test_bins_and_error_of_an_example_done_by_hand():
    # Bin [.5, 1]: .6 and .8 predicted, 1 and 0 seen: gap |.7 - .5|. Bin [0, .5): .2 predicted, 1 seen: gap .8.
    bins = reliability_bins([0.6, 0.8, 0.2], [1, 0, 1], bins=2)
    assert [(b.low, b.high, b.count) for b in bins] == [(0.0, 0.5, 1), (0.5, 1.0, 2)]
    assert [b.mean_probability for b in bins] == pytest.approx([0.2, 0.7])
    assert [b.mean_label for b in bins] == pytest.approx([1.0, 0.5])
    assert (bins[1].label_low, bins[1].label_high) == wilson(1, 2)
    assert expected_calibration_error([0.6, 0.8, 0.2], [1, 0, 1], bins=2) == pytest.approx((2 * 0.2 + 0.8) / 3)


def test_bins_equal_scikit_learn():
    logits, labels = drawn()
    seen, predicted = calibration_curve(labels, sigmoid(logits), n_bins=10)
    bins = reliability_bins(sigmoid(logits), labels)
    assert [b.mean_label for b in bins] == pytest.approx(seen)
    assert [b.mean_probability for b in bins] == pytest.approx(predicted)


def test_edges_fall_into_the_first_and_last_bin():
    bins = reliability_bins([0.0, 1.0], [0, 1])
    assert [(b.low, b.count) for b in bins] == [(0.0, 1), (0.9, 1)]


def test_error_is_zero_for_a_perfect_and_one_for_a_perfectly_wrong_model():
    assert expected_calibration_error([0.0, 1.0], [0, 1]) == 0
    assert expected_calibration_error([0.0, 1.0], [1, 0]) == 1


def test_soft_labels_count_as_they_are():
    assert expected_calibration_error([0.5, 0.5], [0.5, 0.5]) == 0


def test_calibrated_model_has_a_small_error_and_an_overconfident_one_a_large():
    logits, labels = drawn(20_000)
    assert expected_calibration_error(sigmoid(logits), labels) < 0.4 * np.sqrt(10 / 20_000)
    assert expected_calibration_error(sigmoid(3 * logits), labels) > 0.08


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_temperature_is_recovered_within_two_percent_and_calibrates(temperature):
    logits, labels = drawn(200_000, temperature)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.02)
    assert expected_calibration_error(sigmoid(logits / found), labels) < 0.01


def test_temperature_equals_a_general_minimiser_also_with_soft_labels():
    logits, labels = drawn(500)
    soft = 0.9 * labels + 0.05

    def loss(log_t):
        z = logits / np.exp(log_t)
        return np.sum(np.logaddexp(0, z) - soft * z)

    expected = np.exp(minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-10}).x)
    assert fit_temperature(logits, soft) == pytest.approx(expected, rel=1e-5)


def test_temperature_without_an_optimum_stops_at_the_bounds():
    assert fit_temperature([-1.0, 2.0], [0, 1]) == pytest.approx(TEMPERATURE_BOUNDS[0])
    assert fit_temperature([-1.0, 2.0], [1, 0]) == pytest.approx(TEMPERATURE_BOUNDS[1])


@pytest.mark.parametrize(
    ("probabilities", "labels", "named"),
    [
        ([0.5, 1.2], [0, 1], "Item 2 has the probability 1.2"),
        ([0.5, np.nan], [0, 1], "Item 2 has the probability nan"),
        ([0.5], [2], "Item 1 has the label 2"),
        ([0.5, 0.5], [1], "one label per prediction"),
        ([], [], "at least one"),
    ],
)
def test_what_is_no_probability_is_refused(probabilities, labels, named):
    with pytest.raises(DataError, match=named):
        expected_calibration_error(probabilities, labels)


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(DataError, match="1 of 2 logits are not finite"):
        fit_temperature([1.0, np.inf], [0, 1])
