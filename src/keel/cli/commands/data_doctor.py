"""`keel data doctor`: what is wrong with a file of records, and how a record reaches the model."""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keel.cli.commands.data_source import add_source, source
from keel.cli.render import next_step, note, out
from keel.core.errors import ConfigError, DataError
from keel.core.progress import Progress, Silent

EPILOG = """The file itself is never changed. Exit status 0 whatever was found; 1 with --fail-on where something is at
least so grave.

examples:
  keel data doctor pairs.jsonl
  keel data doctor train.jsonl --against eval.jsonl --apply train-clean.jsonl
  keel data doctor pairs.jsonl --scope general --json
  keel data doctor chats.jsonl --tokens --model runs/a/sft/model --row 3"""


def add(actions: Any) -> None:
    parser = actions.add_parser("doctor", help="what is wrong with the records, where, and what to do about it")
    parser.epilog = EPILOG
    add_source(parser)
    parser.add_argument(
        "--against",
        metavar="FILE",
        action="append",
        default=[],
        help="a set that this one must share no prompt with, such as an evaluation set (may be repeated)",
    )
    parser.add_argument("--holdout", metavar="SHARE", type=float, default=0.1, help="as in the recipe (default: 0.1)")
    parser.add_argument(
        "--scope", choices=("narrow", "general", "frontier"), help="what the model is to be good at (default: narrow)"
    )
    parser.add_argument(
        "--rule", metavar="NAME", action="append", default=[], help="ask only this rule (may be repeated)"
    )
    parser.add_argument(
        "-s", "--set", metavar="LINE=VALUE", action="append", default=[], help="draw a line elsewhere: length_warn=0.7"
    )
    parser.add_argument("--json", action="store_true", help="everything as JSON")
    parser.add_argument(
        "--apply",
        metavar="OUT",
        type=Path,
        help="write what the safe fixes leave to a new file OUT.jsonl, or a new snapshot folder OUT, with a change log",
    )
    parser.add_argument(
        "--hard", metavar="FILE", type=Path, help="write the pairs whose label a model of words denies, to judge again"
    )
    parser.add_argument("--fail-on", choices=("warn", "error"), help="exit with status 1 when something is so grave")
    tokens = parser.add_argument_group("tokens", "how one record is tokenised, masked and cut")
    tokens.add_argument("--tokens", action="store_true", help="show a record's tokens instead")
    tokens.add_argument("--model", metavar="PATH", help="the model whose tokenizer reads it: a folder or hub name")
    tokens.add_argument("--row", metavar="N", type=int, default=1, help="which record, from 1 (default: 1)")
    tokens.add_argument("--max-tokens", metavar="N", type=int, default=512, help="as in the recipe (default: 512)")
    tokens.add_argument("--too-long", choices=("left", "drop"), default="left", help="as in the recipe (default: left)")
    tokens.add_argument("--chat-template", metavar="T", help="Jinja text or file, for tokenizers that bring none")
    tokens.add_argument("--as-chat", action="store_true", help="turn text prompts into chats, as in the recipe")
    parser.set_defaults(call=doctor, parser=parser)


def doctor(arguments: argparse.Namespace) -> None:
    """Examine the file, or show a record's tokens."""
    if arguments.tokens:
        show_tokens(arguments)
        return
    from keel.cli.doctor_letter import letter
    from keel.data.doctor.examine import RULES, examine
    from keel.data.doctor.finding import SEVERITIES
    from keel.data.doctor.treat import check_free

    if arguments.apply:
        check_free(arguments.apply)  # before the work, not after it
    unknown = [name for name in arguments.rule if name not in RULES]
    if unknown:
        raise ConfigError(f"--rule {unknown[0]}: no such rule. Known: {', '.join(RULES)}.")
    limits = _limits(arguments)
    with _watching() as progress:
        examination = examine(_patient(arguments, progress), limits, progress, arguments.rule)
    if arguments.json:
        out(json.dumps(examination.to_dict(), indent=2, ensure_ascii=False))
    else:
        letter(examination)
    if arguments.hard:
        _write_hard(examination, arguments.hard)
    if arguments.apply:
        _apply(examination, arguments.apply)
    else:
        _advise(examination, arguments.file)
    if arguments.fail_on and SEVERITIES.index(examination.severity) >= SEVERITIES.index(arguments.fail_on):
        raise SystemExit(1)


def show_tokens(arguments: argparse.Namespace) -> None:
    """One record as training makes tokens of it."""
    from keel.cli.doctor_letter import token_view
    from keel.data.doctor.patient import open_patient
    from keel.data.doctor.tokens import token_views

    if not arguments.model:
        raise ConfigError("--tokens needs --model: the folder or hub name of the model whose tokenizer is to be used.")
    config = source(arguments).model_copy(update={"limit": max(1, arguments.row), "as_chat": arguments.as_chat})
    patient = open_patient(config)
    if not 1 <= arguments.row <= len(patient.entries):
        raise DataError(
            f"{arguments.file}: there is no record {arguments.row}; those that can be read are numbered from 1 to "
            f"{len(patient.entries)}."
        )
    entry = patient.entries[arguments.row - 1]
    from keel.models.load import load_tokenizer, quiet

    tokenizer = load_tokenizer(arguments.model, chat_template=arguments.chat_template)
    with quiet():  # transformers warns of records longer than the context, which is what is shown here
        views = token_views(tokenizer, entry.record, arguments.max_tokens, arguments.too_long)
    token_view(views, Path(entry.source).name, arguments.max_tokens)
    next_step(f"keel data doctor {arguments.file} --tokens --model {arguments.model} --row {arguments.row + 1}")


def _patient(arguments: argparse.Namespace, progress: Progress) -> Any:
    from keel.data.doctor.patient import open_patient
    from keel.data.formats import DataConfig

    config = source(arguments).model_copy(update={"holdout": _holdout(arguments.holdout)})
    against = [open_patient(DataConfig(path=path), progress=progress) for path in arguments.against]
    return open_patient(config, against, progress)


def _holdout(share: float) -> float:
    if not 0 <= share < 1:
        raise ConfigError(f"--holdout {share:g}: a share of at least 0 and below 1 was expected.")
    return share


def _limits(arguments: argparse.Namespace) -> Any:
    from keel.core.config import load_config
    from keel.data.doctor.limits import Limits

    base = {"scope": arguments.scope} if arguments.scope else None
    return load_config(Limits, None, arguments.set, base=base)


def _advise(examination: Any, file: str) -> None:
    from keel.data.doctor.finding import counted

    removable = len({at for finding in examination.findings for at in finding.drops}) + len(examination.patient.refused)
    if removable:
        stem = Path(file).name.split(".")[0]
        next_step(f"keel data doctor {file} --apply {stem}-clean.jsonl leaves out {counted(removable, 'record')}")
    else:
        next_step(f"keel data snapshot {file} --name NAME --to DIR freezes it for training")


def _apply(examination: Any, target: Path) -> None:
    from keel.data.doctor.treat import change_log, treat, write_treated

    treatment = treat(examination)
    snapshot = write_treated(treatment, target)
    listed = ", ".join(f"{count:,} for {rule}" for rule, count in treatment.counts.items()) or "nothing left out"
    name = snapshot.id if snapshot else str(target)
    note(f"wrote {name}: {len(treatment.kept):,} records; left out: {listed}; each is listed in {change_log(target)}")
    next_step(f"keel data doctor {target}")


def _write_hard(examination: Any, target: Path) -> None:
    from keel.data.doctor.treat import hard_pairs
    from keel.data.formats import write_jsonl

    if target.exists():
        raise DataError(f"{target} already exists, and the doctor never writes over anything. Name another file.")
    pairs = hard_pairs(examination)
    if not pairs:
        note("no pair stands out: there are too few comparisons, or words alone do not predict the preference")
        return
    write_jsonl(target, pairs)
    note(f"wrote {target}: {len(pairs):,} pairs whose label a model of words denies, the most doubtful first")


@contextlib.contextmanager
def _watching() -> Iterator[Progress]:
    """Progress on a terminal; nothing in a log, where the letter says it all."""
    from keel.cli.progress import watching

    if not sys.stderr.isatty():
        yield Silent()
        return
    with watching() as progress:
        yield progress
