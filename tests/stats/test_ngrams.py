"""n-grams that are numbered once, against brute force over Python counters and the functions that count one thing."""

import time
from collections import Counter
from math import isnan

import numpy as np
import pytest
from helpers.bleu import ngrams, random_texts, sentence_bleu

from keel.stats.diversity import NGrams, distinct_n, repeated_ngram_share, self_bleu, unique_share


def grams_of(texts) -> NGrams:
    tokens = np.array([token for text in texts for token in text], dtype=np.int64)
    return NGrams(tokens, np.array([len(text) for text in texts], dtype=np.int64))


def mean_bleu(texts) -> float:
    return float(np.mean([sentence_bleu(t, texts[:i] + texts[i + 1 :]) for i, t in enumerate(texts)]))


def brute_groups(texts, groups) -> float:
    members = [[t for t, g in zip(texts, groups, strict=True) if g == group] for group in sorted(set(groups))]
    return float(np.mean([mean_bleu(texts) for texts in members if len(texts) > 1]))


@pytest.mark.parametrize("seed", range(8))
def test_self_bleu_of_groups_equals_brute_force(seed):
    texts = random_texts(seed, count=16)
    side_by_side = sorted(np.random.default_rng(seed).integers(5, size=16).tolist())
    for groups in (side_by_side, [i % 4 for i in range(16)], [i % 3 for i in range(16)]):
        assert grams_of(texts).self_bleu(np.array(groups)) == pytest.approx(brute_groups(texts, groups), abs=1e-12)


def test_self_bleu_without_groups_is_that_of_all_texts():
    texts = random_texts(1)
    assert grams_of(texts).self_bleu() == self_bleu(texts) == pytest.approx(mean_bleu(texts), abs=1e-12)


def test_groups_of_one_text_are_left_out():
    texts = [[1, 2, 3, 4], [1, 2, 3, 4], [9, 9]]
    assert grams_of(texts).self_bleu(np.array([0, 0, 1])) == pytest.approx(1)
    assert isnan(grams_of(texts).self_bleu(np.array([0, 1, 2])))


def test_the_same_short_text_stays_below_one_because_it_has_no_longer_n_grams():
    # Precisions 1, .1, .1 and .1 of the four orders: 0.001 ** (1 / 4).
    assert grams_of([[7], [7]]).self_bleu() == pytest.approx(0.001**0.25)


@pytest.mark.parametrize("seed", range(5))
def test_all_counts_of_one_helper_equal_the_functions(seed):
    texts = random_texts(seed)
    grams = grams_of(texts)
    for n in (1, 2, 3, 5):
        assert grams.distinct(n) == distinct_n(texts, n)
        assert grams.repeated(n) == repeated_ngram_share(texts, n)
    assert grams.unique() == unique_share([tuple(text) for text in texts])


@pytest.mark.parametrize("seed", range(5))
def test_the_common_phrase_equals_brute_force(seed):
    texts = random_texts(seed, vocabulary=3)
    holders = Counter(gram for text in texts for gram in set(ngrams(text, 2)))
    most = max(holders.values())
    phrase, share = grams_of(texts).common(2)
    assert share == most / len(texts)
    assert phrase == min(gram for gram, count in holders.items() if count == most)


def test_a_text_that_repeats_a_phrase_counts_once():
    assert grams_of([[5, 6, 5, 6, 5, 6], [1, 2], [1, 2]]).common(2) == ((1, 2), 2 / 3)


def test_no_text_long_enough_has_no_common_phrase():
    phrase, share = grams_of([[1, 2, 3], []]).common(4)
    assert phrase == ()
    assert isnan(share)


@pytest.mark.parametrize("bits", [10, 24, 62])
def test_numbers_that_would_not_fit_are_numbered_anew(monkeypatch, bits):
    monkeypatch.setattr("keel.stats.diversity.PACKED_BITS", bits)
    texts = random_texts(4, vocabulary=9)
    grams = grams_of(texts)
    assert grams.self_bleu() == pytest.approx(mean_bleu(texts), abs=1e-12)
    assert grams.distinct(4) == len({g for t in texts for g in ngrams(t, 4)}) / sum(len(ngrams(t, 4)) for t in texts)
    holders = Counter(gram for text in texts for gram in set(ngrams(text, 3)))
    assert holders[grams.common(3)[0]] == max(holders.values())


def test_long_n_grams_of_a_large_vocabulary_do_not_collide():
    rng = np.random.default_rng(0)
    texts = rng.integers(2**20, size=(40, 30)).tolist()
    assert grams_of(texts).distinct(9) == len({g for t in texts for g in ngrams(t, 9)}) / (40 * 22)


def test_no_texts_at_all_have_nothing_to_count():
    grams = grams_of([])
    assert grams.distinct(2) == grams.repeated(3) == grams.unique() == 0
    assert isnan(grams.self_bleu())
    assert isnan(grams_of([[], []]).common(4)[1])
    assert grams_of([[], []]).self_bleu() == 0


def test_a_rollout_of_512_answers_is_counted_in_under_half_a_second():
    rng = np.random.default_rng(0)
    grams, start = grams_of(rng.integers(500, size=(512, 256)).tolist()), time.process_time()
    grams.distinct(1), grams.distinct(2), grams.repeated(3), grams.common(4), grams.unique()
    grams.self_bleu(np.arange(512) // 4), grams.self_bleu(np.arange(512) % 4)
    assert time.process_time() - start < 0.5
