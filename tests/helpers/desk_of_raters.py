"""A store in memory that does what the real one promises `choose`, for tests of assignment alone."""

from collections import Counter
from dataclasses import dataclass, field

from keel.annotate.assignment import choose
from keel.store.rows import Candidate, Candidates, Membership, Pick, Project
from keel.store.settings import ProjectSettings

LIMIT = 24
"""Rows that a list of candidates is cut to."""


def candidates(**fields) -> Candidates:
    """What a rater without a past could be given, changed by `fields`; skills and role go to the membership."""
    member = Membership(
        user_id=fields.pop("user_id", 1),
        project_id=1,
        role=fields.pop("role", "rater"),
        pseudonym="r",
        skills=fields.pop("skills", ()),
    )
    settings = ProjectSettings()
    project = Project(id=1, name="p", title="P", state="open", settings=settings, guide_version=1, created=0.0)
    empty = dict.fromkeys(("open", "golden", "repeats", "disputes", "calibration", "in_view"), ())
    return Candidates(
        **{"project": project, "member": member, "now": 0.0, "round": None, "given": {}, **empty, **fields}
    )


@dataclass
class Desk:
    """Items, raters and what was given to whom."""

    items: dict[int, tuple[str, ...]]
    raters: dict[int, tuple[str, ...]]
    golden: dict[int, tuple[str, ...]] = field(default_factory=dict)
    settings: ProjectSettings = field(default_factory=ProjectSettings)
    seed: int = 0
    priority: dict[int, float] = field(default_factory=dict)
    round: tuple[int, ...] = ()
    tasks: list[tuple[int, Pick]] = field(default_factory=list)

    def __post_init__(self):
        self.given = {user: [] for user in self.raters}
        self.seen = {user: set() for user in self.raters}
        self.votes = Counter()
        self.waiting = dict.fromkeys(self.items)

    def candidates(self, user: int) -> Candidates:
        mine = self.given[user]

        def listed(ids, purpose, skills):
            held = set(self.raters[user])
            able = [i for i in ids if i not in self.seen[user] and held.issuperset(skills.get(i, ()))]
            able.sort(key=lambda i: (-self.votes[i, purpose], -self.priority.get(i, 0.0)))
            return tuple(
                Candidate(
                    item_id=item,
                    skills=skills.get(item, ()),
                    priority=self.priority.get(item, 0.0),
                    missing=self.settings.overlap - self.votes[item, purpose],
                )
                for item in able[:LIMIT]
            )

        repeated = {pick.item_id for pick in mine if pick.purpose == "repeat"}
        earlier = mine[: max(0, len(mine) - self.settings.repeat_after)]
        repeats = [
            Candidate(item_id=p.item_id, skills=(), priority=0.0, missing=0, swapped_before=p.swapped)
            for p in reversed(earlier)
            if p.purpose == "judge" and p.item_id not in repeated
        ]
        return candidates(
            user_id=user,
            skills=self.raters[user],
            given=Counter(pick.purpose for pick in mine),
            open=listed(self.waiting, "judge", self.items),
            golden=listed(self.golden, "golden", self.golden),
            repeats=tuple(repeats[:LIMIT]),
            calibration=listed(self.round, "calibration", {}),
        )

    def give(self, user: int) -> Pick | None:
        pick = choose(self.candidates(user), self.settings, self.seed)
        if pick:
            self.given[user].append(pick)
            self.seen[user].add(pick.item_id)
            self.tasks.append((user, pick))
            self.votes[pick.item_id, pick.purpose] += 1
            if pick.purpose == "judge" and self.votes[pick.item_id, "judge"] >= self.settings.overlap:
                del self.waiting[pick.item_id]
        return pick

    def work(self, order) -> None:
        """Give tasks to the raters named, one after the other, until nobody in a whole pass gets one."""
        order = list(order)
        while sum(self.give(user) is not None for user in order):
            pass
