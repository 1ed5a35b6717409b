"""argparse with "did you mean" for commands and options."""

import argparse
import difflib
from collections.abc import Sequence
from typing import Any, NoReturn

from keel.cli.render import fail


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors suggest what was probably meant. Exit status 2, as for every mistake."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        fail(f"{message}{'' if message.endswith(('?', '.')) else '.'} See {self.prog} --help.")
        raise SystemExit(2)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = list(action.choices)
        what = "a command" if isinstance(action, argparse._SubParsersAction) else f"a value of {action.dest}"
        self.error(f"'{value}' is not {what}.{_meant(str(value), known) or ' Known: ' + ', '.join(known) + '.'}")

    def parse_strictly(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Like parse_args, with a suggestion for an unknown option."""
        parsed, unknown = self.parse_known_args(arguments)
        if unknown:
            parser: Parser = getattr(parsed, "parser", self)
            options = [option for action in parser._actions for option in action.option_strings]
            parser.error(f"{unknown[0]} is not an option of {parser.prog}.{_meant(unknown[0].split('=')[0], options)}")
        return parsed


def _meant(value: str, known: list[str]) -> str:
    close = difflib.get_close_matches(value, known, n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""
