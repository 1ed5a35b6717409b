"""A model as a rater like any other: it judges a project's items as a member, each in both orders. No torch here.

Its vote in the order that was drawn for it counts as a rater's does; the same pair the other way round is stored as a
repeat. So its kappa with people, its accuracy on golden items, its pull to the first side and its consistency under a
swap stand on its card, and `keel collect` counts a vote that a swap turns round as a tie.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from keel.annotate.ballots import ballots_of
from keel.annotate.raters import RaterCard, rater_cards
from keel.core.config import Config
from keel.core.errors import AccessError, ConflictError
from keel.core.progress import Progress
from keel.data.records import Choice
from keel.stages.collect import project_of
from keel.stages.endpoint import Endpoint, EndpointConfig
from keel.stages.feedback.judges import AIJudge, EndpointJudge, PythonJudge, all_said
from keel.stages.feedback.question import Question, Said, Verdict
from keel.store.rows import Candidates, Draft, Item, Lease, Pick, Project
from keel.store.store import Store, Transaction

AT_ONCE = 5
"""Items under way; the store lends no more to one rater."""


class JudgeConfig(Config):
    """A model that judges pairs."""

    name: str = Field(min_length=1)
    """Under which it is a user of the studio. Raters and snapshots see only its pseudonym, marked as a model."""
    python: str | None = None
    """`file.py:function`: takes a list of Question, returns as many of "first", "second", "tie", "skip", or
    probabilities from 0 to 1 that the first is better."""
    endpoint: EndpointConfig | None = None
    """A model behind an OpenAI-compatible address, asked with a short prompt that holds the project's guide."""
    max_new_tokens: int = Field(512, ge=1)
    """Longest answer of the endpoint, its reason included."""
    temperature: float = Field(0.0, ge=0)
    """Of the endpoint."""
    guide: bool = True
    """Whether the endpoint is shown the project's guide."""
    limit: int | None = Field(None, ge=1)
    """Items to judge at most."""
    own_answers: bool = False
    """Whether it may judge answers that it gave itself; models prefer their own."""

    @model_validator(mode="after")
    def _one_judge(self) -> Self:
        if (self.python is None) == (self.endpoint is None):
            raise ValueError("give exactly one of `python` and `endpoint`")
        return self


Ask = Callable[[Sequence[Question]], Sequence[Said]]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a judge has done in one go."""

    pseudonym: str
    items: int
    consistent: int
    """Items with the same answer in both orders."""
    unclear: int
    """Verdicts of two an item that could not be read, or were none; they count as skips."""
    card: RaterCard | None
    """All of its work in the project; None before the first vote."""


def judge_project(store: Store, project_name: str, config: JudgeConfig, progress: Progress, folder: Path) -> Judged:
    """Judge what the project has for this rater, both orders each, until nothing is left or the limit is reached.

    A model that is no user yet becomes one, with the role rater; it takes part in calibration rounds, and an open
    project needs no round passed by it. What is judged is stored item by item; broken off, it goes on. AccessError for
    answers of its own, ConflictError for a project that nobody judges now.
    """
    ask = asking(config, folder)
    user_id, pseudonym = enrol(store, project_name, config)
    items = consistent = unclear = 0
    progress.start(f"judge {config.name}", config.limit, "items")
    while config.limit is None or items < config.limit:
        room = AT_ONCE if config.limit is None else min(AT_ONCE, config.limit - items)
        tasks = lease_some(store, project_name, user_id, room)
        if not tasks:
            break
        try:
            said = ask([question for task in tasks for question in task.both()])
        except BaseException:
            give_back(store, project_name, user_id)
            raise
        for place, task in enumerate(tasks):
            as_leased, other = said[2 * place : 2 * place + 2]
            choices = choice_of(as_leased.verdict, task.lease.swapped), choice_of(other.verdict, not task.lease.swapped)
            remember(store, task, choices, as_leased.reason)
            items, unclear = items + 1, unclear + choices.count("skip")
            consistent += choices[0] == choices[1] != "skip"
            progress.advance(1)
    progress.finish(f"{items} items, {consistent} with the same answer in both orders")
    return Judged(
        pseudonym=pseudonym,
        items=items,
        consistent=consistent,
        unclear=unclear,
        card=card_of(store, project_name, pseudonym),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """An item that the judge holds."""

    lease: Lease
    item: Item
    guide: str
    ties: bool

    def both(self) -> tuple[Question, Question]:
        """As it was drawn, and with the sides swapped."""
        left, right = (self.item.b, self.item.a) if self.lease.swapped else (self.item.a, self.item.b)
        one = {"prompt": self.item.prompt, "guide": self.guide, "ties": self.ties}
        return Question(first=left, second=right, **one), Question(first=right, second=left, **one)


def asking(config: JudgeConfig, folder: Path) -> Ask:
    """The judge as a function of questions."""
    if config.endpoint is not None:
        judge: AIJudge = EndpointJudge(
            Endpoint(config.endpoint), max_new_tokens=config.max_new_tokens, temperature=config.temperature
        )
    else:
        judge = PythonJudge.named(str(config.python), "judge.python", folder)
    return lambda questions: all_said(judge, questions)


def choice_of(verdict: Verdict, swapped: bool) -> Choice:
    """A verdict about first and second as one about the item's own a and b."""
    if verdict in ("tie", "skip"):
        return verdict
    return "b" if (verdict == "first") == swapped else "a"


def enrol(store: Store, project_name: str, config: JudgeConfig) -> tuple[int, str]:
    """The judge's user id and pseudonym; it joins where it has not."""
    now = store.clock()
    with store.writing() as tx:
        project = project_of(tx, project_name)
        if project.state not in ("open", "calibrating"):
            raise ConflictError(f"{project_name} is {project.state}: nobody judges there now. Its lead opens it.")
        user = tx.people.user_by_name(config.name) or tx.people.create_user(config.name, now=now, kind="model")
        if user.kind != "model":
            raise AccessError(f"{config.name!r} is a person in this studio. Give the judge another name.")
        if not config.own_answers:
            refuse_own_answers(tx, project, config)
        member = tx.people.membership(project.id, user.id)
        if member is None or not member.active:
            member = tx.people.join(project.id, user.id, "rater", now=now)
            tx.audit.add("join", at=now, project_id=project.id, target=member.pseudonym, details={"kind": "model"})
        if member.unlocked_round is None and project.state == "open":
            tx.people.unlock(project.id, [user.id], 0)
    return user.id, member.pseudonym


def refuse_own_answers(tx: Transaction, project: Project, config: JudgeConfig) -> None:
    """AccessError where items hold answers of the model that would judge them."""
    names = {config.name, *([config.endpoint.model] if config.endpoint else [])}
    own = total = 0
    for item in tx.items.each(project.id):
        total += 1
        own += any(names & made_by(item.provenance.get(side)) for side in "ab")
    if own:
        raise AccessError(
            f"{own} of {total} items of {project.name} hold answers of {' or '.join(sorted(names))}, and a model "
            "prefers its own. Let another model judge, or say --own-answers (own_answers: true) where you study that."
        )


def made_by(source: Any) -> set[str]:
    """Every name under which the model behind an answer is known."""
    if isinstance(source, Mapping):
        return {str(source[name]) for name in ("model", "endpoint_model", "served_model") if source.get(name)}
    return {source} if isinstance(source, str) else set()


def everything(candidates: Candidates) -> Pick | None:
    """What waits for a model: a calibration round, golden items, then whatever needs votes; sides by the item."""
    for purpose, waiting in (
        ("calibration", candidates.calibration),
        ("golden", candidates.golden),
        ("judge", candidates.open),
    ):
        for item in waiting:
            if item.item_id not in candidates.in_view:
                return Pick(item_id=item.item_id, purpose=purpose, swapped=item.item_id % 2 == 1)
    return None


def lease_some(store: Store, project_name: str, user_id: int, count: int) -> list[Task]:
    """Up to `count` items for the judge."""
    now = store.clock()
    with store.writing() as tx:
        project = project_of(tx, project_name)
        text = tx.projects.guide(project.id)
        guide = text.text if text is not None else ""
        tasks: list[Task] = []
        for place in range(count):
            lease = tx.work.lease(project.id, user_id, everything, now, ahead=place)
            if lease is None:
                break
            item = tx.items.get(lease.item_id)
            tasks.append(Task(lease=lease, item=item, guide=guide, ties=project.settings.ties))
    return tasks


def remember(store: Store, task: Task, choices: tuple[Choice, Choice], reason: str | None) -> None:
    """Both verdicts on an item, or neither."""
    lease, now = task.lease, store.clock()
    said: list[Choice] = ["skip" if choice == "tie" and not task.ties else choice for choice in choices]
    if lease.purpose == "calibration" and reason is None:
        reason = "The verdict of a model, which gave no reason."
    with store.writing() as tx:
        draft = Draft(choice=said[0], rationale=reason)
        tx.work.judge(lease.id, lease.user_id, draft, f"model:{lease.id}:{lease.leased}", now)
        if lease.purpose == "judge" and said[0] != "skip":
            again = tx.work.again(lease.project_id, lease.user_id, lease.item_id, not lease.swapped, now)
            tx.work.judge(again.id, lease.user_id, Draft(choice=said[1]), f"model:{again.id}:{now}", now)


def give_back(store: Store, project_name: str, user_id: int) -> None:
    """Hand back what the judge holds, so that others need not wait for it."""
    with store.writing() as tx:
        tx.work.release_all(project_of(tx, project_name).id, user_id)


def card_of(store: Store, project_name: str, pseudonym: str) -> RaterCard | None:
    """The judge's card among all raters."""
    with store.reading() as tx:
        project = project_of(tx, project_name)
        said = tx.work.votes(project.id, ("judge", "calibration", "golden", "repeat"))
        ballots = ballots_of(said, tx.people.members(project.id))
        gold = {item.id: item.gold for item in tx.items.each(project.id, "golden") if item.gold is not None}
    return next((card for card in rater_cards(ballots, gold) if card.rater == pseudonym), None)
