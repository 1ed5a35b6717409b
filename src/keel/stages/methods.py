"""What the word `method` means: which sections of a recipe run, and how. No torch here: the command line reads it.

A new method that existing stages can run is a row here and a word in `MethodName`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from keel.core.config import Config

if TYPE_CHECKING:
    from keel.stages.recipe import Recipe

MethodName = Literal[
    "ppo", "rloo", "grpo", "reinforce_pp", "online_dpo",
    "dpo", "ipo", "simpo", "orpo", "kto",
    "iterative_dpo", "hybrid", "best_of_n", "rejection",
]  # fmt: skip

TRAINERS = ("ppo", "prefer", "best_of")
"""The sections that a method chooses among, in the order in which they run."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """Which of `TRAINERS` run, and what the word changes in the last of them."""

    says: str
    """What it does, in a line."""
    runs: tuple[str, ...]
    settings: Mapping[str, Any]
    """Settings of the last section that the word decides."""
    rounds: bool = False
    """Whether `rounds` goes on past its first comparisons."""
    needs: Mapping[str, str] = field(default_factory=dict)
    """Further sections that must be there, each with an example of three lines at most."""


EXAMPLES = {
    "ppo": "ppo:\n  updates: 100\n  optim: {learning_rate: 1.0e-5}",
    "prefer": "prefer:\n  batch: 32\n  optim: {learning_rate: 1.0e-6}",
    "best_of": "best_of:\n  n: 8\n  max_new_tokens: 64",
    "rounds": "rounds:\n  comparisons: 800\n  judge: reward",
}
JUDGED = {"rounds": EXAMPLES["rounds"]}


def online(word: str, says: str) -> Method:
    return Method(says=says, runs=("ppo",), settings={"algorithm": word}, rounds=True)


def offline(word: str, says: str) -> Method:
    return Method(says=says, runs=("prefer",), settings={"algorithm": word, "pairs": "data"})


METHODS: dict[str, Method] = {
    "ppo": online("ppo", "reinforcement learning with a critic"),
    "rloo": online("rloo", "reinforcement learning against the other samples of a prompt"),
    "grpo": online("grpo", "reinforcement learning in groups, normalised"),
    "reinforce_pp": online("reinforce_pp", "reinforcement learning against the mean of the batch"),
    "online_dpo": online("online_dpo", "pairs from the policy as it is, judged by the rewards, every update"),
    "dpo": offline("dpo", "comparisons directly, no reward model"),
    "ipo": offline("ipo", "comparisons directly, towards a fixed gap"),
    "simpo": offline("simpo", "comparisons directly, per token and without a reference"),
    "orpo": offline("orpo", "comparisons directly, together with fine-tuning"),
    "kto": offline("kto", "thumbs up and down, unpaired"),
    "iterative_dpo": Method(
        says="rounds of fresh pairs, judged, and prefer on them",
        runs=("prefer",),
        settings={},
        rounds=True,
        needs=JUDGED,
    ),
    "hybrid": Method(
        says="ppo, then prefer on fresh pairs of what ppo made",
        runs=("ppo", "prefer"),
        settings={"pairs": "fresh"},
        rounds=True,
        needs=JUDGED,
    ),
    "best_of_n": Method(
        says="nothing is trained: the best of n samples, compared with one",
        runs=("best_of",),
        settings={"algorithm": "best_of_n"},
    ),
    "rejection": Method(
        says="fine-tuning on the best of n samples", runs=("best_of",), settings={"algorithm": "rejection"}
    ),
}


def settled(recipe: "Recipe") -> "Recipe":
    """The recipe with only the sections that its method runs; as it is where it names none.

    Rewards that only `ppo` lists go on to the sections that judge by them. Raises ValueError for a missing section.
    """
    recipe = with_rewards_of_ppo(recipe)
    if recipe.method is None:
        return recipe
    method = METHODS[recipe.method]
    examples = {**{name: EXAMPLES[name] for name in method.runs}, **method.needs}
    for name, example in examples.items():
        if getattr(recipe, name) is None:
            raise ValueError(
                f"method: {recipe.method} ({method.says}) needs a section {name}, which this recipe lacks. Add it, for "
                f"example:\n{example}"
            )
    last = method.runs[-1]
    changes: dict[str, Any] = {name: None for name in TRAINERS if name not in method.runs}
    changes[last] = changed(last, getattr(recipe, last), method.settings)
    rounds = recipe.rounds
    # A reward model cannot be refreshed by its own judgments: rounds that it judges are for prefer alone.
    if rounds is not None and (not method.rounds or ("ppo" in method.runs and rounds.judge == "reward")):
        asked = "rounds" in method.needs or (rounds.first_comparisons and recipe.data.comparisons is None)
        changes["rounds"] = rounds.model_copy(update={"count": 1}) if asked else None
    return recipe.model_copy(update=changes)


def with_rewards_of_ppo(recipe: "Recipe") -> "Recipe":
    """The recipe whose other judging sections take `ppo.rewards`, where they name none themselves."""
    if recipe.ppo is None:
        return recipe
    judging = {name: getattr(recipe, name) for name in ("rounds", "best_of")}
    changes = {
        name: section.model_copy(update={"rewards": recipe.ppo.rewards})
        for name, section in judging.items()
        if section is not None and "rewards" not in section.model_fields_set
    }
    return recipe.model_copy(update=changes) if changes else recipe


def changed(name: str, section: Config, settings: Mapping[str, Any]) -> Config:
    """The section with these settings, checked as if they had been written there."""
    try:
        return type(section).model_validate({**section.model_dump(exclude_unset=True), **settings})
    except ValidationError as error:
        raise ValueError(f"{name}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error


def method_of(recipe: "Recipe") -> str | None:
    """The word for what the recipe's sections do; None where nothing learns from preferences or rewards."""
    if recipe.method is not None:
        return recipe.method
    if recipe.ppo and recipe.prefer:
        return "hybrid"
    if recipe.prefer and recipe.rounds and recipe.rounds.count > 1:
        return "iterative_dpo"
    section = recipe.ppo or recipe.prefer or recipe.best_of
    return section.algorithm if section is not None else None
