"""Methods that learn from judgments alone, against the optimum that each of them has: SCIENCE T5."""

import pytest
from helpers.exact import REWARDS, adam, kl, llama_policy, table_policy, token_table, total_variation
from helpers.exact_pairs import (
    BETA,
    DPO,
    LENGTHS,
    ipo_best,
    kto_best,
    orpo_best,
    prefer,
    rate,
    simpo_best,
    thumbs_up_chance,
)

from keel.algorithms.settings import DPOConfig, IPOConfig, KTOConfig, ORPOConfig, SimPOConfig


def test_dpo_reaches_the_best_policy_from_comparisons_alone():
    """The same optimum as that of RL on the reward that the raters judge by."""
    found = prefer(table_policy(), adam(0.1), steps=400)
    assert found.kl_to_best_at_start > 2
    assert found.kl_to_best <= 0.02
    assert found.total_variation <= 0.05


def test_dpo_on_a_one_layer_llama_reaches_the_best_policy():
    found = prefer(llama_policy(), adam(0.003), steps=250)
    assert found.kl_to_best <= 0.02
    assert found.total_variation <= 0.05


def test_only_the_correction_for_noise_corrects_for_noise():
    """A fifth of the labels wrong: smoothing on top of it moves the optimum further off, robust DPO takes it back."""
    plain, smoothed, robust = (
        prefer(table_policy(), adam(0.1), config, steps=400, flipped=0.2)
        for config in (DPO, DPOConfig(beta=BETA, label_smoothing=0.2), DPOConfig(beta=BETA, label_noise=0.2))
    )
    assert robust.kl_to_best <= 0.05
    assert robust.total_variation <= 0.05
    assert 0.3 < plain.kl_to_best < smoothed.kl_to_best


def test_ipo_reaches_its_own_optimum():
    found = prefer(table_policy(), adam(0.1), IPOConfig(beta=BETA), steps=400)
    best = ipo_best(found.reference)
    assert kl(found.policy, best) <= 0.005
    assert total_variation(found.policy, best) <= 0.05
    assert found.kl_to_best > 0.1


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_simpo_reaches_its_own_optimum_whatever_it_starts_from(gamma):
    """Without gamma it is known in closed form; it has forgotten its reference, and prefers other lengths."""
    best = simpo_best(2.0, gamma)
    found = prefer(table_policy(), adam(0.1), SimPOConfig(beta=2.0, gamma=gamma), steps=250)
    assert total_variation(found.reference, best) > 0.5
    assert kl(found.policy, best) <= 0.01
    assert total_variation(found.policy, best) <= 0.05


def test_simpo_s_optimum_by_newton_is_the_one_on_paper():
    mean = simpo_best(2.0, 0.0) / LENGTHS
    rewards = 2.0 * (mean - mean[:, :1])
    assert float((rewards - (REWARDS - REWARDS[:, :1])).abs().max()) < 1e-5
    assert simpo_best(2.0, 1.0).exp().sum(-1).tolist() == pytest.approx([1.0] * 3)


@pytest.mark.parametrize("odds_weight", [0.0, 1.0])
def test_orpo_ends_where_its_loss_has_no_gradient(odds_weight):
    """Without the odds that is imitation: how often a response is the better one, over its length."""
    best = orpo_best(odds_weight)
    found = prefer(table_policy(), adam(0.1), ORPOConfig(odds_weight=odds_weight), steps=300)
    assert total_variation(found.reference, best) > 0.4
    assert total_variation(found.policy, best) <= 0.05


def test_kto_ends_at_its_limit():
    """What raters would rather not see is gone; the others share by how clearly they are wanted."""
    config = KTOConfig(beta=BETA)
    found = rate(table_policy(), adam(0.3), config, steps=200)
    best = kto_best(found.reference, config)
    unwanted = thumbs_up_chance() < 0.5
    assert float((found.reference.exp() * unwanted).sum(-1).mean()) > 0.4
    assert float((found.policy.exp() * unwanted).sum(-1).mean()) < 0.02
    assert total_variation(found.reference, best) > 0.5
    assert total_variation(found.policy, best) <= 0.05


def test_kto_s_limit_is_not_that_of_rl_on_the_raters_reward():
    reference = token_table(table_policy()).double().sum(-1)
    best = (reference + REWARDS.double() / BETA).log_softmax(-1)
    assert total_variation(best, kto_best(reference, KTOConfig(beta=BETA))) > 0.3
