"""One check for many responses."""

from keel.stages.rewards import Verifier
from keel.verify.verdict import Verdict


def test_equal_responses_to_one_prompt_are_checked_once_and_paid_alike():
    checked = []

    def check(prompt, response, record):
        checked.append((prompt, response, record["answer"]))
        return Verdict(float(len(checked)), "")

    one, other = {"answer": "1"}, {"answer": "2"}
    rows = [
        ("p", "a", one),
        ("p", "b", one),
        ("p", "a", dict(one)),
        ("q", "a", one),
        ("p", "a", other),
        ("p", "b", one),
    ]
    verifier = Verifier(check, "ppo.rewards.code", 1)
    assert verifier(*map(list, zip(*rows, strict=True))) == [1, 2, 1, 3, 4, 2]
    assert checked == [("p", "a", "1"), ("p", "b", "1"), ("q", "a", "1"), ("p", "a", "2")]
    assert verifier([], [], []) == []
    assert verifier(["p", "p"], ["a", "a"], [one, one]) == [5, 5], "a later batch is checked anew"
