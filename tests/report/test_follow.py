"""Following a log: each event once, whatever happens to the file."""

import json
import os

from keel.core.events import EventLog
from keel.report.follow import Follower


def steps(events):
    return [event["step"] for event in events]


def test_each_event_comes_once_and_half_a_line_waits(tmp_path):
    path = tmp_path / "events.jsonl"
    follower = Follower(path)
    assert follower.look() == (False, [])
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n{"st')
    assert follower.look() == (False, [{"step": 1}, {"step": 2}])
    with path.open("ab") as file:
        file.write(b'ep": 3}\n')
    assert follower.look() == (False, [{"step": 3}])
    assert follower.look() == (False, [])


def test_a_rewound_log_is_read_from_its_beginning(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    follower = Follower(log.path)
    for step in range(1, 9):
        log.append("step", stage="ppo", step=step)
    follower.look()
    log.rewind("ppo", 5)
    for step in range(6, 30):
        log.append("step", stage="ppo", step=step, longer="x" * 50)
    anew, events = follower.look()
    assert anew
    assert steps(events) == list(range(1, 30))


def test_a_log_that_was_rewritten_to_the_same_length_is_noticed(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    follower = Follower(path)
    follower.look()
    path.write_text('{"step": 1}\n{"step": 7}\n')
    assert follower.look() == (True, [{"step": 1}, {"step": 7}])


def test_damaged_lines_are_counted_and_skipped(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"step": 1}\nnonsense\n[1]\n\xff\xfe\n{"step": 2}\n')
    follower = Follower(path)
    assert steps(follower.look()[1]) == [1, 2]
    assert follower.damaged == 3


def test_a_log_cut_short_or_removed_starts_over(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in range(5)))
    follower = Follower(path)
    follower.look()
    os.truncate(path, 12)
    assert follower.look() == (True, [{"step": 0}])
    path.unlink()
    assert follower.look() == (True, [])
    assert follower.look() == (False, [])
