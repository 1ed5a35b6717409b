"""Independent evidence while RL runs: pairs of policy and SFT answers go to judges, verdicts come back.

The pairs lie in `keel.store.queue`; a Python judge answers at once, people when they like (`keel judge RUN`). Which
answer stands left is a coin that the seed tosses, for both kinds of judges, so a liking for one side favours nobody.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, nan
from statistics import fmean
from typing import Any

from keel.core.errors import KeelError, TrainingError
from keel.core.seed import derive
from keel.data.records import Comparison, Prompt
from keel.monitor.verdict import Verdict
from keel.stages.functions import REPEAT
from keel.stages.labels import Labeller, Pair, sound
from keel.stats.sequential import win_rate
from keel.store.queue import RULE, Answer, Choice, Question, Queue, QueuedPair, StoredVerdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """One model's answers to the prompts of a check, in the order of the prompts."""

    texts: Sequence[str]
    finished: Sequence[bool]
    scores: Sequence[float] = ()
    """By the reward model that the policy is trained on, in its own unit; empty where there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What a check has put before its judges."""

    pairs: int
    """Pairs that need judging: neither equal nor with one side empty."""
    settled: int
    """Pairs that need none: equal answers are a tie, an empty one loses. They cost no label."""
    labels_spent: int
    """Verdicts of judges that the stage had read before this step."""
    numbers: list[int] = field(default_factory=list)
    """The queue's number of each pair, in the order of the prompts."""
    verdict: Verdict | None = None
    """Set where the Python judge failed; the run goes on without its answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A pair with what its judges say together: the majority, where half against half is a tie."""

    pair: int
    step: int
    """Of the policy that was judged."""
    value: float
    """1 where the policy won, 0.5 for a tie, 0 where SFT won."""
    proxy: float
    """The same by the reward model's scores; nan where they are not known."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a stage may know of its judges' verdicts at one step."""

    fresh: list[Judged]
    """Pairs that no earlier reading had a verdict on, by step and place."""
    every: list[Judged]
    """All judged pairs up to here, by step and place; a judge who changed their mind is in it with the newest."""
    labels_spent: int
    """Verdicts of judges among all; a Python judge's answer to a pair counts one, however many it asked."""
    verdict: Verdict | None = None
    """Set where pairs have waited since an earlier step and no judge ever answered one."""

    @property
    def values(self) -> list[float]:
        """The fresh pairs' values, in order."""
        return [judged.value for judged in self.fresh]

    @property
    def batches(self) -> dict[int, list[float]]:
        """All values by the step of the policy that was judged, steps in order."""
        found: dict[int, list[float]] = {}
        for judged in self.every:
            found.setdefault(judged.step, []).append(judged.value)
        return found

    @property
    def proxy_win_rate(self) -> float:
        """Share of the fresh pairs where the reward model prefers the policy, ties half; nan without scores.

        A share, not a mean probability: it has the same scale as the judges' win rate and needs no unit.
        """
        known = [judged.proxy for judged in self.fresh if isfinite(judged.proxy)]
        return fmean(known) if known else nan

    @property
    def reward_agreement(self) -> float:
        """Share of the fresh pairs with a winner where the reward model prefers the same side; its ties count half."""
        known = [
            1 - abs(judged.value - judged.proxy)
            for judged in self.fresh
            if judged.value != 0.5 and isfinite(judged.proxy)
        ]
        return fmean(known) if known else nan

    def figures(self) -> dict[str, Any]:
        """The fields of the event `checked`, all about the fresh pairs but `labels_spent`."""
        rate, low, high = win_rate(self.values)
        return {
            "verdicts": len(self.fresh),
            "wins": self.values.count(1.0),
            "ties": self.values.count(0.5),
            "losses": self.values.count(0.0),
            "win_rate": rate,
            "win_rate_low": low,
            "win_rate_high": high,
            "proxy_win_rate": self.proxy_win_rate,
            "reward_agreement": self.reward_agreement,
            "labels_spent": self.labels_spent,
        }


@dataclass(frozen=True, kw_only=True)
class PairCheck:
    """Where a stage asks for verdicts on its policy, and who answers at once."""

    queue: Queue
    run: str
    """Tells one setting of the stage from another in the same folder, such as the name of the stage's artifact."""
    stage: str
    seed: int
    judge: Labeller | None = None
    """As `keel.stages.functions.load_function` gives it, so that whatever it raises is a KeelError."""
    judge_name: str = "python"
    setting: str = "guardian.checks.judge"
    """The recipe's setting that names the judge, for messages."""

    def draw(self, step: int, prompts: Sequence[Prompt], policy: Answers, sft: Answers, first: int = 0) -> Asked:
        """Ask which of the two answers to each prompt is better; a Python judge is asked at once.

        `first` is the number of the first pair within its step, so that one step can ask again about other prompts.
        After a kill the same call adds nothing, and the judge is asked only about what it has not answered. A judge
        that raises, or answers nothing, is a verdict; one that returns something else is a TrainingError.
        """
        numbers = self.queue.ask(self._pairs(step, first, prompts, policy, sft))
        plain = [(question.id, obvious(question)) for question in self.queue.unanswered(numbers, RULE)]
        self.queue.answer_all(Answer(pair=number, judge=RULE, choice=choice) for number, choice in plain if choice)
        to_judge = self.queue.unanswered(numbers, RULE)
        keys = {n: derive(self.seed, "judge", self.stage, step, place) for place, n in enumerate(numbers, start=first)}
        return Asked(
            pairs=len(to_judge),
            settled=len(numbers) - len(to_judge),
            numbers=numbers,
            labels_spent=labels(self.queue.seen_before(self.run, self.stage, step)),
            verdict=None if self.judge is None else self._ask_judge(self.judge, to_judge, keys),
        )

    def read(self, step: int) -> Evidence:
        """What judges have said so far. A step that was read before gives what it gave then."""
        stored = self.queue.verdicts(self.run, self.stage, step)
        before = {judged.pair for judged in resolved(self.queue.seen_before(self.run, self.stage, step))}
        every = resolved(stored)
        spent = labels(stored)
        waiting = self.queue.asked(self.run, self.stage, step - 1)
        return Evidence(
            fresh=[judged for judged in every if judged.pair not in before],
            every=every,
            labels_spent=spent,
            verdict=silent(waiting) if waiting and not spent else None,
        )

    def _pairs(
        self, step: int, first: int, prompts: Sequence[Prompt], policy: Answers, sft: Answers
    ) -> list[QueuedPair]:
        blank = [nan] * len(prompts)
        rows = zip(
            prompts,
            zip(policy.texts, policy.finished, policy.scores if len(policy.scores) else blank, strict=True),
            zip(sft.texts, sft.finished, sft.scores if len(sft.scores) else blank, strict=True),
            strict=True,
        )
        pairs = []
        for place, (prompt, ours, theirs) in enumerate(rows, start=first):
            policy_left = derive(self.seed, "sides", self.stage, step, place) % 2 == 0
            left, right = (ours, theirs) if policy_left else (theirs, ours)
            pairs.append(
                QueuedPair(
                    run=self.run,
                    stage=self.stage,
                    step=step,
                    place=place,
                    prompt=prompt,
                    left=left[0],
                    right=right[0],
                    left_finished=bool(left[1]),
                    right_finished=bool(right[1]),
                    policy_side="left" if policy_left else "right",
                    left_score=known(left[2]),
                    right_score=known(right[2]),
                )
            )
        return pairs

    def _ask_judge(self, judge: Labeller, questions: Sequence[Question], keys: Mapping[int, int]) -> Verdict | None:
        """Ask the Python judge about what it has not answered yet, and store what it says."""
        asked = self.queue.unanswered([question.id for question in questions], self.judge_name)
        if not asked:
            return None
        pairs = [
            Pair(
                prompt=question.prompt,
                a=question.left,
                b=question.right,
                a_finished=question.left_finished,
                b_finished=question.right_finished,
                key=keys[question.id],
            )
            for question in asked
        ]
        try:
            answer = judge(pairs)
        except KeelError as error:
            return failed(len(pairs), str(error).removesuffix(REPEAT).strip())
        if isinstance(answer, list | tuple) and not answer:
            return failed(len(pairs), "It returned an empty list.")
        records = sound(answer, len(pairs), self.setting)
        choices = choices_of(records, asked, self.setting)
        self.queue.answer_all(
            Answer(pair=number, judge=self.judge_name, choice=choice) for number, choice in choices.items()
        )
        return None


def obvious(question: Question) -> Choice | None:
    """The choice that needs no judge: equal answers tie, an empty one loses to one that is not; else None."""
    left, right = question.left.strip(), question.right.strip()
    if left == right:
        return "tie"
    if not (left and right):
        return "left" if left else "right"
    return None


def choices_of(records: Sequence[Comparison], questions: Sequence[Question], setting: str) -> dict[int, Choice]:
    """Pair numbers with what a labeller's comparisons say of them, whichever side they call `a`, in whatever order.

    Where several pairs have the same two texts, the prompt decides, then the position in the list.
    """
    waiting = dict(enumerate(questions))
    choices: dict[int, Choice] = {}
    for index, record in enumerate(records):
        same = [at for at, question in waiting.items() if {record.a, record.b} == {question.left, question.right}]
        if not same:
            raise TrainingError(
                f"{setting} returned a comparison of {record.a!r:.60} and {record.b!r:.60}, which it was not asked "
                "about, or not so often. Return the texts a and b of each pair as they were given."
            )
        at = max(same, key=lambda at: (waiting[at].prompt == record.prompt, at == index))
        question = waiting.pop(at)
        left = record.preference if record.a == question.left else 1 - record.preference
        choices[question.id] = "left" if left > 0.5 else "right" if left < 0.5 else "tie"
    return choices


def resolved(stored: Sequence[StoredVerdict]) -> list[Judged]:
    """One value a pair from what each of its judges said; pairs that were only skipped are left out."""
    votes: dict[int, list[float]] = {}
    pairs = {verdict.pair: verdict for verdict in stored}
    for verdict in stored:
        if verdict.value is not None:
            votes.setdefault(verdict.pair, []).append(verdict.value)
    return [
        Judged(pair=pair, step=pairs[pair].step, value=side(fmean(values) - 0.5), proxy=proxy_of(pairs[pair]))
        for pair, values in votes.items()
    ]


def proxy_of(verdict: StoredVerdict) -> float:
    """1 where the reward model prefers the policy, 0 where SFT, 0.5 where neither, nan where it was not asked."""
    if verdict.policy_score is None or verdict.sft_score is None:
        return nan
    return side(verdict.policy_score - verdict.sft_score)


def side(difference: float) -> float:
    """1, 0.5 or 0 for a positive, no, or a negative difference."""
    return 0.5 if difference == 0 else float(difference > 0)


def labels(stored: Sequence[StoredVerdict]) -> int:
    """How many of the verdicts a judge gave: no skips, and not what was settled without one."""
    return sum(verdict.judge != RULE and verdict.value is not None for verdict in stored)


def known(score: float) -> float | None:
    return float(score) if isfinite(score) else None


def failed(num_pairs: int, why: str) -> Verdict:
    return Verdict(
        "watch",
        "judge_failed",
        f"The judge gave no verdict on {num_pairs} pairs. {why}",
        {"pairs": num_pairs},
        "Put the judge right for the checks to come. The pairs stay in the queue, where people can answer them "
        "(keel judge RUN); the run goes on and decides nothing from them until then.",
    )


def silent(num_pairs: int) -> Verdict:
    return Verdict(
        "watch",
        "judges_silent",
        f"{num_pairs} pairs wait for a judge since an earlier check, and none has an answer.",
        {"pairs": num_pairs},
        "Answer some with keel judge RUN, or let a Python function judge. Without verdicts nobody can tell a better "
        "policy from one that fools the reward model.",
    )
