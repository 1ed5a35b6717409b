import pytest
from pydantic import ValidationError

from keel.verify.patterns import check_json, check_tags, check_text, ends_properly, inside
from keel.verify.settings import JsonConfig, TagsConfig, TextConfig


def text(response, **settings):
    return check_text("", response, {}, TextConfig(**settings))


@pytest.mark.parametrize(
    ("response", "proper"),
    [
        ("It ends.", True),
        ('"Yes!" ', True),
        ("(So.)", True),
        ("it ends", False),
        ("", False),
        ("no,", False),
        ("“Oh…”", True),
    ],
)
def test_a_text_ends_properly_with_a_full_stop_or_its_like(response, proper):
    assert ends_properly(response) is proper


def test_all_conditions_have_to_hold_or_their_share_is_paid():
    asked = {"must": (r"\bdog", "ran"), "must_not": ("cat",), "ends_properly": True}
    assert text("The dog ran.", **asked).score == 1
    assert text("The dog ran", **asked).score == 0
    assert text("The cat ran", **asked, credit="share").score == 0.25
    assert text("The cat ran", **asked).why == r"\bdog is missing; cat is there; does not end properly"


def test_capitals_count_only_when_told():
    assert text("Dog", must=("dog",)).score == 1
    assert text("Dog", must=("dog",), ignore_case=False).score == 0


@pytest.mark.parametrize(("response", "score"), [("a", 0), ("a b", 1), ("a b c", 1), ("a b c d", 0)])
def test_words_are_counted(response, score):
    assert text(response, least_words=2, most_words=3).score == score


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "asks nothing"),
        ({"must": ("(",)}, "is no regular expression"),
        ({"least_words": 3, "most_words": 2}, "is more than"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, said):
    with pytest.raises(ValidationError, match=said):
        TextConfig(**settings)


@pytest.mark.parametrize(
    ("response", "score"),
    [
        ("<think>a</think><answer>b</answer>", 1),
        (" <think>a</think>\n<answer>b</answer>\n", 1),
        ("<think></think><answer>b</answer>", 0),
        ("<answer>b</answer><think>a</think>", 0),
        ("<think>a<answer>b</answer></think>", 0),
        ("<think>a</think><answer>b</answer><answer>b</answer>", 0),
        ("so <think>a</think><answer>b</answer>", 0),
        ("<think>a</think><answer>b</answer> so", 0),
        ("<think>a</think> b", 0),
        ("", 0),
    ],
)
def test_tags_stand_once_in_order_around_something(response, score):
    assert check_tags("", response, {}, TagsConfig()).score == score


def test_text_outside_the_tags_can_be_allowed():
    assert check_tags("", "so <think>a</think> and <answer>b</answer>!", {}, TagsConfig(alone=False)).score == 1
    assert inside("<answer>a</answer> <answer> b </answer>", "answer") == "b"
    assert inside("</answer><answer>", "answer") is None


@pytest.mark.parametrize(
    ("response", "score"),
    [
        ('{"name": "a", "age": 3}', 1),
        ('```json\n{"name": "a", "age": 3, "more": null}\n```', 1),
        ('{"name": "a", "age": true}', 0),
        ('{"name": "a", "age": 3.5}', 0),
        ('{"name": "a"}', 0),
        ("[1]", 0),
        ("name: a", 0),
        ("[" * 100_000, 0),
    ],
)
def test_json_has_the_wanted_keys_and_types(response, score):
    config = JsonConfig(keys={"name": "string", "age": "integer"})
    assert check_json("", response, {}, config).score == score


def test_further_keys_can_be_refused():
    assert (
        check_json("", '{"a": 1, "b": 2}', {}, JsonConfig(keys={"a": "any"}, others=False)).why == "has further keys: b"
    )
