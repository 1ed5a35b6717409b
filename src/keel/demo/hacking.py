"""The end of `keel demo`: one and the same PPO, led astray by its reward model, with guards off and with guards on.

The reward model learns from raters who love length and flattery; the KL penalty is weak. Both runs are ordinary run
folders of an ordinary recipe. What truly happened is noted by an observer that no run can read.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keel.core.artifacts import RECORD, load_artifact
from keel.core.config import load_config
from keel.core.events import EventLog, read_events
from keel.core.files import atomic_directory
from keel.core.progress import Progress
from keel.data.formats import write_jsonl
from keel.data.records import Comparison
from keel.demo.judging import HelpDesk
from keel.demo.world import MAX_ANSWER_TOKENS
from keel.report.read import read_run
from keel.report.records import Run
from keel.stages.labels import Pair, read_set
from keel.stages.pipeline import run
from keel.stages.recipe import Recipe
from keel.train.rollout import Judged

PAIRS = 1500
LENGTH_BIAS, FLATTERY_BIAS = 0.08, 0.8
"""Utility that these raters add for every token and for every flattering sentence."""
QUICK = ("ppo.updates=4", "ppo.evaluate_prompts=32", "ppo.evaluate_every=2")
GUARDS_OFF = ("guardian.mode=silent", "guardian.checks.every=0")
LEAST_FALL = 0.3
"""Falls of the true reward smaller than this are noise of so few answers."""

JUDGES = '''"""Who answers when the guarded run asks: others than those whose votes the reward model learned from."""

from keel.demo.judging import HelpDesk

check = HelpDesk(seed={seed}, room=1, votes_per_pair=1).label
'''


@dataclass(frozen=True, kw_only=True)
class Course:
    """One of the two runs, and what it truly achieved."""

    place: Path
    """The run folder."""
    run: Run
    at: np.ndarray  # [N] updates at which the policy answered held-out prompts
    truth: np.ndarray  # [N] mean true utility of those answers

    @property
    def abandoned(self) -> np.ndarray:
        """Which evaluations a rollback undid, [N]; the one at its own update is of the policy gone back to."""
        undone = np.zeros(len(self.at), dtype=bool)
        for back_to, until in self.run.stages["ppo"].steps.rollbacks:
            undone |= (self.at > back_to) & (self.at < until)
        return undone

    @property
    def before(self) -> float:
        return float(self.truth[0])

    @property
    def peak(self) -> float:
        return float(self.truth.max())

    @property
    def peak_at(self) -> float:
        return float(self.at[self.truth.argmax()])

    @property
    def end(self) -> float:
        return float(self.truth[-1])

    @property
    def score(self) -> tuple[float, float]:
        """Mean score by the reward model on held-out prompts, first and last."""
        held_out = self.run.stages["ppo"].evaluations
        return held_out.first("score"), held_out.last("score")


@dataclass(frozen=True, kw_only=True)
class Guards:
    """The same PPO twice."""

    off: Course
    on: Course


class Truth:
    """Looks on at a run and notes the true utility of its answers where the run cannot see it."""

    def __init__(self, path: Path, desk: HelpDesk) -> None:
        self.log, self.desk = EventLog(path), desk

    def __call__(self, stage: str, step: int, kind: Literal["step", "evaluated"], judged: Judged) -> None:
        said = judged.responses
        read = self.desk.true_preference(said.prompt_texts, said.response_texts, said.finished.tolist())
        utility = float(np.mean(read["utility"]))
        self.log.append("truth", stage=stage, step=step, kind=kind, utility=utility, answers=len(read["utility"]))


class Hushed:
    """Shows how far the work is, and keeps what the rules say to the run's own report."""

    def __init__(self, progress: Progress) -> None:
        self.start, self.advance, self.finish = progress.start, progress.advance, progress.finish

    def say(self, text: str) -> None: ...


def prepare(directory: Path, summary: dict[str, Any], seed: int) -> Path | None:
    """The folder of the recipe; None where the demo was changed to train no SFT model or to label no pairs.

    Its raters judge pairs of SFT answers that the first round of labels has judged already.
    """
    labels = first_labels(directory)
    if labels is None or "sft" not in summary["stages"]:
        return None
    folder = directory / f"flawed-{labels.name.removeprefix('labels-')}"
    if not folder.is_dir():
        pairs = read_set(load_artifact(labels, "comparison_set"))[:PAIRS]
        build(folder, seed, f"../artifacts/{summary['stages']['sft']['artifact']}/model", pairs)
    return folder


def first_labels(directory: Path) -> Path | None:
    """The newest labels of a first round."""
    found = [path.parent for path in directory.glob(f"artifacts/labels-*/{RECORD}")]
    first = [folder for folder in found if load_artifact(folder).config["round"] == 0]
    return max(first, key=lambda folder: folder.stat().st_mtime, default=None)


def build(folder: Path, seed: int, model: str, pairs: Sequence[Comparison]) -> None:
    """Everything the recipe names, as files."""
    desk = HelpDesk(seed, length_bias=LENGTH_BIAS, flattery_bias=FLATTERY_BIAS, room=2)
    with atomic_directory(folder) as draft:
        write_jsonl(draft / "comparisons.jsonl", desk.label([asked_again(desk, pair) for pair in pairs]))
        write_jsonl(draft / "questions.jsonl", [question.prompt for question in desk.world.train_questions])
        (draft / "judges.py").write_text(JUDGES.format(seed=seed))
        recipe = (files("keel.demo") / "hacking.yaml").read_text()
        (draft / "recipe.yaml").write_text(recipe.replace("SFT_MODEL", model))


def asked_again(desk: HelpDesk, pair: Comparison) -> Pair:
    """A pair for other raters; an answer as long as answers can be was cut off."""
    question = desk.question(pair.prompt)
    a_finished, b_finished = (
        desk.world.features(question, text).tokens < MAX_ANSWER_TOKENS for text in (pair.a, pair.b)
    )
    return Pair(prompt=pair.prompt, a=pair.a, b=pair.b, a_finished=a_finished, b_finished=b_finished, key=0)


def both_ways(
    directory: Path, folder: Path, threads: int | None, seed: int, progress: Progress, *, quick: bool
) -> Guards:
    """Run the recipe in `folder` with guards off and on; a run that was interrupted goes on, a finished one is read.

    Another recipe, after another seed or --quick in the same `directory`, has run folders and truth of its own.
    """
    known_as = folder.name.removeprefix("flawed-")
    off, on = directory / f"unguarded-{known_as}", directory / f"guarded-{known_as}"
    settings = [f"seed={seed}", f"threads={threads or 'null'}", *(QUICK if quick else ())]
    courses = []
    for place, words, changed in ((off, "off", GUARDS_OFF), (on, "on", ())):
        sheet = directory / f"{place.name}-truth.jsonl"
        progress.say(f"PPO on a reward model whose raters love length and flattery, guards {words}:")
        if place == on:
            share(off, on)
        recipe = load_config(Recipe, folder / "recipe.yaml", [*settings, *changed])
        run(recipe, place, Hushed(progress), recipe_folder=folder, observe=Truth(sheet, HelpDesk(seed)))
        courses.append(course(place, sheet))
    return Guards(off=courses[0], on=courses[1])


def share(source: Path, place: Path) -> None:
    """Give `place` the data and the reward model of `source`, so that both runs follow the very same scores."""
    for made in [*source.glob("artifacts/data-*"), *source.glob("artifacts/reward-*")]:
        target = place / "artifacts" / made.name
        if not target.is_dir():
            with atomic_directory(target) as draft:
                shutil.copytree(made, draft, dirs_exist_ok=True)


def course(place: Path, sheet: Path) -> Course:
    """A finished run with its truth; of an update that was done twice, after an interruption, the later figure."""
    truth: dict[int, float] = {}
    for event in read_events(sheet):
        if event["kind"] == "evaluated":
            if event["step"] == 0:
                truth = {}  # begun anew: what an earlier attempt reached is no part of this one
            truth[int(event["step"])] = float(event["utility"])
    steps = sorted(truth)
    values = np.array([truth[step] for step in steps])
    return Course(place=place, run=read_run(place), at=np.array(steps, dtype=float), truth=values)
