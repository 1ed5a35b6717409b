"""From the reward model of a finished run to what raters judge next: the open pairs of a project get priorities.

with Store.open("studio.sqlite") as store:
    prioritise(store, "help", Path("runs/help"), count=100)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from keel.annotate.selection import priorities
from keel.core.artifacts import Artifact, load_artifact
from keel.core.config import load_config
from keel.core.errors import ConfigError, ConflictError
from keel.data.records import Comparison
from keel.evaluate.reward_report import score_pairs
from keel.models.load import load_tokenizer
from keel.stages.collect import project_of
from keel.stages.encode import Fitting
from keel.stages.pairs import pair_set
from keel.stages.promote import chosen
from keel.stages.recipe import Recipe
from keel.stages.reward import MODEL, load_scorer
from keel.stages.sections.reward import RewardConfig
from keel.stats.arrays import Floats
from keel.store.rows import Item
from keel.store.store import Store

Method = Literal["disagreement", "uncertainty"]


@dataclass(frozen=True, kw_only=True)
class Prioritised:
    """What was scored, and what comes first."""

    method: Method
    models: Sequence[Artifact]
    scored: int
    """Open pairs with a score."""
    too_long: int
    """Open pairs whose answers do not fit into the run's context; they have priority 0."""
    first: Sequence[Item]
    """Those put first, in order."""


def prioritise(
    store: Store,
    project_name: str,
    run: Path,
    *,
    count: int = 100,
    method: Method | None = None,
    diversity: float = 1.0,
    seed: int = 0,
    by: int | None = None,
) -> Prioritised:
    """Give `count` open pairs priorities from 1 down and all others 0, by the first reward model of a run.

    `method` None is disagreement for an ensemble and uncertainty for a single model. Nobody is kept waiting while pairs
    are scored; what was decided meanwhile does no harm.
    """
    if count < 1 or not 0 <= diversity < float("inf"):
        raise ConfigError(
            f"count={count}, diversity={diversity}: give a count of 1 or more and a diversity of 0 or more."
        )
    models = chosen(run, "reward")
    if method == "disagreement" and len(models) == 1:
        raise ConfigError(
            f"{run} has a single reward model, which cannot disagree with itself. Train an ensemble (reward.members: "
            "3), or choose the method uncertainty."
        )
    how: Method = method or ("uncertainty" if len(models) == 1 else "disagreement")
    with store.reading() as tx:
        project = project_of(tx, project_name)
        items = [item for item in tx.items.each(project.id, "pair") if item.state == "open"]
    if not items:
        raise ConflictError(f"{project_name} has no open pair, so there is nothing to put first.")
    differences, places = scored(items, load_config(Recipe, run / "recipe.yaml"), models)
    found = priorities(differences, count, method=how, diversity=diversity, seed=seed)
    values = dict.fromkeys((item.id for item in items), 0.0)
    values |= {items[place].id: float(value) for place, value in zip(places, found, strict=True)}
    first = sorted((item for item in items if values[item.id] > 0), key=lambda item: -values[item.id])
    with store.writing() as tx:
        tx.lock(project.id)
        tx.items.set_priority(values)
        details = {
            "method": how,
            "diversity": diversity,
            "first": len(first),
            "models": [model.id[:12] for model in models],
        }
        tx.audit.add("prioritise pairs", at=store.clock(), user_id=by, project_id=project.id, details=details)
    return Prioritised(
        method=how, models=models, scored=len(places), too_long=len(items) - len(places), first=tuple(first)
    )


def scored(items: Sequence[Item], recipe: Recipe, models: Sequence[Artifact]) -> tuple[Floats, list[int]]:
    """Score of a less score of b by each model, [members, P], and the places in `items` of the P pairs that fit.

    One model is in memory at a time. Scores stay in their own unit, in which a difference is a logit.
    """
    config = recipe.reward or RewardConfig()
    records = [Comparison(item.prompt, item.a, item.b, 0.5, source=f"item {item.id}") for item in items]
    places = {record.source: place for place, record in enumerate(records)}
    # Members have one tokenizer.
    tokenizer = load_tokenizer(models[0].path / MODEL, trust_remote_code=recipe.model.trust_remote_code)
    kept = pair_set(records, "given", tokenizer, Fitting(max_tokens=recipe.data.max_tokens, policy="left"))
    rows = []
    for model in models:
        load_artifact(model.path, model.kind, verify=True)
        a, b = score_pairs(load_scorer(config, [model], recipe.model, config.micro_batch_tokens), kept.pairs)
        rows.append((a - b).double().numpy())
    return np.stack(rows), [places[record.source] for record in kept.records]
