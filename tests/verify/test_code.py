import math

import pytest

from keel.core.errors import DataError
from keel.verify.code import Block, Program, Values, check, extract_code, read_tests
from keel.verify.confined import plain
from keel.verify.sandbox import made
from keel.verify.settings import CodeConfig

SQUARE = "def f(x):\n    return x * x\n"
ANY = CodeConfig(require="any")  # so that these run on every system


def verdict(code, *tests, **settings):
    return check("", code, {"tests": list(tests)}, CodeConfig(**{"require": "any", **settings}))


def test_code_is_the_last_python_block_or_the_last_block_or_everything():
    two = "First:\n```python\na = 1\n```\nthen\n```\nout\n```\n"
    assert extract_code(two) == "a = 1\n"
    assert extract_code("```\nb = 2\n```") == "b = 2\n"
    assert extract_code("c = 3") == "c = 3"
    assert extract_code("```python\nd = 4") == "\nd = 4"[1:]


def test_an_assert_against_a_literal_is_compared_here_and_others_run_there():
    record = {
        "tests": [
            "assert f(2) == 4",
            "assert [1, {2}] == g()\nassert h == -1.5",
            "assert f(2)",
            {"input": "1", "output": "2"},
        ]
    }
    assert read_tests(record) == [
        Values(("f(2)",), (4,)),
        Values(("g()", "h"), ([1, {2}], -1.5)),
        Block("assert f(2)"),
        Program("1", "2"),
    ]


@pytest.mark.parametrize("found", [None, [], 3, [3], ["def"], [" "], [{"input": "1"}]])
def test_tests_that_are_none_are_refused(found):
    with pytest.raises(DataError):
        read_tests({"tests": found})


def test_right_code_passes_and_wrong_code_says_where():
    tests = ("assert f(2) == 4", "assert f(3) == 9", "assert isinstance(f(1), int)")
    assert verdict(SQUARE, *tests).score == 1
    wrong = verdict("def f(x):\n    return x + x\n", *tests, credit="share")
    assert wrong.score == pytest.approx(2 / 3)
    assert wrong.why == "2 of 3 tests; f(3) is not 9"
    assert verdict("def f(x) return", *tests).why.startswith("0 of 3 tests; the code fails: SyntaxError")
    assert verdict("", *tests).why == "no code"


def test_a_program_is_judged_by_what_it_prints():
    square = "print(int(input()) ** 2)"
    tests = ({"input": "3\n", "output": "9"}, {"input": "4", "output": "16\n\n"})
    assert verdict(square, *tests).score == 1
    assert verdict("print(9)", *tests, credit="share").score == 0.5
    assert verdict("raise ValueError", *tests).why == "0 of 2 tests; the program ends with status 1"
    assert verdict("print('x' * 10**6)", *tests, output_kib=4).why == "0 of 2 tests; printed more than 4 KiB"


def test_an_answer_may_use_classes_and_the_standard_library():
    code = (
        "import collections, dataclasses, functools, heapq, json, math, random, re, typing\n"
        "@dataclasses.dataclass\nclass A:\n    x: 'int'\n"
        "@functools.cache\ndef f(x):\n    return collections.Counter({A(x).x: 1})\n"
    )
    assert verdict(code, "assert f(2) == {2: 1}").why == "1 of 1 tests"


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        -(10**50),
        0.1,
        math.inf,
        2j,
        "é\ud800",
        b"\x00",
        [1, (2, {3}), frozenset()],
        {"a": {1: [None]}},
        {},
    ],
)
def test_a_value_comes_back_as_it_was(value):
    assert made(plain(value)) == value
    assert type(made(plain(value))) is type(value)


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"eval": "1"},
        {"int": 3},
        [1],
        3,
        {"int": "1", "float": "1"},
        {"dict": [1]},
        {"complex": []},
        {"ratio": ["1", "0"]},
    ],
)
def test_what_was_never_written_is_no_value(found):
    with pytest.raises(ValueError):
        made(found)


def test_exact_numbers_equal_their_literals_as_they_do_in_python():
    code = "from decimal import Decimal\nfrom fractions import Fraction\ndef f(x): return [Fraction(x, 2), Decimal(x)]"
    assert verdict(code, "assert f(8) == [4, 8]", "assert f(1) == [0.5, 1]").score == 1
    assert verdict(code, "assert f(8) == [4, 9]").score == 0


def test_what_is_not_made_of_pythons_own_types_cannot_be_compared():
    with pytest.raises(TypeError, match="a object cannot be compared with a literal"):
        plain([object()])
    deep: list = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(TypeError, match="nested too deeply"):
        plain(deep)


def test_the_same_answer_gets_the_same_verdict_however_its_sets_are_ordered():
    code = "def f():\n    return list({'a', 'b', 'c', 'd', 'e'})\n"
    first = verdict(code, "assert f() == ['a']").score
    assert [verdict(code, "assert f() == ['a']").score for _ in range(2)] == [first] * 2
