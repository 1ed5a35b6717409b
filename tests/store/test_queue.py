import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from keel.core.errors import ArtifactError, DataError
from keel.data.records import Message
from keel.store.queue import Answer, Question, Queue, QueuedPair

PAIR = QueuedPair(
    run="ppo-1",
    stage="ppo",
    step=8,
    place=0,
    prompt="Is tea better than coffee?",
    left="Yes.",
    right="No, and here is why:",
    left_finished=True,
    right_finished=False,
    policy_side="right",
    left_score=0.25,
    right_score=1.5,
)


def pairs(count, **changes):
    return [replace(PAIR, place=place, **changes) for place in range(count)]


@pytest.fixture
def queue(tmp_path):
    return Queue(tmp_path / "judging.sqlite")


def values(verdicts):
    return [verdict.value for verdict in verdicts]


def test_what_was_asked_is_shown_to_judges_without_a_word_on_whose_it_is(queue):
    (number,) = queue.ask([PAIR])
    assert queue.pending() == [
        Question(
            id=number,
            prompt=PAIR.prompt,
            left="Yes.",
            right="No, and here is why:",
            left_finished=True,
            right_finished=False,
        )
    ]
    assert queue.unanswered([number], "ann") == queue.pending()


def test_a_chat_comes_back_as_it_was_and_texts_that_no_database_holds_are_mended(queue):
    chat = (Message("system", "Be kind.\x00"), Message("user", "\ud800 hello\n\x1b[2J"))
    queue.ask([replace(PAIR, prompt=chat, left="a\x00b\udc80c")])
    (shown,) = queue.pending()
    assert (shown.prompt, shown.left) == (chat, "a�b�c")


def test_asking_again_adds_nothing_and_keeps_the_numbers(queue):
    first = queue.ask(pairs(3))
    assert queue.ask(pairs(4)) == [*first, max(first) + 1]
    assert queue.asked("ppo-1", "ppo", 8) == 4
    assert queue.asked("ppo-1", "ppo", 7) == 0


def test_the_same_place_with_another_prompt_is_refused_and_nothing_of_the_call_stays(queue):
    queue.ask(pairs(1))
    with pytest.raises(ArtifactError, match=r"step 8, pair 0 was asked before about another prompt. Give the run"):
        queue.ask([replace(PAIR, place=7), replace(PAIR, prompt="Another?")])
    assert queue.asked("ppo-1", "ppo", 8) == 1


def test_the_value_of_a_verdict_follows_from_the_choice_and_the_side_of_the_policy(queue):
    numbers = queue.ask(pairs(5))
    choices = ["right", "left", "tie", "both_bad", "skip"]
    queue.answer_all([Answer(pair=n, judge="ann", choice=c) for n, c in zip(numbers, choices, strict=True)])
    read = queue.verdicts("ppo-1", "ppo", 8)
    assert values(read) == [1.0, 0.0, 0.5, 0.5, None]
    assert {(verdict.policy_score, verdict.sft_score) for verdict in read} == {(1.5, 0.25)}


def test_a_change_of_mind_is_a_new_row_and_the_newest_row_of_each_judge_counts(queue):
    (number,) = queue.ask([PAIR])
    for judge, choice in [("ann", "left"), ("bob", "tie"), ("ann", "right")]:
        queue.answer(number, judge, choice, 2.5)
    assert [(v.judge, v.value) for v in queue.verdicts("ppo-1", "ppo", 8)] == [("ann", 1.0), ("bob", 0.5)]
    with sqlite3.connect(queue.path) as connection:
        rows = connection.execute("SELECT judge, choice, seconds FROM judgments ORDER BY id").fetchall()
    connection.close()
    assert rows == [("ann", "left", 2.5), ("bob", "tie", 2.5), ("ann", "right", 2.5)]


def test_a_step_that_was_read_reads_the_same_whatever_was_answered_since(queue):
    first, second = queue.ask(pairs(2))
    queue.answer(first, "ann", "right")
    before = queue.verdicts("ppo-1", "ppo", 8)
    assert queue.verdicts("ppo-1", "ppo", 16) == before
    queue.answer(first, "ann", "left")
    queue.answer(second, "ann", "tie")
    assert Queue(queue.path).verdicts("ppo-1", "ppo", 8) == before
    assert queue.seen("ppo-1", "ppo", 8) == queue.seen("ppo-1", "ppo", 16) == before
    assert values(queue.verdicts("ppo-1", "ppo", 24)) == [0.0, 0.5]
    assert queue.seen_before("ppo-1", "ppo", 24) == before


def test_a_step_that_read_nothing_reads_nothing_again(queue):
    (number,) = queue.ask([PAIR])
    assert queue.seen("ppo-1", "ppo", 8) is None
    assert queue.verdicts("ppo-1", "ppo", 8) == []
    queue.answer(number, "ann", "right")
    assert queue.verdicts("ppo-1", "ppo", 8) == queue.seen("ppo-1", "ppo", 8) == []
    assert queue.seen_before("ppo-1", "ppo", 8) == []


def test_a_run_reads_neither_pairs_of_others_nor_of_later_steps(queue):
    numbers = queue.ask([PAIR, replace(PAIR, run="ppo-2"), replace(PAIR, stage="ppo 2"), replace(PAIR, step=9)])
    queue.answer_all([Answer(pair=number, judge="ann", choice="right") for number in numbers])
    assert [verdict.pair for verdict in queue.verdicts("ppo-1", "ppo", 8)] == numbers[:1]


def test_pending_gives_the_least_judged_pairs_of_the_latest_step_first(queue):
    early = queue.ask(pairs(2))
    late = queue.ask(pairs(2, step=16))
    assert [question.id for question in queue.pending()] == [*late, *early]
    queue.answer(late[0], "ann", "tie")
    assert [question.id for question in queue.pending()] == [late[1], *early]
    assert [question.id for question in queue.pending("ann", limit=2)] == [late[1], early[0]]
    assert [question.id for question in queue.pending("bob")] == [late[1], *early, late[0]]
    assert (queue.progress("ann"), queue.progress("bob")) == ((1, 4), (0, 4))


def test_what_a_rule_has_settled_is_put_before_nobody(queue):
    first, second = queue.ask(pairs(2))
    queue.answer(first, "keel", "tie")
    assert [question.id for question in queue.pending("ann")] == [second]
    assert (queue.progress("ann"), queue.asked("ppo-1", "ppo", 8)) == ((0, 1), 1)


@pytest.mark.parametrize(
    ("pair", "judge", "choice", "said"),
    [
        (1, "ann", "a", "'a' is not a choice. Expected one of left, right, tie, skip, both_bad."),
        (1, " ", "left", "without the name of its judge"),
        (5, "ann", "left", "pair 5 is not in the queue"),
    ],
)
def test_a_wrong_answer_is_refused_and_leaves_no_row(queue, pair, judge, choice, said):
    queue.ask([PAIR])
    with pytest.raises(DataError, match=said):
        queue.answer_all(
            [Answer(pair=1, judge="ann", choice="tie"), Answer(pair=pair, judge=judge, choice=choice)],
        )
    assert queue.verdicts("ppo-1", "ppo", 8) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE pairs SET policy_side = 'left'",
        "UPDATE judgments SET choice = 'left'",
        "UPDATE seen SET last_judgment = 0",
        "DELETE FROM pairs",
        "DELETE FROM judgments",
        "DELETE FROM seen",
        "REPLACE INTO judgments VALUES (1, 1, 'ann', 'left', NULL, '')",
        "REPLACE INTO seen VALUES ('ppo-1', 'ppo', 8, 0, '')",
        "REPLACE INTO pairs SELECT * FROM pairs",
        "INSERT INTO judgments VALUES (9, 1, 'ann', 'best', NULL, '')",
        "INSERT INTO judgments VALUES (9, 77, 'ann', 'left', NULL, '')",
    ],
)
def test_the_tables_are_append_only_whoever_writes(queue, statement):
    (number,) = queue.ask([PAIR])
    queue.answer(number, "ann", "right")
    queue.verdicts("ppo-1", "ppo", 8)
    connection = sqlite3.connect(queue.path)
    connection.execute("PRAGMA foreign_keys = ON")
    try:
        with pytest.raises(sqlite3.IntegrityError, match=r"append-only|CHECK|FOREIGN KEY"):
            connection.execute(statement)
    finally:
        connection.close()


WRITER = """
import sys
from pathlib import Path
from keel.store.queue import QueuedPair, Queue
judge = sys.argv[2]
sys.stdin.readline()
queue = Queue(Path(sys.argv[1]))
pair = dict(place=0, prompt="?", left="a", right="b", left_finished=True, right_finished=True, policy_side="left")
for step in range(int(sys.argv[3])):
    (number,) = queue.ask([QueuedPair(run=judge, stage="ppo", step=step, **pair)])
    queue.answer(number, judge, "tie")
"""


def test_processes_that_begin_the_file_and_write_at_once_lose_nothing(tmp_path):
    path, count = tmp_path / "judging.sqlite", 25
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), f"judge {i}", str(count)], stdin=subprocess.PIPE)
        for i in range(3)
    ]
    for writer in writers:
        writer.stdin.write(b"go\n")  # all have loaded: they begin together
        writer.stdin.flush()
    for writer in writers:
        with writer:
            assert writer.wait(timeout=60) == 0
    queue = Queue(path)
    read = [v for i in range(3) for v in queue.verdicts(f"judge {i}", "ppo", count)]
    assert sorted(verdict.judgment for verdict in read) == list(range(1, 3 * count + 1))
    assert all(verdict.value == 0.5 for verdict in read)


ENDLESS = """
import sys
from pathlib import Path
from keel.store.queue import QueuedPair, Queue, Answer
queue = Queue(Path(sys.argv[1]))
step = queue.asked("r", "s", 10**9)
while True:
    pair = dict(run="r", stage="s", prompt="?", right="b", left_finished=True, right_finished=True, policy_side="left")
    numbers = queue.ask([QueuedPair(step=step, place=i, left="x" * 20_000, **pair) for i in range(2)])
    queue.answer_all([Answer(pair=n, judge="ann", choice="left") for n in numbers])
    sys.stdout.write(f"{numbers[-1]}\\n")
    sys.stdout.flush()
    step += 1
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_file_with_all_that_it_confirmed(tmp_path):
    path = tmp_path / "judging.sqlite"
    for seconds in (0.0, 0.011, 0.037, 0.08):
        program = [sys.executable, "-c", ENDLESS, str(path)]
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as writer:
            confirmed = int(writer.stdout.readline())
            time.sleep(seconds)
            os.kill(writer.pid, signal.SIGKILL)
            confirmed = max([confirmed, *(int(line) for line in writer.stdout if line.endswith("\n"))])
        queue = Queue(path)
        read = queue.verdicts("r", "s", 10**6 + confirmed)
        assert [v.pair for v in read][:confirmed] == list(range(1, confirmed + 1))
        assert len(read) % 2 == 0
        assert queue.asked("r", "s", 10**9) - len(read) in (0, 2)
        queue.answer_all([Answer(pair=question.id, judge="ann", choice="left") for question in queue.pending()])


def test_a_damaged_file_a_foreign_one_and_one_of_a_newer_keel_are_refused_with_a_way_on(tmp_path):
    text = tmp_path / "text.sqlite"
    text.write_text("these are notes, not a database\n" * 100)
    with pytest.raises(ArtifactError, match=r"text.sqlite: the file is damaged or is no SQLite file. Restore it"):
        Queue(text)

    foreign = sqlite3.connect(tmp_path / "foreign.sqlite")
    foreign.execute("CREATE TABLE bookmarks (id INTEGER)")
    foreign.close()
    with pytest.raises(ArtifactError, match="an SQLite file of another program"):
        Queue(tmp_path / "foreign.sqlite")

    queue = Queue(tmp_path / "newer.sqlite")
    newer = sqlite3.connect(queue.path)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(ArtifactError, match="version 99 of its tables, written by a newer keel; this one knows up to"):
        Queue(queue.path)


def test_a_file_that_lost_its_end_is_refused(tmp_path):
    queue = Queue(tmp_path / "judging.sqlite")
    queue.ask(pairs(40, left="x" * 500))
    data = queue.path.read_bytes()
    queue.path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ArtifactError, match="the file is damaged"):
        Queue(queue.path)


def test_a_file_that_may_not_be_read_is_explained(tmp_path):
    (tmp_path / "judging.sqlite").mkdir()
    with pytest.raises(ArtifactError, match="cannot be written"):
        Queue(tmp_path / "judging.sqlite")
