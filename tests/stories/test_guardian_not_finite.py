"""An update that ends in no number is undone, and the run goes on more slowly."""

from unittest.mock import patch

import pytest
from helpers.guarded_stories import PEOPLE, actions, alarmed, weights
from helpers.recipes import Ran, Workplace

from keel.core.errors import NotFiniteError, TrainingError
from keel.monitor.rules import RULES
from keel.stages.learner import Learner
from keel.train.resume import Checkpoints

OTHERS_OFF = {name: "silent" for name in RULES if name != "not_finite"}
UPDATES = Learner.updates
SAVE = Checkpoints.save


class KilledError(BaseException):
    """Ends a run on the spot."""


@pytest.fixture
def place(tmp_path):
    place = Workplace(tmp_path)
    place.write("people.py", PEOPLE)
    return place


def run(place: Workplace, to: str, *broken: int, **guardian) -> Ran:
    """12 updates of which some break off after they have moved the weights."""

    def updates(self: Learner, start: int):
        for done, metrics in enumerate(UPDATES(self, start), start + 1):
            if done in broken:
                raise NotFiniteError("The loss became nan.")
            yield metrics

    with patch.object(Learner, "updates", updates):
        return place.run(
            to=to,
            **alarmed(
                ppo={"updates": 12},
                guardian={**guardian, "rules": OTHERS_OFF | guardian.get("rules", {})},
                checkpoint={"every_seconds": 0},
            ),
        )


def test_it_is_undone_and_the_learning_rate_halved(place):
    ran = run(place, "run", 6, 9)
    first, second = actions(ran)
    for action, step, to_step in ((first, 6, 4), (second, 9, 7)):
        assert (action["step"], action["action"], action["taken"]) == (step, "roll_back", True)
        assert action["rules"] == ["not_finite"]
        assert action["to_step"] == to_step
    assert (first["before"], first["after"]) == ({"learning_rate_factor": 1.0}, {"learning_rate_factor": 0.5})
    assert second["after"] == {"learning_rate_factor": 0.25}
    rates = {step["step"]: step["learning_rate"] for step in ran.events("step")}
    assert sorted(rates) == [1, 2, 3, 4, 5, 7, 8, 10, 11, 12]
    assert rates[7] == pytest.approx(rates[5] / 2)  # after 4 updates the schedule is where it was then
    assert rates[10] < 0.6 * rates[8]


def test_after_max_rollbacks_it_ends_the_run_as_does_a_guardian_that_may_not_act(place):
    with pytest.raises(TrainingError, match=r"ppo: The loss became nan\."):
        run(place, "often", 4, 6, 8)
    with pytest.raises(TrainingError, match=r"ppo: The loss became nan\."):
        run(place, "advise", 4, mode="advise")
    with pytest.raises(TrainingError, match=r"ppo: The loss became nan\."):
        run(place, "rule", 4, rules={"not_finite": "advise"})


@pytest.mark.parametrize("killed_at", [5, 6, 8])
def test_a_run_that_is_ended_before_or_after_goes_on_to_the_same_bits(place, killed_at):
    expected = run(place, "undisturbed", 6)

    def save(self: Checkpoints, step: int, **parts) -> None:
        SAVE(self, step, **parts)
        if step == killed_at:
            raise KilledError

    with patch.object(Checkpoints, "save", save), pytest.raises(KilledError):
        run(place, "killed", 6)
    found = run(place, "killed", 6)
    assert found.trained().count("ppo") == 2
    assert weights(found) == weights(expected)
    assert [a["after"] for a in actions(found)] == [a["after"] for a in actions(expected)]
    assert [e["step"] for e in found.events("step")] == [e["step"] for e in expected.events("step")]
