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
from keel.stages.reward import aggregation, model_identity
from keel.stages.roads.judges import weighted_sum
from keel.stages.roads.work import Prompts, Work
from keel.stages.sections.rl import RLConfig
from keel.train.judge import Judge
from keel.train.one_trunk import OneTrunk


@dataclass
class Optimisation:
    """One recipe's RL: its settings and its prompts."""

    work: Work
    config: RLConfig
    prompts: Prompts

    @classmethod
    def of(cls, work: Work) -> "Optimisation | None":
        """None for recipes without RL."""
        config = work.recipe.ppo
        if config is None:
            return None
        return cls(work=work, config=config, prompts=work.prompts("ppo", config.max_new_tokens))

    def once(self) -> Artifact:
        """The optimised policy."""
        return self.stage(self.task(self.work.sft), None, "ppo")

    def stage(self, task: AlignTask, earlier: Artifact | None, label: str) -> Artifact:
        """One stretch of RL; `earlier` is the policy of the one before it, whose critic and KL coefficient go on."""
        work, rewards = self.work, self.work.rewards
        folder = work.context.recipe_folder
        settings = {
            **self.config.model_dump(mode="json", exclude={"micro_batch_tokens"}),
            "reward": aggregation(rewards.config) if rewards else None,
            "functions": [function_identity(part.python, folder) for part in self.config.rewards],
            "models": [model_identity(part.model) for part in self.config.rewards],
            "seed": work.recipe.seed,
            "round": task.round,
            "start": task.start.identity,
            "reference": task.reference.identity,
            **self.watching(),
        }
        parents = [self.prompts.artifact, *(rewards.members if rewards else ())]
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
        count, held_out = self.config.evaluate_prompts, self.prompts.held_out
        return AlignTask(
            start=start,
            reference=self.work.sft,
            prompts=self.prompts.train,
            held_out=[held_out[i % len(held_out)] for i in range(count)],
            round=round,
            step_offset=step_offset,
            earlier=earlier,
        )

    def judge(self, trunk: OneTrunk | None = None) -> Judge:
        """What ppo.rewards asks for, as the reward models are now."""
        return weighted_sum(self.work, self.config, trunk)

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
        labeller, identity = work.labeller()
        work.made.best_of = best_of_n(
            work.context,
            rewards.config,
            self.config,
            [*rewards.members, self.prompts.artifact],
            rewards.scorer(),
            work.sft,
            self.prompts.held_out,
            labeller,
            identity,
        )
