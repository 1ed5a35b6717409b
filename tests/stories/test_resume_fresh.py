"""Rounds of prefer, PPO then prefer, and rejection sampling, killed at random moments (signal 9), end with the same bits."""

import pytest
from helpers.fresh_recipes import BEST_OF, HYBRID, ITERATIVE, REJECTION, ROUNDS, place_of_people
from helpers.interrupted import attempt, cut_short, interrupted, left_behind

ROADS = {
    "iterative": {**ITERATIVE, "evaluate": None, "rounds": {**ROUNDS, "count": 2}},
    "hybrid": {**HYBRID, "evaluate": None},
    "rejection": {**REJECTION, "evaluate": None, "best_of": BEST_OF},
}


@pytest.mark.parametrize("road", ROADS)
def test_a_road_that_is_cut_off_again_and_again_ends_where_it_would_have(road, tmp_path):
    place_of_people(tmp_path)
    changes = {**ROADS[road], "checkpoint": {"every_seconds": 0}}
    assert attempt(tmp_path, "undisturbed", changes)
    expected = left_behind(tmp_path / "undisturbed")
    ended = [*interrupted(tmp_path, changes, 6, longest_s=1.0), *cut_short(tmp_path, changes, 6, furthest=120)]
    for directory in ended:
        found = left_behind(directory)
        for part, value in expected.items():
            assert found[part] == value, part
