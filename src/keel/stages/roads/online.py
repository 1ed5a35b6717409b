"""RL on a reward: one stretch of it, from any policy on."""

from dataclasses import dataclass
from typing import Any

from keel.core.artifacts import Artifact
from keel.stages.align import Aligner
from keel.stages.cast import AlignTask
from keel.stages.functions import function_identity, load_function
from keel.stages.gate import best_of_n
from keel.stages.labels import Labeller
from keel.stages.policy import PolicyFiles
from keel.stages.roads.judges import known_by, labeller_of, weighted_sum
from keel.stages.roads.work import Work
from keel.stages.sections.rl import RLConfig
from keel.train.judge import Judge
from keel.train.one_trunk import OneTrunk


@dataclass
class Optimisation:
    """One recipe's RL."""

    work: Work
    config: RLConfig

    def once(self) -> Artifact:
        """The optimised policy."""
        return self.stage(self.task(self.work.sft), None, "ppo")

    def stage(self, task: AlignTask, earlier: Artifact | None, label: str) -> Artifact:
        """One stretch of RL; `earlier` is the policy of the one before it, whose critic and KL coefficient go on."""
        work, rewards = self.work, self.work.rewards
        settings = {
            **self.config.model_dump(mode="json", exclude={"micro_batch_tokens"}),
            **known_by(work, self.config.rewards),
            "seed": work.recipe.seed,
            "round": task.round,
            "start": task.start.identity,
            "reference": task.reference.identity,
            **self.watching(),
        }
        parents = [self.work.prompts.artifact, *(rewards.members if rewards else ())]
        parents += [artifact for artifact in (work.made.sft, earlier) if artifact is not None]
        policy = work.context.stage(
            "ppo",
            settings,
            parents,
            lambda context: Aligner(
                context, self.config, task, self.judge, work.recipe.guardian, self.live_judge()
            ).run(),
            kind="policy",
            label=label,
        )
        work.made.ppo.append(policy)
        return policy

    def task(
        self, start: PolicyFiles, *, round: int = 0, step_offset: int = 0, earlier: Artifact | None = None
    ) -> AlignTask:
        count, held_out = self.config.evaluate_prompts, self.work.prompts.held_out
        return AlignTask(
            start=start,
            reference=self.work.sft,
            prompts=self.work.prompts.train,
            held_out=[held_out[i % len(held_out)] for i in range(count)],
            round=round,
            step_offset=step_offset,
            earlier=earlier,
        )

    def judge(self, trunk: OneTrunk | None = None) -> Judge:
        """What ppo.rewards asks for, as the reward models are now."""
        config = self.config
        return weighted_sum(self.work, "ppo", config.rewards, config, config.shaping, trunk)

    def watching(self) -> dict[str, Any]:
        """What of the guardian can change the outcome of a stage."""
        guardian = self.work.recipe.guardian
        if guardian.mode == "silent":
            return {}
        return {
            "guardian": guardian.model_dump(mode="json"),
            "thresholds": self.work.recipe.thresholds.model_dump(mode="json"),
            "check": function_identity(guardian.checks.judge, self.work.context.recipe_folder),
        }

    def live_judge(self) -> Labeller | None:
        """The function that judges pairs while RL runs; None leaves them to people."""
        spec = self.work.recipe.guardian.checks.judge
        return None if spec is None else load_function(spec, "guardian.checks.judge", self.work.context.recipe_folder)

    def gate(self) -> None:
        """Best of n before RL, where the recipe asks for it; raters judge it where there are some."""
        work, rewards = self.work, self.work.rewards
        if rewards is None or rewards.config.best_of < 2:
            return
        rounds = work.recipe.rounds
        raters = labeller_of(work, rounds) if rounds and rounds.labeller else None
        work.made.best_of = best_of_n(
            work.context,
            rewards.config,
            self.config,
            [*rewards.members, self.work.prompts.artifact],
            rewards.scorer(),
            work.sft,
            self.work.prompts.held_out,
            raters.judge if raters else None,
            raters.identity if raters else None,
        )
