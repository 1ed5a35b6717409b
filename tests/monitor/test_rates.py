from keel.monitor.rates import SMALL_MODEL, learning_rate

LARGE = 500_000_000


def test_a_rate_for_adapters_is_too_high_for_full_fine_tuning():
    verdict = learning_rate("sft", 2e-4, lora=False, num_parameters=LARGE)
    assert verdict.level == "watch"
    assert "0.0002" in verdict.message
    assert "6e-05" in verdict.message


def test_customary_rates_pass_for_both_methods_and_stages():
    for stage, full, lora in (("sft", 2e-5, 2e-4), ("reward", 1e-5, 1e-4)):
        assert learning_rate(stage, full, lora=False, num_parameters=LARGE).level == "ok"
        assert learning_rate(stage, lora, lora=True, num_parameters=LARGE).level == "ok"


def test_small_models_bear_any_rate():
    assert learning_rate("sft", 1e-2, lora=False, num_parameters=SMALL_MODEL - 1).level == "ok"
