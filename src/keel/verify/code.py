"""Does a response's Python pass the prompt's tests? Run in `keel.verify.sandbox`, judged here.

What a test expects stays in this process wherever it can: of `assert f(2) == 4` only `f(2)` goes to the code, whose
value comes back and is compared here, so that code cannot pass by changing what equality means, by ending early, or by
reading the answer. Tests of {input, output} are compared here as well. Any other test runs beside the code, and passes
only when it hands back a password that it can read once it has run; code written to cheat that very check can.
"""

import ast
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keel.core.errors import DataError
from keel.verify.confined import PASSWORD_BYTES
from keel.verify.sandbox import Ended, Limits, confined, made
from keel.verify.settings import CodeConfig
from keel.verify.verdict import Verdict

_FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[^\n]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Program:
    """A test of a whole program: what it reads, and what it has to print."""

    given: str
    printed: str


@dataclass(frozen=True, slots=True)
class Values:
    """A test of values: expressions, and what each has to be."""

    expressions: tuple[str, ...]
    expected: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """Any other test: it passes when it raises nothing."""

    source: str


Test = Program | Values | Block


def extract_code(response: str) -> str:
    """The last fenced block marked as Python, else the last fenced block, else the whole response."""
    fences = list(_FENCE.finditer(response))
    blocks = [
        (
            fences[at][1].lower(),
            response[fences[at].end() + 1 : fences[at + 1].start() if at + 1 < len(fences) else None],
        )
        for at in range(0, len(fences), 2)
    ]
    for name, code in reversed(blocks):
        if name in ("python", "py", "python3"):
            return code
    return blocks[-1][1] if blocks else response


def read_tests(record: Mapping[str, Any]) -> list[Test]:
    """The tests of a prompt's record. DataError where there are none or they are no Python."""
    found = record.get("tests")
    listed = [found] if isinstance(found, str | Mapping) else found
    if not isinstance(listed, Sequence) or not listed:
        raise DataError(
            f"a prompt has no tests (found: {found!r:.60}). Give each a list `tests` of asserts, "
            "or of {input, output}; a column of another name is mapped with columns: {tests: <its name>}."
        )
    return [_test(one) for one in listed]


def _test(found: Any) -> Test:
    if isinstance(found, Mapping) and isinstance(found.get("output"), str):
        return Program(str(found.get("input") or ""), found["output"])
    if not isinstance(found, str) or not found.strip():
        raise DataError(f"a test is {found!r:.60}; Python source or {{input, output}} was expected.")
    try:
        body = ast.parse(found).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"a test is no Python ({error}): {found[:60]!r}. Correct it or drop the prompt.") from error
    pieces = [_value(found, statement) for statement in body]
    known = [piece for piece in pieces if piece is not None]
    if pieces and len(known) == len(pieces):
        return Values(tuple(piece[0] for piece in known), tuple(piece[1] for piece in known))
    return Block(found)


def _value(source: str, statement: ast.stmt) -> tuple[str, Any] | None:
    """Expression and literal of `assert expression == literal`, in either order; None for anything else."""
    if not isinstance(statement, ast.Assert) or not isinstance(statement.test, ast.Compare):
        return None
    compared = statement.test
    if len(compared.ops) != 1 or not isinstance(compared.ops[0], ast.Eq):
        return None
    for one, other in ((compared.left, compared.comparators[0]), (compared.comparators[0], compared.left)):
        try:
            expected = ast.literal_eval(other)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            continue
        return ast.unparse(one), expected
    return None


def check(prompt: str, response: str, record: Mapping[str, Any], config: CodeConfig) -> Verdict:
    """1 when the code passes every test, or the share that passes (`CodeConfig.credit`)."""
    tests, code = read_tests(record), extract_code(response)
    if not code.strip():
        return Verdict(0.0, "no code")
    limits = Limits(
        seconds=config.seconds,
        memory_bytes=config.memory_mib * 2**20,
        output_bytes=config.output_kib * 2**10,
        kernel=config.require == "kernel",
    )
    passed, why, left = 0, "", config.seconds
    inside = [(number, test) for number, test in enumerate(tests) if not isinstance(test, Program)]
    if inside:
        good, why, ended = _beside(code, inside, limits)
        passed, left = good, left - ended.seconds
    for test in tests:
        if not isinstance(test, Program) or (why and config.credit == "all"):
            continue
        fault, ended = _program(code, test, limits, max(left, 0.01))
        passed, why, left = passed + (not fault), why or fault, left - ended.seconds
    score = passed / len(tests) if config.credit == "share" else float(passed == len(tests))
    return Verdict(score, f"{passed} of {len(tests)} tests" + (f"; {why}" if why else ""))


def _beside(code: str, tests: Sequence[tuple[int, Test]], limits: Limits) -> tuple[int, str, Ended]:
    """How many tests pass that run in the code's own process, and what was wrong with the first other."""
    values = {number: test for number, test in tests if isinstance(test, Values)}
    blocks = {number: test for number, test in tests if isinstance(test, Block)}
    passwords = {number: secrets.token_hex(PASSWORD_BYTES // 2) for number in blocks}
    job = {
        "mode": "tests",
        "code": code,
        "values": [[number, list(test.expressions)] for number, test in values.items()],
        "blocks": [[number, test.source] for number, test in blocks.items()],
    }
    ended = confined(job, "".join(passwords.values()).encode(), limits)
    lines = ended.lines()
    passed, why = 0, ""
    for number, test in tests:
        if isinstance(test, Values):
            fault = _wrong_value(number, test, lines)
        else:
            right = any(line.get("test") == number and line.get("password") == passwords[number] for line in lines)
            fault = "" if right else _said(number, lines)
        passed, why = passed + (not fault), why or fault
    broken = next((line["broken"] for line in lines if "broken" in line and "test" not in line), None)
    if why and (ended.stopped or broken):
        why = ended.stopped or f"the code fails: {broken}"
    return passed, why, ended


def _wrong_value(number: int, test: Values, lines: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong with the values of a test; empty when they are as expected."""
    for place, expected in enumerate(test.expected):
        said = [line for line in lines if line.get("test") == number and line.get("piece") == place]
        if len(said) != 1 or "value" not in said[0]:
            return _said(number, said)
        try:
            right = bool(made(said[0]["value"]) == expected)
        except (ValueError, RecursionError, OverflowError):
            right = False
        if not right:
            return f"{test.expressions[place][:40]} is not {expected!r:.40}"
    return ""


def _said(number: int, lines: Sequence[Mapping[str, Any]]) -> str:
    broken = next((line["broken"] for line in lines if line.get("test") == number and "broken" in line), None)
    return f"test {number + 1} fails: {broken}" if broken else f"test {number + 1} never ended"


def _program(code: str, test: Program, limits: Limits, seconds: float) -> tuple[str, Ended]:
    """What is wrong with what a program prints; empty when it prints what it should."""
    allowed = Limits(
        seconds=seconds, memory_bytes=limits.memory_bytes, output_bytes=limits.output_bytes, kernel=limits.kernel
    )
    ended = confined({"mode": "script", "code": code}, test.given.encode(), allowed)
    if ended.stopped:
        return ended.stopped, ended
    if ended.status:
        return f"the program ends with status {ended.status}", ended
    if _lines(ended.output.decode("utf-8", "replace")) != _lines(test.printed):
        return f"prints {ended.output[:40]!r}", ended
    return "", ended


def _lines(text: str) -> list[str]:
    """Lines without the white space that nobody sees at their ends and below the last."""
    return [line.rstrip() for line in text.rstrip().splitlines()]
