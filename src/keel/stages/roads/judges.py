"""Who says how good a response is: the weighted sum of a recipe's rewards."""

from pathlib import Path

from keel.core.errors import ConfigError
from keel.stages.coverage import joined, read_coverage
from keel.stages.functions import load_function
from keel.stages.reward import load_external
from keel.stages.roads.work import Work
from keel.stages.sections.rl import RLConfig
from keel.stats.coverage import Coverage
from keel.train.judge import FunctionScorer, Judge, Scorer
from keel.train.one_trunk import OneTrunk


def weighted_sum(work: Work, config: RLConfig, trunk: OneTrunk | None = None) -> Judge:
    """What `config.rewards` asks for; the recipe's reward model takes its place on `trunk` if there is one."""
    scorers: dict[str, tuple[float, Scorer]] = {}
    coverages: list[Coverage | None] = []
    for part in config.rewards:
        if part.python is not None:
            function = load_function(part.python, f"ppo.rewards.{part.name}", work.context.recipe_folder)
            scorer: Scorer = FunctionScorer(function=function, name=part.name)
        elif part.model != "stage" and part.model is not None:
            scorer = load_external(
                part.model, work.recipe.model, work.tokenizer, config.micro_batch_tokens, work.context.thresholds
            )
            coverages.append(read_coverage(Path(part.model).parent))
        elif work.rewards is not None:
            scorer = work.rewards.scorer() if trunk is None else work.rewards.on(trunk)
            coverages.append(work.rewards.coverage())
        else:
            raise ConfigError(f"ppo.rewards.{part.name} names the recipe's reward model, but there is none.")
        scorers[part.name] = (part.weight, scorer)
    return Judge(
        scorers=scorers,
        shaping=config.shaping,
        max_new_tokens=config.max_new_tokens,
        coverage=joined(coverages),
    )
