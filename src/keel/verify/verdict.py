"""What a verifier says of one response."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verdict:
    """A score in [0, 1], and in a few words why."""

    score: float
    why: str
