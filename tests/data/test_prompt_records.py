import pytest
from helpers.recipes import write_lines

from keel.core.errors import DataError
from keel.data.formats import DataConfig, read_prompts
from keel.data.prompt_records import read_prompt_records
from keel.data.records import prompt_key


def records(tmp_path, rows, **settings):
    return read_prompt_records(DataConfig(path=str(write_lines(tmp_path / "rows.jsonl", rows)), **settings))


def test_what_stands_beside_a_prompt_is_found_by_the_prompt(tmp_path):
    rows = [
        {"prompt": "a?", "answer": "1", "level": 2},
        {"prompt": "b?", "tests": ["assert f() == 1"]},
        {"prompt": "c?"},
    ]
    found = records(tmp_path, rows)
    assert found == {
        prompt_key("a?"): {"answer": "1", "level": 2},
        prompt_key("b?"): {"tests": ["assert f() == 1"]},
    }


def test_columns_of_other_names_are_mapped(tmp_path):
    rows = [{"question": "a?", "answer": "so 1\n#### 1", "final": "1"}]
    columns = {"prompt": "question", "answer": "final"}
    assert records(tmp_path, rows, columns=columns) == {prompt_key("a?"): {"answer": "1"}}
    config = DataConfig(path=str(tmp_path / "rows.jsonl"), columns=columns)
    assert read_prompts(config) == ["a?"]


def test_a_chat_is_found_as_the_chat_that_is_trained_on(tmp_path):
    rows = [{"prompt": "a?", "answer": 1}]
    found = records(tmp_path, rows, as_chat=True)
    (prompt,) = read_prompts(DataConfig(path=str(tmp_path / "rows.jsonl"), as_chat=True))
    assert found[prompt_key(prompt)] == {"answer": 1}


def test_of_repeated_prompts_the_first_counts_and_two_answers_are_refused(tmp_path):
    rows = [{"prompt": "a?", "answer": "1", "by": "x"}, {"prompt": "A?", "answer": "1", "by": "y"}]
    assert records(tmp_path, rows) == {prompt_key("a?"): {"answer": "1", "by": "x"}}
    with pytest.raises(DataError, match=r"line 2: the same prompt stands at .* line 1 with another answer"):
        records(tmp_path, [{"prompt": "a?", "answer": "1"}, {"prompt": "a?", "answer": "2"}])


def test_lines_that_cannot_be_read_are_left_to_the_reader_of_prompts(tmp_path):
    rows = [{"prompt": "a?", "answer": "1"}, "{", {"prompt": ""}, {"other": 1}]
    assert list(records(tmp_path, rows, format="prompt_only")) == [prompt_key("a?")]


def test_broken_characters_become_question_marks(tmp_path):
    assert records(tmp_path, ['{"prompt": "a?", "answer": "\\ud800"}'])[prompt_key("a?")] == {"answer": "?"}
