"""What the roads of a run share: the recipe, its records, and what has been made of them so far."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from keel.core.artifacts import Artifact
from keel.data.prompt_records import PromptRecord
from keel.data.records import Prompt, prompt_key
from keel.stages.context import Run
from keel.stages.encode import encode_prompts, fitting
from keel.stages.feedback.judging import AILabeller
from keel.stages.inputs import Inputs, RecordSet, read_inputs
from keel.stages.methods import TRAINERS
from keel.stages.policy import PolicyFiles, read_tokenizer
from keel.stages.recipe import Recipe
from keel.stages.reward_models import RewardModels
from keel.stages.sections.sampling import Sampling
from keel.stages.summary import Made
from keel.train.rollout import EncodedPrompt

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Prompts that leave room for a whole response, and the artifact that froze them."""

    train: Sequence[EncodedPrompt]
    held_out: Sequence[EncodedPrompt]
    artifact: Artifact


@dataclass
class Work:
    """One run under way. Roads read what earlier ones left here, and leave what they made."""

    context: Run
    recipe: Recipe
    base: PolicyFiles
    """The model that the recipe starts from."""
    tokenizer: Any
    inputs: Inputs
    sft: PolicyFiles
    """The policy that every road starts from: the base model until `start.fine_tune` has run."""
    made: Made
    comparisons: RecordSet | None = None
    """What reward models and policies learn from."""
    rewards: RewardModels | None = None
    judge: AILabeller | None = None
    """The AI judge, once it was held against golden votes."""
    before: PolicyFiles | None = None
    """The SFT policy before it learned revisions by a constitution; None without one."""

    @classmethod
    def begin(cls, context: Run, recipe: Recipe) -> "Work":
        """Nothing made yet; the records read and frozen."""
        base = PolicyFiles.of_model(recipe.model)
        tokenizer = read_tokenizer(base)
        inputs = read_inputs(context, recipe)
        return cls(context=context, recipe=recipe, base=base, tokenizer=tokenizer, inputs=inputs, sft=base, made=Made())

    @property
    def sampling(self) -> tuple[str, Sampling]:
        """The first section that samples from a policy, and its name: it says how long responses are."""
        names = (*TRAINERS, "constitution")
        return next((name, section) for name in names if (section := getattr(self.recipe, name)) is not None)

    @cached_property
    def prompts(self) -> Prompts:
        """The recipe's prompts that leave room for a response."""
        section, sampling = self.sampling
        records, fit = required(self.inputs.prompts), fitting(self.recipe.data)
        others = [getattr(self.recipe, name) for name in TRAINERS]
        length = max(other.max_new_tokens for other in (sampling, *others) if other is not None)
        train = encode_prompts(records.train, self.tokenizer, fit, length, section, records.records)
        held_out = encode_prompts(records.held_out, self.tokenizer, fit, length, section, records.records)
        self.context.events.append("records", stage=section, train=len(train), held_out=len(held_out), **fit.report())
        return Prompts(train=train, held_out=held_out, artifact=records.artifact)

    def prompt_record(self, prompt: Prompt) -> PromptRecord:
        """What stands beside one of the recipe's prompts."""
        return self.inputs.prompts.records.get(prompt_key(prompt), {}) if self.inputs.prompts else {}

    @property
    def baseline(self) -> PolicyFiles:
        """What the final policy is compared with: SFT, before any constitution."""
        return self.before or self.sft

    def policy(self, artifact: Artifact | None) -> PolicyFiles:
        """The files of a policy that a stage made; None is the one that all roads start from."""
        return self.sft if artifact is None else self.base.of_artifact(artifact)


def required(value: T | None) -> T:
    """What the recipe's own checks promise to be there."""
    if value is None:
        raise RuntimeError("a stage was reached without what the recipe's checks promise")
    return value
