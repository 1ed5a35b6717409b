"""Readers of what annotation vendors deliver: Scale's tasks, Surge's tasks, and the HelpSteer sets that Scale made.

Field names are those of the vendors' public documentation: docs.genai.scale.com (core resources, RLHF archetype),
app.surgehq.ai/docs/api and the surge-api package (tasks, responses), and the cards of nvidia/HelpSteer2 and 3.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from keel.data import fields, votes
from keel.data.dialect import keys_beside
from keel.data.pairs import identical
from keel.data.records import Choice, Comparison, Prompt, Vote
from keel.data.rows import RecordError, Row, Values

SELECTED = "selected_model_id"
PAIR_NAMES = tuple(
    (f"{word}_{one}", f"{word}_{two}")
    for word in ("response", "completion", "answer", "output")
    for one, two in (("a", "b"), ("1", "2"))
)
"""What the two responses of a Surge task may be called in its fields."""

_SIDE = re.compile(
    r"(?:response|completion|answer|output|option|model)?[ _]?(?P<side>[ab]|(?<=[ _])[12])"
    r"(?: is)?(?: (?P<how>slightly|significantly|much|far))?(?: better)?\.?"
)
_TIES = {"tie", "same", "about the same", "equal", "equally good", "both equally good", "no preference"}
_BOTH_BAD = {"both bad", "both_bad", "neither", "neither is good", "equally bad", "both equally bad"}
STRENGTHS = {"slightly": 1.0, "": None, "significantly": 3.0, "much": 3.0, "far": 3.0}


def unfold_scale(row: Row) -> list[Row]:
    """Every turn of a Scale RLHF task with a selected answer, as rows of the format preference.

    The selected answer stands against each other one of the turn, and later turns continue with it. What else the task
    says, the other annotations among it, stands in columns of its own in each of the rows.
    """
    beside = {name: value for name, value in row.values.items() if name != "threads"}
    unfolded: list[Row] = []
    for thread_number, thread in enumerate(_objects(row, "threads", fields.value(row, "threads"))):
        chat: list[dict[str, str]] = []
        turns_name = f"threads[{thread_number}].turns"
        for number, turn in enumerate(_objects(row, turns_name, thread.get("turns"))):
            name = f"{turns_name}[{number}]"
            messages = _objects(row, f"{name}.messages", turn.get("messages"))
            answers = [message for message in messages if message.get("role") == "assistant"]
            chat += [_scale_message(row, name, message) for message in messages if message.get("role") != "assistant"]
            chosen = _selected(row, name, turn, answers)
            if chosen is None:
                continue
            best = _scale_message(row, name, chosen)
            others = [note for note in turn["annotations"] if note.get("key") != SELECTED]
            for answer in answers:
                if answer is not chosen:
                    columns = {
                        "prompt": list(chat),
                        "chosen": [best],
                        "rejected": [_scale_message(row, name, answer)],
                        "chosen_model": str(chosen.get("source_id") or ""),
                        "rejected_model": str(answer.get("source_id") or ""),
                        "annotations": others,
                        "chosen_annotations": chosen.get("annotations") or [],
                        "rejected_annotations": answer.get("annotations") or [],
                    }
                    unfolded.append(Row(row.place, beside | columns))
            chat.append(best)
    if not unfolded:
        raise RecordError(
            row.place, "no answers compared", f"no turn of the task has two answers and an annotation {SELECTED}."
        )
    return unfolded


def read_surge(row: Row) -> Comparison:
    """A Surge task: prompt and two responses in `fields`, one answer a worker in `responses[].data`."""
    task = fields.value(row, "fields")
    if not isinstance(task, Mapping):
        raise fields.wrong_type(row, "fields", task, "an object with the task's prompt and two responses")
    pair = next((names for names in PAIR_NAMES if all(name in task for name in names)), None)
    if pair is None or "prompt" not in task:
        known = " or ".join("/".join(names) for names in PAIR_NAMES[:4])
        raise RecordError(
            row.place,
            "task without a pair",
            f"fields has {', '.join(task)}; prompt and a pair such as {known} were expected. Map your own names, for "
            "example columns: {prompt: fields.question, response_a: fields.left, response_b: fields.right}, with "
            "format: comparison and a column preference.",
        )
    inside = Row(row.place, task)
    prompt, a, b = fields.prompt(inside, "prompt"), fields.answer(inside, pair[0]), fields.answer(inside, pair[1])
    cast = tuple(_surge_votes(row))
    share = votes.share(cast)
    if share is None:
        raise RecordError(row.place, "no votes", "no worker answered this task, or all skipped.", harmless=True)
    if a == b and share != 0.5:
        raise identical(row, " and ".join(pair))
    return Comparison(prompt, a, b, share, votes=cast, source=row.place.source)


def unread_in_surge(values: Values) -> list[str]:
    """What a Surge task holds besides prompt, pair, workers and their verdicts."""
    task = values.get("fields")
    names = ("prompt", *next((pair for pair in PAIR_NAMES if isinstance(task, Mapping) and pair[0] in task), ()))
    inside = [f"fields.{name}" for name in keys_beside([task], names)]
    inside += [f"responses[].{name}" for name in keys_beside(values.get("responses"), ("data", "worker_id"))]
    data = [response.get("data") for response in values["responses"] if isinstance(response, Mapping)]
    answers = [(question, answer) for one in data if isinstance(one, Mapping) for question, answer in one.items()]
    told = dict.fromkeys(str(question) for question, answer in answers if answer and _verdict(answer) is None)
    return inside + [f"answers to {question!r}" for question in told]


def read_helpsteer(prompt_name: str, names: tuple[str, str], verdict: str) -> Any:
    """Reader of a prompt, two responses and a verdict from -3 (the first is much better) to 3 (the second is)."""

    def read(row: Row) -> Comparison:
        prompt: Prompt = fields.prompt(row, prompt_name)
        a, b = fields.answer(row, names[0]), fields.answer(row, names[1])
        score = fields.checked_number(row, verdict, fields.value(row, verdict))
        if not -3 <= score <= 3:
            raise RecordError(
                row.place,
                f"{verdict} out of range",
                f"{verdict} is {score:g}; -3 (the first response is much better) to 3 was expected.",
            )
        if a == b and score:
            raise identical(row, " and ".join(names))
        choice: Choice = "a" if score < 0 else "b" if score > 0 else "tie"
        cast = (Vote("overall", choice, abs(score)),)
        return Comparison(prompt, a, b, votes.SHARE[choice], votes=cast, source=row.place.source)

    return read


def _selected(
    row: Row, name: str, turn: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """The answer that the annotation of the turn names by its source; None where nothing was compared."""
    annotations = _objects(row, f"{name}.annotations", turn.get("annotations") or [])
    values = [annotation.get("value") for annotation in annotations if annotation.get("key") == SELECTED]
    if len(answers) < 2 or not values:
        return None
    found = [answer for answer in answers if answer.get("source_id") == values[0]]
    if len(found) != 1:
        sources = ", ".join(str(answer.get("source_id")) for answer in answers)
        raise RecordError(
            row.place,
            "selected answer not there",
            f"{name}: {SELECTED} is {values[0]!r}, and the answers come from {sources}; one of these was expected.",
        )
    return found[0]


def _scale_message(row: Row, name: str, message: Mapping[str, Any]) -> dict[str, str]:
    content = message.get("content")
    text = content.get("text") if isinstance(content, Mapping) else content
    role = str(message.get("role"))
    return {"role": role, "content": fields.checked_text(row, f"{name}, text of the {role} message", text)}


def _surge_votes(row: Row) -> Iterator[Vote]:
    for number, response in enumerate(_objects(row, "responses", fields.value(row, "responses"))):
        name = f"responses[{number}]"
        data = response.get("data")
        if not isinstance(data, Mapping):
            raise fields.wrong_type(row, f"{name}.data", data, "an object with questions and answers")
        read = {str(question): vote for question, answer in data.items() if (vote := _verdict(answer))}
        if len(read) != 1:
            found = f"{len(read)} of the answers ({', '.join(read)})" if read else "none of the answers"
            raise RecordError(
                row.place,
                "which question compares",
                f"{name}.data has the questions {', '.join(map(str, data))}; {found} says which response is better "
                '("Response A", "B is much better", "Tie" ...). Keep the one question that compares, or map columns.',
            )
        ((choice, strength),) = read.values()
        yield Vote(str(response.get("worker_id") or f"response {number + 1}"), choice, strength)


def _verdict(answer: Any) -> tuple[Choice, float | None] | None:
    """What an answer in words says of two responses; None where it says nothing."""
    if not isinstance(answer, str):
        return None
    words = " ".join(answer.lower().split())
    if words in _TIES:
        return "tie", None
    if words in _BOTH_BAD:
        return "both_bad", None
    if words == "skip":
        return "skip", None
    match = _SIDE.fullmatch(words)
    if not match:
        return None
    return ("a" if match["side"] in "a1" else "b"), STRENGTHS[match["how"] or ""]


def _objects(row: Row, name: str, found: Any) -> list[Mapping[str, Any]]:
    if not isinstance(found, Sequence) or isinstance(found, str) or not all(isinstance(i, Mapping) for i in found):
        raise fields.wrong_type(row, name, found, "a list of objects")
    return list(found)
