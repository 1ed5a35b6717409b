"""REINFORCE++ and online DPO against the optimum of each that is known (SCIENCE T1)."""

import pytest
from helpers.exact import Outcome, expected_reward, kl, total_variation
from helpers.exact_online import equilibrium, llama, tabular

from keel.algorithms.settings import OnlineDPOConfig, ReinforcePPConfig

ONCE = {"epochs": 1, "minibatches": 1, "stop_at_kl": None}


def online_dpo(**changes: object) -> Outcome:
    return tabular("online_dpo", online_dpo=OnlineDPOConfig(**ONCE, **changes))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("algorithm", ["reinforce_pp", "online_dpo"])
def test_a_table_reaches_the_best_policy(algorithm, temperature):
    found = tabular(algorithm, temperature=temperature)
    assert found.kl_to_best_at_start > 2
    assert found.kl_to_best <= 0.01
    assert found.regret <= 0.01
    assert found.total_variation <= 0.05


def test_the_mean_of_the_prompt_as_baseline_reaches_it_too():
    found = tabular("reinforce_pp", reinforce_pp=ReinforcePPConfig(baseline="prompt", **ONCE))
    assert found.kl_to_best <= 0.01
    assert found.total_variation <= 0.05


@pytest.mark.parametrize("algorithm", ["reinforce_pp", "online_dpo"])
def test_a_one_layer_llama_reaches_the_best_policy(algorithm):
    found = llama(algorithm)
    assert found.kl_to_best_at_start > 0.4
    assert found.kl_to_best <= 0.02
    assert found.total_variation <= 0.05


@pytest.mark.parametrize("algorithm", ["reinforce_pp", "online_dpo"])
def test_the_first_step_of_every_update_is_on_policy(algorithm):
    history = tabular(algorithm, updates=20).history
    assert max(update["first_log_ratio_max"] for update in history) <= 1e-5


def test_the_squared_loss_on_its_own_samples_reaches_an_equilibrium():
    """Not the best policy: the one against which no other wins more than it pays for its distance."""
    found = online_dpo(loss="ipo")
    best = equilibrium(found.reference, 0.5)
    assert kl(found.reference, best) > 0.05
    assert kl(found.policy, best) <= 0.005
    assert total_variation(found.policy, best) <= 0.02
    assert found.kl_to_best > 1


def test_hard_labels_have_no_such_end():
    """A response that is better is taken to be better by any amount: the policy goes past the best one, for reward."""
    found = online_dpo(label="hard")
    assert expected_reward(found.policy) > expected_reward(found.best) + 0.5
    assert kl(found.policy, found.reference) > 2 * kl(found.best, found.reference)


def test_the_best_with_the_worst_alone_says_little_of_what_lies_between():
    found = online_dpo(pairs="best_worst")
    assert 0.1 < found.kl_to_best < 0.3 * found.kl_to_best_at_start
