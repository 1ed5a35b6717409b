"""Where a recipe's relative paths point: at the working directory first, then at the recipe's own folder."""

from pathlib import Path

from keel.data.formats import DataConfig
from keel.stages.recipe import Recipe


def located(path: str, folder: Path) -> str:
    """`path` if it exists from here, the one beside the recipe if that exists, else unchanged (a hub name)."""
    beside = folder / path
    return path if Path(path).exists() or not beside.exists() else str(beside)


def locate(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with every local path found."""

    def data(config: DataConfig | None) -> DataConfig | None:
        return config and config.model_copy(update={"path": located(config.path, folder)})

    model = recipe.model.model_copy(update={"path": located(recipe.model.path, folder)})
    parts = ("demonstrations", "comparisons", "golden", "prompts")
    section = recipe.data.model_copy(update={part: data(getattr(recipe.data, part)) for part in parts})
    evaluate = recipe.evaluate and recipe.evaluate.model_copy(update={"data": data(recipe.evaluate.data)})
    return recipe.model_copy(update={"model": model, "data": section, "evaluate": evaluate})
