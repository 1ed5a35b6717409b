"""Where a recipe's relative paths point: at the working directory first, then at the recipe's own folder.

Python files are the exception: they are always taken from the recipe's folder (`keel.stages.functions`).
"""

import re
from pathlib import Path

from keel.core.errors import ConfigError
from keel.data.formats import DataConfig
from keel.data.snapshot import snapshot_at
from keel.stages.place import Place, names_place
from keel.stages.recipe import Recipe
from keel.stages.sections.constitution import ConstitutionConfig
from keel.stages.sections.feedback import FeedbackConfig, ModelSource
from keel.stages.sections.rewards import RewardPart

LONGEST_NAME = 200
"""Characters beyond which a rubric is no name of a file."""
NAME_OF_A_FILE = re.compile(r"\S+\.(md|txt|rst)", re.IGNORECASE)
"""What a rubric does not say in one word."""


def located(path: str, folder: Path) -> str:
    """`path` if it exists from here, the one beside the recipe if that exists, else unchanged (a hub name)."""
    if names_place(path):
        return Place.of(path).below(folder).address
    beside = folder / path
    return path if _stands(path) or not _stands(beside) else str(beside)


def _stands(path: str | Path) -> bool:
    """Whether there is a file, a folder, or a snapshot named with its hash."""
    return Path(path).exists() or snapshot_at(path) is not None


def locate(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with every local path found, and the chat template read if a file holds it."""

    def data(config: DataConfig | None) -> DataConfig | None:
        return config and config.model_copy(update={"path": located(config.path, folder)})

    def part(config: RewardPart) -> RewardPart:
        found = tuple(located(path, folder) for path in config.folders)
        if not found:
            return config
        return config.model_copy(update={"model": found[0]} if config.model else {"models": found})

    model = recipe.model.model_copy(
        update={
            "path": located(recipe.model.path, folder),
            "chat_template": template(recipe.model.chat_template, folder),
        }
    )
    sets = ("demonstrations", "comparisons", "ratings", "golden", "prompts")
    section = recipe.data.model_copy(update={name: data(getattr(recipe.data, name)) for name in sets})
    evaluate = recipe.evaluate and recipe.evaluate.model_copy(update={"data": data(recipe.evaluate.data)})
    reward = recipe.reward
    if reward is not None and reward.base is not None:
        reward = reward.model_copy(update={"base": located(reward.base, folder)})
    judging = {
        name: judge.model_copy(update={"rewards": tuple(part(config) for config in judge.rewards)})
        for name in ("ppo", "best_of", "rounds")
        if (judge := getattr(recipe, name)) is not None
    }
    return recipe.model_copy(
        update={
            "model": model,
            "data": section,
            "reward": reward,
            "evaluate": evaluate,
            "feedback": recipe.feedback and located_feedback(recipe.feedback, folder),
            "constitution": recipe.constitution and located_constitution(recipe.constitution, folder),
            **judging,
        }
    )


def located_feedback(config: FeedbackConfig, folder: Path) -> FeedbackConfig:
    """The AI judge's model, pairs and golden comparisons found, and the rubric read if a file holds it."""
    sets = {name: getattr(config, name) for name in ("pairs", "golden")}
    found = {name: data and data.model_copy(update={"path": located(data.path, folder)}) for name, data in sets.items()}
    rubric = config.rubric and written(config.rubric, folder)
    return config.model_copy(update={"judge": located_source(config.judge, folder), "rubric": rubric, **found})


def located_constitution(config: ConstitutionConfig, folder: Path) -> ConstitutionConfig:
    """The file of principles and the critic's model found."""
    critic = config.critic and located_source(config.critic, folder)
    return config.model_copy(update={"path": located(config.path, folder), "critic": critic})


def located_source(source: ModelSource, folder: Path) -> ModelSource:
    """A judge or critic whose model is found."""
    path = source.path and located(source.path, folder)
    return source.model_copy(update={"path": path, "chat_template": template(source.chat_template, folder)})


def written(text: str, folder: Path) -> str:
    """What a file says, where `text` is the name of one; else `text`. ConfigError for a file that cannot be read."""
    if "\n" in text or len(text) > LONGEST_NAME:
        return text
    path = Path(located(text, folder))
    if not path.is_file():
        if NAME_OF_A_FILE.fullmatch(text):
            raise ConfigError(f"feedback.rubric: there is no file {text} here or in {folder}.")
        return text
    try:
        found = path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"feedback.rubric: {path} is not UTF-8 text (byte {error.start}). Save it as UTF-8."
        ) from error
    if not found:
        raise ConfigError(f"feedback.rubric: {path} is empty. Write what the judge goes by, or leave rubric out.")
    return found


def template(text: str | None, folder: Path) -> str | None:
    """The chat template itself where `text` names a file that holds it, so that the recipe says what it is."""
    if text is None or "{" in text:
        return text
    path = Path(located(text, folder))
    return path.read_text(encoding="utf-8") if path.is_file() else text
