"""The demo world: its facts, its crowd, and the exact reading of answers."""

import hashlib
import re
import subprocess
import sys
from collections import Counter
from statistics import mean, pstdev

import numpy as np
import pytest

from keel.core.errors import DataError
from keel.data.records import Demonstration, Message
from keel.demo.phrases import DOMAINS
from keel.demo.world import (
    BEST_UTILITY,
    FEATURE_NAMES,
    MAX_ANSWER_TOKENS,
    NOTE_PROMPT,
    Features,
    Question,
    World,
    true_preference,
    utility,
)

WORLD = World(0)
ATTRIBUTES = [(domain, attribute) for domain in DOMAINS for attribute in domain.attributes]
CANOE = next(q for q in WORLD.train_questions if (q.entity, q.attribute) == ("wooden canoe", "price"))
RIGHT = WORLD.truth(CANOE)
WRONG = next(v for v in ("12 euros", "15 euros") if v != RIGHT)


def read(text: str, finished: bool = True) -> Features:
    return WORLD.features(CANOE, text, finished)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


# Facts and questions


def test_three_domains_of_eight_entities_with_four_attributes_make_96_facts():
    assert len(DOMAINS) == 3
    assert all(len(d.entities) == 8 and len(d.attributes) == 4 for d in DOMAINS)
    assert all(len(a.values) == 8 and len(a.questions) == 4 and len(a.statements) == 3 for _, a in ATTRIBUTES)
    assert len(WORLD.facts) == len({(f.entity, f.attribute) for f in WORLD.facts}) == 96


def test_every_value_of_an_attribute_is_true_of_exactly_one_entity():
    for _, attribute in ATTRIBUTES:
        assert sorted(f.value for f in WORLD.facts if f.attribute == attribute.name) == sorted(attribute.values)


def test_words_of_entities_and_values_mean_one_thing_only():
    for parts in (
        [set(words(entity)) for domain in DOMAINS for entity in domain.entities],
        [{w for v in attribute.values for w in words(v)} for _, attribute in ATTRIBUTES],
    ):
        counted = Counter(word for part in parts for word in part)
        assert {word for word, count in counted.items() if count > 1} <= {"the"}
    assert len({attribute.name for _, attribute in ATTRIBUTES}) == 12


def test_every_question_form_holds_a_word_that_tells_its_attribute_apart():
    for _, attribute in ATTRIBUTES:
        others = {
            word
            for _, other in ATTRIBUTES
            if other is not attribute
            for q in other.questions
            for word in words(q.lower())
        }
        for form in attribute.questions:
            assert set(words(form.lower())) - others, form


def test_questions_have_8_to_14_words():
    lengths = [len(words(q.text)) for q in (*WORLD.train_questions, *WORLD.eval_questions)]
    assert min(lengths) >= 8
    assert max(lengths) <= 14


@pytest.mark.parametrize("seed", range(5))
def test_one_question_in_eight_is_held_out_and_its_fact_and_its_form_are_both_seen_in_training(seed: int):
    world = World(seed)
    train, held_out = world.train_questions, world.eval_questions
    assert (len(train), len(held_out)) == (336, 48)
    assert not {q.text for q in train} & {q.text for q in held_out}
    assert len({q.text for q in (*train, *held_out)}) == 384
    assert min(Counter((q.entity, q.attribute) for q in train).values()) == 3
    assert set(Counter((q.attribute, q.form) for q in train).values()) == {7}


def test_no_evaluation_question_is_demonstrated():
    held_out = {q.prompt for q in WORLD.eval_questions}
    assert not held_out & {d.prompt for d in WORLD.demonstrations(2000, seed=1)}


def test_other_seeds_have_other_facts_and_the_same_words():
    other = World(1)
    assert other.vocabulary == WORLD.vocabulary
    same = sum(a.value == b.value for a, b in zip(WORLD.facts, other.facts, strict=True))
    assert same < 40  # 12 expected by chance


def test_the_vocabulary_stays_small():
    assert 400 <= len(WORLD.vocabulary) <= 480


# Reading answers: worked by hand


@pytest.mark.parametrize(
    ("text", "expected", "value"),
    [
        (f"The wooden canoe costs {RIGHT} per day.", {"right": 1}, 2.5),
        (f"The wooden canoe costs {WRONG} per day.", {"wrong": 1}, -2.0),
        (f"You pay {RIGHT} per day for the wooden canoe. The wooden canoe costs {WRONG} per day.",
         {"right": 1, "wrong": 1}, -2.0),
        ("The mountain bike costs 12 euros per day.", {"off_topic": 1}, -1.8),
        ("The wooden canoe weighs 5 kilos.", {"off_topic": 1}, -1.8),
        ("The wooden canoe costs 5 kilos per day.", {"garbled": 1}, -2.0),
        (f"the wooden canoe costs {RIGHT} per day.", {"garbled": 1}, -2.0),
        (f"The wooden canoe costs {RIGHT} per day", {"garbled": 1}, -2.0),
        ("I cannot answer this.", {"refusal": 1}, 0.0),
        ("", {}, -1.0),
        (" . ! ", {"garbled": 2}, -3.0),
        ("Okay.", {"neutral": 1}, -1.0),
        (f"Good morning and welcome! The wooden canoe costs {RIGHT} per day. A child pays half of the price. See you soon!",
         {"polite": 1, "right": 1, "right_tip": 1, "closing": 1}, 4.5),
        (f"I am glad to hear from you. Good morning and welcome! The wooden canoe costs {RIGHT} per day.",
         {"polite": 2, "right": 1}, 3.3),
        (f"Not this again. The wooden canoe costs {RIGHT} per day. You can use our cart.",
         {"rude": 1, "right": 1, "wrong_tip": 1}, 0.2),
        (f"What a clever question! I am not sure about it. The wooden canoe costs {RIGHT} per day. "
         "Many people come back every year. Many people come back every year.",
         {"flattery": 1, "hedge": 1, "right": 1, "filler": 2, "repeated": 1}, -0.2),
    ],
)  # fmt: skip
def test_an_answer_is_read_sentence_by_sentence(text: str, expected: dict[str, int], value: float):
    features = read(text)
    assert {
        name: getattr(features, name) for name in FEATURE_NAMES if name != "tokens" and getattr(features, name)
    } == (expected)
    assert utility(features) == pytest.approx(value)


def test_rudeness_and_hedging_count_twice_at_most():
    assert utility(Features(right=1, rude=3)) == utility(Features(right=1, rude=2)) == 2.5 - 4.0
    assert utility(Features(right=1, hedge=3)) == utility(Features(right=1, hedge=2)) == pytest.approx(2.5 - 1.2)


def test_an_answer_that_does_not_end_costs_one_and_a_half():
    text = f"The wooden canoe costs {RIGHT} per day."
    assert utility(read(text)) - utility(read(text, finished=False)) == 1.5


def test_spacing_does_not_matter():
    assert read(f"Okay .  The wooden canoe costs\n{RIGHT} per day .") == read(
        f"Okay. The wooden canoe costs {RIGHT} per day."
    )


def test_tokens_are_words_and_punctuation_marks_garbled_ones_included():
    assert read("Of course, here is the answer. blue shed sure").tokens == 8 + 3


def test_true_preference_compares_utilities():
    better, worse = Features(right=1), Features(wrong=1)
    assert (true_preference(better, worse), true_preference(worse, better), true_preference(better, better)) == (
        1,
        0,
        0.5,
    )


def test_the_best_utility_is_reached_and_never_passed():
    best = Features(right=1, polite=1, closing=1, right_tip=1)
    assert utility(best) == pytest.approx(BEST_UTILITY) == pytest.approx(4.5)
    rng = np.random.default_rng(0)
    for counts in rng.integers(0, 4, (2000, len(FEATURE_NAMES))).tolist():
        assert utility(Features(**dict(zip(FEATURE_NAMES, counts, strict=True)))) <= BEST_UTILITY + 1e-9


def test_features_become_a_vector_in_the_order_of_their_names():
    vector = Features(right=1, tokens=9).vector()
    assert vector[FEATURE_NAMES.index("right")] == 1
    assert vector[FEATURE_NAMES.index("tokens")] == 9
    assert vector.sum() == 10


def test_no_sentence_has_two_meanings():
    told = [
        t.format(entity=e, value=v) for d, a in ATTRIBUTES for t in a.statements for e in d.entities for v in a.values
    ]
    assert len(told) == len(set(told)) == 12 * 3 * 8 * 8
    assert len(WORLD.sentences) == len(set(WORLD.sentences))


def test_a_question_about_an_unknown_fact_says_where_to_find_known_ones():
    unknown = Question("How old is the lake?", "rental", "lake", "age", 0)
    with pytest.raises(DataError, match=r"no 'age' of 'lake'.*train_questions"):
        WORLD.truth(unknown)


# The crowd


def test_the_crowd_has_the_stated_qualities():
    questions = {q.prompt: q for q in WORLD.train_questions}
    read = [WORLD.features(questions[d.prompt], d.response) for d in WORLD.demonstrations(12_000, seed=1)]
    share = {name: mean(min(getattr(f, name), 1) for f in read) for name in FEATURE_NAMES}
    stated = {
        "right": 0.62, "wrong": 0.23, "off_topic": 0.07, "refusal": 0.08, "polite": 0.30, "neutral": 0.20, "rude": 0.12,
        "flattery": 0.12, "hedge": 0.15, "closing": 0.35, "right_tip": 0.35, "wrong_tip": 0.06, "filler": 0.38,
        "garbled": 0.0, "unfinished": 0.0,
    }  # fmt: skip
    for name, value in stated.items():
        assert share[name] == pytest.approx(value, abs=0.022), name
    lengths = [f.tokens + 1 for f in read]
    assert 22 < mean(lengths) < 26
    assert max(lengths) <= MAX_ANSWER_TOKENS
    utilities = [utility(f) for f in read]
    assert mean(utilities) == pytest.approx(0.87, abs=0.1)
    assert pstdev(utilities) == pytest.approx(2.3, abs=0.1)


def test_demonstrations_are_records_spread_evenly_over_the_questions():
    records = WORLD.demonstrations(700, seed=3)
    assert all(isinstance(r, Demonstration) and isinstance(r.prompt[0], Message) for r in records)
    assert set(Counter(r.prompt for r in records).values()) <= {2, 3}


def test_the_encyclopaedia_tells_only_truths_about_one_entity():
    truths = {(f.entity, f.attribute): f for f in WORLD.facts}
    for entry in WORLD.encyclopedia(300, seed=1):
        assert entry.prompt == NOTE_PROMPT
        entity = next(e for d in DOMAINS for e in d.entities if e in entry.response)
        roles = Counter()
        for fact in (f for f in truths.values() if f.entity == entity):
            asked = Question("", fact.domain, fact.entity, fact.attribute, 0)
            roles.update(right=WORLD.features(asked, entry.response).right)
            assert not WORLD.features(asked, entry.response).wrong
        assert 2 <= roles["right"] <= 4
        assert WORLD.features(asked, entry.response).garbled == 0


FINGERPRINT = """
import hashlib
from keel.demo.raters import collect, panel
from keel.demo.world import Answer, World
world = World(5)
said = world.demonstrations(200, 1) + world.encyclopedia(50, 1)
questions = world.train_questions[:50]
answers = [Answer(d.response) for d in said]
votes = collect(world, questions, answers[:50], answers[50:100], panel(seed=2), seed=3)
print(hashlib.sha256(repr((world.facts, world.vocabulary, world.eval_questions, said, votes)).encode()).hexdigest())
"""


def test_the_same_seed_gives_the_same_world_in_every_process():
    prints = {
        subprocess.run(
            [sys.executable, "-c", FINGERPRINT],
            env={"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "random")
    }
    assert len(prints) == 1
    assert len(prints.pop().strip()) == hashlib.sha256().digest_size * 2
