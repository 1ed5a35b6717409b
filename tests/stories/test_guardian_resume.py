"""Killed during, before and after a rollback (signal 9), a run ends with the bits of one that was left alone."""

from typing import Any

import pytest
from helpers.guarded_stories import ALARMED, CHECKS, ON_A_REWARD_MODEL, PEOPLE, TIGHTENED, WORDY, alarmed, laid
from helpers.interrupted import attempt, cut_short, left_behind
from helpers.recipes import Workplace

STORIES: dict[str, dict[str, Any]] = {
    "ppo": alarmed(ppo={"shaping": {"normalise": "running"}, "keep": "last"}, guardian={"checks": CHECKS}),
    "rloo, lora": alarmed(ppo={"algorithm": "rloo", "lora": {"rank": 4}, "optim": {"learning_rate": 2e-2}}),
    "grpo, ends in doubt": alarmed(ppo={"algorithm": "grpo", "updates": 8}, guardian={"quiet_updates": 20}),
    "tightened first": alarmed(**TIGHTENED),
    "corrected first": alarmed(**WORDY),
    "one trunk": laid(
        ON_A_REWARD_MODEL,
        {
            "reward": {"lora": {"rank": 4}},
            "ppo": {"layout": "one_trunk", "lora": {"rank": 4}, "optim": {"learning_rate": 2e-2}},
            "guardian": {"checks": CHECKS},
        },
    )
    | {"sft": None, "evaluate": None},
    "rounds": ON_A_REWARD_MODEL
    | {
        "ppo": {**ALARMED["ppo"], "rewards": None, "updates": 5},
        "rounds": {"count": 2, "comparisons": 8, "labeller": "people.py:judge"},
    },
}


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize(("every_seconds", "kills", "furthest"), [(0, 6, 80), (1e6, 2, 250)], ids=["often", "never"])
def test_a_run_that_is_killed_about_its_rollbacks_ends_like_one_that_is_not(
    story, every_seconds, kills, furthest, tmp_path
):
    Workplace(tmp_path).write("people.py", PEOPLE)
    changes = {**STORIES[story], "checkpoint": {"every_seconds": every_seconds}}
    assert attempt(tmp_path, "undisturbed", changes)
    expected = left_behind(tmp_path / "undisturbed")
    told = [event for events in expected["events"].values() for event in events]
    assert any(event["event"] == "action" and event.get("to_step") is not None for event in told)
    for directory in cut_short(tmp_path, changes, kills, furthest):
        found = left_behind(directory)
        for part, value in expected.items():
            assert found[part] == value, part
