"""What the roads of a run share: the recipe, its records, and what has been made of them so far."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from keel.core.artifacts import Artifact
from keel.stages.context import Run
from keel.stages.encode import encode_prompts, fitting
from keel.stages.functions import function_identity, load_function
from keel.stages.inputs import Inputs, RecordSet, read_inputs
from keel.stages.labels import Labeller
from keel.stages.policy import PolicyFiles, read_tokenizer
from keel.stages.recipe import Recipe
from keel.stages.reward_models import RewardModels
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

    @classmethod
    def begin(cls, context: Run, recipe: Recipe) -> "Work":
        """Nothing made yet; the records read and frozen."""
        base = PolicyFiles.of_model(recipe.model)
        tokenizer = read_tokenizer(base)
        inputs = read_inputs(context, recipe)
        return cls(context=context, recipe=recipe, base=base, tokenizer=tokenizer, inputs=inputs, sft=base, made=Made())

    def prompts(self, section: str, max_new_tokens: int) -> Prompts:
        """The recipe's prompts for a section whose responses have up to `max_new_tokens`."""
        records, fit = required(self.inputs.prompts), fitting(self.recipe.data)
        train = encode_prompts(records.train, self.tokenizer, fit, max_new_tokens, section)
        held_out = encode_prompts(records.held_out, self.tokenizer, fit, max_new_tokens, section)
        self.context.events.append("records", stage=section, train=len(train), held_out=len(held_out), **fit.report())
        return Prompts(train=train, held_out=held_out, artifact=records.artifact)

    def labeller(self) -> tuple[Labeller | None, str | None]:
        """The function that judges fresh pairs, and its identity."""
        spec, folder = self.recipe.rounds.labeller if self.recipe.rounds else None, self.context.recipe_folder
        if spec is None:
            return None, None
        return load_function(spec, "rounds.labeller", folder), function_identity(spec, folder)


def required(value: T | None) -> T:
    """What the recipe's own checks promise to be there."""
    if value is None:
        raise RuntimeError("a stage was reached without what the recipe's checks promise")
    return value
