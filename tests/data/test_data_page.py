import re
from pathlib import Path

import pytest
import yaml

from keel.core.schema import fields_of
from keel.data.chat import decode_response, encode_prompt, encode_response
from keel.data.dialects import DIALECTS
from keel.data.formats import DataConfig
from keel.data.records import Message

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text()


def test_the_code_on_the_page_prints_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for block in blocks:
        exec(compile(block, "docs/data.md", "exec"), {})
    shown = [line.strip() for block in blocks for line in re.findall(r"# (.*)", block)]
    assert capsys.readouterr().out.splitlines() == shown


def test_the_settings_on_the_page_are_settings():
    for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL):
        DataConfig(**yaml.safe_load(block)["data"])


def test_every_format_and_every_column_is_on_the_page():
    table = PAGE[PAGE.index("## Formats") : PAGE.index("### Preferences")]
    for dialect in DIALECTS:
        assert f"| `{dialect.name}` |" in table
        assert all(f"`{column}`" in table for column in dialect.columns)


def test_every_setting_is_on_the_page():
    assert [doc.name for doc in fields_of(DataConfig) if not re.search(rf"\b{doc.name}\b", PAGE)] == []


def test_the_template_on_the_page_makes_a_chat_of_any_tokenizer(shared_models):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(shared_models / "stories260k")
    (tokenizer.chat_template,) = re.findall(r"```jinja\n(.*?)```", PAGE, re.DOTALL)
    prompt = (Message("user", "Who is there?"),)
    ids = encode_prompt(tokenizer, prompt) + encode_response(tokenizer, prompt, "A bear.")
    assert tokenizer.decode(ids) == "<|user|>\nWho is there?</s> \n<|assistant|>\nA bear.</s>"
    assert decode_response(tokenizer, encode_response(tokenizer, prompt, "A bear.")) == "A bear."
