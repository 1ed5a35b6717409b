"""The recipe: every setting of a run, in one strict typed tree. No torch here: the command line reads it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from keel.core.config import Config
from keel.models.settings import ModelConfig
from keel.monitor.settings import GuardianConfig
from keel.monitor.thresholds import Thresholds
from keel.stages.sections.data import DataSection
from keel.stages.sections.evaluate import EvaluateConfig
from keel.stages.sections.prefer import PreferConfig
from keel.stages.sections.reward import RewardConfig
from keel.stages.sections.rl import RLConfig
from keel.stages.sections.rounds import RoundsConfig
from keel.stages.sections.sft import SFTConfig
from keel.train.settings import CheckpointConfig

TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]


class Recipe(Config):
    """A whole run."""

    name: str = "run"
    """Shown in reports."""
    model: ModelConfig
    """The model to start from."""
    seed: int = 0
    """Every random number of the run follows from it."""
    threads: int | None = Field(None, ge=1)
    """CPU threads; null takes all cores. A resumed run keeps the number it began with."""
    data: DataSection = DataSection()
    """Records."""
    sft: SFTConfig | None = None
    """Present: fine-tune on the demonstrations. Absent: the model is the SFT policy already."""
    reward: RewardConfig | None = None
    """Present: train a reward model."""
    prefer: PreferConfig | None = None
    """Present: train the policy on the comparisons (algorithm dpo). Takes the place of ppo."""
    ppo: RLConfig | None = None
    """Present: optimise the policy (algorithm ppo, rloo or grpo)."""
    rounds: RoundsConfig | None = None
    """Present: alternate RL with fresh labels."""
    evaluate: EvaluateConfig | None = None
    """Present: compare the final policy with SFT."""
    guardian: GuardianConfig = GuardianConfig()
    """Watches RL, and acts before a run is lost."""
    thresholds: Thresholds = Thresholds()
    """Where the lines of the verdicts are drawn; long answers need a higher kl_stop_per_sequence."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """When resumable checkpoints are written."""
    trackers: tuple[TrackerName, ...] = ()
    """Who else is sent the figures while the run goes on. Each needs its library (`keel-rlhf[wandb]` and so on); all
    work offline unless the product's own environment variables say otherwise."""

    @model_validator(mode="after")
    def _stages_have_what_they_need(self) -> Self:
        if self.sft and not self.data.demonstrations:
            raise ValueError("sft needs data.demonstrations")
        collected = self.rounds is not None and self.rounds.first_comparisons > 0
        if self.reward and not self.data.comparisons and not collected:
            raise ValueError("reward needs data.comparisons (or rounds.first_comparisons)")
        if self.prefer and not self.data.comparisons:
            raise ValueError("prefer needs data.comparisons")
        if self.prefer and self.ppo:
            raise ValueError(
                "prefer and ppo would both train the policy. Keep one: prefer learns from the comparisons directly, "
                "ppo from a reward. For one after the other, name the first policy in model.path of a second recipe"
            )
        if self.ppo and not self.reward and any(part.model == "stage" for part in self.ppo.rewards):
            raise ValueError("ppo.rewards names the reward model of this recipe, but the recipe has no reward section")
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        full = [name for name, section in sections.items() if hasattr(section, "lora") and section.lora is None]
        if self.model.quantise and full:
            raise ValueError(
                f"model.quantise holds the model in 4 bits, which cannot be trained, and {', '.join(full)} would train "
                "all weights. Set lora there (`lora: {}` takes the defaults), or leave model.quantise out and set "
                "model.dtype to bfloat16 and optim.name to adamw8bit"
            )
        if self.ppo and self.ppo.layout == "one_trunk" and any(part.model == "stage" for part in self.ppo.rewards):
            reward = self.reward
            if reward and (reward.lora is None or reward.form != "head" or reward.base is not None):
                raise ValueError(
                    "ppo.layout: one_trunk needs a reward model that is an adapter with a head on the SFT policy. Set "
                    "reward.lora, reward.form: head, and leave reward.base out, or set ppo.layout: separate"
                )
        for name in ("prefer", "ppo"):
            section = getattr(self, name)
            if section and section.lora and section.lora.dropout > 0:
                raise ValueError(
                    f"{name}.lora.dropout is {section.lora.dropout}: {name} compares the policy with itself before the "
                    "step, which dropout would disturb, so it is not applied there. Leave it out"
                )
        if self.rounds and not (self.ppo and self.reward and self.rounds.labeller):
            raise ValueError("rounds needs a reward section, a ppo section and rounds.labeller")
        return self
