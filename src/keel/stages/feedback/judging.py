"""An AI as a labeller: every pair in both orders, probabilities averaged, every verdict kept, nothing asked twice."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keel.core.config import digest
from keel.core.errors import EndpointError, TrainingError
from keel.core.files import atomic_write_text
from keel.core.progress import Progress, Silent
from keel.core.seed import derive
from keel.data.formats import to_values
from keel.data.records import Comparison, prompt_text
from keel.stages.endpoint import EndpointConfig
from keel.stages.feedback.answers import Answers, Estimate, Purse
from keel.stages.feedback.judges import AIJudge, EndpointJudge
from keel.stages.feedback.question import DIRECT, REASONED, TEMPLATE, Question, Said
from keel.stages.labels import Pair
from keel.stats.arrays import sigmoid

VERDICTS = "verdicts.jsonl"
MOST_UNREAD = 0.5
"""Share of pairs without a verdict beyond which a judge is taken to answer nonsense."""
SUREST = 1e-6
"""Nearest that a probability may come to 0 or 1 before its log-odds are taken: bare verdicts are 0 and 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rubric:
    """What a judge goes by."""

    name: str
    """Of a principle `id@version`, of a rubric `rubric@` and the start of its hash; "" where there is none."""
    text: str

    @classmethod
    def of(cls, text: str | None) -> "Rubric":
        """A recipe's rubric."""
        return cls(name=f"rubric@{digest(text)[:12]}" if text else "", text=text or "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Opinion:
    """What a judge said of one pair by one rubric."""

    rubric: str
    forward: Said | None
    """With a shown first; None where that was not asked."""
    backward: Said | None
    """With b shown first; its verdict is about the answers as they were shown."""

    @property
    def probability(self) -> float | None:
        """That a is better: (p_AB + 1 - p_BA) / 2 of both orders; None where one that was asked gave no verdict."""
        parts = [said.first if forward else flipped(said.first) for said, forward in self._asked()]
        known = [part for part in parts if part is not None]
        return sum(known) / len(known) if known and len(known) == len(parts) else None

    @property
    def pull(self) -> float | None:
        """p_AB + p_BA - 1: above 0 where the judge prefers what is shown first, whichever that is."""
        if self.forward is None or self.backward is None:
            return None
        first, second = self.forward.first, self.backward.first
        return None if first is None or second is None else first + second - 1

    def _asked(self) -> list[tuple[Said, bool]]:
        return [(said, forward) for said, forward in ((self.forward, True), (self.backward, False)) if said is not None]

    def to_values(self) -> dict[str, Any]:
        return {
            "principle": self.rubric,
            "p_ab": self.forward and self.forward.first,
            "p_ba": self.backward and self.backward.first,
            "reasons": [said.reason for said, _ in self._asked() if said.reason],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedPair:
    """A pair and every opinion on it."""

    pair: Pair
    opinions: tuple[Opinion, ...]

    @property
    def probability(self) -> float | None:
        """Mean over the rubrics; None where any of them has no verdict."""
        parts = [opinion.probability for opinion in self.opinions]
        known = [part for part in parts if part is not None]
        return sum(known) / len(known) if len(known) == len(parts) else None

    def to_values(self, temperature: float) -> list[dict[str, Any]]:
        """One row an opinion, as it is stored beside the comparisons."""
        said = {**to_values(self.pair.prompt), "a": self.pair.a, "b": self.pair.b}
        p = self.probability
        label = None if p is None else cooled(p, temperature)
        return [{**said, **opinion.to_values(), "preference": label} for opinion in self.opinions]


@dataclass
class Asked:
    """What a labeller has asked for in one go."""

    pairs: int = 0
    questions: int = 0
    known: int = 0
    """Questions that were answered before."""
    unread: int = 0
    """Pairs without a verdict; they are left out."""
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    """What all of these answers have cost, those from before included."""


Planned = tuple[Rubric, tuple[Question | None, Question | None]]
"""A rubric, and the pair's question with a shown first and with b shown first; None for an order that is not asked."""


@dataclass
class AILabeller:
    """A judge with its rubrics as a `keel.stages.labels.Labeller`; it remembers what it said of the last pairs."""

    judge: AIJudge
    answers: Answers
    rubrics: Sequence[Rubric]
    seed: int
    per_pair: Literal["one", "all"] = "one"
    """Rubrics that a pair is judged by: one that the seed draws, or all."""
    orders: Literal["both", "one"] = "both"
    ties: bool = False
    labels: Literal["soft", "hard"] = "soft"
    temperature: float = 1.0
    purse: Purse | None = None
    progress: Progress = field(default_factory=Silent)
    last: list[JudgedPair] = field(default_factory=list, init=False)
    asked: Asked = field(default_factory=Asked, init=False)

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides its labels, for the hash of a stage."""
        return {
            "judge": self.judge.identity,
            "rubrics": [{"name": rubric.name, "text": rubric.text} for rubric in self.rubrics],
            "per_pair": self.per_pair,
            "orders": self.orders,
            "ties": self.ties,
            "labels": self.labels,
            "temperature": self.temperature,
            "seed": self.seed,
        }

    @property
    def identity(self) -> str:
        """Hash of the settings."""
        return digest(self.settings)

    def __call__(self, pairs: Sequence[Pair]) -> list[Comparison]:
        """A comparison for each pair that the judge has an opinion on. TrainingError where all of them are ties."""
        made = [self.comparison(judged, p) for judged in self.judged(pairs) if (p := judged.probability) is not None]
        if len(made) > 1 and all(record.preference == 0.5 for record in made):
            raise TrainingError(
                f"feedback: all {len(made)} labels are ties, so there is nothing to learn: the judge sees no "
                "difference, or names a side whatever stands there. Take another judge or rubric, or let it reason "
                "first (feedback.verdicts: text)."
            )
        return made

    def comparison(self, judged: JudgedPair, probability: float) -> Comparison:
        p = cooled(probability, self.temperature)
        if self.labels == "hard":
            p = 0.5 if p == 0.5 else float(p > 0.5)
        return Comparison(judged.pair.prompt, judged.pair.a, judged.pair.b, p)

    def judged(self, pairs: Sequence[Pair]) -> list[JudgedPair]:
        """Every opinion on every pair; EndpointError or TrainingError for a judge that mostly gives no verdict."""
        plan = [self.plan(pair) for pair in pairs]
        said = self.said([question for one in plan for _, asked in one for question in asked if question is not None])
        self.last = []
        for pair, one in zip(pairs, plan, strict=True):
            opinions = [
                Opinion(
                    rubric=rubric.name,
                    forward=None if forward is None else said[self.key(forward)],
                    backward=None if backward is None else said[self.key(backward)],
                )
                for rubric, (forward, backward) in one
            ]
            self.last.append(JudgedPair(pair=pair, opinions=tuple(opinions)))
        unread = [judged for judged in self.last if judged.probability is None]
        self.asked.pairs, self.asked.unread = len(pairs), len(unread)
        if len(unread) > MOST_UNREAD * len(pairs):
            self.give_up(plan, said, len(unread))
        if unread:
            self.progress.say(f"feedback: {len(unread)} of {len(pairs)} pairs have no verdict and are left out")
        return self.last

    def plan(self, pair: Pair) -> list[Planned]:
        """The rubrics of a pair, and its question in either order."""
        chosen: Sequence[Rubric] = self.rubrics
        drawn = derive(self.seed, "feedback", prompt_text(pair.prompt), *sorted((pair.a, pair.b)))
        if self.per_pair == "one":
            chosen = [self.rubrics[drawn % len(self.rubrics)]]
        found: list[Planned] = []
        for rubric in chosen:
            one = {"prompt": pair.prompt, "guide": rubric.text, "ties": self.ties}
            forward = Question(first=pair.a, second=pair.b, **one)
            backward = Question(first=pair.b, second=pair.a, **one)
            if self.orders == "both":
                found.append((rubric, (forward, backward)))
            else:
                # The side is drawn from the texts, whichever of them is called a.
                swapped = (derive(drawn, "side") % 2 == 1) == (pair.a < pair.b)
                found.append((rubric, (None, backward) if swapped else (forward, None)))
        return found

    def said(self, questions: Sequence[Question]) -> dict[str, Said]:
        """An answer to each question by its key, asked for where there is none."""
        by_key = {self.key(question): question for question in questions}
        known = self.answers.known(list(by_key))
        missing = [key for key in by_key if key not in known]
        if isinstance(self.judge, EndpointJudge):
            self.judge.recall(as_said(value) for value in known.values())
        estimate = Estimate.of([self.judge.size(by_key[key]) for key in missing], len(known), self.purse)
        if missing:
            self.progress.say(f"feedback: {estimate}")
        if self.purse is not None:
            self.purse.count(known, shared=self.answers.shared)
            if missing:
                estimate.refuse_beyond(self.purse.budget_usd, self.purse.spent_usd, "feedback")
        self.progress.start("feedback", len(by_key), "questions")
        self.progress.advance(len(known))

        def keep(said: Mapping[int, Said]) -> None:
            endpoint = self.purse.endpoint if self.purse else None
            values = {missing[number]: as_values(one, endpoint) for number, one in said.items()}
            self.answers.keep(values)
            if self.purse is not None:
                self.purse.counted |= values.keys()
            known.update(values)
            self.progress.advance(len(values))

        self.judge.ask([by_key[key] for key in missing], keep)
        self.asked = Asked(
            questions=len(by_key),
            known=len(by_key) - len(missing),
            input_tokens=sum(value.get("input_tokens", 0) for value in known.values()),
            output_tokens=sum(value.get("output_tokens", 0) for value in known.values()),
            usd=sum(value.get("usd", 0.0) for value in known.values()),
        )
        cost = f", ${self.asked.usd:.4f}" if self.asked.usd else ""
        self.progress.finish(f"{len(missing)} asked, {self.asked.known} answered before{cost}")
        return {key: as_said(value) for key, value in known.items()}

    def key(self, question: Question) -> str:
        """Hash of judge, rubric, prompt, answers, order and the words of the request."""
        asked = {
            "prompt": to_values(question.prompt),
            "first": question.first,
            "second": question.second,
            "guide": question.guide,
            "ties": question.ties,
        }
        return digest({"judge": self.judge.identity, "question": asked, "request": [TEMPLATE, REASONED, DIRECT]})

    def give_up(self, plan: Sequence[Sequence[Planned]], said: Mapping[str, Said], unread: int) -> None:
        """Say that the judge answers nonsense, and forget that nonsense, so that a judge put right is asked again."""
        asked = [
            q for one in plan for _, both in one for q in both if q is not None and said[self.key(q)].first is None
        ]
        self.answers.forget([self.key(question) for question in asked])
        example = next((said[self.key(q)].reason for q in asked if said[self.key(q)].reason), None)
        kind: Callable[[str], Exception] = EndpointError if self.purse is not None else TrainingError
        raise kind(
            f"feedback: {unread} of {len(plan)} pairs have no verdict"
            + (f"; the judge says, for instance, {example[:160]!r}. " if example else ". ")
            + "A judge must end in `Verdict: 1` or `Verdict: 2`, or give probabilities. Take another one, or see "
            "feedback.verdicts; readable verdicts are kept, the others are asked for again."
        )

    def account(self) -> dict[str, Any]:
        """What the last pairs took: questions, how many were answered before, tokens, US dollars."""
        return dict(vars(self.asked))

    def write(self, folder: Path) -> None:
        """verdicts.jsonl: every opinion on the last pairs with the principle that caused it."""
        rows = [row for judged in self.last for row in judged.to_values(self.temperature)]
        atomic_write_text(folder / VERDICTS, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def flipped(probability: float | None) -> float | None:
    """The probability of the other answer."""
    return None if probability is None else 1 - probability


def log_odds(probability: float) -> float:
    """Logit of p, log p / (1 - p), with p kept SUREST from 0 and 1."""
    p = min(max(probability, SUREST), 1 - SUREST)
    return float(np.log(p) - np.log1p(-p))


def cooled(probability: float, temperature: float) -> float:
    """The probability with its log-odds divided by the temperature; at 1 as it is, and 0.5 stays 0.5."""
    if temperature == 1.0 or probability == 0.5:
        return probability
    return float(sigmoid(np.array(log_odds(probability) / temperature)))


def as_values(said: Said, endpoint: EndpointConfig | None) -> dict[str, Any]:
    """An answer as it is kept."""
    tokens = {"input_tokens": said.input_tokens, "output_tokens": said.output_tokens}
    usd = {} if endpoint is None else {"usd": endpoint.usd(said.input_tokens, said.output_tokens)}
    return {"verdict": said.verdict, "reason": said.reason, "probability": said.probability, **tokens, **usd}


def as_said(value: Mapping[str, Any]) -> Said:
    """An answer as it was said."""
    return Said(**{name: value[name] for name in Said.__dataclass_fields__ if name in value})
