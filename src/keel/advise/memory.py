"""Whether a method fits into memory, by the bytes a parameter that docs/memory.md counts."""

from dataclasses import dataclass
from typing import Literal

from keel.advise.facts import Facts

Kind = Literal["pairs", "group", "critic", "sample"]
"""What a method holds: the policy alone (SFT, DPO and kin, whose reference has spoken before); policy, reference and
judge; these and a critic; or models that are only sampled from."""

USABLE = 0.8
"""Share of the device's memory that weights, gradients and optimiser state may take; activations need the rest."""
ADAPTERS = 0.1
"""Bytes for each parameter of the trunk that adapters of rank 16 need, optimiser state included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """One way of holding a model, from the plainest to the smallest."""

    name: str
    dtype: Literal["float32", "bfloat16"]
    lora: bool
    quantise: bool
    adamw8bit: bool
    trained: float
    """Bytes a parameter of a network that trains."""
    frozen: float
    """Bytes a parameter of a network that only runs."""

    @property
    def checkpointing(self) -> bool:
        return self.adamw8bit or self.lora


RUNGS = (
    Rung(
        name="all weights, float32", dtype="float32", lora=False, quantise=False, adamw8bit=False, trained=16, frozen=4
    ),
    Rung(
        name="all weights, bfloat16",
        dtype="bfloat16",
        lora=False,
        quantise=False,
        adamw8bit=False,
        trained=14,
        frozen=2,
    ),
    Rung(
        name="all weights, bfloat16, 8-bit AdamW",
        dtype="bfloat16",
        lora=False,
        quantise=False,
        adamw8bit=True,
        trained=8,
        frozen=2,
    ),
    Rung(
        name="LoRA, bfloat16",
        dtype="bfloat16",
        lora=True,
        quantise=False,
        adamw8bit=False,
        trained=2 + ADAPTERS,
        frozen=2,
    ),
    Rung(
        name="LoRA on 4-bit weights",
        dtype="bfloat16",
        lora=True,
        quantise=True,
        adamw8bit=False,
        trained=0.62 + ADAPTERS,
        frozen=0.62,
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """The plainest way in which a method fits, or the smallest where none does."""

    rung: Rung
    gib: float
    """For weights, gradients and optimiser state, over all networks of the method."""
    device_gib: float
    """0 where the memory is not known; then everything fits."""
    one_trunk: bool

    @property
    def fits(self) -> bool:
        return not self.device_gib or self.gib <= USABLE * self.device_gib

    @property
    def text(self) -> str:
        held = f"{self.rung.name}{', one trunk for all roles' if self.one_trunk else ''}: {self.gib:.2g} GiB"
        return f"{held} of {self.device_gib:.4g} GiB" if self.device_gib else held


def bytes_a_parameter(kind: Kind, rung: Rung, *, learned_judge: bool) -> float:
    """Of all networks together. With LoRA they share one trunk, and the reference is the trunk with adapters off."""
    if kind == "sample":
        return rung.frozen * (2 if learned_judge and not rung.lora else 1)
    if kind == "pairs" or rung.lora:
        return rung.trained
    networks = rung.trained + rung.frozen * (2 if learned_judge else 1)
    return networks + (rung.trained if kind == "critic" else 0)


def fit(facts: Facts, kind: Kind, *, learned_judge: bool) -> Fit:
    """The first rung on which everything fits; `learned_judge` says whether a reward model is held too."""
    device = facts.hardware.device_gib
    # In float32 what is small anyway, and on CPUs, where few compute faster in bfloat16.
    rungs = RUNGS if not facts.hardware.gpus or facts.model.parameters < 2e8 else RUNGS[1:]
    found = None
    for rung in rungs:
        gib = facts.model.parameters * bytes_a_parameter(kind, rung, learned_judge=learned_judge) / 2**30
        shared = rung.lora and kind in ("group", "critic") and learned_judge
        found = Fit(rung=rung, gib=gib, device_gib=device, one_trunk=shared)
        if found.fits:
            break
    assert found is not None
    return found


def largest(facts: Facts) -> float:
    """Parameters of the largest model that can be trained here at all, with LoRA on 4-bit weights."""
    return USABLE * facts.hardware.device_gib * 2**30 / RUNGS[-1].trained
