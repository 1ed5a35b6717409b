"""Best of n: to answer with, and to fine-tune on."""

import json

import pytest
from helpers.fresh_recipes import BEST_OF, REJECTION, place_of_people

from keel.core.artifacts import load_artifact
from keel.core.errors import ConfigError, DataError, TrainingError
from keel.stats.best_of import best_of_kl_bound

OF_N = {**REJECTION, "method": "best_of_n", "evaluate": {"prompts": 20, "preference": "people.py:truth"}}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return place_of_people(tmp_path_factory.mktemp("best of n"))


@pytest.fixture(scope="module")
def rejected(place):
    return place.run(page=True, to="rejection", **REJECTION)


def test_best_of_n_is_compared_with_sft_and_trains_nothing(place):
    ran = place.run(page=True, to="best", **OF_N)
    assert ran.trained() == ["data demonstrations", "data prompts", "sft", "evaluate"]
    found = ran.stages["evaluate"]
    assert found["best_of"] == 4
    assert found["kl_nats_per_sequence"] == best_of_kl_bound(4)
    assert found["true_win_rate_low"] > 0.5
    assert found["score"] > found["score_sft"]
    assert [row["n"] for row in found["by_n"]] == [1, 2, 4]
    assert found["by_n"][0]["kl_nats_per_sequence"] == 0
    assert found["by_n"][-1]["score"] == pytest.approx(found["score"]), "all samples, the best of them"
    assert found["by_n"][-1]["true_win_rate"] == pytest.approx(found["true_win_rate"])
    rates, scores = ([row[name] for row in found["by_n"]] for name in ("true_win_rate", "score"))
    assert rates == sorted(rates)
    assert scores == sorted(scores)
    assert all(row["true_win_rate_low"] <= row["true_win_rate"] <= row["true_win_rate_high"] for row in found["by_n"])


def test_best_of_n_may_pick_by_the_recipes_own_reward_model(place):
    model = [{"name": "learned", "model": "stage"}]
    ran = place.run(
        to="learned", **{**OF_N, "reward": {"batch": 16, "best_of": 0}, "best_of": {**BEST_OF, "rewards": model}}
    )
    assert ran.artifact("reward").id in ran.artifact("evaluate").parents
    assert ran.trained()[-2:] == ["reward", "evaluate"]


def test_rejection_fine_tunes_on_the_best_responses_round_after_round(rejected):
    rounds = ["selection 1", "rejection 1", "selection 2", "rejection 2"]
    assert rejected.trained() == ["data demonstrations", "data prompts", "sft", *rounds, "evaluate"]
    found = rejected.stages["rejection"]
    first, second = found["rounds"]
    assert first["score_kept"] > first["score_mean"]
    assert second["score_mean"] > first["score_mean"], "the second round samples from the better policy"
    assert found["perplexity"] < found["perplexity_before"]
    assert rejected.summary["method"] == "rejection"
    assert {"true_win_rate", "kl_nats_per_sequence", "reward_win_rate"} <= rejected.stages["evaluate"].keys()


def test_what_it_learned_from_is_kept_with_where_it_comes_from(rejected):
    sets = [load_artifact(path) for path in (rejected.directory / "artifacts").glob("rejection-*")]
    assert {chosen.kind for chosen in sets} == {"demonstration_set"}
    first = next(chosen for chosen in sets if chosen.config["round"] == 1)
    assert rejected.artifact("sft").id in first.parents
    second = next(chosen for chosen in sets if chosen.config["round"] == 2)
    assert second.id in rejected.artifact("rejection").parents
    lines = [json.loads(line) for line in (first.path / "scores.jsonl").read_text().splitlines()]
    assert len(lines) == 30
    assert all(len(line["scores"]) == 4 and line["scores"][line["best"]] == max(line["scores"]) for line in lines)
    train = (first.path / "train.jsonl").read_text().splitlines()
    held_out = (first.path / "held_out.jsonl").read_text().splitlines()
    assert len(train) + len(held_out) == sum(line["kept"] for line in lines) == first.metrics["kept"]
    assert held_out, "some of the training prompts measure the fine-tuning"


def test_only_the_highest_share_or_what_passes_a_threshold_is_kept(place, rejected):
    share = place.run(["best_of.share=0.5", "best_of.rounds=1"], to="share", **{**REJECTION, "evaluate": None})
    (half,) = share.stages["rejection"]["rounds"]
    whole = rejected.stages["rejection"]["rounds"][0]
    assert half["kept"] == round(whole["kept"] / 2)
    assert half["score_kept"] > whole["score_kept"]
    line = half["score_kept"]
    passed = place.run(
        [f"best_of.threshold={line}", "best_of.rounds=1"], to="passed", **{**REJECTION, "evaluate": None}
    )
    (above,) = passed.stages["rejection"]["rounds"]
    assert 0 < above["kept"] < whole["kept"]
    assert above["score_kept"] > line


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rewards": [{"name": "same", "python": "people.py:same"}]}, r"the same score, so none is best .*best_of\.rewards"),
        ({"threshold": 1e6}, r"no best response reaches best_of\.threshold=1000000\.0; the highest score is"),
        ({"max_new_tokens": 1, "unfinished": "drop"}, r"none of 120 responses can be trained on: .* were cut off"),
    ],
)  # fmt: skip
def test_nothing_to_learn_from_stops_the_run_with_what_to_change(place, settings, said):
    with pytest.raises(TrainingError, match=said):
        place.run(to="nothing", **{**REJECTION, "best_of": {**BEST_OF, **settings}, "evaluate": None})


def test_one_sample_is_no_best_of_several(place):
    with pytest.raises(ConfigError, match=r"best_of\.n: expected at least 2, found 1"):
        place.run(["best_of.n=1"], **REJECTION)


def test_no_room_for_a_prompt_is_said_before_anything_is_trained(place):
    with pytest.raises(ConfigError, match=r"best_of\.max_new_tokens=64 leaves no room for a prompt"):
        place.run(["best_of.max_new_tokens=64"], to="no room", **REJECTION)


def test_without_prompts_to_sample_for_the_recipe_is_refused(place):
    place.write("empty.jsonl", "")
    with pytest.raises(DataError, match=r"empty\.jsonl"):
        place.run(["data.prompts.path=empty.jsonl"], to="empty", **REJECTION)


def test_the_gate_before_rl_takes_its_samples_the_same_way(place):
    ran = place.run(
        to="gate", reward={"batch": 16, "best_of": 3, "best_of_prompts": 4}, ppo={"updates": 1}, evaluate=None
    )
    gate = ran.stages["reward"]["best_of_n"]
    assert gate["n"] == 3
    assert gate["gain"] >= 0
    assert gate["kl_nats_per_sequence_bound"] == best_of_kl_bound(3)
