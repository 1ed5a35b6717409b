"""Names that look the same but are not: a rater who appears twice by a slip of the keyboard, or by design."""

import unicodedata
from collections.abc import Iterable

_AS_LATIN = str.maketrans("авезкмнорстухіјѕԁһԛԝαβεικνορτυχ", "abe3kmhopctyxijsdhqwabeikvoptux")
"""Small letters of Cyrillic and Greek, and the Latin ones (or the digit) that they pass for."""


def skeleton(name: str) -> str:
    """The shape of a name: without case, Unicode form, accents, invisible characters and white space, and with
    letters of Cyrillic and Greek that look Latin made Latin.
    """
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name).casefold()).translate(_AS_LATIN)
    return "".join(character for character in folded if unicodedata.category(character)[0] not in "MCZ")


def look_alikes(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of different names of the same shape, in order of appearance."""
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault(skeleton(name), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]
