"""`keel data`: look at records, measure them, write them in another way; one module an action."""

from typing import Any

from keel.cli.commands import agreement, data_convert, data_doctor, data_show, data_snapshot, data_split

ACTIONS = (data_show, data_convert, data_split, agreement, data_doctor, data_snapshot)
"""Modules with `add(actions)`, in the order of the help."""


def add(commands: Any) -> None:
    parser = commands.add_parser("data", help="look at a file of records before training on it")
    actions = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")
    for module in ACTIONS:
        module.add(actions)
