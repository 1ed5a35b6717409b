"""Both orders, averaged probabilities, nothing asked twice, nonsense told from verdicts."""

import math

import numpy as np
import pytest
from helpers.ai_judges import golden, labeller, pair, python_judge, strength, strengths

from keel.core.errors import TrainingError
from keel.stages.feedback.calibrate import calibration, measured
from keel.stages.feedback.judging import Rubric, cooled
from keel.stages.feedback.question import Question


def sure(question: Question, sharpness: float = 3.0, bias: float = 0.0) -> float:
    return 1 / (1 + math.exp(-(sharpness * (strength(question.first) - strength(question.second)) + bias)))


def swapped(pairs):
    return [pair(p.key, p.b, p.a) for p in pairs]


def test_labels_are_antisymmetric_under_a_swap_whatever_the_judge_thinks_of_sides(tmp_path):
    pairs = strengths(200)
    rubrics = [Rubric(name=f"p{n}@1", text=f"principle {n}") for n in range(3)]
    judge = python_judge(lambda questions: [sure(q, bias=1.3 + 0.2 * len(q.guide)) for q in questions])
    for per_pair in ("one", "all"):
        label = labeller(judge, tmp_path, rubrics=rubrics, per_pair=per_pair, temperature=2.5)
        there = [c.preference for c in label(pairs)]
        back = [c.preference for c in label(swapped(pairs))]
        assert np.abs(np.array(there) + np.array(back) - 1).max() < 1e-6


def test_a_planted_pull_to_the_first_side_is_recovered_and_averaged_away(tmp_path):
    pairs = strengths(2000)
    judge = python_judge(lambda questions: [0.35 + 0.65 * (strength(q.first) > strength(q.second)) for q in questions])
    label = labeller(judge, tmp_path)
    people = golden(pairs, sure=True)
    figures = measured(label.judged(pairs), people)
    assert figures["position_bias"] == pytest.approx(0.35, abs=1e-9)
    assert figures["label_accuracy"] == 1.0
    assert np.mean([c.preference for c in label(pairs)]) == pytest.approx(
        np.mean([p.preference for p in people]), abs=0.01
    )


def test_the_pull_of_bare_verdicts_is_recovered_within_its_noise(tmp_path):
    import random

    draw = random.Random(1)
    pairs = strengths(3000)

    def verdict(question):
        if draw.random() < 0.35:
            return "first"
        return "first" if strength(question.first) > strength(question.second) else "second"

    figures = measured(
        labeller(python_judge(lambda qs: [verdict(q) for q in qs]), tmp_path).judged(pairs), golden(pairs)
    )
    assert figures["position_bias"] == pytest.approx(0.35, abs=0.03)
    assert "favours the answer shown first" in figures["flags"][0]


def test_a_judge_that_is_too_sure_is_calibrated_on_golden_answers(tmp_path):
    pairs = strengths(3000)
    judge = python_judge(lambda questions: [sure(q, sharpness=4.0, bias=0.5) for q in questions])
    figures = measured(labeller(judge, tmp_path).judged(pairs), golden(pairs))
    assert figures["ece_before"] > 0.1
    assert figures["ece"] < 0.05
    assert figures["temperature"] > 2.5


def test_a_judge_that_was_right_ten_times_out_of_ten_is_not_taken_to_be_right_always(tmp_path):
    pairs = strengths(10)
    judge = python_judge(lambda qs: [0.8 if strength(q.first) > strength(q.second) else 0.2 for q in qs])
    label = labeller(judge, tmp_path)
    temperature = measured(label.judged(pairs), golden(pairs, sure=True))["temperature"]
    assert cooled(0.8, temperature) == pytest.approx(11 / 12), "(N + 1) / (N + 2)"


@pytest.mark.parametrize("people", [1.0, 0.5, 0.0])
def test_a_judge_that_says_nothing_either_way_keeps_a_temperature_of_one(people):
    found = calibration(np.full(10, 0.5), np.full(10, people), np.arange(10) % 2)
    assert found["temperature"] == 1.0
    assert found["ece"] == pytest.approx(abs(people - 0.5))


def test_calibration_is_measured_with_the_temperature_of_the_other_half():
    probabilities = np.array([0.9, 0.9, 0.9, 0.9, 0.6, 0.6])
    people = np.array([1.0, 0.0, 1.0, 0.0, 1.0, 1.0])
    folds = np.array([0, 0, 0, 0, 1, 1])
    found = calibration(probabilities, people, folds)
    (low, high) = [entry for entry in found["bins"] if entry["count"]]
    assert low["mean_probability"] == pytest.approx(0.5, abs=0.01), "the first half tells the second that 0.6 is luck"
    assert high["mean_probability"] > 0.99, "the second tells the first that it is always right"


def test_bare_verdicts_become_probabilities_that_mean_what_they_say(tmp_path):
    pairs = strengths(3000)
    judge = python_judge(lambda qs: ["first" if strength(q.first) > strength(q.second) else "second" for q in qs])
    figures = measured(labeller(judge, tmp_path).judged(pairs), golden(pairs))
    right = figures["label_accuracy"]
    assert figures["ece"] < 0.05
    assert cooled(1.0, figures["temperature"]) == pytest.approx(right, abs=0.02)


def test_a_temperature_of_one_changes_nothing_and_a_tie_stays_one():
    assert cooled(0.9, 1.0) == 0.9
    assert cooled(0.5, 3.0) == 0.5
    assert cooled(0.9, 2.0) == pytest.approx(1 / (1 + 9**-0.5))
    assert cooled(0.9, 2.0) + cooled(0.1, 2.0) == pytest.approx(1, abs=1e-12)


def test_nothing_is_asked_twice_not_even_within_one_go(tmp_path):
    seen = []

    def note(questions):
        seen.extend((q.first, q.second) for q in questions)
        return [sure(q) for q in questions]

    pairs = strengths(50)
    first = labeller(python_judge(note), tmp_path)
    made = first([*pairs, *pairs])
    assert len(seen) == 100
    again = labeller(python_judge(note), tmp_path)
    assert again([*pairs, *pairs]) == made
    assert len(seen) == 100
    assert (again.asked.questions, again.asked.known) == (100, 100)
    labeller(python_judge(note, "another"), tmp_path)(pairs[:1])
    labeller(python_judge(note), tmp_path, rubrics=[Rubric.of("be kind")])(pairs[:1])
    assert len(seen) == 104, "another judge or rubric is another question"


def test_one_order_costs_half_and_draws_the_side_from_the_texts(tmp_path):
    pairs = strengths(400)
    shown = []

    def note(questions):
        shown.extend(q.first for q in questions)
        return [sure(q) for q in questions]

    label = labeller(python_judge(note), tmp_path, orders="one")
    there = label(pairs)
    assert len(shown) == 400
    assert 150 < sum(first == p.a for first, p in zip(shown, pairs, strict=True)) < 250
    back = label(swapped(pairs))
    assert len(shown) == 400, "the same question, whichever answer is called a"
    assert [c.preference for c in there] == pytest.approx([1 - c.preference for c in back])
    assert measured(label.judged(pairs), golden(pairs))["position_bias"] is None


def test_all_principles_are_averaged_one_is_drawn_by_the_seed(tmp_path):
    rubrics = [Rubric(name="yes@1", text="yes"), Rubric(name="no@2", text="no")]
    judge = python_judge(lambda qs: [(0.9 if q.first < q.second else 0.1) if q.guide == "yes" else 0.5 for q in qs])
    pairs = [pair(n, "a", "b") for n in range(100)]
    both = labeller(judge, tmp_path, rubrics=rubrics, per_pair="all")
    assert {round(c.preference, 12) for c in both(pairs)} == {0.7}
    assert [row["principle"] for row in both.last[0].to_values(1.0)] == ["yes@1", "no@2"]
    one = labeller(judge, tmp_path, rubrics=rubrics, per_pair="one")
    assert {round(c.preference, 12) for c in one(pairs)} == {0.9, 0.5}


def test_hard_labels_are_choices(tmp_path):
    judge = python_judge(lambda qs: [{"a": 0.6, "b": 0.4}.get(q.first, 0.5) for q in qs])
    label = labeller(judge, tmp_path, labels="hard")
    assert [c.preference for c in label([pair(0, "a", "b"), pair(1, "b", "a"), pair(2, "c", "d")])] == [1.0, 0.0, 0.5]


def test_labels_that_are_all_ties_are_refused(tmp_path):
    for same in (0.5, "tie", "first"):
        label = labeller(python_judge(lambda qs, same=same: [same for _ in qs], str(same)), tmp_path, ties=True)
        with pytest.raises(TrainingError, match="all 10 labels are ties, so there is nothing to learn"):
            label(strengths(10))


def test_a_pair_without_a_verdict_is_left_out_and_counted(tmp_path):
    judge = python_judge(
        lambda qs: ["skip" if "question 3" in q.prompt else 0.5 + 0.2 * (q.first < q.second) for q in qs]
    )
    label = labeller(judge, tmp_path)
    said = []
    label.progress.say = said.append
    assert len(label(strengths(10))) == 9
    assert label.asked.unread == 1
    assert said[-1] == "feedback: 1 of 10 pairs have no verdict and are left out"
    assert measured(label.last, golden(strengths(10)))["golden"] == 9


def test_a_judge_that_answers_nonsense_is_told_and_asked_again_when_put_right(tmp_path):
    dumb = labeller(python_judge(lambda qs: ["skip" for _ in qs]), tmp_path)
    with pytest.raises(TrainingError, match="10 of 10 pairs have no verdict"):
        dumb(strengths(10))
    assert len(labeller(python_judge(lambda qs: [sure(q) for q in qs]), tmp_path)(strengths(10))) == 10


@pytest.mark.parametrize(
    "answer", [None, [0.5], ["first", "third"], [0.5, 1.5], [0.5, True], "first", [0.5, float("nan")]]
)
def test_a_function_that_returns_something_else_is_told_what_to_return(tmp_path, answer):
    from keel.stages.feedback.judges import PythonJudge

    label = labeller(PythonJudge(lambda _: answer, "judges.py:judge", None), tmp_path)
    with pytest.raises(TrainingError, match=r"judges.py:judge returned .*(first|better)"):
        label(strengths(1))


def test_verdicts_are_written_with_the_principle_that_caused_them(tmp_path):
    import json

    label = labeller(python_judge(lambda qs: [0.8 for _ in qs]), tmp_path, rubrics=[Rubric(name="kind@3", text="k")])
    label(strengths(1))
    label.write(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
    assert rows[0] == {
        "prompt": "question 0?",
        "a": rows[0]["a"],
        "b": rows[0]["b"],
        "principle": "kind@3",
        "p_ab": 0.8,
        "p_ba": 0.8,
        "reasons": [],
        "preference": 0.5,
    }
