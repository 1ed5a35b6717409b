"""The product's trainers against an optimum that is known: SCIENCE T1, and where each KL penalty leads (T3).

Left alone, the reference is 2.07 nats from the best policy of the table world and 0.44 nats from that of the Llama's.
"""

from typing import Any

import pytest
from helpers.exact import (
    PROMPTS,
    ExactSampler,
    Outcome,
    TableConfig,
    TableLM,
    expected_reward,
    kl,
    short_sighted_best,
    source,
    table_policy,
    token_table,
)
from helpers.exact_online import llama, tabular

from keel.algorithms.settings import GRPOConfig, KLConfig
from keel.train.rollout import EncodedPrompt


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo"])
def test_a_table_reaches_the_best_policy(algorithm, temperature):
    updates = 120 if temperature == 1.0 else 160
    found = tabular(algorithm, updates=updates, temperature=temperature)
    assert found.kl_to_best_at_start > 2
    assert found.kl_to_best <= 0.01
    assert found.regret <= 0.01
    assert found.total_variation <= 0.05


@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo"])
def test_a_one_layer_llama_reaches_the_best_policy(algorithm):
    found = llama(algorithm)
    assert found.kl_to_best_at_start > 0.4
    assert found.kl_to_best <= 0.02
    assert found.total_variation <= 0.05


@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo"])
def test_the_first_step_of_every_update_is_on_policy(algorithm):
    history = tabular(algorithm, updates=20).history
    assert max(update["first_log_ratio_max"] for update in history) <= 1e-5
    assert all(update["first_clip_fraction"] == 0 for update in history)


def test_the_reported_kl_is_the_sum_over_all_responses():
    policy, reference = TableLM(TableConfig(), seed=1), table_policy()
    judged = source(policy, reference, ExactSampler(policy), 1000, 1.0).rollout(
        [EncodedPrompt(prompt=str(x), tokens=(x,), key=x) for x in PROMPTS], seed=3
    )
    exact = kl(*(token_table(model).sum(-1) for model in (policy, reference)))
    standard_error = 0.96 / 3000**0.5  # 0.96 nats is the deviation of k1 between these two
    assert judged.figures()["kl_nats_per_sequence"] == pytest.approx(exact, abs=4 * standard_error)


def held_by(estimator: str, placement: str, **changes: Any) -> Outcome:
    """A long RLOO run under this penalty."""
    penalty = KLConfig(controller="fixed", initial=0.5, estimator=estimator, placement=placement)
    return tabular("rloo", updates=250, kl=penalty, **changes)


def test_k1_in_the_loss_is_no_penalty():
    """The policy takes far more reward than it is worth in KL."""
    found = held_by("k1", "loss")
    assert found.kl_to_best > 1
    assert expected_reward(found.policy) > expected_reward(found.best) + 0.3


def test_k2_in_the_loss_does_not_look_ahead():
    """For responses of several tokens its optimum is another one, which can be written down too."""
    found = held_by("k2", "loss")
    assert kl(found.policy, short_sighted_best(0.5)) <= 0.03
    assert found.kl_to_best > 0.2


@pytest.mark.parametrize(("estimator", "placement"), [("k3", "loss"), ("k2", "reward"), ("k3", "reward")])
def test_other_penalties_lead_elsewhere(estimator, placement):
    assert held_by(estimator, placement).kl_to_best > 0.2


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize("placement", ["reward", "loss"])
def test_every_penalty_that_misses_the_optimum_warns(estimator, placement):
    warning = KLConfig(estimator=estimator, placement=placement).warning
    assert (warning is None) == (estimator == "k1" and placement == "reward")


def test_grpo_as_published_leads_elsewhere():
    """Advantages in units of their deviation, means over responses, k3 in the loss: another objective's optimum."""
    grpo = GRPOConfig(epochs=1, minibatches=1, stop_at_kl=None)
    found = tabular("grpo", updates=250, grpo=grpo, kl=KLConfig(preset="grpo", initial=0.5))
    assert 0.15 < found.kl_to_best < 0.8
    assert found.kl_to_best < 0.5 * found.kl_to_best_at_start
