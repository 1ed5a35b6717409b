"""Facts to be advised on: one GPU of 80 GiB, a model of half a billion parameters, and what a test adds."""

from math import nan
from typing import Any

from keel.advise.choose import Advice, advise
from keel.advise.facts import Agreement, Data, Facts, Hardware, Model

ONE_GPU = Hardware(gpus=1, gpu_gib=80.0, ram_gib=64.0, cores=8, source="test")
EIGHT_GPUS = Hardware(gpus=8, gpu_gib=80.0, ram_gib=512.0, cores=64, source="test")
LAPTOP = Hardware(gpus=0, gpu_gib=0.0, ram_gib=16.0, cores=4, source="test")
PEOPLE = frozenset({"people"})


def agreeing(alpha: float, agreement: float = nan, votes: float = 3.0) -> Agreement:
    return Agreement(
        alpha=alpha,
        low=alpha - 0.03,
        high=alpha + 0.03,
        agreement=agreement,
        raters=3,
        votes_per_item=votes,
        measured=True,
    )


def facts(**changes: Any) -> Facts:
    """Data's fields may be given directly."""
    named = {name: changes.pop(name) for name in list(changes) if name in Data.__dataclass_fields__}
    size = changes.pop("parameters", 5e8)
    base: dict[str, Any] = {
        "hardware": ONE_GPU,
        "model": Model(path="models/mine", parameters=size, chat=changes.pop("chat", True), source="test"),
        "data": Data(**named),
        "rewards": PEOPLE,
        "goal": "quality",
        "scope": "general",
        "priority": "stability",
        "fresh": False,
    }
    return Facts(**{**base, **changes})


def advised(**changes: Any) -> Advice:
    return advise(facts(**changes))
