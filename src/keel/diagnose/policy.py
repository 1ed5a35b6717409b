"""Rules for a policy trained by RL whose log holds little: score, KL, length, what was cut off, entropy, spread.

keel.monitor's own rules look at what answers say, which no other tool logs. These judge a finished run by what every
tool logs, and so ask for two signs at once before they say act: length alone grows in many a healthy run.
"""

from math import isfinite

import numpy as np

from keel.diagnose.offline import start_and_end
from keel.monitor.history import History
from keel.monitor.thresholds import Thresholds
from keel.monitor.verdict import Figure, Level, Verdict
from keel.stats.arrays import Floats
from keel.stats.change import Shift, mean_shift

SURE = 0.01
"""p below which a figure has changed; one look at a whole run."""
NOTHING = 0.05
"""p above which a score went nowhere."""
LONGER_WATCH, LONGER_ACT = 1.3, 1.5
"""Length at the end over that at the start. On a made-up help desk 1.3 is also reached by honest runs, 1.5 by none."""
CUT_OFF = 0.1
"""Share by which finished answers fell when more of them run into the limit than before."""
UNFINISHED_WATCH, UNFINISHED_ACT = 0.8, 0.5
"""Share of finished answers below which much, or most, of what is scored is a fragment."""
ENTROPY_LEFT = 1 / 3
"""Share of the entropy at the start below which answers may have become alike."""
SPREAD_LEFT = 1 / 3
"""Share of the spread of scores at the start below which prompts hardly teach any more."""
ALIKE_WATCH, ALIKE_ACT = 0.5, 0.8
"""Share of prompts whose answers all score alike."""
FALLEN = 0.5
"""Share of its gain that a score has lost again when the run has turned."""
CLIPPED_WATCH, CLIPPED_ACT = 0.25, 0.5
"""Share of clipped tokens; about 0.2 at most is usual."""
LEAST = 20
"""Updates that it takes to say that a score went nowhere."""


def distance(history: History, thresholds: Thresholds) -> Verdict:
    """How far the policy ended from its reference, by whichever unit the log has."""
    _, per_token = start_and_end(history.steps.values("kl_nats_per_token"))
    _, per_sequence = start_and_end(history.steps.values("kl_nats_per_sequence"))
    figures: dict[str, Figure] = {"kl_nats_per_token": per_token, "kl_nats_per_sequence": per_sequence}
    if not (isfinite(per_token) or isfinite(per_sequence)):
        return _not_measured("distance", "the KL to the reference (with a KL weight of 0 it is not measured)")
    found = f"{per_token:.2f} nats per token" if isfinite(per_token) else f"{per_sequence:.1f} nats per answer"
    cause = "The KL costs less than the score gains by leaving what the reward model was trained on."
    remedy = "Take a checkpoint from before the line, and make the KL dearer."
    if per_sequence > thresholds.kl_stop_per_sequence:
        return Verdict(
            "stop",
            "distance",
            f"The KL ended at {per_sequence:.1f} nats per answer, over {thresholds.kl_stop_per_sequence:g}.",
            figures,
            f"{remedy} If answers are long, draw a higher line.",
            cause,
            0.8,
        )
    if per_token > thresholds.kl_watch_per_token:
        act = per_token > thresholds.kl_act_per_token
        line = thresholds.kl_act_per_token if act else thresholds.kl_watch_per_token
        return Verdict(
            "act" if act else "watch",
            "distance",
            f"The KL ended at {per_token:.2f} nats per token, over {line:g}.",
            figures,
            remedy if act else "Read some answers; if they are good, it may go on.",
            cause,
            0.8 if act else 0.5,
        )
    return Verdict("ok", "distance", f"The KL ended at {found}, inside its lines.", figures)


def length_growth(history: History, thresholds: Thresholds) -> Verdict:
    """Whether answers grew while the score rose, and what else speaks for a reward that pays for length."""
    rule = "length_growth"
    start, end = start_and_end(history.steps.values("response_tokens_mean"))
    if not (isfinite(start) and isfinite(end)) or start <= 0:
        return _not_measured(rule, "the length of answers")
    ratio = end / start
    signs = [sign for sign in (_cut_off(history), _far(history, thresholds), _thinner(history)) if sign]
    figures: dict[str, Figure] = {"response_tokens_mean_start": start, "response_tokens_mean_end": end, "ratio": ratio}
    grew = _rose(history, "response_tokens_mean") and ratio > LONGER_WATCH
    if not (grew and _rose(history, "score_mean")):
        return Verdict("ok", rule, f"Answers went from {start:.0f} to {end:.0f} tokens.", figures)
    level: Level = "act" if ratio > LONGER_ACT and signs else "watch"
    if level == "watch" and ratio <= LONGER_ACT and not signs:
        return Verdict(
            "ok", rule, f"Answers went from {start:.0f} to {end:.0f} tokens; nothing else looks odd.", figures
        )
    besides = f"; besides, {' and '.join(signs)}" if signs else ""
    return Verdict(
        level,
        rule,
        f"Answers grew from {start:.0f} to {end:.0f} tokens ({ratio:.1f} times) while the score rose{besides}.",
        figures,
        "Make length cost something, and read long answers: is the end of them worth anything?",
        "The reward pays for length, and the policy writes more for it.",
        0.8 if level == "act" else 0.5,
    )


def unfinished(history: History, thresholds: Thresholds) -> Verdict:
    """Whether answers run into the length limit."""
    rule = "unfinished_answers"
    start, end = start_and_end(history.steps.values("finished_share"))
    if not isfinite(end):
        return _not_measured(rule, "the share of finished answers")
    figures: dict[str, Figure] = {"finished_share_start": start, "finished_share_end": end}
    if end >= UNFINISHED_WATCH:
        return Verdict("ok", rule, f"{end:.0%} of answers end by themselves.", figures)
    level: Level = "act" if end < UNFINISHED_ACT else "watch"
    found = f"Only {end:.0%} of answers end by themselves, {start:.0%} at the start."
    if start < UNFINISHED_WATCH:
        cause = "The limit is shorter than the answers that this model gives, so what is scored are fragments."
        return Verdict(level, "answers_cut_off", found, figures, "Leave answers more room.", cause, 0.8)
    remedy = "Do not pay for answers that were cut off, or leave them more room."
    cause = "The score is the same or better without an ending, so the policy no longer ends."
    return Verdict(level, rule, found, figures, remedy, cause, 0.8)


def collapse(history: History, thresholds: Thresholds) -> Verdict:
    """Whether answers have become alike: entropy gone, and with it the spread of scores."""
    rule = "entropy_collapse"
    start, end = start_and_end(history.steps.values("entropy_nats"))
    if not (isfinite(start) and isfinite(end)) or start <= 0:
        return _not_measured(rule, "the entropy of the policy per token")
    figures: dict[str, Figure] = {"entropy_nats_start": start, "entropy_nats_end": end}
    left = end / start
    if left >= ENTROPY_LEFT:
        return Verdict("ok", rule, f"Entropy went from {start:.2f} to {end:.2f} nats per token.", figures)
    signs = [sign for sign in (_thinner(history), _far(history, thresholds)) if sign]
    besides = f"; besides, {' and '.join(signs)}" if signs else ""
    return Verdict(
        "act" if signs else "watch",
        rule,
        f"Entropy fell from {start:.2f} to {end:.2f} nats per token{besides}.",
        figures,
        "Give exploration something: an entropy bonus or more room to clip upwards; then a dearer KL.",
        "The policy has settled on a few answers, and there is nothing left to compare.",
        0.8 if signs else 0.5,
    )


def spread(history: History, thresholds: Thresholds) -> Verdict:
    """Whether the answers of a prompt still differ in score: without that there is no gradient."""
    rule = "no_spread"
    alike_start, alike = start_and_end(history.steps.values("zero_spread_share"))
    _, deviation = start_and_end(history.steps.values("score_std"))
    if not (isfinite(alike) or isfinite(deviation)):
        return _not_measured(rule, "the spread of scores")
    figures: dict[str, Figure] = {"zero_spread_share": alike, "score_std": deviation}
    if alike > ALIKE_WATCH or deviation <= thresholds.score_std_stop:
        grave = alike > ALIKE_ACT or deviation <= thresholds.score_std_stop
        found = (
            f"The answers of {alike:.0%} of prompts all score alike ({alike_start:.0%} at the start)"
            if alike > ALIKE_WATCH
            else f"The spread of scores is {deviation:.2g}"
        )
        return Verdict(
            "act" if grave else "watch",
            rule,
            f"{found}: such prompts teach nothing.",
            figures,
            "Take prompts out that are always or never solved, and more answers a prompt.",
            "The prompts are solved or hopeless, the answers have become alike, or the reward is too coarse.",
            0.8,
        )
    known = f"{alike:.0%} of prompts have no spread" if isfinite(alike) else f"their spread is {deviation:.2g}"
    return Verdict("ok", rule, f"Scores still tell answers apart: {known}.", figures)


def score_course(history: History, thresholds: Thresholds) -> Verdict:
    """Whether the score rose, and kept what it had gained."""
    rule = "score_course"
    scores = history.steps.known("score_mean")
    if len(scores) < LEAST:
        return _not_measured(rule, f"{LEAST} updates with a mean score")
    start, end = start_and_end(scores)
    window = max(2, min(10, len(scores) // 10))
    best = max(float(scores[at : at + window].mean()) for at in range(len(scores) - window + 1))
    shift = _shift(scores)
    figures: dict[str, Figure] = {"score_mean_start": start, "score_mean_end": end, "best": best}
    gain = best - start
    if gain > 3 * shift.spread > 0 and best - end > max(FALLEN * gain, 3 * shift.spread):
        return Verdict(
            "act",
            rule,
            f"The score rose from {start:.2f} to {best:.2f} and fell back to {end:.2f}.",
            figures,
            "Take the checkpoint of the best score, and go on from it with smaller steps.",
            "Updates went too far: the policy broke what it had learned.",
            0.8,
        )
    if shift.size < 0 and shift.p_value < SURE:
        return Verdict(
            "act",
            rule,
            f"The score fell from {start:.2f} to {end:.2f}.",
            figures,
            "Look at the sign of the reward and of the KL first, then take smaller steps.",
            "The policy is made worse by its own updates: a rate too high, a critic that misleads, or a sign.",
            0.7,
        )
    if shift.p_value >= NOTHING:
        return Verdict(
            "watch",
            "score_flat",
            f"The score did not rise by more than its noise: {start:.2f} at the start, {end:.2f} at the end.",
            figures,
            "Loosen the KL or take larger steps if the KL is small; else look at the reward.",
            "The policy is held too tightly, steps are too small, or the reward says nothing.",
            0.6,
        )
    if shift.size < 0:
        return Verdict("ok", rule, f"The score went from {start:.2f} to {end:.2f}, which may be noise.", figures)
    return Verdict("ok", rule, f"The score rose from {start:.2f} to {end:.2f} and stayed there.", figures)


def update_size(history: History, thresholds: Thresholds) -> Verdict:
    """Whether single updates moved the policy too far from the one that sampled."""
    rule = "update_size"
    _, clipped = start_and_end(history.steps.values("clip_fraction"))
    if not isfinite(clipped):
        return _not_measured(rule, "the share of clipped tokens")
    figures: dict[str, Figure] = {"clip_fraction": clipped}
    if clipped <= CLIPPED_WATCH:
        return Verdict("ok", rule, f"{clipped:.1%} of tokens are clipped.", figures)
    return Verdict(
        "act" if clipped > CLIPPED_ACT else "watch",
        rule,
        f"{clipped:.0%} of tokens are clipped in an update.",
        figures,
        "Fewer passes over the same answers, or a lower learning rate.",
        "Each update goes far beyond where its answers were sampled.",
        0.7,
    )


def critic(history: History, thresholds: Thresholds) -> Verdict:
    """Whether the critic explains anything of the returns."""
    rule = "critic"
    _, explained = start_and_end(history.steps.values("explained_variance"))
    if not isfinite(explained):
        if not len(history.steps.known("value_loss")):
            return Verdict("ok", rule, "There is no critic.")
        return _not_measured(rule, "explained variance of the critic")
    figures: dict[str, Figure] = {"explained_variance": explained}
    if explained > 0:
        return Verdict("ok", rule, f"The critic explains {explained:.0%} of the variance of returns.", figures)
    return Verdict(
        "watch",
        rule,
        f"The critic explains nothing: explained variance {explained:.2f} at the end.",
        figures,
        "A higher rate for the critic, more of its updates before the policy moves, or a method without one.",
        "The critic learns more slowly than the policy moves, or its targets are out of its reach.",
        0.7,
    )


def _shift(values: Floats) -> Shift:
    """The last quarter of the finite values against the first."""
    known = values[np.isfinite(values)]
    quarter = max(5, len(known) // 4)
    return mean_shift(known, quarter, quarter)


def _rose(history: History, name: str) -> bool:
    shift = _shift(history.steps.values(name))
    return shift.size > 0 and shift.p_value < SURE


def _cut_off(history: History) -> str:
    start, end = start_and_end(history.steps.values("finished_share"))
    return f"finished answers fell from {start:.0%} to {end:.0%}" if end < start - CUT_OFF else ""


def _far(history: History, thresholds: Thresholds) -> str:
    _, per_token = start_and_end(history.steps.values("kl_nats_per_token"))
    _, per_sequence = start_and_end(history.steps.values("kl_nats_per_sequence"))
    if per_token > thresholds.kl_watch_per_token:
        return f"the KL is {per_token:.2f} nats per token"
    return f"the KL is {per_sequence:.0f} nats per answer" if per_sequence > thresholds.kl_stop_per_sequence else ""


def _thinner(history: History) -> str:
    start, end = start_and_end(history.steps.values("score_std"))
    if start > 0 and end < SPREAD_LEFT * start:
        return f"the spread of scores fell from {start:.2g} to {end:.2g}"
    before, after = start_and_end(history.steps.values("zero_spread_share"))
    return f"prompts without spread went from {before:.0%} to {after:.0%}" if after > before + SPREAD_LEFT else ""


def _not_measured(rule: str, what: str) -> Verdict:
    return Verdict("ok", rule, f"Not measured: it takes {what}.")
