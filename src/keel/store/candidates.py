"""What a rater could be given next, as the store gathers it, and what `annotate.assignment` chose of it.

Nobody's vote is in here: of the others' work only numbers are told.
"""

from dataclasses import dataclass
from typing import Literal

Purpose = Literal["judge", "calibration", "golden", "repeat", "adjudicate"]
"""Why an item is shown. Raters cannot tell golden and repeated items from others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """An item that could be shown to the rater who asks: never judged by this rater, nor lying open before them."""

    item_id: int
    votes: int = 0
    """Raters who have judged it for this purpose, skips left out, or hold a live lease on it for that."""
    swapped: int = 0
    """How many of `votes` have b on the left."""
    skills: tuple[str, ...] = ()
    priority: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Past:
    """What the rater was given earlier: a live or answered lease, not one that ran out or was given back."""

    item_id: int
    purpose: Purpose
    swapped: bool
    repeatable: bool = True
    """Whether the newest row is a choice other than skip, not withdrawn, and the item is still there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidates:
    """All that decides on a rater's next task.

    Lists may be cut to some hundred rows if what is cut comes last: of `open` those with the most votes first, of equal
    ones the highest priority, and only items whose every skill the rater has; `golden` with the fewest votes first.
    """

    user_id: int
    role: str
    skills: tuple[str, ...] = ()
    unlocked: bool = True
    """Whether the rater may judge; False until the calibration of the project, or the rater's own, is passed."""
    given: int = 0
    """Tasks given to the rater in this project, counted as in `history`, which may be cut."""
    given_swapped: int = 0
    """How many of them have b on the left."""
    history: tuple[Past, ...] = ()
    """The rater's latest tasks, newest first, at least the last 200."""
    open: tuple[Candidate, ...] = ()
    """Items without a gold answer that have fewer votes than the overlap."""
    golden: tuple[Candidate, ...] = ()
    calibration: tuple[Candidate, ...] = ()
    """What is left for this rater of the round that is open; empty without one."""
    disputes: tuple[Candidate, ...] = ()
    """Items with all their votes and no majority that nobody has settled yet; empty for those who may not settle."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The task that the rater gets."""

    item_id: int
    purpose: Purpose
    swapped: bool
    """Whether b stands on the left."""
