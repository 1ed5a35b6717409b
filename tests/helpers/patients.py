"""Sets of records in good health, for the doctor's rules to find nothing in, and for faults to be planted in."""

import random

from keel.data.records import Comparison, Demonstration


def words(text: str) -> list[str]:
    return text.split()


NOUNS = words("""harbour bridge engine garden letter mountain river market teacher window kitchen forest island ticket museum
winter bicycle camera doctor farmer lantern mirror needle office pencil queen rocket saddle temple uncle valley wagon
yard anchor basket candle desert elbow fabric glacier hammer insect jacket kettle ladder magnet napkin orchard parcel
quarry ribbon shelter tunnel umbrella village whistle zipper account blanket circus dragon envelope feather guitar""")
VERBS = words("""carries opens follows remembers paints repairs counts visits leaves finds covers answers builds changes draws
explains guards holds joins keeps lifts measures needs offers protects reaches saves teaches uses watches""")
KINDS = words("""old quiet narrow bright heavy distant simple broken golden early empty famous gentle hollow inner large modern
northern open plain rough silver tall useful warm young""")
JOINTS = ["and then", "because", "while", "so that", "although", "before", "after", "until", "where", "whenever"]
OPENERS = ["What is", "How does", "Why would", "When did", "Tell me about", "Describe", "Explain", "Compare", "List"]


def clause(rng: random.Random) -> str:
    return f"the {rng.choice(KINDS)} {rng.choice(NOUNS)} {rng.choice(VERBS)} a {rng.choice(KINDS)} {rng.choice(NOUNS)}"


def sentence(rng: random.Random) -> str:
    text = f"{clause(rng)} {rng.choice(JOINTS)} {clause(rng)}."
    return text[0].upper() + text[1:]


def passage(rng: random.Random, sentences: int | None = None) -> str:
    return " ".join(sentence(rng) for _ in range(sentences or rng.randint(2, 5)))


def question(rng: random.Random) -> str:
    return f"{rng.choice(OPENERS)} {clause(rng)} {rng.choice(JOINTS)} {clause(rng)}?"


def comparisons(count: int, seed: int = 0) -> list[Comparison]:
    """Pairs whose preference is a coin's: no bias of any kind."""
    rng = random.Random(seed)
    return [
        Comparison(
            question(rng),
            passage(rng),
            passage(rng),
            float(rng.random() < 0.5),
            source=f"pairs.jsonl:{number}",
            models=(rng.choice(("one", "two", "three")), rng.choice(("one", "two", "three"))),
        )
        for number in range(1, count + 1)
    ]


def demonstrations(count: int, seed: int = 0) -> list[Demonstration]:
    rng = random.Random(seed)
    return [Demonstration(question(rng), passage(rng), f"demos.jsonl:{number}") for number in range(1, count + 1)]
