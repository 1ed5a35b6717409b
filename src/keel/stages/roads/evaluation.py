"""Where all roads end: the policy against SFT."""

from collections.abc import Sequence

from keel.core.artifacts import Artifact
from keel.data.formats import DataConfig
from keel.stages.encode import encode_prompts, fitting
from keel.stages.evaluate import Contest, Preference, evaluate_policy
from keel.stages.functions import function_identity, load_function
from keel.stages.inputs import asks_for_records, check_judged, freeze_held_out
from keel.stages.roads.judges import known_by, weighted_sum
from keel.stages.roads.work import Work
from keel.stages.sections.evaluate import EvaluateConfig
from keel.stages.sections.rewards import RewardPart
from keel.stages.sections.sampling import Sampling
from keel.train.judge import Judge
from keel.train.rollout import EncodedPrompt

STAGE_REWARD = (RewardPart(name="reward_model", model="stage"),)


def against_sft(
    work: Work,
    config: EvaluateConfig,
    sampling: Sampling,
    policy: Artifact | None,
    *,
    n: int = 1,
    label: str = "evaluate",
) -> Artifact:
    """The win-rate by whatever judges: a true preference, the recipe's rewards, or both; else only distances.

    With `n` above 1 the policy's answer is the best of n by the rewards.
    """
    prompts, prompt_set = questions(work, config.data, sampling)
    judge, known = rewards(work, sampling)
    preference, identity = true_preference(work, config)
    members = work.rewards.members if work.rewards and judge else ()
    contest = Contest(
        policy=work.policy(policy),
        sft=work.baseline,
        prompts=prompts,
        sampling=sampling,
        judge=judge,
        preference=preference,
        n=n,
    )
    parents = [*([policy] if policy else []), prompt_set, *members]
    settings = {**known, "preference": identity}
    return evaluate_policy(work.context, config, contest, parents, settings, label)


def questions(work: Work, data: DataConfig | None, sampling: Sampling) -> tuple[Sequence[EncodedPrompt], Artifact]:
    """Prompts of a file of their own, or held-out ones; and the artifact that froze them."""
    section, recipe = work.sampling[0], work.recipe
    if data is not None:
        beside = asks_for_records(recipe)
        records = freeze_held_out(work.context, recipe.data, "prompts", data, "evaluation", beside=beside)
        check_judged(recipe, records, data)
        fit = fitting(recipe.data)
        prompts = encode_prompts(
            records.held_out, work.tokenizer, fit, sampling.max_new_tokens, section, records.records
        )
        return prompts, records.artifact
    held_out = work.prompts.held_out
    # Behind those that chose the checkpoint, where there are more: choosing flatters.
    chose = recipe.ppo.evaluate_prompts if recipe.ppo else 0
    return held_out[chose:] or held_out, work.prompts.artifact


def rewards(work: Work, sampling: Sampling) -> tuple[Judge | None, dict[str, object]]:
    """What the policy was trained to maximise, or the reward model beside it; None without any. And its identity."""
    recipe = work.recipe
    judging = recipe.rounds if recipe.rounds and recipe.rounds.judge == "reward" else None
    section = recipe.ppo or recipe.best_of or judging
    parts = section.rewards if section else STAGE_REWARD if work.rewards else ()
    if not parts:
        return None, {}
    name = "ppo" if recipe.ppo else "best_of" if recipe.best_of else "rounds"
    return weighted_sum(work, name, parts, sampling), known_by(work, parts)


def true_preference(work: Work, config: EvaluateConfig) -> tuple[Preference | None, str | None]:
    """The function that knows what people prefer, and its identity."""
    if config.preference is None:
        return None, None
    folder = work.context.recipe_folder
    preference: Preference = load_function(config.preference, "evaluate.preference", folder)
    return preference, function_identity(config.preference, folder)
