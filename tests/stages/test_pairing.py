"""Which answers are put side by side."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from keel.core.config import load_config
from keel.stages.pairing import Answer, pair_up, similarity
from keel.stages.sampling import SampleConfig


def config(models: int = 1, **settings) -> SampleConfig:
    sources = [{"name": f"m{i}", "checkpoint": {"path": f"m{i}"}} for i in range(models)]
    return load_config(SampleConfig, None, base={"prompts": {"path": "x"}, "models": sources, **settings})


def answers(
    models: int, samples: int, text=lambda model, index: f"answer {index} of model {model} alone"
) -> list[Answer]:
    return [
        Answer(prompt="how?", text=text(m, i), model=f"m{m}", index=i, provenance={"model": f"m{m}"})
        for m in range(models)
        for i in range(samples)
    ]


def test_pairs_are_made_within_each_model_and_between_each_two():
    pairs = pair_up(answers(3, 2), "train", config(3, samples=2), Counter())
    kinds = Counter(frozenset((pair.a.model, pair.b.model)) for pair in pairs)
    assert kinds == {
        frozenset(names): 1 for names in ({"m0"}, {"m1"}, {"m2"}, {"m0", "m1"}, {"m0", "m2"}, {"m1", "m2"})
    }


def test_fresh_answers_come_before_used_ones():
    pairs = pair_up(answers(1, 6), "train", config(samples=6, within=3), Counter())
    used = Counter(answer.index for pair in pairs for answer in (pair.a, pair.b))
    assert used == dict.fromkeys(range(6), 1)


def test_answers_that_say_the_same_are_dropped_and_the_next_pair_is_taken():
    def text(model, index):
        return "The parcel is on its way to you now" if index < 2 else "No idea at all"

    dropped: Counter[str] = Counter()
    (pair,) = pair_up(answers(1, 3, text), "train", config(samples=3), dropped)
    assert "No idea at all" in (pair.a.text, pair.b.text)
    assert not pair_up(answers(1, 2, text), "train", config(), dropped)
    assert dropped["answers too similar"] >= 1


def test_nobody_judges_an_empty_answer():
    dropped: Counter[str] = Counter()
    assert pair_up(answers(1, 2, lambda m, i: " \n" if i else "fine"), "train", config(), dropped) == []
    assert dropped == {"empty answer": 1}


def test_neither_letter_belongs_to_a_model():
    first = Counter()
    for number in range(200):
        texts = [
            Answer(prompt=f"how {number}?", text=f"{name} says it", model=name, index=0, provenance={})
            for name in ("m0", "m1")
        ]
        (pair,) = pair_up(texts, "train", config(2, samples=1), Counter())
        first[pair.a.model] += 1
    assert 70 < first["m0"] < 130


def test_the_same_answers_make_the_same_pairs():
    one, other = (pair_up(answers(2, 3), "train", config(2, samples=3), Counter()) for _ in range(2))
    assert [pair.key for pair in one] == [pair.key for pair in other]


def test_similarity_by_hand():
    # word pairs: (a b)(b c)(c d) and (a b)(b c)(c e): 2 of 3 shared, 2*2/6
    assert similarity("a b c d", "A b c e") == 2 / 3
    assert similarity("same  words", "Same words") == 1
    assert similarity("yes", "no") == 0
    assert similarity("a b a c a", "a c a b a") < 1, "the same neighbours in another order are another text"


@given(st.text(max_size=30), st.text(max_size=30))
def test_similarity_is_symmetric_and_a_share(a, b):
    assert similarity(a, b) == similarity(b, a)
    assert 0 <= similarity(a, b) <= 1
    assert similarity(a, a) == 1
