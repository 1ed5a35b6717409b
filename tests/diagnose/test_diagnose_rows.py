"""Logs read as rows, whatever wrote them."""

import json
import math

import pytest
from helpers import foreign_runs as runs

from keel.core.errors import ArtifactError
from keel.diagnose.read import read_log
from keel.diagnose.rows import read_rows

FORMATS = {
    "trainer_state.json": lambda log, folder: runs.trainer_state(log, folder),
    "JSON lines": lambda log, folder: runs.json_lines(log, folder / "log.jsonl"),
    "printed text": lambda log, folder: runs.printed(log, folder / "train.log"),
    "event file": lambda log, folder: runs.event_file(log, folder),
}


@pytest.mark.parametrize("written", FORMATS.values(), ids=FORMATS)
def test_every_format_gives_the_same_figures(written, tmp_path):
    log = runs.openrlhf()
    rows = read_rows(written(log, tmp_path))
    assert len(rows.train) == len(log)
    assert rows.train[7]["step"] == 8
    for name in ("kl", "rollout/reward_mean", "response_length"):
        assert rows.train[7][name] == pytest.approx(log[7][name], rel=1e-6)


def test_evaluations_stand_apart_under_the_same_names(tmp_path):
    rows = read_rows(runs.trainer_state(runs.dpo(), tmp_path))
    assert len(rows.evaluation) == 6
    assert rows.evaluation[0]["step"] == 10
    assert "rewards/accuracies" in rows.evaluation_names() & rows.names()
    assert not any("train_runtime" in row for row in rows.train)


def test_of_several_checkpoints_the_last_is_read(tmp_path):
    runs.trainer_state(runs.grpo()[:20], tmp_path, checkpoint=20)
    runs.trainer_state(runs.grpo(), tmp_path, checkpoint=100)
    (log,) = read_log(tmp_path).stages
    assert log.history.steps.step == 60


def test_a_step_that_was_logged_twice_counts_as_it_was_logged_last(tmp_path):
    path = tmp_path / "log.jsonl"
    lines = [{"step": 1, "policy_loss": 0.1, "reward": 1}, {"step": 2, "reward": 2}, {"step": 2, "reward": 3}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [row["reward"] for row in read_rows(path).train] == [1, 3]


def test_nan_is_kept_and_null_is_missing(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": NaN, "kl": null}\n{"step": 2, "loss": "inf"}\nnot json\n')
    first, second = read_rows(path).train
    assert math.isnan(first["loss"])
    assert "kl" not in first
    assert second["loss"] == math.inf


def test_printed_figures_of_newer_transformers_are_quoted(tmp_path):
    path = tmp_path / "out.log"
    path.write_text("{'loss': '0.6931', 'grad_norm': '2.1', 'learning_rate': '5e-07', 'epoch': '0.1'}\n" * 3)
    rows = read_rows(path).train
    assert rows[0]["learning_rate"] == 5e-7
    assert [row["step"] for row in rows] == [1, 2, 3]


def test_figures_behind_a_progress_bar_are_read_where_nothing_else_was_printed(tmp_path):
    path = tmp_path / "old.log"
    bar = "Episode [1/1]:  {0}%|## | {0}/9 [00:1{0}<00:50, 1.1s/it, policy_loss=-0.01, kl=0.{0}, reward=1.{0}, response_length=90]"
    path.write_text("\r".join(bar.format(at) for at in (1, 1, 2, 3)))
    log = read_log(path)
    assert (log.tool, log.stages[0].name) == ("OpenRLHF", "rl")
    assert log.stages[0].history.steps.values("kl_nats_per_token").tolist() == [0.1, 0.2, 0.3]


def test_an_event_file_of_tensorboard_itself_is_read(tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_text("train/generated_samples", "hello", 1)
        for step in range(1, 200):
            writer.add_scalar("train/reward", 0.1 * step, step)
            writer.add_scalar("train/policy_loss", -0.1, step, new_style=True)
    rows = read_rows(tmp_path).train
    assert len(rows) == 199
    assert rows[149] == pytest.approx({"reward": 15.0, "policy_loss": -0.1, "global_step": 150, "step": 150})


def test_half_an_event_file_is_read_as_far_as_it_goes(tmp_path):
    path = runs.event_file(runs.openrlhf(), tmp_path)
    path.write_bytes(path.read_bytes()[:-7])
    assert len(read_rows(path).train) == 60


@pytest.mark.parametrize(
    ("log", "trainer", "kind"),
    [
        (runs.grpo, "GRPOTrainer", "rl"),
        (runs.ppo, "PPOTrainer (", "rl"),
        (runs.dpo, "DPOTrainer", "preference"),
        (runs.reward, "RewardTrainer", "reward"),
        (runs.sft, "SFTTrainer", "sft"),
        (runs.openrlhf, "train_ppo_ray", "rl"),
    ],
)
def test_the_trainer_is_known_by_its_figures(log, trainer, kind, tmp_path):
    found = read_log(runs.trainer_state(log(), tmp_path))
    assert found.trainer.startswith(trainer)
    assert found.stages[0].kind == kind


def test_units_are_those_of_the_source(tmp_path):
    """objective/kl is per answer, GRPO's kl and OpenRLHF's per token; none is made of the other."""

    def figures(log, folder):
        return set(read_log(runs.trainer_state(log, tmp_path / folder)).stages[0].history.steps.rows[-1])

    ppo, grpo, openrlhf = figures(runs.ppo(), "a"), figures(runs.grpo(), "b"), figures(runs.openrlhf(), "c")
    assert "kl_nats_per_sequence" in ppo
    assert "kl_nats_per_token" not in ppo
    assert "kl_nats_per_token" in grpo & openrlhf
    assert "kl_nats_per_sequence" not in grpo | openrlhf
    assert "entropy_nats" not in ppo  # padding is averaged in


def test_what_follows_from_two_figures_is_worked_out(tmp_path):
    stage = read_log(runs.trainer_state(runs.ppo(), tmp_path)).stages[0]
    assert stage.set_to["kl_coef"] == pytest.approx(0.05)
    assert stage.set_to["learning_rate"] == pytest.approx(3e-6)


def test_a_kl_of_zero_throughout_was_not_measured(tmp_path):
    log = read_log(runs.json_lines(runs.openrlhf(kl=0.0, logprobs_diff=0.0), tmp_path / "log.jsonl"))
    assert not len(log.stages[0].history.steps.known("kl_nats_per_token"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("hello\nworld\n", "no step with figures in it. Looked for: keel"),
        ('{"step": 1, "temperature": 3}\n', "these figures are no trainer's that keel knows: temperature"),
    ],
)
def test_a_file_that_is_no_log_is_refused_with_what_was_looked_for(content, message, tmp_path):
    path = tmp_path / "log.txt"
    path.write_text(content)
    with pytest.raises(ArtifactError, match=message):
        read_log(path)


def test_a_folder_without_a_log_or_with_several_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"Looked for: events.jsonl \(keel\), trainer_state.json"):
        read_log(tmp_path)
    for name in ("a.log", "b.log"):
        (tmp_path / name).write_text("x")
    with pytest.raises(ArtifactError, match=r"several logs: a.log, b.log"):
        read_log(tmp_path)
    with pytest.raises(ArtifactError, match="no such file"):
        read_log(tmp_path / "nowhere")
