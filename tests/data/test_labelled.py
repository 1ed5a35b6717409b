import random

from keel.data.labelled import pair_texts
from keel.data.records import LabelledText
from keel.data.split import split

TEXTS = [LabelledText(f"text number {i}", i % 3 != 0) for i in range(900)]
LABELS = {text.text: text.label for text in TEXTS}


def test_each_pair_holds_a_wanted_and_an_unwanted_text_and_prefers_the_wanted_one():
    for pair in pair_texts(TEXTS):
        assert pair.prompt == ""
        assert LABELS[pair.a if pair.preference == 1.0 else pair.b]
        assert not LABELS[pair.b if pair.preference == 1.0 else pair.a]


def test_each_text_is_used_once_and_the_rarer_label_is_used_up():
    used = [text for pair in pair_texts(TEXTS) for text in (pair.a, pair.b)]
    assert len(used) == len(set(used)) == 600
    assert sum(not LABELS[text] for text in used) == 300


def test_the_order_of_the_texts_does_not_matter():
    shuffled = random.Random(0).sample(TEXTS, len(TEXTS))
    assert pair_texts(shuffled, 0.2) == pair_texts(TEXTS, 0.2)


def test_no_text_of_the_held_out_pairs_is_in_the_training_pairs():
    train, held_out = split(pair_texts(TEXTS, 0.2), 0.2)
    sides = [{text for pair in side for text in (pair.a, pair.b)} for side in (train, held_out)]
    assert not sides[0] & sides[1]
    assert [sides[i] <= {t.text for t in side} for i, side in enumerate(split(TEXTS, 0.2))] == [True, True]
    assert len(held_out) > 40


def test_the_wanted_text_stands_first_in_about_half_of_the_pairs():
    pairs = pair_texts(TEXTS)
    assert 0.4 < sum(pair.preference for pair in pairs) / len(pairs) < 0.6


def test_repeated_texts_count_once_and_contradictory_ones_not_at_all():
    texts = [
        LabelledText(t, label) for t, label in [("a", True), ("A ", True), ("b", False), ("c", True), ("c", False)]
    ]
    (pair,) = pair_texts(texts)
    assert {pair.a, pair.b} == {"a", "b"}
