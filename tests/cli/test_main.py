import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keel.cli.main import main, parser

HEAVY = ("torch", "transformers", "datasets", "matplotlib", "numpy", "pandas", "rich")
PROBE = f"""
import sys, time
from keel.cli.main import main
status = main(sys.argv[1:])
loaded = [name for name in {HEAVY!r} if name in sys.modules]
sys.stderr.write(f"PROBE {{status}} {{time.process_time():.3f}} {{' '.join(loaded)}}")
"""


def commands() -> list[list[str]]:
    """Every command line there is, subcommands included."""

    def walk(at: argparse.ArgumentParser, path: list[str]) -> list[list[str]]:
        below = [action for action in at._actions if isinstance(action, argparse._SubParsersAction)]
        return [path] + [
            c for action in below for name, sub in action.choices.items() for c in walk(sub, [*path, name])
        ]

    return walk(parser(), [])


def keel(*arguments: str | Path, **settings: object) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "keel.cli.main", *map(str, arguments)]
    return subprocess.run(program, capture_output=True, text=True, timeout=60, **settings)


def probe(*arguments: str) -> tuple[int, float, list[str], str]:
    """Exit status, seconds of CPU, heavy packages loaded, standard output."""
    done = subprocess.run([sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, timeout=60)
    status, seconds, *loaded = done.stderr.rpartition("PROBE ")[2].split()
    return int(status), float(seconds), loaded, done.stdout


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_help_is_there_within_half_a_second_without_heavy_packages(command):
    status, seconds, loaded, said = probe(*command, "--help")
    assert (status, loaded) == (0, [])
    assert seconds < 0.5
    assert f"usage: {' '.join(['keel', *command])}" in said


def test_version_and_settings_do_not_load_torch():
    for command in (["version"], ["config", "--fields"]):
        status, _, loaded, said = probe(*command)
        assert status == 0
        assert not {"torch", "transformers", "datasets"} & set(loaded)
        assert said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rum"], "keel: 'rum' is not a command. Did you mean 'run'? See keel --help."),
        (["xyzzy"], "keel: 'xyzzy' is not a command. Known: demo, advise, run, sft"),
        (["data", "shwo"], "keel: 'shwo' is not a command. Did you mean 'show'? See keel data --help."),
        (["run"], "the following arguments are required: RECIPE. See keel run --help."),
        (["run", "r.yaml", "--outt", "x"], "--outt is not an option of keel run. Did you mean '--out'?"),
        (["run", "r.yaml", "--se", "x"], "--se is not an option of keel run."),
        (["demo", "--seed", "x"], "argument --seed: invalid int value: 'x'."),
        ([], "the following arguments are required: COMMAND."),
        (["config"], "keel config needs a recipe"),
        (["config", "absent.yaml"], "absent.yaml: there is no such file"),
        (["config", "--fields", "ppo.k"], "'ppo.k' is not a setting. Did you mean 'ppo.kl'?"),
    ],
)
def test_mistakes_get_one_message_and_status_2(capsys, arguments, said):
    assert main(arguments) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert said in error
    assert error.startswith("keel: ")
    assert "Traceback" not in error


def test_the_next_step_goes_to_standard_error_so_that_the_answer_can_be_piped(capsys):
    assert main(["version"]) == 0
    output, error = capsys.readouterr()
    assert output.startswith("keel 0.")
    assert error == "Next: keel demo\n"


def test_colour_is_for_terminals_only(capsys, monkeypatch):
    main(["rum"])
    assert "\033" not in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    main(["rum"])
    assert "\033[31mkeel: 'rum'" in capsys.readouterr().err
    monkeypatch.setenv("NO_COLOR", "1")
    main(["rum"])
    assert "\033" not in capsys.readouterr().err


def test_an_interrupt_says_how_to_go_on(tmp_path):
    recipe = tmp_path / "endless.yaml"
    os.mkfifo(recipe)
    process = subprocess.Popen(
        [sys.executable, "-m", "keel.cli.main", "config", str(recipe)],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background shell would ignore it
    )
    writer = open_when_read(recipe)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=30)[1]
    os.close(writer)
    assert process.returncode == 130
    assert error == "\nStopped. Nothing finished is lost; resume with the same command.\n"


def open_when_read(fifo: Path) -> int:
    """The writing end, as soon as another process reads."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            time.sleep(0.02)
    raise TimeoutError(fifo)


def test_a_reader_that_has_seen_enough_is_no_error():
    read, write = os.pipe()
    os.close(read)
    program = [sys.executable, "-m", "keel.cli.main", "config", "--fields"]
    done = subprocess.run(program, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write)
    assert done.returncode == 0
    assert "Error" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full to be refused space")
def test_a_full_disk_behind_standard_output_is_one_message():
    program = [sys.executable, "-m", "keel.cli.main", "version"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 2
    assert "keel: standard output: No space left on device." in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_training_package_is_named_with_its_remedy(tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n")
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: {path: x}\n")
    done = keel("run", recipe, env=os.environ | {"PYTHONPATH": str(tmp_path)}, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "keel: this command needs torch. Install it with: pip install 'keel-rlhf[train]'\n"


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch):
    from keel.cli.commands import version

    def faulty(arguments: argparse.Namespace) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(version, "version", faulty)
    with pytest.raises(ZeroDivisionError):
        main(["version"])
