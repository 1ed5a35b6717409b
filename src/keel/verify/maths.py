r"""The final answer of a solution, compared exactly: 72, \boxed{\frac{1}{2}}, #### 1,000, 50 %, -$3.50.

Numbers are fractions of integers, so 0.1 + 0.2 is 0.3. Nothing is evaluated. Every pattern takes time linear in the
text, however it was written.
"""

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from keel.verify.settings import MathsConfig
from keel.verify.verdict import Verdict

MARK = "####"
LONGEST_NUMBER = 200
"""Characters of a number; more is none, since arithmetic on it could take for ever."""
LARGEST_EXPONENT = 300

_SIGNS = str.maketrans({"−": "-", "–": "-", "﹣": "-", "＋": "+", "\u00a0": " ", "\u202f": " ", "\u2009": " "})
_CURRENCY = "$€£¥₹"
_NUMBER = re.compile(
    rf"(?:(?<![\w.)\]}}])[-+])?[{_CURRENCY}]?"  # no sign in "5-3"
    r"(?:\d{1,9}[ ](?=\d{1,9}[ ]?/[ ]?\d))?"  # of a mixed number
    r"(?:\d[\d,]*(?:\.\d+)?|(?<!\d)\.\d+)"
    r"(?:[eE][-+]?\d{1,4}(?!\w))?"
    r"(?:[ ]?/[ ]?\d+(?![\d.]))?"
    r"[ ]?%?",
    re.ASCII,
)
_GROUPED = re.compile(r"\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)", re.ASCII)
_PLAIN = re.compile(r"([-+]?)(\d*)(?:\.(\d*))?(?:[eE]([-+]?\d{1,4}))?", re.ASCII)
_FRACTION = re.compile(r"\\[dt]?frac(?:\{([^{}]*)\}\{([^{}]*)\}|(\d)(\d))")
_TIMES_TEN = re.compile(r" ?(?:\\times|\\cdot|×|\*) ?10 ?\^ ?\{? ?([-+]?\d{1,4}) ?\}?")
_POWER_OF_TEN = re.compile(r"([-+]?)10 ?\^ ?\{? ?([-+]?\d{1,4}) ?\}?", re.ASCII)
_UNIT = re.compile(r" ?(?![a-fi-kn-rt-z](?![A-Za-z])|(?:m|b|tr)illion|thousand|hundred|dozen)[A-Za-z°][A-Za-z°²³./ ]*")
"""Behind a number: clips, km/h, °C. A small letter alone is more likely a variable, but for g h l m s."""
_UNIT_POWER = re.compile(r"(?<=[A-Za-z]) ?\^ ?(?:[23]|\{[23]\})$")
_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf|operatorname) ?\{([^{}]*)\}")
_ANSWER_TAG = re.compile(r"<answer>([^<]*)</answer>")


def extract(text: str, how: str = "auto") -> str | None:
    """The final answer as written; None where there is none in the place that `how` names (`MathsConfig.extract`)."""
    if how in ("auto", "mark"):
        _, mark, behind = text.rpartition(MARK)
        line, _, further = (part.strip() for part in behind.strip().partition("\n"))
        heading = further and parse(line) is None  # of Markdown: #### Step 2
        if mark and line and (how == "mark" or not (heading or boxed(behind))):
            return line
    if how in ("auto", "boxed"):
        found = boxed(text)
        if found:
            return found
    if how == "auto" and (tagged := _ANSWER_TAG.findall(text)) and tagged[-1].strip():
        return tagged[-1].strip()
    return last_number(text) if how in ("auto", "last") else None


def boxed(text: str) -> str | None:
    r"""What stands in the last whole \boxed{}; braces inside are counted."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    for at in range(start + 6, len(text)):
        if text[at] == "{":
            depth += 1
        elif text[at] == "}":
            depth -= 1
            if depth == 0:
                return text[start + 7 : at].strip()
    return None


def last_number(text: str) -> str | None:
    """The last number in a text, with its sign, currency and percent sign."""
    found = None
    for found in _NUMBER.finditer(_plain_fractions(text.translate(_SIGNS))):  # noqa: B007 - the last one is wanted
        pass
    if found is None:
        return None
    number = found.group().strip()
    whole = number.strip("%-+ " + _CURRENCY).partition(".")[0].partition("/")[0].strip()
    if "," in whole and not _GROUPED.fullmatch(whole):  # a list: 1, 2, 3
        return number.rstrip(",").rpartition(",")[2]
    return number


def parse(text: str) -> tuple[Fraction, bool] | None:
    """The number that a short text is, and whether it stands in per cent; None where it is none.

    Takes thousands separators, currency signs, fractions (also LaTeX), mixed numbers, powers of ten, and units behind.
    """
    if len(text) > LONGEST_NUMBER:
        return None
    text = _cleaned(text)
    text, percent = (text[:-1].rstrip(), True) if text.endswith("%") else (text, False)
    value = _value(text)
    return None if value is None else (value, percent)


def _cleaned(text: str) -> str:
    text = text.translate(_SIGNS)
    text = _TIMES_TEN.sub(r"e\1", _TEXT.sub(r" \1", text))
    for mark in ("\\left", "\\right", "\\,", "\\!", "\\;", "\\ ", "\\(", "\\)", "\\[", "\\]", "*"):
        text = text.replace(mark, "")
    text = _plain_fractions(text.replace("{,}", ",").replace("\\%", "%"))
    text = text.replace("^\\circ", "°").replace("^{\\circ}", "°").replace("\\degree", "°")
    text = re.sub(rf"\\?[{_CURRENCY}]", "", text).strip()
    text = text.rpartition("=")[2] if text.count("=") == 1 else text  # x = 5
    text = " ".join(text.split()).rstrip(".,;:! ").strip()
    if text[:1] in "-+" and text[1:2] == " ":
        text = text[0] + text[2:]
    return _without_unit(text)


def _plain_fractions(text: str) -> str:
    """LaTeX fractions as 1/2."""
    return _FRACTION.sub(lambda m: f" {m[1] or m[3] or ''}/{m[2] or m[4] or ''}", text)


def _without_unit(text: str) -> str:
    """The text up to words behind a number: "72 clips", "5 km/h", "3 cm^2"; a lone word stays, and so does 5x."""
    text = _UNIT_POWER.sub("", text)
    if power := _POWER_OF_TEN.fullmatch(text):
        return f"{power[1]}1e{power[2]}"
    end = max((at for at, c in enumerate(text) if c in "0123456789%"), default=-1)
    behind = text[end + 1 :]
    if end >= 0 and behind and _UNIT.fullmatch(behind):
        return text[: end + 1]
    return text


def _value(text: str) -> Fraction | None:
    whole, space, rest = text.partition(" ")
    if space and "/" in rest and "/" not in whole:  # 1 1/2
        first, second = _decimal(whole), _ratio(rest.replace(" ", ""))
        if first is not None and second is not None and first.denominator == 1 and 0 <= second < 1:
            return first - second if whole.startswith("-") else first + second
    return _ratio(text.replace(" /", "/").replace("/ ", "/"))


def _ratio(text: str) -> Fraction | None:
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    above, slash, below = text.partition("/")
    top = _decimal(above)
    if not slash or top is None:
        return top
    bottom = _decimal(below)
    return None if not bottom else top / bottom


def _decimal(text: str) -> Fraction | None:
    text = text.strip()
    if "," in text or " " in text:
        head, dot, tail = text.lstrip("-+").partition(".")
        if not _GROUPED.fullmatch(head):
            return None
        text = ("-" if text.startswith("-") else "") + head.replace(",", "").replace(" ", "") + dot + tail
    match = _PLAIN.fullmatch(text)
    if match is None or not (match[2] or match[3]) or not text.isascii():
        return None
    exponent = int(match[4] or 0)
    if abs(exponent) > LARGEST_EXPONENT:
        return None
    digits, behind = match[2] or "0", match[3] or ""
    value = Fraction(int(digits + behind), 10 ** len(behind)) * Fraction(10) ** exponent
    return -value if match[1] == "-" else value


def same(answer: str, expected: str) -> bool:
    """Whether two final answers say the same. Per cent on one side only counts as its unit or as hundredths.

    Where both are no number, they are compared as text: case, spaces, dollar signs and a full stop do not count.
    """
    one, other = parse(answer), parse(expected)
    if one is None and other is None:
        return _as_text(answer) == _as_text(expected)
    if one is None or other is None:
        return False
    (a, a_percent), (b, b_percent) = one, other
    if a_percent == b_percent:
        return a == b
    bare, hundred = (b, a) if a_percent else (a, b)
    return bare in (hundred, hundred / 100)


def _as_text(text: str) -> str:
    for same_thing, plain in (
        ("\\dfrac", "\\frac"),
        ("\\tfrac", "\\frac"),
        ("\\left", ""),
        ("\\right", ""),
        ("\\,", ""),
    ):
        text = text.replace(same_thing, plain)
    return "".join(_TEXT.sub(r"\1", text).translate(_SIGNS).casefold().split()).strip("$.").replace("\\", "")


def gold(record: Mapping[str, Any]) -> str | None:
    """The final answer that a prompt's record gives: as it stands, or where a whole solution says it. None without one.

    A whole solution marks its answer (####, a box, answer tags), or goes over several lines and ends with a number.
    """
    found = record.get("answer")
    if isinstance(found, bool) or not isinstance(found, str | int | float):
        return None
    text = str(found).strip()
    if not text:
        return None
    solution = any(sign in text for sign in (MARK, "\\boxed", "<answer>", "\n"))
    return (extract(text) if solution else None) or text


def check(prompt: str, response: str, record: Mapping[str, Any], config: MathsConfig) -> Verdict:
    """1 for the right final answer, `form_share` for a wrong one in the wanted form, else 0."""
    expected = gold(record)
    if expected is None:
        raise ValueError("the record has no answer")
    found = extract(response, config.extract)
    if found is None:
        return Verdict(0.0, "no final answer")
    if same(found, expected):
        return Verdict(1.0, f"{found[:40]} is right")
    formed = config.extract in ("mark", "boxed") or MARK in response or "\\boxed{" in response
    return Verdict(config.form_share if formed else 0.0, f"{found[:40]} is not {expected[:40]}")
