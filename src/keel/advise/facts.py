"""What advice rests on: the machine, the model, the data, who judges, and what it is all for."""

from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Literal

from keel.monitor.thresholds import DEFAULT, Thresholds

Reward = Literal["people", "thumbs", "verifiable", "ai", "none"]
Goal = Literal["quality", "safety", "maths", "code", "style", "format", "summaries"]
Scope = Literal["narrow", "general"]
Priority = Literal["stability", "reward"]

NARROW: tuple[Goal, ...] = ("maths", "code", "style", "format", "summaries")
"""Goals that one domain is meant by, unless said otherwise."""
CHECKABLE: tuple[Goal, ...] = ("maths", "code", "format")
"""Goals whose answers a program can often judge."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """The machine that trains."""

    gpus: int
    gpu_gib: float
    """Memory of one GPU, the smallest; 0 without one."""
    ram_gib: float
    """0 where nobody knows."""
    cores: int
    source: str
    """Where these figures come from."""

    @property
    def device_gib(self) -> float:
        """Memory that one training process has: a GPU's, else the machine's."""
        return self.gpu_gib if self.gpus else self.ram_gib


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """The model to start from."""

    path: str
    """As a recipe names it; "" where it was not given."""
    parameters: float
    chat: bool
    """Whether it has been tuned to follow instructions, going by its name or its chat template."""
    source: str
    """Where the size comes from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How far raters agree on the comparisons."""

    alpha: float
    low: float
    high: float
    """A 95 % interval; nan where the figure was given by hand."""
    agreement: float
    """Share of pairs of votes that say the same; nan where unknown."""
    raters: int
    votes_per_item: float
    measured: bool

    @property
    def label_noise(self) -> float:
        """Share of decided comparisons whose majority is wrong, if votes err independently and equally often.

        Two votes then agree with probability (1 - e)^2 + e^2; the majority of n votes errs as the binomial says.
        nan where the agreement is unknown.
        """
        if not isfinite(self.agreement):
            return self.agreement
        error = (1 - sqrt(max(0.0, 2 * self.agreement - 1))) / 2
        return majority_error(error, max(1, round(self.votes_per_item)))


def majority_error(error: float, votes: int) -> float:
    """Probability that most of `votes` independent votes are wrong, each with probability `error`; a draw is half."""
    chances = [1.0]
    for _ in range(votes):
        wrong = [0.0, *(chance * error for chance in chances)]
        right = [*(chance * (1 - error) for chance in chances), 0.0]
        chances = [a + b for a, b in zip(wrong, right, strict=True)]
    return sum(chance * (1.0 if 2 * k > votes else 0.5 if 2 * k == votes else 0.0) for k, chance in enumerate(chances))


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """How much there is of what. A path is "" where only a number was given, or nothing."""

    demonstrations: int = 0
    comparisons: int = 0
    """Decided ones; ties are counted apart."""
    ties: int = 0
    ratings: int = 0
    prompts: int = 0
    golden: int = 0
    longer_wins: float | None = None
    """Share of decided comparisons whose better response is the longer one; None where unknown."""
    agreement: Agreement | None = None
    """None where no comparison has two votes."""
    paths: tuple[tuple[str, str], ...] = ()
    """(kind, path) of each file given; kinds are those of a recipe's data section."""

    def path(self, kind: str) -> str:
        return dict(self.paths).get(kind, "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Everything that the rules look at."""

    hardware: Hardware
    model: Model
    data: Data
    rewards: frozenset[Reward]
    """Who or what can say which answer is better."""
    goal: Goal
    scope: Scope
    priority: Priority
    fresh: bool
    """Whether fresh samples can be judged while training goes on."""
    verifier: str = ""
    """A kind of verifier or `file.py:function`; "" where none was named."""
    judge: str = ""
    constitution: str = ""
    labeller: str = ""
    override: str = ""
    """Why comparisons are trained on although raters disagree; "" where nobody insists."""
    thresholds: Thresholds = DEFAULT

    @property
    def blocked(self) -> bool:
        """Whether raters agree too little to train on what they said, and nobody insists.

        As `keel.monitor.bands.agreement_gate` has it: the figure lies below the line.
        """
        found = self.data.agreement
        return bool(found) and not self.override and found.alpha < self.thresholds.agreement_block

    @property
    def usable(self) -> int:
        """Comparisons that may be trained on."""
        return 0 if self.blocked else self.data.comparisons

    @property
    def enough(self) -> int:
        """Comparisons that a reward model of this scope wants (guide B: 5,000 for a narrow domain, 20,000 else)."""
        return 5_000 if self.scope == "narrow" else 20_000
