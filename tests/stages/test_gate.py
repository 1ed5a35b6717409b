import pytest

from keel.core.errors import TrainingError
from keel.data.records import Comparison
from keel.stages.gate import best_of_n_verdict, judged
from keel.stages.labels import Pair, ask
from keel.stats.intervals import wilson

FIGURES = {"n": 16, "prompts": 8, "gain": 1.0, "gain_in_std": 1.5, "length_ratio": 1.0}


def pairs_of(count: int) -> list[Pair]:
    return [
        Pair(prompt="ask", a=f"best {i}", b=f"other {i}", a_finished=True, b_finished=True, key=i) for i in range(count)
    ]


def comparison(pair: Pair, preference: float) -> Comparison:
    return Comparison(pair.prompt, pair.a, pair.b, preference)


def rated(low: float, rate: float, high: float) -> dict:
    return {**FIGURES, "win_rate": rate, "win_rate_low": low, "win_rate_high": high, "labels": 40}


@pytest.mark.parametrize(
    ("metrics", "level"),
    [
        (rated(0.55, 0.7, 0.8), "ok"),
        (rated(0.4, 0.55, 0.7), "watch"),
        (rated(0.3, 0.4, 0.52), "watch"),
        (rated(0.2, 0.3, 0.45), "stop"),
        (FIGURES, "ok"),
        (FIGURES | {"length_ratio": 1.4}, "watch"),
    ],
    ids=["liked", "perhaps liked", "perhaps disliked", "disliked", "nobody asked", "nobody asked, longer"],
)
def test_what_raters_think_of_favourites_decides(metrics, level):
    verdict = best_of_n_verdict(metrics)
    assert verdict.level == level
    assert bool(verdict.remedy) == (level != "ok")
    assert "16" in verdict.message


def test_ties_count_half_in_the_win_rate_of_favourites():
    preferences = [1.0, 1.0, 0.5, 0.0]
    found = judged(lambda pairs: [comparison(p, v) for p, v in zip(pairs, preferences, strict=True)], pairs_of(4))
    assert found["win_rate"] == 2.5 / 4
    assert (found["win_rate_low"], found["win_rate_high"]) == wilson(2.5, 4)
    assert found["labels"] == 4


def test_a_labeller_may_show_and_record_the_sides_swapped():
    def swapping(pairs):
        return [Comparison(p.prompt, p.b, p.a, 0.0) if p.key % 2 else comparison(p, 1.0) for p in pairs]

    assert judged(swapping, pairs_of(6))["win_rate"] == 1.0


def test_a_labeller_may_leave_pairs_out():
    assert judged(lambda pairs: [comparison(pairs[0], 1.0)], pairs_of(3))["labels"] == 1


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "ab",
        [1.0],
        [("ask", "a", "b", 1.0)],
        [Comparison("ask", "a", "b", 1.5)],
        [Comparison("q", "a", "b", 1.0)] * 3,
    ],
)
def test_an_answer_that_is_no_list_of_comparisons_is_refused(answer):
    with pytest.raises(TrainingError, match=r"^rounds\.labeller returned .*keel\.data\.records\.Comparison"):
        ask(lambda pairs: answer, pairs_of(2))
