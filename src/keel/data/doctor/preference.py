"""Rules about what raters preferred: length, source, side, and labels that a simple model of words denies."""

from collections import Counter

import numpy as np

from keel.data.doctor.finding import Finding, Severity, counted, graded, percent, shown
from keel.data.doctor.limits import Limits
from keel.data.doctor.patient import Patient
from keel.stats.intervals import wilson
from keel.stats.ranking import BagOfWordsBradleyTerry, preference_accuracy

LEAST_PAIRS = 20
"""Fewer pairs show no bias, whatever their share."""
LEAST_FOR_WORDS = 200
"""Fewer pairs teach a model of words nothing."""
MOST_FOR_WORDS = 4000
"""Pairs that each of the two models of words learns from; more sharpen it little and take longer."""
MOST_CHARACTERS = 2000
DENIED = 0.15
"""A label that the model of words gives at most this probability is denied; where words tell nearly all, below .5."""
TELLING = 0.85
"""Accuracy on unseen pairs, surely exceeded, from which words tell nearly all."""
_L2_GRID = (3.0, 10.0, 30.0, 100.0)


def length_bias(patient: Patient, limits: Limits) -> Finding | None:
    """How often the longer answer, in characters, is the preferred one."""
    lengths = np.array([(len(record.a), len(record.b)) for _, record in patient.decided], dtype=np.int64).reshape(-1, 2)
    differs = lengths[:, 0] != lengths[:, 1]
    count = int(differs.sum())
    if count < LEAST_PAIRS:
        return None
    wins = int(((lengths[:, 0] > lengths[:, 1]) == patient.a_won)[differs].sum())
    share, (low, high) = wins / count, wilson(wins, count)
    against = share < 0.5
    surely = 1 - high if against else low
    severity = graded(surely, limits.length_warn, limits.length_error)
    ratio = float(np.median(lengths[differs].max(axis=1) / np.maximum(1, lengths[differs].min(axis=1))))
    which = "shorter" if against else "longer"
    return Finding(
        rule="length_bias",
        severity=severity,
        message=f"The longer answer wins {percent(share)} of {counted(count, 'decided pair')} (95 % interval "
        f"{100 * low:.0f} to {100 * high:.0f}).",
        remedy=""
        if severity == "ok"
        else f"A reward model can reach that accuracy by counting characters, and RL would then pay for "
        f"{which} answers. Collect pairs where the {which} answer is the worse one, or pairs of like length; watch "
        "response length in RL.",
        figures={"longer_wins": share, "low": low, "high": high, "pairs": count, "median_length_ratio": ratio},
    )


def source_bias(patient: Patient, limits: Limits) -> Finding | None:
    """How often each source's answers win against those of other sources; needs the models that wrote them."""
    games: Counter[str] = Counter()
    wins: Counter[str] = Counter()
    pairs = 0
    for _, record in patient.decided:
        one, other = record.models
        if not (one and other) or one == other:
            continue
        pairs += 1
        games.update((one, other))
        wins[one if record.preference > 0.5 else other] += 1
    known = {name: count for name, count in games.items() if count >= LEAST_PAIRS}
    if not known:
        return None
    table = {}
    for name, count in sorted(known.items(), key=lambda item: -wins[item[0]] / item[1]):
        low, high = wilson(wins[name], count)
        table[name] = {"wins": wins[name] / count, "pairs": count, "low": low, "high": high}
    best, share_best = next((name, row["wins"]) for name, row in table.items())
    taker, taken = wins.most_common(1)[0]
    share_taken = taken / pairs
    # With two sources both figures are the same; with many, one can win all its pairs and matter little.
    skew = share_taken
    severity = graded(skew, limits.skew_warn, limits.skew_error)
    spread = "" if len(table) < 2 else f"; {list(table)[-1]} wins {percent(list(table.values())[-1]['wins'])}"
    return Finding(
        rule="source_bias",
        severity=severity,
        message=f"{taker} wrote the preferred answer in {percent(share_taken)} of {counted(pairs, 'pair')} between "
        f"different sources. Of its own pairs {best} wins {percent(share_best)}{spread}.",
        remedy=""
        if severity == "ok"
        else f"A reward model can learn who wrote an answer instead of what is good. Add pairs within {taker}, and "
        "pairs that it loses.",
        figures={"largest_share_of_wins": share_taken, "of": taker, "pairs": pairs, "sources": table},
    )


def side(patient: Patient, limits: Limits) -> Finding | None:
    """How often the first answer is the preferred one; nothing where the format puts the better one first."""
    count = len(patient.decided)
    if count < LEAST_PAIRS:
        return None
    wins = int(patient.a_won.sum())
    share, (low, high) = wins / count, wilson(wins, count)
    figures = {"first_wins": share, "low": low, "high": high, "pairs": count, "sides_known": patient.sided}
    if not patient.sided:
        text = (
            f"The format {patient.format or 'of chosen and rejected'} puts the better answer first, so raters' sides "
            "are not known."
        )
        return Finding(rule="side_bias", severity="ok", message=text, figures=figures)
    larger, surely = max(share, 1 - share), max(low, 1 - high)
    severity: Severity = graded(larger, limits.skew_warn, limits.skew_error)
    if severity == "ok" and surely > limits.side_warn:
        severity = "warn"
    return Finding(
        rule="side_bias",
        severity=severity,
        message=f"The first answer is preferred in {percent(share)} of {counted(count, 'decided pair')} (95 % interval "
        f"{100 * low:.0f} to {100 * high:.0f}).",
        remedy=""
        if severity == "ok"
        else "If raters saw the answers in this order, they chose a side: show sides at random and record them. If one "
        "source always stood first, this is its win rate. If the file was made of chosen and rejected answers, read "
        "it in that format.",
        figures=figures,
    )


def label_noise(patient: Patient, limits: Limits) -> Finding | None:
    """Pairs whose label a Bradley-Terry model of words, fitted on other prompts, strongly denies.

    Two models, each learned from one half of the prompts and asked about the other. What they deny is either labelled
    wrongly or hard; both deserve a second look, and the latter teach a reward model the most.
    """
    surprise = surprises(patient)
    if surprise is None:
        return None
    probability, accuracy, interval = surprise
    line = 0.49 if interval[0] > TELLING else DENIED
    denied = np.flatnonzero(probability <= line)
    share = len(denied) / len(probability)
    figures = {
        "accuracy_of_words": accuracy,
        "low": interval[0],
        "high": interval[1],
        "denied": len(denied),
        "denied_share": share,
        "pairs": len(probability),
    }
    order = denied[np.argsort(probability[denied], kind="stable")]
    severity = graded(share, limits.noise_warn, 2.0) if len(denied) >= 10 else "ok"
    reach = f"A model of words alone orders {percent(accuracy)} of unseen pairs rightly"
    denial = (
        f"{reach}; it gives the label of {counted(len(denied), 'pair')} ({percent(share)}) at most {percent(line)}."
    )
    if interval[0] <= 0.5:
        denial = f"{reach}, no better than chance, so it can name no doubtful label."
    return Finding(
        rule="label_noise",
        severity=severity,
        message=denial,
        remedy=""
        if severity == "ok"
        else "Have the pairs below judged again, first of all: `--hard FILE` writes them out. What stays as it is "
        "are hard pairs, worth more than easy ones.",
        figures=figures,
        examples=shown(
            (
                patient.source(patient.decided[i][0]),
                f"{percent(probability[i])} for the label: {patient.asked[patient.decided[i][0]]}",
            )
            for i in order
        ),
    )


def surprises(patient: Patient) -> tuple[np.ndarray, float, tuple[float, float]] | None:
    """Probability [decided] that a model of words gives each label, its accuracy on unseen prompts, and the interval.

    None where there are too few pairs, or prompts, to learn from.
    """
    pairs = patient.decided
    if len(pairs) < LEAST_FOR_WORDS:
        return None
    half = np.array([int(patient.keys[at][16:24], 16) % 2 for at, _ in pairs])
    if min(np.bincount(half, minlength=2)) < LEAST_FOR_WORDS // 4:
        return None
    a = [record.a[:MOST_CHARACTERS] for _, record in pairs]
    b = [record.b[:MOST_CHARACTERS] for _, record in pairs]
    target = np.array([record.preference for _, record in pairs])
    gap = np.zeros(len(pairs))
    rng = np.random.default_rng(0)
    for asked in (0, 1):
        known, unknown = np.flatnonzero(half != asked), np.flatnonzero(half == asked)
        known = np.sort(rng.permutation(known)[:MOST_FOR_WORDS])
        model = BagOfWordsBradleyTerry(l2_grid=_L2_GRID)
        # Half of the pairs are turned round, so that a file with the better answer first is learned like any other.
        turned = rng.random(len(known)) < 0.5
        first = [b[i] if turn else a[i] for i, turn in zip(known, turned, strict=True)]
        second = [a[i] if turn else b[i] for i, turn in zip(known, turned, strict=True)]
        model.fit(first, second, np.where(turned, 1 - target[known], target[known]))
        gap[unknown] = model.scores([a[i] for i in unknown]) - model.scores([b[i] for i in unknown])
    accuracy = preference_accuracy(gap, target)
    of_label = 1 / (1 + np.exp(-np.clip(np.where(target > 0.5, gap, -gap), -50, 50)))
    return of_label, accuracy, wilson(accuracy * len(pairs), len(pairs))


def one_prompt(patient: Patient, limits: Limits) -> Finding | None:
    """The share of records that one prompt has."""
    if len(patient.entries) < LEAST_PAIRS or patient.kind == "labelled texts":
        return None
    counts = Counter(patient.keys)
    key, most = counts.most_common(1)[0]
    share = most / len(patient.entries)
    severity = graded(share, limits.skew_warn, limits.skew_error)
    at = patient.distinct_asked[key]
    return Finding(
        rule="one_prompt",
        severity=severity,
        message=f"The most frequent prompt has {percent(share)} of the records; there are "
        f"{counted(len(counts), 'distinct prompt')}.",
        remedy="" if severity == "ok" else "Add records on other prompts: a model trained on one learns that one.",
        figures={"largest_share": share, "distinct_prompts": len(counts), "records": len(patient.entries)},
        examples=() if severity == "ok" else shown([(patient.source(at), patient.asked[at])]),
    )


def label_balance(patient: Patient, limits: Limits) -> Finding | None:
    """The share of the more frequent label among thumbs up and down, or labelled texts; and of the busiest rater."""
    labels = [getattr(e.record, "desirable", getattr(e.record, "label", None)) for e in patient.entries]
    told = [bool(label) for label in labels if label is not None]
    if len(told) < LEAST_PAIRS:
        return None
    share = sum(told) / len(told)
    severity = graded(max(share, 1 - share), limits.skew_warn, limits.skew_error)
    return Finding(
        rule="label_balance",
        severity=severity,
        message=f"{percent(share)} of {counted(len(told), 'label')} are positive.",
        remedy="" if severity == "ok" else "Collect more of the rarer label, or weigh it higher in training.",
        figures={"positive_share": share, "labels": len(told)},
    )


def rater_share(patient: Patient, limits: Limits) -> Finding | None:
    """The share of votes that one rater cast."""
    votes: Counter[str] = Counter(vote.rater for _, record in patient.comparisons for vote in record.votes)
    total = sum(votes.values())
    if total < LEAST_PAIRS:
        return None
    rater, most = votes.most_common(1)[0]
    share = most / total
    severity = graded(share, limits.skew_warn, limits.skew_error)
    return Finding(
        rule="one_rater",
        severity=severity,
        message=f"{rater} cast {percent(share)} of {counted(total, 'vote')} by {counted(len(votes), 'rater')}.",
        remedy="" if severity == "ok" else "Have a second and a third rater judge a part of the same pairs.",
        figures={"largest_share": share, "votes": total, "raters": len(votes)},
    )
