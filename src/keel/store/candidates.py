"""What a rater could be given: short lists found by index, however many items there are.

Items that need votes are looked for from those with the fewest missing downwards, and within a number by priority and
age. Of each number only a window is looked through for one that this rater has not seen; only where all windows hold
nothing is the rest searched, and what that search finds beyond its need is remembered for the next time.

Insiders (`Membership.insider`) may read the votes on items that are revealed. They are never given these, but to settle
them and where all that was ever said is their own and taken back, nor golden items, nor repeats of what others have
judged too.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

from sqlalchemy import Row, Select, and_, bindparam, exists, or_, select, text

from keel.store import tables
from keel.store.rows import Candidate, Candidates, Lease, Membership, Project, Purpose, Round
from keel.store.slots import said_by_others
from keel.store.texts import strings_of

if TYPE_CHECKING:
    from keel.store.store import Transaction

SLOTS, LEASES, MEMBERS, JUDGMENTS = tables.slots, tables.leases, tables.memberships, tables.judgments
WINDOW = 300
"""Items with the same number of votes that are looked through before the next number is tried."""
EVERYTHING = 1 << 40
ENOUGH = 24
"""Candidates of a purpose."""
REMEMBERED = 200
"""Candidates that one long search keeps for the next calls."""
OPEN = text("slots.kind = 'pair' AND slots.state = 'open'")  # spelled out: only so the partial indexes are used

SEEN = exists(
    select(LEASES.c.id).where(
        LEASES.c.user_id == bindparam("user"),
        LEASES.c.item_id == SLOTS.c.item_id,
        LEASES.c.state.in_(("live", "done")),
    )
).correlate(SLOTS)
LEVEL = (
    select(SLOTS.c.item_id)
    .where(OPEN, SLOTS.c.project_id == bindparam("project"), SLOTS.c.skills == bindparam("skills"))
    .where(SLOTS.c.filled == bindparam("filled"))
    .order_by(SLOTS.c.priority.desc(), SLOTS.c.item_id)
    .limit(bindparam("window"))
)


def _unseen_of(level: Select[tuple[int]]) -> Select[tuple[int]]:
    window = level.subquery("looked_through")
    seen = select(LEASES.c.id).where(
        LEASES.c.user_id == bindparam("user"),
        LEASES.c.item_id == window.c.item_id,
        LEASES.c.state.in_(("live", "done")),
    )
    return select(window.c.item_id).where(~exists(seen).correlate(window)).limit(bindparam("enough"))


UNSEEN = _unseen_of(LEVEL)
_of_item = select(JUDGMENTS.c.id).where(JUDGMENTS.c.item_id == SLOTS.c.item_id)
NEW_TO_INSIDERS = or_(
    ~SLOTS.c.revealed,
    and_(
        ~said_by_others(0),
        exists(_of_item.where(JUDGMENTS.c.user_id == bindparam("user"))).correlate(SLOTS),
        ~exists(_of_item.where(JUDGMENTS.c.user_id != bindparam("user"))).correlate(SLOTS),
    ),
)
"""Nobody else's vote or known answer was ever to be read: who judges alone can take a vote back and be asked again."""
UNSEEN_BY_INSIDERS = _unseen_of(LEVEL.where(NEW_TO_INSIDERS))  # a statement of its own: UNSEEN reads only the index
NEXT_SKILLS = (
    select(SLOTS.c.skills)
    .where(OPEN, SLOTS.c.project_id == bindparam("project"), SLOTS.c.skills > bindparam("after"))
    .order_by(SLOTS.c.skills)
    .limit(1)
)
LAST_SKILLS = (
    select(SLOTS.c.skills)
    .where(OPEN, SLOTS.c.project_id == bindparam("project"))
    .order_by(SLOTS.c.skills.desc())
    .limit(1)
)
FIRST_AND_LAST_SKILLS = select(
    NEXT_SKILLS.scalar_subquery().label("first"), LAST_SKILLS.scalar_subquery().label("last")
)
CHOSEN = select(SLOTS).where(SLOTS.c.item_id.in_(bindparam("items", expanding=True)))
STILL_OPEN = select(SLOTS.c.item_id).where(
    OPEN,
    SLOTS.c.item_id.in_(bindparam("items", expanding=True)),
    SLOTS.c.filled < bindparam("overlap"),
    SLOTS.c.skills.in_(bindparam("allowed", expanding=True)),
    ~SEEN,
)
GOLDEN = (
    select(SLOTS)
    .where(text("slots.kind = 'golden'"), SLOTS.c.project_id == bindparam("project"), SLOTS.c.removed.is_(None), ~SEEN)
    .order_by(SLOTS.c.item_id)
    .limit(ENOUGH)
)
DISPUTED = (
    select(SLOTS)
    .where(SLOTS.c.project_id == bindparam("project"), SLOTS.c.kind == "pair")
    .where(SLOTS.c.state.in_(("disputed", "parked")), ~SEEN)
    .order_by(SLOTS.c.item_id)
    .limit(ENOUGH)
)
_again = LEASES.alias("again")
OWN = (
    select(LEASES.c.id, LEASES.c.item_id, LEASES.c.swapped)
    .where(LEASES.c.user_id == bindparam("user"), LEASES.c.project_id == bindparam("project"))
    .where(LEASES.c.purpose == "judge", LEASES.c.state == "done")
    .order_by(LEASES.c.id.desc())
)
REPEATABLE = (
    OWN.join(SLOTS, SLOTS.c.item_id == LEASES.c.item_id)
    .add_columns(SLOTS.c.skills, SLOTS.c.priority)
    .where(LEASES.c.id <= bindparam("last"), SLOTS.c.kind == "pair", SLOTS.c.removed.is_(None))
    .where(
        ~exists(
            select(_again.c.id).where(
                _again.c.user_id == LEASES.c.user_id,
                _again.c.item_id == LEASES.c.item_id,
                _again.c.purpose == "repeat",
                _again.c.state.in_(("live", "done")),
            )
        )
    )
    .limit(ENOUGH)
)
REPEATABLE_BY_INSIDERS = REPEATABLE.where(~(SLOTS.c.revealed & said_by_others(1)))
IN_ROUND = select(LEASES.c.item_id).where(
    LEASES.c.round_key == bindparam("round"),
    LEASES.c.user_id == bindparam("user"),
    LEASES.c.state.in_(("live", "done")),
    text("leases.round_key > 0"),
)
GIVEN = select(
    MEMBERS.c.n_judge, MEMBERS.c.n_calibration, MEMBERS.c.n_golden, MEMBERS.c.n_repeat, MEMBERS.c.n_adjudicate
).where(MEMBERS.c.project_id == bindparam("project"), MEMBERS.c.user_id == bindparam("user"))


class Later(Sequence[Candidate]):
    """A list that is looked up when somebody looks at it: most picks need neither golden items nor repeats."""

    def __init__(self, find: Callable[[], tuple[Candidate, ...]]) -> None:
        self._find = find

    @cached_property
    def _found(self) -> tuple[Candidate, ...]:
        return self._find()

    @overload
    def __getitem__(self, place: int) -> Candidate: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Candidate]: ...
    def __getitem__(self, place: int | slice) -> Candidate | Sequence[Candidate]:
        return self._found[place]

    def __len__(self) -> int:
        return len(self._found)


def gather(tx: "Transaction", project: Project, member: Membership, held: Sequence[Lease], now: float) -> Candidates:
    """The candidates for one rater; only those that the state of the project allows, and none but a round's for one who
    has not passed it.
    """
    key = {"project": project.id, "user": member.user_id}
    row = tx.rows(GIVEN, key)[0]
    current = _round(tx, project, member)
    is_open = project.state == "open" and current is None
    senior = member.role in {"senior", "lead"} and project.settings.adjudicate
    golden, repeats = project.settings.golden_share > 0, project.settings.repeat_share > 0
    return Candidates(
        project=project,
        member=member,
        now=now,
        open=_open(tx, project, member) if is_open else (),
        golden=Later(lambda: _plain(tx.rows(GOLDEN, key), member)) if is_open and golden and not member.insider else (),
        repeats=Later(lambda: _repeats(tx, key, project.settings.repeat_after, member)) if is_open and repeats else (),
        disputes=_plain(tx.rows(DISPUTED, key), member) if is_open and senior else (),
        calibration=() if current is None else _calibration(tx, current, member),
        round=current,
        given={
            "judge": row.n_judge,
            "calibration": row.n_calibration,
            "golden": row.n_golden,
            "repeat": row.n_repeat,
            "adjudicate": row.n_adjudicate,
        },
        in_view=tuple(lease.item_id for lease in held),
    )


def _open(tx: "Transaction", project: Project, member: Membership) -> tuple[Candidate, ...]:
    allowed = _allowed(tx, project.id, member)
    found = _unseen(tx, project, member, allowed, WINDOW, ENOUGH) or _remembered(tx, project, member, allowed)
    if allowed and not found:
        found = _unseen(tx, project, member, allowed, EVERYTHING, REMEMBERED)
        tx.hints[project.id, member.user_id] = found
    return _ordered(tx, found[:ENOUGH], project.settings.overlap)


def _unseen(
    tx: "Transaction", project: Project, member: Membership, allowed: Sequence[str], window: int, enough: int
) -> list[int]:
    """Open items that the rater has not seen, fewest votes missing first; `window` of each number are looked at."""
    query = UNSEEN_BY_INSIDERS if member.insider else UNSEEN
    found: list[int] = []
    for filled in range(project.settings.overlap - 1, -1, -1):
        for skills in allowed:
            values = {"project": project.id, "user": member.user_id, "skills": skills, "filled": filled}
            found += [row[0] for row in tx.rows(query, {**values, "window": window, "enough": enough})]
        if len(found) >= enough:
            break
    return found


def _remembered(tx: "Transaction", project: Project, member: Membership, allowed: Sequence[str]) -> list[int]:
    """What an earlier long search found, as far as it is still open to this rater."""
    items = tx.hints.pop((project.id, member.user_id), [])
    if not items or not allowed:
        return []
    values = {"items": items, "user": member.user_id, "overlap": project.settings.overlap, "allowed": allowed}
    query = STILL_OPEN.where(NEW_TO_INSIDERS) if member.insider else STILL_OPEN
    still = {row[0] for row in tx.rows(query, values)}
    left = [item for item in items if item in still]
    if left:
        tx.hints[project.id, member.user_id] = left
    return left


def _allowed(tx: "Transaction", project_id: int, member: Membership) -> list[str]:
    """The combinations of skills among open items that the rater has all of."""
    first, last = tx.rows(FIRST_AND_LAST_SKILLS, {"project": project_id, "after": ""})[0]
    found = [] if first is None else [first]
    while found and found[-1] != last:
        found.append(tx.rows(NEXT_SKILLS, {"project": project_id, "after": found[-1]})[0][0])
    return [skills for skills in found if set(strings_of(skills)) <= set(member.skills)]


def _ordered(tx: "Transaction", items: Sequence[int], overlap: int) -> tuple[Candidate, ...]:
    rows = tx.rows(CHOSEN, {"items": items}) if items else []
    rows = sorted(rows, key=lambda row: (-row.filled, -row.priority, row.item_id))
    return tuple(_candidate(row, missing=overlap - row.filled) for row in rows)


def _plain(rows: Sequence[Row], member: Membership) -> tuple[Candidate, ...]:
    candidates = (_candidate(row) for row in rows)
    return tuple(candidate for candidate in candidates if set(candidate.skills) <= set(member.skills))


def _repeats(tx: "Transaction", key: Mapping[str, int], repeat_after: int, member: Membership) -> tuple[Candidate, ...]:
    far = tx.first(OWN.offset(repeat_after).limit(1), key)
    if far is None:
        return ()
    query = REPEATABLE_BY_INSIDERS if member.insider else REPEATABLE
    rows = tx.rows(query, {**key, "last": far.id})
    return tuple(_candidate(row, swapped_before=bool(row.swapped)) for row in rows)


def _calibration(tx: "Transaction", current: Round, member: Membership) -> tuple[Candidate, ...]:
    done = {row[0] for row in tx.rows(IN_ROUND, {"round": current.id, "user": member.user_id})}
    waiting = [item_id for item_id in current.item_ids if item_id not in done]
    rows = {row.item_id: row for row in tx.rows(CHOSEN, {"items": waiting})} if waiting else {}
    in_order = (rows[item_id] for item_id in waiting if item_id in rows)
    return tuple(_candidate(row) for row in in_order if row.removed is None and not (member.insider and row.revealed))


def _round(tx: "Transaction", project: Project, member: Membership) -> Round | None:
    """The round that this rater has to pass, if any; insiders know what was said in one that is over."""
    if project.state == "calibrating":
        return tx.rounds.current(project.id)
    if project.state == "open" and member.unlocked_round is None and not member.insider:
        return tx.rounds.newest_passed(project.id)
    return None


def _candidate(row: Row, missing: int = 0, swapped_before: bool | None = None) -> Candidate:
    return Candidate(
        item_id=row.item_id,
        skills=strings_of(row.skills),
        priority=row.priority,
        missing=missing,
        swapped_before=swapped_before,
    )


def purpose_column(purpose: Purpose) -> Any:
    """The column of `memberships` that counts what a rater was given for a purpose."""
    return MEMBERS.c[f"n_{purpose}"]
