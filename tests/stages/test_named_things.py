"""Paths and functions that a recipe names."""

import pytest
from helpers.recipes import recipe

from keel.core.errors import ConfigError, KeelError, TrainingError
from keel.stages.functions import function_identity, load_function
from keel.stages.paths import locate, located


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """A recipe's folder that is not the working directory."""
    (tmp_path / "work").mkdir()
    (tmp_path / "recipes").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "recipes"


def test_a_path_is_looked_for_here_then_beside_the_recipe_and_else_left_as_a_hub_name(beside):
    (beside / "a.jsonl").touch()
    assert located("a.jsonl", beside) == str(beside / "a.jsonl")
    (beside.parent / "work" / "a.jsonl").touch()
    assert located("a.jsonl", beside) == "a.jsonl"
    assert located("owner/name", beside) == "owner/name"


def test_every_path_of_a_recipe_is_found_beside_it(beside):
    for name in ("demos.jsonl", "pairs.jsonl", "prompts.jsonl", "golden.jsonl", "eval.jsonl"):
        (beside / name).touch()
    for name in ("model", "base", "bought"):
        (beside / name).mkdir()
    (beside / "chat.jinja").write_text("{{ messages }}")
    found = locate(
        recipe(
            beside,
            model={"path": "model", "chat_template": "chat.jinja"},
            data={"golden": {"path": "golden.jsonl"}},
            reward={"base": "base"},
            ppo={"rewards": [{"name": "a", "model": "bought"}, {"name": "b", "model": "stage"}]},
            evaluate={"data": {"path": "eval.jsonl"}},
        ),
        beside,
    )
    assert found.model.path == str(beside / "model")
    assert found.model.chat_template == "{{ messages }}", "the recipe then says what the template is"
    assert found.reward.base == str(beside / "base")
    assert [part.model for part in found.ppo.rewards] == [str(beside / "bought"), "stage"]
    sets = [
        found.data.demonstrations,
        found.data.comparisons,
        found.data.golden,
        found.data.prompts,
        found.evaluate.data,
    ]
    assert [s.path for s in sets] == [
        str(beside / f"{name}.jsonl") for name in ("demos", "pairs", "golden", "prompts", "eval")
    ]


def test_a_template_given_as_text_stays_as_it_is(beside):
    text = "{% for m in messages %}{{ m['content'] }}{% endfor %}" * 20  # far too long for the name of a file
    assert locate(recipe(beside, model={"chat_template": text}), beside).model.chat_template == text


def test_a_function_of_a_file_or_of_a_module_can_be_called(tmp_path):
    (tmp_path / "mine.py").write_text("def double(x):\n    'Twice.'\n    return 2 * x\n")
    function = load_function("mine.py:double", "here", tmp_path)
    assert (function(21), function.__doc__) == (42, "Twice.")
    assert load_function("math:sqrt", "here", tmp_path)(16.0) == 4.0


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("mine.py", "'mine.py' names no function. Write `file.py:function`"),
        ("mine.py:absent", "mine.py has no function `absent`. It has: double"),
        ("mine.py:LIMIT", "mine.py has no function `LIMIT`"),
        ("other.py:f", "there is no file"),
        ("no_such_module:f", "No module named 'no_such_module'"),
    ],
)
def test_what_cannot_be_found_names_the_field(tmp_path, spec, said):
    (tmp_path / "mine.py").write_text("LIMIT = 3\ndef double(x):\n    return 2 * x\n")
    with pytest.raises(ConfigError) as stop:
        load_function(spec, "ppo.rewards.mine", tmp_path)
    assert str(stop.value).startswith("ppo.rewards.mine: ")
    assert said in str(stop.value)


def test_the_line_named_is_the_users_own_even_when_a_library_raised(tmp_path):
    (tmp_path / "mine.py").write_text("import json\n\ndef f(x):\n    y = x\n    return json.loads(y)\n")
    with pytest.raises(TrainingError) as stop:
        load_function("mine.py:f", "here", tmp_path)("{")
    assert f"{tmp_path / 'mine.py'}, line 5 (JSONDecodeError: Expecting property name" in str(stop.value)
    assert stop.value.__cause__ is not None, "the traceback is there for whoever wants it"


def test_a_call_with_the_wrong_number_of_arguments_is_explained(tmp_path):
    (tmp_path / "mine.py").write_text("def f(prompts):\n    return []\n")
    with pytest.raises(TrainingError, match=r"here: mine.py:f failed \(TypeError: f\(\) takes 1 positional argument"):
        load_function("mine.py:f", "here", tmp_path)(1, 2)


def test_what_keel_itself_raises_and_interrupts_pass_through(tmp_path):
    text = "from keel.core.errors import DataError\ndef f(x):\n    raise DataError('mine')\n"
    (tmp_path / "mine.py").write_text(text + "def g(x):\n    raise KeyboardInterrupt\n")
    with pytest.raises(KeelError, match=r"^mine$"):
        load_function("mine.py:f", "here", tmp_path)(1)
    with pytest.raises(KeyboardInterrupt):
        load_function("mine.py:g", "here", tmp_path)(1)


def test_the_identity_of_a_function_follows_the_text_of_its_file(tmp_path):
    (tmp_path / "mine.py").write_text("def f(x): return 1\n")
    first = function_identity("mine.py:f", tmp_path)
    (tmp_path / "mine.py").write_text("def f(x): return 2\n")
    assert function_identity("mine.py:f", tmp_path) != first
    assert function_identity("package.module:f", tmp_path) == "package.module:f"
    assert function_identity(None, tmp_path) is None
