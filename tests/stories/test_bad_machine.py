"""A full disk, a second process, a damaged checkpoint: one message, status 2, and what is made is kept."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from helpers.desk import PYTHON_ONLY, seated
from helpers.recipes import Workplace


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Workplace(tmp_path_factory.mktemp("model")).folder / "model"


@pytest.fixture
def desk(tmp_path, monkeypatch, capsys, model):
    return seated(tmp_path, model, monkeypatch, capsys)


def test_a_second_process_may_not_work_in_the_same_folder(desk):
    desk.recipe()
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from keel.core.files import RunLock\n"
            "with RunLock(Path('runs/recipe')): print('in', flush=True); sys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "in\n"
        message = desk.refused("sft", "recipe.yaml")
        for part in ("runs/recipe", f"process {holder.pid}", "Wait until it ends", "--out"):
            assert part in message
    finally:
        holder.communicate("")
    desk.runs("sft", "recipe.yaml")


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a disk of so many KiB at ./disk; gone after the test."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(kib: int, *, again: bool = False) -> None:
        options = f"{'remount,' if again else ''}size={kib}k"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", disk], capture_output=True)
        if done.returncode:
            pytest.skip("mounting a small disk needs root")

    yield mount
    subprocess.run(["umount", "-l", disk], capture_output=True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize("kib", [20, 60, 360, 440], ids=["data", "checkpoint", "best weights", "artifact"])
def test_a_full_disk_is_said_and_what_is_made_is_kept(desk, small_disk, kib):
    small_disk(kib)
    desk.recipe(checkpoint={"every_seconds": 0})
    message = desk.refused("sft", "recipe.yaml", "--out", "disk/run")
    assert "the disk is full" in message
    assert "Nothing already made is lost: free some space and give the same command again" in message
    small_disk(20_000, again=True)
    desk.runs("sft", "recipe.yaml", "--out", "disk/run")
    desk.runs("sft", "recipe.yaml", "--out", "undisturbed")
    assert desk.artifacts("disk/run") == desk.artifacts("undisturbed")
    for name in desk.artifacts("undisturbed"):
        ids = [
            json.loads((desk.place.folder / run / "artifacts" / name / "artifact.json").read_text())["id"]
            for run in ("disk/run", "undisturbed")
        ]
        assert ids[0] == ids[1], "the same bits"
    assert not list((desk.place.folder / "disk").rglob("*partial*"))


def test_a_limit_on_the_size_of_files_is_said(desk):
    resource = pytest.importorskip("resource")
    desk.recipe()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, before[1]))
    try:
        message = desk.refused("sft", "recipe.yaml")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "larger than the file system or ulimit -f allows" in message
    desk.runs("sft", "recipe.yaml")


FAILS_IN_THE_SECOND_UPDATE = """
import os
calls = []

def f(prompts, responses):
    calls.append(len(responses))
    assert len(calls) < 4 or os.path.exists("go")  # held out, update 1, held out, update 2
    return [float(len(response)) for response in responses]
"""


@pytest.fixture
def interrupted(desk):
    """A PPO run that broke off after its first update and left a checkpoint."""
    desk.place.write("mine.py", FAILS_IN_THE_SECOND_UPDATE)
    message = desk.refused(**{**PYTHON_ONLY, "sft": None, "checkpoint": {"every_seconds": 0}, "evaluate": None})
    assert "AssertionError" in message
    (checkpoint,) = (desk.place.folder / "runs/recipe/checkpoints").glob("ppo-*/step-*")
    desk.place.write("go", "")
    return desk, checkpoint


def test_an_interrupted_run_goes_on_where_it_was(interrupted):
    desk, _ = interrupted
    assert "ppo: resumed after step 1" in desk.runs()


@pytest.mark.parametrize("file", ["policy.safetensors", "optimizer.safetensors", "checkpoint.json"])
def test_an_unreadable_checkpoint_is_named_and_deleting_it_starts_the_stage_over(interrupted, file):
    desk, checkpoint = interrupted
    (checkpoint / file).write_bytes(b"torn")
    message = desk.refused("run", "recipe.yaml")
    for part in (
        str(checkpoint.relative_to(desk.place.folder)),
        "is damaged",
        "Delete that folder",
        "finished stages are kept",
    ):
        assert part in message
    shutil.rmtree(checkpoint)
    desk.runs()
