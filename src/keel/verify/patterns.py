"""Form and wording: what a text holds, how long it is, how it ends, tags, JSON.

The regular expressions are the user's own and may take for ever on some text, so training runs `check_text` in a child
process with a time limit (`keel.stages.worker`).
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from keel.verify.settings import JsonConfig, JsonType, TagsConfig, TextConfig
from keel.verify.verdict import Verdict

CLOSING = "\"'”’»)]*_"
_FENCE = re.compile(r"```(?:json)?[ \t]*\n")

_TYPES: dict[JsonType, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def check_text(prompt: str, response: str, record: Any, config: TextConfig) -> Verdict:
    """Whether the conditions hold, all or the share of them."""
    wrong = [why for holds, why in _conditions(response, config) if not holds]
    asked = sum(1 for _ in _conditions("", config))
    score = 1 - len(wrong) / asked if config.credit == "share" else float(not wrong)
    return Verdict(score, "; ".join(wrong) or "all conditions hold")


def _conditions(response: str, config: TextConfig) -> Iterator[tuple[bool, str]]:
    flags = re.IGNORECASE if config.ignore_case else 0
    for pattern in config.must:
        yield re.search(pattern, response, flags) is not None, f"{pattern} is missing"
    for pattern in config.must_not:
        yield re.search(pattern, response, flags) is None, f"{pattern} is there"
    words = len(response.split())
    if config.least_words is not None:
        yield words >= config.least_words, f"{words} words, fewer than {config.least_words}"
    if config.most_words is not None:
        yield words <= config.most_words, f"{words} words, more than {config.most_words}"
    if config.ends_properly:
        yield ends_properly(response), "does not end properly"


def ends_properly(text: str) -> bool:
    """Whether a text ends with . ! or ?, behind which quotes and brackets may be closed."""
    return text.rstrip().rstrip(CLOSING).endswith((".", "!", "?", "…"))


def check_tags(prompt: str, response: str, record: Any, config: TagsConfig) -> Verdict:
    """1 when every tag is opened and closed once, in order, around something, and nothing stands where it may not."""
    at = 0
    for name in config.names:
        opening, closing = f"<{name}>", f"</{name}>"
        if response.count(opening) != 1 or response.count(closing) != 1:
            return Verdict(0.0, f"{opening}…{closing} is not there exactly once")
        start, end = response.find(opening), response.find(closing)
        if start < at or end < start:
            return Verdict(0.0, f"{opening}…{closing} is not in its place")
        if config.alone and response[at:start].strip():
            return Verdict(0.0, f"text before {opening}")
        if not response[start + len(opening) : end].strip():
            return Verdict(0.0, f"{opening}…{closing} is empty")
        at = end + len(closing)
    if config.alone and response[at:].strip():
        return Verdict(0.0, f"text after </{config.names[-1]}>")
    return Verdict(1.0, "in the wanted form")


def inside(response: str, name: str) -> str | None:
    """What stands in the last <name>…</name>; None without one."""
    end = response.rfind(f"</{name}>")
    start = response.rfind(f"<{name}>", 0, max(end, 0))
    return response[start + len(name) + 2 : end].strip() if 0 <= start < end else None


def check_json(prompt: str, response: str, record: Any, config: JsonConfig) -> Verdict:
    """1 for a JSON object with the wanted keys and types of values, alone or in one fenced block."""
    text = response.strip()
    if fenced := _FENCE.search(text):
        text = text[fenced.end() :].partition("```")[0]
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Verdict(0.0, f"no JSON: {str(error)[:80]}")
    if not isinstance(found, dict):
        return Verdict(0.0, "JSON, but no object")
    for key, kind in config.keys.items():
        if key not in found:
            return Verdict(0.0, f"has no key {key}")
        value = found[key]
        if kind != "any" and (not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
            return Verdict(0.0, f"{key} is no {kind}")
    if not config.others and set(found) - set(config.keys):
        return Verdict(0.0, f"has further keys: {', '.join(sorted(set(found) - set(config.keys)))[:80]}")
    return Verdict(1.0, "in the wanted form")
