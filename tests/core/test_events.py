import json
import math
import time
from pathlib import Path

import numpy as np
import pytest

from keel.core.errors import ArtifactError
from keel.core.events import EventLog, read_events


def test_events_come_back_in_order_with_a_time(tmp_path):
    log = EventLog(tmp_path / "run" / "events.jsonl")
    log.append("start", stage="sft")
    log.append("step", stage="sft", step=1, loss=0.5, note="é\n")
    first, second = read_events(log.path)
    assert first["event"] == "start"
    assert abs(first["time"] - time.time()) < 60
    assert (second["step"], second["loss"], second["note"]) == (1, 0.5, "é\n")


def test_array_scalars_paths_and_what_is_not_finite_become_plain_json(tmp_path):
    log = EventLog(tmp_path / "e")
    log.append("x", a=np.float32(0.5), b=np.arange(2), c=math.nan, d=[math.inf], e=Path("a/b"), f=(1, True, None))
    event = read_events(log.path)[0]
    assert [event[key] for key in "abcdef"] == [0.5, [0, 1], None, [None], "a/b", [1, True, None]]
    with pytest.raises(TypeError, match="cannot hold a set"):
        log.append("x", a={1})
    assert len(read_events(log.path)) == 1


def test_rewinding_drops_later_steps_of_one_stage_only(tmp_path):
    log = EventLog(tmp_path / "e")
    for step in (1, 2, 3):
        log.append("step", stage="sft", step=step)
        log.append("step", stage="ppo", step=step)
    log.append("note", stage="sft")
    log.rewind("sft", 1)
    kept = [(event["stage"], event.get("step")) for event in read_events(log.path)]
    assert kept == [("sft", 1), ("ppo", 1), ("ppo", 2), ("ppo", 3), ("sft", None)]
    log.append("step", stage="sft", step=2)
    assert len(read_events(log.path)) == 6


def test_half_a_line_at_the_end_is_left_out_and_dropped_when_the_log_goes_on(tmp_path):
    path = tmp_path / "e"
    EventLog(path).append("a")
    with path.open("a") as file:
        file.write('{"event": "b')
    assert [event["event"] for event in read_events(path)] == ["a"]
    EventLog(path).append("c")
    assert [event["event"] for event in read_events(path)] == ["a", "c"]


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "e"
    for text in ("{broken\n", "[1]\n"):
        path.write_text(json.dumps({"event": "a"}) + "\n" + text)
        with pytest.raises(ArtifactError, match=r"e, line 2: not an event"):
            read_events(path)


def test_no_file_means_no_events(tmp_path):
    assert read_events(tmp_path / "none") == []
    EventLog(tmp_path / "none").rewind("sft", 0)
    assert not (tmp_path / "none").exists()
