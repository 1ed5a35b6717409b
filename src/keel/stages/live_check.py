"""A running policy's answers beside SFT's, before judges: evidence that does not come from the reward model."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log2
from typing import Any

import numpy as np

from keel.core.seed import derive
from keel.monitor.settings import CheckConfig
from keel.monitor.verdict import Verdict
from keel.stages.checks import Answers, Evidence, PairCheck
from keel.stages.context import StageContext
from keel.stats.correction import Correction, fit_correction
from keel.train.judge import Responses, Scores
from keel.train.rollout import EncodedPrompt, RolloutSource


@dataclass
class LiveCheck:
    """Draws pairs on held-out prompts every so many updates, within a budget of labels, and reads what came back."""

    context: StageContext
    config: CheckConfig
    pairs: PairCheck
    source: RolloutSource
    prompts: Sequence[EncodedPrompt]
    described: dict[str, list[list[float]]] = field(default_factory=dict)
    """Score and features of form of both answers, policy's first, by the pair's number in the queue."""

    def due(self, step: int) -> bool:
        """Whether a check is due: the fewer labels are left, the further apart, since most is to be learnt early."""
        left = self.config.label_budget - self._asked(step)
        if not self.config.every or left <= 0:
            return False
        return step % (self.config.every * 2 ** int(log2(self.config.label_budget / left))) == 0

    def affordable(self, step: int) -> bool:
        """Whether the budget allows another check."""
        return self._asked(step) + self.config.pairs <= self.config.label_budget

    def _asked(self, step: int) -> int:
        """Pairs put before judges up to now. What was asked at `step` itself does not count: a run that was killed
        while it asked comes here again.
        """
        return self.pairs.queue.asked(self.pairs.run, self.pairs.stage, step - 1)

    def ask(self, step: int) -> Verdict | None:
        """Put the policy of `step` and SFT before the judges; a verdict where a Python judge fails."""
        prompts = self.drawn(step)
        policy = self.source.rollout(prompts, derive(self.context.seed, "check", step), samples=1, observe=False)
        sft = self.source.reference_answers(prompts, derive(self.context.seed, "check", "reference", step))
        ours = answers(policy.responses, policy.scores)
        asked = self.pairs.draw(step, [p.prompt for p in prompts], ours, answers(*sft))
        sides = [self._described(policy.responses, policy.scores), self._described(*sft)]
        self.described |= {str(n): [a, b] for n, a, b in zip(asked.numbers, *sides, strict=True)}
        self.context.event("asked", step=step, pairs=asked.pairs, labels_spent=asked.labels_spent)
        return asked.verdict

    def read(self, step: int) -> Evidence:
        """What judges have said by now; new verdicts are written down."""
        evidence = self.pairs.read(step)
        if evidence.fresh:
            self.context.event("checked", step=step, **evidence.figures())
        return evidence

    def correction(self, evidence: Evidence) -> Correction | None:
        """What all verdicts so far make of the score; those on policies that were undone count too."""
        known = [(self.described[str(j.pair)], j.value) for j in evidence.every if str(j.pair) in self.described]
        if not known:
            return None
        table = np.array([sides for sides, _ in known])
        return fit_correction(table[:, :, 0], table[:, :, 1:], [value for _, value in known])

    def _described(self, responses: Responses, scores: Scores) -> list[list[float]]:
        judge = self.source.judge
        return np.column_stack([scores.raw.double().numpy(), judge.form(responses)]).tolist()

    def rows(self, evidence: Evidence, abandoned: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
        """One row for each policy that was judged, as the rules read them; not those of the `abandoned` steps, each
        given as (from, to].
        """
        found = []
        for step, values in evidence.batches.items():
            if any(to_step < step <= until for to_step, until in abandoned):
                continue
            pairs = [judged for judged in evidence.every if judged.step == step]
            one = Evidence(fresh=pairs, every=pairs, labels_spent=evidence.labels_spent)
            found.append({**one.figures(), "step": step, "values": values})
        return found

    def drawn(self, step: int) -> list[EncodedPrompt]:
        """Other held-out prompts each time, all in turn."""
        first = derive(self.context.seed, "check prompts", step) % len(self.prompts)
        return [self.prompts[(first + i) % len(self.prompts)] for i in range(self.config.pairs)]


def answers(responses: Responses, scores: Scores) -> Answers:
    """One answer a prompt, as judges and the reward model see it."""
    return Answers(
        texts=list(responses.response_texts),
        finished=responses.finished.tolist(),
        scores=scores.raw.tolist(),
    )
