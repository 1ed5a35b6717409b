"""A recipe, stage by stage.

What each stage is made from and leaves stands in `roads`, a file a road, all working on one `Work`:

    start       SFT, comparisons, reward models: where all roads start. What makes demonstrations or comparisons
                (revisions by a constitution, an AI judge) belongs here, in front of what learns from them
    online      RL on a reward
    offline     policies that learn from comparisons directly
    fresh       pairs sampled from a policy as it is, and judged
    rounds      fresh samples are judged, what learns from judgments goes on with them
    best_of     the best of n samples, to answer with or to fine-tune on
    evaluation  the policy against SFT: where all roads end
    judges      who says how good a response is, for all of them

`run_stages` is the order, `train` what the methods are. A new road is a file there, a line here, its section of the
recipe, and where one word switches to it a row in `methods`.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from keel.core.artifacts import Artifact
from keel.core.config import to_yaml
from keel.core.errors import KeelError
from keel.core.events import EventLog, plain
from keel.core.files import RunLock, atomic_write_json, atomic_write_text
from keel.core.progress import Progress
from keel.report.html import write_report
from keel.stages.before import check_functions, check_libraries, run_folder, settle_threads, within_context
from keel.stages.context import Observer, Run, unobserved
from keel.stages.paths import locate
from keel.stages.recipe import Recipe
from keel.stages.roads.best_of import reject
from keel.stages.roads.evaluation import against_sft
from keel.stages.roads.feedback import ai_judge, constitute
from keel.stages.roads.offline import prefer
from keel.stages.roads.online import Optimisation
from keel.stages.roads.rounds import prefer_after, prefer_in_rounds, reinforce
from keel.stages.roads.start import compare, fine_tune, model_reward
from keel.stages.roads.work import Work, required
from keel.stages.sections.sampling import Sampling
from keel.stages.summary import Made, summarise
from keel.stages.trackers.follow import tracking


def run(
    recipe: Recipe,
    directory: Path,
    progress: Progress,
    *,
    only: str | None = None,
    reuse: Sequence[Path] = (),
    recipe_folder: Path = Path(),
    observe: Observer = unobserved,
) -> dict[str, Any]:
    """Run a recipe in `directory` up to and including the stage `only` (None: all), and return the summary.

    Finished stages of the run folders `reuse` are taken over where their inputs and settings are the same. `observe`
    sees every rollout of RL; what it learns stays with it.

    Finished stages are reused, an interrupted one resumes from its last checkpoint. Raises ArtifactError when another
    process works in the folder.
    """
    recipe = locate(recipe, recipe_folder)
    with RunLock(directory):
        recipe = within_context(recipe, progress)
        threads = settle_threads(recipe, directory)
        torch.set_num_threads(threads)
        atomic_write_text(directory / "recipe.yaml", to_yaml(recipe))
        context = Run(
            directory=directory,
            seed=recipe.seed,
            events=EventLog(directory / "events.jsonl"),
            progress=progress,
            checkpoint_every_seconds=recipe.checkpoint.every_seconds,
            recipe_folder=recipe_folder,
            thresholds=recipe.thresholds,
            observe=observe,
            reuse=[run_folder(other) for other in reuse],
        )
        begun = time.monotonic()
        try:
            with tracking(recipe, directory, context.events, progress):
                made = run_stages(recipe, context, only)
        except KeelError:
            if context.events.path.is_file():  # a run that was refused or broke off is one to look at
                with suppress(KeelError):  # on a full disk there is no page, and the first message is the one to read
                    write_report(directory)
            raise
        summary = plain(summarise(recipe, made, time.monotonic() - begun, threads))
        atomic_write_json(directory / "summary.json", summary)
        write_report(directory)
        return summary


def run_stages(recipe: Recipe, context: Run, only: str | None) -> Made:
    """Every stage in order, each working on what the earlier ones made."""
    check_functions(recipe, context.recipe_folder, only)
    check_libraries(recipe)
    work = Work.begin(context, recipe)
    made = work.made

    if recipe.feedback is not None and only != "sft":
        ai_judge(work)  # first, so that a judge that is refused costs no training
    if recipe.sft is not None and recipe.data.demonstrations is not None:
        fine_tune(work, recipe.sft)
    if only == "sft":
        return made

    if recipe.constitution is not None:
        constitute(work, recipe.constitution)
    if recipe.learns_from_comparisons or (recipe.feedback is not None and recipe.feedback.pairs is not None):
        compare(work)
    if recipe.reward is not None:
        model_reward(work, recipe.reward)
    if only == "reward":
        return made

    policy, section = train(work, only)
    if only in (None, "evaluate") and recipe.evaluate is not None and section is not None:
        n = recipe.best_of.n if recipe.best_of and recipe.best_of.algorithm == "best_of_n" else 1
        made.evaluate = against_sft(work, recipe.evaluate, section, policy, n=n)
    return made


def train(work: Work, only: str | None) -> tuple[Artifact | None, Sampling | None]:
    """The policy that the method makes of SFT's (None: SFT's own), and the section that says how it samples."""
    recipe, rounds = work.recipe, work.recipe.rounds
    policy, section = None, None
    if recipe.ppo is not None:
        rl, section = Optimisation(work, recipe.ppo), recipe.ppo
        rl.gate()
        policy = reinforce(work, rl, rounds) if rounds else rl.once()
    if recipe.prefer is not None and only != "ppo":
        section = recipe.prefer
        if policy is not None:
            policy = prefer_after(work, recipe.prefer, required(rounds), policy)
        elif rounds is not None and (rounds.count > 1 or recipe.prefer.pairs == "fresh"):
            policy = prefer_in_rounds(work, recipe.prefer, rounds)
        else:
            policy = prefer(work, recipe.prefer)
    if recipe.best_of is not None:
        section = recipe.best_of
        policy = reject(work, recipe.best_of) if recipe.best_of.algorithm == "rejection" else None
    if section is None and recipe.constitution is not None:
        policy, section = work.made.sft, recipe.constitution
    return policy, section
