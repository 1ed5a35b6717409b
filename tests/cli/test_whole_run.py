import json

import pytest

from keel.cli.main import main

RECIPE = """
model: {{path: {model}}}
threads: 1
data:
  demonstrations: {{path: demos.jsonl}}
  comparisons: {{path: pairs.jsonl}}
  prompts: {{path: demos.jsonl, holdout: 0.3}}
sft: {{epochs: 1}}
reward: {{best_of: 0}}
ppo: {{updates: 1, prompts: 2, samples: 2, max_new_tokens: 8, evaluate_prompts: 4}}
evaluate: {{prompts: 4}}
"""


@pytest.fixture
def workplace(tmp_path, shared_models, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["Tom", "Lily", "Ben", "Sue", "Max", "Mia", "Sam", "Amy", "Tim", "Ann"] * 4
    demos = [{"prompt": f"{name} {i} had a cat.", "response": f" {name} was happy."} for i, name in enumerate(names)]
    pairs = [{"prompt": d["prompt"], "chosen": d["response"], "rejected": " It was sad."} for d in demos]
    for file, rows in (("demos.jsonl", demos), ("pairs.jsonl", pairs)):
        (tmp_path / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tiny.yaml").write_text(RECIPE.format(model=shared_models / "stories260k"))
    return tmp_path


def test_a_recipe_runs_stage_by_stage_reuses_what_is_finished_and_can_be_looked_at(workplace, capsys):
    run = workplace / "runs" / "tiny"

    assert main(["sft", "tiny.yaml"]) == 0
    said = capsys.readouterr().err
    assert "sft: done in" in said
    assert said.endswith("Next: keel show runs/tiny, or open runs/tiny/report.html\n")
    assert list(json.loads((run / "summary.json").read_text())["stages"]) == ["sft"]

    assert main(["run", "tiny.yaml", "-s", "ppo.updates=2"]) == 0
    said = capsys.readouterr().err
    assert "sft: finished before, reused" in said
    assert "ppo: 2/2 updates" in said
    assert "\033" not in said

    assert main(["show", "runs/tiny", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert {"sft", "reward", "ppo", "evaluate"} <= set(summary["stages"])
    assert summary["stages"]["ppo"]["updates"] == 2

    assert main(["show", "runs/tiny"]) == 0
    assert "KL" in capsys.readouterr().out

    (run / "report.html").unlink()
    assert main(["report", "runs/tiny"]) == 0
    assert capsys.readouterr().out == "wrote runs/tiny/report.html\n"
    assert (run / "report.html").is_file()
