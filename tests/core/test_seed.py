import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from keel.core.seed import derive, generator


def test_a_derived_seed_is_the_head_of_a_hash_anyone_can_recompute():
    # printf '[0,"sft",3]' | sha256sum, first 8 bytes shifted right by one bit
    assert derive(0, "sft", 3) == 3141214869001728239


def test_text_and_number_name_different_streams():
    assert derive(0, "1") != derive(0, 1)
    assert derive(0, "a", "b") != derive(0, "ab")
    assert derive(0) != derive(1)


@given(st.integers(), st.lists(st.text() | st.integers()))
def test_every_seed_fits_63_bits(seed, names):
    assert 0 <= derive(seed, *names) < 2**63


def test_streams_of_one_seed_do_not_correlate_and_repeat_exactly():
    first, second = generator(1, "a").random(10_000), generator(1, "b").random(10_000)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05
    np.testing.assert_array_equal(first, generator(1, "a").random(10_000))
