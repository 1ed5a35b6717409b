"""Whether a learning rate is a customary one for what is trained."""

from keel.monitor.verdict import Figure, Verdict

SMALL_MODEL = 50_000_000
"""Parameters below which customary rates say little: small models bear, and need, far higher ones."""

CUSTOMARY = {
    # (stage, adapters): lowest and highest rate; sources A and B (REQUIREMENTS C3, C4), widened by a factor of two
    ("sft", False): (5e-6, 6e-5),
    ("sft", True): (5e-5, 1e-3),
    ("reward", False): (1.5e-6, 4e-5),
    ("reward", True): (5e-5, 1e-3),
    # (Rafailov et al. 2023; Zephyr and its QLoRA recipe), widened likewise
    ("prefer", False): (2.5e-7, 5e-6),
    ("prefer", True): (2.5e-6, 1e-4),
}


def learning_rate(stage: str, rate: float, *, lora: bool, num_parameters: int) -> Verdict:
    """A watch when adamw's `rate` for `stage` (a key of CUSTOMARY) is far from what is customary for its method."""
    low, high = CUSTOMARY[stage, lora]
    method = "LoRA" if lora else "full fine-tuning"
    figures: dict[str, Figure] = {
        "learning_rate": rate,
        "customary_low": low,
        "customary_high": high,
        "num_parameters": num_parameters,
    }
    if num_parameters < SMALL_MODEL or low <= rate <= high:
        return Verdict("ok", "learning_rate", f"The learning rate is {rate:g}.", figures)
    return Verdict(
        "watch",
        "learning_rate",
        f"The learning rate {rate:g} is outside the customary {low:g} to {high:g} of {method}.",
        figures,
        f"Check {stage}.optim.learning_rate; full fine-tuning and LoRA need rates about ten times apart.",
    )
