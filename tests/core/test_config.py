import json
from pathlib import Path
from typing import Annotated, Literal, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from keel.core.config import Config, digest, fields_of, load_config, to_dict, to_yaml
from keel.core.errors import ConfigError


class Penalty(Config):
    """How far the policy may go."""

    preset: Literal["none", "tight"] = "none"
    estimator: Literal["k1", "k2", "k3"] = "k1"
    """Which estimator of the KL."""
    initial: float = Field(0.05, ge=0)
    """First coefficient."""
    bands: tuple[float, ...] = (0.1, 0.5)

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, values: object) -> object:
        return {"initial": 0.5, **values} if isinstance(values, dict) and values.get("preset") == "tight" else values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.initial > 10:
            raise ValueError(f"initial={self.initial} is above 10")
        return self


class HeadForm(Config):
    kind: Literal["head"] = "head"
    bias: bool = False


class ImplicitForm(Config):
    kind: Literal["implicit"] = "implicit"
    beta: float = 0.1
    """Weight of the log-ratio."""


class Part(Config):
    name: str
    """Under which it is logged."""
    weight: float = 1.0


class Example(Config):
    name: str = "run"
    updates: int = Field(10, ge=1)
    """Rollouts."""
    learning_rate: float = Field(1e-5, gt=0, le=1)
    folder: Path | None = None
    threads: int | Literal["auto"] = "auto"
    penalty: Penalty = Penalty()
    """The penalty."""
    optional: Penalty | None = None
    """Absent: no second penalty."""
    form: Annotated[HeadForm | ImplicitForm, Field(discriminator="kind")] = HeadForm()
    parts: tuple[Part, ...] = ()
    columns: dict[str, str] = {}
    shuffle: bool = True


def load(tmp_path: Path, text: str, *overrides: str) -> Example:
    file = tmp_path / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    return load_config(Example, file, overrides)


def message(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, *overrides)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_a_file_and_overrides_lie_over_the_defaults(tmp_path):
    config = load(
        tmp_path,
        "updates: 20\npenalty:\n  initial: 0.2\nparts:\n- name: a\n- {name: b, weight: 2}\n",
        "penalty.estimator=k3",
        "parts.1.weight=-0.5",
        "columns={prompt: question}",
        "folder=some/where",
    )
    assert config.updates == 20
    assert config.penalty == Penalty(initial=0.2, estimator="k3")
    assert config.parts == (Part(name="a"), Part(name="b", weight=-0.5))
    assert config.columns == {"prompt": "question"}
    assert config.folder == Path("some/where")


def test_numbers_with_an_exponent_are_numbers(tmp_path):
    for text in ("1e-5", "1E-5", "1.0e-5", ".1e-4", "+1e-5", '"1e-5"', "0.00001"):
        assert load(tmp_path, f"learning_rate: {text}").learning_rate == 1e-5
        assert load(tmp_path, "name: x", f"learning_rate={text}").learning_rate == 1e-5


def test_a_date_like_text_stays_text(tmp_path):
    assert load(tmp_path, "name: 2024-05-01").name == "2024-05-01"


def test_an_integer_is_taken_for_a_float_and_two_point_zero_for_an_integer(tmp_path):
    config = load(tmp_path, "learning_rate: 1\nupdates: 2.0")
    assert isinstance(config.learning_rate, float)
    assert isinstance(config.updates, int)


def test_optional_sections_are_absent_or_present(tmp_path):
    assert load(tmp_path, "name: x").optional is None
    assert load(tmp_path, "optional:").optional is None
    assert load(tmp_path, "optional: {}").optional == Penalty()
    assert load(tmp_path, "name: x", "optional.initial=2").optional == Penalty(initial=2)
    assert load(tmp_path, "optional: {initial: 3}", "optional=null").optional is None


def test_a_section_with_a_before_validator_takes_lists_and_presets(tmp_path):
    assert load(tmp_path, "penalty: {preset: tight, bands: [1, 2]}").penalty == Penalty(
        preset="tight", initial=0.5, bands=(1.0, 2.0)
    )


def test_alternatives_are_told_apart_by_their_kind(tmp_path):
    assert load(tmp_path, "form: {kind: implicit, beta: 0.2}").form == ImplicitForm(beta=0.2)
    text = message(tmp_path, "form: {kind: implicit, betta: 0.2}")
    assert text == "recipe.yaml, line 1: form.betta is not a setting. Did you mean 'beta'?"
    text = message(tmp_path, "form:\n  kind: implict\n")
    assert "line 1: form: expected 'kind' to be 'head', 'implicit', found a section. Did you mean 'implicit'?" in text
    assert "names its 'kind'" in message(tmp_path, "form: {beta: 0.2}")


def test_base_settings_lie_below_the_file(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("penalty: {initial: 0.3}\n", encoding="utf-8")
    base = {"updates": 7, "penalty": {"initial": 1, "estimator": "k2"}, "folder": Path("x")}
    config = load_config(Example, file, ["updates=8"], base=base)
    assert config.updates == 8
    assert config.penalty == Penalty(initial=0.3, estimator="k2")
    assert config.folder == Path("x")
    assert load_config(Example, None) == Example()
    with pytest.raises(ConfigError, match=r"^base settings: updates: expected at least 1, found 0\.$"):
        load_config(Example, None, base={"updates": 0})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("penalty:\n  inital: 1\n", "line 2: penalty.inital is not a setting. Did you mean 'initial'?"),
        ("seeed: 1", "line 1: seeed is not a setting. Known here: name, updates, "),
        (
            "a: 1\nestimator: k1",
            "line 2: estimator is not a setting. Elsewhere there is penalty.estimator, optional.estimator.",
        ),
        ("parts:\n- name: a\n- nam: b\n", "line 3: parts.1.nam is not a setting. Did you mean 'name'?"),
        ("parts:\n- name: a\n- weight: 2\n", "line 3: parts.1.name is missing. Set it: text."),
        ("updates: many", 'line 1: updates: expected a whole number, found "many".'),
        ("updates: 1.5", "line 1: updates: expected a whole number, found 1.5."),
        ("updates: true", "line 1: updates: expected a whole number, found true."),
        ("updates: '5'", 'line 1: updates: expected a whole number, found "5". Remove the quotes.'),
        ("updates: 0", "line 1: updates: expected at least 1, found 0."),
        ("learning_rate: 2", "line 1: learning_rate: expected at most 1, found 2."),
        ("learning_rate: [1]", "line 1: learning_rate: expected a number, found a list."),
        ("shuffle: 1", "line 1: shuffle: expected true or false, found 1."),
        ("shuffle: 'yes'", 'line 1: shuffle: expected true or false, found "yes".'),
        ("name: 5", "line 1: name: expected text, found 5. Put it in quotes."),
        ("columns:\n  prompt: no\n", "line 2: columns.prompt: expected text, found false. Put it in quotes."),
        ("threads: atuo", "line 1: threads: expected a whole number or 'auto', found \"atuo\". Did you mean 'auto'?"),
        ("penalty:\n  estimator: k11", "expected 'k1', 'k2' or 'k3', found \"k11\". Did you mean 'k1'?"),
        ("penalty:", "line 1: penalty: expected a section of settings, found nothing. Remove the key, or write {}"),
        ("penalty: 3", "line 1: penalty: expected a section of settings, found 3."),
        ("parts: {}", "line 1: parts: expected a list, found a section."),
        ("name: x\npenalty:\n  initial: 11\n", "line 2: penalty: initial=11.0 is above 10"),
        ("name: a\nname: b\n", "line 2: name is set twice, first on line 1. Keep one of them."),
        ("penalty:\n  initial: 1\n  initial: 2\n", "line 3: penalty.initial is set twice, first on line 2."),
        ("5: a", "line 1: the key 5 is not text. Put it in quotes."),
        ("name: [a", "line 1: not YAML: expected ',' or ']'"),
        (
            "name: x\npenalty:\n\tinitial: 1\n",
            "line 3: not YAML: found character '\\t' that cannot start any token. Indent with spaces, not tabs.",
        ),
        ("name: x\n---\nname: y\n", "not YAML: expected a single document in the stream, but found another document."),
        ("name: &a [*a]", "line 1: name.0 contains itself through an alias."),
        ("name: !!set {a, b}", "line 1: name has the tag tag:yaml.org,2002:set; settings are plain values."),
        ("name: !!int x", "not YAML: invalid literal for int()"),
        ("name: !!python/object:os.system x", "settings are plain values."),
        ("- a\n- b\n", "line 1: expected key: value lines, found list."),
        ("", "the file holds no settings."),
        ("# nothing\n", "the file holds no settings."),
    ],
)
def test_each_mistake_gets_one_line_with_place_and_remedy(tmp_path, text, expected):
    said = message(tmp_path, text)
    line = next(line for line in said.splitlines() if expected in line)
    assert line.startswith("recipe.yaml")


def test_every_problem_is_reported_at_once_in_file_order(tmp_path):
    said = message(tmp_path, "updates: 0\nfoo: 1\npenalty: {initial: x}\n", "learning_rate=9")
    places = [line.split(": ")[0] for line in said.splitlines()]
    assert places == ["recipe.yaml, line 1", "recipe.yaml, line 2", "recipe.yaml, line 3", "-s learning_rate=9"]


def test_an_override_that_is_wrong_is_quoted(tmp_path):
    ok = "updates: 3\npenalty: {initial: 1}\n"
    assert message(tmp_path, ok, "penalty.inital=2") == (
        "-s penalty.inital=2: penalty.inital is not a setting. Did you mean 'initial'?"
    )
    assert "-s updates=x: updates: expected a whole number" in message(tmp_path, ok, "updates=x")
    assert "-s penalty={initial: -1}: penalty.initial: expected at least 0" in message(
        tmp_path, ok, "penalty={initial: -1}"
    )
    assert "is written key=value" in message(tmp_path, ok, "updates")
    assert "is written key=value" in message(tmp_path, ok, "=3")
    assert "updates.x would stand below" not in message(tmp_path, ok, "updates.x=3")
    assert "which is not a section" in message(tmp_path, ok, "updates.x=3")
    assert "is not a position of a list of 0" in message(tmp_path, "parts: []", "parts.0.name=a")


def test_unreadable_files_are_explained(tmp_path):
    (tmp_path / "hh.yaml").write_text("name: x", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"there is no such file .*hh\.yaml"):
        load_config(Example, tmp_path / "hhh.yaml")
    with pytest.raises(ConfigError, match=r"this is a folder.*hh\.yaml"):
        load_config(Example, tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(Example, tmp_path / "binary.yaml")


def test_an_alias_and_a_merge_key_mean_what_yaml_says(tmp_path):
    config = load(tmp_path, "penalty: &p {initial: 3}\noptional:\n  <<: *p\n  estimator: k2\n")
    assert config.optional == Penalty(initial=3, estimator="k2")


def test_to_yaml_reads_back_to_an_equal_config(tmp_path):
    config = Example(
        learning_rate=1e-7,
        optional=Penalty(bands=()),
        parts=(Part(name="né: x"),),
        columns={"yes": "no"},
        folder=Path("a"),
    )
    assert load(tmp_path, to_yaml(config)) == config
    assert json.loads(json.dumps(to_dict(config))) == to_dict(config)


def test_equal_configs_have_equal_digests_however_they_were_written(tmp_path):
    assert digest(to_dict(load(tmp_path, "learning_rate: 1"))) == digest(to_dict(load(tmp_path, "learning_rate: 1.0")))


def test_the_digest_does_not_depend_on_order_and_stays_the_same_for_ever():
    assert digest({"b": [1, 2.5, None], "a": "é"}) == digest({"a": "é", "b": [1, 2.5, None]})
    # sha256sum of {"a":"é","b":[1,2.5,null]} in UTF-8
    assert digest({"a": "é", "b": [1, 2.5, None]}) == "d764fee2563da33e3d57334755404e635da33c995824b0adfabc4b6e1af4f608"
    assert digest({"a": 1}) != digest({"a": "1"})


@given(st.floats(min_value=1e-300, max_value=1.0), st.text(), st.dictionaries(st.text(min_size=1), st.text()))
def test_any_value_survives_the_way_through_yaml(tmp_path_factory, rate, name, columns):
    config = Example(learning_rate=rate, name=name, columns=columns)
    file = tmp_path_factory.getbasetemp() / "round.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(Example, file) == config


def test_fields_of_lists_every_setting_with_type_default_and_help():
    docs = {doc.name: doc for doc in fields_of(Example)}
    assert docs["learning_rate"].type == "number > 0, <= 1"
    assert docs["learning_rate"].default == "1e-05"
    assert docs["updates"].help == "Rollouts."
    assert docs["threads"].type == 'whole number | "auto"'
    assert docs["threads"].default == '"auto"'
    assert docs["folder"].type == "path | nothing"
    assert docs["folder"].default == "null"
    assert docs["penalty"].type == "section"
    assert docs["penalty"].default == ""
    assert docs["penalty.estimator"].type == '"k1" | "k2" | "k3"'
    assert docs["optional"].type == "section | nothing"
    assert docs["optional.initial"].help == "First coefficient."
    assert docs["form.kind"].type == '"head" | "implicit"'
    assert docs["form.beta"].help == "Weight of the log-ratio."
    assert docs["parts[]"].type == "list of section"
    assert docs["parts[].name"].default == "required"
    assert docs["columns"].type == "section of text"
    assert list(docs)[:3] == ["name", "updates", "learning_rate"]


def test_a_config_cannot_be_changed_after_it_is_made():
    with pytest.raises(ValueError, match="frozen"):
        Example().updates = 3
