"""A store in memory that does what the real one promises `choose`, for tests of assignment alone."""

from dataclasses import dataclass, field

from keel.annotate.assignment import choose
from keel.store.candidates import Candidate, Candidates, Choice, Past

LIMIT = 64
"""Rows that a list of candidates is cut to."""


@dataclass(frozen=True)
class Settings:
    overlap: int = 3
    golden_share: float = 0.05
    repeat_share: float = 0.03
    repeat_after: int = 20
    adjudicate: bool = True


@dataclass
class Desk:
    """Items, raters and what was given to whom."""

    items: dict[int, tuple[str, ...]]
    raters: dict[int, tuple[str, ...]]
    golden: dict[int, tuple[str, ...]] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    seed: int = 0
    roles: dict[int, str] = field(default_factory=dict)
    priority: dict[int, float] = field(default_factory=dict)
    round: tuple[int, ...] = ()
    unlocked: bool = True
    tasks: list[tuple[int, Choice]] = field(default_factory=list)

    def __post_init__(self):
        self.given = {user: [] for user in self.raters}
        self.seen = {user: set() for user in self.raters}
        self.sides = {}
        self.waiting = dict.fromkeys(self.items)

    def candidates(self, user: int) -> Candidates:
        mine = self.given[user]

        def listed(ids, purpose, skills):
            found = []
            for item in ids:
                if item not in self.seen[user] and set(skills.get(item, ())) <= set(self.raters[user]):
                    votes, swapped = self.sides.get((item, purpose), (0, 0))
                    found.append(
                        Candidate(
                            item_id=item,
                            votes=votes,
                            swapped=swapped,
                            skills=skills.get(item, ()),
                            priority=self.priority.get(item, 0.0),
                        )
                    )
            found.sort(key=lambda item: (-item.votes, -item.priority) if purpose == "judge" else item.votes)
            return tuple(found[:LIMIT])

        return Candidates(
            user_id=user,
            role=self.roles.get(user, "rater"),
            skills=self.raters[user],
            unlocked=self.unlocked,
            given=len(mine),
            given_swapped=sum(choice.swapped for choice in mine),
            history=tuple(Past(item_id=c.item_id, purpose=c.purpose, swapped=c.swapped) for c in mine[:-201:-1]),
            open=listed(self.waiting, "judge", self.items),
            golden=listed(self.golden, "golden", self.golden),
            calibration=listed(self.round, "calibration", self.items),
        )

    def give(self, user: int) -> Choice | None:
        choice = choose(self.candidates(user), self.settings, self.seed)
        if choice:
            self.given[user].append(choice)
            self.seen[user].add(choice.item_id)
            self.tasks.append((user, choice))
            votes, swapped = self.sides.get((choice.item_id, choice.purpose), (0, 0))
            self.sides[choice.item_id, choice.purpose] = (votes + 1, swapped + choice.swapped)
            if choice.purpose == "judge" and votes + 1 >= self.settings.overlap:
                del self.waiting[choice.item_id]
        return choice

    def work(self, order) -> None:
        """Give tasks to the raters named, one after the other, until nobody in a whole pass gets one."""
        order = list(order)
        while sum(self.give(user) is not None for user in order):
            pass
