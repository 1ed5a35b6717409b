"""The recipe: every setting of a run, in one strict typed tree. No torch here: the command line reads it."""

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, model_validator

from keel.core.config import Config
from keel.models.settings import ModelConfig
from keel.monitor.settings import GuardianConfig
from keel.monitor.thresholds import Thresholds
from keel.stages.methods import EXAMPLES, MethodName, settled
from keel.stages.sections.best_of import BestOfConfig
from keel.stages.sections.constitution import ConstitutionConfig
from keel.stages.sections.data import DataSection
from keel.stages.sections.evaluate import EvaluateConfig
from keel.stages.sections.feedback import FeedbackConfig
from keel.stages.sections.prefer import PreferConfig, learns_from_ratings, wanting
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
    method: MethodName | None = None
    """How the policy learns: one word that decides which of the sections ppo, prefer and best_of run, and their
    algorithm, so that a recipe may hold settings of several. null: all sections that are there."""
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
    constitution: ConstitutionConfig | None = None
    """Present: the SFT policy learns its own answers, criticised and revised by principles."""
    feedback: FeedbackConfig | None = None
    """Present: an AI compares answers; reward, prefer or rounds learn from it."""
    reward: RewardConfig | None = None
    """Present: train a reward model."""
    prefer: PreferConfig | None = None
    """Present: train the policy on comparisons, of the data or of fresh pairs."""
    ppo: RLConfig | None = None
    """Present: optimise the policy (by ppo.algorithm)."""
    best_of: BestOfConfig | None = None
    """Present: best-of-n sampling, or fine-tuning on what it picks."""
    rounds: RoundsConfig | None = None
    """Present: alternate training with fresh judgments."""
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
    def _method(self) -> "Recipe":
        return settled(self)

    @model_validator(mode="after")
    def _stages_have_what_they_need(self) -> Self:
        if self.sft and not self.data.demonstrations and not self.constitution:
            raise ValueError("sft needs data.demonstrations")
        collected = self.rounds is not None and self.rounds.first_comparisons > 0
        collected = collected or (self.feedback is not None and self.feedback.gives_comparisons)
        if self.reward and not self.data.comparisons and not collected:
            raise ValueError("reward needs data.comparisons (or rounds.first_comparisons, or feedback.comparisons)")
        given = self.data.comparisons or collected or learns_from_ratings(self.prefer, self.data)
        if self.prefer and self.prefer.pairs == "data" and not given:
            raise ValueError(wanting(self.prefer.algorithm, rated=self.data.ratings is not None))
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
        for problem in conflicts(self):
            raise ValueError(problem)
        return self

    @property
    def learns_from_comparisons(self) -> bool:
        """Whether comparisons are needed before any policy is sampled for others."""
        prefer = self.prefer
        directly = prefer is not None and prefer.pairs == "data" and not learns_from_ratings(prefer, self.data)
        return self.reward is not None or directly


def conflicts(recipe: Recipe) -> Iterator[str]:
    """Why the sections that train the policy do not go together, if they do not."""
    rounds, prefer = recipe.rounds, recipe.prefer
    trainers = [name for name in ("ppo", "prefer", "best_of") if getattr(recipe, name)]
    if len(trainers) > 1 and not (prefer and prefer.pairs == "fresh" and trainers == ["ppo", "prefer"]):
        yield (
            f"{' and '.join(trainers)} would each train the policy from SFT on. Say which with one word, for example "
            "method: dpo (-s method=dpo), or take ppo first and then prefer on what it made with method: hybrid"
        )
    yield from conflicts_of_feedback(recipe)
    fresh = prefer is not None and prefer.pairs == "fresh"
    if fresh and rounds is None:
        yield f"prefer.pairs: fresh needs a section that says who judges them. Add, for example:\n{EXAMPLES['rounds']}"
    for name in ("rounds", "best_of"):
        section = getattr(recipe, name)
        judges = section is not None and (name == "best_of" or section.judge == "reward")
        if judges and not recipe.reward and any(part.model == "stage" for part in section.rewards):
            yield (
                f"{name}.rewards names the reward model of this recipe, but the recipe has no reward section. Add "
                f"`reward: {{}}`, or say in {name}.rewards what judges"
            )
    greedy = recipe.evaluate is not None and recipe.evaluate.temperature == 0
    if greedy and recipe.best_of and recipe.best_of.algorithm == "best_of_n":
        yield "evaluate.temperature: 0 always gives the same response, so there is no best of several. Set 1.0"
    if rounds is None:
        return
    asks = rounds.first_comparisons > 0 or rounds.judge == "labeller"
    if (
        asks
        and not rounds.labeller
        and rounds.judge != "feedback"
        and (rounds.first_comparisons or fresh or rounds.count > 1)
    ):
        yield "rounds needs rounds.labeller, a Python function that judges pairs, or rounds.judge: reward or feedback"
    if recipe.ppo and rounds.count > 1:
        if not recipe.reward:
            yield "rounds with ppo needs a reward section: what is refreshed between the rounds is the reward model"
        if rounds.judge == "reward":
            yield (
                "rounds.judge: reward cannot teach the reward model what it does not know. With ppo, set rounds.judge: "
                "labeller, or rounds.count: 1"
            )
    if not trainers:
        yield "rounds needs a section ppo, prefer or best_of: nothing would be trained on what is judged"


def conflicts_of_feedback(recipe: Recipe) -> Iterator[str]:
    """Why an AI judge would have nothing to do, or too much."""
    feedback, rounds = recipe.feedback, recipe.rounds
    if recipe.constitution and recipe.constitution.replay and not (recipe.sft and recipe.data.demonstrations):
        yield "constitution.replay mixes in what SFT learned: give sft and data.demonstrations, or leave replay out"
    asked = rounds is not None and rounds.judge == "feedback"
    if asked and feedback is None:
        yield "rounds.judge: feedback needs a section feedback. Add, for example:\nfeedback:\n  judge: {path: a-judge}"
    if feedback is None:
        return
    if not feedback.gives_comparisons and not asked:
        yield (
            "nothing asks the AI judge of feedback. Set feedback.comparisons (pairs of the policy's answers) or "
            "feedback.pairs (a file), or rounds.judge: feedback"
        )
    if feedback.gives_comparisons and recipe.learns_from_comparisons:
        others = {
            "data.comparisons": recipe.data.comparisons is not None,
            "rounds.first_comparisons": rounds is not None and rounds.first_comparisons > 0,
        }
        yield from (
            f"{name} and feedback would both give the comparisons to learn from. Keep one; feedback.pairs labels a "
            "file of comparisons anew"
            for name, there in others.items()
            if there
        )
    samples = recipe.ppo or recipe.prefer or recipe.best_of or recipe.constitution
    if feedback.comparisons and not samples:
        yield "feedback.comparisons needs a section ppo, prefer or best_of, which says how the policy samples"
