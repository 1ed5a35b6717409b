"""How a tool's figures are called and counted, and what they are in keel's words.

A figure is only taken over where its unit is known from the source that writes it; one whose unit depends on a setting
that the log does not hold is named with the reason, and stays out.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from keel.diagnose.rows import BOOKKEEPING, Row, Rows

Kind = Literal["rl", "preference", "reward", "sft"]
"""What is being trained: a policy by RL, a policy by comparisons, a reward model, a policy by demonstrations."""


def same(value: float) -> float:
    return value


def rest(value: float) -> float:
    """What is left of a share."""
    return 1 - value


@dataclass(frozen=True, slots=True)
class Field:
    """One figure of a tool."""

    name: str
    """keel's name for it."""
    turn: Callable[[float], float] = same
    remark: str = ""
    """How it differs from keel's figure, where it does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """The figures of one trainer."""

    tool: str
    trainer: str
    kind: Kind
    settings: str
    """Which vocabulary its settings are in, a key of keel.diagnose.settings.VOCABULARIES."""
    needs: tuple[tuple[str, ...], ...]
    """A log is this trainer's if of every group at least one name stands in it."""
    fields: Mapping[str, Field]
    families: Mapping[str, str] = field(default_factory=dict)
    """Figures of which a log may have several: a pattern of the whole name, and keel's name for what it matches."""
    derived: Mapping[str, Callable[[Row], float]] = field(default_factory=dict)
    """Figures that follow from several of the log."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Figures that look useful and are not taken over, with the reason."""
    zero_is_absent: frozenset[str] = frozenset()
    """keel's names of figures that the tool writes as 0 throughout when it does not measure them."""

    def fits(self, rows: Rows) -> bool:
        names = rows.names() | rows.evaluation_names()
        return all(any(name in names for name in group) for group in self.needs)

    def translated(self, rows: list[Row]) -> list[dict[str, Any]]:
        """The rows in keel's words. Where two of the tool's figures mean the same, the one named first counts."""
        result = []
        for row in rows:
            out: dict[str, Any] = {"step": int(row["step"])}
            for own, known in self.fields.items():
                if own in row:
                    out.setdefault(known.name, known.turn(row[own]))
            for pattern, name in self.families.items():
                for own, value in row.items():
                    if match := re.fullmatch(pattern, own):
                        out.setdefault(match.expand(name), value)
            for name, follows in self.derived.items():
                if math.isfinite(value := follows(row)):
                    out.setdefault(name, value)
            result.append(out)
        return (
            [{name: value for name, value in row.items() if name not in self._all_zero(result)} for row in result]
            if self.zero_is_absent
            else result
        )

    def _all_zero(self, rows: list[dict[str, Any]]) -> set[str]:
        return {name for name in self.zero_is_absent if all(row.get(name, 0) == 0 for row in rows)}

    def used(self, rows: Rows) -> dict[str, str]:
        """The tool's name of each figure that was taken over, and keel's."""
        present = rows.names() | rows.evaluation_names()
        found = {own: known.name for own, known in self.fields.items() if own in present}
        for pattern, name in self.families.items():
            for own in sorted(present):
                if match := re.fullmatch(pattern, own):
                    found[own] = match.expand(name)
        return found

    def unused(self, rows: Rows) -> dict[str, str]:
        """Figures of the log that look useful and were left out, with the reason."""
        return {own: why for own, why in self.left_out.items() if own in rows.names() - BOOKKEEPING}
