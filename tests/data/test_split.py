from helpers.laws import quick
from hypothesis import given
from hypothesis import strategies as st

from keel.data.records import Comparison, Demonstration, LabelledText, record_key
from keel.data.split import is_held_out, split

PROMPTS = [f"prompt {number}" for number in range(2000)]


@quick
@given(st.lists(st.text(min_size=1), max_size=40), st.lists(st.text(min_size=1), max_size=40), st.floats(0, 0.99))
def test_sides_stay_the_same_as_data_grows_in_any_order(old, new, holdout):
    before, after = split(old, holdout), split(new + old[::-1], holdout)
    assert set(before[0]) <= set(after[0])
    assert set(before[1]) <= set(after[1])


@quick
@given(st.lists(st.sampled_from(["p", "P ", "q", "r", " q"]), max_size=20), st.floats(0, 0.99))
def test_no_prompt_is_on_both_sides_not_even_as_a_near_copy(prompts, holdout):
    train, held_out = split([Demonstration(p, f"response {i}") for i, p in enumerate(prompts)], holdout)
    assert len(train) + len(held_out) == len(prompts)
    assert not {record_key(r) for r in train} & {record_key(r) for r in held_out}


def test_a_larger_holdout_only_adds_to_the_held_out_side():
    small, large = (set(split(PROMPTS, holdout)[1]) for holdout in (0.1, 0.3))
    assert small < large


def test_the_share_held_out_is_about_what_was_asked():
    # standard deviation of 2000 draws at .1 is .0067
    assert abs(len(split(PROMPTS, 0.1)[1]) / len(PROMPTS) - 0.1) < 0.02
    assert split(PROMPTS, 0.0) == (PROMPTS, [])


def test_the_side_is_the_first_64_bits_of_the_key_as_a_fraction():
    assert is_held_out("0" * 64, 0.001)
    assert is_held_out("7" + "f" * 63, 0.5)
    assert not is_held_out("8" + "0" * 63, 0.5)
    assert not is_held_out("0" * 64, 0.0)


def test_both_responses_of_a_prompt_and_both_texts_of_a_pair_share_a_side():
    pairs = [Comparison(p, f"{i}", f"{i + 1}", 1.0) for p in PROMPTS[:200] for i in range(3)]
    train, held_out = split(pairs, 0.3)
    assert not {c.prompt for c in train} & {c.prompt for c in held_out}
    texts = [LabelledText(p, True) for p in PROMPTS]
    assert {t.text for t in split(texts, 0.3)[1]} == set(split(PROMPTS, 0.3)[1])
