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
    kl_runaway_updates: int = Field(4, ge=1)
    """Updates within which a rise of the KL is measured. This and all below: keel's own lines, from the worlds of
    docs/guardian.md, where some seeds set them and the others measured them."""
    kl_runaway_watch: float = Field(1.2, gt=0)
    """Rise of the KL in nats per sequence within those updates that is worth a look."""
    kl_runaway_act: float = Field(2.0, gt=0)
    """Rise that is a sign of hacking."""
    kl_runaway_ratio: float = Field(1.5, ge=1)
    """A rise counts only where the KL is at least so many times what it was."""
    kl_faster: float = Field(1.5, ge=1)
    """And only where it rises so many times faster than it ever did before."""
    kl_yield: float = Field(0.7, ge=0)
    """And only where a nat buys less than this share of the score that nats bought before."""
    ref_perplexity_watch: float = Field(0.08, gt=0)
    """Rise of the reference's perplexity on samples above its lowest, as a share, that is worth a look."""
    ref_perplexity_act: float = Field(0.12, gt=0)
    """Rise that is a sign of hacking."""
    unseen_watch: float = Field(0.012, gt=0, le=1)
    """Rise of the share of token triples the reward model never met that is worth a look."""
    unseen_act: float = Field(0.025, gt=0, le=1)
    """Rise that is a sign of hacking, where the share has at least trebled too."""
    score_spread_watch: float = Field(0.4, gt=0)
    """Rise of the scores' deviation above its lowest, as a share, that is worth a look."""
    score_spread_act: float = Field(0.8, gt=0)
    """Rise that is a sign of hacking."""
    disagreement_watch: float = Field(1.5, gt=1)
    """Ratio of an ensemble's disagreement to its lowest that is worth a look."""
    disagreement_act: float = Field(2.0, gt=1)
    """Ratio that is a sign of hacking."""
    length_watch: float = Field(1.3, gt=1)
    """Ratio of response length to that at the start that is worth a look; a healthy run may get there."""
    length_act: float = Field(1.5, gt=1)
    """Ratio that is a sign of hacking, where reward follows length."""
    length_correlation: float = Field(0.2, ge=-1, le=1)
    """Correlation of length and reward from which reward follows length."""
    repetition_watch: float = Field(0.03, gt=0, le=1)
    """Rise of the share of repeated token triples that is worth a look."""
    repetition_act: float = Field(0.06, gt=0, le=1)
    """Rise that is a sign of hacking."""
    stock_phrase_watch: float = Field(0.6, gt=0, le=1)
    """Share of responses with one and the same phrase that is worth a look."""
    self_bleu_watch: float = Field(0.75, gt=0, le=1)
    """Self-BLEU across prompts that is worth a look."""
    self_bleu_act: float = Field(0.9, gt=0, le=1)
    """Self-BLEU from which answers have collapsed into one."""
    unique_watch: float = Field(0.6, ge=0, le=1)
    """Share of different responses below which answers grow alike."""
    unique_act: float = Field(0.3, ge=0, le=1)
    """Share below which they have collapsed."""
    unfinished_watch: float = Field(0.15, gt=0, le=1)
    """Fall of the share of responses that end by themselves that is worth a look."""
    unfinished_act: float = Field(0.3, gt=0, le=1)
    """Fall that is a sign of hacking."""
    human_drop_watch: float = Field(0.2, gt=0, lt=1)
    """p-value of a fall of the judges' win rate that is worth a look."""
    human_looks: int = Field(12, ge=2)
    """Checks that the chance of a false alarm is meant for, all together."""
    human_drop_act: float = Field(0.02, gt=0, lt=1)
    """p-value, over all looks together, from which the fall is taken for real."""
    human_flat_verdicts: int = Field(60, ge=1)
    """Newest verdicts that must show a gain while the score rises; the fewest that reward_agreement is read from."""
    human_recent_updates: int = Field(12, ge=1)
    """Updates for which verdicts on a policy say something of those that follow it."""
    human_least_gain: float = Field(0.6, ge=0.5, lt=1)
    """Win rate that a gain worth the name has at least."""
    reward_agreement_watch: float = Field(0.55, ge=0, le=1)
    """Share of fresh pairs on which reward model and judges agree below which it no longer knows the policy's texts."""
    reward_bias_watch: float = Field(0.035, gt=0)
    """Nats a verdict by which judges' verdicts are told better with prices on the form of texts than by the score."""
    reward_bias_act: float = Field(0.07, gt=0)
    """Nats a verdict from which the reward is corrected."""
    update_kl_watch: float = Field(0.05, gt=0)
    """Nats per token that single updates may move the policy."""
    clip_fraction_watch: float = Field(0.3, gt=0, le=1)
    """Share of clipped ratios that updates may have."""
    stalled_updates: int = Field(20, ge=3)
    """Updates without movement or gain from which exploration has stalled."""
    value_updates: int = Field(10, ge=1)
    """Updates over which the critic is judged, after as many to learn."""
    explained_variance_watch: float = Field(-0.5, le=1)
    """Explained variance of returns below which the critic has failed."""
    prompt_epochs_watch: float = Field(4.0, gt=0)
    """Times that prompts were seen from which their exhaustion is looked for."""

    @model_validator(mode="after")
    def _in_order(self) -> "Thresholds":
        ladders = (
            ("kl_stalled_per_token", "kl_watch_per_token", "kl_act_per_token"),
            ("accuracy_fail", "accuracy_warn", "accuracy_leak", "accuracy_suspicious"),
            ("score_std_stop", "score_std_watch"),
            ("agreement_block", "agreement_scale"),
            ("kl_runaway_watch", "kl_runaway_act"),
            ("ref_perplexity_watch", "ref_perplexity_act"),
            ("unseen_watch", "unseen_act"),
            ("score_spread_watch", "score_spread_act"),
            ("disagreement_watch", "disagreement_act"),
            ("length_watch", "length_act"),
            ("repetition_watch", "repetition_act"),
            ("self_bleu_watch", "self_bleu_act"),
            ("unique_act", "unique_watch"),
            ("unfinished_watch", "unfinished_act"),
            ("human_drop_act", "human_drop_watch"),
            ("reward_bias_watch", "reward_bias_act"),
        )
        for names in ladders:
            values = [getattr(self, name) for name in names]
            if values != sorted(values):
                found = ", ".join(f"{name}={value:g}" for name, value in zip(names, values, strict=True))
                raise ValueError(f"the lines must rise in this order: {found}")
        return self


DEFAULT = Thresholds()
