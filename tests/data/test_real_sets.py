"""Published sets as they are: how many records come out, in which format, and what is left out."""

import pytest

from keel.core.errors import DataError
from keel.data.formats import DataConfig, read
from keel.data.records import Message, record_key
from keel.data.split import split

SETS = [
    # set, kind, records, format, dropped
    ("autoj-pairwise", "comparisons", 1052, "comparison", {"response_b is empty": 1, "identical answers": 1}),
    ("pandalm-votes", "comparisons", 742, "comparison", {"response_a is empty": 29, "response_b is empty": 25}),
    ("tulu-human-votes", "comparisons", 756, "comparison", {}),
    ("llmbar/pairs.jsonl.gz", "comparisons", 314, "comparison", {}),
    ("hhh-alignment", "comparisons", 112, "preference", {}),
    ("llamafactory-demos/dpo.jsonl.gz", "comparisons", 240, "preference", {}),
    (
        "hh-harmless-base",
        "comparisons",
        1492,
        "hh",
        {"chosen is empty": 3, "prompts differ before the last turn": 3},
    ),
    ("dolly-hhrlhf-small", "demonstrations", 796, "prompt_response", {}),
    ("alpaca-5k", "demonstrations", 3742, "prompt_response", {}),
    ("storybooks", "demonstrations", 1524, "text", {}),
    ("sentence-polarity", "labelled texts", 7385, "labelled_text", {}),
    ("self-instruct-252", "prompts", 192, "prompt_response", {}),
    ("llamafactory-demos/kto.jsonl.gz", "prompts", 238, "unpaired", {"repeated prompt": 2}),
]


@pytest.mark.parametrize(("name", "kind", "records", "form", "dropped"), SETS, ids=[f"{s[0]}" for s in SETS])
def test_a_published_set_reads_as_it_is(shared_data, name, kind, records, form, dropped):
    reading = read(DataConfig(path=str(shared_data / name), on_error="drop"), kind)
    assert (len(reading.records), reading.format, reading.dropped) == (records, form, dropped)


def test_gsm8k_reads_with_its_columns_named(shared_data):
    path = str(shared_data / "gsm8k")
    with pytest.raises(
        DataError, match=r"train\.jsonl\.gz, line 1: no known format has the columns question, answer, fin"
    ):
        read(DataConfig(path=path), "demonstrations")
    columns = {"prompt": "question", "response": "answer"}
    reading = read(DataConfig(path=path, columns=columns), "demonstrations")
    assert len(reading.records) == 7473
    assert reading.records[0].prompt.startswith("Natalia sold clips")


def test_an_empty_answer_in_a_real_set_stops_with_its_line(shared_data):
    with pytest.raises(DataError, match=r"hh-harmless-base/train\.jsonl\.gz, line 333: chosen is empty"):
        read(DataConfig(path=str(shared_data / "hh-harmless-base")), "comparisons")


def test_votes_of_three_raters_are_kept_and_decide_the_preference(shared_data):
    reading = read(DataConfig(path=str(shared_data / "pandalm-votes"), on_error="drop"), "comparisons")
    assert {len(c.votes) for c in reading.records} == {3}
    assert {round(6 * c.preference) for c in reading.records} <= {0, 1, 2, 3, 4, 5, 6}


def test_scored_votes_keep_their_strength_and_neither_acceptable_is_both_bad(shared_data):
    reading = read(DataConfig(path=str(shared_data / "tulu-human-votes")), "comparisons")
    votes = [vote for comparison in reading.records for vote in comparison.votes]
    assert {vote.strength for vote in votes} == {0.0, 1.0, 2.0}
    counts = {choice: sum(vote.choice == choice for vote in votes) for choice in ("a", "b", "tie", "both_bad")}
    # counted from the file: scores above 0, below 0, 0 with an acceptable answer, 0 with none
    assert counts == {"a": 283, "b": 298, "tie": 241, "both_bad": 40}


def test_sentence_polarity_pairs_without_a_text_on_both_sides(shared_data):
    pairs = read(DataConfig(path=str(shared_data / "sentence-polarity"), holdout=0.1), "comparisons").records
    assert len(pairs) == 3646
    train, held_out = split(pairs, 0.1)
    assert 0.08 < len(held_out) / len(pairs) < 0.12
    sides = [{text for pair in side for text in (pair.a, pair.b)} for side in (train, held_out)]
    assert not sides[0] & sides[1]


def test_dialogues_become_chats_that_end_with_the_user(shared_data):
    config = DataConfig(path=str(shared_data / "hh-harmless-base"), on_error="drop", as_chat=True)
    records = read(config, "comparisons").records
    assert {record.prompt[-1].role for record in records} == {"user"}
    assert records[0].prompt[0] == Message("user", "what are some pranks with a pen i can do?")
    assert not any(record.a != record.a.strip() for record in records)


def test_no_prompt_of_a_real_set_is_on_both_sides(shared_data):
    records = read(DataConfig(path=str(shared_data / "hh-harmless-base"), on_error="drop"), "comparisons").records
    train, held_out = split(records, 0.1)
    assert not {record_key(r) for r in train} & {record_key(r) for r in held_out}
    assert 0.07 < len(held_out) / len(records) < 0.13
