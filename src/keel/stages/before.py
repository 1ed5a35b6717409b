"""What a run settles before its first stage, so that a mistake costs no training."""

import sys
from pathlib import Path

from keel.core.errors import ArtifactError, ConfigError
from keel.core.files import atomic_write_text
from keel.core.progress import Progress
from keel.models.extras import require_bitsandbytes
from keel.models.load import context_length_of
from keel.stages.context import available_cores
from keel.stages.functions import load_function
from keel.stages.recipe import Recipe
from keel.stages.rewards import check_part
from keel.stages.sections.constitution import read_constitution
from keel.stages.sections.rewards import RewardPart


def run_folder(path: Path) -> Path:
    """The folder of an earlier run. Raises ArtifactError for anything else."""
    if not (path / "artifacts").is_dir():
        raise ArtifactError(
            f"{path} is not a run folder: it has no artifacts. Give the folder that keel run wrote into."
        )
    return path


def within_context(recipe: Recipe, progress: Progress) -> Recipe:
    """The recipe with data.max_tokens no longer than any of its models reads."""
    bought = [path for _, part in judging(recipe) for path in part.folders]
    models = [recipe.model.path, *([recipe.reward.base] if recipe.reward and recipe.reward.base else []), *bought]
    reads = {path: context_length_of(path, recipe.model.trust_remote_code) for path in models if path is not None}
    shortest = min(reads, key=lambda path: reads[path] or sys.maxsize)
    limit = reads[shortest] or sys.maxsize
    wanted = recipe.data.max_tokens
    if limit < wanted:
        progress.say(f"data.max_tokens is {limit} instead of {wanted}: {shortest} reads no more.")
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"max_tokens": limit})})
    samples = recipe.evaluate or recipe.rounds
    for name, section in (
        ("ppo", recipe.ppo),
        ("prefer", recipe.prefer if samples else None),
        ("best_of", recipe.best_of),
        ("constitution", recipe.constitution),
    ):
        if section is not None and section.max_new_tokens >= recipe.data.max_tokens:
            raise ConfigError(
                f"{name}.max_new_tokens={section.max_new_tokens} leaves no room for a prompt within data.max_tokens="
                f"{recipe.data.max_tokens}. Lower the first, or raise the second as far as the model reads."
            )
    return recipe


def judging(recipe: Recipe) -> list[tuple[str, RewardPart]]:
    """Every reward that this recipe judges by, and the section that lists it."""
    rounds = recipe.rounds if recipe.rounds and recipe.rounds.judge == "reward" else None
    sections = (("ppo", recipe.ppo), ("best_of", recipe.best_of), ("rounds", rounds))
    return [(name, part) for name, section in sections if section is not None for part in section.rewards]


def check_functions(recipe: Recipe, folder: Path, only: str | None) -> None:
    """Load every Python function that the stages up to `only` will call, so that a mistake costs no training."""
    named: list[tuple[str, str | None]] = []
    if only != "sft" and recipe.rounds is not None:
        named.append(("rounds.labeller", recipe.rounds.labeller))
    if only != "sft" and recipe.feedback is not None:
        named.append(("feedback.judge.python", recipe.feedback.judge.python))
    if only != "sft" and recipe.constitution is not None:
        read_constitution(Path(recipe.constitution.path))
        critic = recipe.constitution.critic
        named.append(("constitution.critic.python", critic.python if critic else None))
    if only not in ("sft", "reward"):
        for name, part in judging(recipe):
            check_part(part, f"{name}.rewards.{part.name}", folder)
    if only not in ("sft", "reward") and recipe.ppo is not None:
        named.append(("guardian.checks.judge", recipe.guardian.checks.judge))
    if only in (None, "evaluate") and recipe.evaluate is not None:
        named.append(("evaluate.preference", recipe.evaluate.preference))
    for field, spec in named:
        if spec is not None:
            load_function(spec, field, folder)


def check_libraries(recipe: Recipe) -> None:
    """Look for the optional libraries that settings ask for, so that a missing one costs no training."""
    if recipe.model.quantise is not None:
        require_bitsandbytes(f"model.quantise: {recipe.model.quantise}")
    for name in Recipe.model_fields:
        optim = getattr(getattr(recipe, name), "optim", None)
        if optim is not None and optim.name == "adamw8bit":
            require_bitsandbytes(f"{name}.optim.name: adamw8bit")


def settle_threads(recipe: Recipe, directory: Path) -> int:
    """CPU threads of this run; a folder keeps the number it began with, because sums depend on it to the last bit."""
    note = directory / "threads"
    if note.is_file():
        return int(note.read_text())
    threads = recipe.threads or available_cores()
    atomic_write_text(note, str(threads))
    return threads
