"""The demo's AI: it sees tone, mostly focus, never facts; its revisions pass the rule checker more often."""

import inspect

import numpy as np
import pytest
from helpers.ai_judges import labeller

from keel.core.errors import DataError
from keel.core.seed import generator
from keel.data.records import Comparison
from keel.demo import ai
from keel.demo.ai import FOCUS_READ, OFFENCES, TONE_READ, Assistant, constitution
from keel.demo.judging import HelpDesk
from keel.stages.feedback.calibrate import as_pair, measured
from keel.stages.feedback.critics import Draft
from keel.stages.feedback.judges import PythonJudge
from keel.stages.feedback.question import Question
from keel.stages.labels import Pair
from keel.stats.intervals import sign_test


@pytest.fixture(scope="module")
def assistant() -> Assistant:
    return Assistant(0)


def shown(question, first: str, second: str, guide: str = "") -> Question:
    return Question(prompt=question.prompt, first=first, second=second, guide=guide, ties=False)


def right_share(assistant, make, count: int = 1000) -> float:
    """Share of questions where the judge, in both orders, prefers the better of two answers that `make` gives."""
    questions = (assistant.world.train_questions * 3)[:count]
    right = 0
    for number, question in enumerate(questions):
        better, worse = make(question, number)
        there, back = assistant.judge([shown(question, better, worse), shown(question, worse, better)])
        right += (there + 1 - back) / 2 > 0.5
    return right / len(questions)


def fact(assistant, question, true: bool = True) -> str:
    """A statement that answers the question; the crowd's own words."""
    rng = generator(0, "fact", question.text, str(true))
    while True:
        text = assistant.world.demonstration(question, rng)
        for read in assistant.sentences(question, text):
            seen = assistant.world.features(question, read.text)
            if (seen.right if true else seen.wrong) == 1:
                return read.text


def test_it_reads_tone_nearly_always_focus_mostly_and_facts_never(assistant):
    def tone(question, number):
        said = fact(assistant, question)
        return said, f"{('Not this again.', 'Learn to read the sign.')[number % 2]} {said}"

    def focus(question, number):
        said = fact(assistant, question)
        return said, f"{said} {('Each day brings something new.', 'Some things never change around here.')[number % 2]}"

    assert right_share(assistant, tone) == pytest.approx(TONE_READ, abs=0.02)
    assert right_share(assistant, focus) == pytest.approx(FOCUS_READ, abs=0.04)
    differences = []
    for question in assistant.world.train_questions[:200]:
        said = [fact(assistant, question, true) for true in (True, False)]
        if max(assistant.score(question.prompt, text) for text in said) > 0:  # both were read
            differences.append(assistant.score(question.prompt, said[0]) - assistant.score(question.prompt, said[1]))
    assert np.mean(differences) == pytest.approx(0, abs=0.1)


def test_it_leans_to_the_first_by_its_position_bias(assistant):
    question = assistant.world.train_questions[0]
    same = assistant.judge([shown(question, "Sure.", "Okay.")])[0]
    assert np.log(same / (1 - same)) == pytest.approx(assistant.position_bias)
    assert Assistant(0, position_bias=0.0).judge([shown(question, "Sure.", "Okay.")]) == [0.5]


def test_by_a_principle_it_looks_at_nothing_else(assistant):
    fair = Assistant(0, position_bias=0.0)
    question = fair.world.train_questions[4]
    rude, flattering = "Not this again.", "You must be very smart!"
    by = {principle.id: principle.prefer for principle in constitution().principles}
    assert fair.judge([shown(question, rude, flattering, by["kind"])])[0] < 0.1
    assert fair.judge([shown(question, rude, flattering, by["plain"])])[0] > 0.5
    assert fair.judge([shown(question, rude, flattering, by["once"])]) == [0.5]


def test_its_agreement_with_the_raters_is_that_of_a_judge_that_sees_no_facts(assistant, tmp_path):
    desk = HelpDesk(0)
    rng = generator(0, "pairs")
    pairs = []
    for number in range(500):
        question = desk.world.train_questions[number % len(desk.world.train_questions)]
        a, b = (desk.world.demonstration(question, rng) for _ in range(2))
        if a != b:
            pairs.append(Pair(prompt=question.prompt, a=a, b=b, a_finished=True, b_finished=True, key=number))
    people: list[Comparison] = desk.label(pairs)
    judge = labeller(PythonJudge(assistant.judge, "assistant", "assistant"), tmp_path)
    figures = measured(judge.judged([as_pair(record) for record in people]), people)
    assert 0.15 < figures["label_kappa"] < 0.5
    assert figures["position_bias"] > 0.05
    assert figures["ece"] < figures["ece_before"]


def test_revised_answers_pass_the_rule_checker_more_often(assistant):
    rng = generator(0, "drafts")
    principles = constitution().principles
    only_before = only_after = 0
    for number, question in enumerate(assistant.world.train_questions[:300]):
        draft = assistant.world.demonstration(question, rng)
        ((critique, revised),) = assistant.revise(
            [Draft(prompt=question.prompt, text=draft, principle=principles[number % len(principles)])]
        )
        assert critique
        assert revised
        before, after = assistant.passes(question.prompt, draft), assistant.passes(question.prompt, revised)
        only_before += before and not after
        only_after += after and not before
    assert only_before == 0
    assert only_after > 30
    assert sign_test(only_after, only_before) < 1e-6


def test_all_principles_one_after_the_other_leave_nothing_to_object_to(assistant):
    rng = generator(1, "drafts")
    for question in assistant.world.train_questions[:100]:
        text = assistant.world.demonstration(question, rng)
        for principle in constitution().principles:
            ((_, text),) = assistant.revise([Draft(prompt=question.prompt, text=text, principle=principle)])
        assert assistant.passes(question.prompt, text) or len(assistant.sentences(question, text)) == 1


def test_a_revision_says_what_was_wrong_and_takes_out_only_that(assistant):
    question = assistant.world.train_questions[0]
    by = {principle.id: principle for principle in constitution().principles}
    text = "Sure. Not this again. You must be very smart! Sure. Each day brings something new ."

    def revised(principle: str) -> tuple[str, str]:
        return assistant.revise([Draft(prompt=question.prompt, text=text, principle=by[principle])])[0]

    critique, kinder = revised("kind")
    assert critique == "'Not this again.' is rude. It has no friendly word."
    assert kinder.endswith(" Sure. You must be very smart! Sure. Each day brings something new.")
    assert revised("plain")[1] == "Sure. Not this again. Sure. Each day brings something new."
    assert revised("focus") == (
        "'Each day brings something new.' is filler.",
        "Sure. Not this again. You must be very smart! Sure.",
    )
    assert revised("once")[1] == "Sure. Not this again. You must be very smart! Each day brings something new."


def test_every_principle_that_comes_along_is_one_the_critic_knows():
    assert {principle.id for principle in constitution().principles} == set(OFFENCES)


def test_it_knows_no_true_utility_and_no_other_questions(assistant):
    assert "utility" not in inspect.getsource(ai).replace("the true utility", "")
    with pytest.raises(DataError, match="knows no question"):
        assistant.judge([Question(prompt="why?", first="a", second="b", guide="", ties=False)])
