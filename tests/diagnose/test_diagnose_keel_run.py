"""keel's own run folders as logs: stages, rounds, what rules said at the time, what was done."""

import json
from pathlib import Path

import pytest
from helpers import report_runs

from keel.core.errors import ArtifactError
from keel.core.events import EventLog
from keel.diagnose.letter import write_letter
from keel.diagnose.paper import markdown
from keel.diagnose.read import read_log


def log_of(folder: Path, steps: int = 30, **figures) -> EventLog:
    """A run of RL whose KL and score rise gently."""
    log = EventLog(folder / "events.jsonl")
    log.append(
        "stage_started", stage="ppo 1", config={"algorithm": "rloo", "kl": {"controller": "fixed", "initial": 0.1}}
    )
    for step in range(1, steps + 1):
        usual = {"score_mean": 0.02 * step, "kl_nats_per_token": 0.005 * step, "kl_nats_per_sequence": 0.1 * step}
        usual |= {"length_reward_correlation": 0.5}
        log.append("step", stage="ppo 1", step=step, **usual | {name: of(step) for name, of in figures.items()})
    return log


@pytest.mark.parametrize("kind", report_runs.KINDS)
def test_every_kind_of_run_gets_a_letter(kind, tmp_path):
    letter = write_letter(report_runs.write_run(tmp_path / kind, kind))
    assert letter.log.tool == "keel"
    assert (letter.status == "unwell") == (kind == "hacked")
    assert letter.advice
    assert markdown(letter)


def test_a_run_can_be_named_by_its_events_too(tmp_path):
    log_of(tmp_path)
    assert read_log(tmp_path / "events.jsonl").path == tmp_path


def test_each_round_is_a_stage_and_only_the_last_is_judged_as_the_outcome(tmp_path):
    letter = write_letter(report_runs.write_run(tmp_path, "rounds"))
    rounds = [one.stage for one in letter.examined if one.stage.kind == "rl"]
    assert len(rounds) > 1
    assert [stage.over for stage in rounds] == [True] * (len(rounds) - 1) + [False]


def test_what_a_rule_said_at_the_time_is_over_when_it_kept_silent_since(tmp_path):
    log = log_of(tmp_path)
    for step in (8, 9):
        log.append("verdict", stage="ppo 1", step=step, level="act", rule="odd", message="odd", figures={}, remedy="")
    (finding,) = write_letter(tmp_path).findings
    assert (finding.since, finding.until) == (8, 9)
    log.append("verdict", stage="ppo 1", step=29, level="act", rule="odd", message="odd", figures={}, remedy="")
    (finding,) = write_letter(tmp_path).findings
    assert (finding.since, finding.until) == (29, None)


def test_steps_that_a_rollback_left_behind_do_not_count(tmp_path):
    def drift(step):
        return 40.0 if 20 < step <= 25 else 3.0

    log = log_of(tmp_path, steps=40, kl_nats_per_sequence=drift)
    log.append(
        "action",
        stage="ppo 1",
        step=25,
        action="roll_back",
        taken=True,
        rules=["kl_per_sequence"],
        evidence=[],
        reason="The KL left its line.",
        before={"kl.initial": 0.1},
        after={"kl.initial": 0.3},
        to_step=20,
        remedy="",
    )
    letter = write_letter(tmp_path)
    steps = [row["step"] for row in letter.examined[0].stage.history.steps.rows]
    assert steps == [*range(1, 21), *range(26, 41)]
    assert letter.status == "healthy"
    assert "update 25: roll back to update 20 (kl.initial 0.1 → 0.3). The KL left its line." in markdown(letter)


def acted(log, step, **changed):
    log.append("action", **{"stage": "ppo 1", "step": step, "action": "roll_back", "taken": True} | changed)


def test_advice_starts_from_what_was_changed_while_the_run_went_on(tmp_path):
    log = log_of(tmp_path, kl_nats_per_sequence=lambda step: 2.0 * step, response_tokens_mean=longer)
    acted(log, 15, to_step=14, after={"kl_coef": 0.3, "length_penalty": 0.8, "learning_rate_factor": 0.5})
    acted(log, 16, taken=False, after={"kl_coef": 9.0})
    acted(log, 17, action="lower_kl", after={"kl_coef": 0.25, "missing_eos_ceiling": None})
    letter = write_letter(tmp_path)
    changes = {advice.setting: (advice.had, advice.to) for advice in letter.advice}
    assert changes["ppo.kl.initial"] == (0.25, "0.5")
    assert changes["ppo.shaping.length_penalty"] == (0.8, "1.6")
    acted(log, 18, after={"entropy_coef": 0.02})
    assert read_log(tmp_path).stages[0].set_to["rloo.entropy_coef"] == 0.02


@pytest.mark.parametrize("action", ["roll_back", "stop"])
def test_the_evaluation_made_after_going_back_counts_and_the_one_before_does_not(action, tmp_path):
    log = log_of(tmp_path, steps=25)
    for step in (0, 15, 20, 25):
        log.append("evaluated", stage="ppo 1", step=step, objective=float(step))
    acted(log, 25, action=action, to_step=17, after={})
    log.append("evaluated", stage="ppo 1", step=25, objective=17.0)
    history = read_log(tmp_path).stages[0].history
    assert [(row["step"], row["objective"]) for row in history.evaluations.rows] == [(0, 0.0), (15, 15.0), (25, 17.0)]
    assert history.steps.step == 17
    for step in (26, 30):
        log.append("evaluated", stage="ppo 1", step=step, objective=float(step))
    acted(log, 30, to_step=24, after={})
    log.append("evaluated", stage="ppo 1", step=30, objective=17.0)
    rows = read_log(tmp_path).stages[0].history.evaluations.rows
    assert [row["step"] for row in rows] == [0, 15, 30]


def test_what_was_said_during_the_run_could_be_judged(tmp_path):
    log = log_of(tmp_path)
    before = {verdict.rule for verdict in write_letter(tmp_path).not_judged}
    assert {"reward_disagreement", "entropy_collapse"} <= before
    for rule in ("reward_disagreement", "mode_collapse"):  # the second is the same as entropy_collapse
        log.append("verdict", stage="ppo 1", step=30, level="ok", rule=rule, message="Fine.", figures={}, remedy="")
    after = {verdict.rule for verdict in write_letter(tmp_path).not_judged}
    assert after == before - {"reward_disagreement", "entropy_collapse", "mode_collapse"}


@pytest.mark.parametrize("to_step", [None, "earlier", 17.5])
def test_a_rollback_to_no_step_leaves_nothing_behind(to_step, tmp_path):
    acted(log_of(tmp_path), 25, to_step=to_step)
    assert len(read_log(tmp_path).stages[0].history.steps) == 30


def test_labels_that_raters_agree_on_are_not_asked_to_agree_more(tmp_path):
    def advised_with(alpha, folder):
        log = EventLog(folder / "events.jsonl")
        log.append("agreement", stage="data", krippendorff_alpha=alpha)
        log.append("stage_started", stage="reward", config={"epochs": 2, "optim": {"learning_rate": 1e-4}})
        for step in range(1, 31):
            log.append("step", stage="reward", step=step, loss=0.69, accuracy=0.5)
        return [advice.setting for advice in write_letter(folder).advice]

    assert advised_with(0.2, tmp_path / "low")[0] == "data.override_agreement"
    assert "data.override_agreement" not in advised_with(0.56, tmp_path / "high")


def longer(step):
    return 30.0 + 2 * max(0, step - 10)


def stranger(step):
    return 3.0 + 0.06 * max(0, step - 10)


def test_one_sign_alone_is_watched_and_two_of_different_kinds_are_acted_upon(tmp_path):
    log_of(tmp_path / "one", response_tokens_mean=longer)
    (sign,) = write_letter(tmp_path / "one").findings
    assert (sign.verdict.rule, sign.verdict.level) == ("length_hacking", "watch")
    log_of(tmp_path / "two", response_tokens_mean=longer, ref_perplexity=stranger)
    letter = write_letter(tmp_path / "two")
    assert letter.status == "unwell"
    assert {finding.verdict.rule for finding in letter.findings} == {"length_hacking", "off_distribution"}


def test_trouble_that_passed_is_told_as_such(tmp_path):
    def for_a_while(of):
        return lambda step: of(min(step, 24)) if step <= 24 else of(0)

    log_of(tmp_path, 60, response_tokens_mean=for_a_while(longer), ref_perplexity=for_a_while(stranger))
    letter = write_letter(tmp_path)
    assert letter.status == "healthy"
    assert letter.headline.startswith("Recovered: ")
    assert 14 < letter.findings[0].since < letter.findings[0].until < 34


def test_the_run_is_judged_by_the_lines_of_its_recipe(tmp_path):
    log_of(tmp_path, kl_nats_per_sequence=lambda step: 30.0, kl_nats_per_token=lambda step: 0.45)
    assert write_letter(tmp_path).status == "unwell"
    (tmp_path / "recipe.yaml").write_text("thresholds: {kl_stop_per_sequence: 50}\n")
    assert write_letter(tmp_path).status == "healthy"


def test_settings_are_keys_of_the_recipe_with_the_values_they_had(tmp_path):
    log_of(tmp_path, kl_nats_per_sequence=lambda step: 2.0 * step)
    first = write_letter(tmp_path).advice[0]
    assert (first.setting, first.had, first.to) == ("ppo.kl.initial", 0.1, "0.2")


def test_a_run_that_has_not_trained_yet_is_refused(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    log.append("stage_started", stage="data prompts", config={})
    with pytest.raises(ArtifactError, match="holds no step of a training stage yet, only events of: data prompts"):
        read_log(tmp_path)
    (tmp_path / "events.jsonl").write_text("")
    with pytest.raises(ArtifactError, match="is empty"):
        read_log(tmp_path)


def test_a_figure_written_as_null_was_no_number(tmp_path):
    log_of(tmp_path, score_mean=lambda step: None if step > 25 else 0.1)
    letter = write_letter(tmp_path)
    assert letter.headline == "Unwell: figures that are no numbers since update 26."
    assert json.loads((tmp_path / "events.jsonl").read_text().splitlines()[-1])["score_mean"] is None
