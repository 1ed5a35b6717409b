"""A file of records parted into training and held-out rows, as they are written, near-copies of a prompt together.

A prompt's side is that of the earliest prompt before it which it nearly repeats (Jaccard index of three-word shingles
at least `alike`), and its own by hash otherwise. So a prompt keeps its side as rows are added at the end of the file,
and without near-copies the sides are those that `keel.data.split` gives in a recipe. Rows are read twice: once for the
prompts, which are kept in memory, and once to be written.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from keel.core.errors import DataError
from keel.core.files import atomic_directory
from keel.core.progress import Progress, Silent
from keel.data.dialect import Dialect
from keel.data.doctor.similar import near_copies, shingles
from keel.data.formats import DataConfig, explained, open_rows
from keel.data.records import (
    Comparison,
    Demonstration,
    LabelledText,
    Ranking,
    Rating,
    Record,
    prompt_text,
    record_key,
)
from keel.data.rows import RecordError, Row, Rows, find_files, kind_of, num_lines
from keel.data.sinks import SINKS, writing
from keel.data.snapshot import snapshot_at
from keel.data.split import is_held_out

TRAIN, HELD_OUT = "train", "held_out"
EVERY = 1000  # records between two signs of progress


@dataclass(kw_only=True)
class Parted:
    """The two files, and what stands in them."""

    format: str
    why: str
    train: Path
    held_out: Path
    num_train: int = 0
    num_held_out: int = 0
    num_prompts: int = 0
    num_moved: int = 0  # prompts that stand with an earlier near-copy and not where their own hash says
    num_torn: int = 0  # prompts that nearly repeat prompts of both sides
    dropped: dict[str, int] = field(default_factory=dict)  # reason -> records that have no side
    first: dict[str, str] = field(default_factory=dict)  # reason -> the first of them


def part_file(
    config: DataConfig,
    out: Path,
    *,
    alike: float = 0.8,
    suffix: str | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> Parted:
    """Write OUT/train and OUT/held_out with the rows of `config`; the folder is whole or as before.

    `alike` in (0, 1]; 1 puts only prompts of the same words together. `suffix` is the kind of file, by default that of
    what is read.
    """
    progress = progress or Silent()
    path = Path(config.path).expanduser()
    kind = _kind(config, path, suffix)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not replace)):
        raise DataError(f"{out} is there already. Give another folder, or --replace to write over it.")
    source, why, rows = open_rows(config)
    done = Parted(format=source.name, why=why, train=out / f"{TRAIN}{kind}", held_out=out / f"{HELD_OUT}{kind}")
    progress.start(f"read {path.name}", num_lines(path), "records")
    texts: dict[str, str] = {}  # key of each distinct prompt, in order, and the prompt
    num_rows = 0
    for _, key, asked in _usable(config, source, rows, done):
        num_rows += 1
        texts.setdefault(key, asked)
        if num_rows % EVERY == 0:
            progress.advance(EVERY)
    if not texts:
        raise DataError(f"{config.path}: no record can be used. The first: {next(iter(done.first.values()), 'none')}")
    sides = _sides(list(texts), list(texts.values()), config.holdout, alike, done)
    progress.finish(f"{num_rows:,} records, {len(texts):,} prompts")
    progress.start(f"write {out}", num_rows, "records")
    with atomic_directory(out) as folder:
        with writing(folder / done.train.name) as train, writing(folder / done.held_out.name) as held_out:
            for row, key, _ in _usable(config, source, open_rows(config)[2], None):
                if sides[key]:
                    held_out(row.values)
                    done.num_held_out += 1
                else:
                    train(row.values)
                    done.num_train += 1
                if (done.num_train + done.num_held_out) % EVERY == 0:
                    progress.advance(EVERY)
        if not (done.num_train and done.num_held_out):
            empty = TRAIN if done.num_held_out else HELD_OUT
            raise DataError(
                f"{config.path}: of {done.num_prompts} prompts none is left for {empty} at --holdout "
                f"{config.holdout:g}. Choose another share, or add prompts."
            )
    progress.finish(f"{done.num_train:,} and {done.num_held_out:,} records")
    return done


def _kind(config: DataConfig, path: Path, suffix: str | None) -> str:
    """The suffix of the new files."""
    if suffix is not None:
        if suffix.removesuffix(".gz") not in SINKS:
            raise DataError(f"{suffix} is no suffix that keel writes. Known: {', '.join(SINKS)}, also with .gz.")
        return suffix
    if not path.exists() or snapshot_at(config.path):
        return ".jsonl"
    file = find_files(path, config.split)[0]
    packed = ".gz" if file.suffix.lower() == ".gz" else ""
    return kind_of(file) + packed


def _usable(config: DataConfig, source: Dialect, rows: Rows, done: Parted | None) -> Iterator[tuple[Row, str, str]]:
    """(row, key of its prompt, the prompt), of every row that can be read; the others are counted in `done`."""
    for row in rows:
        try:
            if isinstance(row, RecordError):
                raise row
            record = source.read(row)
        except RecordError as error:
            bad = explained(error, row, source)
            if config.on_error == "stop" and not bad.harmless:
                raise DataError(f"{bad} With --on-error drop such records are left out and counted.") from error
            if done is not None:
                done.dropped[bad.reason] = done.dropped.get(bad.reason, 0) + 1
                done.first.setdefault(bad.reason, str(bad))
            continue
        yield row, record_key(record), _asked(record)


def _asked(record: Record) -> str:
    """The text that decides the side: the prompt, or the text where nothing was asked."""
    match record:
        case LabelledText():
            return record.text
        case Comparison():
            return prompt_text(record.prompt or record.a)
        case Demonstration() | Rating():
            return prompt_text(record.prompt or record.response)
        case Ranking():
            return prompt_text(record.prompt or record.responses[0])
        case _:
            return prompt_text(record)


def _sides(keys: Sequence[str], asked: Sequence[str], holdout: float, alike: float, done: Parted) -> dict[str, bool]:
    """Whether each prompt is held out. Prompts without words go by hash."""
    earlier: dict[int, list[int]] = {}
    for pair in near_copies(shingles(asked), alike):
        earlier.setdefault(pair.second, []).append(pair.first)
    sides: list[bool] = []
    for number, key in enumerate(keys):
        own = is_held_out(key, holdout)
        near = {sides[first] for first in earlier.get(number, ())}
        side = sides[min(earlier[number])] if near else own
        done.num_moved += side != own
        done.num_torn += len(near) > 1
        sides.append(side)
    done.num_prompts = len(keys)
    return dict(zip(keys, sides, strict=True))
