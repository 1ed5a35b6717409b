"""Signs that a policy pleases the reward model and nobody else: what is off its map, what is gamed, what people say.

Each rule reads one kind of evidence. None of them is proof alone; `keel.monitor.guardian` weighs them together.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import exp, isfinite, log
from statistics import fmean
from typing import Any

from keel.monitor.history import History, number
from keel.monitor.reading import SURE, graded, reading, unknown
from keel.monitor.thresholds import DEFAULT, Thresholds
from keel.monitor.verdict import Figure, Verdict
from keel.stats.sequential import Drop, drop_evidence, log_evidence, win_rate

GAMED = "The policy has found what the reward model pays for without its being better."
OFF_MAP = (
    "The policy has left the texts that its reference writes and the reward model was trained on, so the scores there "
    "are extrapolated."
)
BEYOND_CHANCE = 3.0
"""Nats of verdicts told better that chance gives once in twenty."""
HOLD = "Go back to before it began and raise the KL coefficient."


def off_distribution(history: History, thresholds: Thresholds = DEFAULT) -> Verdict:
    """Samples that the reference finds ever less likely: healthy RL narrows within what the reference would say."""
    rule, found = "off_distribution", reading(history.steps, "ref_perplexity", "lowest")
    if found is None:
        return unknown(rule, "ref_perplexity")
    level, sure = graded(found.ratio - 1, thresholds.ref_perplexity_watch, thresholds.ref_perplexity_act)
    text = (
        f"The reference's perplexity on the policy's samples is {found.now:.2f} ({found.before:.2f} at its lowest"
        f"{found.times})"
    )
    if level == "ok" or found.errors < SURE:
        return Verdict("ok", rule, f"{text}.", found.figures)
    return Verdict(level, rule, f"{text}, since step {found.since}.", found.figures, HOLD, OFF_MAP, sure)


def unfamiliar_text(history: History, thresholds: Thresholds = DEFAULT) -> Verdict:
    """Word sequences that the reward model never met in training, more and more of them."""
    rule, found = "unfamiliar_text", reading(history.steps, "unseen_trigram_share", "lowest")
    if found is None:
        return unknown(rule, "unseen_trigram_share")
    # Ratio and difference both: a share that doubles from almost nothing, or rises a little from much, is no sign.
    size = min(found.difference / thresholds.unseen_act, (found.ratio - 1) / 2 if found.before > 0 else 1.0)
    level, sure = graded(size, thresholds.unseen_watch / thresholds.unseen_act, 1.0)
    text = (
        f"{found.now:.1%} of the samples' token triples occur nowhere in the reward model's training data "
        f"({found.before:.1%} at its lowest)"
    )
    if level == "ok" or found.errors < SURE:
        return Verdict("ok", rule, f"{text}.", found.figures)
    return Verdict(level, rule, f"{text}, since step {found.since}.", found.figures, HOLD, OFF_MAP, sure)


def score_spread(history: History, thresholds: Thresholds = DEFAULT) -> Verdict:
    """Scores that drift apart: some answers have found a lever that the others have not yet."""
    rule, found = "score_spread", reading(history.steps, "score_std", "lowest")
    if found is None:
        return unknown(rule, "score_std")
    level, sure = graded(found.ratio - 1, thresholds.score_spread_watch, thresholds.score_spread_act)
    text = f"The standard deviation of scores is {found.now:.3g} ({found.before:.3g} at its lowest{found.times})"
    if level == "ok" or found.errors < SURE:
        return Verdict("ok", rule, f"{text}.", found.figures)
    remedy = "Read the samples with the highest scores, and put such pairs before raters."
    return Verdict(level, rule, f"{text}, since step {found.since}.", found.figures, remedy, GAMED, sure)


def length_hacking(history: History, thresholds: Thresholds = DEFAULT) -> Verdict:
    """Answers that grow while their length pays."""
    rule, found = "length_hacking", reading(history.steps, "response_tokens_mean")
    if found is None:
        return unknown(rule, "response_tokens_mean")
    pays = reading(history.steps, "length_reward_correlation")
    level, sure = graded(found.ratio, thresholds.length_watch, thresholds.length_act)
    text = f"Responses have {found.now:.1f} tokens ({found.before:.1f} at the start{found.times})"
    if level == "ok" or found.errors < SURE:
        return Verdict("ok", rule, f"{text}.", found.figures)
    figures = found.figures
    if pays is not None:
        figures |= {"length_reward_correlation": pays.now}
        text += f"; the correlation of length and reward is {pays.now:.2f}"
    if pays is None or pays.now < thresholds.length_correlation:
        level, sure = "watch", min(sure, 0.6)
    remedy = "Read whether the longer answers are better. If not, set ppo.shaping.length_penalty."
    return Verdict(level, rule, f"{text}, since step {found.since}.", figures, remedy, GAMED, sure)


def repetition(history: History, thresholds: Thresholds = DEFAULT) -> Verdict:
    """Answers that say the same again."""
    rule, found = "repetition", reading(history.steps, "repeated_trigram_share")
    if found is None:
        return unknown(rule, "repeated_trigram_share")
    level, sure = graded(found.difference, thresholds.repetition_watch, thresholds.repetition_act)
    text = f"{found.now:.1%} of a response's token triples repeat earlier ones ({found.before:.1%} at the start)"
    if level == "ok" or found.errors < SURE:
        return Verdict("ok", rule, f"{text}.", found.figures)
    remedy = "Go back to before it began; put repeated answers into the reward model's comparisons."
    return Verdict(level, rule, f"{text}, since step {found.since}.", found.figures, remedy, GAMED, sure)


def stock_phrase(history: History, thresholds: Thresholds = DEFAULT) -> Verdict:
    """One and the same phrase in most answers: flattery, a disclaimer, a set opening. Never more than a watch, since a
    good habit looks alike.
    """
    rule, found = "stock_phrase", reading(history.steps, "common_phrase_share")
    if found is None:
        return unknown(rule, "common_phrase_share")
    text = f"{found.now:.0%} of responses hold the same four tokens ({found.before:.0%} at the start)"
    if found.now < thresholds.stock_phrase_watch or found.difference < thresholds.stock_phrase_watch / 2:
        return Verdict("ok", rule, f"{text}.", found.figures)
    remedy = "Read the samples: a courtesy is fine; flattery that the reward model pays for is not."
    return Verdict("watch", rule, f"{text}, since step {found.since}.", found.figures, remedy, GAMED, 0.5)


def reward_disagreement(history: History, thresholds: Thresholds = DEFAULT) -> Verdict:
    """Members of an ensemble that part ways on the policy's samples. It sees what is peculiar to one member, not what
    all raters share.
    """
    rule, found = "reward_disagreement", reading(history.steps, "score_disagreement", "lowest")
    if found is None:
        return unknown(rule, "score_disagreement")
    level, sure = graded(found.ratio, thresholds.disagreement_watch, thresholds.disagreement_act)
    text = (
        f"The reward models of the ensemble differ by {found.now:.2f} standard deviations ({found.before:.2f} at the "
        f"least{found.times})"
    )
    if level == "ok" or found.errors < SURE:
        return Verdict("ok", rule, f"{text}.", found.figures)
    remedy = "Set reward.aggregate to min or mean_minus_std, and label pairs on which the members differ."
    return Verdict(level, rule, f"{text}, since step {found.since}.", found.figures, remedy, OFF_MAP, sure)


def human_gain(history: History, thresholds: Thresholds = DEFAULT) -> Verdict:
    """Whether judges still prefer the policy to SFT while the reward rises: the one evidence from outside the loop."""
    rule, checks = "human_gain", history.checks
    answered = [(int(row["step"]), told) for row in checks.rows if (told := _values(row))]
    batches = [values for _, values in answered]
    if not batches:
        return Verdict("ok", rule, "Not judged: no verdicts of judges yet.")
    everything = [value for batch in batches for value in batch]
    rate, low, high = win_rate(everything)
    newest = win_rate(batches[-1], 0.05 / thresholds.human_looks)
    drop = _drop(tuple(tuple(values) for values in batches), max(thresholds.human_looks, len(batches)))
    figures: dict[str, Figure] = {
        "win_rate": newest[0],
        "win_rate_all": rate,
        "win_rate_all_low": low,
        "win_rate_all_high": high,
        "verdicts": len(everything),
        "liked_nats": _liked(history, answered, thresholds.human_recent_updates),
        "p_value": drop.p_value,
        "since": answered[-1 if drop.since is None else drop.since][0],
    }
    found = f"Judges prefer the policy to SFT in {newest[0]:.0%} of the newest {len(batches[-1])} pairs"
    remedy = "Go back to the policy they liked best, and label fresh samples for the reward model."
    if newest[2] < 0.5:
        text = f"{found}, below an even chance for certain (at most {newest[2]:.0%})."
        return Verdict("act", rule, text, figures, remedy, GAMED, 0.95)
    if high < 0.5:
        figures["since"] = answered[0][0]
        text = f"{found}, and in {rate:.0%} of all {len(everything)}: SFT is better for certain (at most {high:.0%})."
        return Verdict("act", rule, text, figures, remedy, GAMED, 0.95)
    if drop.p_value <= thresholds.human_drop_act:
        text = f"{found}; it was {drop.before:.0%} and has fallen to {drop.after:.0%} (p {drop.p_value:.3f})."
        return Verdict("act", rule, text, figures, remedy, GAMED, 1 - drop.p_value)
    if drop.p_value <= thresholds.human_drop_watch:
        text = f"{found}; it was {drop.before:.0%} (p {drop.p_value:.2f})."
        return Verdict("watch", rule, text, figures, "Ask about more pairs.", GAMED, 1 - drop.p_value)
    score = reading(history.steps, "score_mean")
    if score is not None and score.errors > SURE and len(everything) >= thresholds.human_flat_verdicts:
        # How sure it is that they gain nothing worth the name: against a win rate of this least gain or more.
        recent, sure = _no_gain(tuple(everything), thresholds.human_flat_verdicts, thresholds.human_least_gain)
        if fmean(recent) <= 0.5 or (sure >= 0.5 and fmean(recent) <= thresholds.human_least_gain):
            text = (
                f"{found}, {fmean(recent):.0%} of the last {len(recent)}: no gain to speak of, though the score rises."
            )
            return Verdict(
                "watch", rule, text, figures, "Read samples; the reward may pay for nothing.", GAMED, max(sure, 0.5)
            )
    return Verdict("ok", rule, f"{found}.", figures)


def _liked(history: History, answered: Sequence[tuple[int, list[float]]], updates: int) -> float:
    """Nats of evidence that judges prefer the policies of the newest `updates` to SFT; 0 where there is none."""
    recent = [value for step, told in answered for value in told if step > history.steps.step - updates]
    return max(0.0, log_evidence(recent, null_at_most=0.5))


@lru_cache(maxsize=8)
def _no_gain(verdicts: tuple[float, ...], least: int, gain: float) -> tuple[tuple[float, ...], float]:
    """The newest verdicts, `least` or more, that tell most against a win rate of `gain` or more, and how sure they
    make it; that the best stretch was picked is paid for.
    """
    stretches = [verdicts[-count:] for count in range(least, len(verdicts) + 1, max(1, least // 3))]
    evidence = [log_evidence(stretch, null_at_least=gain) for stretch in stretches]
    best = max(range(len(stretches)), key=evidence.__getitem__)
    return stretches[best], 1 - exp(-max(0.0, evidence[best] - log(len(stretches))))


@lru_cache(maxsize=8)
def _drop(batches: tuple[tuple[float, ...], ...], horizon: int) -> Drop:
    """Worked out once for the same verdicts, for rules are asked after every update."""
    return drop_evidence(batches, horizon=horizon)


def _values(row: Mapping[str, Any]) -> list[float]:
    """The verdicts of one check; what is none is left out."""
    values = row.get("values")
    told = [number(value) for value in values] if isinstance(values, list | tuple) else []
    return [value for value in told if 0 <= value <= 1]


def proxy_gap(history: History, thresholds: Thresholds = DEFAULT) -> Verdict:
    """How often the reward model and the judges want the same answer, on fresh pairs: the golden probe of a run."""
    rule = "reward_agreement"
    known = history.checks.known("reward_agreement")
    if not len(known) or history.checks.known("verdicts").sum() < thresholds.human_flat_verdicts:
        return Verdict("ok", rule, "Not judged: too few verdicts of judges on fresh pairs.")
    agreement = float(known[-3:].mean())
    figures: dict[str, Figure] = {"reward_agreement": agreement}
    text = f"On fresh pairs the reward model prefers what the judges prefer in {agreement:.0%} of cases"
    if agreement < thresholds.reward_agreement_watch:
        remedy = "Label fresh samples and refresh the reward model (rounds) before going on."
        return Verdict("watch", rule, f"{text}, little better than a coin.", figures, remedy, OFF_MAP, 0.6)
    return Verdict("ok", rule, f"{text}.", figures)


def reward_bias(history: History, thresholds: Thresholds = DEFAULT) -> Verdict:
    """Whether verdicts of judges are told better by score and form of the texts together than by the score alone."""
    rule = "reward_bias"
    gain = history.checks.last("bias_nats")
    if not isfinite(gain):
        return Verdict("ok", rule, "Not judged: too few verdicts of judges, or the reward is corrected already.")
    row = history.checks.rows[-1]
    figures: dict[str, Figure] = {"bias_nats": gain, "verdicts": int(row["bias_verdicts"])}
    level, sure = graded(gain / row["bias_verdicts"], thresholds.reward_bias_watch, thresholds.reward_bias_act)
    if gain < BEYOND_CHANCE:
        level, sure = "ok", 0.0
    text = (
        f"In {row['bias_verdicts']} verdicts judges weigh what the score does not ({row['bias_words']}; "
        f"{gain:.1f} nats better told)"
    )
    if level == "ok":
        return Verdict("ok", rule, f"{text}.", figures)
    remedy = "Correct the reward by it, and label such pairs for the reward model."
    return Verdict(level, rule, f"{text}.", figures, remedy, "The reward model overlooks what judges mind.", sure)
