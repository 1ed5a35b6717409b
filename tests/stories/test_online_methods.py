"""REINFORCE++, online DPO and dynamic sampling in whole runs: figures, alarms, interruptions."""

import math

import pytest
from helpers.guarded_stories import PEOPLE, THANKS, actions, alarmed
from helpers.interrupted import attempt, cut_short, left_behind
from helpers.recipes import Workplace

RARE = """
def rare(prompts, responses):
    # all alike for most prompts
    return [float(len(r.split()) % 2) if len(p.split()[-2]) > 5 else 1.0 for p, r in zip(prompts, responses)]

def same(prompts, responses):
    return [1.0] * len(responses)
"""
ALONE = {"sft": None, "reward": None, "evaluate": None}
SCARCE = {
    **ALONE,
    "ppo": {
        "algorithm": "grpo",
        "updates": 4,
        "samples": 3,
        "rewards": [{"name": "rare", "python": "rare.py:rare"}],
        "shaping": {"normalise": "running", "missing_eos_ceiling": None},
        "grpo": {"preset": "dapo"},
    },
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("online"))
    place.write("people.py", PEOPLE)
    place.write("rare.py", RARE)
    return place


@pytest.mark.parametrize("layout", ["separate", "one_trunk"])
def test_online_dpo_takes_its_pairs_from_either_layout(place, layout):
    ppo = {"algorithm": "online_dpo", "online_dpo": {"pairs": "best_worst"}, "samples": 3, "rewards": THANKS}
    if layout == "one_trunk":
        ppo |= {"layout": layout, "lora": {"rank": 2, "last_layers": 1}}
    ran = place.run(to=layout, **{**ALONE, "ppo": ppo})
    assert ran.stages["ppo"]["algorithm"] == "online_dpo"
    for step in ran.events("step"):
        assert step["first_log_ratio_max"] < 1e-4
        assert 0 <= step["accuracy"] <= 1
        assert math.isfinite(step["loss"])
        assert math.isfinite(step["kl_nats_per_sequence"])


def test_reinforce_pp_trains_on_one_sample_a_prompt(place):
    ran = place.run(to="single", **{**ALONE, "ppo": {"algorithm": "reinforce_pp", "samples": 1, "rewards": THANKS}})
    steps = ran.events("step")
    assert ran.stages["ppo"]["algorithm"] == "reinforce_pp"
    assert all(math.isfinite(step["loss"]) and step["grad_norm"] > 0 for step in steps)
    assert "prompts_without_signal" not in steps[0]


@pytest.mark.parametrize("algorithm", ["reinforce_pp", "online_dpo"])
def test_the_guardian_goes_back_and_raises_the_price_of_distance(algorithm, place):
    """For online DPO that is beta: the next update's loss is taken with it."""
    ppo = {"algorithm": algorithm, "updates": 8, "optim": {"learning_rate": 1e-2}}
    ran = place.run(to=f"alarmed {algorithm}", **alarmed(ppo=ppo, thresholds={"kl_stop_per_sequence": 0.3}))
    back = next(action for action in actions(ran) if action["action"] == "roll_back")
    assert back["after"]["kl_coef"] > back["before"]["kl_coef"]
    following = next(step for step in ran.events("step") if step["step"] == back["step"] + 1)
    assert following["kl_coef"] == back["after"]["kl_coef"]


@pytest.mark.parametrize("algorithm", ["grpo", "online_dpo", "reinforce_pp"])
def test_rewards_that_are_all_alike_train_nothing_and_are_named(place, algorithm):
    ppo = {"algorithm": algorithm, "rewards": [{"name": "same", "python": "rare.py:same"}], "updates": 2}
    ppo |= {"kl": {"controller": "fixed", "initial": 0.05}, "shaping": {"missing_eos_ceiling": None}}
    ran = place.run(to=f"same {algorithm}", **{**ALONE, "ppo": ppo})
    assert all(math.isfinite(step["loss"]) for step in ran.events("step"))
    said = [event for event in ran.events("verdict") if event["rule"] == "no_signal"]
    if algorithm == "reinforce_pp":
        assert not said
        return
    assert len(said) == 1, "once a stage"
    assert [step["prompts_without_signal"] for step in ran.events("step")] == [4, 4]
    assert ran.events("step")[0]["grad_norm"] < 1e-3


def test_dynamic_sampling_is_counted_in_every_step(place):
    ran = place.run(to="scarce", **SCARCE)
    steps = ran.events("step")
    assert any(step["extra_prompts"] for step in steps)
    for step in steps:
        sampled = 4 + step["extra_prompts"]
        assert step["prompts_left_without_signal"] <= step["prompts_without_signal"] <= sampled


def test_a_run_with_dynamic_sampling_that_is_killed_ends_like_one_that_is_not(tmp_path):
    Workplace(tmp_path).write("rare.py", RARE)
    changes = {**SCARCE, "checkpoint": {"every_seconds": 0}}
    assert attempt(tmp_path, "undisturbed", changes)
    expected = left_behind(tmp_path / "undisturbed")
    assert any(e.get("extra_prompts") for events in expected["events"].values() for e in events)
    for directory in cut_short(tmp_path, changes, kills=3, furthest=60):
        found = left_behind(directory)
        for part, value in expected.items():
            assert found[part] == value, part
