"""What a recipe can ask for beside the plain three phases, each on a model that trains in a second.

All share one run folder, so that a variant of RL trains only what it changes.
"""

import json
import math

import pytest
import torch
from helpers.recipes import PROMPTS, Workplace

from keel.core.artifacts import load_artifact
from keel.core.errors import GateError
from keel.models.reward import RewardModel

REWARDS = """
def thanks(prompts, responses):
    assert len(prompts) == len(responses)
    return [10.0 * response.split().count("thank") for response in responses]

def same(prompts, responses):
    return [1.0] * len(responses)
"""
RISING = """
calls = []

def rising(prompts, responses):
    calls.append(0)
    return [len(calls) + i % 4 for i in range(len(responses))]
"""
LABELLER = """
from keel.data.records import Comparison, Vote

def judge(pairs):
    records = []
    for pair in pairs:
        votes = tuple(Vote(name, "a" if len(pair.a) <= len(pair.b) else "b") for name in ("ann", "bob"))
        preference = float(votes[0].choice == "a")
        records.append(Comparison(pair.prompt, pair.a, pair.b, preference, votes=votes))
    return records
"""
NO_SFT = {"sft": None, "evaluate": None}
NO_EVALUATION = {"evaluate": None}
PYTHON_REWARD = {"rewards": [{"name": "thanks", "python": "rewards.py:thanks"}]}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("variants"))
    place.write("rewards.py", REWARDS)
    place.write("raters.py", LABELLER)
    return place


def test_lora_everywhere_trains_adapters_and_a_critic_on_the_trunk(place):
    lora = {"lora": {"rank": 2}}
    ran = place.run(sft=lora, reward=lora, ppo={**lora, "ppo": {"critic": "trunk"}}, **NO_EVALUATION)
    for stage in ("sft", "ppo"):
        made = ran.artifact(stage).path
        assert (made / "adapter" / "adapter_model.safetensors").is_file()
        assert (made / "model" / "model.safetensors").is_file()
    critic = ran.artifact("ppo").path / "critic.safetensors"
    assert critic.stat().st_size < 1000, "a head alone: 32 weights"


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_a_method_without_a_critic_is_one_word_away(place, algorithm):
    ran = place.run([f"ppo.algorithm={algorithm}"], **NO_EVALUATION)
    assert ran.stages["ppo"]["algorithm"] == algorithm
    assert not (ran.artifact("ppo").path / "critic.safetensors").exists()
    assert math.isfinite(ran.stages["ppo"]["score_after"])


def test_grpo_says_that_its_penalty_leads_elsewhere(place):
    ran = place.run(["ppo.algorithm=grpo"], **NO_EVALUATION)
    (verdict,) = [e for e in ran.events("verdict") if e["rule"] == "kl_placement"]
    assert "k3 in the loss" in verdict["message"]


@pytest.fixture(scope="module")
def in_rounds(place):
    rounds = {"count": 3, "comparisons": 12, "labeller": "raters.py:judge"}
    return place.run(to="rounds", rounds=rounds, ppo={"updates": 1}, evaluate={"prompts": 4})


def test_rounds_collect_labels_refresh_the_reward_model_and_go_on_from_the_last_policy(in_rounds):
    stages = in_rounds.trained()
    assert stages[4:] == [
        *("reward", "best of 2", "ppo 1", "labels 1", "reward 2", "ppo 2"),
        *("labels 2", "reward 3", "ppo 3", "evaluate"),
    ]
    policies = [
        load_artifact(path)
        for path in sorted((in_rounds.directory / "artifacts").glob("ppo-*"), key=lambda p: p.stat().st_mtime)
    ]
    assert [p.config["round"] for p in policies] == [0, 1, 2]
    assert policies[1].config["start"] == policies[0].id
    assert {p.config["reference"] for p in policies} == {in_rounds.artifact("sft").id}
    assert policies[0].id in policies[1].parents
    reward = load_artifact(next(p for p in (in_rounds.directory / "artifacts").glob("reward-*")))
    assert reward.kind == "reward_model"


def test_rounds_report_the_raters_of_every_round_and_count_steps_through(in_rounds):
    rounds = in_rounds.summary["rounds"]
    assert [r["round"] for r in rounds] == [1, 2]
    assert all(r["krippendorff_alpha"] == 1 and 0 < r["labels"] <= 12 for r in rounds)
    assert all(0 <= r["on_policy_accuracy_before"] <= 1 for r in rounds)
    assert in_rounds.stages["ppo"]["rounds"] == 3
    assert in_rounds.stages["ppo"]["updates"] == 3
    assert [e["step"] for e in in_rounds.events("step") if e["stage"].startswith("ppo")] == [1, 2, 3]


def test_a_round_whose_raters_do_not_agree_teaches_nothing_unless_a_reason_is_given(place):
    place.write(
        "split.py", LABELLER.replace("len(pair.a) <= len(pair.b)", "(len(pair.a) <= len(pair.b)) == (name == 'ann')")
    )
    asked = {
        "rounds": {"count": 2, "comparisons": 12, "labeller": "split.py:judge"},
        "ppo": {"updates": 1},
        "reward": {"best_of": 0},
        "evaluate": None,
    }
    with pytest.raises(GateError, match=r"override_agreement"):
        place.run(to="split", **asked)
    ran = place.run(to="split", data={"override_agreement": "a drill, nothing is served"}, **asked)
    (entry,) = ran.summary["rounds"]
    assert entry["override"] == "a drill, nothing is served"
    told = [event for event in ran.events("agreement") if event["stage"] == "rounds"]
    assert [(event["round"], event.get("override")) for event in told] == [(1, None), (1, "a drill, nothing is served")]
    assert all(event["krippendorff_alpha"] < 0.4 for event in told)


def test_scores_before_and_after_rounds_are_on_the_scale_of_the_last_reward_model(in_rounds):
    ppo, evaluate = in_rounds.stages["ppo"], in_rounds.stages["evaluate"]
    assert (ppo["score_before"], ppo["score_after"]) == (evaluate["score_sft"], evaluate["score"])
    assert ppo["score_scale_changed"] is False


def test_fewer_replayed_comparisons_train_another_refresh(place, in_rounds):
    before = in_rounds.trained()
    rounds = {"count": 2, "comparisons": 12, "labeller": "raters.py:judge", "replay": 0.25}
    after = place.run(to="rounds", rounds=rounds, ppo={"updates": 1}, evaluate=None).trained()[len(before) :]
    assert after == ["reward 2", "ppo 2"]


def test_without_comparisons_the_first_reward_model_learns_from_samples_that_raters_judged(place):
    rounds = {"count": 1, "first_comparisons": 24, "labeller": "raters.py:judge"}
    ran = place.run(data={"comparisons": None}, rounds=rounds, ppo={"updates": 1}, evaluate=None)
    assert "labels 0" in ran.trained()
    reward = ran.stages["reward"]
    assert reward["training_pairs"] + reward["held_out_pairs"] <= 24
    assert reward["held_out_pairs"] >= 1
    assert ran.summary["agreement"]["krippendorff_alpha"] == 1


def test_a_python_function_is_a_reward_without_any_reward_model(place):
    ran = place.run(
        data={"comparisons": None}, reward=None, ppo={**PYTHON_REWARD, "shaping": {"normalise": "none"}}, to="python"
    )
    assert set(ran.stages) == {"sft", "ppo", "evaluate"}
    step = ran.events("step")[-1]
    assert step["score_thanks"] == step["score_mean"]
    assert ran.stages["evaluate"]["win_rate_by"] == "reward model"


def test_rewards_add_up_by_their_weights_and_are_logged_apart(place):
    parts = [{"name": "learned", "model": "stage", "weight": 0.5}, {"name": "thanks", "python": "rewards.py:thanks"}]
    ran = place.run(ppo={"rewards": parts}, **NO_EVALUATION)
    for step in [e for e in ran.events("step") if e["stage"] == "ppo" and "score_learned" in e]:
        assert step["score_mean"] == pytest.approx(0.5 * step["score_learned"] + step["score_thanks"], abs=1e-5)


def test_an_edited_reward_function_trains_anew_and_the_old_text_finds_its_policy_again(place):
    start = {"data": {"comparisons": None}, "reward": None, "ppo": PYTHON_REWARD, "only": "ppo", "to": "edited"}
    first = place.run(**start)
    place.write("rewards.py", REWARDS + "\n# changed\n")
    second = place.run(**start)
    place.write("rewards.py", REWARDS)
    third = place.run(**start)
    assert third.trained().count("ppo") == 2
    names = [ran.stages["ppo"]["artifact"] for ran in (first, second, third)]
    assert names[0] == names[2] != names[1]


def test_a_reward_model_of_another_run_is_a_reward(place):
    made = place.run(only="reward")
    folder = made.artifact("reward").path / "model"
    parts = {"rewards": [{"name": "bought", "model": str(folder)}]}
    ran = place.run(data={"comparisons": None}, reward=None, ppo=parts, to="bought", **NO_EVALUATION)
    assert math.isfinite(ran.stages["ppo"]["score_after"])


@pytest.mark.parametrize("aggregate", ["mean", "min", "mean_minus_std"])
def test_an_ensemble_has_members_of_their_own_and_one_score(place, aggregate):
    ran = place.run(reward={"members": 2, "aggregate": aggregate, "best_of": 0}, to="ensemble", **NO_EVALUATION)
    members = ran.stages["reward"]["members"]
    assert len({member["id"] for member in members}) == 2
    heads = [
        RewardModel.load(ran.directory / "artifacts" / member["artifact"] / "model").head.weight for member in members
    ]
    assert not torch.equal(*heads)
    assert math.isfinite(ran.stages["ppo"]["score_after"])


def test_the_aggregate_of_an_ensemble_is_no_reason_to_train_its_members_again(place):
    place.run(reward={"members": 2, "aggregate": "mean", "best_of": 0}, to="ensemble", **NO_EVALUATION)
    before = place.run(only="sft", to="ensemble").trained()
    after = place.run(reward={"members": 2, "std_weight": 2.0, "best_of": 0}, to="ensemble", **NO_EVALUATION)
    assert set(after.trained()[len(before) :]) <= {"ppo"}


@pytest.mark.parametrize("form", ["implicit", "hybrid"])
def test_every_form_of_reward_model_can_be_optimised(place, form):
    ran = place.run(reward={"form": form}, **NO_EVALUATION)
    assert ran.stages["reward"]["form"] == form
    assert (ran.artifact("reward").path / "model" / "reference" / "model.safetensors").is_file()
    assert math.isfinite(ran.stages["ppo"]["score_after"])


def test_chats_go_through_every_stage_by_the_chat_template(tmp_path):
    place = Workplace(tmp_path, chat=True, count=24)
    ran = place.run()
    assert set(ran.stages) == {"sft", "reward", "ppo", "evaluate"}
    samples = ran.events("samples")[0]["samples"]
    assert "how is my" in samples[0]["prompt"]
    assert "<|" not in samples[0]["response"]


def test_a_model_without_a_template_takes_the_recipes(tmp_path):
    place = Workplace(tmp_path, chat=True, count=24)
    saved = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    template = saved.pop("chat_template", None) or (tmp_path / "model" / "chat_template.jinja").read_text()
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps(saved))
    (tmp_path / "model" / "chat_template.jinja").unlink(missing_ok=True)
    place.write("template.jinja", template)
    ran = place.run(model={"chat_template": "template.jinja"}, only="sft")
    assert math.isfinite(ran.stages["sft"]["perplexity"])


def test_running_normalisation_needs_no_statistics_of_a_reward_model(place):
    place.write("rising.py", RISING)
    ran = place.run(
        data={"comparisons": None},
        reward=None,
        ppo={
            "rewards": [{"name": "rising", "python": "rising.py:rising"}],
            "shaping": {"normalise": "running", "missing_eos_ceiling": None},
        },
        to="running",
        **NO_EVALUATION,
    )
    rewards = [e["reward_mean"] for e in ran.events("evaluated") if e["stage"] == "ppo"]
    assert rewards[0] == pytest.approx(0, abs=1e-5), "the first held-out rewards are their own scale"
    assert rewards[0] < rewards[1] < rewards[2]
    assert ran.stages["ppo"]["kept_update"] == 2


def test_sft_stops_when_perplexity_stops_falling_and_keeps_the_best_epoch(tmp_path):
    place = Workplace(tmp_path)
    rows = []
    for number, prompt in enumerate(PROMPTS[:40]):  # answers are random words: what is learned of them is noise
        words = [
            ("cat", "dog", "red", "blue", "fast", "slow", "new", "old")[(number * 7 + i * i * 3) % 8] for i in range(5)
        ]
        rows.append({"prompt": prompt, "response": " " + " ".join(words)})
    place.write("demos.jsonl", rows)
    ran = place.run(
        data={"demonstrations": {"holdout": 0.3}},
        sft={"epochs": 40, "patience": 2, "batch": 8, "optim": {"learning_rate": 2e-2}},
        only="sft",
    )
    figures, per_epoch = ran.stages["sft"], math.ceil(ran.stages["sft"]["demonstrations"] / 8)
    perplexities = [e["perplexity"] for e in ran.events("evaluated")][1:]
    assert figures["steps"] < 40 * per_epoch, "stopped early"
    assert figures["perplexity"] == min(perplexities)
    assert figures["kept_step"] == per_epoch * (1 + perplexities.index(min(perplexities)))
    assert figures["steps"] == figures["kept_step"] + 2 * per_epoch
    assert perplexities[-1] > figures["perplexity"]


def test_ppo_stops_when_held_out_reward_stops_rising_and_keeps_the_best_policy(place):
    parts = [{"name": "same", "python": "rewards.py:same"}]  # a constant: only the KL cost can change, and only rise
    ran = place.run(
        data={"comparisons": None},
        reward=None,
        ppo={"rewards": parts, "patience": 2, "updates": 9, "kl": {"initial": 1.0, "controller": "fixed"}},
        to="patience",
        **NO_EVALUATION,
    )
    ppo = ran.stages["ppo"]
    assert ppo["updates"] < 9
    assert ppo["updates"] == ppo["kept_update"] + 2
    objective = [e["objective"] for e in ran.events("evaluated") if e["stage"] == "ppo"]
    assert max(objective) == objective[ppo["kept_update"]]


def test_the_last_policy_is_kept_on_request(place):
    ran = place.run(["ppo.keep=last"], **NO_EVALUATION)
    assert ran.stages["ppo"]["kept_update"] == ran.stages["ppo"]["updates"] == 2
