"""What a rater does: the next pairs, judgments, undo, giving back.

Nothing here tells who or what wrote an answer, whether its verdict is known, or what others said; golden items and
repeats look like all others.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import Field

from keel.annotate.assignment import choose
from keel.core.errors import ConflictError, MissingError
from keel.store.rows import Choice, Draft, Lease, Project, State
from keel.store.settings import Rationale
from keel.store.store import Store, Transaction
from keel.studio.api.errors import ApiError
from keel.studio.api.identity import OpenStore, Permitted, Visit, audited, visits_of
from keel.studio.api.models import ClientKey, Done, Id, Model, Note, ProjectPath, RaterProgressShown, Side, midnight
from keel.studio.api.rounds import unlock_newcomer
from keel.studio.shown import Texts
from keel.studio.writer import Writer

router = APIRouter(tags=["judging"])
LOCKED = "You have judged the calibration round. The lead looks at it with you before you go on."


class TaskWish(Model):
    ahead: Annotated[int, Field(ge=0, le=4, description="Pairs wanted besides the one to show now")] = 0


class Task(Model):
    """A pair as its rater sees it."""

    lease: Id
    """What a judgment names. The item's own number is not told: golden items and repeats would be known by it."""
    purpose: Literal["judge", "calibration", "adjudicate"]
    prompt_html: str
    prompt_text: str
    left_html: str
    left_text: str
    right_html: str
    right_text: str
    guide_version: int
    expires: float
    """UTC seconds; judged later it still counts where nobody else was given the pair."""
    ties: bool
    both_bad: bool
    strength: bool
    """Whether to ask how strongly."""
    rationale: Literal["off", "optional", "required"]


class Offer(Model):
    """`task` is the first of `tasks`; both are empty where nothing waits for you, and `state` tells why."""

    task: Task | None
    tasks: list[Task]
    progress: RaterProgressShown
    state: State
    message: str | None = None
    """Why nothing waits, where the state of the project does not say it."""


class Ballot(Model):
    lease: Id
    choice: Side
    strength: Annotated[int | None, Field(ge=1, le=3, description="1 slightly, 2 clearly, 3 by far")] = None
    flag: Annotated[Note | None, Field(max_length=500, description="What is wrong with the pair itself")] = None
    rationale: Note | None = None
    seconds: Annotated[float | None, Field(ge=0, allow_inf_nan=False, description="Time spent on it")] = None
    client_key: ClientKey


class JudgmentShown(Model):
    id: int
    lease: int
    choice: Side
    created: float


class Saved(Model):
    judgment: JudgmentShown
    progress: RaterProgressShown


class UndoWish(Model):
    client_key: Annotated[ClientKey, Field(description="Of the judgment to take back")]


class Reopened(Model):
    task: Task
    progress: RaterProgressShown


class ReleaseWish(Model):
    lease: Annotated[Id | None, Field(description="All that you hold where left out")] = None


@router.post("/projects/{p}/next")
def next_tasks(
    request: Request, store: OpenStore, visit: Permitted, p: ProjectPath, given: TaskWish | None = None
) -> Offer:
    """The pair to judge now, and up to `ahead` more. Asking again gives the same ones until they are judged."""
    ahead = given.ahead if given else 0

    def work(tx: Transaction) -> tuple[list[Lease], RaterProgressShown]:
        tx.lock(visit.of.id)
        now = store.clock_of(tx)
        held = _handed_out(tx, visit, ahead, now)
        return held, recent.get(me) or _progress(tx, visit, now)

    me, recent = (visit.of.id, visit.user.id), request.app.state.progress
    leases, progress = writer_of(request).run(visit.of.id, work)
    tasks = _tasks(request, store, visit, leases)
    if tasks:
        return Offer(task=tasks[0], tasks=tasks, progress=progress, state=visit.of.state)
    progress = progress.model_copy(update={"left": 0})  # what is left waits for others
    message = LOCKED if _is_locked(store, visit) else None
    return Offer(task=None, tasks=[], progress=progress, state=visit.of.state, message=message)


@router.post("/projects/{p}/judgments")
def judge(request: Request, store: OpenStore, visit: Permitted, p: ProjectPath, given: Ballot) -> Saved:
    """Store a judgment; on disk when this answers. The same `client_key` again gives the same judgment."""

    def work(tx: Transaction) -> JudgmentShown:
        tx.lock(visit.of.id)
        now = store.clock_of(tx)
        lease = own_lease(tx, visit, given.lease)
        _fits(visit.of, lease, given)
        draft = Draft(
            choice=own_choice(given.choice, swapped=lease.swapped),
            strength=given.strength,
            flag=given.flag,
            rationale=given.rationale,
            seconds=given.seconds,
        )
        saved = tx.work.judge(given.lease, visit.user.id, draft, given.client_key, now)
        if saved.choice == "withdrawn":
            raise ConflictError("This judgment was taken back since. Judge the pair again under a new key.")
        if lease.round_id is not None and visit.member.unlocked_round is None:
            unlock_newcomer(tx, visit, lease.round_id)
        side = side_of(saved.choice, swapped=saved.swapped)
        return JudgmentShown(id=saved.id, lease=saved.lease_id, choice=side, created=saved.created)

    shown = writer_of(request).run(visit.of.id, work)
    with store.reading() as tx:  # writers follow each other, readers do not
        progress = _progress(tx, visit, store.clock_of(tx))
    request.app.state.progress.put((visit.of.id, visit.user.id), progress)
    if visit.member.unlocked_round is None:
        visits_of(request).forget()  # this judgment may have unlocked its rater
    return Saved(judgment=shown, progress=progress)


@router.post("/projects/{p}/undo")
def undo(request: Request, store: OpenStore, visit: Permitted, p: ProjectPath, given: UndoWish) -> Reopened:
    """Take a judgment of yours back; its pair is yours to judge again. What was said stays in the log of votes."""

    def work(tx: Transaction) -> tuple[Lease, RaterProgressShown]:
        tx.lock(visit.of.id)
        now = store.clock_of(tx)
        said = tx.work.judgment(visit.user.id, given.client_key)
        if said is None or said.project_id != visit.of.id:
            raise ApiError(404, "You have no judgment with that key here.", field="client_key")
        lease = tx.work.undo(given.client_key, visit.user.id, now)
        return lease, _progress(tx, visit, now)

    lease, progress = writer_of(request).run(visit.of.id, work)
    request.app.state.progress.put((visit.of.id, visit.user.id), progress)
    (task,) = _tasks(request, store, visit, [lease])
    return Reopened(task=task, progress=progress)


@router.post("/projects/{p}/release")
def release(store: OpenStore, visit: Permitted, p: ProjectPath, given: ReleaseWish | None = None) -> Done:
    """Give pairs back unjudged, so that others get them at once."""
    now, wanted = store.clock(), given.lease if given else None
    with store.writing() as tx:
        held = tx.work.live(visit.of.id, visit.user.id, now)
        for lease in [own_lease(tx, visit, wanted)] if wanted is not None else held:
            tx.work.release(lease.id, visit.user.id, now)
        audited(tx, visit, "release", f"{1 if wanted is not None else len(held)} leases")
    return Done()


def _is_locked(store: Store, visit: Visit) -> bool:
    """Whether others passed calibration and this rater has not."""
    if visit.of.state != "open" or visit.member.insider or visit.member.unlocked_round is not None:
        return False
    with store.reading() as tx:
        return tx.rounds.newest_passed(visit.of.id) is not None


def _handed_out(tx: Transaction, visit: Visit, ahead: int, now: float) -> list[Lease]:
    """What the rater holds, topped up to one pair and `ahead` more; fewer where nothing else waits."""
    pick = partial(choose, settings=visit.of.settings, seed=visit.of.id)
    if visit.member.insider:
        tx.work.release_revealed(visit.of.id, visit.user.id)
    held = tx.work.live(visit.of.id, visit.user.id, now)
    while len(held) <= ahead:
        lease = tx.work.lease(visit.of.id, visit.user.id, pick, now, ahead=ahead)
        if lease is None or any(lease.id == other.id for other in held):
            break
        held.append(lease)
    return held[: ahead + 1]


def own_lease(tx: Transaction, visit: Visit, lease_id: int) -> Lease:
    """The lease, if it is the visitor's and of this project; others' look like none at all."""
    lease = tx.work.get(lease_id)
    if lease.user_id != visit.user.id or lease.project_id != visit.of.id:
        raise MissingError(f"There is no lease {lease_id}.")
    return lease


def own_choice(side: Side, *, swapped: bool) -> Choice:
    """A choice between left and right as one between the item's a and b."""
    if side == "left":
        return "b" if swapped else "a"
    if side == "right":
        return "a" if swapped else "b"
    return side


def side_of(choice: Choice, *, swapped: bool) -> Side:
    """The reverse of `own_choice`."""
    if choice == "a":
        return "right" if swapped else "left"
    if choice == "b":
        return "left" if swapped else "right"
    return choice


def _tasks(request: Request, store: Store, visit: Visit, leases: Sequence[Lease]) -> list[Task]:
    """Outside of the transaction that leased them: rendering takes a while, and the texts never change."""
    if not leases:
        return []
    with store.reading() as tx:
        texts = request.app.state.shown.texts(tx, [lease.item_id for lease in leases])
    return [task_shown(visit.of, lease, texts[lease.item_id]) for lease in leases]


def task_shown(project: Project, lease: Lease, texts: Texts) -> Task:
    settings = project.settings
    a, b = (texts.a, texts.a_html), (texts.b, texts.b_html)
    (left, left_html), (right, right_html) = (b, a) if lease.swapped else (a, b)
    visible = lease.purpose if lease.purpose in ("calibration", "adjudicate") else "judge"
    return Task(
        lease=lease.id,
        purpose=visible,
        prompt_html=texts.prompt_html,
        prompt_text=texts.prompt,
        left_html=left_html,
        left_text=left,
        right_html=right_html,
        right_text=right,
        guide_version=lease.guide_version,
        expires=lease.expires,
        ties=settings.ties,
        both_bad=settings.both_bad,
        strength=settings.strength,
        rationale=_asked(settings.rationale, lease),
    )


def _asked(setting: Rationale, lease: Lease) -> Literal["off", "optional", "required"]:
    if setting == "required_on_calibration":
        return "required" if lease.purpose == "calibration" else "optional"
    return setting


def _fits(project: Project, lease: Lease, given: Ballot) -> None:
    """What the project does not ask for is refused, so that no vote is stored that means nothing."""
    settings = project.settings
    if given.choice == "tie" and not settings.ties:
        raise ApiError(422, "This project has no ties.", field="choice", hint="Choose left, right or skip.")
    if given.choice == "both_bad" and not settings.both_bad:
        raise ApiError(422, "This project has no both_bad.", field="choice", hint="Choose left, right or skip.")
    if given.strength is not None and not settings.strength:
        raise ApiError(422, "This project does not ask for a strength.", field="strength", hint="Leave it out.")
    missing = not (given.rationale or "").strip() and given.choice != "skip"
    if missing and _asked(settings.rationale, lease) == "required":
        raise ApiError(422, "Say why: a rationale is required in calibration.", field="rationale")


def _progress(tx: Transaction, visit: Visit, now: float) -> RaterProgressShown:
    told = tx.work.rater_progress(visit.of.id, visit.user.id, since=midnight(now))
    return RaterProgressShown(done=told.done, left=told.left, today=told.today)


def writer_of(request: Request) -> Writer:
    return request.app.state.writer
