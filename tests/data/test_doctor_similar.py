import random

import numpy as np
import pytest
from helpers.patients import passage
from hypothesis import given, settings
from hypothesis import strategies as st

from keel.data.doctor.scripts import language, script
from keel.data.doctor.similar import families, jaccard, near_copies, shingles


def exact(one: str, other: str) -> float:
    """The Jaccard index of sets of three words in a row, the plain way."""
    first, second = ({tuple(t.lower().split()[i : i + 3]) for i in range(len(t.split()) - 2)} for t in (one, other))
    return len(first & second) / len(first | second)


def test_the_index_is_that_of_three_words_in_a_row():
    one = "the quick brown fox jumps over the lazy dog"
    other = "the quick brown fox jumps over a lazy dog"
    found = shingles([one, other])
    assert len(found.of(0)) == 7
    assert jaccard(found.of(0), found.of(1)) == pytest.approx(4 / 10)
    assert jaccard(found.of(0), found.of(1)) == pytest.approx(exact(one, other))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(3, 60))
def test_the_index_agrees_with_plain_sets_on_random_words(seed, length):
    rng = random.Random(seed)
    texts = [" ".join(rng.choices("abcdefgh", k=length)) for _ in range(4)]
    found = shingles(texts)
    for i in range(4):
        for j in range(4):
            assert jaccard(found.of(i), found.of(j)) == pytest.approx(exact(texts[i], texts[j]))


def test_case_and_punctuation_do_not_count_and_words_do():
    found = shingles(["One, two. THREE four", "one two three four", "one two three five", "", "one", "ONE!"])
    sets = [found.of(i).tolist() for i in range(6)]
    assert sets[0] == sets[1] != sets[2]
    assert sets[3] == []
    assert sets[4] == sets[5] != []


def test_each_chinese_character_is_a_word():
    found = shingles(["今天天气很好我们去公园", "今天天气很好我们去学校"])
    assert len(found.of(0)) == 9
    assert jaccard(found.of(0), found.of(1)) == pytest.approx(7 / 11)


def test_all_near_copies_are_found_and_nothing_else():
    rng = random.Random(0)
    texts = [passage(rng, 6) for _ in range(200)]
    copies = {}
    for at in range(0, 100, 10):
        words = texts[at].split()
        words[20] = "changed"
        copies[len(texts)] = at
        texts.append(" ".join(words))
    found = near_copies(shingles(texts), 0.8)
    assert {pair.second: pair.first for pair in found} == copies
    assert all(pair.jaccard == pytest.approx(exact(texts[pair.first], texts[pair.second]), abs=0.08) for pair in found)


def test_a_family_goes_by_its_first_member():
    text = passage(random.Random(0), 8)
    found = near_copies(shingles([text, "something else altogether here", text, text]), 0.8)
    assert families(4, found).tolist() == [0, 1, 0, 0]
    assert families(3, []).tolist() == [0, 1, 2]


def test_texts_across_the_border_of_two_chunks_are_whole(monkeypatch):
    rng = random.Random(1)
    texts = [passage(rng) for _ in range(50)]
    whole = shingles(texts)
    monkeypatch.setattr("keel.data.doctor.similar.CHUNK_BYTES", 300)
    pieces = shingles(texts)
    np.testing.assert_array_equal(whole.hashes, pieces.hashes)
    np.testing.assert_array_equal(whole.starts, pieces.starts)


def test_nothing_is_like_nothing():
    assert near_copies(shingles([]), 0.8) == []
    assert near_copies(shingles(["", "", "!!"]), 0.8) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello there", "Latin"),
        ("Où êtes-vous né ?", "Latin"),
        ("Привет, мир", "Cyrillic"),
        ("今日はいい天気ですね", "Japanese"),
        ("今天天气很好", "Han"),
        ("안녕하세요", "Hangul"),
        ("مرحبا بالعالم", "Arabic"),
        ("שלום", "Hebrew"),
        ("Γειά σου", "Greek"),
        ("नमस्ते दुनिया", "Devanagari"),
        ("— “42” 👍", ""),
        ("see: Кошка is the Russian word for a cat", "Latin"),
    ],
)
def test_the_script_is_that_of_most_letters(text, expected):
    assert script(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cat is in the house and it does not want to go out for the moment.", "English"),
        ("Die Katze ist im Haus und sie will im Moment nicht auf die Straße.", "German"),
        ("El gato está en la casa y no quiere salir por el momento, lo que es una pena para los niños.", "Spanish"),
        ("Il gatto è nella casa e non vuole uscire per il momento, che è una cosa della vita.", "Italian"),
        (
            "O gato está na casa e não quer sair por enquanto, o que é uma pena para os meninos e com razão.",
            "Portuguese",
        ),
        ("De kat is in het huis en wil niet naar buiten, dat is het voor dit moment van de dag.", "Dutch"),
        ("Yes.", ""),
        ("def f(x): return x + 1 if x else y for z in range q", ""),
        ("Кошка сидит дома", "Cyrillic"),
    ],
)
def test_the_language_is_told_by_little_words_or_not_at_all(text, expected):
    assert language(text) == expected
