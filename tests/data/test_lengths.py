import pytest
from helpers.laws import quick
from hypothesis import given
from hypothesis import strategies as st

from keel.core.errors import DataError
from keel.data.lengths import Fitted, LengthTally, truncate_prompt

PROMPT, RESPONSE = [1, 10, 11, 12, 13], [20, 21, 2]


def test_what_fits_is_left_alone():
    assert truncate_prompt(PROMPT, RESPONSE, 8, "error") == Fitted(PROMPT)
    assert truncate_prompt([], RESPONSE, 3, "error") == Fitted([])


def test_left_cuts_the_start_and_keeps_bos():
    assert truncate_prompt(PROMPT, RESPONSE, 6, "left") == Fitted([11, 12, 13], cut_tokens=2)
    assert truncate_prompt(PROMPT, RESPONSE, 6, "left", bos_id=1) == Fitted([1, 12, 13], cut_tokens=2)


def test_a_response_that_leaves_no_room_drops_the_record_instead_of_being_cut():
    fitted = truncate_prompt(PROMPT, RESPONSE, 4, "left", bos_id=1)
    assert fitted.prompt_ids is None
    assert fitted.reason == "too long: 5 prompt + 3 response tokens, 4 allowed"
    assert truncate_prompt(PROMPT, RESPONSE, 4, "left").prompt_ids == [13]
    assert truncate_prompt(PROMPT, RESPONSE, 2, "left").prompt_ids is None
    assert truncate_prompt([], RESPONSE, 2, "left").prompt_ids is None


def test_drop_drops_and_error_names_place_numbers_and_remedy():
    assert truncate_prompt(PROMPT, RESPONSE, 7, "drop").prompt_ids is None
    with pytest.raises(DataError, match=r"a\.jsonl:3: too long: 5 prompt \+ 3 response tokens, 7 allowed\. Shorten it"):
        truncate_prompt(PROMPT, RESPONSE, 7, "error", source="a.jsonl:3")


@quick
@given(st.lists(st.integers(3, 99)), st.lists(st.integers(3, 99), min_size=1), st.integers(1, 40), st.booleans())
def test_a_kept_prompt_fits_and_is_the_end_of_what_it_was(prompt, response, max_tokens, with_bos):
    bos = [1] if with_bos else []
    fitted = truncate_prompt(bos + prompt, response, max_tokens, "left", bos_id=1)
    if fitted.prompt_ids is None:
        assert len(response) + len(bos) + 1 > max_tokens
    else:
        kept = fitted.prompt_ids[len(bos) :]
        assert len(fitted.prompt_ids) + len(response) <= max_tokens
        assert fitted.prompt_ids[: len(bos)] == bos
        assert kept == prompt[len(prompt) - len(kept) :]
        assert fitted.cut_tokens == len(prompt) - len(kept)


def test_the_tally_counts_what_was_done():
    tally = LengthTally()
    for limit in (8, 6, 4):
        tally.add(truncate_prompt(PROMPT, RESPONSE, limit, "left", bos_id=1))
    assert str(tally) == "1 records whole, 1 prompts cut on the left (by 2 tokens), 1 records dropped"
