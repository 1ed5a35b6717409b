"""Comparisons made of labelled texts: a wanted text against an unwanted one, with no prompt."""

from collections.abc import Sequence

from keel.data.records import Comparison, LabelledText, text_key
from keel.data.split import is_held_out


def pair_texts(texts: Sequence[LabelledText], holdout: float = 0.0) -> list[Comparison]:
    """Each text used at most once, paired within its side of the split at `holdout`, in an order drawn by hash.

    The same texts give the same pairs in whatever order they come. Which text stands first is decided by hash too, so
    about half of the preferences are 1 and the others 0. Of the more frequent label the last texts stay single; a text
    that carries both labels is left out.
    """
    keyed: dict[bool, dict[str, LabelledText]] = {True: {}, False: {}}
    for text in texts:
        keyed[text.label].setdefault(text_key(text.text), text)
    contradictory = keyed[True].keys() & keyed[False].keys()
    pairs: list[tuple[str, Comparison]] = []
    for held_out in (False, True):
        wanted, unwanted = (
            sorted(key for key in keyed[label].keys() - contradictory if is_held_out(key, holdout) == held_out)
            for label in (True, False)
        )
        for one, other in zip(wanted, unwanted, strict=False):
            pairs.append(_pair(one, keyed[True][one], other, keyed[False][other]))
    return [comparison for _, comparison in sorted(pairs, key=lambda pair: pair[0])]


def _pair(key: str, wanted: LabelledText, other_key: str, unwanted: LabelledText) -> tuple[str, Comparison]:
    order = text_key(key + other_key)
    if int(order[-1], 16) % 2:
        comparison = Comparison("", wanted.text, unwanted.text, 1.0, source=wanted.source)
    else:
        comparison = Comparison("", unwanted.text, wanted.text, 0.0, source=unwanted.source)
    return order, comparison
