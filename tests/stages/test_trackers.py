"""Trackers: what the products themselves read back, runs that resume, products that fail."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers import tracked
from helpers.guarded_runs import events
from helpers.wandb_file import history, records

from keel.core.config import load_config
from keel.core.errors import ConfigError
from keel.core.events import EventLog, read_events
from keel.core.progress import Silent
from keel.stages.recipe import Recipe
from keel.stages.trackers import follow
from keel.stages.trackers.base import flat
from keel.stages.trackers.follow import Feed, History, Trackers, require_trackers, sent_before, tracking
from keel.stages.trackers.messages import figures_of, send, series_of, shown_stage

STEPS = list(range(1, 46))
PRIVATE = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "MLFLOW_", "TRACKIO_"))}


def track(folder: Path, product: str) -> str:
    """A run that died after update 30 and went on from a checkpoint at 25 to update 45; what it said."""
    pytest.importorskip(product, reason=f"the optional library {product} is not installed")
    environment = {**PRIVATE, "TRACKIO_DIR": str(folder / "trackio"), "OMP_NUM_THREADS": "1"}
    program = [sys.executable, tracked.__file__, str(folder), product]
    first = subprocess.run(
        [*program, "1", "30", "torn"], env=environment, capture_output=True, text=True, timeout=60, cwd=folder
    )
    assert first.returncode == 9, first.stderr
    second = subprocess.run(
        [*program, "26", "45"], env=environment, capture_output=True, text=True, timeout=60, cwd=folder
    )
    assert second.returncode == 0, second.stderr
    assert "Traceback" not in first.stderr + second.stderr
    assert "goes on without it" not in first.stderr + second.stderr
    assert first.stdout + second.stdout == ""
    assert {path.name for path in folder.iterdir()} <= {
        "events.jsonl", "trackers.json", "tensorboard", "wandb", "mlruns", "mlartifacts", "mlflow.db", "trackio"
    }  # fmt: skip
    return second.stderr


def logged(folder: Path, figure: str) -> list[float]:
    return [event[figure] for event in read_events(folder / "events.jsonl") if event["event"] == "step"]


def test_tensorboard_reads_back_each_step_once(tmp_path):
    said = track(tmp_path, "tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = (tmp_path / "tensorboard").iterdir()
    assert f"tensorboard --logdir {tmp_path / 'tensorboard'}" in said
    read = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    scores = read.Scalars("ppo/score_mean")
    assert [scalar.step for scalar in scores] == STEPS
    assert [scalar.value for scalar in scores] == pytest.approx(logged(tmp_path, "score_mean"))
    assert [scalar.step for scalar in read.Scalars("ppo/held_out/score")] == [0, 10, 20, 30, 40]
    assert [scalar.step for scalar in read.Scalars("ppo/judges/win_rate")] == [14, 24, 34, 44]
    assert [scalar.value for scalar in read.Scalars("ppo/alarms/value_function")] == [1, 0]
    assert read.Scalars("ppo/final/score_after")[0].value == 3.0
    texts = {
        tag: [tensor.tensor_proto.string_val[0].decode() for tensor in read.Tensors(tag)]
        for tag in read.Tags()["tensors"]
    }
    assert "model.path: model" in texts["recipe"][0]
    assert "went back to the weights of update 20" in texts["ppo/alarms/roll_back"][0]
    assert "what a wonderful question" in texts["ppo/samples"][-1]
    assert not any("\x1b" in text for text in texts["ppo/samples"])


def test_wandb_writes_the_same_run_twice_offline(tmp_path):
    said = track(tmp_path, "wandb")
    assert "wandb sync" in said
    files = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2
    assert len({file.name for file in files}) == 1
    rows = [row for file in files for row in history(file)]
    scores = [(row["ppo/step"], row["ppo/score_mean"]) for row in rows if "ppo/score_mean" in row]
    # What W&B still had in memory when the run was killed comes again, rather twice than never.
    assert sorted(dict(scores)) == STEPS
    assert list(dict(sorted(scores)).values()) == pytest.approx(logged(tmp_path, "score_mean"))
    assert len(set(scores)) == len(STEPS)
    assert {row["ppo/step"] for row in rows if "ppo/judges/win_rate" in row} == {14, 24, 34, 44}
    everything = [record for file in files for record in records(file)]
    alerts = [record.alert for record in everything if record.WhichOneof("record_type") == "alert"]
    assert {(alert.title, alert.level) for alert in alerts} >= {("ppo: act, reward_hacking", "ERROR")}
    config = {item.key: json.loads(item.value_json) for record in everything for item in record.run.config.update}
    assert config["model"]["path"] == "model"
    tables = [json.loads(file.read_text()) for file in tmp_path.rglob("samples_*.table.json")]
    assert any("what a wonderful question" in row[1] for table in tables for row in table["data"])


def test_mlflow_reads_back_each_step_once(tmp_path):
    track(tmp_path, "mlflow")
    program = f"""
import json, os
from pathlib import Path
os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
from keel.stages.trackers.mlflow import own_store
os.environ["MLFLOW_TRACKING_URI"] = own_store(Path({str(tmp_path)!r}))
from mlflow import MlflowClient
client = MlflowClient()
(run,) = client.search_runs([client.get_experiment_by_name("keel").experiment_id])
history = {{name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)] for name in run.data.metrics}}
files = [f.path for folder in ("alarms", "samples") for f in client.list_artifacts(run.info.run_id, folder)]
print(json.dumps([run.info.status, run.data.params, run.data.tags, history, files]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=PRIVATE, capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    status, params, tags, metrics, files = json.loads(done.stdout)
    assert status == "FINISHED"
    assert params["model.path"] == "model"
    scores = {(step, value) for step, value in metrics["ppo/score_mean"]}
    assert sorted(step for step, _ in scores) == STEPS
    assert [value for _, value in sorted(scores)] == pytest.approx(logged(tmp_path, "score_mean"))
    assert metrics["ppo/final/best/n"] == [[0, 4.0]]
    assert tags["alarm.ppo.reward_hacking"].startswith("act at 36")
    assert "alarms/ppo-000040-roll_back.txt" in files
    assert "samples/ppo-000040.md" in files


def test_trackio_reads_back_each_step_once(tmp_path):
    said = track(tmp_path, "trackio")
    assert "trackio show --project keel" in said
    program = """
import json, trackio
from trackio.sqlite_storage import SQLiteStorage
(run,) = trackio.Api().runs("keel")
rows = SQLiteStorage.get_logs("keel", run.name)
print(json.dumps([run.config, rows, run.alerts()], default=str))
"""
    environment = {**PRIVATE, "TRACKIO_DIR": str(tmp_path / "trackio")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    config, rows, alerts = json.loads(done.stdout)
    assert config["model"]["path"] == "model"
    scores = [(row["step"], row["ppo/score_mean"]) for row in rows if "ppo/score_mean" in row]
    assert sorted(step for step, _ in scores) == STEPS
    assert [score for _, score in sorted(scores)] == pytest.approx(logged(tmp_path, "score_mean"))
    assert {alert["title"] for alert in alerts} >= {"ppo: act, reward_hacking", "ppo: done, roll_back"}
    assert any("ppo/samples" in row for row in rows)


class Recorder:
    """A product that remembers, and breaks when told to."""

    identity, where, durable = "r1", "nowhere", True

    def __init__(self, breaks_after: int | None = None) -> None:
        self.got: list[tuple] = []
        self.breaks_after = breaks_after
        self.closed: bool | None = None

    def _take(self, *what):
        if self.breaks_after is not None and len(self.got) >= self.breaks_after:
            raise ConnectionError("no route to \x1b[31mhost")
        self.got.append(what)

    def scalars(self, stage, step, time, figures):
        self._take("scalars", stage, step, figures)

    def note(self, stage, step, time, note):
        self._take("note", stage, step, note.title)

    def samples(self, stage, step, time, samples):
        self._take("samples", stage, step, samples)

    def final(self, stage, time, figures):
        self._take("final", stage, 0, figures)

    def close(self, *, succeeded):
        self.closed = succeeded

    def steps(self, stage="ppo", figure="score_mean"):
        return [step for kind, of, step, what in self.got if kind == "scalars" and of == stage and figure in what]


class Loud(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def guarded(log, last, first=1):
    for event, _, fields in events(last):
        if first == 1 or (fields.get("step") or 0) >= first:
            log.append(event, stage="ppo", **tracked.readable(fields))


@pytest.fixture
def recipe():
    return Recipe.model_validate({"name": "x", "model": {"path": "m"}, "trackers": ["wandb"]})


@pytest.fixture
def product(monkeypatch):
    """Stands in for W&B; the last one opened."""
    opened: list[Recorder] = []
    breaks: list[int | None] = [None]

    class Module:
        @staticmethod
        def WandB(place):
            opened.append(Recorder(breaks[0]))
            return opened[-1]

    monkeypatch.setattr(follow, "import_module", lambda name: Module)
    monkeypatch.setattr(follow, "require_trackers", lambda names: None)
    return opened, breaks


def test_a_resumed_run_sends_nothing_twice(tmp_path, recipe, product):
    opened, _ = product
    log = EventLog(tmp_path / "events.jsonl")
    with tracking(recipe, tmp_path, log, Silent()):
        guarded(log, 20)
    log = EventLog(log.path)
    with tracking(recipe, tmp_path, log, Silent()):
        log.append("stage_started", stage="ppo", config={})
        log.rewind("ppo", 15)
        log.append("resumed", stage="ppo", step=15)
        guarded(log, 25, first=16)
    assert opened[0].steps() == list(range(1, 21))
    assert opened[1].steps() == list(range(21, 26))
    assert opened[1].closed is True


def test_a_tracker_that_is_new_to_a_run_catches_up(tmp_path, recipe, product):
    opened, _ = product
    log = EventLog(tmp_path / "events.jsonl")
    log.append("stage_started", stage="sft", config={})
    log.append("step", stage="sft", step=1, of=1, loss=0.5)
    log.append("stage_finished", stage="sft", seconds=1.0, reused=False, metrics={"perplexity": 1.5})
    guarded(log, 12)
    with tracking(recipe, tmp_path, log, Silent()):
        log.append("stage_finished", stage="sft", seconds=0.0, reused=True, metrics={"perplexity": 1.5})
        log.append("stage_started", stage="ppo", config={})
        log.rewind("ppo", 10)
        log.append("resumed", stage="ppo", step=10)
        guarded(log, 14, first=11)
    assert opened[0].steps() == list(range(1, 15))
    assert opened[0].steps("sft", "loss") == [1]
    assert ("final", "sft", 0, {"perplexity": 1.5}) in opened[0].got


def test_a_stage_that_is_made_anew_is_sent_again(tmp_path, recipe, product):
    opened, _ = product
    log = EventLog(tmp_path / "events.jsonl")
    with tracking(recipe, tmp_path, log, Silent()):
        guarded(log, 3)
        log.append("stage_finished", stage="ppo", seconds=1.0, reused=False, metrics={"a": 1.0})
    with tracking(recipe, tmp_path, log, Silent()):
        guarded(log, 3)
    assert opened[1].steps() == [1, 2, 3]


def test_another_recipe_is_another_run(tmp_path, recipe, product):
    log = EventLog(tmp_path / "events.jsonl")
    with tracking(recipe, tmp_path, log, Silent()):
        guarded(log, 3)
    with tracking(recipe.model_copy(update={"seed": 1}), tmp_path, log, Silent()):
        pass
    assert len(json.loads((tmp_path / "trackers.json").read_text())) == 2
    with tracking(recipe.model_copy(update={"threads": 1}), tmp_path, log, Silent()):
        pass
    assert len(json.loads((tmp_path / "trackers.json").read_text())) == 2


def test_a_tracker_that_fails_says_so_once_and_the_rest_arrives_next_time(tmp_path, recipe, product):
    opened, breaks = product
    breaks[0] = 9
    log, loud = EventLog(tmp_path / "events.jsonl"), Loud()
    with tracking(recipe, tmp_path, log, loud):
        guarded(log, 20)
    said = [text for text in loud.said if "goes on without it" in text]
    assert said == [
        r"wandb: ConnectionError: no route to \x1b[31mhost. The run goes on without it; everything is in events.jsonl."
    ]
    assert opened[0].closed is True
    arrived = opened[0].steps()
    assert 0 < len(arrived) < 20
    breaks[0] = None
    with tracking(recipe, tmp_path, log, loud):
        log.append("stage_started", stage="ppo", config={})
        log.append("resumed", stage="ppo", step=20)
    assert arrived + opened[1].steps() == list(range(1, 21))


@pytest.mark.parametrize("damage", ["[]", "{KEY: []}", '{KEY: {"wandb": []}}', "{KEY: null}", "{"])
def test_damaged_notes_cost_a_new_run_at_the_product_only(tmp_path, recipe, product, damage):
    opened, _ = product
    notes, log = tmp_path / "trackers.json", EventLog(tmp_path / "events.jsonl")
    with tracking(recipe, tmp_path, log, Silent()):
        pass
    (key,) = json.loads(notes.read_text())
    notes.write_text(damage.replace("KEY", json.dumps(key)))
    with tracking(recipe, tmp_path, log, Silent()):
        guarded(log, 3)
    assert opened[1].steps() == [1, 2, 3]
    assert json.loads(notes.read_text())[key]["wandb"]["closed"] is True


@pytest.mark.parametrize("arrived", [3, [3], [[{}, 1]], [[{"stage": "ppo", "kind": "step"}, "x"]], [["ab", "c"]]])
def test_of_a_damaged_list_of_what_arrived_everything_comes_again(arrived):
    assert sent_before({"arrived": arrived}, History([]), Recorder()) == {}


def test_a_tracker_that_cannot_be_opened_does_not_stop_the_run(tmp_path, recipe, monkeypatch):
    class Module:
        @staticmethod
        def WandB(place):
            raise TimeoutError

    monkeypatch.setattr(follow, "import_module", lambda name: Module)
    monkeypatch.setattr(follow, "require_trackers", lambda names: None)
    log, loud = EventLog(tmp_path / "events.jsonl"), Loud()
    with tracking(recipe, tmp_path, log, loud):
        guarded(log, 2)
    assert loud.said == ["wandb: TimeoutError. The run goes on without it; everything is in events.jsonl."]


def test_a_slow_tracker_costs_the_run_no_time(tmp_path, monkeypatch):
    monkeypatch.setattr(follow, "PATIENCE_S", 0.1)
    open_again = threading.Event()

    class Stuck(Recorder):
        def scalars(self, *what):
            open_again.wait(20)

    loud = Loud()
    trackers = Trackers(tmp_path / "trackers.json", "key", [Feed("slow", Stuck(), {})], History([]), loud)
    begun = time.monotonic()
    for step in range(100):
        trackers.hear({"time": 0.0, "event": "step", "stage": "ppo", "step": step, "loss": 1.0})
    trackers.close(succeeded=True)
    assert time.monotonic() - begun < 5
    assert loud.said == [
        "slow: still busy 0 s after the end. The run goes on without it; everything is in events.jsonl."
    ]
    open_again.set()


def test_an_error_of_the_run_closes_trackers_as_failed(tmp_path, recipe, product):
    opened, _ = product
    with pytest.raises(KeyboardInterrupt), tracking(recipe, tmp_path, EventLog(tmp_path / "events.jsonl"), Silent()):
        raise KeyboardInterrupt
    assert opened[0].closed is False


def test_a_rule_that_repeats_itself_is_one_note_and_many_levels():
    recorder = Recorder()
    feed = Feed("x", recorder, {})
    for step, level in enumerate(["ok", "watch", "watch", "act", "ok"]):
        feed.offer(
            {
                "time": 0.0,
                "event": "verdict",
                "stage": "ppo",
                "step": step,
                "rule": "kl",
                "level": level,
                "message": "m",
            }
        )
    assert feed.close(succeeded=True)
    assert recorder.steps(figure="alarms/kl") == [0, 1, 2, 3, 4]
    assert [title for kind, *_, title in recorder.got if kind == "note"] == [
        "ppo: watch, kl",
        "ppo: act, kl",
        "ppo: ok, kl",
    ]


def test_samples_at_an_alarm_and_those_of_the_policy_gone_back_to_are_both_sent():
    recorder = Recorder()
    feed = Feed("x", recorder, {})
    listed = [{"prompt": "p", "response": "r", "score": 1.0}]
    for moment in ({"moment": "alarm"}, {}, {}):
        feed.offer({"time": 0.0, "event": "samples", "stage": "ppo 1", "step": 6, "samples": listed, **moment})
    assert feed.close(succeeded=True)
    assert [(kind, stage, step) for kind, stage, step, _ in recorder.got] == [
        ("samples", "ppo_alarm", 6),
        ("samples", "ppo", 6),
    ]


def test_every_event_kind_can_be_sent():
    recorder = Recorder()
    for event, _, fields in events(45):
        full = {"time": 1.0, "event": event, "stage": "ppo 2", **fields}
        if series_of(full) is not None:
            send(recorder, full, news=True)
    assert {kind for kind, *_ in recorder.got} == {"scalars", "note", "samples"}
    assert {stage for _, stage, *_ in recorder.got} == {"ppo"}
    assert shown_stage({"stage": "reward 2"}) == "reward_2"


def test_only_finite_numbers_become_figures():
    values = {
        "a": 1,
        "b": None,
        "c": float("nan"),
        "d": "text",
        "e": {"f g": 2.0},
        "step": 3,
        "time": 1.0,
        "g": [1],
        "h": True,
    }
    assert figures_of(values) == {"a": 1.0, "e/f_g": 2.0, "h": 1.0}


def test_settings_are_named_by_their_path():
    recipe = Recipe.model_validate({"model": {"path": "m"}, "ppo": {"rewards": [{"name": "r", "python": "a.py:f"}]}})
    named = flat(recipe.model_dump(mode="json"))
    assert named["ppo.rewards.0.name"] == "r"
    assert named["model.path"] == "m"
    assert "sft" not in named


def test_a_missing_library_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr(follow, "find_spec", lambda name: None if name != "wandb" else object())
    require_trackers(["wandb"])
    with pytest.raises(ConfigError, match=r"mlflow, trackio are not installed.*keel-rlhf\[mlflow,trackio\]"):
        require_trackers(["mlflow", "wandb", "trackio"])


def test_an_unknown_tracker_gets_a_suggestion():
    with pytest.raises(ConfigError, match="Did you mean 'tensorboard'"):
        load_config(Recipe, None, ["model.path=x", "trackers=[tensorbord]"])
