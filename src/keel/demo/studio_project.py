"""A project in the studio as it looks after a few days of work: the demo world's pairs, judged by its raters.

Everything goes through the same assignment, store and calibration as real people's work; only the clock is made up. One
rater likes the left side, one does not read, and a team of eight agrees about as well as people do.
"""

import secrets
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from keel.annotate.assignment import choose
from keel.annotate.ballots import ballots_of
from keel.annotate.calibration import close_round, new_round
from keel.core.errors import DataError
from keel.core.seed import generator
from keel.data.records import Choice
from keel.demo.raters import Rater, panel
from keel.demo.world import Question, World, utility
from keel.store.rows import Draft, Item, Lease, NewItem, Project
from keel.store.settings import ProjectSettings
from keel.store.store import Store, Transaction

NAME, TITLE = "demo", "Help desk, a demonstration"
LEAD = "demo"
"""Name of the account that leads the project."""
NUM_RATERS = 8
GOLDEN = 20
CALIBRATION = 24
DAYS, DAY_S, SHIFT_S = 5, 86_400.0, 4 * 3600.0
DONE = 0.8
"""Share of the votes that are in."""
GUIDE = """# Which answer helps more?

Read the question and **both** answers to the end. Then ask, in this order:

1. Is what it says true? A wrong fact is worse than no answer.
2. Does it answer what was asked?
3. Is it kind? Rude is worse than plain; flattery is not kindness.

Call it a **tie** only where you would not mind which one a customer got. **Skip** what you cannot judge.
"""
REASONS = ("It says what is true.", "It answers the question.", "The other one is rude.", "Both say the same.")


def make_project(store: Store, hashed: str, *, pairs: int, seed: int = 0) -> tuple[int, int]:
    """The project with its lead, whose password hash is given; numbers of pairs and votes. DataError if it is there."""
    now = store.clock()
    world, raters = World(seed), _team(seed)
    with store.writing() as tx:
        if tx.projects.by_name(NAME) is not None or tx.people.user_by_name(LEAD) is not None:
            raise DataError(
                f"There is a project or a user called {NAME!r} in {store.place} already. Give another --db."
            )
        begun = now - DAYS * DAY_S
        lead = tx.people.create_user(LEAD, now=begun, admin=not tx.people.any_admin(), password_hash=hashed)
        settings = ProjectSettings(calibration_items=min(CALIBRATION, pairs // 2), repeat_share=0.05)
        project = tx.projects.create(NAME, TITLE, settings, by=lead.id, now=begun)
        tx.projects.new_guide(project.id, GUIDE, by=lead.id, now=begun)
        asked = _questions(world, pairs + GOLDEN + CALIBRATION, seed)
        added = tx.items.add(project.id, _items(world, asked, seed), now=begun)
        known = dict(zip(added.item_ids, asked, strict=True))
        users = {tx.people.create_user(f"{LEAD} {rater.name}", now=begun).id: rater for rater in raters}
        for user_id in users:
            tx.people.join(project.id, user_id, "rater", now=begun)
        room = _Room(tx, project, world, known, users, seed)
        room.calibrate(begun)
        votes = room.judge(begun + 0.3 * DAY_S, now)
    return pairs, votes


class _Room:
    """The raters at work, in one transaction."""

    def __init__(
        self,
        tx: Transaction,
        project: Project,
        world: World,
        questions: dict[int, Question],
        users: dict[int, Rater],
        seed: int,
    ) -> None:
        self.tx, self.project, self.world, self.users = tx, project, world, users
        self.questions = questions
        self.rng = generator(seed, "studio demo")
        self.pick = partial(choose, settings=project.settings, seed=project.id)

    def calibrate(self, at: float) -> None:
        """One round, judged by all and closed."""
        tx, project_id = self.tx, self.project.id
        skills = {str(user_id): () for user_id in self.users}
        settings = self.project.settings
        drawn = new_round([], 1, tx.items.each(project_id, "pair"), skills, settings, seed=project_id)
        tx.rounds.open(project_id, drawn.item_ids, now=at)
        tx.projects.set_state(project_id, "calibrating")
        for number in range(len(drawn.item_ids)):
            for user_id in self.users:
                self._one(user_id, at + 60.0 * number)
        current = tx.rounds.current(project_id)
        assert current is not None
        members = tx.people.members(project_id)
        ballots = ballots_of(tx.work.votes(project_id, ("calibration",)), members)
        names = {member.pseudonym: member.user_id for member in members if member.user_id in self.users}
        result = close_round(current, ballots, list(names), settings)
        tx.rounds.close(current.id, result.to_dict(), True, now=at + SHIFT_S, unlocked=list(names.values()))
        tx.projects.set_state(project_id, "open")

    def judge(self, start: float, end: float) -> int:
        """Votes until `DONE` of them are in, over shifts of a few hours a day."""
        wanted = int(DONE * self.tx.work.progress(self.project.id).votes_wanted)
        team, given = list(self.users), 0
        while self.tx.work.progress(self.project.id).votes < wanted:
            share = given / max(1, wanted)
            day, within = divmod(share * DAYS, 1.0)
            at = min(end, start + day * DAY_S + within * SHIFT_S)
            if not sum(self._one(int(user_id), at) for user_id in self.rng.permutation(team)):
                break
            given += len(team)
        return self.tx.work.progress(self.project.id).votes

    def _one(self, user_id: int, at: float) -> bool:
        """One task of one rater, from the screen to the vote."""
        lease = self.tx.work.lease(self.project.id, user_id, self.pick, at)
        if lease is None:
            return False
        item, rater = self.tx.items.get(lease.item_id), self.users[user_id]
        seconds = float(self.rng.lognormal(3.0 if rater.lazy < 0.5 else 1.2, 0.4))
        reason = str(self.rng.choice(REASONS)) if lease.purpose == "calibration" or self.rng.random() < 0.1 else None
        draft = Draft(choice=self._said(lease, item, rater), rationale=reason, seconds=round(seconds, 1))
        self.tx.work.judge(lease.id, user_id, draft, f"demo-{secrets.token_hex(8)}", at)
        return True

    def _said(self, lease: Lease, item: Item, rater: Rater) -> Choice:
        question = self.questions[item.id]
        sides = [self.world.features(question, text) for text in (item.a, item.b)]
        left, right = reversed(sides) if lease.swapped else sides
        said = rater.judge(left, right, self.rng)
        if said == "tie" or not lease.swapped:
            return said
        return "b" if said == "a" else "a"


def _team(seed: int) -> list[Rater]:
    team = panel(NUM_RATERS, seed, noise=0.6)
    team[0] = replace(team[0], position_bias=1.2)
    team[1] = replace(team[1], lazy=0.7)
    return team


def _questions(world: World, count: int, seed: int) -> list[Question]:
    rng, pool = generator(seed, "studio demo questions"), world.train_questions
    return [pool[int(at)] for at in rng.choice(len(pool), size=count, replace=count > len(pool))]


def _items(world: World, questions: list[Question], seed: int) -> Iterator[NewItem]:
    """Two different answers of the crowd to each question, the first `GOLDEN` with the answer that is truly better."""
    rng = generator(seed, "studio demo answers")
    for number, question in enumerate(questions):
        clear, a, b, lead = number < GOLDEN, "", "", 0.0
        while a == b or (clear and abs(lead) < 1.0):
            a, b = world.demonstration(question, rng), world.demonstration(question, rng)
            lead = utility(world.features(question, a)) - utility(world.features(question, b))
        gold: Choice | None = ("a" if lead > 0 else "b") if clear else None
        yield NewItem(prompt=question.text, a=a, b=b, gold=gold, provenance={"a": "crowd", "b": "crowd"})
