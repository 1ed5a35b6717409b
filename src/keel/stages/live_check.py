"""A running policy's answers beside SFT's, before judges: evidence that does not come from the reward model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keel.core.seed import derive
from keel.monitor.settings import CheckConfig
from keel.monitor.verdict import Verdict
from keel.stages.checks import Answers, Evidence, PairCheck
from keel.stages.context import StageContext
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

    def due(self, step: int) -> bool:
        return self.config.every > 0 and step % self.config.every == 0

    def affordable(self, step: int) -> bool:
        """Whether the budget allows another check. What was asked at `step` itself does not count: a run that was
        killed while it asked comes here again.
        """
        asked = self.pairs.queue.asked(self.pairs.run, self.pairs.stage, step - 1)
        return asked + self.config.pairs <= self.config.label_budget

    def ask(self, step: int) -> Verdict | None:
        """Put the policy of `step` and SFT before the judges; a verdict where a Python judge fails."""
        prompts = self.drawn(step)
        policy = self.source.rollout(prompts, derive(self.context.seed, "check", step), samples=1, observe=False)
        sft = self.source.reference_answers(prompts, derive(self.context.seed, "check", "reference", step))
        ours = answers(policy.responses, policy.scores)
        asked = self.pairs.draw(step, [p.prompt for p in prompts], ours, answers(*sft))
        self.context.event("asked", step=step, pairs=asked.pairs, labels_spent=asked.labels_spent)
        return asked.verdict

    def read(self, step: int) -> Evidence:
        """What judges have said by now; new verdicts are written down."""
        evidence = self.pairs.read(step)
        if evidence.fresh:
            self.context.event("checked", step=step, **evidence.figures())
        return evidence

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
