"""A studio's database with items and simulated raters, through the store's own doors."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from keel.store.rows import Candidates, Draft, Item, NewItem, Pick
from keel.store.settings import ProjectSettings
from keel.store.store import Store

Rater = Callable[[Item], str]
SETTINGS = {"overlap": 3, "golden_share": 0.0, "repeat_share": 0.0}


def begin(path: Path | str, items: Sequence[NewItem], name: str = "help", **settings: Any) -> Store:
    """An open project with a guide."""
    store = Store.open(path)
    with store.writing() as tx:
        project = tx.projects.create(name, name, ProjectSettings(**{**SETTINGS, **settings}), by=None, now=1000.0)
        tx.projects.new_guide(project.id, "# Be kind", by=None, now=1000.0)
        tx.items.add(project.id, items, now=1000.0)
        tx.projects.set_state(project.id, "open")
    return store


def join(store: Store, rater: str, name: str = "help", role: Any = "rater", kind: Any = "person") -> str:
    """A new member; the pseudonym."""
    with store.writing() as tx:
        user = tx.people.create_user(rater, now=1000.0, kind=kind)
        project = tx.projects.by_name(name)
        member = tx.people.join(project.id, user.id, role, now=1000.0)
        tx.people.unlock(project.id, [user.id], 0)
    return member.pseudonym


def first_open(candidates: Candidates) -> Pick | None:
    for item in candidates.open:
        return Pick(item_id=item.item_id, purpose="judge", swapped=item.item_id % 2 == 0)
    return None


def judge_all(store: Store, raters: Mapping[str, Rater], name: str = "help") -> dict[str, str]:
    """Every rater judges everything there is to judge; pseudonyms by name."""
    names = {rater: join(store, rater, name) for rater in raters}
    for rater, opinion in raters.items():
        with store.writing() as tx:
            project, user = tx.projects.by_name(name), tx.people.user_by_name(rater)
            now = 2000.0
            while lease := tx.work.lease(project.id, user.id, first_open, now):
                choice: Any = opinion(tx.items.get(lease.item_id))
                key = f"{rater}-{lease.item_id}"
                tx.work.judge(lease.id, user.id, Draft(choice=choice, seconds=3.0), key, now + 3)
                now += 10
    return names
