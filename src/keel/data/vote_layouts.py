"""Where votes stand in a file: known sets by their columns, other files by the names that columns usually have.

Four kinds of file: `votes`, a row an item with an object or list of votes; `ratings`, a row an item with a list of
numbers, one a rater, whose names are not known; `rows`, a row a vote; `columns`, a row an item and a column a rater.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from keel.core.errors import ConfigError, DataError
from keel.core.explain import suggest
from keel.data.votes import WORDS

Kind = Literal["votes", "ratings", "rows", "columns"]

RATER = ("rater", "judge", "annotator", "annotator_id", "rater_id", "worker", "worker_id", "labeler", "user", "user_id")
VOTE = ("vote", "choice", "winner", "verdict", "preference", "label", "answer", "rating", "score")
ITEM = (
    "item",
    "item_id",
    "id",
    "task",
    "task_id",
    "question_id",
    "prompt_id",
    "example_id",
    "comparison_id",
    "pair_id",
)
WITHIN = ("turn", "round", "aspect", "criterion")
CONTENT = ("prompt", "question", "response_a", "response_b", "a", "b", "model_a", "model_b", "summary", "system")
"""What tells items apart beside a name that they may share, or instead of one."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How to find item, rater and vote in a row, and why keel thinks so."""

    kind: Kind
    vote: str = ""
    """Column of the vote (`rows`), of the votes (`votes`) or of the ratings (`ratings`)."""
    rater: str = ""
    item: tuple[str, ...] = ()
    """Columns that name the item together; none: every row is an item of its own."""
    models: tuple[str, str] | None = None
    """Columns of the two models compared: the pair counts as the same item in either order."""
    raters: tuple[str, ...] = ()
    """Columns that are raters (`columns`)."""
    leave_out: tuple[str, ...] = ()
    """Patterns of raters that do not count unless asked for."""
    swapped: str = ""
    """Column of the verdict on the same pair shown the other way round (`rows`), named by the same a and b."""
    name: str = ""
    why: str = ""


PRESETS: dict[str, tuple[frozenset[str], Layout]] = {
    "pandalm": (
        frozenset({"id", "domain", "prompt", "response_a", "response_b", "model_a", "model_b", "votes"}),
        Layout("votes", "votes", item=("id",), why="three raters a pair, each a, b or tie"),
    ),
    "tulu": (
        frozenset({"id", "instance", "prompt", "response_a", "response_b", "model_a", "model_b", "votes"}),
        Layout("votes", "votes", item=("id",), why="signed scores; positive means a is better"),
    ),
    "mtbench": (
        frozenset({"judge", "model_a", "model_b", "question_id", "turn", "winner"}),
        Layout(
            "rows",
            "winner",
            rater="judge",
            item=("question_id", "turn"),
            models=("model_a", "model_b"),
            leave_out=("gpt4*", "gpt-4*"),
            why="a row a vote; an item is question, turn and pair of models in either order; GPT-4 is no human rater",
        ),
    ),
    "xsum": (
        frozenset({"id", "article", "system", "summary", "votes"}),
        Layout("votes", "votes", item=("id",), why="yes or no a rater"),
    ),
    "vader": (
        frozenset({"token", "mean", "std", "ratings"}),
        Layout("ratings", "ratings", why="ten numbers a word from raters without names; their signs are the classes"),
    ),
    "llmbar": (
        frozenset({"id", "judge", "verdict"}),
        Layout("rows", "verdict", rater="judge", item=("id",), swapped="verdict_swapped", why="a row a judge and pair"),
    ),
    "alpacaeval": (
        frozenset({"prompt_id", "model_a", "model_b", "judge", "preference"}),
        Layout("rows", "preference", rater="judge", item=("prompt_id",), models=("model_a", "model_b")),
    ),
}
"""Known sets: the columns that give them away, and their layout."""


def find_layout(values: Mapping[str, Any], path: str, sample: Sequence[Mapping[str, Any]] = ()) -> Layout:
    """The layout of a file by its first row, with the reason; DataError where there is none.

    Columns that are raters are found in the rows of `sample`, since a rater may have left out the first item.
    """
    columns = ", ".join(values)
    for name, (known, layout) in PRESETS.items():
        if known <= set(values) <= known | {layout.swapped}:
            return replace(layout, name=name, why=f"the columns are those of {name}: {layout.why or 'a row a vote'}")
    votes = values.get("votes")
    if isinstance(votes, Mapping | list):
        item, named = _item(values)
        return Layout("votes", "votes", item=item, why=f"column votes holds the votes of one item; {named}")
    if _numbers(values.get("ratings")):
        return Layout("ratings", "ratings", why="column ratings is a list of numbers, one a rater; each row is an item")
    rater, vote = _first(RATER, values), _first(VOTE, values)
    if rater and vote:
        item, named = _item(values)
        models = ("model_a", "model_b") if {"model_a", "model_b"} <= set(values) else None
        if not item and not models:
            raise DataError(
                f"{path}: a row is a vote ({rater} says {vote}), but no column names the item; it has {columns}. "
                "Name it with --item COLUMN."
            )
        item = tuple(column for column in item if models is None or column not in models)
        why = f"a row is a vote: {rater} says {vote}; {named}"
        swapped = f"{vote}_swapped" if f"{vote}_swapped" in values else ""
        return Layout("rows", vote, rater=rater, item=item, models=models, swapped=swapped, why=why)
    columns_of_words = _columns_of_choices(sample or [values])
    if len(columns_of_words) > 1:
        item, named = _item(values)
        item = tuple(name for name in item if name not in columns_of_words)
        return Layout(
            "columns",
            item=item,
            raters=tuple(columns_of_words),
            why=f"columns {', '.join(columns_of_words)} hold a vote each, so they are raters",
        )
    raise DataError(
        f"{path}: no votes found in the columns {columns}. keel looks for votes (an object or list), ratings (a list "
        f"of numbers), or a row a vote with a rater ({', '.join(RATER[:3])}) and a vote ({', '.join(VOTE[:4])}). Say "
        "where they are: --item COLUMN --rater COLUMN --vote COLUMN, or --raters-in COLUMN,COLUMN for a column a rater."
    )


def preset(name: str) -> Layout:
    """The layout of a known set."""
    if name not in PRESETS:
        raise ConfigError(
            f"--preset {name}: no such preset.{suggest(name, list(PRESETS))} Known: {', '.join(sorted(PRESETS))}."
        )
    return replace(PRESETS[name][1], name=name, why=f"asked for as {name}")


def fits(layout: Layout, values: Mapping[str, Any]) -> bool:
    """Whether a row has what the layout reads."""
    if layout.kind == "columns":
        return any(column in values for column in layout.raters) and all(column in values for column in layout.item)
    needed = [layout.vote, *layout.item, *(layout.models or ())]
    return all(column in values for column in (*needed, *([layout.rater] if layout.rater else [])))


def _item(values: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """The columns that name an item, and the words for it."""
    own = _first(ITEM, values)
    item = tuple(column for column in (own, *WITHIN, *CONTENT) if column in values)
    return item, f"an item is {', '.join(item)}" if item else "each row is an item"


def _is_choice(text: str) -> bool:
    return text.strip().lower() in WORDS.keys() | {"yes", "no"}


def _columns_of_choices(sample: Sequence[Mapping[str, Any]]) -> list[str]:
    """Columns most of whose cells that are not empty hold a choice."""
    found = []
    for name in dict.fromkeys(name for values in sample for name in values):
        said = [one for values in sample if (one := values.get(name)) is not None and one != ""]
        if 2 * sum(isinstance(one, str) and _is_choice(one) for one in said) > len(said):
            found.append(name)
    return found


def _first(names: Sequence[str], values: Mapping[str, Any]) -> str:
    return next((name for name in names if name in values), "")


def _numbers(found: Any) -> bool:
    return isinstance(found, list) and bool(found) and all(isinstance(one, int | float) for one in found)
