"""Rules about single texts: empty, cut off, refusing, all alike, damaged, in another language."""

import re
from collections import Counter

import numpy as np

from keel.data.doctor.finding import SEVERITIES, Finding, Severity, counted, graded, percent, said, shown
from keel.data.doctor.limits import Limits
from keel.data.doctor.patient import Patient
from keel.data.doctor.scripts import language, script
from keel.data.doctor.sets import topic
from keel.stats.intervals import wilson

LEAST_ANSWERS = 50
"""Fewer answers have no common length, opening or language."""
LEAST_CUT, LONG = 40, 200
"""Characters below which nobody cuts an answer, and from which one is long."""
WALL_SHARE = 0.005
"""Share of unfinished answers of one length from which that length is taken for a limit."""
_INVISIBLE = re.compile("[\\s\u00ad\u200b-\u200f\u2060-\u2064\ufeff\ufe00-\ufe0f]+")
_PLACEHOLDER = re.compile(
    r"\s*(?:n/?a|none|null|nan|nil|todo|tbd|<noinput>|\[(?:deleted|removed)\]|-+|\?+|\.+)\s*", re.IGNORECASE
)
_REFUSAL = re.compile(
    r"\s*(?:i['’]?m (?:very |really |so )?sorry,? (?:but )?(?:i|as)\b|(?:sorry|apologies),? (?:but )?i (?:can|am|do)"
    r"|i (?:can ?not|can['’]t|am unable to|am not able to|won['’]t|will not)\b(?! believe| wait| imagine)"
    r"|i['’]m (?:unable|not able) to|as an? (?:ai|artificial|language model)\b|i apologi[sz]e,? but i)",
    re.IGNORECASE,
)
_DAMAGE = {
    "mojibake": re.compile(
        "Ã[\u0080-\u00bf\u0192\u201a-\u203a\u20ac\u0152\u0153\u0160\u0161\u0178\u017d\u017e]|â€[\u0080-\u2122]|Â[\u00a0-\u00bf]|ï»¿|ðŸ"
    ),
    "replacement characters": re.compile("\ufffd"),
    "control characters": re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]"),
    "direction marks": re.compile("[\u202a-\u202e\u2066-\u2069]"),
    "hidden characters": re.compile("[\U000e0000-\U000e007f\ue000-\uf8ff]"),
}
_SUSPECT = re.compile("[^\t\n\r\x0c -~]")
_OPEN_END = re.compile(r"[^\W\d_]$|[,(\[{]$")
"""How a sentence does not end: on a letter, a comma, an open bracket."""


def empty_answers(patient: Patient, limits: Limits) -> Finding:
    """Texts with nothing in them to see, and words that stand for nothing."""
    refused = [one for one in patient.refused if topic(one) == "empty_answers"]
    blank: dict[int, str] = {}
    placeholders: dict[int, str] = {}
    for at, text in patient.answers:
        if len(text) > 40 and text[:40].strip().isalnum():
            continue
        if not _INVISIBLE.sub("", text):
            blank[at] = text
        elif len(text) < 20 and _PLACEHOLDER.fullmatch(text):
            placeholders[at] = text
    count = len(refused) + len(blank.keys() | placeholders.keys())
    share = count / patient.num_records
    figures = {"refused": len(refused), "invisible": len(blank), "placeholders": len(placeholders), "share": share}
    if not count:
        return Finding(rule="empty_answers", severity="ok", message="No text is empty.", figures=figures)
    parts = [
        f"{number:,} × {name}"
        for name, number in (("empty", len(refused)), ("invisible", len(blank)), ("a placeholder", len(placeholders)))
        if number
    ]
    places = [(one.source, one.fault) for one in refused]
    places += [(patient.source(at), f"invisible characters only: {text!r}") for at, text in blank.items()]
    places += [(patient.source(at), f"a placeholder: {text!r}") for at, text in placeholders.items()]
    return Finding(
        rule="empty_answers",
        severity=graded(share, 0.0, limits.damage_error),
        message=f"{said(count, 'record', 'says', 'say')} nothing ({percent(share)}): {', '.join(parts)}.",
        remedy="Drop what is empty. Look at the placeholders: an answer 'None' may be meant.",
        figures=figures,
        examples=shown(places),
        drops=tuple(blank),
    )


def truncation(patient: Patient, limits: Limits) -> Finding | None:
    """Whether answers stop in mid-sentence as those do that hit a limit: the longest, long ones, or many at one length.

    Each distinct answer counts once.
    """
    distinct = list({text: at for at, text in reversed(patient.answers)}.items())
    if len(distinct) < LEAST_ANSWERS:
        return None
    lengths = np.array([len(text) for text, _ in distinct], dtype=np.int64)
    cut = np.array([bool(_OPEN_END.search(text[-40:].rstrip())) for text, _ in distinct])
    edge = float(np.quantile(lengths, 0.9))
    longest = lengths >= max(edge, LEAST_CUT)
    rate, rest = _mean(cut[longest]), _mean(cut[~longest])
    surely = wilson(int(cut[longest].sum()), int(longest.sum()))[0] > rest
    severity = graded(rate - rest, limits.cut_warn, min(1.0, 4 * limits.cut_warn)) if surely else "ok"
    of_long = _mean(cut[lengths >= LONG]) if (lengths >= LONG).sum() >= LEAST_ANSWERS else 0.0
    severity = _worse(severity, graded(of_long, 2 * limits.cut_warn, min(1.0, 6 * limits.cut_warn)))
    wall, at_wall = _wall(lengths[cut])
    if at_wall / len(lengths) >= WALL_SHARE:
        severity = _worse(severity, graded(at_wall / len(lengths), WALL_SHARE, limits.cut_warn))
    message = (
        f"Of the longest tenth of answers ({max(edge, LEAST_CUT):,.0f} characters and more) {percent(rate)} stop in "
        f"mid-sentence; of the others {percent(rest)}."
    )
    if of_long >= 2 * limits.cut_warn:
        message += f" So do {percent(of_long)} of those of {LONG} characters and more."
    if at_wall:
        message += f" {at_wall:,} unfinished ones are exactly {wall:,} characters long."
    shows = cut & (lengths == wall) if at_wall else cut & (lengths >= min(edge, LONG))
    return Finding(
        rule="truncation",
        severity=severity,
        message=message,
        remedy=""
        if severity == "ok"
        else "They were probably cut at a limit. Sample again with a higher limit, or drop them: a model trained on "
        "them learns to stop in mid-sentence.",
        figures={
            "unfinished_share_of_longest_tenth": rate,
            "unfinished_share_of_others": rest,
            "unfinished_share_of_long": of_long,
            "from_characters": edge,
            "same_length": at_wall,
            "length": wall,
        },
        examples=()
        if severity == "ok"
        else shown((patient.source(distinct[i][1]), f"…{distinct[i][0][-100:]}") for i in np.flatnonzero(shows)),
    )


def refusals(patient: Patient, limits: Limits) -> Finding | None:
    """The share of answers that open with a refusal, and how often it wins against an answer that does not."""
    if len(patient.answers) < LEAST_ANSWERS or patient.kind == "labelled texts":
        return None
    refusing = [bool(_REFUSAL.match(text)) for _, text in patient.answers]
    share = sum(refusing) / len(refusing)
    won = count = 0
    for _, record in patient.decided:
        one, other = bool(_REFUSAL.match(record.a)), bool(_REFUSAL.match(record.b))
        if one != other:
            count += 1
            won += one == (record.preference > 0.5)
    severity = "warn" if share >= limits.refusals_warn else "ok"
    beside = (
        f" Against an answer that does not refuse, the refusal wins {percent(won / count)} of {counted(count, 'pair')}."
        if count
        else ""
    )
    places = (patient.answers[i] for i, refuses in enumerate(refusing) if refuses)
    return Finding(
        rule="refusals",
        severity=severity,
        message=f"{percent(share)} of answers open with a refusal or an apology.{beside}",
        remedy=""
        if severity == "ok"
        else "A policy learns the habit along with the reason. Keep refusals where the request asks for one, and add "
        "harmless requests that are answered.",
        figures={"share": share, "wins": won, "pairs": count},
        examples=() if severity == "ok" else shown((patient.source(at), text) for at, text in places),
    )


def boilerplate(patient: Patient, limits: Limits) -> Finding | None:
    """The commonest first five words, and last five, of the answers, each distinct answer counted once."""
    distinct = {text: at for at, text in reversed(patient.answers)}
    heads: Counter[str] = Counter()
    tails: Counter[str] = Counter()
    for text in distinct:
        if len(opening := text[:200].lower().split()[:5]) == 5:
            heads[" ".join(opening)] += 1
        if len(closing := text[-200:].lower().split()[-5:]) == 5:
            tails[" ".join(closing)] += 1
    if len(distinct) < LEAST_ANSWERS or not heads or patient.kind == "labelled texts":
        return None
    (head, opened), (tail, closed) = heads.most_common(1)[0], tails.most_common(1)[0]
    open_share, close_share = opened / len(distinct), closed / len(distinct)
    severity = "warn" if max(open_share, close_share) >= limits.opening_warn else "ok"
    ends = f", the commonest end, {tail!r}, {percent(close_share)}" if closed > 1 else ""
    same = [
        (patient.source(at), text) for text, at in distinct.items() if " ".join(text[:200].lower().split()[:5]) == head
    ]
    return Finding(
        rule="boilerplate",
        severity=severity,
        message=f"The commonest opening of answers, {head!r}, has {percent(open_share)}{ends}."
        if opened > 1
        else "No two answers open alike.",
        remedy="" if severity == "ok" else "Cut the phrase off, or thin out: it will open every answer of the model.",
        figures={"opening": head, "opening_share": open_share, "ending": tail, "ending_share": close_share},
        examples=() if severity == "ok" else shown(same),
    )


def encoding(patient: Patient, limits: Limits) -> Finding:
    """Characters that no author wrote: misread UTF-8, control codes, marks that turn the direction of text."""
    kinds: Counter[str] = Counter()
    hit: dict[int, str] = {}
    for at, entry in enumerate(patient.entries):
        for text in (patient.asked[at], *entry.answers):
            if not _SUSPECT.search(text):
                continue
            for name, pattern in _DAMAGE.items():
                if found := pattern.search(text):
                    kinds[name] += 1
                    around = text[max(0, found.start() - 30) : found.end() + 30]
                    hit.setdefault(at, f"{name}: {_visible(around)}")
    share = len(hit) / len(patient.entries)
    figures = {"records": len(hit), "share": share, "texts_by_kind": dict(kinds)}
    if not hit:
        return Finding(rule="encoding", severity="ok", message="No text shows signs of damage.", figures=figures)
    listed = ", ".join(f"{count:,} × {name}" for name, count in kinds.most_common())
    return Finding(
        rule="encoding",
        severity=graded(share, 0.0, limits.damage_error),
        message=f"{said(len(hit), 'record', 'holds', 'hold')} characters that nobody typed ({percent(share)}): "
        f"{listed}.",
        remedy="Read the source again as UTF-8, and take control codes and direction marks out.",
        figures=figures,
        examples=shown((patient.source(at), text) for at, text in hit.items()),
    )


def _visible(text: str) -> str:
    """Characters that a terminal would not show, written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def languages(patient: Patient, limits: Limits) -> Finding | None:
    """Which languages, or scripts, the records are in, and how many answers are in another script than their prompt."""
    if len(patient.entries) < LEAST_ANSWERS:
        return None
    found: Counter[str] = Counter()
    other_script: dict[int, str] = {}
    spoken: list[str] = []
    for at, entry in enumerate(patient.entries):
        text = entry.answers[0] if entry.answers else patient.asked[at]
        spoken.append(language(text))
        asked = script(patient.asked[at])
        if asked and any((other := script(answer)) and other != asked for answer in entry.answers):
            other_script[at] = patient.asked[at]
    found.update(name for name in spoken if name)
    told = sum(found.values())
    if not told:
        return None
    main, most = found.most_common(1)[0]
    share, mixed = 1 - most / told, len(other_script) / len(patient.entries)
    severity = "warn" if max(share, mixed) >= limits.mix_warn else "ok"
    listed = ", ".join(f"{name} {percent(count / told)}" for name, count in found.most_common(4))
    turned = (
        f" In {counted(len(other_script), 'record')} an answer is in another script than its prompt."
        if other_script
        else ""
    )
    places = [
        (patient.source(at), f"{name}: {patient.asked[at]}") for at, name in enumerate(spoken) if name and name != main
    ]
    return Finding(
        rule="languages",
        severity=severity,
        message=f"Language of the {counted(told, 'record')} long enough to tell: {listed}.{turned}",
        remedy="" if severity == "ok" else "If the mix is meant, all is well; otherwise set the strays aside.",
        figures={
            "main": main,
            "other_share": share,
            "records": dict(found),
            "other_script_than_prompt": len(other_script),
        },
        examples=() if severity == "ok" else shown(places or other_script_places(patient, other_script)),
    )


def other_script_places(patient: Patient, found: dict[int, str]) -> list[tuple[str, str]]:
    return [(patient.source(at), f"{text[:60]} → {patient.entries[at].answers[0]}") for at, text in found.items()]


def _wall(lengths: np.ndarray) -> tuple[int, int]:
    """The length that stands out among those of unfinished answers, and how many have it; (0, 0) where none does.

    It must have 10 answers, and 8 times as many as the lengths within 20 characters of it have on average.
    """
    counts = np.bincount(lengths[lengths >= LEAST_CUT])
    if not len(counts):
        return 0, 0
    best = int(np.argmax(counts))
    around = np.r_[counts[max(0, best - 20) : best], counts[best + 1 : best + 21]]
    stands_out = counts[best] >= 10 and counts[best] >= 8 * (_mean(around) + 0.5)
    return (best, int(counts[best])) if stands_out else (0, 0)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0


def _worse(one: Severity, other: Severity) -> Severity:
    return max(one, other, key=SEVERITIES.index)
