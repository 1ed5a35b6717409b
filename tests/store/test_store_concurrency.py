"""Many raters at once, in threads and in processes that may die: no vote lost, none doubled, no item overfull."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
import sqlalchemy as sa
from helpers.rated import first, pairs, rated

from keel.core.errors import ConflictError
from keel.store import tables
from keel.store.rows import Draft, NewItem
from keel.store.slots import ANSWERS, state_of
from keel.store.store import Store

OVERLAP = 3


def check(store, project_id):
    """What must be true of any database at any moment, whoever wrote it."""
    with store.reading() as tx:
        leases = tx.rows(sa.select(tables.leases).where(tables.leases.c.project_id == project_id))
        judgments = {row.id: row for row in tx.work.history(project_id)}
        slots = tx.rows(sa.select(tables.slots).where(tables.slots.c.project_id == project_id))
        members = tx.rows(sa.select(tables.memberships).where(tables.memberships.c.project_id == project_id))
        project = tx.rows(sa.select(tables.projects).where(tables.projects.c.id == project_id))[0]
        overlap = tx.projects.get(project_id).settings.overlap
    newest = {}
    for row in judgments.values():
        newest[row.lease_id] = row
    current = {lease.id: judgments[lease.judgment_id] for lease in leases if lease.judgment_id is not None}
    for lease in leases:
        last = newest.get(lease.id)
        counts = last is not None and last.choice != "withdrawn"
        assert (lease.judgment_id is not None) == counts, lease
        assert lease.judgment_id in (None, last and last.id)
        assert (lease.state == "done") == counts
    keys = Counter((row.user_id, row.client_key) for row in judgments.values())
    assert max(keys.values(), default=1) == 1
    places = Counter((lease.user_id, lease.item_id, lease.purpose, lease.round_key) for lease in leases)
    assert max(places.values(), default=1) == 1
    for slot in slots:
        live = sum(le.item_id == slot.item_id and le.purpose == "judge" and le.state == "live" for le in leases)
        said = Counter(row.choice for row in current.values() if row.item_id == slot.item_id and row.purpose == "judge")
        votes = sum(number for choice, number in said.items() if choice != "skip")
        assert (slot.live, slot.votes, slot.skips, slot.filled) == (live, votes, said["skip"], live + votes), slot
        assert [getattr(slot, name) for name in ANSWERS] == [said[c] for c in ("a", "b", "tie", "both_bad")]
        assert slot.filled <= overlap, f"item {slot.item_id} has {votes} votes and {live} leases"
        assert slot.state == state_of(slot._asdict(), overlap)
    for member in members:
        held = Counter(le.purpose for le in leases if le.user_id == member.user_id and le.state in ("live", "done"))
        for purpose in ("judge", "golden", "repeat", "calibration", "adjudicate"):
            assert getattr(member, f"n_{purpose}") == held[purpose], (member, purpose)
    inside = [slot for slot in slots if slot.kind == "pair" and slot.removed is None]
    assert (project.pairs, project.votes) == (len(inside), sum(slot.votes for slot in inside))
    return judgments


def test_threads_that_lease_judge_undo_skip_and_let_time_run_out_never_break_the_rules(store):
    demo = rated(store, raters=6, items=15, overlap=OVERLAP, repeat_after=3, lease_seconds=50.0)
    with store.writing() as tx:
        tx.items.add(demo.project.id, [NewItem(prompt="known", a="x", b="y", gold="a")], now=demo.now)
        tx.people.set_role(demo.project.id, demo.raters[0].id, "senior")
    ticks = iter(range(10**6))
    acknowledged, refused, faults = [], [], []

    def work(number, rater):
        rng = random.Random(number)
        order = ["adjudicate", "judge", "golden", "repeat"]
        for turn in range(15):
            now = demo.now + 7 * next(ticks)
            rng.shuffle(order)
            with store.writing() as tx:
                lease = tx.work.lease(demo.project.id, rater.id, first(*order), now, ahead=rng.randrange(3))
            if lease is None:
                continue
            key = f"{number}-{turn}"
            draft = Draft(choice=rng.choice(("a", "b", "tie", "skip")), flag="odd" if rng.random() < 0.1 else None)
            try:
                for _ in range(rng.choice((1, 1, 2))):  # some are sent twice
                    with store.writing() as tx:
                        vote = tx.work.judge(lease.id, rater.id, draft, key, now + rng.choice((1, 1, 1, 80)))
                acknowledged.append(vote)
                if rng.random() < 0.2:
                    with store.writing() as tx:
                        tx.work.undo(key, rater.id, now)
            except ConflictError as conflict:
                refused.append(str(conflict))

    def guarded(number, rater):
        try:
            work(number, rater)
        except BaseException as fault:
            faults.append(fault)
            raise

    threads = [threading.Thread(target=guarded, args=pair) for pair in enumerate([*demo.raters, demo.lead])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    known = ("taken the place", "has settled this item", "others have judged it since", "may be read by seniors")
    assert [words for words in refused if not any(part in words for part in known)] == []
    judgments = check(store, demo.project.id)
    assert {vote.id for vote in acknowledged} <= judgments.keys()
    assert all(judgments[vote.id] == vote for vote in acknowledged)


RATER = """
import sys, time
from keel.store.store import Store
from keel.store.rows import Draft, Pick
url, project, user = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def choose(candidates):
    if candidates.open:
        return Pick(item_id=candidates.open[0].item_id, purpose="judge", swapped=False)
store = Store.open(url)
print("ready", flush=True)
sys.stdin.readline()
while True:
    with store.writing() as tx:
        lease = tx.work.lease(project, user, choose, time.time())
    if lease is None:
        break
    key = f"{user}-{lease.id}"
    with store.writing() as tx:
        vote = tx.work.judge(lease.id, user, Draft(choice="a"), key, time.time())
    print(vote.id, key, flush=True)
print("done", flush=True)
"""


def start(url, demo, rater):
    program = [sys.executable, "-c", RATER, url, str(demo.project.id), str(rater.id)]
    process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def go(process):
    process.stdin.write("go\n")
    process.stdin.flush()


def test_processes_that_race_for_the_last_votes_fill_every_item_exactly(url):
    with Store.open(url) as store:
        demo = rated(store, raters=4, items=12, overlap=OVERLAP, lease_seconds=600)
        processes = [start(url, demo, rater) for rater in demo.raters]
        for process in processes:
            go(process)
        said = [process.communicate(timeout=120)[0].splitlines() for process in processes]
        assert all(lines[-1] == "done" for lines in said)
        judgments = check(store, demo.project.id)
        acknowledged = [line.split()[1] for lines in said for line in lines[:-1]]
        assert sorted(acknowledged) == sorted(row.client_key for row in judgments.values())
        # a rater may stop while the last places are leased to others, who then judge them
        assert len(acknowledged) == 12 * OVERLAP
        assert {demo.item(item).state for item in demo.items} == {"complete"}


def test_a_process_killed_at_any_moment_leaves_every_acknowledged_vote(url):
    with Store.open(url) as store:
        demo = rated(store, raters=3, items=400, overlap=3, lease_seconds=600)
        for seconds, rater in zip((0.0, 0.05, 0.2), demo.raters, strict=True):
            process = start(url, demo, rater)
            go(process)
            told = [process.stdout.readline()]
            time.sleep(seconds)
            os.kill(process.pid, signal.SIGKILL)
            told += list(process.stdout)
            process.wait()
            process.stdin.close()
            process.stdout.close()
            judgments = check(store, demo.project.id)
            for line in told:
                if line.endswith("\n"):
                    number, key = line.split()
                    assert judgments[int(number)].client_key == key
            # the server that comes back goes on where it was
            demo.now = time.time()
            assert demo.lease(rater) is not None


def test_two_servers_that_import_the_same_items_at_once_keep_each_once(url):
    with Store.open(url) as store:
        demo = rated(store, items=0)
        added = []

        def bring():
            with Store.open(url) as other, other.writing() as tx:
                added.append(tx.items.add(demo.project.id, pairs(700), now=demo.now))

        threads = [threading.Thread(target=bring) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcome.added for outcome in added) == [0, 0, 700]
        assert len({outcome.item_ids for outcome in added}) == 1
        check(store, demo.project.id)


@pytest.mark.parametrize("seen_all_but", [1, 0])
def test_what_is_left_is_found_behind_thousands_that_the_rater_has_seen(store, seen_all_but):
    demo = rated(store, raters=2, items=900, overlap=2)
    ann, _ = demo.raters
    shared = {"project_id": demo.project.id, "user_id": ann.id, "purpose": "judge", "round_key": 0, "swapped": False}
    shared |= {"guide_version": 1, "leased": demo.now, "expires": demo.now, "state": "done"}
    with store.writing() as tx:
        seen = demo.items[: len(demo.items) - seen_all_but]
        tx.run(sa.insert(tables.leases), [{**shared, "item_id": item} for item in seen])
    lease = demo.lease(ann, first("judge"))
    assert (lease and lease.item_id) == (demo.items[-1] if seen_all_but else None)
