"""The settings of an annotation project, stored with it as JSON."""

from typing import Literal

from pydantic import Field

from keel.core.config import Config
from keel.data.records import Method

Rationale = Literal["off", "optional", "required_on_calibration"]


class ProjectSettings(Config):
    """How a project collects judgments."""

    overlap: int = Field(3, ge=1, le=25)
    """Votes wanted on each pair, each by another rater."""
    calibration_items: int = Field(50, ge=2, le=1000)
    """Items of a calibration round, the same for every rater."""
    min_kappa: float = Field(0.6, ge=0, le=1)
    """Agreement that a calibration round must reach before the project opens."""
    golden_share: float = Field(0.05, ge=0, le=0.5)
    """Share of a rater's items whose answer is already known."""
    repeat_share: float = Field(0.03, ge=0, le=0.5)
    """Share of a rater's items that are earlier ones come back with the sides swapped."""
    repeat_after: int = Field(20, ge=1)
    """Items that lie at least between an item and its repeat."""
    lease_seconds: float = Field(900.0, gt=0, le=7 * 86_400)
    """Seconds for which an item is kept for the rater who has it on the screen."""
    ties: bool = True
    """Whether a rater may say that both answers are equally good."""
    both_bad: bool = True
    """Whether a rater may say that both answers are bad."""
    strength: bool = False
    """Whether raters say how strongly, from 1 (slightly) to 3 (by far)."""
    rationale: Rationale = "optional"
    """Whether raters are asked why: off, optional, or required in calibration rounds."""
    adjudicate: bool = True
    """Whether seniors are given the pairs without a majority to settle."""
    labels: Method = "share"
    """How votes become a preference when they are frozen, unless the one who freezes them says otherwise."""
    usd_per_judgment: float = Field(0.10, ge=0, le=10_000)
    """Pay for one judgment, in US dollars; for the forecast only."""
