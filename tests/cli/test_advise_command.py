"""keel advise: from files and options to a method, and a recipe that runs."""

import json
import os
import subprocess
import sys

import pytest
from helpers.pages import DOCS, follow, named
from helpers.recipes import Workplace

from keel.advise import hardware
from keel.advise.methods import METHODS
from keel.advise.rules import RULES
from keel.cli.main import main
from keel.core.config import load_config
from keel.core.errors import ConfigError
from keel.stages.recipe import Recipe

MACHINE = ("--gpus", "1", "--gpu-gib", "24", "--ram-gib", "64")


def told(capsys, *words):
    assert main(["advise", *words, *MACHINE, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *words):
    assert main(["advise", *words]) == 2
    return capsys.readouterr().err


def voted(count, agreeing):
    """Pairs with three votes each; of `agreeing` in ten all three say the same, else two of three."""
    rows = []
    for n in range(count):
        better = n % 2 == 0
        votes = ["a" if better else "b"] * 3
        if n % 10 >= agreeing:
            votes[n % 3] = "b" if better else "a"
        rows.append(
            {
                "prompt": f"how is my parcel {n} ?",
                "response_a": " thank you , it is here ." if better else " no .",
                "response_b": " no ." if better else " thank you , it is here .",
                "votes": [{"rater": name, "choice": vote} for name, vote in zip("xyz", votes, strict=True)],
            }
        )
    return rows


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Workplace(tmp_path)


def test_comparisons_are_counted_and_their_agreement_measured(place, capsys):
    place.write("votes.jsonl", voted(300, agreeing=10))
    found = told(capsys, "--model", "model", "--comparisons", "votes.jsonl")
    assert found["facts"]["comparisons"] == 300
    assert found["facts"]["agreement"]["alpha"] == 1.0
    assert found["facts"]["agreement"]["raters"] == 3
    assert found["facts"]["longer_wins"] == 1.0
    assert found["facts"]["parameters"] < 1e6
    assert found["facts"]["parameters_source"] == "counted in its files"
    assert found["method"] == "ipo"


def test_raters_who_disagree_block_the_recipe_unless_somebody_says_why(place, capsys):
    place.write("votes.jsonl", voted(300, agreeing=0))
    found = told(capsys, "--model", "model", "--comparisons", "votes.jsonl")
    assert (found["method"], found["verdict"]["rule"]) == (None, "labels_first")
    assert found["facts"]["agreement"]["alpha"] < 0.4
    words = ("--model", "model", "--comparisons", "votes.jsonl", *MACHINE, "--write", "r.yaml")
    assert "raters agree too little" in refused(capsys, *words)
    assert not (place.folder / "r.yaml").exists()
    assert main(["advise", *words, "--override", "a pilot of ten questions"]) == 0
    recipe = load_config(Recipe, place.folder / "r.yaml")
    assert recipe.data.override_agreement == "a pilot of ten questions"


def test_the_written_recipe_has_the_paths_and_says_why(place, capsys):
    place.write("votes.jsonl", voted(300, agreeing=7))
    words = ("--model", "model", "--comparisons", "votes.jsonl", "--demonstrations", "demos.jsonl", *MACHINE)
    assert main(["advise", *words, "--write", "r.yaml"]) == 0
    printed = capsys.readouterr()
    assert "method: dpo" in printed.out
    assert "keel run r.yaml" in printed.err
    recipe = load_config(Recipe, place.folder / "r.yaml")
    assert recipe.model.path == "model"
    assert recipe.data.comparisons.path == "votes.jsonl"
    assert recipe.prefer.algorithm == "dpo"
    assert 0.03 <= recipe.prefer.dpo.label_noise <= 0.1
    head = (place.folder / "r.yaml").read_text().splitlines()
    assert head[0].startswith("# DPO")
    assert any("[B, " in line for line in head)
    assert "exists" in refused(capsys, *words, "--write", "r.yaml")


def test_what_is_missing_stands_in_the_recipe_and_in_the_next_step(place, capsys):
    assert main(["advise", "--size", "7B", "--comparisons", "20000", *MACHINE, "--write", "r.yaml"]) == 0
    assert "fill in model.path" in capsys.readouterr().err
    text = (place.folder / "r.yaml").read_text()
    assert "# To fill in: data.comparisons.path" in text
    recipe = load_config(Recipe, place.folder / "r.yaml")
    assert recipe.model.dtype == "bfloat16"
    assert recipe.prefer.lora is not None  # 7 billion parameters in 24 GiB


def test_everything_is_said_on_request(place, capsys):
    assert main(["advise", "--size", "7B", "--comparisons", "20000", *MACHINE, "--all"]) == 0
    printed = capsys.readouterr().out
    for rule in RULES:
        assert rule.name in printed
    assert "rlaif  needs a model that judges" in printed
    assert "second: orpo" in printed


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "needs to know the model"),
        (("--size", "big"), "expected a number of parameters"),
        (("--model", "nobody/some-model"), "Give --size"),
        (("--model", "missing"), "no folder of a model"),
        (("--size", "7B", "--comparisons", "nowhere.jsonl"), "no such file or folder here"),
        (("--size", "7B", "--comparisons", "100", "--kappa", "1.5"), "from -1 to 1"),
        (("--size", "7B", "--constitution", "no.yaml"), "no such file"),
        (("--size", "7B", "--gpus", "-1"), "expected 0 or more"),
        (("--size", "7B", "--gpus", "0", "--gpu-gib", "80"), "leave one of them out"),
        (("--size", "7B", "--gpu-gib", "0"), "above 0"),
        (("--size", "7B", "--override", "short"), "say why"),
        (("--size", "7B", "--reward", "none", "--reward", "people"), "leave one of them out"),
        (("--size", "7B", "--goal", "math"), "maths"),
        (("--size", "7B", "--gpus", "0", "--write", "r.yaml"), "r.yaml was not written"),
    ],
)
def test_bad_input_is_one_clear_message(words, says, place, capsys):
    message = refused(capsys, *words)
    assert says in message
    assert "Traceback" not in message


def test_votes_and_a_kappa_by_hand_contradict_each_other(place, capsys):
    place.write("votes.jsonl", voted(300, agreeing=10))
    assert "Leave it out" in refused(capsys, "--model", "model", "--comparisons", "votes.jsonl", "--kappa", "0.5")


def test_gpus_are_asked_of_the_driver(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 81559\necho 40960\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    found = hardware.detect()
    assert (found.gpus, found.gpu_gib) == (2, 40.0)
    assert found.ram_gib > 0
    tool.write_text("#!/bin/sh\necho no devices were found\nexit 9\n")
    assert hardware.detect().gpus == 0
    with pytest.raises(ConfigError, match="--gpu-gib"):
        hardware.detect(gpus=2)


def test_it_starts_without_torch_and_fast():
    code = "import sys; from keel.cli.main import main; main(['advise', '--size', '1B', '--comparisons', '9000'])\n"
    code += "sys.exit(', '.join({'torch', 'transformers', 'pandas'} & sys.modules.keys()) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_page_works_and_shows_the_rules_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    follow(named("choosing-a-method.md"))
    page = (DOCS / "choosing-a-method.md").read_text(encoding="utf-8")
    for rule in RULES:
        weights = ", ".join(f"`{method}` {weight:+g}" for method, weight in rule.weights.items())
        assert f"| `{rule.name}` | {weights} | {rule.source} |" in page
    assert all(f"| [`{name}`](" in page for name in METHODS if name != "sft")
