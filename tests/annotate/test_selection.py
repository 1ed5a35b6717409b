import runpy
from math import log
from pathlib import Path

import numpy as np
import pytest

from keel.annotate.selection import disagreement, priorities, uncertainty
from keel.core.errors import DataError

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "selection.py"


def test_uncertain_pairs_and_pairs_that_divide_the_ensemble():
    # members sure and agreed, all at one half, sure and opposed
    differences = np.array([[30.0, 0.0, 30.0], [30.0, 0.0, -30.0]])
    assert uncertainty(differences) == pytest.approx([0.0, log(2), log(2)], abs=1e-6)
    assert disagreement(differences) == pytest.approx([0.0, 0.0, log(2)], abs=1e-6)


def test_one_reward_model_is_uncertain_but_never_divided():
    assert uncertainty([0.0, 1.0, 4.0])[0] == pytest.approx(log(2))
    assert np.all(np.diff(uncertainty([0.0, 1.0, 4.0])) < 0)
    assert disagreement([0.0, 1.0]) == pytest.approx([0.0, 0.0])
    with pytest.raises(DataError, match="cannot disagree with itself"):
        priorities([0.0, 1.0], 1)
    assert np.argmax(priorities([2.0, 0.1, 3.0], 1, method="uncertainty")) == 1


def test_priorities_fall_from_one_and_the_others_have_none():
    found = priorities(np.random.default_rng(0).normal(size=(4, 50)), 10)
    assert sorted(found[found > 0]) == pytest.approx(np.arange(1, 11) / 10)
    assert priorities(np.zeros((2, 3)), 10).tolist().count(0.0) == 0


def test_pairs_alike_are_not_all_taken():
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.eye(5), 20, axis=0)
    spread = np.repeat([9.0, 3.0, 3.0, 3.0, 3.0], 20)
    differences = np.array([1.0, -1.0, 0.2])[:, None] * spread + rng.normal(0, 0.01, (3, 100))
    for diversity, kinds_taken in ((0.0, 1), (1.0, 5)):
        taken = np.argsort(-priorities(differences, 5, kinds, diversity=diversity))[:5] // 20
        assert len(set(taken.tolist())) == kinds_taken


def test_without_features_pairs_are_alike_on_which_members_part_in_the_same_way():
    one_way, other_way = np.array([2.0, -1.0, -1.0]), np.array([0.0, 1.4, -1.4])
    differences = np.array([one_way, one_way, -one_way, other_way]).T
    assert set(np.argsort(-priorities(differences, 2))[:2].tolist()) & {3}


@pytest.mark.parametrize(
    ("differences", "more", "message"),
    [
        ([[np.nan, 1.0], [0.0, 1.0]], {}, "finite numbers"),
        ([[0.0, 1.0], [0.0, 1.0]], {"features": np.zeros((3, 2))}, r"\[2, D\], got shape \(3, 2\)"),
        ([[0.0, 1.0], [0.0, 1.0]], {"method": "hunch"}, "Method 'hunch' is unknown"),
    ],
)
def test_what_cannot_be_ranked_is_refused(differences, more, message):
    with pytest.raises(DataError, match=message):
        priorities(differences, 1, **more)


def test_the_same_seed_chooses_the_same_pairs():
    differences = np.zeros((3, 200))
    assert priorities(differences, 20, seed=1).tolist() == priorities(differences, 20, seed=1).tolist()
    assert priorities(differences, 20, seed=1).tolist() != priorities(differences, 20, seed=2).tolist()


def test_disagreement_needs_fewer_labels_than_chance_in_a_small_world():
    bench = runpy.run_path(str(BENCHMARK))
    world = bench["WORLDS"][0]
    gains = []
    for seed in range(3):
        curves = {way: bench["curve"](world, way, seed)[:8] for way in ("random", "disagreement")}
        gains.append(curves["disagreement"][-1] - curves["random"][-1])
    assert np.mean(gains) > 0.01
