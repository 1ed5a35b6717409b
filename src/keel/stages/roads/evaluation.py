"""Where all roads end: the policy against SFT."""

from collections.abc import Sequence

from keel.core.artifacts import Artifact
from keel.data.formats import DataConfig
from keel.stages.encode import encode_prompts, fitting
from keel.stages.evaluate import Preference, evaluate_policy
from keel.stages.functions import function_identity, load_function
from keel.stages.inputs import freeze_held_out
from keel.stages.reward import aggregation
from keel.stages.roads.online import Optimisation
from keel.stages.roads.work import Work, required
from keel.stages.sections.evaluate import EvaluateConfig
from keel.stages.sections.prefer import PreferConfig
from keel.train.judge import Judge
from keel.train.rollout import EncodedPrompt
from keel.train.settings import ShapingConfig


def compare_optimised(work: Work, config: EvaluateConfig, rl: Optimisation, policy: Artifact) -> Artifact:
    """What RL made, by the true preference and by what it maximised."""
    # Behind those that chose the checkpoint, where there are more: choosing flatters.
    held_out = rl.prompts.held_out
    prompts: Sequence[EncodedPrompt] = held_out[rl.config.evaluate_prompts :] or held_out
    prompt_set = rl.prompts.artifact
    if config.data is not None:
        prompts, prompt_set = evaluation_prompts(work, config.data, rl.config.max_new_tokens, "ppo")
    preference, identity = true_preference(work, config)
    return evaluate_policy(
        work.context,
        config,
        rl.config,
        policy,
        work.sft.of_artifact(policy),
        work.sft,
        prompts,
        prompt_set,
        rl.judge(),
        preference,
        identity,
    )


def compare_preferred(work: Work, config: EvaluateConfig, sampling: PreferConfig, policy: Artifact) -> Artifact:
    """The win-rate by whatever judges: a true preference, the recipe's reward model, or both; else only distances."""
    if config.data is not None:
        prompts, prompt_set = evaluation_prompts(work, config.data, sampling.max_new_tokens, "prefer")
    else:
        records = required(work.inputs.prompts)
        prompt_set, fit = records.artifact, fitting(work.recipe.data)
        prompts = encode_prompts(records.held_out, work.tokenizer, fit, sampling.max_new_tokens, "prefer")
    judge, rewards = None, work.rewards
    if rewards is not None:
        scorers = {"reward_model": (1.0, rewards.scorer())}
        judge = Judge(scorers=scorers, shaping=ShapingConfig(), max_new_tokens=sampling.max_new_tokens)
    preference, identity = true_preference(work, config)
    return evaluate_policy(
        work.context,
        config,
        sampling,
        policy,
        work.sft.of_artifact(policy),
        work.sft,
        prompts,
        prompt_set,
        judge,
        preference,
        identity,
        reward_models=rewards.members if rewards else (),
        aggregation=aggregation(rewards.config) if rewards else {},
    )


def evaluation_prompts(
    work: Work, data: DataConfig, max_new_tokens: int, section: str
) -> tuple[list[EncodedPrompt], Artifact]:
    """Prompts of a file of their own, and the artifact that froze them."""
    recipe = work.recipe
    records = freeze_held_out(work.context, recipe.data, "prompts", data, "evaluation")
    prompts = encode_prompts(records.held_out, work.tokenizer, fitting(recipe.data), max_new_tokens, section)
    return prompts, records.artifact


def true_preference(work: Work, config: EvaluateConfig) -> tuple[Preference | None, str | None]:
    """The function that knows what people prefer, and its identity."""
    if config.preference is None:
        return None, None
    folder = work.context.recipe_folder
    preference: Preference = load_function(config.preference, "evaluate.preference", folder)
    return preference, function_identity(config.preference, folder)
