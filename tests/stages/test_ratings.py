"""Ratings made ready for KTO: both kinds, each beside a response to another prompt."""

from collections import Counter

import pytest
from helpers.tiny import tiny_tokenizer

from keel.core.errors import DataError
from keel.data.records import Comparison, Rating, prompt_key
from keel.stages.encode import Fitting
from keel.stages.ratings import rated, rating_set, unrelated

PROMPTS = ["how is my parcel ?", "where is the cat ?", "is it late ?", "any news ?"]


def ratings(per_prompt: tuple[int, ...] = (1, 3, 2, 2)) -> list[Rating]:
    return [
        Rating(prompt, f" thank you {number} .", number % 2 == 0, source=f"set.jsonl:{number}")
        for prompt, count in zip(PROMPTS, per_prompt, strict=True)
        for number in range(count)
    ]


def fit(max_tokens: int = 64) -> Fitting:
    return Fitting(max_tokens=max_tokens, policy="left")


def test_every_response_is_unrelated_once_and_never_to_its_own_prompt():
    records = rated(ratings())
    keys = [prompt_key(record.prompt) for record in records]
    others = unrelated(keys, records, "training")
    assert sorted(others) == list(range(len(records)))
    assert all(keys[own] != keys[other] for own, other in enumerate(others))


def test_most_ratings_of_one_prompt_leave_too_few_others():
    with pytest.raises(DataError, match=r"5 of 8 held-out ratings answer one prompt \('how is my parcel"):
        rating_set(ratings((5, 1, 1, 1)), tiny_tokenizer(), fit(), "held-out")


@pytest.mark.parametrize(("desirable", "kind"), [(True, "up"), (False, "down")])
def test_ratings_that_are_all_alike_teach_nothing(desirable, kind):
    alike = [Rating(r.prompt, r.response, desirable, source=r.source) for r in ratings()]
    with pytest.raises(DataError, match=rf"all 8 training ratings are thumbs {kind} \(the first: set.jsonl:0\)"):
        rating_set(alike, tiny_tokenizer(), fit(), "training")


def test_a_comparison_is_two_ratings_and_a_tie_is_none():
    found = rated([Comparison("p", "a", "b", 0.75, weight=2.0), Comparison("q", "c", "d", 0.5)])
    assert [(r.response, r.desirable, r.weight) for r in found] == [("a", 0.75, 2.0), ("b", 0.25, 2.0)]


def test_the_rated_response_is_whole_and_only_the_unrelated_one_is_cut():
    records = [*ratings(), Rating(PROMPTS[0], " thank you" + " very much" * 10, True)]
    found = rating_set(records, tiny_tokenizer(), fit(40), "training")
    assert Counter(len(r.prompt) + len(r.unrelated) > 40 for r in found.ratings) == {False: len(found)}
    assert all(len(r.prompt) + len(r.response) <= 40 for r in found.ratings)
    assert [r.desirable for r in found.ratings] == [float(r.desirable) for r in records][: len(found)]
