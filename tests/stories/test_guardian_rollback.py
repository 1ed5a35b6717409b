"""A run that passes a line goes back to where it was well, with changed settings, and stops when that does not help."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from helpers.guarded_stories import PEOPLE, TIGHTENED, actions, alarmed, laid, weights
from helpers.recipes import Ran, Workplace

from keel.stages.align import Aligner
from keel.train.resume import Snapshots, load_checkpoint, load_tensors, own_tensors


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("guarded"))
    place.write("people.py", PEOPLE)
    return place


class Witness:
    """What lay on disk and in memory while a run was rolled back."""

    def __init__(self) -> None:
        self.went_back: list[tuple[int, bool, bool]] = []
        """Step that it went back to, whether the weights and whether the optimiser's state are the snapshot's."""
        self.on_disk: list[int] = []
        """Snapshots that lay there after each was written."""

    def watch(self) -> Any:
        roll_back, save, witness = Aligner.roll_back, Snapshots.save, self

        def rolling_back(self: Aligner, *arguments: Any) -> dict[str, Any]:
            state = roll_back(self, *arguments)
            to_step = self.guardian.memory.abandoned[-1][0]
            snapshot = load_checkpoint(self.guardian.snapshots._path(to_step))
            same = [equal(own_tensors(m), snapshot, name) for name, m in self.learner.cast.modules.items()]
            optimizer = equal(self.learner.optimizer.tensors(), snapshot, "optimizer")
            witness.went_back.append((to_step, all(same), optimizer))
            return state

        def saving(self: Snapshots, *arguments: Any, **named: Any) -> None:
            save(self, *arguments, **named)
            witness.on_disk.append(len(list(self.folder.iterdir())))

        return patch.multiple(Aligner, roll_back=rolling_back), patch.multiple(Snapshots, save=saving)


def equal(tensors: dict[str, torch.Tensor], snapshot: Any, name: str) -> bool:
    saved = load_tensors(snapshot.folder / f"{name}.safetensors")
    return tensors.keys() == saved.keys() and all(torch.equal(tensors[n], saved[n]) for n in saved)


def run(place: Workplace, to: str, **changes: Any) -> Ran:
    return place.run(to=to, **alarmed(**changes))


@pytest.fixture(scope="module")
def stopped(place) -> tuple[Ran, Witness]:
    """The run of ALARMED, watched."""
    witness = Witness()
    first, second = witness.watch()
    with first, second:
        return run(place, "stopped"), witness


def test_an_alarm_goes_back_and_says_why_and_what_it_changed(stopped):
    ran, _ = stopped
    *earlier, last = actions(ran)
    assert [action["action"] for action in earlier] == ["roll_back", "roll_back"]
    assert last["action"] == "stop"
    coefficient = 0.05
    for action in actions(ran):
        assert action["taken"]
        assert action["to_step"] <= action["step"] - 2
        assert action["rules"] == ["kl_bands"]
        assert action["evidence"][0]["level"] == "stop"
        assert action["evidence"][0]["figures"]["kl_nats_per_sequence"] > 1.0
        assert action["reason"]
        assert action["remedy"]
    for action in earlier:
        before, after = action["before"]["kl_coef"], action["after"]["kl_coef"]
        assert before == pytest.approx(coefficient, rel=0.01)  # the adaptive controller moves it a little
        assert after == pytest.approx(3 * before)
        coefficient = after
    assert last["after"] == {}


def test_steps_go_on_counting_and_updates_after_the_way_back_use_the_new_coefficient(stopped):
    ran, _ = stopped
    steps = ran.events("step")
    assert [step["step"] for step in steps] == list(range(1, actions(ran)[-1]["step"] + 1))
    coefficients = {step["step"]: step["kl_coef"] for step in steps}
    for action in actions(ran)[:-1]:
        assert coefficients[action["step"] + 1] == action["after"]["kl_coef"]


def test_weights_and_optimiser_are_the_snapshots_bit_for_bit(stopped):
    ran, witness = stopped
    assert witness.went_back == [(action["to_step"], True, True) for action in actions(ran)]


def test_what_follows_is_sampled_from_the_restored_policy(stopped):
    """The ratio of the first optimiser step is 1 only where the sampler had the very weights that are trained."""
    ran, _ = stopped
    first = {step["step"]: step["first_log_ratio_max"] for step in ran.events("step")}
    assert all(first[action["step"] + 1] < 1e-4 for action in actions(ran)[:-1])
    measured = [(e["step"], e) for e in ran.events("evaluated")]
    back = [action for action in actions(ran) if action["to_step"] in dict(measured)]
    assert back
    for action in back:
        then = next(e for step, e in measured if step == action["to_step"])
        again = [e for step, e in measured if step == action["step"]][-1]
        for name in ("kl_nats_per_sequence", "score_mean", "entropy_nats_sampled", "response_tokens_mean"):
            assert again[name] == then[name]


def test_the_policy_that_is_kept_in_the_end_is_the_last_healthy_one(stopped, place):
    ran, _ = stopped
    to_step = actions(ran)[-1]["to_step"]
    assert ran.artifact("ppo").metrics["kept_update"] == to_step
    shown = ran.events("evaluated")[-1]
    assert ran.artifact("ppo").metrics["kl_nats_per_sequence"] == shown["kl_nats_per_sequence"]
    last = run(place, "stopped, last", ppo={"keep": "last"})
    assert weights(last) == weights(ran)


def test_snapshots_are_few_and_gone_after_the_stage(stopped, place):
    ran, witness = stopped
    assert max(witness.on_disk) <= 2 * 2  # guardian.snapshots is 2, and no checkpoint came within the run
    assert list((ran.directory / "checkpoints").glob("*")) == []
    often, watched = Witness(), {}
    first, second = often.watch()
    with first, second:
        watched = run(
            place,
            "often",
            guardian={"snapshot_every": 1},
            thresholds={"kl_stop_per_sequence": 1e6},
            ppo={"updates": 12},
        )
    assert actions(watched) == []
    assert len(often.on_disk) == 13
    assert max(often.on_disk) <= 2


def test_without_a_rollback_to_spend_the_first_alarm_ends_the_stage(place):
    ran = run(place, "none", guardian={"actions": {"max_rollbacks": 0}})
    (action,) = actions(ran)
    assert action["action"] == "stop"
    assert action["to_step"] <= action["step"] - 2
    assert ran.artifact("ppo").metrics["kl_nats_per_sequence"] == ran.events("evaluated")[-1]["kl_nats_per_sequence"]
    assert ran.artifact("ppo").metrics["updates"] == action["step"]


def test_an_alarm_at_the_last_update_still_keeps_the_last_healthy_policy(place):
    steady = {"keep": "last", "optim": {"schedule": "constant", "warmup_share": 0.0}}
    whole = run(place, "whole", ppo=steady)
    alarm = actions(whole)[0]["step"]
    ran = run(place, "short", ppo={**steady, "updates": alarm})
    last = actions(ran)[-1]
    assert last["step"] == alarm
    assert last["to_step"] <= alarm - 2
    assert ran.artifact("ppo").metrics["kl_nats_per_sequence"] == ran.events("evaluated")[-1]["kl_nats_per_sequence"]


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_other_algorithms_go_back_too(algorithm, place):
    ran = run(place, algorithm, ppo={"algorithm": algorithm})
    assert {action["action"] for action in actions(ran)} >= {"roll_back"}
    back = actions(ran)[0]
    following = next(step for step in ran.events("step") if step["step"] == back["step"] + 1)
    assert following["kl_coef"] == back["after"]["kl_coef"]


def test_the_coefficient_stays_within_the_recipes_limits(place):
    ran = run(place, "limits", ppo={"kl": {"initial": 0.05, "low": 0.01, "high": 0.1}})
    raised = [action["after"].get("kl_coef", 0.1) for action in actions(ran)]
    assert raised[0] == 0.1
    assert max(raised) <= 0.1


def test_patience_counts_from_the_way_back(place):
    ran = run(place, "patience", ppo={"patience": 6, "evaluate_every": 1})
    assert actions(ran)[0]["step"] <= 6  # the objective falls from the start, so that update 6 would have been the last
    assert len(ran.events("step")) > 6


class TestAGuardianThatDoesNotAct:
    @pytest.fixture(scope="class")
    def silent(self, place) -> Ran:
        return run(place, "silent", guardian={"mode": "silent"})

    def test_silence_keeps_verdicts_only(self, silent):
        assert actions(silent) == []
        assert any(v["rule"] == "kl_per_sequence" and v["level"] == "stop" for v in silent.events("verdict"))
        assert len(silent.events("step")) == 10

    def test_advice_changes_nothing(self, silent, place):
        advised = run(place, "advised", guardian={"mode": "advise"})
        assert weights(advised) == weights(silent)
        assert actions(advised)
        for action in actions(advised):
            assert (action["action"], action["taken"]) == ("roll_back", False)
            assert "to_step" not in action
            assert action["after"]["kl_coef"] > action["before"]["kl_coef"]

    def test_a_rule_that_may_only_advise_changes_nothing_not_even_at_the_end(self, silent, place):
        advised = run(place, "one rule", guardian={"mode": "act", "rules": {"kl_bands": "advise"}})
        assert weights(advised) == weights(silent)
        assert actions(advised)
        assert not any(action["taken"] for action in actions(advised))

    def test_a_rule_that_is_off_is_not_heard(self, silent, place):
        off = run(place, "off", guardian={"rules": {"kl_bands": "silent"}})
        assert weights(off) == weights(silent)
        assert actions(off) == []

    def test_a_healthy_run_is_not_touched(self, silent, place):
        watched = run(place, "healthy", thresholds={"kl_stop_per_sequence": 1e6}, guardian={"snapshot_every": 1})
        assert actions(watched) == []
        assert weights(watched) == weights(silent)

    def test_nor_is_one_whose_policy_judges_look_at(self, silent, place):
        checks = {"judge": "people.py:judge", "every": 3, "pairs": 4}
        watched = run(place, "looked at", thresholds={"kl_stop_per_sequence": 1e6}, guardian={"checks": checks})
        assert {3, 6, 9} <= {e["step"] for e in watched.events("asked")}
        assert {action["action"] for action in actions(watched)} <= {"ask_humans"}
        assert weights(watched) == weights(silent)


@pytest.mark.parametrize(
    "changes",
    [
        {"ppo": {"updates": 3}},
        {"ppo": {"updates": 8, "max_new_tokens": 1}},
        {"ppo": {"updates": 8, "rewards": [{"name": "same", "python": "people.py:constant"}]}},
        {"ppo": {"updates": 8, "prompts": 1, "samples": 1, "evaluate_prompts": 1}},
    ],
    ids=["three updates", "one token", "constant reward", "one sample"],
)
def test_no_action_on_no_evidence(changes, place, tmp_path):
    checks = {"judge": "people.py:judge", "every": 2, "pairs": 6}
    ran = run(
        place,
        Path(tmp_path).name,
        ppo={**changes["ppo"], "optim": {"learning_rate": 1e-4}},
        guardian={"checks": checks, "snapshot_every": 1},
        thresholds={"kl_stop_per_sequence": 20.0},
    )
    assert actions(ran) == []
    assert len(ran.events("step")) == changes["ppo"]["updates"]


def changes(ran):
    return [action for action in actions(ran) if action["action"] != "ask_humans"]


def test_tightened_settings_that_do_not_help_are_followed_by_the_way_back(place):
    ran = run(place, "tightened", **TIGHTENED)
    first, second = changes(ran)[:2]
    assert (first["action"], first["taken"], first.get("to_step")) == ("tighten", True, None)
    assert first["after"]["kl_coef"] == pytest.approx(3 * first["before"]["kl_coef"])
    coefficients = {step["step"]: step["kl_coef"] for step in ran.events("step")}
    assert coefficients[first["step"] + 1] == pytest.approx(first["after"]["kl_coef"])
    assert (second["action"], second["step"]) == ("roll_back", first["step"] + 2)
    assert second["reason"].startswith("Dearer settings have not helped: ref_perplexity is ")
    assert second["to_step"] < first["evidence"][0]["figures"]["since"]
    # one trouble, one rise of the coefficient
    assert coefficients[second["step"] + 1] == pytest.approx(coefficients[second["step"]], rel=0.05)


@pytest.mark.parametrize("judges", [laid(TIGHTENED["guardian"], {"checks": {"every": 0}}), TIGHTENED["guardian"]])
def test_no_way_back_where_no_judge_is_asked_or_judges_are_content(place, judges):
    lines = TIGHTENED["thresholds"] | {"human_least_gain": 0.5, "human_drop_act": 1e-9}
    ran = run(place, f"spared {judges['checks']['every']}", **{**TIGHTENED, "guardian": judges, "thresholds": lines})
    reasons = [action["reason"] for action in changes(ran)]
    assert any(action["action"] == "tighten" for action in changes(ran))
    assert not any(reason.startswith("Dearer settings have not helped") for reason in reasons)
