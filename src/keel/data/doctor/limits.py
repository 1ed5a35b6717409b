"""Where the doctor draws its lines."""

from typing import Literal

from pydantic import Field

from keel.core.config import Config

Scope = Literal["narrow", "general", "frontier"]


class Limits(Config):
    """Where a finding becomes a warning or an error; shares are in [0, 1]."""

    scope: Scope = "narrow"
    """What the model is to be good at: one task, assistance in general, or everything. Decides how many comparisons are
    enough: 5,000, 20,000, 100,000."""
    demonstrations_least: int = Field(10_000, ge=0)
    """Fewer demonstrations than this are a warning."""
    demonstrations_most: int = Field(50_000, ge=0)
    """More demonstrations than this are rarely worth their cost, which is said without a warning."""
    near_copy: float = Field(0.8, gt=0, le=1)
    """Share of three-word runs in common (Jaccard index) from which two texts count as near copies."""
    damage_error: float = Field(0.05, gt=0, le=1)
    """Share of records that are unreadable, empty, identical or malformed from which the set is in error, not only
    worth a warning."""
    copies_error: float = Field(0.1, gt=0, le=1)
    """Share of exact copies that is an error; near copies at 2.5 times that."""
    skew_warn: float = Field(0.8, gt=0.5, le=1)
    """Share of one side, source, label or prompt that is a warning."""
    skew_error: float = Field(0.95, gt=0.5, le=1)
    """Share of one side, source, label or prompt that is an error."""
    side_warn: float = Field(0.55, ge=0.5, le=1)
    """Share of one side, surely exceeded, that is a warning: raters who look fairly choose each side half the time."""
    length_warn: float = Field(0.6, ge=0.5, le=1)
    """Share of pairs won by the longer (or by the shorter) answer, surely exceeded, that is a warning."""
    length_error: float = Field(0.8, ge=0.5, le=1)
    """The same, as an error."""
    cut_warn: float = Field(0.1, gt=0, le=1)
    """Excess of unfinished answers among the longest tenth over the rest that is a warning; four times it, an error. Of
    all long answers twice it is a warning, and of answers of one length this share is an error."""
    opening_warn: float = Field(0.1, gt=0, le=1)
    """Share of answers with the same first words, or of prompts of one family, that is a warning."""
    refusals_warn: float = Field(0.1, gt=0, le=1)
    """Share of answers that refuse that is a warning."""
    mix_warn: float = Field(0.02, gt=0, le=1)
    """Share of records in another language or script than the set's that is a warning."""
    noise_warn: float = Field(0.03, gt=0, le=1)
    """Share of pairs whose label a simple model of words strongly denies that is a warning."""
