"""Diversity against brute force over Python counters."""

import time
from math import isnan

import numpy as np
import pytest
from helpers.bleu import ngrams, random_texts, sentence_bleu

from keel.core.errors import DataError
from keel.stats.diversity import distinct_n, repeated_ngram_share, self_bleu, unique_share


def test_brute_force_bleu_gives_the_published_value():
    """The first example in NLTK's documentation of sentence_bleu, 0.5045 without smoothing."""
    text, *references = (
        line.split()
        for line in (
            "It is a guide to action which ensures that the military always obeys the commands of the party",
            "It is a guide to action that ensures that the military will forever heed Party commands",
            "It is the guiding principle which guarantees the military forces always being under the command of the "
            "Party",
            "It is the practical guide for the army always to heed the directions of the party",
        )
    )
    assert sentence_bleu(text, references) == pytest.approx(0.5045, abs=1e-4)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("max_n", [1, 2, 4])
def test_self_bleu_equals_brute_force(seed, max_n):
    texts = random_texts(seed)
    others = [texts[:i] + texts[i + 1 :] for i in range(len(texts))]
    expected = np.mean([sentence_bleu(t, r, max_n) for t, r in zip(texts, others, strict=True)])
    assert self_bleu(texts, max_n) == pytest.approx(expected, abs=1e-12)


def test_self_bleu_is_one_when_all_say_the_same_and_zero_when_no_word_is_shared():
    assert self_bleu([["a", "b", "c", "d"]] * 5) == pytest.approx(1)
    assert self_bleu([["a", "b"], ["c", "d"], []]) == 0


def test_self_bleu_of_one_text_is_undefined():
    assert isnan(self_bleu([["a", "b"]]))
    assert isnan(self_bleu([]))


def test_self_bleu_does_not_depend_on_order():
    texts = random_texts(3)
    assert self_bleu(texts) == pytest.approx(self_bleu(texts[::-1]))


def test_distinct_n_by_hand():
    # Bigrams: the cat, cat sat, the cat, cat ran: 3 different of 4.
    texts = [["the", "cat", "sat"], ["the", "cat", "ran"], ["alone"]]
    assert distinct_n(texts, 2) == 3 / 4
    assert distinct_n(texts, 1) == 5 / 7
    assert distinct_n(texts, 4) == 0


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_distinct_n_equals_brute_force(n):
    for seed in range(5):
        texts = random_texts(seed)
        grams = [g for t in texts for g in ngrams(t, n)]
        assert distinct_n(texts, n) == pytest.approx(len(set(grams)) / len(grams))


def test_ids_words_and_arrays_count_alike():
    ids = random_texts(2)
    words = [[f"w{i}" for i in text] for text in ids]
    arrays = [np.array(text, dtype=np.int64) for text in ids]
    assert distinct_n(ids, 2) == distinct_n(words, 2) == distinct_n(arrays, 2)
    assert self_bleu(ids) == self_bleu(words) == self_bleu(arrays)


def test_large_token_ids_do_not_collide():
    text = [2**40, 2**40 + 1, 7, 2**40, 2**40 + 1, 8]
    assert distinct_n([text], 4) == 1
    assert distinct_n([text], 2) == 4 / 5


def test_repeated_ngram_share_by_hand():
    # a b a b a b: trigrams aba bab aba bab, half said before. The second text repeats nothing, the third is too short.
    assert repeated_ngram_share([list("ababab"), list("abcdef"), ["a"]]) == pytest.approx((0.5 + 0) / 2)
    assert repeated_ngram_share([["a"], []]) == 0


def test_repeated_ngram_share_equals_brute_force():
    for seed in range(5):
        texts = random_texts(seed, vocabulary=3)
        shares = [1 - len(set(g)) / len(g) for t in texts if (g := ngrams(t, 2))]
        assert repeated_ngram_share(texts, 2) == pytest.approx(np.mean(shares))


def test_unique_share_counts_different_texts():
    assert unique_share(["a", "b", "a", "c"]) == 0.75
    assert unique_share([(1, 2), (1, 2)]) == 0.5
    assert unique_share([]) == 0


def test_nothing_to_measure_gives_zero():
    assert distinct_n([], 2) == repeated_ngram_share([], 2) == 0


def test_ngrams_need_a_token():
    with pytest.raises(DataError, match="n=0"):
        distinct_n([["a"]], 0)
    with pytest.raises(DataError, match="max_n=0"):
        self_bleu([["a"], ["b"]], 0)


def test_two_thousand_answers_take_under_two_seconds():
    rng = np.random.default_rng(0)
    texts = rng.integers(500, size=(2000, 60)).tolist()
    start = time.process_time()
    assert 0 < self_bleu(texts) < 1
    assert time.process_time() - start < 2
