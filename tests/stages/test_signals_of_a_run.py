"""Signals in the events of a run: the same names in updates and evaluations, and no influence on what is trained."""

from unittest.mock import patch

import pytest
from helpers.recipes import Workplace

from keel.stages import learner
from keel.train.signals import signals

# What a plain reward model and single samples cannot give.
NEVER = {"score_disagreement"}
ONE_SAMPLE = {"self_bleu_per_prompt"}
MAY_NOT_VARY = {"length_reward_correlation", "length_score_correlation"}
NEW = {
    *("kl_k3_nats_per_sequence", "kl_k3_nats_per_token", "reward_std", "score_p05", "score_p95", "score_abs_max"),
    *("score_reward_model_std", "score_disagreement", "unseen_trigram_share", "length_reward_correlation"),
    *("length_score_correlation", "response_tokens_p95", "distinct_1", "distinct_2", "unique_share"),
    *("repeated_trigram_share", "self_bleu", "self_bleu_per_prompt", "ref_perplexity", "common_phrase_share"),
    "entropy_nats_sampled",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Workplace(tmp_path_factory.mktemp("signals"))


@pytest.fixture(scope="module")
def ran(place):
    return place.run(to="watched", evaluate=None, sft=None, reward={"best_of": 0})


def test_updates_and_evaluations_carry_every_signal(ran):
    for event in ("step", "evaluated"):
        found = [e for e in ran.events(event) if e["stage"] == "ppo"]
        assert found
        for figures in found:
            assert figures.keys() >= NEW
            missing = {name for name in NEW if figures[name] is None}
            assert missing <= NEVER | MAY_NOT_VARY | (ONE_SAMPLE if event == "evaluated" else set())


def test_a_members_disagreement_is_told_with_an_ensemble(place):
    ran = place.run(to="ensemble", evaluate=None, sft=None, reward={"best_of": 0, "members": 2}, ppo={"updates": 1})
    assert all(e["score_disagreement"] > 0 for e in ran.events("step") if e["stage"] == "ppo")


def test_the_policy_has_the_same_bits_without_signals(place, ran):
    kept = ("distinct_2", "unique_share", "entropy_nats_sampled")

    def few(judged, coverage):
        return {name: value for name, value in signals(judged, coverage).items() if name in kept}

    with patch.object(learner, "signals", few):
        blind = place.run(to="blind", evaluate=None, sft=None, reward={"best_of": 0})
    assert blind.artifact("ppo").id == ran.artifact("ppo").id
