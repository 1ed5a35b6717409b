"""What raters are shown, kept in memory: the texts of an item never change, and several raters get each."""

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from keel.data.records import prompt_text
from keel.store.store import Transaction
from keel.studio.markdown import chat_html, safe_html

MOST_ITEMS, LONGEST = 2048, 40_000
"""Items kept, and the characters of HTML of the longest among them: at most about 160 MB, usually 10."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Texts:
    """Prompt and answers of an item, as text and as safe HTML."""

    prompt: str
    prompt_html: str
    a: str
    a_html: str
    b: str
    b_html: str


class Shown:
    """Texts by item."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Texts] = OrderedDict()

    def texts(self, tx: Transaction, item_ids: Sequence[int]) -> dict[int, Texts]:
        """Of each item; those not kept are read and rendered."""
        with self._lock:
            found = {item_id: self._kept[item_id] for item_id in item_ids if item_id in self._kept}
            for item_id in found:
                self._kept.move_to_end(item_id)
        for item in tx.items.many([item_id for item_id in item_ids if item_id not in found]):
            texts = found[item.id] = Texts(
                prompt=prompt_text(item.prompt),
                prompt_html=chat_html(item.prompt),
                a=item.a,
                a_html=safe_html(item.a),
                b=item.b,
                b_html=safe_html(item.b),
            )
            if len(texts.prompt_html) + len(texts.a_html) + len(texts.b_html) <= LONGEST:
                self._keep(item.id, texts)
        return found

    def _keep(self, item_id: int, texts: Texts) -> None:
        with self._lock:
            self._kept[item_id] = texts
            while len(self._kept) > MOST_ITEMS:
                self._kept.popitem(last=False)


class Recent(Generic[T]):
    """Values of the last `for_s` seconds, by (project, user)."""

    def __init__(self, for_s: float) -> None:
        self._for_s = for_s
        self._kept: dict[tuple[int, int], tuple[float, T]] = {}

    def get(self, key: tuple[int, int]) -> T | None:
        until, value = self._kept.get(key, (0.0, None))
        return value if time.monotonic() < until else None

    def put(self, key: tuple[int, int], value: T) -> None:
        self._kept[key] = (time.monotonic() + self._for_s, value)
