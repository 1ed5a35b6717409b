"""Rules about a set as a whole: what could be read, how much there is, how varied it is, how its chats are built."""

import re
from collections import Counter
from itertools import pairwise

from keel.data import hh
from keel.data.doctor.finding import Finding, counted, graded, percent, said, shown
from keel.data.doctor.limits import Limits, Scope
from keel.data.doctor.patient import Patient, Refused, roles_of
from keel.data.doctor.similar import families, near_copies, shingles
from keel.data.records import Prompt
from keel.stats.diversity import NGrams

LEAST_COMPARISONS: dict[Scope, int] = {"narrow": 5_000, "general": 20_000, "frontier": 100_000}
MOST_PROMPTS = 5_000
"""Distinct prompts that diversity is measured on, drawn by hash."""
PROMPT_WORDS = 64
_WORD = re.compile(r"\w+")
_EMPTY = re.compile(r"is empty|is null|no votes")
_CHAT = re.compile(
    r"no answer|ends with an assistant turn|asks nothing|unknown role|message without|prompts differ|not one turn"
    r"|has no answer|tool calls|no dialogue|empty turn"
)
_MARKER = re.compile(
    r"<\|(?:im_start|im_end|user|assistant|system|eot_id|start_header_id|end_header_id|endoftext)\|>|\[/?INST\]|<<SYS>>"
    r"|\n\n(?:Human|Assistant):|\n### (?:Instruction|Response):"
)


def readable(patient: Patient, limits: Limits) -> Finding:
    """Records that no rule below looks at, since they could not be read."""
    return _refusals(
        patient,
        limits,
        "unreadable",
        [one for one in patient.refused if topic(one) == "unreadable"],
        "Every other record can be read." if patient.refused else "Every record can be read.",
        "cannot be read",
        "Correct these lines, or have them dropped.",
    )


def topic(refused: Refused) -> str:
    """The rule that a record which could not be read belongs to."""
    if refused.reason == "identical answers":
        return "identical_answers"
    if _EMPTY.search(refused.reason):
        return "empty_answers"
    return "chat_structure" if _CHAT.search(refused.reason) else "unreadable"


def size(patient: Patient, limits: Limits) -> Finding | None:
    """Whether there are as many records as the purpose asks for; prompts and labelled texts have no such line."""
    count = len(patient.entries)
    if patient.kind in ("comparisons", "ratings"):
        least = LEAST_COMPARISONS[limits.scope]
        distinct = len(patient.distinct_asked)
        severity = "warn" if count < least else "ok"
        return Finding(
            rule="size",
            severity=severity,
            message=f"{counted(count, patient.kind[:-1])} on {counted(distinct, 'prompt')}; a reward model of "
            f"{limits.scope} scope wants {least:,} or more.",
            remedy=""
            if severity == "ok"
            else "Expect wide intervals and an unreliable reward model; collect more, and let the learning curve on "
            "your own data say how many more.",
            figures={"records": count, "distinct_prompts": distinct, "wanted": least, "scope": limits.scope},
        )
    if patient.kind != "demonstrations":
        return None
    least, most = limits.demonstrations_least, limits.demonstrations_most
    beyond = f" Beyond {most:,} better ones help more than more of them." if count > most else ""
    return Finding(
        rule="size",
        severity="warn" if count < least else "ok",
        message=f"{counted(count, 'demonstration')}; {least:,} to {most:,} are the usual band.{beyond}",
        remedy="" if count >= least else "Fewer can do for a narrow style; for general skill collect more.",
        figures={"records": count, "least": least, "most": most},
    )


def prompt_diversity(patient: Patient, limits: Limits) -> Finding | None:
    """How varied prompts are: families of near copies, shared openings, distinct word pairs."""
    positions = [at for _, at in sorted(patient.distinct_asked.items())[:MOST_PROMPTS]]
    if len(positions) < 50 or patient.kind == "labelled texts":
        return None
    texts = [_last_question(patient.entries[at].prompt) or patient.asked[at] for at in positions]
    words = [_WORD.findall(text[: 16 * PROMPT_WORDS].lower())[:PROMPT_WORDS] for text in texts]
    grams = NGrams.of(words)
    family, members = Counter(
        families(len(texts), near_copies(shingles(texts), limits.near_copy)).tolist()
    ).most_common(1)[0]
    openings = Counter(" ".join(text[:4]) for text in words if len(text) >= 4)
    opening, opened = openings.most_common(1)[0] if openings else ("", 0)
    count = len(texts)
    share, opened_share = (members / count if members > 1 else 0.0), opened / count
    severity = "warn" if max(share, opened_share / 2) >= limits.opening_warn else "ok"
    parts = [
        f"{counted(count, 'distinct prompt')} looked at: {percent(grams.distinct(2))} of their word pairs are distinct"
    ]
    if opened > 1:
        parts.append(f"the commonest opening, {opening!r}, has {percent(opened_share)}")
    if members > 1:
        parts.append(f"the largest family of near copies has {percent(share)}")
    return Finding(
        rule="prompt_diversity",
        severity=severity,
        message="; ".join(parts) + ".",
        remedy=""
        if severity == "ok"
        else "Prompts from one mould teach that mould: thin out the family, add prompts from real use.",
        figures={
            "distinct_prompts": len(patient.distinct_asked),
            "looked_at": count,
            "distinct_2": grams.distinct(2),
            "largest_family_share": share,
            "commonest_opening": opening,
            "commonest_opening_share": opened_share,
        },
        examples=() if severity == "ok" else shown([(patient.source(positions[family]), texts[family])]),
    )


def chat_structure(patient: Patient, limits: Limits) -> Finding | None:
    """Turns out of order, chats without an answer, marks of a chat template inside an answer."""
    faults = [(one.source, one.fault) for one in patient.refused if topic(one) == "chat_structure"]
    kinds: Counter[str] = Counter({"cannot be read": len(faults)} if faults else {})
    chats = 0
    for at, entry in enumerate(patient.entries):
        roles = _roles(entry.prompt)
        chats += bool(roles)
        wrong = _out_of_order(roles)
        if not wrong and any("<" in t or "\n\n" in t or "[" in t or "###" in t for t in entry.answers):
            mark = next((m for text in entry.answers if (m := _MARKER.search(text))), None)
            wrong = f"the mark {mark[0].strip()} inside an answer" if mark else ""
        if wrong:
            kinds[wrong] += 1
            faults.append((patient.source(at), f"{wrong}: {patient.asked[at]}"))
    if not chats and not faults:
        return None
    share = len(faults) / patient.num_records
    figures = {"chats": chats, "faults": len(faults), "by_fault": dict(kinds)}
    if not faults:
        text = f"{counted(chats, 'chat')} take turns as they should."
        return Finding(rule="chat_structure", severity="ok", message=text, figures=figures)
    listed = ", ".join(f"{count:,} × {name}" for name, count in kinds.most_common(4))
    return Finding(
        rule="chat_structure",
        severity=graded(share, 0.0, limits.damage_error),
        message=f"{said(len(faults), 'record', 'is', 'are')} not built like a chat ({percent(share)}): {listed}.",
        remedy="Join turns of one speaker, move the system message to the front, cut the answer off where the next "
        "turn begins.",
        figures=figures,
        examples=shown(faults),
    )


def _refusals(
    patient: Patient, limits: Limits, rule: str, refused: list[Refused], healthy: str, fault: str, remedy: str
) -> Finding:
    share = len(refused) / patient.num_records
    reasons = Counter(re.sub(r"\[\d+\]", "", one.reason) for one in refused)
    if not refused:
        return Finding(rule=rule, severity="ok", message=healthy, figures={"records": 0, "by_reason": {}})
    listed = ", ".join(f"{count:,} × {reason}" for reason, count in reasons.most_common(4))
    return Finding(
        rule=rule,
        severity=graded(share, 0.0, limits.damage_error),
        message=f"{counted(len(refused), 'record')} {fault} ({percent(share)}): {listed}.",
        remedy=remedy,
        figures={"records": len(refused), "share": share, "by_reason": dict(reasons)},
        examples=shown((one.source, one.fault) for one in refused),
    )


def _roles(prompt: Prompt) -> list[str]:
    """Who speaks in turn, of chats and of HH dialogues."""
    if isinstance(prompt, str):
        if not prompt.startswith(hh.HUMAN):
            return []
        marks = re.findall(r"\n\n(Human|Assistant):", prompt)[:-1]  # the last one is open for the answer
        return ["user" if mark == "Human" else "assistant" for mark in marks]
    return roles_of(prompt)


def _out_of_order(roles: list[str]) -> str:
    """What is wrong with the turns before an answer; "" where nothing is."""
    if "system" in roles[1:]:
        return "a second system message" if roles[0] == "system" else "a system message in the middle"
    spoken = [role for role in roles if role != "system"]
    if spoken and spoken[0] != "user":
        return f"the first turn is the {spoken[0]}'s"
    for one, other in pairwise(spoken):
        if one == other and one != "tool":
            return f"two {one} turns in a row"
    if spoken and spoken[-1] == "assistant":
        return "two assistant turns in a row"
    return ""


def _last_question(prompt: Prompt) -> str:
    """What the user said last: of a chat the part that varies."""
    if isinstance(prompt, str):
        return prompt[prompt.rindex(hh.HUMAN) + len(hh.HUMAN) :] if prompt.startswith(hh.HUMAN) else prompt
    return next((turn.content for turn in reversed(prompt) if turn.role == "user"), "")
