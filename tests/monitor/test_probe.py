"""What the golden probe says of a reward model."""

from math import nan

import pytest

from keel.monitor.probe import golden_probe


def probe(accuracy: float = 0.75, low: float = 0.69, high: float = 0.8, decided: int = 250, **more):
    return golden_probe(accuracy, low, high, decided, **{"train_accuracy": 0.78, "train_low": 0.74, **more})


@pytest.mark.parametrize(
    ("verdict", "level", "said"),
    [
        (probe(), "ok", "75.0%"),
        (probe(decided=60), "watch", "60 golden pairs"),
        (probe(0.58, 0.52, 0.64), "act", "not learned"),
        (probe(0.7, 0.49, 0.85, 12), "act", "not learned"),
        (probe(nan, nan, nan, 0), "act", "measured nothing"),
        (probe(train_accuracy=0.97, train_low=0.95), "act", "by heart"),
        (probe(train_accuracy=0.84, train_low=0.81), "ok", "75.0%"),
        (probe(seen=3), "act", "3 of them were trained on"),
    ],
    ids=["good", "few", "fails", "coin", "nothing", "over-fit", "a little better", "seen"],
)
def test_the_probe(verdict, level, said):
    assert verdict.level == level
    assert said in verdict.message
    assert bool(verdict.remedy) == (level != "ok")
    assert verdict.rule == "golden_probe"
