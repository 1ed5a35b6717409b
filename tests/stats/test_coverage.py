import numpy as np
import pytest

from keel.core.errors import DataError
from keel.stats.coverage import Coverage, trigrams


def flat(texts) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.array([token for text in texts for token in text], dtype=np.int64)
    return tokens, np.array([len(text) for text in texts], dtype=np.int64)


def sets(texts) -> set[tuple[int, ...]]:
    return {tuple(text[i : i + 3]) for text in texts for i in range(len(text) - 2)}


def test_unseen_trigrams_by_hand():
    # Seen: 123 234. Asked: 123 235 of the first text, 123 of the second; the third is too short.
    coverage = Coverage.of([[1, 2, 3, 4], [9, 9]])
    assert coverage.unseen_share(*flat([[1, 2, 3, 5], [1, 2, 3], [7, 7]])) == 1 / 3


def test_trigrams_do_not_reach_into_the_next_text():
    coverage = Coverage.of([[1, 2], [3, 4]])
    assert len(coverage.seen) == 0
    assert coverage.unseen_share(*flat([[1, 2, 3]])) == 1
    assert np.isnan(coverage.unseen_share(*flat([[1, 2], [3, 4]])))


@pytest.mark.parametrize("seed", range(5))
def test_coverage_equals_brute_force(seed):
    rng = np.random.default_rng(seed)
    texts = [[rng.integers(5, size=rng.integers(0, 9)).tolist() for _ in range(12)] for _ in range(3)]
    known, more, asked = texts
    coverage = Coverage.of(known) | Coverage.of(more)
    grams = [tuple(text[i : i + 3]) for text in asked for i in range(len(text) - 2)]
    expected = np.mean([gram not in sets(known) | sets(more) for gram in grams])
    assert coverage.unseen_share(*flat(asked)) == pytest.approx(expected)
    assert len(coverage.seen) == len(sets(known) | sets(more))


def test_the_largest_token_ids_do_not_collide():
    most = 2**21 - 1
    texts = [[most, most, most], [most, most, most - 1], [0, most, most], [most, 0, 0], [0, 0, 0], [0, 0, 1]]
    packed = trigrams(*flat(texts))
    assert len(set(packed.tolist())) == len(texts)
    assert packed.min() >= 0


def test_a_vocabulary_too_large_to_pack_is_refused():
    with pytest.raises(DataError, match="0 to 2097152"):
        Coverage.of([[0, 1, 2**21]])
    with pytest.raises(DataError, match="-1 to 2"):
        trigrams(*flat([[-1, 1, 2]]))


def test_many_texts_are_read_in_parts_that_make_the_same_set(monkeypatch):
    texts = [[i, i + 1, i + 2, i % 7] for i in range(50)]
    whole = Coverage.of(texts)
    monkeypatch.setattr("keel.stats.coverage.TEXTS_AT_ONCE", 7)
    assert np.array_equal(Coverage.of(iter(texts)).seen, whole.seen)


def test_nothing_is_seen_of_no_texts():
    assert Coverage.of([]).unseen_share(*flat([[1, 2, 3]])) == 1
    assert np.isnan(Coverage.of([[1, 2, 3]]).unseen_share(*flat([])))
