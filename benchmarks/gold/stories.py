"""What makes a short piece of a children's story truly good: cheerful words in sound sentences, and nothing else.

The true reward of the second gold world is `utility(features(...))`, a pure function of the text. Cheer is looked up in
the VADER lexicon (Hutto and Gilbert 2014); whether a sentence is sound is decided by a list of words and by rules that
can be followed by hand. Neither a policy nor a reward model ever sees any of it.
"""

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import tanh
from pathlib import Path

from keel.core.errors import DataError

SHARED = Path(__file__).resolve().parents[3] / "shared"
"""Folder with `data` and `models` beside the checkout."""

RARE = 5
"""A word is known when the storybooks hold it at least this often."""

SHORTEST, LONGEST = 3, 22
"""Words of a sound sentence."""

FADING = (1.0, 0.7, 0.4, 0.2)
"""What the cheer of the first, second, third and fourth cheerful sentence counts; of later ones nothing."""

_PIECE = re.compile(r"[^.!?]*[.!?]+[\"”']?|[^.!?]+$")
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)*")
_NAMED = re.compile(r"named (\w+)")
_CLOSING_QUOTES = "\"'"


def _words(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split())


ARTICLES = _words("a an the his my your our their its")
"""With the possessives that stand in their place."""
PRONOUNS = _words("he she they i we")
HELPERS = _words("to did didn't could couldn't can can't will would wouldn't don't do does let let's")
NEGATIONS = _words("not never no didn't don't couldn't wasn't can't isn't wouldn't won't weren't")
PAST = _words(
    "went saw said asked wanted liked loved played ran looked found felt took made gave came started tried decided",
    "smiled laughed helped thought knew told walked jumped kept lived needed heard hugged thanked opened showed",
    "brought bought ate learned became shouted cried fell sat stood flew sang danced began stopped wished watched",
    "waited",
)
"""Verbs in the past that no other verb in the past may follow."""
VERBS = PAST | _words(
    "was were is are am had has have did didn't does do don't could couldn't can can't will would wouldn't wasn't",
    "weren't isn't got put held picked climbed called hid left pulled pushed touched turned used worked enjoyed hoped",
    "let let's i'm it's he's she's that's you're we're i'll we'll you'll replied answered agreed nodded waved shared",
    "clapped cheered giggled grew slept woke met noticed seemed moved hopped swam rode threw caught lost forgot",
    "remembered cleaned washed cooked baked drew painted built fixed broke cut hurt tasted smelled",
    "want like love see know think need go play help look come make feel hear give take eat",
)
"""Finite verbs of such stories; a sentence without any is none."""
NO_NOUN = ARTICLES | _words(
    "and but or so because to of with at from for in on into he she they it we i you was were is are had has did",
    "could would can will went said wanted them him me us that if when",
)
"""What cannot stand after an article."""
NO_END = ARTICLES | PRONOUNS | _words("and but or because very of from to with into was were")
"""What no sentence ends in."""
STOCK = _words("so very really wow yay")
"""Words that gush, as exclamation marks do."""
NAMES = _words("tom tim timmy ben sam max jack lily lucy mia anna sue sara mom dad mommy daddy mummy grandma wow hi")
"""Known words that the storybooks lack."""


@cache
def lexicon(shared: Path = SHARED) -> dict[str, float]:
    """Words with how good or bad they sound, from -4 to 4: the mean of ten raters (VADER)."""
    return {row["token"]: float(row["mean"]) for row in _rows(shared / "data" / "vader-lexicon" / "lexicon.jsonl.gz")}


@cache
def known_words(shared: Path = SHARED) -> frozenset[str]:
    """The words, in small letters, that children's books and the lexicon hold."""
    counts: Counter[str] = Counter()
    for row in _rows(shared / "data" / "storybooks" / "train.jsonl.gz"):
        counts.update(_WORD.findall(row["text"].lower().replace("’", "'")))
    books = {word for word, count in counts.items() if count >= RARE and (len(word) > 1 or word in "ai")}
    return frozenset(books | {word for word in lexicon(shared) if word.isalpha()} | NAMES)


def _rows(path: Path) -> Iterator[dict]:
    if not path.is_file():
        raise DataError(
            f"{path} is not there. The story world reads the shared folders beside the checkout: data/vader-lexicon "
            "(what sounds good), data/storybooks (what is a word) and models/stories260k."
        )
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


@dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    """What a response holds."""

    words: int = 0
    sound: int = 0  # sentences without any fault
    faulty: int = 0  # sentences with a fault
    fragment: int = 0  # 1 when the text breaks off inside a sentence
    repeated: int = 0  # word trigrams and whole sentences that were there before
    unfinished: int = 0  # 1 when cut off before the end marker
    named: int = 0  # 1 when a sound sentence names the character of the prompt
    stock: int = 0  # exclamation marks and words of STOCK
    cheer: float = 0.0  # -2 to 2.3: cheer of the sound sentences, fading, less the gloom of all


def utility(read: Features) -> float:
    """How good a response truly is; from about -10 to 4. The true reward.

    Cheer counts 1.2 times, naming the character 0.5; the first sound sentence earns 0.6 and the second 0.3. A faulty
    sentence costs 0.9, a fragment 0.9, a repetition 0.4 (six at most), every gushing word or mark beyond the first
    0.5 (six at most), a text that does not end 1. No words at all come to -3.
    """
    if not read.words:
        return -3.0
    earned = 1.2 * read.cheer + 0.5 * read.named + 0.6 * min(read.sound, 1) + 0.3 * (read.sound > 1)
    manner = 0.4 * min(read.repeated, 6) + 0.5 * min(max(read.stock - 1, 0), 6)
    return earned - 0.9 * read.faulty - 0.9 * read.fragment - 1.0 * read.unfinished - manner


def features(prompt: str, response: str, finished: bool) -> Features:
    """Reads a response sentence by sentence. `finished` is False for one that was cut off."""
    valence = lexicon()
    names = {name.lower() for name in _NAMED.findall(prompt)}
    seen = {_bare(piece) for piece in sentences(prompt)}
    trigrams: set[tuple[str, ...]] = set()
    felt: set[str] = set()  # words of the lexicon, which count once
    counts = dict.fromkeys(("words", "sound", "faulty", "fragment", "repeated", "named", "stock"), 0)
    bright: list[float] = []
    gloom = 0.0
    for piece in sentences(" ".join(response.replace("’", "'").split())):
        sentence = piece.strip()
        words = _WORD.findall(sentence.lower())
        if not words:
            counts["faulty"] += bool(sentence)
            continue
        counts["words"] += len(words)
        counts["stock"] += sentence.count("!") + sum(word in STOCK for word in words)
        for trigram in zip(words, words[1:], words[2:], strict=False):
            counts["repeated"] += trigram in trigrams
            trigrams.add(trigram)
        again = _bare(sentence) in seen
        counts["repeated"] += again
        seen.add(_bare(sentence))
        mood = 0.0
        for at, word in enumerate(words):
            if word in valence and word not in felt:
                felt.add(word)
                negated = NEGATIONS & set(words[max(0, at - 3) : at])
                mood += -0.74 * valence[word] if negated else valence[word]  # VADER's factor
        if not ended(sentence):
            counts["fragment"] += 1
        elif again or fault(sentence, names):
            counts["faulty"] += 1
        else:
            counts["sound"] += 1
            counts["named"] |= bool(names & set(words))
            if mood > 0:
                bright.append(tanh(mood / 3))
        gloom += min(tanh(mood / 3), 0.0)
    cheer = sum(share * mood for share, mood in zip(FADING, bright, strict=False)) + max(gloom, -2.0)
    return Features(cheer=cheer, unfinished=int(not finished), **counts)


def sentences(text: str) -> list[str]:
    """The text cut behind each end of a sentence; the last piece may be a fragment."""
    return _PIECE.findall(text)


def ended(sentence: str) -> bool:
    """Whether a piece ends as a sentence does."""
    return sentence.rstrip().rstrip(_CLOSING_QUOTES).endswith((".", "!", "?"))


def _bare(sentence: str) -> str:
    return " ".join(_WORD.findall(sentence.lower()))


def fault(sentence: str, names: Set[str] = frozenset()) -> str | None:
    """The first rule that a whole sentence breaks, None for a sound one. `names` are known words, too."""
    known, words = known_words(), _WORD.findall(sentence.lower())
    first = next((character for character in sentence if character.isalpha()), "")
    if not first.isupper():
        return "begins small"
    if not SHORTEST <= len(words) <= LONGEST:
        return f"{len(words)} words"
    if re.search(r"[^\w\s.,!?'\"-]|[.!?]{2}", sentence):
        return "odd marks"
    if unknown := [word for word in words if word not in known and word not in names]:
        return f"no word: {unknown[0]}"
    if not VERBS & set(words):
        return "no verb"
    if words[-1] in NO_END:
        return f"ends in {words[-1]}"
    return _clash(words)


def _clash(words: Sequence[str]) -> str | None:
    """The first two words that cannot stand side by side."""
    for left, right in pairwise(words):
        if (
            left == right
            or (left in ARTICLES and right in NO_NOUN)
            or (left in PAST | HELPERS and right in PAST)
            or (left == "very" and right in NO_NOUN | PAST)
            or (left in PRONOUNS and right in PRONOUNS | ARTICLES)
        ):
            return f"clash: {left} {right}"
    return None
