"""`keel data convert`: records in another format or kind of file."""

import argparse
from pathlib import Path
from typing import Any

from keel.cli.commands.data_source import add_source, checked_format, source
from keel.cli.render import columns, next_step, note, out


def add(actions: Any) -> None:
    action = actions.add_parser(
        "convert",
        help="write records in another format or kind of file",
        description="Write records in another format or kind of file. What would be lost is listed, and nothing is "
        "written, unless --lossy is given.",
    )
    add_source(action)
    action.add_argument(
        "out", metavar="OUT", type=Path, help="the new file; its suffix says which kind (.gz on top packs it)"
    )
    action.add_argument("--to", metavar="F", help="the format to write (default: the one the records have)")
    action.add_argument("--lossy", action="store_true", help="go on although something is lost; it is still listed")
    action.add_argument("--as-chat", action="store_true", help="turn text prompts into chats")
    action.add_argument("--replace", action="store_true", help="write over OUT if it is there")
    action.add_argument(
        "--on-error", choices=["stop", "drop"], default="stop", help="what to do with unusable records (default: stop)"
    )
    action.set_defaults(call=convert, parser=action)


def convert(arguments: argparse.Namespace) -> None:
    """Write the file; say what was read, what was written, and what was left out or lost."""
    from keel.cli.progress import watching
    from keel.data.transcribe import transcribe

    if arguments.to is not None:
        checked_format("--to", arguments.to)
    config = source(arguments, on_error=arguments.on_error, as_chat=arguments.as_chat)
    with watching() as bar:
        done = transcribe(
            config, arguments.out, arguments.to, lossy=arguments.lossy, replace=arguments.replace, progress=bar
        )
    out(f"{done.out}: {done.num_written:,} records in the format {done.to}")
    facts = [["read", f"{done.num_read:,} records of {done.source}, format {done.format} ({done.why})"]]
    facts += [["note", text] for text in done.notes]
    facts += [
        ["left out", f"{count:,} times: {what}; first: {done.first[what]}"] for what, count in done.dropped.items()
    ]
    facts += [["lost", f"{count:,} times: {what}; first: {done.first[what]}"] for what, count in done.lost.items()]
    out(columns(facts))
    if not done.lost:
        note("Nothing was lost.")
    next_step(f"keel data show {done.out}")
