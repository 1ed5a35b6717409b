import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from helpers.laws import quick
from hypothesis import given
from hypothesis import strategies as st

from keel.core.config import load_config
from keel.core.errors import ConfigError, DataError
from keel.data.dialect import Kind
from keel.data.dialects import COLUMNS, DIALECTS
from keel.data.formats import (
    DataConfig,
    Format,
    detect,
    dialect_of,
    read,
    read_comparisons,
    read_demonstrations,
    read_labelled,
    read_prompts,
    read_rankings,
    read_ratings,
    write_jsonl,
)
from keel.data.records import Comparison, Demonstration, LabelledText, Message, Ranking, Rating, Vote

USER, ASSISTANT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
CHAT = (Message("user", "Hi"),)
HH = "\n\nHuman: Hi\n\nAssistant:"

DEMONSTRATIONS: dict[str, tuple[dict[str, Any], Demonstration]] = {
    "prompt_response": ({"prompt": "Hi", "response": "Hello"}, Demonstration("Hi", "Hello")),
    "prompt_completion": ({"prompt": "Hi", "completion": "Hello", "id": 7}, Demonstration("Hi", "Hello")),
    "prompt_completion as chats": ({"prompt": [USER], "completion": [ASSISTANT]}, Demonstration(CHAT, "Hello")),
    "messages": ({"messages": [USER, ASSISTANT]}, Demonstration(CHAT, "Hello")),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        Demonstration(CHAT, "Hello"),
    ),
    "alpaca": ({"instruction": "Add.", "input": "1, 2", "output": "3"}, Demonstration("Add.\n\n1, 2", "3")),
    "alpaca without input": ({"instruction": "Add.", "input": "", "output": "3"}, Demonstration("Add.", "3")),
    "alpaca as published": (
        {"instruction": "Add.", "input": "", "output": "3", "text": "Below is ..."},
        Demonstration("Add.", "3"),
    ),
    "alpaca with system and history": (
        {
            "instruction": "And now?",
            "input": "",
            "output": "Hello",
            "system": "Be kind.",
            "history": [["Hi", "Hello"]],
        },
        Demonstration(
            (Message("system", "Be kind."), *CHAT, Message("assistant", "Hello"), Message("user", "And now?")), "Hello"
        ),
    ),
    "text": ({"text": "Once upon a time"}, Demonstration("", "Once upon a time")),
}
YES = Comparison("Hi", "Hello", "No", 1.0)
COMPARISONS: dict[str, tuple[dict[str, Any], Comparison]] = {
    "preference": ({"prompt": "Hi", "chosen": "Hello", "rejected": "No"}, YES),
    "preference as chats": (
        {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [{"role": "assistant", "content": "No"}]},
        Comparison(CHAT, "Hello", "No", 1.0),
    ),
    "preference with messages": (
        {"messages": [USER], "chosen": "Hello", "rejected": "No"},
        Comparison(CHAT, "Hello", "No", 1.0),
    ),
    "preference with whole chats": (
        {
            "prompt": "Hi",
            "messages": [USER, ASSISTANT],
            "chosen": [USER, ASSISTANT],
            "rejected": [USER, {"role": "assistant", "content": "No"}],
        },
        Comparison(CHAT, "Hello", "No", 1.0),
    ),
    "preference_implicit": (
        {"chosen": "The sky is green.", "rejected": "The sky is grey."},
        Comparison("The sky is", " green.", " grey.", 1.0),
    ),
    "preference_implicit as chats": (
        {"chosen": [USER, ASSISTANT], "rejected": [USER, {"role": "assistant", "content": "No"}]},
        Comparison(CHAT, "Hello", "No", 1.0),
    ),
    "hh": ({"chosen": HH + " Hello", "rejected": HH + " No"}, Comparison(HH, " Hello", " No", 1.0)),
    "comparison": ({"prompt": "Hi", "response_a": "Hello", "response_b": "No", "preference": "a"}, YES),
    "comparison by votes": (
        {"prompt": "Hi", "response_a": "Hello", "response_b": "No", "votes": {"ann": "a", "bob": "tie"}},
        Comparison("Hi", "Hello", "No", 0.75, votes=(Vote("ann", "a"), Vote("bob", "tie"))),
    ),
    "llamafactory_ranking": (
        {
            "conversations": [{"from": "human", "value": "Hi"}],
            "chosen": {"from": "gpt", "value": "Hello"},
            "rejected": {"from": "gpt", "value": "No"},
        },
        Comparison(CHAT, "Hello", "No", 1.0),
    ),
    "llamafactory_ranking with a system text": (
        {
            "system": "Be kind.",
            "conversations": [{"from": "human", "value": "Hi"}],
            "chosen": "Hello",
            "rejected": "No",
        },
        Comparison((Message("system", "Be kind."), *CHAT), "Hello", "No", 1.0),
    ),
    "llamafactory_ranking as alpaca": (
        {"instruction": "Hi", "input": "", "chosen": "Hello", "rejected": "No"},
        YES,
    ),
    "openai_preference": (
        {
            "input": {"messages": [USER], "tools": [], "parallel_tool_calls": True},
            "preferred_output": [ASSISTANT],
            "non_preferred_output": [{"role": "assistant", "content": "No"}],
        },
        Comparison(CHAT, "Hello", "No", 1.0),
    ),
    "rewardbench": (
        {
            "prompt": "Hi",
            "chosen": "Hello",
            "chosen_model": "gpt-4",
            "rejected": "No",
            "rejected_model": "alpaca-7b",
            "subset": "alpacaeval-easy",
            "id": 0,
        },
        replace(YES, models=("gpt-4", "alpaca-7b")),
    ),
    "scale": (
        {
            "task_id": "t",
            "threads": [
                {
                    "turns": [
                        {
                            "messages": [
                                {"role": "user", "content": {"text": "Hi"}, "source_id": "user"},
                                {"role": "assistant", "content": {"text": "No"}, "source_id": "model_1"},
                                {"role": "assistant", "content": {"text": "Hello"}, "source_id": "model_2"},
                            ],
                            "annotations": [{"key": "selected_model_id", "value": "model_2"}],
                        }
                    ]
                }
            ],
        },
        Comparison(CHAT, "Hello", "No", 1.0, models=("model_2", "model_1")),
    ),
    "surge": (
        {
            "id": "s",
            "project_id": "p",
            "fields": {"prompt": "Hi", "response_1": "Hello", "response_2": "No"},
            "responses": [
                {"data": {"Which is better?": "Response 1", "Why?": "Kinder."}, "worker_id": "ann"},
                {"data": {"Which is better?": "B is slightly better", "Why?": ""}, "worker_id": "bob"},
            ],
        },
        Comparison("Hi", "Hello", "No", 0.5, votes=(Vote("ann", "a"), Vote("bob", "b", 1.0))),
    ),
    "helpsteer": (
        {"prompt": "Hi", "response_1": "Hello", "response_2": "No", "preference_strength": -2, "split": "train"},
        Comparison("Hi", "Hello", "No", 1.0, votes=(Vote("overall", "a", 2.0),)),
    ),
    "helpsteer of the third edition": (
        {"domain": "general", "context": [USER], "response1": "Hello", "response2": "No", "overall_preference": 0},
        Comparison(CHAT, "Hello", "No", 0.5, votes=(Vote("overall", "tie", 0.0),)),
    ),
    "text_comparison": ({"text_a": "good", "text_b": "bad", "preference": 0.5}, Comparison("", "good", "bad", 0.5)),
}


TWO = ("Hello", "No")
RATINGS: dict[str, tuple[dict[str, Any], Rating]] = {
    "unpaired": ({"prompt": "Hi", "completion": "Hello", "label": True}, Rating("Hi", "Hello", True)),
    "unpaired as chats": (
        {"prompt": [USER], "completion": [ASSISTANT], "label": False},
        Rating(CHAT, "Hello", False),
    ),
    "unpaired as one chat": ({"messages": [USER, ASSISTANT], "desirable": 1}, Rating(CHAT, "Hello", True)),
    "llamafactory_kto": (
        {"instruction": "Hi", "input": "", "output": "Hello", "kto_tag": "false"},
        Rating("Hi", "Hello", False),
    ),
    "llamafactory_kto as ShareGPT": (
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "kto_tag": True},
        Rating(CHAT, "Hello", True),
    ),
    "llamafactory_kto as OpenAI": ({"messages": [USER, ASSISTANT], "kto_tag": True}, Rating(CHAT, "Hello", True)),
    "llamafactory_kto as its demo": ({"messages": [USER, ASSISTANT], "label": False}, Rating(CHAT, "Hello", False)),
}
RANKINGS: dict[str, tuple[dict[str, Any], Ranking]] = {
    "ranking": ({"prompt": "Hi", "responses": ["Hello", "No"], "scores": [2, 1.5]}, Ranking("Hi", TWO, (2.0, 1.5))),
    "ranking by ranks": (
        {"prompt": [USER], "responses": ["Hello", "No"], "ranks": [1, 2]},
        Ranking(CHAT, TWO, (-1, -2)),
    ),
    "ultrafeedback": (
        {
            "source": "evol_instruct",
            "instruction": "Hi",
            "models": ["alpaca-7b", "gpt-4"],
            "completions": [
                {"model": "alpaca-7b", "response": "Hello", "overall_score": 8.5, "fine-grained_score": 4.25},
                {"model": "gpt-4", "response": "No", "overall_score": "2", "critique": "Short."},
            ],
        },
        Ranking("Hi", TWO, (4.25, 2.0), ("alpaca-7b", "gpt-4")),
    ),
    "ultrafeedback as distilabel writes it": (
        {"instruction": "Hi", "generations": ["Hello", "No"], "ratings": ["5", "3"], "generation_models": ["x", "y"]},
        Ranking("Hi", TWO, (5.0, 3.0), ("x", "y")),
    ),
}


def lines(path: Path, *records: Any) -> DataConfig:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return DataConfig(path=str(path))


def plus(config: DataConfig, **changes: Any) -> DataConfig:
    return config.model_copy(update=changes)


@pytest.mark.parametrize("name", DEMONSTRATIONS)
def test_demonstrations_are_detected_read_and_survive_a_round_trip(tmp_path, name):
    values, expected = DEMONSTRATIONS[name]
    config = lines(tmp_path / "a.jsonl", values)
    assert detect([values]).format == name.split(" ", maxsplit=1)[0]
    assert read_demonstrations(config) == [expected]
    write_jsonl(tmp_path / "b.jsonl", [expected])
    assert read_demonstrations(DataConfig(path=str(tmp_path / "b.jsonl"))) == [expected]


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_are_detected_read_and_survive_a_round_trip(tmp_path, name):
    values, expected = COMPARISONS[name]
    config = lines(tmp_path / "a.jsonl", values)
    assert detect([values]).format == name.split(" ", maxsplit=1)[0]
    assert read_comparisons(config) == [expected]
    write_jsonl(tmp_path / "b.jsonl", [expected])
    assert read_comparisons(DataConfig(path=str(tmp_path / "b.jsonl"))) == [expected]


@pytest.mark.parametrize("name", RATINGS)
def test_ratings_are_detected_read_and_survive_a_round_trip(tmp_path, name):
    values, expected = RATINGS[name]
    assert detect([values]).format == name.split(" ", maxsplit=1)[0]
    assert read_ratings(lines(tmp_path / "a.jsonl", values)) == [expected]
    write_jsonl(tmp_path / "b.jsonl", [expected])
    assert read_ratings(DataConfig(path=str(tmp_path / "b.jsonl"))) == [expected]


@pytest.mark.parametrize("name", RANKINGS)
def test_rankings_are_detected_read_and_survive_a_round_trip(tmp_path, name):
    values, expected = RANKINGS[name]
    assert detect([values]).format == name.split(" ", maxsplit=1)[0]
    assert read_rankings(lines(tmp_path / "a.jsonl", values)) == [expected]
    write_jsonl(tmp_path / "b.jsonl", [expected])
    assert read_rankings(DataConfig(path=str(tmp_path / "b.jsonl"))) == [expected]


def test_every_format_has_a_fixture_here_and_a_place_in_the_settings():
    shown = {name.split(" ", maxsplit=1)[0] for name in [*DEMONSTRATIONS, *COMPARISONS, *RATINGS, *RANKINGS]}
    assert shown | {"prompt_only", "labelled_text"} == {dialect.name for dialect in DIALECTS}
    assert set(get_args(Format)) == {dialect.name for dialect in DIALECTS} | {"auto"}


plain = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
chats = st.lists(st.builds(Message, st.sampled_from(["user", "assistant", "tool"]), plain), max_size=3).map(
    lambda turns: (Message("system", "Be kind."), *turns, Message("user", "And now?"))
)
prompts = plain | chats
votes = st.builds(
    Vote,
    plain,
    st.sampled_from(["a", "b", "tie", "both_bad", "skip"]),
    st.none() | st.floats(0, 9),
)
positive = st.floats(0, 1e6)


def comparisons(prompt: st.SearchStrategy[Any]) -> st.SearchStrategy[Comparison]:
    return st.builds(
        Comparison,
        prompt,
        plain.map(lambda text: text + " a"),
        plain.map(lambda text: text + " b"),
        st.floats(0, 1),
        positive,
        positive,
        st.lists(votes, max_size=3).map(tuple),
    )


@pytest.mark.parametrize(
    ("reader", "record"),
    [
        (read_demonstrations, st.builds(Demonstration, prompts, plain)),
        (read_demonstrations, st.builds(Demonstration, st.just(""), plain)),
        (read_comparisons, comparisons(prompts)),
        (read_comparisons, comparisons(st.just(""))),
        (read_labelled, st.builds(LabelledText, plain, st.booleans())),
    ],
)
def test_whatever_is_written_is_read_back_equal(tmp_path_factory, reader, record):
    path = tmp_path_factory.mktemp("round") / "records.jsonl"

    @quick
    @given(st.lists(record, min_size=1, max_size=4))
    def round_trip(records):
        write_jsonl(path, records)
        assert reader(DataConfig(path=str(path))) == records

    round_trip()


def test_prompts_are_read_back_equal_once_each(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", ["one", CHAT, "two", "One "])
    assert read_prompts(DataConfig(path=str(tmp_path / "a.jsonl"))) == ["one", CHAT, "two"]


def test_records_of_two_formats_cannot_be_written_into_one_file(tmp_path):
    with pytest.raises(DataError, match="formats prompt_response and text cannot stand in one file"):
        write_jsonl(tmp_path / "a.jsonl", [Demonstration("", "r"), Demonstration("p", "r")])
    assert not (tmp_path / "a.jsonl").exists()


def test_csv_and_parquet_hold_the_same_records_as_json(tmp_path):
    (tmp_path / "a.csv").write_text('prompt,response_a,response_b,preference\nHi,Hello,"No, no",a\nHi,x,y,0.25\n')
    expected = [Comparison("Hi", "Hello", "No, no", 1.0), Comparison("Hi", "x", "y", 0.25)]
    assert read_comparisons(DataConfig(path=str(tmp_path / "a.csv"))) == expected
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [
        {"prompt": [USER], "response_a": "x", "response_b": "y", "votes": {"ann": "a", "bob": None}},
        {"prompt": [USER], "response_a": "x", "response_b": "z", "votes": {"ann": None, "bob": "b"}},
    ]
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    first, second = read_comparisons(DataConfig(path=str(tmp_path / "a.parquet")))
    assert first == Comparison(CHAT, "x", "y", 1.0, votes=(Vote("ann", "a"),))
    assert second.votes == (Vote("bob", "b"),)
    assert second.source.endswith("a.parquet:2")


def test_prompts_come_from_every_format(tmp_path):
    for values, prompt in [
        ({"prompt": "Hi"}, "Hi"),
        ({"prompt": [USER]}, CHAT),
        ({"prompt": "Hi", "response": "Hello"}, "Hi"),
        ({"messages": [USER]}, CHAT),
        ({"messages": [USER, ASSISTANT]}, CHAT),
        ({"chosen": HH + " Hello", "rejected": HH + " No"}, HH),
        ({"prompt": "Hi", "completion": "Hello", "label": True}, "Hi"),
        ({"messages": [USER, ASSISTANT], "desirable": False}, CHAT),
        ({"text": "Once"}, "Once"),
        ({"text": "good", "label": 1}, "good"),
    ]:
        assert read_prompts(lines(tmp_path / "a.jsonl", values)) == [prompt]


def test_the_preferred_response_of_a_comparison_serves_as_demonstration_ties_counted_out(tmp_path):
    pair = {"prompt": "Hi", "response_a": "x", "response_b": "y"}
    config = lines(tmp_path / "a.jsonl", *({**pair, "preference": p} for p in ("a", "b", "tie", "skip")))
    reading = read(config, "demonstrations")
    assert reading.records == [Demonstration("Hi", "x"), Demonstration("Hi", "y")]
    assert reading.dropped == {"tie": 1, "skipped by the rater": 1}


def test_as_chat_turns_texts_into_a_user_message_and_dialogues_into_turns(tmp_path):
    config = lines(tmp_path / "a.jsonl", {"prompt": "Hi", "response": " Hello"})
    assert read_demonstrations(plus(config, as_chat=True)) == [Demonstration(CHAT, " Hello")]
    dialogue = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: a\n\nHuman: b\n\nAssistant:"
    config = lines(tmp_path / "b.jsonl", {"chosen": dialogue + " yes", "rejected": dialogue + " no"})
    turns = (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "a\n\nb"))
    assert read_comparisons(plus(config, as_chat=True)) == [Comparison(turns, "yes", "no", 1.0)]
    assert read_prompts(plus(config, as_chat=True)) == [turns]


def test_dialogues_that_part_too_early_are_dropped_and_counted_not_an_error(tmp_path):
    other = HH + " Hm.\n\nHuman: Well\n\nAssistant: x"
    config = lines(
        tmp_path / "a.jsonl",
        {"chosen": HH + " Hello", "rejected": HH + " No"},
        {"chosen": HH + " Hello", "rejected": other},
    )
    reading = read(config, "comparisons")
    assert len(reading.records) == 1
    assert reading.dropped == {"prompts differ before the last turn": 1}
    assert "a.jsonl, line 2: chosen and rejected part before" in reading.examples["prompts differ before the last turn"]
    assert str(reading).endswith("; dropped 1 (prompts differ before the last turn)")


def test_a_dialogue_is_its_prompt_and_response_space_for_space(tmp_path):
    chosen = "\n\nHuman: Hi\n\nAssistant: One\n\nHuman: More\n\nAssistant:  Two\n"
    config = lines(tmp_path / "a.jsonl", {"chosen": chosen, "rejected": chosen + "\n.."})
    (comparison,) = read_comparisons(config)
    assert comparison.prompt + comparison.a == chosen


def test_columns_are_mapped_by_keels_name(tmp_path):
    config = lines(tmp_path / "a.jsonl", {"question": "1+1?", "answer": "2", "final": "2"})
    columns = {"prompt": "question", "response": "answer"}
    assert read_demonstrations(plus(config, columns=columns)) == [Demonstration("1+1?", "2")]
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: there is no column 'reply', which columns names; the rec"):
        read_demonstrations(plus(config, columns={"prompt": "question", "response": "reply"}))


def test_wrong_column_names_in_the_settings_get_a_hint():
    with pytest.raises(ConfigError, match="did you mean 'prompt'"):
        load_config(DataConfig, None, ["path=a", "columns.promt=question"])
    with pytest.raises(ConfigError, match=r"keel's name first: \{prompt: question\}"):
        load_config(DataConfig, None, ["path=a", "columns.question=prompt"])
    assert load_config(DataConfig, None, ["path=a", "columns.prompt=question"]).columns == {"prompt": "question"}


def test_limit_takes_usable_records_from_the_start(tmp_path):
    config = lines(tmp_path / "a.jsonl", *({"prompt": "p", "response": r} for r in ("1", " ", "3", "4")))
    assert [r.response for r in read_demonstrations(plus(config, limit=2, on_error="drop"))] == ["1", "3"]


def test_a_format_is_never_guessed_where_two_fit(tmp_path):
    both = {"prompt": "p", "response": "r", "messages": [USER, ASSISTANT]}
    with pytest.raises(DataError, match=r"could be read as prompt_response .* or messages .*format: prompt_response"):
        detect([both])
    config = lines(tmp_path / "a.jsonl", both)
    assert read_demonstrations(plus(config, format="messages")) == [Demonstration(CHAT, "Hello")]
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: could be read as"):
        read_demonstrations(config)


def test_mixed_formats_name_both_places(tmp_path):
    config = lines(tmp_path / "a.jsonl", {"prompt": "p", "response": "r"}, {"text": "t"})
    with pytest.raises(DataError, match=r"prompt_response at .*a\.jsonl, line 1 and text at .*a\.jsonl, line 2"):
        read_demonstrations(config)


def test_the_dialect_of_a_file_says_what_it_can_give(tmp_path):
    config = lines(tmp_path / "a.jsonl", {"text": "fine", "label": 1})
    assert dialect_of(config).gives == ("labelled texts", "comparisons", "prompts")
    assert dialect_of(plus(config, format="text")).gives == ("demonstrations", "prompts")


def test_detection_says_what_gave_the_format_away():
    assert detect([{"chosen": HH + "x", "rejected": HH + "y"}]).why == (
        "columns chosen, rejected; both texts open with '\\n\\nHuman:'"
    )


def test_unknown_columns_show_the_nearest_format():
    with pytest.raises(DataError) as error:
        detect([{"instruction": "x", "reply": "y"}])
    assert "record 1: no known format has the columns instruction, reply. Nearest: alpaca (lacks output)" in str(
        error.value
    )
    with pytest.raises(DataError, match=r"Nearest: preference_implicit .expects two texts or two chats"):
        detect([{"chosen": 1, "rejected": 2}])
    with pytest.raises(DataError, match="no records"):
        detect([])


def test_a_set_without_the_wanted_kind_says_what_it_has(tmp_path):
    config = lines(tmp_path / "a.jsonl", {"prompt": "p", "response": "r"})
    with pytest.raises(DataError, match=r"format prompt_response .*no comparisons; it has demonstrations, prompts"):
        read_comparisons(config)
    config = lines(tmp_path / "b.jsonl", {"messages": [USER, ASSISTANT], "desirable": False})
    with pytest.raises(DataError, match=r"format unpaired .*no comparisons; it has ratings, demonstrations, prompts"):
        read_comparisons(config)


GOOD = {"prompt": "p", "response_a": "x", "response_b": "y", "preference": "a"}
BAD = [
    ({**GOOD, "prompt": " \n"}, "prompt is empty. Fill it in or drop the line."),
    ({**GOOD, "prompt": None}, "prompt is null."),
    ({**GOOD, "response_b": ""}, "response_b is empty."),
    ({**GOOD, "response_a": 3}, "response_a is int 3, text or a chat"),
    ({**GOOD, "response_b": "x"}, "response_a and response_b are the same text. Record a tie or drop the line."),
    ({**GOOD, "response_a": "\ud83d"}, "response_a holds half of a surrogate pair"),
    ({**GOOD, "preference": "left"}, "preference is 'left'; expected one of a, b, tie, both_bad, skip."),
    ({**GOOD, "preference": 1}, "preference is 1, which may be an index or a probability."),
    ({**GOOD, "preference": "0"}, "preference is 0, which may be an index"),
    ({**GOOD, "preference": 1.5}, "preference is 1.5; a probability from 0.0 to 1.0"),
    ({**GOOD, "preference": float("nan")}, "preference is nan; a probability"),
    ({**GOOD, "preference": None}, "preference is null."),
    ({**GOOD, "preference": [1]}, "preference is list [1], a, b, tie"),
    ({**GOOD, "votes": {"ann": "c"}}, "votes.ann is 'c'; expected one of"),
    ({**GOOD, "votes": {"ann": {"score": "high"}}}, 'votes.ann.score is str "high", a number was expected.'),
    ({**GOOD, "votes": {"ann": {}}}, "votes.ann is dict {}, an object with choice or score"),
    ({**GOOD, "votes": ["a"]}, 'votes[0] is str "a", an object with rater and choice'),
    ({**GOOD, "votes": "a"}, 'votes is str "a", an object with raters'),
    ({**GOOD, "weight": -1}, "weight is int -1, a number of at least 0"),
    ({**GOOD, "margin": "wide"}, 'margin is str "wide", a number'),
    ({**GOOD, "prompt": []}, "prompt is empty; a chat that waits for the assistant"),
    ({**GOOD, "prompt": [USER, ASSISTANT]}, "prompt ends with an assistant turn;"),
    ({**GOOD, "prompt": [{"role": "system", "content": "s"}]}, "prompt holds a system message and no user turn."),
    ({**GOOD, "prompt": [{"role": "bot", "content": "s"}]}, "prompt[0] has the role 'bot'; keel knows system, user"),
    ({**GOOD, "prompt": [{"content": "s"}]}, "prompt[0] has no role; it has content."),
    ({**GOOD, "prompt": [{"role": "user", "content": ""}]}, "prompt[0].content is empty."),
    ({**GOOD, "prompt": [{"role": "user", "content": [{"text": "s"}]}]}, "prompt[0].content is list"),
    ({**GOOD, "prompt": [{"role": "user", "content": "s", "tool_calls": [1]}]}, "prompt[0] calls tools"),
    ({**GOOD, "prompt": 5}, "prompt is int 5, text or a chat (a list of messages"),
    ({**GOOD, "response_a": [USER]}, "response_a has the turns user; one assistant turn was expected."),
    (
        {"prompt": "p", "response_a": "x", "preference": "a"},
        "there is no column 'response_b'; the record has prompt, r",
    ),
    ([1], "found list [1], expected a JSON object"),
]


@pytest.mark.parametrize(("values", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_a_bad_record_stops_with_place_field_and_remedy_or_is_dropped_and_counted(tmp_path, values, message):
    config = plus(lines(tmp_path / "a.jsonl", GOOD, values), format="comparison")
    with pytest.raises(DataError) as error:
        read_comparisons(config)
    assert f"a.jsonl, line 2: {message}" in str(error.value)
    assert "on_error: drop" in str(error.value)
    reading = read(plus(config, on_error="drop"), "comparisons")
    assert reading.records == [Comparison("p", "x", "y", 1.0)]
    assert sum(reading.dropped.values()) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt": "p", "chosen": "p x", "rejected": "p y"}, "chosen and rejected both begin with the prompt"),
        ({"prompt": "p", "chosen": "x", "rejected": "x"}, "chosen and rejected are the same text"),
        ({"chosen": "same", "rejected": "same"}, "chosen and rejected are the same text"),
        ({"chosen": "x y", "rejected": "z y"}, "the shared start is empty"),
        ({"chosen": "x y", "rejected": "x y z"}, "chosen behind the shared start is empty"),
        ({"chosen": [USER, ASSISTANT], "rejected": [USER, ASSISTANT]}, "chosen and rejected are the same text"),
        ({"chosen": [USER, ASSISTANT], "rejected": [USER, USER]}, "rejected ends with a user turn, not an answer"),
        ({"chosen": HH, "rejected": HH + " x"}, "chosen is empty"),
        ({"chosen": HH + " x", "rejected": HH + " x"}, "chosen and rejected are the same text"),
        ({"text": "fine", "label": 4}, "label is int 4, 0, 1, positive or negative was expected"),
        ({"text": "fine", "label": "joy"}, 'label is str "joy", 0, 1, positive'),
    ],
)
def test_bad_pairs_and_labels_say_what_is_wrong(tmp_path, values, message):
    with pytest.raises(DataError) as error:
        read_comparisons(lines(tmp_path / "a.jsonl", values))
    assert f"a.jsonl, line 1: {message}" in str(error.value)


def test_hh_said_of_other_texts_is_an_error(tmp_path):
    config = plus(lines(tmp_path / "a.jsonl", {"chosen": "The sky", "rejected": "The sea"}), format="hh")
    with pytest.raises(DataError, match=r"chosen does not open with .*format: preference_implicit"):
        read_comparisons(config)


def test_a_chat_without_an_answer_is_no_demonstration(tmp_path):
    config = lines(tmp_path / "a.jsonl", {"messages": [USER, ASSISTANT]}, {"messages": [USER]})
    with pytest.raises(DataError, match=r"line 2: the chat waits for the assistant"):
        read_demonstrations(config)


def test_identical_answers_may_tie(tmp_path):
    config = lines(tmp_path / "a.jsonl", {**GOOD, "response_b": "x", "preference": "tie"})
    assert read_comparisons(config) == [Comparison("p", "x", "x", 0.5)]


def test_nothing_left_is_an_error_with_the_first_reason(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="holds no records"):
        read_prompts(DataConfig(path=str(tmp_path / "empty.jsonl")))
    (tmp_path / "broken.jsonl").write_text("{\n")
    with pytest.raises(DataError, match=r"broken\.jsonl, line 1: broken JSON"):
        read_prompts(DataConfig(path=str(tmp_path / "broken.jsonl"), on_error="drop"))
    config = plus(lines(tmp_path / "a.jsonl", {"prompt": ""}), on_error="drop")
    with pytest.raises(DataError, match=r"every record was dropped.*a\.jsonl, line 1: prompt is empty"):
        read_prompts(config)


def test_votes_with_scores_keep_sign_size_and_acceptability(tmp_path):
    cast = {
        "ann": {"score": -2, "shown_first": "a"},
        "bob": {"score": 0, "a_acceptable": False, "b_acceptable": False},
        "cyd": {"score": 0.0, "a_acceptable": True, "b_acceptable": False},
        "dan": {"choice": "Model_A", "strength": 3},
        "eve": "skip",
        "fay": None,
    }
    config = lines(tmp_path / "a.jsonl", {"prompt": "p", "response_a": "x", "response_b": "y", "votes": cast})
    (comparison,) = read_comparisons(config)
    assert comparison.votes == (
        Vote("ann", "b", 2.0),
        Vote("bob", "both_bad", 0.0),
        Vote("cyd", "tie", 0.0),
        Vote("dan", "a", 3.0),
        Vote("eve", "skip"),
    )
    assert comparison.preference == (0 + 0.5 + 0.5 + 1) / 4


def test_a_pair_that_nobody_judged_is_dropped_and_counted(tmp_path):
    pair = {"prompt": "p", "response_a": "x", "response_b": "y"}
    reading = read(
        lines(tmp_path / "a.jsonl", {**pair, "votes": {"ann": "a"}}, {**pair, "votes": {"ann": "skip"}}), "comparisons"
    )
    assert (len(reading.records), reading.dropped) == (1, {"no votes": 1})


def test_the_files_of_a_folder_are_read_as_one_set(tmp_path):
    lines(tmp_path / "train-1.jsonl", {"prompt": "p", "response": "1"})
    lines(tmp_path / "train-2.jsonl", {"prompt": "p", "response": "2"})
    lines(tmp_path / "test.jsonl", {"prompt": "p", "response": "3"})
    records = read_demonstrations(DataConfig(path=str(tmp_path)))
    assert [(r.response, Path(r.source).name) for r in records] == [("1", "train-1.jsonl:1"), ("2", "train-2.jsonl:1")]


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["a", HH, HH + " x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "from", "value", "rater", "choice", "score"]), inner)
        | st.just([USER, ASSISTANT])
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("form", ["auto", *dict.fromkeys(dialect.name for dialect in DIALECTS)])
def test_whatever_a_record_holds_reading_gives_records_or_a_data_error(tmp_path_factory, form):
    path = tmp_path_factory.mktemp("fuzz") / "a.jsonl"
    columns = {name for dialect in DIALECTS if form in ("auto", dialect.name) for name in dialect.columns} & set(
        COLUMNS
    )
    rows = st.fixed_dictionaries({}, optional=dict.fromkeys(sorted(columns), anything))

    @quick
    @given(st.lists(rows, max_size=3), st.sampled_from(get_args(Kind)), st.booleans())
    def law(records, kind, as_chat):
        config = lines(path, *records)
        with suppress(DataError):
            assert read(plus(config, format=form, as_chat=as_chat), kind).records

    law()
