"""Files that are whole or absent, whatever happens while they are written; and one writer at a time.

What is being written stands beside its destination under a hidden name and moves into place in one step. A writer
holds a lock on its unfinished folder, so the next one can tell the leavings of a killed process from work in progress.
Linux and macOS.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from keel.core.errors import ArtifactError, KeelError

FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up"}
REFUSED = {*FULL, errno.EFBIG}
NEARLY_FULL = 1 << 20  # bytes; torch hides the error number in a RuntimeError, so the free space is asked as well
GIB = 1 << 30

_held: set[int] = set()
"""Descriptors of the locks that this process holds. A forked child closes them, or it would keep them alive."""


def _forget_locks() -> None:
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget_locks)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """The name of a file to write beside `path`; on leaving without an error it is on disk and becomes `path`.

    After an error it is removed and `path` is as before.
    """
    with explained_when_full(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
        try:
            yield unfinished
            _fsync(unfinished)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        _fsync(path.parent)


def atomic_write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 so that `path` holds either what it held before or all of `text`."""
    with atomic_file(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)


def atomic_write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    atomic_write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """An empty folder to fill; on leaving without an error everything in it is on disk and it becomes `path`.

    After an error it is removed and `path` is as before. A folder that already stands at `path` is replaced; should
    the process die between the two renames of that, `recover_directory` (called here and when loading) brings the old
    one back.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    recover_directory(path)
    with explained_when_full(path):
        unfinished, descriptor = _claim_folder(path)
        try:
            yield unfinished
            for folder, _, files in os.walk(unfinished):
                for name in files:
                    _fsync(Path(folder, name))
                _fsync(Path(folder))
            previous = _previous(path)
            if path.exists():
                path.rename(previous)
            unfinished.rename(path)
            _fsync(path.parent)
            shutil.rmtree(previous, ignore_errors=True)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
            _release(descriptor)


def recover_directory(path: Path) -> None:
    """Put things right after a writer of `path` was killed: drop its unfinished folders, bring a replaced one back."""
    writing = False
    for leaving in path.parent.glob(f".{path.name}.partial-*"):
        descriptor = _lock(leaving)
        if descriptor is None:
            writing = True
            continue
        shutil.rmtree(leaving, ignore_errors=True)
        _release(descriptor)
    previous = _previous(path)
    if not writing and previous.exists():
        if path.exists():
            shutil.rmtree(previous, ignore_errors=True)
        else:
            previous.rename(path)


def _previous(path: Path) -> Path:
    return path.with_name(f".{path.name}.previous")


def _claim_folder(path: Path) -> tuple[Path, int]:
    """A new locked folder beside `path`, and the lock."""
    while True:
        folder = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
        folder.mkdir()
        descriptor = _lock(folder)
        if descriptor is not None and folder.exists():
            return folder, descriptor
        if descriptor is not None:  # taken for a leaving between the two calls above
            _release(descriptor)


def _lock(path: Path) -> int | None:
    """A descriptor that holds the lock on `path`, or None when another one does or `path` is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    _held.add(descriptor)
    return descriptor


def _release(descriptor: int) -> None:
    if descriptor in _held:  # absent in a child forked while the lock was held
        _held.remove(descriptor)
        os.close(descriptor)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def explained_when_full(path: Path) -> Iterator[None]:
    """Turn whatever a full disk raises while `path` is written into an ArtifactError with the figures."""
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    free_before = shutil.disk_usage(folder).free
    try:
        yield
    except KeelError:
        raise
    except Exception as error:  # safetensors has a type of its own for it; whatever is not a full disk goes on as it is
        free = shutil.disk_usage(folder).free
        nearly = isinstance(error, (OSError, RuntimeError)) and free < NEARLY_FULL
        number = error.errno if isinstance(error, OSError) else None
        if number not in REFUSED:
            hidden = [code for code in REFUSED if os.strerror(code) in str(error)]
            number = hidden[0] if hidden else errno.ENOSPC if nearly else None
        if number == errno.EFBIG:
            raise ArtifactError(
                f"{path}: the file would be larger than the file system or ulimit -f allows. Nothing already made is "
                "lost: lift the limit, or give another folder with --out, and give the same command again."
            ) from error
        if number is not None:
            raise ArtifactError(
                f"{path}: {FULL[number]}. More than the {_size(free_before)} that were "
                f"free on {folder} at the start were needed; {_size(free)} are free now. Nothing already made is lost: "
                f"free some space and give the same command again."
            ) from error
        raise


def linked(source: str, target: str) -> str:
    """`target` made the same file as `source` where one disk holds both, else a copy of it; for `shutil.copytree`."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def _size(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.2f} GiB" if num_bytes >= GIB else f"{num_bytes / (1 << 20):.2f} MiB"


def file_sha256(path: Path) -> str:
    """64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_sha256(directory: Path) -> str:
    """64 hex digits over the relative names and contents of all files below `directory`; empty folders do not count."""
    total = hashlib.sha256()
    for path in files_below(directory):
        total.update(f"{file_sha256(path)}  {path.relative_to(directory).as_posix()}\n".encode())
    return total.hexdigest()


def files_below(directory: Path) -> list[Path]:
    """All files below `directory`, in the order of their relative names with `/` between folders."""
    found = [path for path in directory.rglob("*") if path.is_file()]
    return sorted(found, key=lambda path: path.relative_to(directory).as_posix())


class RunLock:
    """While it is held, no other process (and no other RunLock here) can hold the lock of the same folder.

    The operating system lets go of it when the holder dies, however it dies.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        file = self.directory / ".lock"
        file.touch()
        descriptor = _lock(file)
        if descriptor is None:
            holder = file.read_text(encoding="utf-8").strip() or "another process"
            raise ArtifactError(
                f"{self.directory}: {holder} is at work in this run folder. Wait until it ends, stop it, or give "
                f"another folder with --out."
            )
        file.write_text(f"process {os.getpid()} on {os.uname().nodename}\n", encoding="utf-8")
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            _release(self._descriptor)
            self._descriptor = None
