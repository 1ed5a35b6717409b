"""The script and, for Latin letters, the language of a text, by letters and by the commonest little words."""

import re
from collections import Counter
from functools import cache

import numpy as np

_SCRIPTS: tuple[tuple[int, str], ...] = (  # where each block begins, in order; "" holds no letters of its own
    (0x0000, "Latin"),
    (0x0250, ""),
    (0x0370, "Greek"),
    (0x0400, "Cyrillic"),
    (0x0530, "Armenian"),
    (0x0590, "Hebrew"),
    (0x0600, "Arabic"),
    (0x0780, ""),
    (0x0900, "Devanagari"),
    (0x0980, "Indic"),
    (0x0E00, "Thai"),
    (0x0E80, ""),
    (0x10A0, "Georgian"),
    (0x1100, "Hangul"),
    (0x1200, ""),
    (0x1E00, "Latin"),
    (0x1F00, "Greek"),
    (0x2000, ""),
    (0x3040, "Japanese"),
    (0x3100, ""),
    (0x3400, "Han"),
    (0xA000, ""),
    (0xAC00, "Hangul"),
    (0xD7B0, ""),
    (0xF900, "Han"),
    (0xFB00, ""),
    (0x20000, "Han"),
    (0x32000, ""),
)
_STARTS = np.array([start for start, _ in _SCRIPTS])
_FOREIGN = re.compile("[\u0370-\u1cff\u1f00-\u1fff\u2c00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff]")
"""A letter beyond Latin; texts without one need no count."""
_LETTER = re.compile(r"[^\W\d_]")
_WORD = re.compile(r"[^\W\d_]+")
_LITTLE = {  # words that other languages here do not have in numbers
    "English": "the and of to that it you for with this are be not have from what how your which they",
    "German": "der die das und ist nicht ein eine ich sie mit auf für von dem den zu wie",
    "French": "le les et est une des que pour dans pas vous qui sur avec ce il je nous",
    "Spanish": "el los las una es que por para con del se en como su más pero lo este",
    "Italian": "il che di una per non con sono del della gli è come più anche nel",
    "Portuguese": "os é uma que para com não por das dos mais foi você ao seu são",
    "Dutch": "het een en van is dat niet op voor met zijn aan te wat ik je",
    "Polish": "na się nie jest że jak lub przez dla są oraz który tym",
    "Turkish": "ve bir bu için ile çok olarak daha gibi olan ama değil",
    "Vietnamese": "và là của có không một cho được với các trong",
    "Indonesian": "dan yang untuk dengan ini itu tidak dari adalah dalam",
}
FIRST_WORDS = 60
LEAST_WORDS = 8
LEAST_LEAD = 3


def script(text: str) -> str:
    """The script of most letters; "" of a text without letters. Kana make a Japanese text of any number of Han."""
    if text.isascii() or not _FOREIGN.search(text):
        return "Latin" if _LETTER.search(text) else ""
    codes = np.frombuffer(text[:4000].encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    block = np.searchsorted(_STARTS, codes, side="right") - 1
    ascii_letters = ((codes | 32) >= 97) & ((codes | 32) <= 122)
    letters: Counter[str] = Counter()
    for number, count in enumerate(np.bincount(block[(codes >= 0xC0) | ascii_letters], minlength=len(_SCRIPTS))):
        if count and _SCRIPTS[number][1]:
            letters[_SCRIPTS[number][1]] += int(count)
    if letters["Japanese"] and letters["Han"]:
        letters["Japanese"] += letters.pop("Han")
    return max(letters, key=lambda name: letters[name]) if letters else ""


def language(text: str) -> str:
    """The language of a text in Latin letters by its little words, another's script by name; "" where unsure.

    Unsure is a text under eight words, or one where the best language does not lead by three words.
    """
    found = script(text)
    if found != "Latin":
        return found
    words = _WORD.findall(text[: 12 * FIRST_WORDS].lower())[:FIRST_WORDS]
    if len(words) < LEAST_WORDS:
        return ""
    hits: Counter[str] = Counter()
    for word in words:
        hits.update(_languages().get(word, ()))
    if not hits:
        return ""
    ranked = hits.most_common(2)
    lead = ranked[0][1] - (ranked[1][1] if len(ranked) > 1 else 0)
    return ranked[0][0] if lead >= LEAST_LEAD else ""


@cache
def _languages() -> dict[str, tuple[str, ...]]:
    """Each little word and the languages that have it."""
    by_word: dict[str, tuple[str, ...]] = {}
    for name, words in _LITTLE.items():
        for word in words.split():
            by_word[word] = (*by_word.get(word, ()), name)
    return by_word
