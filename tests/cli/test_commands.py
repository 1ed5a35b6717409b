import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from keel.cli.main import main

RECIPE = """
model: {path: some/model}
data:
  demonstrations: {path: demos.jsonl}
sft:
  optim: {learning_rate: 1e-4}
"""


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def votes_file(tmp_path) -> Path:
    path = tmp_path / "votes.jsonl"
    lines = []
    for number in range(20):
        choices = {"ann": "a" if number % 2 else "b", "bob": "a" if number % 2 or number == 0 else "b", "cyd": "a"}
        votes = [{"rater": rater, "choice": choice} for rater, choice in choices.items()]
        lines.append({"prompt": f"q {number}", "response_a": "yes", "response_b": "no no", "votes": votes})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_config_prints_a_recipe_that_resolves_to_itself(recipe, capsys, tmp_path):
    assert main(["config", str(recipe), "-s", "seed=3", "--set", "sft.epochs=7"]) == 0
    output, error = capsys.readouterr()
    shown = yaml.safe_load(output)
    assert (shown["seed"], shown["sft"]["epochs"], shown["sft"]["optim"]["learning_rate"]) == (3, 7, 1e-4)
    assert error == f"Next: keel run {recipe} -s seed=3 -s sft.epochs=7\n"
    again = tmp_path / "again.yaml"
    again.write_text(output)
    assert main(["config", str(again)]) == 0
    assert capsys.readouterr().out == output


def test_config_explains_mistakes_with_file_line_and_suggestion(recipe, capsys):
    recipe.write_text(RECIPE.replace("learning_rate", "lerning_rate"))
    assert main(["config", str(recipe)]) == 2
    said = f"keel: {recipe}, line 6: sft.optim.lerning_rate is not a setting. Did you mean 'learning_rate'?"
    assert said in capsys.readouterr().err


def test_config_lists_settings_below_a_prefix(capsys):
    assert main(["config", "--fields", "ppo.kl"]) == 0
    output = capsys.readouterr().out
    assert 'ppo.kl.estimator: "k1" | "k2" | "k3" = "k1"' in output
    assert "ppo.kl: section" in output
    assert "sft" not in output
    main(["config", "--fields"])
    assert "\nseed: whole number = 0\n" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["reward", "ppo", "evaluate"])
def test_a_stage_that_the_recipe_does_not_have_is_refused_before_torch_is_loaded(recipe, command):
    program = f"""
import sys
from keel.cli.main import main
status = main([{command!r}, {str(recipe)!r}])
sys.exit(status if "torch" not in sys.modules else 99)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert f"keel {command} needs a section {command}: in the recipe." in done.stderr


def test_a_folder_without_a_run_names_runs_nearby(tmp_path, capsys):
    for command in ("show", "report"):
        assert main([command, str(tmp_path / "nowhere")]) == 2
        assert "there is no such folder" in capsys.readouterr().err
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "events.jsonl").touch()
    assert main(["show", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "holds no run (no events.jsonl)" in error
    assert f"Runs nearby: {tmp_path / 'first'}" in error


def test_show_json_is_the_summary_file(tmp_path, capsys):
    (tmp_path / "events.jsonl").touch()
    assert main(["show", str(tmp_path), "--json"]) == 2
    assert "summary.json: not there yet" in capsys.readouterr().err
    (tmp_path / "summary.json").write_text('{"seconds": 3}\n')
    assert main(["show", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"seconds": 3}


def test_data_show_says_what_was_found_and_why(votes_file, capsys):
    assert main(["data", "show", str(votes_file)]) == 0
    output, error = capsys.readouterr()
    assert f"{votes_file}: 20 comparisons" in output
    assert "comparison (columns prompt, response_a, response_b, votes)" in output
    assert "60 by 3 raters" in output
    assert output.count("example ") == 3
    assert "(votes.jsonl:1)" in output
    assert error == f"Next: keel data agreement {votes_file}\n"


def test_data_show_knows_rankings_and_ratings(tmp_path, capsys):
    ranking, rating = tmp_path / "ranking.jsonl", tmp_path / "rating.jsonl"
    ranking.write_text('{"prompt": "p", "responses": ["x", "y", "z"], "scores": [1, 3, 2.5]}\n')
    assert main(["data", "show", str(ranking)]) == 0
    output = capsys.readouterr().out
    assert [line.split() for line in output.splitlines()[-3:]] == [
        ["score", "3", "y"],
        ["score", "2.5", "z"],
        ["score", "1", "x"],
    ]
    assert "3 a prompt" in output
    rating.write_text('{"prompt": "p", "completion": "x", "label": false}\n')
    assert main(["data", "show", str(rating)]) == 0
    output = capsys.readouterr().out
    assert output.splitlines()[-1].split() == ["desirable", "false"]


def test_data_show_counts_what_it_dropped(tmp_path, capsys):
    path = tmp_path / "pairs.jsonl.gz"
    lines = [{"prompt": "p", "chosen": "x", "rejected": "y"}, {"prompt": "p", "chosen": "x", "rejected": "x"}]
    path.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
    assert main(["data", "show", str(path)]) == 0
    output, error = capsys.readouterr()
    assert ": 1 comparison\n" in output
    assert "dropped" in output
    assert "line 2" in output
    assert error.count("\n") == 1  # the next step; what was dropped is said once


def test_data_show_takes_a_format_and_columns(tmp_path, capsys):
    path = tmp_path / "odd.csv"
    path.write_text("question,answer\nWhy?,Because.\n")
    assert main(["data", "show", str(path)]) == 2
    assert "no known format has the columns question, answer" in capsys.readouterr().err
    columns = ["--column", "prompt=question", "--column", "response=answer"]
    assert main(["data", "show", str(path), *columns]) == 0
    assert "1 demonstration\n" in capsys.readouterr().out
    assert main(["data", "show", str(path), *columns, "--format", "prompt_only"]) == 0
    assert "1 prompt\n" in capsys.readouterr().out
    assert main(["data", "show", str(path), "--column", "question"]) == 2
    assert "write keel's name, =, the file's own" in capsys.readouterr().err
    assert main(["data", "show", str(path), "--format", "promt_only"]) == 2
    assert "Did you mean 'prompt_only'?" in capsys.readouterr().err
