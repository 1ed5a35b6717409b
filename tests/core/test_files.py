import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keel.core import files
from keel.core.errors import ArtifactError
from keel.core.files import (
    RunLock,
    atomic_directory,
    atomic_write_json,
    atomic_write_text,
    file_sha256,
    recover_directory,
    tree_sha256,
)

FULL_DEVICE = Path("/dev/full")
needs_full_device = pytest.mark.skipif(not FULL_DEVICE.exists(), reason="needs /dev/full to be refused space")


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    """Another Python process; it prints a line when it is where the test wants it."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_text_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "new" / "a.txt"
    atomic_write_text(path, "first\n")
    atomic_write_text(path, "zwölf\n")
    assert path.read_bytes() == "zwölf\n".encode()
    assert names(path.parent) == ["a.txt"]


def test_a_failing_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    atomic_write_json(path, {"é": 1})
    with pytest.raises(TypeError):
        atomic_write_json(path, {"x": object()})
    with pytest.raises(UnicodeEncodeError):
        atomic_write_text(path, "half \ud800")
    assert path.read_text(encoding="utf-8") == '{\n  "é": 1\n}\n'
    assert names(tmp_path) == ["a.json"]


def test_a_folder_appears_when_it_is_finished_and_not_before(tmp_path):
    path = tmp_path / "runs" / "a"
    with atomic_directory(path) as folder:
        (folder / "x").write_text("1")
        assert not path.exists()
        assert folder.parent == path.parent
    assert names(path) == ["x"]
    assert names(path.parent) == ["a"]


def test_a_folder_that_fails_leaves_the_old_one_alone(tmp_path):
    path = tmp_path / "a"
    with atomic_directory(path) as folder:
        (folder / "x").write_text("old")
    with pytest.raises(FileNotFoundError), atomic_directory(path) as folder:
        (folder / "x").write_text((folder / "absent").read_text())
    assert (path / "x").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "a"
    for name in ("x", "y"):
        with atomic_directory(path) as folder:
            (folder / name).write_text(name)
    assert names(path) == ["y"]
    assert names(tmp_path) == ["a"]


def test_an_interrupt_from_the_keyboard_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_directory(tmp_path / "a"):
        raise KeyboardInterrupt
    assert names(tmp_path) == []


STUCK_WRITER = """
import sys, time
from pathlib import Path
from keel.core.files import atomic_directory
with atomic_directory(Path(sys.argv[1])) as folder:
    (folder / "x").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def test_leavings_of_a_killed_writer_are_removed_and_work_in_progress_is_not(tmp_path):
    path = tmp_path / "a"
    dead, alive = start(STUCK_WRITER, path), start(STUCK_WRITER, path)
    try:
        assert dead.stdout is not None
        assert alive.stdout is not None
        dead.stdout.readline()
        alive.stdout.readline()
        kill(dead)
        assert not path.exists()
        assert len(names(tmp_path)) == 2
        with atomic_directory(path) as folder:
            (folder / "x").write_text("whole")
        assert (path / "x").read_text() == "whole"
        assert len(names(tmp_path)) == 2  # the folder, and what the living one writes
    finally:
        kill(alive)
    recover_directory(path)
    assert names(tmp_path) == ["a"]


def test_a_writer_killed_between_its_two_renames_loses_nothing(tmp_path):
    path = tmp_path / "a"
    with atomic_directory(path) as folder:
        (folder / "x").write_text("old")
    path.rename(tmp_path / ".a.previous")  # the first rename of a replacement
    recover_directory(path)
    assert (path / "x").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_writer_killed_after_both_renames_leaves_the_new_folder(tmp_path):
    path = tmp_path / "a"
    for name, content in ((".a.previous", "old"), ("a", "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text(content)
    recover_directory(path)
    assert (path / "x").read_text() == "new"
    assert names(tmp_path) == ["a"]


ENDLESS_REPLACER = """
import itertools, sys
from pathlib import Path
from keel.core.files import atomic_directory
for turn in itertools.count():
    with atomic_directory(Path(sys.argv[1])) as folder:
        for name in "abc":
            (folder / name).write_text(f"{turn:06d}" * 2000)
    print(turn, flush=True)
"""


def test_a_folder_that_is_replaced_again_and_again_is_whole_whenever_its_writer_is_killed(tmp_path):
    path = tmp_path / "checkpoint"
    for attempt in range(6):
        writer = start(ENDLESS_REPLACER, path)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.0037 * attempt)
        kill(writer)
        recover_directory(path)
        contents = {(path / name).read_text() for name in "abc"}
        assert len(contents) == 1
        assert len(contents.pop()) == 12_000
        assert names(tmp_path) == ["checkpoint"]


@needs_full_device
def test_a_full_disk_is_explained_and_nothing_already_made_is_lost(tmp_path):
    path = tmp_path / "a"
    with atomic_directory(path) as folder:
        (folder / "x").write_text("old")
    said = r"the disk is full.* GiB are free now. Nothing already made is lost"
    with pytest.raises(ArtifactError, match=said), atomic_directory(path):
        FULL_DEVICE.write_bytes(b"x")
    assert (path / "x").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_libraries_that_hide_the_error_number_are_understood(tmp_path):
    with pytest.raises(ArtifactError, match="the disk is full"), atomic_directory(tmp_path / "a"):
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    with pytest.raises(ArtifactError, match="the quota is used up"), atomic_directory(tmp_path / "a"):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    with pytest.raises(RuntimeError, match="unrelated"), atomic_directory(tmp_path / "a"):
        raise RuntimeError("unrelated")


def test_an_almost_full_disk_explains_any_failure(tmp_path, monkeypatch):
    usage = files.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    with pytest.raises(ArtifactError, match="the disk is full"), atomic_directory(tmp_path / "a"):
        raise RuntimeError("PytorchStreamWriter failed writing file data/3")


def test_a_file_hash_is_that_of_sha256sum(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_tree_hash_sees_names_and_contents_and_nothing_else(tmp_path):
    def tree(name: str, **contents: str) -> str:
        for relative, text in contents.items():
            path = tmp_path / name / relative.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tree_sha256(tmp_path / name)

    same = tree("one", a="1", b__c="2")
    assert tree("two", b__c="2", a="1") == same
    assert tree("three", a="1", b__d="2") != same
    assert tree("four", a="1", b__c="3") != same
    (tmp_path / "one" / "empty").mkdir()
    assert tree_sha256(tmp_path / "one") == same


HOLDER = """
import sys, time
from pathlib import Path
from keel.core.files import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_with_the_number_of_the_first(tmp_path):
    holder = start(HOLDER, tmp_path / "run")
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(ArtifactError, match=f"process {holder.pid} on .* is at work in this run folder"):
            RunLock(tmp_path / "run").__enter__()
        second = start(HOLDER, tmp_path / "run")
        assert f"process {holder.pid} on" in second.communicate(timeout=20)[1]
        assert second.returncode == 1
    finally:
        kill(holder)
    with RunLock(tmp_path / "run"):
        pass


def test_a_lock_excludes_its_own_process_too_and_is_free_afterwards(tmp_path):
    with RunLock(tmp_path), pytest.raises(ArtifactError, match=f"process {os.getpid()} "), RunLock(tmp_path):
        pass
    with RunLock(tmp_path):
        pass


FORKING_HOLDER = """
import os, sys, time
from pathlib import Path
from keel.core.files import RunLock
with RunLock(Path(sys.argv[1])):
    if os.fork() == 0:
        print("forked", flush=True)
        time.sleep(20)
        os._exit(0)
    time.sleep(60)
"""


def test_an_orphaned_worker_of_a_killed_run_does_not_keep_the_lock(tmp_path):
    holder = start(FORKING_HOLDER, tmp_path)
    assert holder.stdout is not None
    holder.stdout.readline()
    holder.kill()
    holder.wait()
    with RunLock(tmp_path):
        pass
    holder.stdout.close()
    assert holder.stderr is not None
    holder.stderr.close()
