"""Runs an answer's Python behind the kernel's own locks. A script of its own: it is given to a bare interpreter.

    python -S -s -P confined.py < job

The job is JSON behind its length in four bytes; what the program may read as its input, or what unlocks results,
follows in the same pipe. `keel.verify.sandbox` writes the job and reads the results; nothing here imports keel.

Mode `script` runs the code as a program: its output is the result. Mode `tests` runs the code, then evaluates
expressions on it and writes their values, one JSON line each, and runs further tests, for each of which it reads a
password that it then gives back: code that ends the process early cannot give it.
"""

import ctypes
import json
import os
import struct
import sys
import types
from typing import Any

PASSWORD_BYTES = 32
DEEPEST = 50

# What an answer may not do, as numbers of the kernel's calls: x86-64 and aarch64.
DENIED = {
    "x86_64": {
        "arch": 0xC000003E,
        "calls": [
            *(41, 42, 43, 44, 46, 49, 50, 53, 288, 299, 307),  # socket, connect, accept, send…, bind, listen
            *(56, 57, 58, 59, 322, 435),  # clone, fork, vfork, execve, execveat, clone3
            *(62, 129, 200, 234, 297, 424),  # kill, sigqueue, tkill, tgkill, pidfd_send_signal
            *(101, 310, 311, 438, 434),  # ptrace, reading other processes' memory, pidfds
            *(76, 77, 82, 83, 84, 85, 86, 87, 88, 133, 258, 259, 263, 264, 265, 266, 316),  # truncate, rename, mkdir, …
            *(90, 91, 92, 93, 94, 260, 268, 452, 188, 189, 190, 197, 198, 199, 132, 235, 261, 280),  # chmod, chown, …
            *(155, 161, 165, 166, 167, 169, 175, 246, 272, 308, 313, 320, 321, 323),  # mounts, namespaces, modules, bpf
            *(425, 426, 427, 428, 429, 430, 431, 432, 433, 437),  # io_uring, new mounts, openat2
            *(29, 30, 31, 64, 65, 66, 68, 69, 70, 71, 240, 248, 249, 250, 319),  # shared memory, keys
            *(160, 302, 141, 144, 203),  # limits and priorities
            *(105, 106, 113, 114, 117, 119, 122, 123, 116, 126, 109, 112),  # other users and groups, sessions
            *(159, 163, 164, 170, 171, 172, 173, 179, 227, 298, 304, 305),  # clocks, names, ports, files by handle
        ],
        "fcntl": (72, 1),
        "open": (2, 1),
        "openat": (257, 2),
    },
    "aarch64": {
        "arch": 0xC00000B7,
        "calls": [
            *(198, 199, 200, 201, 202, 203, 206, 211, 242, 269),
            *(220, 221, 281, 435),
            *(129, 130, 131, 138, 240, 424),
            *(117, 270, 271, 434, 438),
            *(33, 34, 35, 36, 37, 38, 45, 46, 276),
            *(52, 53, 54, 55, 452, 88, 5, 6, 7, 14, 15, 16),
            *(39, 40, 41, 51, 89, 97, 105, 106, 104, 224, 225, 268, 273, 280, 282),
            *(425, 426, 427, 428, 429, 430, 431, 432, 433, 437),
            *(180, 181, 182, 183, 186, 187, 188, 189, 190, 191, 194, 195, 196, 217, 218, 219, 279),
            *(164, 261, 140, 118, 119, 122),
            *(143, 144, 145, 146, 147, 149, 151, 152, 154, 157, 159, 91),
            *(60, 112, 161, 162, 170, 171, 241, 265, 266),
        ],
        "fcntl": (25, 1),
        "open": None,
        "openat": (56, 2),
    },
}
WRITING = 0o1 | 0o2 | 0o100 | 0o1000  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC
OWNING = (8, 10, 15)
"""F_SETOWN, F_SETSIG, F_SETOWN_EX: a pipe with an owner sends it a signal of choice when something is written."""
EPERM, ENOSYS = 1, 38
PRCTL_NO_NEW_PRIVS, PRCTL_SECCOMP, SECCOMP_FILTER, PRCTL_DUMPABLE = 38, 22, 2, 4
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446  # on every architecture
READ_FILE, READ_DIR = 1 << 2, 1 << 3
FILE_RIGHTS = (1 << 13) - 1
"""All rights of Landlock's first version: whatever is handled and not granted is denied."""


def main() -> None:
    job = json.loads(read_job())
    nowhere = os.open(os.devnull, os.O_RDWR)
    limit(job)
    locks = lock(job["readable"]) if job["kernel"] else []
    if job["kernel"] and "seccomp" not in locks:
        write(1, {"refused": "the kernel takes no seccomp filter"})
        return
    if job.get("hook", True):
        sys.addaudithook(Guard(job["readable"]))
    if job["mode"] == "probe":
        write(1, {"locks": [*locks, "audit hook"]})
    elif job["mode"] == "script":
        run_script(job["code"])
    else:
        run_tests(job, nowhere)


def read_job() -> bytes:
    """The job and not a byte more."""
    size = struct.unpack(">I", read_exactly(0, 4))[0]
    return read_exactly(0, size)


def read_exactly(file: int, size: int) -> bytes:
    parts, left = [], size
    while left and (part := os.read(file, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def write(file: int, value: Any) -> None:
    line = json.dumps(value).encode() + b"\n"
    while line:
        line = line[os.write(file, line) :]


def limit(job: dict[str, Any]) -> None:
    """The limits that every Unix has. Not lowered where the system does not know one (memory on macOS)."""
    import resource

    seconds = max(1, int(job["seconds"] + 0.999))
    wanted = {
        "RLIMIT_CPU": (seconds, seconds + 1),
        "RLIMIT_AS": (job["memory"], job["memory"]),
        "RLIMIT_FSIZE": (0, 0),
        "RLIMIT_CORE": (0, 0),
        "RLIMIT_NOFILE": (64, 64),
        "RLIMIT_NPROC": (0, 0),
    }
    for name, values in wanted.items():
        try:
            resource.setrlimit(getattr(resource, name), values)
        except (AttributeError, ValueError, OSError):
            continue


def lock(readable: list[str]) -> list[str]:
    """The names of the kernel's locks that hold from now on: seccomp, landlock."""
    held = []
    table = DENIED.get(os.uname().machine)
    if sys.platform != "linux" or table is None:
        return held
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PRCTL_DUMPABLE, 0, 0, 0, 0)
    if libc.prctl(PRCTL_NO_NEW_PRIVS, 1, 0, 0, 0):
        return held
    if landlock(libc, readable):
        held.append("landlock")
    program = seccomp_program(table)
    code = ctypes.create_string_buffer(program)
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code)))
    if libc.prctl(PRCTL_SECCOMP, SECCOMP_FILTER, header, 0, 0) == 0:
        held.append("seccomp")
    return held


def landlock(libc: Any, readable: list[str]) -> bool:
    """Reading only below `readable`, writing nowhere. False on kernels before 5.13 or without it."""
    syscall = libc.syscall
    rights = ctypes.create_string_buffer(struct.pack("Q", FILE_RIGHTS))
    rules = syscall(LANDLOCK_CREATE, rights, ctypes.c_size_t(8), 0)
    if rules < 0:
        return False
    for path in readable:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        granted = READ_FILE | READ_DIR if os.path.isdir(path) else READ_FILE  # noqa: PTH112 - pathlib costs 10 ms
        syscall(LANDLOCK_ADD, rules, 1, ctypes.create_string_buffer(struct.pack("=Qi", granted, place)), 0)
        os.close(place)
    done = syscall(LANDLOCK_RESTRICT, rules, 0) == 0
    os.close(rules)
    return done


def seccomp_program(table: dict[str, Any]) -> bytes:
    """The filter in the kernel's own code: denied calls fail with EPERM, other architectures end the process."""
    load, equal, above, bits, done = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill, deny = 0x7FFF0000, 0x80000000, 0x00050000

    def say(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("HBBI", code, yes, no, value)

    steps = [say(load, 4), say(equal, table["arch"], 1, 0), say(done, kill), say(load, 0)]
    steps += [say(above, 0x40000000, 0, 1), say(done, deny | EPERM)]  # the other calling convention of x86
    for opening in (table["open"], table["openat"]):
        if opening is not None:
            number, flags = opening
            steps += [say(equal, number, 0, 4), say(load, 16 + 8 * flags), say(bits, WRITING, 0, 1)]
            steps += [say(done, deny | EPERM), say(done, allow)]
    number, command = table["fcntl"]
    steps += [say(equal, number, 0, 3 + len(OWNING)), say(load, 16 + 8 * command)]
    steps += [say(equal, value, len(OWNING) - at, 0) for at, value in enumerate(OWNING)]
    steps += [say(done, allow), say(done, deny | EPERM)]
    for number in sorted(set(table["calls"])):
        # clone3 hides its flags in memory: "not there" makes the C library take clone, which is denied as well.
        steps += [say(equal, number, 0, 1), say(done, deny | (ENOSYS if number == 435 else EPERM))]
    return b"".join([*steps, say(done, allow)])


class Guard:
    """Python's audit hook: a second lock where the kernel holds, a thin one where it does not."""

    FORBIDDEN = (
        "socket.",
        "subprocess.",
        "os.system",
        "os.exec",
        "os.fork",
        "os.posix_spawn",
        "os.kill",
        "pty.",
        "ctypes.",
        "fcntl.",
        "shutil.",
        "os.remove",
        "os.rename",
        "os.mkdir",
        "os.rmdir",
        "os.link",
        "os.symlink",
        "os.chmod",
        "os.truncate",
        "sqlite3.",
    )

    def __init__(self, readable: list[str]) -> None:
        self.readable, self.absolute = tuple(readable), os.path.abspath

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments[:3]
            if (isinstance(mode, str) and set(mode) & set("wax+")) or (isinstance(flags, int) and flags & WRITING):
                raise PermissionError("an answer writes no files")
            if isinstance(path, str) and not self.absolute(path).startswith(self.readable):
                raise PermissionError("an answer reads no files outside Python's own")
        elif event.startswith(self.FORBIDDEN):
            raise PermissionError(f"an answer may not do this: {event}")


def run_script(code: str) -> None:
    """The answer as a program, its input the rest of the pipe."""
    exec(compile(code, "answer.py", "exec"), module("__main__"))


def module(name: str) -> dict[str, Any]:
    """The names of a new module that the answer lives in, so that its classes find themselves."""
    made = sys.modules[name] = types.ModuleType(name)
    return vars(made)


def run_tests(job: dict[str, Any], nowhere: int) -> None:
    """The answer, the expressions, and the other tests. The pipes move out of the answer's way first."""
    passwords, results = os.dup(0), os.dup(1)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    space = module("answer")
    try:
        exec(compile(job["code"], "answer.py", "exec"), space)
    except BaseException as error:  # whatever an answer raises, SystemExit too
        write(results, {"broken": explained(error)})
        return
    for number, pieces in job["values"]:
        for place, expression in enumerate(pieces):
            try:
                value = {"value": plain(eval(compile(expression, "test", "eval"), space))}
            except BaseException as error:
                value = {"broken": explained(error)}
            write(results, {"test": number, "piece": place, **value})
    for number, test in job["blocks"]:
        try:
            exec(compile(test, "test", "exec"), space)
        except BaseException as error:
            write(results, {"test": number, "broken": explained(error)})
            read_exactly(passwords, PASSWORD_BYTES)
        else:
            write(results, {"test": number, "password": read_exactly(passwords, PASSWORD_BYTES).decode()})
    write(results, {"end": True})


def plain(value: Any, depth: int = 0) -> Any:
    """A value as JSON from which it can be made again; TypeError for what is not made of Python's own types."""
    if depth > DEEPEST:
        raise TypeError("the value is nested too deeply")
    if value is None or isinstance(value, bool | str):
        return value if value is None or isinstance(value, bool) else str(value)
    if isinstance(value, int):
        return {"int": hex(value)}
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real.hex(), value.imag.hex()]}
    if isinstance(value, bytes | bytearray):
        return {"bytes": bytes(value).hex()}
    if type(value).__module__ in ("fractions", "decimal"):  # Fraction(8, 2) == 4, and Decimal("4") too
        return {"ratio": [hex(part) for part in value.as_integer_ratio()]}
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            return {kind.__name__: [plain(item, depth + 1) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[plain(key, depth + 1), plain(item, depth + 1)] for key, item in value.items()]}
    raise TypeError(f"a {type(value).__name__} cannot be compared with a literal")


def explained(error: BaseException) -> str:
    """The kind of an error and the start of what it says; its own text may be anything."""
    try:
        return f"{type(error).__name__}: {error}"[:200]
    except BaseException:
        return type(error).__name__


if __name__ == "__main__":
    main()
