"""A policy trained on comparisons directly: the whole road, and what it can be asked for."""

import json
import math

import pytest
import torch
from helpers.recipes import Workplace
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from keel.core.artifacts import load_artifact
from keel.core.errors import ConfigError, DataError
from keel.data.formats import DataConfig, read_comparisons
from keel.data.split import split

TRUTH = """
def thanks(prompts, responses, finished):
    return [response.split().count("thank") + 0.001 * len(response) for response in responses]
"""
DIRECT = {
    "reward": None,
    "ppo": None,
    "prefer": {"batch": 8, "epochs": 2, "evaluate_every": 3, "max_new_tokens": 8, "optim": {"learning_rate": 2e-3}},
    "evaluate": None,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("prefer"))
    place.write("truth.py", TRUTH)
    return place


def test_comparisons_in_policy_out(place):
    ran = place.run(page=True, **DIRECT)
    assert ran.trained() == ["data demonstrations", "data comparisons", "sft", "reference", "prefer"]
    found = ran.stages["prefer"]
    assert found["loss_before"] == pytest.approx(math.log(2), abs=1e-5)
    assert found["loss"] < 0.3
    assert found["accuracy_low"] <= found["accuracy"] <= found["accuracy_high"]
    assert found["accuracy"] > 0.9
    assert found["reward_margin"] > 1
    assert found["chosen_log_ratio"] > found["rejected_log_ratio"]
    assert found["steps"] == 8
    plain = AutoModelForCausalLM.from_pretrained(ran.artifact("prefer").path / "model")
    assert plain.dtype == torch.float32
    page = (ran.directory / "report.html").read_text()
    assert "What did it learn from the comparisons?" in page
    assert "A trained policy that sides with people" in page


def test_held_out_pairs_are_judged_on_the_way(place):
    ran = place.run(**DIRECT)
    evaluated = [e for e in ran.events("evaluated") if e["stage"] == "prefer"]
    assert [e["step"] for e in evaluated] == [0, 3, 6, 8]
    assert evaluated[0]["accuracy"] == 0.5
    assert ran.stages["prefer"]["loss"] == min(e["loss"] for e in evaluated)
    steps = [e for e in ran.events("step") if e["stage"] == "prefer"]
    assert [e["step"] for e in steps] == list(range(1, 9))


def test_the_reference_speaks_once_and_beta_does_not_make_it_speak_again(place):
    first = place.run(**DIRECT)
    before = len(first.trained())
    again = place.run(["prefer.dpo.beta=0.3"], **DIRECT)
    assert again.trained()[before:] == ["prefer"]
    folder = next((first.directory / "artifacts").glob("reference-*"))
    said = load_file(folder / "reference.safetensors")
    assert {name: len(values) for name, values in said.items()} == {"train": 64, "held_out": 16}
    assert first.artifact("sft").id in load_artifact(folder).parents


def test_memory_settings_train_nothing_again(place):
    before = len(place.run(**DIRECT).trained())
    assert place.run(["prefer.micro_batch_tokens=64", "prefer.max_new_tokens=9"], **DIRECT).trained()[before:] == []


def test_with_adapters_the_reference_is_the_model_below_them(place):
    """The first loss is that of a coin: nothing separates the policy from what was noted down."""
    lora = {**DIRECT, "prefer": {**DIRECT["prefer"], "lora": {"rank": 4, "alpha": 32}}}
    ran = place.run(to="lora", **lora)
    assert ran.stages["prefer"]["loss_before"] == pytest.approx(math.log(2), abs=1e-5)
    assert ran.stages["prefer"]["loss"] < math.log(2)
    assert (ran.artifact("prefer").path / "adapter" / "adapter_model.safetensors").is_file()


def test_the_win_rate_is_by_the_true_preference_and_the_reward_model_where_they_are(place):
    judges = {
        **DIRECT,
        "reward": {"batch": 16, "best_of": 0, "optim": {"learning_rate": 3e-3}},
        "evaluate": {"prompts": 6, "preference": "truth.py:thanks"},
    }
    ran = place.run(to="judged", **judges)
    assert ran.trained()[-4:] == ["reward", "reference", "prefer", "evaluate"]
    found = ran.stages["evaluate"]
    assert {"true_win_rate", "reward_win_rate", "kl_nats_per_sequence"} <= found.keys()
    assert found["win_rate_by"] == "true preference"
    evaluated = ran.artifact("evaluate")
    assert ran.artifact("reward").id in evaluated.parents
    other = place.run(["reward.loss.label_smoothing=0.1"], to="judged", **judges)
    assert other.trained()[-2:] == ["reward", "evaluate"], "another judge, another report"


def test_without_a_judge_distance_and_samples_are_reported(place):
    ran = place.run(to="unjudged", **{**DIRECT, "evaluate": {"prompts": 4}})
    found = ran.stages["evaluate"]
    assert "kl_nats_per_sequence" in found
    assert not [name for name in found if "win_rate" in name]
    (samples,) = ran.events("samples")
    assert {"prompt", "before", "response"} <= samples["samples"][0].keys()


def test_a_run_can_stop_at_prefer(place):
    ran = place.run(to="only", only="prefer", **{**DIRECT, "evaluate": {"prompts": 4}})
    assert list(ran.stages) == ["sft", "prefer"]


@pytest.mark.parametrize("dpo", [{"label_noise": 0.1}, {"label_smoothing": 0.1}])
def test_every_form_of_the_loss_runs(place, dpo):
    ran = place.run(to="forms", **{**DIRECT, "prefer": {**DIRECT["prefer"], "dpo": dpo, "keep": "last"}})
    assert ran.stages["prefer"]["loss"] < ran.stages["prefer"]["loss_before"]
    assert ran.stages["prefer"]["kept_step"] == ran.stages["prefer"]["steps"]


def test_training_that_only_harms_keeps_the_weights_from_before(place):
    """Held-out people say the opposite of those it learns from."""
    rows = [json.loads(line) for line in (place.folder / "pairs.jsonl").read_text().splitlines()]
    train, _ = split(read_comparisons(DataConfig(path=str(place.folder / "pairs.jsonl"))), 0.25)
    learned = {record.prompt for record in train}
    for row in rows:
        row["preference"] = 1 - row["preference"] if row["prompt"] in learned else row["preference"]
    place.write("contrary.jsonl", rows)
    contrary = {"data": {"comparisons": {"path": "contrary.jsonl", "holdout": 0.25}}}
    ran = place.run(["prefer.patience=2"], to="harmed", **{**DIRECT, **contrary})
    found = ran.stages["prefer"]
    assert found["kept_step"] == 0
    assert found["loss"] == found["loss_before"]
    assert found["accuracy"] == 0.5
    assert found["steps"] == 6, "it stopped after two evaluations without gain"
    (verdict,) = [e for e in ran.events("verdict") if e["level"] == "act"]
    assert verdict["rule"] == "nothing_gained"
    assert "prefer.optim.learning_rate" in verdict["remedy"]
    assert "beta" not in verdict["remedy"], "a smaller one makes the loss small, not the policy better"


def test_shared_votes_become_soft_targets(place):
    rows = [json.loads(line) for line in (place.folder / "pairs.jsonl").read_text().splitlines()]
    for row in rows:
        better = "a" if row.pop("preference") > 0.5 else "b"
        choices = (better, better, "tie")
        row["votes"] = [{"rater": name, "choice": choice} for name, choice in zip("xyz", choices, strict=True)]
    place.write("voted.jsonl", rows)
    shares = {
        **DIRECT,
        "data": {
            "comparisons": {"path": "voted.jsonl", "holdout": 0.25},
            "override_agreement": "two raters, planted at odds",
        },
        "prefer": {**DIRECT["prefer"], "labels": "share"},
    }
    ran = place.run(to="shares", **shares)
    assert 0.3 < ran.stages["prefer"]["loss"] < math.log(2), "a tie in three leaves doubt"
    assert ran.summary["agreement"]["num_raters"] == 3


def test_comparisons_without_held_out_ones_are_refused_before_training(place):
    with pytest.raises(DataError, match="no comparison is held out"):
        place.run(["data.comparisons.holdout=0"], to="none", **DIRECT)


def test_an_answer_longer_than_the_context_is_refused_before_training(place):
    with pytest.raises(ConfigError, match=r"prefer\.max_new_tokens=64 leaves no room"):
        place.run(["prefer.max_new_tokens=64"], to="long", **{**DIRECT, "evaluate": {"prompts": 4}})
