"""The letter about a run, and the command that writes it."""

import json
import os
import subprocess
import sys

import pytest
from helpers import foreign_runs as runs

from keel.cli.main import main
from keel.diagnose.letter import write_letter
from keel.diagnose.paper import as_json, markdown


def letter_for(log, tmp_path, *overrides):
    return write_letter(runs.trainer_state(log, tmp_path), overrides)


def advised(letter):
    return [advice.setting for advice in letter.advice]


@pytest.mark.parametrize("log", [runs.grpo, runs.ppo, runs.openrlhf, runs.dpo, runs.reward, runs.sft])
def test_a_run_that_is_well_is_called_healthy_and_gets_settings_to_try(log, tmp_path):
    letter = letter_for(log(), tmp_path)
    assert (letter.status, letter.level, letter.headline) == ("healthy", "ok", "Healthy.")
    assert len(letter.advice) == 3
    assert letter.went_well


@pytest.mark.parametrize(
    ("log", "rule", "setting"),
    [
        (runs.grpo_length_hack, "length_growth", "reward_funcs"),
        (runs.grpo_collapse, "entropy_collapse", "entropy_coef"),
        (runs.ppo_drift, "distance", "kl_coef"),
        (runs.openrlhf_drift, "distance", "--algo.kl.init_coef"),
        (runs.openrlhf_hack, "length_growth", "--reward.overlong_buffer_len"),
        (runs.dpo_overfit, "overfitting", "num_train_epochs"),
        (runs.dpo_displaced, "chosen_falls", "beta"),
        (runs.reward_noise, "pair_accuracy", "train_dataset"),
        (runs.ppo_nan, "not_finite", "learning_rate"),
    ],
)
def test_a_planted_fault_is_named_with_a_setting_of_the_tool_that_answers_it(log, rule, setting, tmp_path):
    letter = letter_for(log(), tmp_path)
    assert letter.status == "unwell"
    assert letter.findings[0].verdict.rule == rule
    assert advised(letter)[0] == setting
    assert letter.cause
    assert letter.evidence


def test_the_letter_says_since_when(tmp_path):
    assert letter_for(runs.dpo_overfit(), tmp_path).headline == "Unwell: learning by heart since update 40."
    assert letter_for(runs.ppo_nan(), tmp_path).findings[0].since == 31


def test_a_setting_whose_value_the_log_holds_gets_a_new_one(tmp_path):
    letter = letter_for(runs.dpo_displaced(), tmp_path)
    (rate,) = [advice for advice in letter.advice if advice.setting == "learning_rate"]
    assert rate.had == pytest.approx(5e-7)
    assert rate.to == "2.5e-07"


def test_a_score_that_never_rose_is_answered_by_what_its_remedy_says(tmp_path):
    """A policy that hardly moved is not told to move less."""
    flat = {"reward": runs.line(0.5, 0.5, 0.02), "kl": 0.001}
    letter = letter_for(runs.grpo(**flat), tmp_path / "penalty")
    (finding,) = letter.findings
    assert finding.verdict.rule == "score_flat"
    assert finding.verdict.remedy.startswith("Loosen the KL or take larger steps")
    assert advised(letter) == ["beta", "learning_rate", "num_generations"]
    assert letter.advice[0].to.startswith("halve it")
    assert letter.advice[1].to == "2e-06"
    free = [{name: value for name, value in row.items() if name != "kl"} for row in runs.grpo(**flat)]
    assert "beta" not in advised(letter_for(free, tmp_path / "free"))  # it was 0: no looser, and no tighter either


def test_a_score_that_fell_calls_for_smaller_steps(tmp_path):
    letter = letter_for(runs.grpo(reward=runs.line(0.6, 0.2, 0.02)), tmp_path)
    assert letter.findings[0].verdict.rule == "score_course"
    assert (letter.advice[0].setting, letter.advice[0].to) == ("learning_rate", "5e-07")


def first_ppo(coefficient):
    """TRL's PPOTrainer before 0.12, whose KL runs away in the second half."""
    log = runs.rows({"ppo/mean_scores": runs.line(0, 2, 0.05), "objective/kl": runs.line(0, 60, since=30)})
    return [row | {"objective/kl_coef": 0.2 * coefficient**at} for at, row in enumerate(log)]


def test_where_a_controller_steered_the_kl_its_target_is_what_to_change(tmp_path):
    fixed = letter_for(first_ppo(1.0), tmp_path / "fixed").advice[0]
    assert (fixed.setting, fixed.had, fixed.to) == ("init_kl_coef", 0.2, "0.4")
    steered = letter_for(first_ppo(0.98), tmp_path / "steered")
    assert (steered.advice[0].setting, steered.advice[0].to) == ("target", "halve it (the default is 6)")
    assert "init_kl_coef" not in advised(steered)
    assert steered.examined[0].stage.set_to["kl_coef"] == 0.2


def test_what_the_tool_does_by_default_is_not_advised_while_there_is_anything_else(tmp_path):
    letter = letter_for(runs.grpo(**{"clip_ratio/region_mean": 0.6}), tmp_path)
    assert letter.findings[0].verdict.rule == "update_size"
    assert advised(letter) == ["learning_rate", "epsilon", "beta"]


def test_what_the_log_cannot_say_is_listed(tmp_path):
    rules = {verdict.rule for verdict in letter_for(runs.ppo(), tmp_path).not_judged}
    assert {"length_growth", "unfinished_answers", "entropy_collapse"} <= rules


def test_without_a_kl_in_the_log_grpo_had_none(tmp_path):
    log = [{name: value for name, value in row.items() if name != "kl"} for row in runs.grpo_length_hack()]
    (beta,) = [advice for advice in letter_for(log, tmp_path).advice if advice.setting == "beta"]
    assert beta.had == 0
    assert beta.to.startswith("0.04")


def test_evidence_says_what_changed_and_when(tmp_path):
    letter = letter_for(runs.dpo_displaced(), tmp_path)
    (chosen,) = [entry for entry in letter.evidence if entry.figure == "chosen_logprob"]
    assert chosen.start == pytest.approx(-150, abs=2)
    assert chosen.end == pytest.approx(-207, abs=4)
    assert 25 <= chosen.changed_at <= 45


def test_a_log_of_thousands_of_steps_is_judged_alike(tmp_path):
    short = runs.grpo_length_hack()
    long = [short[at * len(short) // 3000] | {"step": at + 1} for at in range(3000)]
    letter = letter_for(long, tmp_path)
    assert letter.findings[0].verdict.rule == "length_growth"
    assert 700 < letter.findings[0].since < 1800
    assert letter.examined[0].stage.history.steps.step == 3000


def test_three_updates_cannot_be_judged(tmp_path):
    letter = letter_for(runs.dpo()[:3], tmp_path)
    assert letter.status == "unclear"
    assert letter.headline == "Too early to tell: 3 updates were logged, and it takes 5."


def test_nan_everywhere_is_unwell_and_no_error(tmp_path):
    log = [dict.fromkeys(row, float("nan")) | {"step": row["step"]} for row in runs.grpo()]
    letter = letter_for(log, tmp_path)
    assert (letter.status, letter.level) == ("unwell", "stop")
    assert "NaN" not in as_json(letter)


def test_the_markdown_is_one_page_with_every_part(tmp_path):
    page = markdown(letter_for(runs.dpo_displaced(), tmp_path))
    headings = [line for line in page.splitlines() if line.startswith("#")]
    assert headings[0] == "# Unwell: chosen answers becoming less likely since update 19."
    assert headings[1:6] == [
        "## Cause",
        "## Findings",
        "## Evidence, from start to end",
        "## What went well",
        "## The next settings to try",
    ]
    assert len(page.splitlines()) < 70


def test_the_command_prints_json_writes_markdown_and_keeps_its_exit_status(tmp_path, capsys):
    path = str(runs.trainer_state(runs.dpo_displaced(), tmp_path))
    assert main(["diagnose", path, "--json", "--out", str(tmp_path / "new" / "letter.md")]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["status"] == "unwell"
    assert document["findings"][0]["rule"] == "chosen_falls"
    assert document["tool"] == "TRL"
    assert (tmp_path / "new" / "letter.md").read_text().startswith("# Unwell")
    assert main(["diagnose", path]) == 0
    assert "Unwell: chosen answers" in capsys.readouterr().out
    assert main(["diagnose", path, "--fail-on", "act"]) == 1
    assert main(["diagnose", path, "--fail-on", "stop"]) == 0


def test_a_terminal_without_unicode_gets_the_letter_too(tmp_path):
    path = runs.trainer_state(runs.dpo_displaced(), tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "keel.cli.main", "diagnose", str(path)],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stderr.count(b"Traceback")) == (0, 0)
    assert b"Unwell: chosen answers" in done.stdout
    assert b"5e-07 ? 2.5e-07" in done.stdout


def test_lines_can_be_drawn_elsewhere(tmp_path, capsys):
    path = str(runs.trainer_state(runs.dpo_displaced(), tmp_path))
    assert main(["diagnose", path, "-s", "kl_stop_per_sequence=100", "--fail-on", "act"]) == 0
    assert main(["diagnose", path, "-s", "kl_stop_per_sequnce=100"]) == 2
    assert "kl_stop_per_sequence" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["nowhere", "empty.jsonl", "."])
def test_what_cannot_be_read_is_one_message_and_status_two(name, tmp_path, capsys):
    (tmp_path / "empty.jsonl").write_text("")
    assert main(["diagnose", str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("keel: ")
    assert "Traceback" not in error


def test_a_letter_needs_no_torch(tmp_path):
    path = runs.trainer_state(runs.grpo(), tmp_path)
    code = f"import sys; from keel.cli.main import main; main(['diagnose', {str(path)!r}]); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
