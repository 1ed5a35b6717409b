"""The recipe: every setting of a run, in one strict typed tree. No torch here: the command line reads it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from keel.algorithms.settings import DPOConfig, GRPOConfig, KLConfig, PairLossConfig, PPOConfig, RLOOConfig
from keel.core.config import Config
from keel.data.formats import DataConfig
from keel.models.settings import LoraConfig, ModelConfig
from keel.monitor.settings import GuardianConfig
from keel.monitor.thresholds import Thresholds
from keel.train.settings import CheckpointConfig, OptimConfig, ShapingConfig

Labels = Literal["given", "majority", "share", "weighted", "dawid_skene"]
TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]


class DataSection(Config):
    """Where the records come from. A part that no stage needs may be absent."""

    demonstrations: DataConfig | None = None
    """Prompts with an ideal response, for SFT."""
    comparisons: DataConfig | None = None
    """Two responses and which is better, for the reward model or for prefer."""
    golden: DataConfig | None = None
    """Comparisons judged by seniors, never trained on; the reward model is probed on them."""
    prompts: DataConfig | None = None
    """Prompts for RL and evaluation. Absent: the prompts of the demonstrations, else of the comparisons."""
    override_agreement: str | None = Field(None, min_length=10)
    """Why comparisons are trained on although their raters agree less than thresholds.agreement_block. The reason
    stands in the events, in what is trained, and in the report; null stops such a run. Only sets with votes of several
    raters are measured."""
    max_tokens: int = Field(512, ge=8)
    """Longest prompt plus response."""
    too_long: Literal["left", "drop", "error"] = "left"
    """A record over max_tokens loses the left of its prompt, is dropped (both counted), or stops the run. A response
    is never cut."""


class SFTOptimConfig(OptimConfig):
    """The optimiser of SFT. Customary rates: 2e-5 full, 2e-4 with LoRA."""

    learning_rate: float = Field(2e-5, gt=0)
    """Peak learning rate of adamw."""
    eps: float = Field(1e-8, gt=0)
    """Adam's epsilon; 1e-5 is the value that PPO was tuned with (Huang et al. 2022)."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Shape of the decline after the warm-up."""


class PreferOptimConfig(OptimConfig):
    """The optimiser of prefer. Customary rates: 5e-7 to 1e-6 full, 5e-6 to 5e-5 with LoRA."""

    learning_rate: float = Field(1e-6, gt=0)
    """Peak learning rate of adamw."""


class RLOptimConfig(OptimConfig):
    """The optimiser of RL."""

    warmup_share: float = Field(0.03, ge=0, le=1)
    """Share of all steps over which the rate climbs from zero."""


class SFTConfig(Config):
    """Supervised fine-tuning on demonstrations, loss on the response only."""

    epochs: int = Field(3, ge=1)
    """Passes over the demonstrations, at most."""
    batch: int = Field(32, ge=1)
    """Demonstrations per optimiser step."""
    patience: int = Field(1, ge=1)
    """Training stops after this many epochs without a lower held-out perplexity; the best weights are kept."""
    min_improvement: float = Field(0.002, ge=0)
    """A fall in perplexity counts from this share on."""
    micro_batch_tokens: int = Field(2048, ge=1)
    """Tokens per forward pass."""
    lora: LoraConfig | None = None
    """Adapters instead of full fine-tuning."""
    optim: SFTOptimConfig = SFTOptimConfig()
    """Optimiser. Customary rates: 2e-5 full, 2e-4 with LoRA."""


class RewardConfig(Config):
    """Reward model: Bradley-Terry on comparisons."""

    form: Literal["head", "implicit", "hybrid"] = "head"
    """head reads one score off the last token; implicit sums beta·log pi/ref over the response; hybrid adds both."""
    beta: float = Field(0.1, gt=0)
    """Weight of the implicit part."""
    epochs: int = Field(1, ge=1)
    """Passes over the comparisons."""
    batch: int = Field(32, ge=1)
    """Comparisons per optimiser step."""
    micro_batch_tokens: int = Field(2048, ge=1)
    """Tokens per forward pass."""
    members: int = Field(1, ge=1)
    """Models in the ensemble: own head, own data order."""
    aggregate: Literal["mean", "min", "mean_minus_std"] = "mean"
    """How an ensemble's normalised scores become one."""
    std_weight: float = Field(1.0, ge=0)
    """lambda of mean_minus_std."""
    freeze_embeddings: bool = True
    """Embeddings stay as the policy's."""
    base: str | None = None
    """Another model to start from; null starts from the SFT policy."""
    labels: Labels = "given"
    """Where a comparison has votes: keep its preference, or derive it from the votes (share gives soft targets)."""
    loss: PairLossConfig = PairLossConfig()
    """The pair loss."""
    lora: LoraConfig | None = None
    """Adapters instead of full fine-tuning; merged when saved."""
    best_of: int = Field(16, ge=0)
    """Size n of the best-of-n check on held-out prompts before any RL; 0 skips it."""
    best_of_prompts: int = Field(64, ge=1)
    """Prompts of the best-of-n check."""
    optim: OptimConfig = OptimConfig()
    """Optimiser. Customary rates: 1e-5 full, 1e-4 with LoRA."""


class PreferConfig(Config):
    """Train the policy on comparisons directly, without a reward model."""

    algorithm: Literal["dpo"] = "dpo"
    """dpo is direct preference optimisation; its own settings choose between its forms."""
    epochs: int = Field(1, ge=1)
    """Passes over the comparisons."""
    batch: int = Field(32, ge=1)
    """Comparisons per optimiser step."""
    micro_batch_tokens: int = Field(2048, ge=1)
    """Tokens per forward pass."""
    labels: Labels = "given"
    """Where a comparison has votes: keep its preference, or derive it from the votes (share gives soft targets)."""
    dpo: DPOConfig = DPOConfig()
    """Used when algorithm is dpo."""
    lora: LoraConfig | None = None
    """Adapters instead of full fine-tuning."""
    evaluate_every: int = Field(50, ge=1)
    """Steps between evaluations on held-out comparisons; one follows the last step."""
    patience: int | None = Field(None, ge=1)
    """Stops after this many evaluations without a lower held-out loss; null takes all steps."""
    keep: Literal["best", "last"] = "best"
    """Which weights become the policy: those of the lowest held-out loss, or the last."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest response when the policy is compared with SFT."""
    optim: PreferOptimConfig = PreferOptimConfig()
    """Optimiser. Customary rates: 5e-7 to 1e-6 full, 5e-6 to 5e-5 with LoRA; small models need far higher ones."""


class RewardPart(Config):
    """One term of the score."""

    name: str
    """Under which it is logged."""
    weight: float = 1.0
    """Factor in the sum."""
    model: str | None = None
    """Folder of a reward model, or `stage` for the one this recipe trains."""
    python: str | None = None
    """`file.py:function`; the function takes (prompts, responses) and returns one number each."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.model is None) == (self.python is None):
            raise ValueError("give exactly one of `model` and `python`")
        return self


class RLConfig(Config):
    """Reinforcement learning on the reward."""

    algorithm: Literal["ppo", "rloo", "grpo"] = "ppo"
    """ppo has a critic and spends each rollout several times; rloo and grpo compare the samples of a prompt."""
    updates: int = Field(100, ge=1)
    """Rollouts, each followed by its optimiser steps (per round, when there are rounds)."""
    prompts: int = Field(32, ge=1)
    """Prompts per rollout."""
    samples: int = Field(4, ge=1)
    """Responses per prompt."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest response."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature; log-probabilities are taken at the same one."""
    micro_batch_tokens: int = Field(2048, ge=1)
    """Tokens per forward pass."""
    kl: KLConfig = KLConfig()
    """Penalty towards the reference (the SFT policy). With algorithm grpo its preset is grpo where none is named."""
    shaping: ShapingConfig = ShapingConfig()
    """From scores to rewards."""
    rewards: tuple[RewardPart, ...] = (RewardPart(name="reward_model", model="stage"),)
    """What is maximised: a weighted sum."""
    ppo: PPOConfig = PPOConfig()
    """Used when algorithm is ppo."""
    rloo: RLOOConfig = RLOOConfig()
    """Used when algorithm is rloo."""
    grpo: GRPOConfig = GRPOConfig()
    """Used when algorithm is grpo."""
    lora: LoraConfig | None = None
    """Adapters instead of full fine-tuning; the reference is then the same network with adapters off."""
    layout: Literal["separate", "one_trunk"] = "separate"
    """one_trunk holds the weights once for policy, reference, reward model and critic: an adapter for the policy, none
    for the reference, the reward model's own adapter, and a value head. It needs lora here and in reward; what
    lora.last_layers leaves untouched runs once a rollout. separate gives the roles networks of their own."""
    evaluate_every: int = Field(10, ge=1)
    """Updates between held-out evaluations."""
    evaluate_prompts: int = Field(128, ge=1)
    """Held-out prompts per evaluation."""
    patience: int | None = Field(None, ge=1)
    """Stops after this many evaluations without a better held-out reward; null runs all updates."""
    keep: Literal["best", "last"] = "best"
    """Which weights become the policy: best held-out reward (score less KL cost), or the last."""
    optim: RLOptimConfig = RLOptimConfig()
    """Optimiser."""

    @model_validator(mode="before")
    @classmethod
    def _penalty_of_grpo(cls, values: object) -> object:
        if not isinstance(values, dict) or values.get("algorithm") != "grpo":
            return values
        kl = values.get("kl", {})
        return {**values, "kl": {"preset": "grpo", **kl}} if isinstance(kl, dict) else values

    @model_validator(mode="after")
    def _groups(self) -> Self:
        if self.algorithm != "ppo" and self.samples < 2:
            raise ValueError(
                f"{self.algorithm} compares the samples of a prompt: samples={self.samples} must be 2 or more"
            )
        return self

    @model_validator(mode="after")
    def _one_trunk(self) -> Self:
        if self.layout == "one_trunk" and self.lora is None:
            raise ValueError(
                "layout: one_trunk keeps the weights as they are and trains adapters on them. Set lora (`lora: {}` "
                "takes the defaults), or layout: separate"
            )
        if self.layout == "one_trunk" and "critic" in self.ppo.model_fields_set and self.ppo.critic == "separate":
            raise ValueError(
                "ppo.critic: separate and layout: one_trunk contradict each other: there the critic is a head on the "
                "policy. Leave ppo.critic out, or set layout: separate"
            )
        return self

    @property
    def critic_on_trunk(self) -> bool:
        """Whether the critic reads the policy's hidden states."""
        return self.layout == "one_trunk" or self.ppo.critic == "trunk"


class RoundsConfig(Config):
    """Collect, refresh the reward model, optimise, repeat: labels follow the policy."""

    count: int = Field(4, ge=1)
    """Rounds of RL; the reward model is refreshed between them."""
    comparisons: int = Field(800, ge=1)
    """Fresh pairs judged before each refresh, half policy against policy, half policy against SFT."""
    first_comparisons: int = Field(0, ge=0)
    """Pairs of SFT samples judged before the first reward model, for recipes without data.comparisons."""
    labeller: str | None = None
    """`file.py:function` that judges pairs: takes a list of `keel.stages.labels.Pair` and returns a list of
    `keel.data.records.Comparison`, votes included where there are any."""
    replay: float = Field(1.0, ge=0)
    """Earlier comparisons mixed into each refresh, as a share of the fresh ones."""
    learning_rate: float | None = Field(None, gt=0)
    """Rate of a refresh; null takes two thirds of reward.optim's."""


class EvaluateConfig(Config):
    """Final policy against SFT on held-out prompts."""

    prompts: int = Field(256, ge=1)
    """Held-out prompts, one response each from both policies."""
    data: DataConfig | None = None
    """Prompts to compare on; null takes held-out ones of data.prompts, or of what stands in for them."""
    temperature: float = Field(1.0, ge=0)
    """Sampling temperature; 0 is greedy."""
    preference: str | None = None
    """`file.py:function` that knows the true preference: takes (prompts, responses, finished) and returns one utility
    each, or named lists of which one is `utility`. null compares by the reward model, and says so."""


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
