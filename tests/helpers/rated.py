"""A project in a studio's database with raters who lease and judge, for tests of the store."""

from dataclasses import dataclass, field

from keel.store.rows import Candidates, Draft, Judgment, Lease, NewItem, Pick, Project, User
from keel.store.settings import ProjectSettings
from keel.store.store import Store

START = 2_000_000_000.0


def pairs(count: int, **more) -> list[NewItem]:
    return [NewItem(prompt=f"question {i}", a=f"answer {i}", b=f"reply {i}", **more) for i in range(count)]


def first(*purposes: str):
    """A chooser that takes the first candidate of the first of these purposes that has one."""
    order = purposes or ("calibration", "adjudicate", "judge", "golden", "repeat")

    def choose(candidates: Candidates) -> Pick | None:
        offered = {
            "judge": candidates.open,
            "golden": candidates.golden,
            "repeat": candidates.repeats,
            "adjudicate": candidates.disputes,
            "calibration": candidates.calibration,
        }
        for purpose in order:
            if offered[purpose]:
                best = offered[purpose][0]
                return Pick(item_id=best.item_id, purpose=purpose, swapped=not best.swapped_before)
        return None

    return choose


@dataclass
class Rated:
    store: Store
    project: Project
    lead: User
    raters: list[User]
    items: tuple[int, ...]
    now: float = START
    keys: int = field(default=0)

    def lease(self, rater: User, choose=None, ahead: int = 0) -> Lease | None:
        with self.store.writing() as tx:
            return tx.work.lease(self.project.id, rater.id, choose or first(), self.now, ahead)

    def judge(self, lease: Lease, choice: str = "a", key: str | None = None, **draft) -> Judgment:
        self.keys += 1
        key = key or f"key {self.keys}"
        with self.store.writing() as tx:
            return tx.work.judge(lease.id, lease.user_id, Draft(choice=choice, **draft), key, self.now)

    def vote(self, rater: User, choice: str = "a", **draft) -> Judgment:
        lease = self.lease(rater)
        assert lease is not None
        return self.judge(lease, choice, **draft)

    def undo(self, judgment: Judgment) -> Lease:
        with self.store.writing() as tx:
            return tx.work.undo(judgment.client_key, judgment.user_id, self.now)

    def item(self, item_id: int):
        with self.store.reading() as tx:
            return tx.items.get(item_id)

    def votes(self, *purposes: str, **more):
        with self.store.reading() as tx:
            return tx.work.votes(self.project.id, purposes or ("judge",), **more)


def rated(store: Store, raters: int = 3, items: int = 4, state: str = "open", new=None, **settings) -> Rated:
    """An open project with a lead and unlocked raters."""
    with store.writing() as tx:
        lead = tx.people.create_user("Lea", now=START, admin=True)
        others = [tx.people.create_user(f"Rater {i}", now=START) for i in range(raters)]
        project = tx.projects.create("demo", "A demo", ProjectSettings(**settings), by=lead.id, now=START)
        for user in others:
            tx.people.join(project.id, user.id, "rater", now=START)
        tx.people.unlock(project.id, [lead.id, *(user.id for user in others)], 1)
        tx.projects.new_guide(project.id, "Choose the better answer.", by=lead.id, now=START)
        added = tx.items.add(project.id, pairs(items) if new is None else new, now=START)
        project = tx.projects.set_state(project.id, state)
    return Rated(store, project, lead, others, added.item_ids)
