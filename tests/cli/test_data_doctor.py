import json
import subprocess
import sys

import pytest
from helpers.patients import comparisons, demonstrations

from keel.cli.main import main
from keel.data.formats import write_jsonl


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pairs = comparisons(60)
    write_jsonl(tmp_path / "pairs.jsonl", [*pairs, pairs[0]])
    write_jsonl(tmp_path / "eval.jsonl", pairs[:2])
    write_jsonl(tmp_path / "demos.jsonl", demonstrations(60))
    return tmp_path


def test_the_letter_says_what_is_wrong_where_and_what_to_do(files, capsys):
    assert main(["data", "doctor", "pairs.jsonl", "--against", "eval.jsonl"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "pairs.jsonl  61 comparisons, format comparison"
    assert lines[1] == "Do not train on it like this: 1 error, and 2 warnings."
    assert lines[3].startswith("✗  leakage  3 records have a prompt that is also, or nearly, in eval.jsonl")
    assert any(line.strip().startswith("→  Drop these records") for line in lines)
    assert any("pairs.jsonl:1  also at eval.jsonl:1" in line for line in lines)
    assert any(line.startswith("!  duplicates  1 record repeats") for line in lines)
    assert "\x1b" not in out
    assert all(line == line.rstrip() for line in lines)
    assert err == "Next: keel data doctor pairs.jsonl --apply pairs-clean.jsonl leaves out 3 records\n"


def test_json_for_machines(files, capsys):
    assert main(["data", "doctor", "pairs.jsonl", "--json", "--scope", "general", "-s", "skew_warn=0.9"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["severity"] == "warn"
    by_rule = {finding["rule"]: finding for finding in report["findings"]}
    assert by_rule["size"]["figures"]["wanted"] == 20_000
    assert by_rule["duplicates"]["examples"][0]["source"] == "pairs.jsonl:61"
    assert by_rule["duplicates"]["removable"] == 1


def test_apply_writes_a_new_file(files, capsys):
    assert main(["data", "doctor", "pairs.jsonl", "--apply", "clean.jsonl"]) == 0
    assert len((files / "clean.jsonl").read_text().splitlines()) == 60
    assert "left out: 1 for duplicates" in capsys.readouterr().err
    assert main(["data", "doctor", "pairs.jsonl", "--apply", "clean.jsonl"]) == 2
    assert "never writes over anything" in capsys.readouterr().err


def test_fail_on_is_for_scripts(files, capsys):
    assert main(["data", "doctor", "pairs.jsonl", "--rule", "duplicates", "--fail-on", "warn"]) == 1
    assert main(["data", "doctor", "pairs.jsonl", "--rule", "duplicates", "--fail-on", "error"]) == 0
    assert main(["data", "doctor", "pairs.jsonl", "--rule", "duplicate"]) == 2
    assert "--rule duplicate: no such rule" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pairs.jsonl", "--holdout", "2"], "--holdout 2: a share"),
        (["pairs.jsonl", "-s", "skew_warm=0.9"], "skew_warn"),
        (["demos.jsonl", "--tokens"], "--tokens needs --model"),
        (["absent.jsonl"], "does not exist"),
    ],
)
def test_what_cannot_be_is_explained(files, capsys, arguments, message):
    assert main(["data", "doctor", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_snapshot_freezes_checks_and_never_changes(files, capsys):
    command = ["data", "snapshot", "pairs.jsonl", "--name", "first", "--to", "snapshots"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    name = out.splitlines()[0]
    assert name.startswith("first@")
    assert err.endswith(f"Next: name it in a recipe, under data: comparisons: {{path: snapshots/{name}}}\n")
    assert main(command) == 0
    assert main(["data", "snapshot", f"snapshots/{name}", "--check", "--json"]) == 0
    assert main(["data", "show", f"snapshots/{name}"]) == 0
    capsys.readouterr()
    assert main(["data", "snapshot", "eval.jsonl", "--name", "first", "--to", "snapshots"]) == 2
    assert "A snapshot never changes" in capsys.readouterr().err
    records = files / "snapshots" / "first" / "records.jsonl"
    records.chmod(0o644)
    records.write_bytes(records.read_bytes().replace(b"the", b"teh", 1))
    assert main(["data", "show", "snapshots/first"]) == 2
    assert "was changed after it was frozen" in capsys.readouterr().err
    assert main(["data", "snapshot", "pairs.jsonl"]) == 2
    assert "a snapshot needs --name NAME and --to DIR" in capsys.readouterr().err


def test_a_snapshot_tells_what_it_lacks_and_never_loses_a_guide_version(files, capsys):
    lines = (
        files / "pairs.jsonl"
    ).read_text() + '{"prompt": "p", "response_a": "", "response_b": "x", "preference": "a"}\n'
    (files / "holes.jsonl").write_text(lines)
    command = ["data", "snapshot", "holes.jsonl", "--name", "holes", "--to", "snapshots"]
    assert main([*command, "--guide-version", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left_out"] == {"empty_answers": 1}
    assert main(command) == 0
    assert main([*command, "--guide-version", "2"]) == 0
    assert main([*command, "--guide-version", "3"]) == 2
    assert "holds these records already, frozen with guide version 2" in capsys.readouterr().err
    assert main(["data", "snapshot", "pairs.jsonl", "--check"]) == 2
    assert "pairs.jsonl is no snapshot" in capsys.readouterr().err


def test_the_tokens_of_a_record_are_those_of_training(files, capsys, shared_models):
    pytest.importorskip("transformers")
    model = str(shared_models / "stories260k")
    assert main(["data", "doctor", "demos.jsonl", "--tokens", "--model", model, "--row", "2"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("demos.jsonl:2 response  ")
    assert "  prompt, no loss (" in out
    assert "    <s>|" in out
    assert "  carries the loss (" in out
    assert "|</s>\n" in out
    assert "\x1b" not in out
    assert main(["data", "doctor", "demos.jsonl", "--tokens", "--model", model, "--row", "99"]) == 2
    assert "there is no record 99" in capsys.readouterr().err


def test_the_doctor_needs_no_torch(files):
    code = (
        "import sys; from keel.cli.main import main; main(['data', 'doctor', 'pairs.jsonl', '--json']); "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=files, capture_output=True)
