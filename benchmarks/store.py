"""How long the studio's database takes with 50,000 items and 200,000 judgments in it.

    python benchmarks/store.py                      SQLite in a temporary folder
    python benchmarks/store.py --url postgresql://… an empty database of that server

Prints, for each operation as the studio does it (its own transaction, on disk at its end), the median and the 95th
percentile of the time on the wall, and the median of this process's share of a processor, all in milliseconds. On a
busy machine only the last says something. A database that is filled already is measured as it is.
"""

import argparse
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import bindparam, case, func, insert, select, text, update

from keel.store import tables
from keel.store.rows import Candidates, Draft, NewItem, Pick
from keel.store.settings import ProjectSettings
from keel.store.slots import recount_project, restate
from keel.store.store import Store, Transaction

CHOICES = ("a", "b", "tie", "both_bad")


def fill(store: Store, items: int, judgments: int, raters: int) -> tuple[int, list[int]]:
    """A project whose judgments are spread over the first of its items, `overlap` on each but the last few."""
    rng = random.Random(0)
    now = store.clock() - 30 * 86_400
    overlap = 5
    with store.writing() as tx:
        users = [tx.people.create_user(f"rater {i}", now=now).id for i in range(raters)]
        project = tx.projects.create("bench", "Benchmark", ProjectSettings(overlap=overlap), by=users[0], now=now)
        for user in users[1:]:
            tx.people.join(project.id, user, "rater", now=now)
        tx.projects.new_guide(project.id, "Choose the better answer.", by=users[0], now=now)
        tx.projects.set_state(project.id, "open")
        texts = (
            NewItem(prompt=f"Question {i}: {'why ' * 40}?", a=f"answer {i} " * 60, b=f"reply {i} " * 60)
            for i in range(items)
        )
        added = tx.items.add(project.id, texts, now=now)
        golden = [NewItem(prompt=f"Known {i}?", a="yes", b="no", gold="a") for i in range(300)]
        tx.items.add(project.id, golden, now=now)
        tx.people.unlock(project.id, users, 1)
    for start in range(0, judgments, 20_000):
        with store.writing() as tx:
            count = min(20_000, judgments - start)
            _judge_in_bulk(tx, rng, project.id, added.item_ids, users, overlap, range(start, start + count), now)
    with store.writing() as tx:
        _count_anew(tx, project.id, overlap)
    return project.id, users


def filled(store: Store) -> tuple[int, list[int]] | None:
    """The project of an earlier run."""
    with store.reading() as tx:
        project = tx.projects.by_name("bench")
        return None if project is None else (project.id, [member.user_id for member in tx.people.members(project.id)])


def _judge_in_bulk(tx: Transaction, rng, project, item_ids, users, overlap, numbers, now) -> None:
    """Leases and judgments as `judge` leaves them, written many at a time. Half have one vote short of the overlap."""
    full = 2 * (overlap - 1) + 1  # votes that a pair of items takes: overlap on one, one fewer on the other
    leases, judgments = [], []
    for number in numbers:
        pair, place = divmod(number, full)
        item = item_ids[2 * pair + (place >= overlap)]
        user = users[(number + 7 * pair) % len(users)]
        shared = {"project_id": project, "item_id": item, "user_id": user, "purpose": "judge"}
        shared |= {"swapped": rng.random() < 0.5, "guide_version": 1}
        at = now + number / 10
        key = number + 1
        leases.append(
            {**shared, "id": key, "round_key": 0, "leased": at, "expires": at, "state": "done", "judgment_id": key}
        )
        said = {"choice": rng.choice(CHOICES), "seconds": 20.0, "client_key": f"old {number}", "created": at}
        judgments.append({**shared, **said, "id": key, "lease_id": key})
    tx.run(insert(tables.leases), leases)
    tx.run(insert(tables.judgments), judgments)


def _count_anew(tx: Transaction, project: int, overlap: int) -> None:
    counts = {
        column: func.count(case((tables.judgments.c.choice == choice, 1)))
        for choice, column in zip(CHOICES, ("votes_a", "votes_b", "votes_tie", "votes_bad"), strict=True)
    }
    grouped = select(
        tables.judgments.c.item_id, *(count.label(name) for name, count in counts.items()), func.count().label("n")
    ).group_by(tables.judgments.c.item_id)
    slots = tables.slots
    names = {**{name: bindparam(name) for name in counts}, "votes": bindparam("n"), "filled": bindparam("n")}
    changes = update(slots).where(slots.c.item_id == bindparam("number")).values(names)
    tx.run(changes, [{**row._asdict(), "number": row.item_id} for row in tx.rows(grouped)])
    given = select(tables.leases.c.user_id, func.count()).group_by(tables.leases.c.user_id)
    for user, number in tx.rows(given):
        tx.run(update(tables.memberships).where(tables.memberships.c.user_id == user).values(n_judge=number))
    restate(tx, project, overlap)
    recount_project(tx, project)
    if tx._connection.dialect.name == "postgresql":
        for table in ("leases", "judgments"):
            tx.run(text(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))"))


def choose(candidates: Candidates) -> Pick | None:
    for purpose, found in (("judge", candidates.open), ("golden", candidates.golden)):
        if found:
            return Pick(item_id=found[0].item_id, purpose=purpose, swapped=candidates.now % 1 < 0.5)
    return None


def timed(name: str, times: int, act: Callable[[], object]) -> None:
    spans, shares = [], []
    for _ in range(times):
        start, share = time.perf_counter(), time.thread_time()
        act()
        spans.append(1000 * (time.perf_counter() - start))
        shares.append(1000 * (time.thread_time() - share))
    p95 = sorted(spans)[int(0.95 * (len(spans) - 1))]
    print(f"{name:<52} {statistics.median(spans):8.2f} {p95:8.2f} {statistics.median(shares):8.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="database to fill; default an SQLite file that is removed afterwards")
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--judgments", type=int, default=200_000)
    parser.add_argument("--raters", type=int, default=50)
    parser.add_argument("--times", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = options.url or str(Path(folder) / "studio.sqlite")
        start = time.perf_counter()
        store = Store.open(url)
        print(f"opened a new database in {time.perf_counter() - start:.2f} s")
        start = time.perf_counter()
        project, users = filled(store) or fill(store, options.items, options.judgments, options.raters)
        size = f", {Path(url).stat().st_size / 2**20:.0f} MiB" if not options.url else ""
        print(f"filled in {time.perf_counter() - start:.0f} s{size}")
        store.close()
        start = time.perf_counter()
        with Store.open(url) as store:
            print(f"opened again in {time.perf_counter() - start:.3f} s\n")
            measure(store, project, users, options.times)


def measure(store: Store, project: int, users: list[int], times: int) -> None:
    print(f"{'milliseconds':<52} {'median':>8} {'p95':>8} {'cpu':>8}")
    keys = (f"new {time.time()} {number}" for number in itertools.count())
    turn = itertools.cycle(users)
    held: list[tuple[int, int]] = []

    def lease() -> None:
        user = next(turn)
        with store.writing() as tx:
            given = tx.work.lease(project, user, choose, store_now())
        assert given is not None
        held.append((given.id, user))

    def judge() -> None:
        number, user = held.pop()
        with store.writing() as tx:
            tx.work.judge(number, user, Draft(choice="a", seconds=12.0), next(keys), store_now())

    store_now = time.time

    def both() -> None:
        lease()
        judge()

    def again() -> None:
        with store.writing() as tx:
            tx.work.lease(project, users[0], choose, store_now())

    def nothing() -> None:
        with store.writing() as tx:
            tx.work.judge(*last, Draft(choice="a"), f"the same {last[0]}", store_now())

    def disk() -> None:
        with store.writing() as tx:
            tx.audit.add("benchmark", at=store_now())

    timed("one short write (mostly the disk)", times, disk)
    timed("lease and judge, one after the other", times, both)
    leasers = min(times, len(users))
    timed("lease", leasers, lease)
    timed("judge", leasers, judge)
    lease()
    last = held.pop()
    timed("lease that is held already", times, again)
    nothing()
    timed("judge sent again", times, nothing)
    timed("clock", times, store.clock)
    reads: dict[str, Callable[[Transaction], object]] = {
        "progress of the project": lambda tx: tx.work.progress(project),
        "progress of a rater": lambda tx: tx.work.rater_progress(project, users[3], store_now() - 86_400),
        "own judgments, 50": lambda tx: tx.work.own(project, users[3]),
        "items, page 1": lambda tx: tx.items.find(project),
        "items, page 900": lambda tx: tx.items.find(project, page=900),
        "items that hold a word": lambda tx: tx.items.find(project, text="Question 4321:"),
        "all votes, columns": lambda tx: tx.work.votes_table(project),
        "all votes, rows": lambda tx: tx.work.votes(project),
    }

    for name, read in reads.items():

        def act(read: Callable[[Transaction], object] = read) -> None:
            with store.reading() as tx:
                read(tx)

        timed(name, 5 if "all votes" in name else 40, act)
    _lone(store, project, times)


def _lone(store: Store, project: int, times: int) -> None:
    """A rater who has seen nearly everything: the windows hold nothing new, then the whole list does not either."""
    now = time.time()
    with store.writing() as tx:
        user = tx.people.create_user(f"lone {now}", now=now).id
        tx.people.join(project, user, "rater", now=now)
        tx.people.unlock(project, [user], 1)
        pairs = select(tables.slots.c.item_id).where(tables.slots.c.kind == "pair").order_by(tables.slots.c.item_id)
        ids = [row[0] for row in tx.rows(pairs)]
        shared = {"project_id": project, "user_id": user, "purpose": "judge", "round_key": 0, "swapped": False}
        shared |= {"guide_version": 1, "leased": now, "expires": now, "state": "done"}
        tx.run(insert(tables.leases), [{**shared, "item_id": item} for item in ids[:-500]])

    def lease() -> None:
        with store.writing() as tx:
            given = tx.work.lease(project, user, choose, time.time())
            assert given is not None
            tx.work.judge(given.id, user, Draft(choice="tie"), f"lone {given.id} {time.time()}", time.time())

    timed("lease and judge for one who has seen all but 500", times, lease)
    with store.writing() as tx:
        shared |= {"leased": now, "expires": now}
        known = {row[0] for row in tx.rows(select(tables.leases.c.item_id).where(tables.leases.c.user_id == user))}
        rest = [{**shared, "item_id": item} for item in ids if item not in known]
        if rest:
            tx.run(insert(tables.leases), rest)

    def none() -> None:
        with store.writing() as tx:
            given = tx.work.lease(project, user, lambda c: None if not c.open else choose(c), time.time())
            assert given is None

    timed("lease for one who has seen everything", 20, none)


if __name__ == "__main__":
    main()
