"""What the studio's database holds, one frozen row each. Numbers are ids; times are UTC seconds since 1970.

    User --- Membership --- Project --- Guide (versions), Round (calibration), Snapshot (frozen for training)
                               |
                              Item --- Lease (who judges what, until when) --- Judgment (append-only)

No row knows how it is stored, so whoever decides over rows needs neither SQL nor a database.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from keel.data.records import Choice, Prompt
from keel.store.settings import ProjectSettings

Role = Literal["viewer", "rater", "senior", "lead"]
ROLES: tuple[Role, ...] = get_args(Role)
"""In a project, from the least to the most rights. The administrator of the installation stands above them all."""

State = Literal["setup", "calibrating", "open", "paused", "closed"]
STATES: tuple[State, ...] = get_args(State)

Purpose = Literal["judge", "calibration", "golden", "repeat", "adjudicate"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)

Kind = Literal["pair", "calibration", "golden"]
"""What an item is for: votes to train on, a calibration round, or a known answer to probe raters and models with."""

ItemState = Literal["open", "complete", "disputed", "settled", "parked", "removed"]
"""open        votes are missing
complete    as many votes as the project's overlap, one answer with more than half of them
disputed    as many votes as the overlap, no answer with more than half; a senior settles it
settled     a senior has decided
parked      as many raters skipped it as the overlap; a senior or lead looks at it
removed     taken out by a lead; its votes are kept and count nowhere
"""

LeaseState = Literal["live", "done", "expired", "released"]
RoundState = Literal["open", "passed", "failed"]

Said = Literal["a", "b", "tie", "both_bad", "skip", "withdrawn"]
"""A choice, always in the item's own a and b, or `withdrawn` where a rater took the last one back."""

CHOICES: tuple[Choice, ...] = get_args(Choice)
"""In the order of the codes of `VoteTable.choices`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class User:
    """Somebody, or a model, that can hold a role. An erased one keeps only the number."""

    id: int
    name: str
    email: str | None
    admin: bool
    active: bool
    created: float
    kind: Literal["person", "model"] = "person"
    erased: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Membership:
    """A user in a project. The pseudonym is all that others, exports and snapshots see."""

    user_id: int
    project_id: int
    role: Role
    pseudonym: str
    skills: tuple[str, ...] = ()
    weight: float = 1.0
    """How much this rater's vote counts against others'; 1 is usual."""
    active: bool = True
    unlocked_round: int | None = None
    """Number of the calibration round that the rater passed; None while still locked."""
    joined: float = 0.0
    insider: bool = False
    """Is or was a senior or lead, or an administrator while a member: may have read the votes and known answers that
    are revealed, and is therefore never asked about those items, but to settle them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    id: int
    name: str
    """In addresses and in `project@snapshot`: lower-case letters, digits, - and _."""
    title: str
    state: State
    settings: ProjectSettings
    guide_version: int
    """Of the newest guide; 0 before the first."""
    created: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Guide:
    """A version of the annotation guide, Markdown. Versions count from 1 and never change."""

    project_id: int
    version: int
    text: str
    by: int | None
    created: float


@dataclass(frozen=True, kw_only=True, slots=True)
class NewItem:
    """A prompt and two answers to be judged."""

    prompt: Prompt
    a: str
    b: str
    skills: tuple[str, ...] = ()
    """All of these a rater must have to be given it."""
    priority: float = 0.0
    """Larger is sooner."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Where the answers come from; `a` and `b` hold each answer's generator."""
    gold: Choice | None = None
    """The known answer; makes it a golden item."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    id: int
    project_id: int
    key: str
    """Hash of prompt and answers, whichever of them stands first."""
    prompt: Prompt
    a: str
    b: str
    kind: Kind
    gold: Choice | None
    skills: tuple[str, ...]
    priority: float
    provenance: Mapping[str, Any]
    created: float
    removed: float | None
    """When it was taken out; None while it is in."""
    state: ItemState = "open"
    votes: int = 0
    """Current votes for the purpose `judge`, skips left out."""
    skips: int = 0
    live: int = 0
    """Leases running for the purpose `judge`."""
    flags: int = 0
    """Judgments that flagged it."""
    settled: Choice | None = None
    """What a senior decided."""
    revealed: bool = False
    """Whether its votes, or its known answer, may be read by insiders: from the moment that all votes are in (or a
    calibration round is closed, or it is made golden, settled, parked, taken out or exported) and for good."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """One item put before one rater, until `expires`. A rater has one lease an item and purpose (and round), whose
    state changes: an expired one given out again keeps its number.
    """

    id: int
    project_id: int
    item_id: int
    user_id: int
    purpose: Purpose
    swapped: bool
    """True where b stands left."""
    guide_version: int
    round_id: int | None
    leased: float
    expires: float
    state: LeaseState = "live"
    judgment_id: int | None = None
    """The judgment that counts; None before the first and after one was withdrawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """What a rater says, before it is stored."""

    choice: Choice
    strength: int | None = None
    """1 slightly, 2 clearly, 3 by far; None where it was not asked."""
    flag: str | None = None
    """What is wrong with the item itself."""
    rationale: str | None = None
    seconds: float | None = None
    """Time spent, measured by the client; clipped to [0, the project's lease time]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgment:
    """One row of what raters said; never changed nor removed. Of a lease the newest row counts."""

    id: int
    lease_id: int
    project_id: int
    item_id: int
    user_id: int
    purpose: Purpose
    choice: Said
    strength: int | None
    flag: str | None
    rationale: str | None
    seconds: float | None
    swapped: bool
    guide_version: int
    client_key: str
    created: float
    round_id: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """A calibration round: the same items before every rater, blind."""

    id: int
    project_id: int
    number: int
    guide_version: int
    item_ids: tuple[int, ...]
    state: RoundState
    opened: float
    closed: float | None
    figures: Mapping[str, Any]
    """What was measured when it closed; empty before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """Records frozen for training, with the hash of their content."""

    id: int
    project_id: int
    name: str
    content_hash: str
    """SHA-256 of the canonical JSON lines, 64 hex digits."""
    created: float
    by: int | None
    manifest: Mapping[str, Any]
    records: int
    num_bytes: int
    """Of the JSON lines, uncompressed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditEntry:
    id: int
    at: float
    user_id: int | None
    project_id: int | None
    action: str
    target: str
    details: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """An API token; the database knows only its SHA-256."""

    id: int
    user_id: int
    name: str
    created: float
    expires: float | None
    used: float | None
    revoked: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Invite:
    """A link that lets somebody in: to a project with a role, or with `project_id` None as administrator."""

    id: int
    project_id: int | None
    role: Role | Literal["admin"]
    skills: tuple[str, ...]
    uses_left: int
    created: float
    expires: float
    by: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """A browser that is logged in; the database knows only the SHA-256 of its cookie."""

    id: int
    user_id: int
    csrf: str
    created: float
    expires: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A page of items and how many there are in all."""

    items: tuple[Item, ...]
    total: int
    page: int
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """An item that may be put before a rater. It tells nothing of what others said."""

    item_id: int
    skills: tuple[str, ...]
    priority: float
    missing: int
    """Votes that are neither cast nor leased; 0 where the purpose needs none."""
    swapped_before: bool | None = None
    """How it stood the first time, for a repeat."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidates:
    """What a rater could be given now, a bounded list a purpose; the project's state and roles are already heeded."""

    project: Project
    member: Membership
    now: float
    open: tuple[Candidate, ...]
    """Need votes and were never before this rater; fewest missing first, then priority, then age."""
    golden: Sequence[Candidate]
    """Golden items never before this rater; none for insiders, who may read the answers."""
    repeats: Sequence[Candidate]
    """Judged by this rater at least `repeat_after` items ago and not yet repeated; newest first."""
    disputes: tuple[Candidate, ...]
    """For seniors and leads: disputed or parked items that they have not seen."""
    calibration: tuple[Candidate, ...]
    """Of `round`, those that this rater has not judged in it."""
    round: Round | None
    """The open round, or for a rater still locked the newest that was passed."""
    given: Mapping[Purpose, int]
    """How many items this rater has judged or holds, by purpose."""
    in_view: tuple[int, ...]
    """Items that the rater holds now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pick:
    """The item to lease. Any object with these three names will do."""

    item_id: int
    purpose: Purpose
    swapped: bool


class Picked(Protocol):
    """What `choose` returns."""

    @property
    def item_id(self) -> int: ...
    @property
    def purpose(self) -> Purpose: ...
    @property
    def swapped(self) -> bool: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Of a project."""

    items: Mapping[ItemState, int]
    """Pairs by state."""
    golden: int
    votes: int
    """Current votes on pairs, skips left out."""
    votes_wanted: int
    """Pairs times overlap."""
    flagged: int
    """Items that somebody flagged."""
    raters: Mapping[int, Mapping[Purpose, int]]
    """Items given to each user, by purpose."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RaterProgress:
    """Of one rater in a project."""

    done: int
    """Items judged, whatever the purpose."""
    left: int
    """At most so many wait for this rater."""
    today: int
    """Judged since the given time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VoteTable:
    """Current votes as columns of equal length M, ordered by item and user; skips included."""

    item_ids: NDArray[np.int64]
    user_ids: NDArray[np.int64]
    choices: NDArray[np.int64]
    """Codes: places in `CHOICES`."""
    seconds: NDArray[np.float64]
    """nan where nobody measured."""
    created: NDArray[np.float64]
    swapped: NDArray[np.bool_]
