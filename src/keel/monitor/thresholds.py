"""Where the lines are drawn, each with its source, all of them settings."""

from pydantic import Field, model_validator

from keel.core.config import Config


class Thresholds(Config):
    """Bands for a run's figures.

    Sources: A is "RLHF in Depth", B the "RLHF Guide", the two practitioners' guides that keel started from. Neither
    names the unit of its KL figures; measured on a 40-token story model, a healthy run sits at 0.16 to 0.24 nats per
    token and 6 to 10 per sequence, a hacked one at 1.2 to 1.4 and near 55. So the small bands are per token and the
    20-nat line is per sequence. Long answers need a higher line.
    """

    kl_stalled_per_token: float = Field(0.1, ge=0)
    """Nats per token below which the policy hardly moves; counts only while the reward is flat (A, B)."""
    kl_watch_per_token: float = Field(0.5, ge=0)
    """Nats per token where the healthy band ends (A: good below 0.5; B: 0.1 to 0.5)."""
    kl_act_per_token: float = Field(2.0, ge=0)
    """Nats per token above which the KL weight should be raised (A)."""
    kl_stop_per_sequence: float = Field(20.0, ge=0)
    """Nats per sequence beyond which the policy should be rolled back (A)."""
    accuracy_fail: float = Field(0.60, ge=0, le=1)
    """Held-out accuracy of a reward model below which the labels are to blame first (B)."""
    accuracy_warn: float = Field(0.65, ge=0, le=1)
    """Below: not converged, or noisy labels (A)."""
    accuracy_leak: float = Field(0.80, ge=0, le=1)
    """Above what human preferences usually allow (A: typically .70 to .80; raters agree on .60 to .70 of pairs)."""
    accuracy_suspicious: float = Field(0.90, ge=0, le=1)
    """Above: memorised, or the preference is trivial (A)."""
    score_std_stop: float = Field(1e-3, ge=0)
    """Standard deviation of scores at or below which a reward model has collapsed. Two responses 0.001 apart are
    preferred .50025 to .49975: no signal (A: "always predicts the same reward")."""
    score_std_watch: float = Field(1e-2, ge=0)
    """Standard deviation of scores below which a reward model hardly tells responses apart; keel's own line."""
    score_saturated: float = Field(100.0, gt=0)
    """Size of a score beyond which a reward model has saturated (A)."""
    agreement_block: float = Field(0.4, ge=-1, le=1)
    """Kappa or alpha below which a reward model would train on noise (B)."""
    agreement_scale: float = Field(0.6, ge=-1, le=1)
    """Kappa or alpha from which annotation may be scaled up (B)."""

    @model_validator(mode="after")
    def _in_order(self) -> "Thresholds":
        ladders = (
            ("kl_stalled_per_token", "kl_watch_per_token", "kl_act_per_token"),
            ("accuracy_fail", "accuracy_warn", "accuracy_leak", "accuracy_suspicious"),
            ("score_std_stop", "score_std_watch"),
            ("agreement_block", "agreement_scale"),
        )
        for names in ladders:
            values = [getattr(self, name) for name in names]
            if values != sorted(values):
                found = ", ".join(f"{name}={value:g}" for name, value in zip(names, values, strict=True))
                raise ValueError(f"the lines must rise in this order: {found}")
        return self


DEFAULT = Thresholds()
