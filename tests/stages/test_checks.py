from dataclasses import replace
from math import isnan, nan

import pytest

from keel.core.errors import TrainingError
from keel.core.seed import generator
from keel.data.records import Comparison
from keel.demo.judging import HelpDesk
from keel.stages.checks import Answers, PairCheck, choices_of
from keel.stages.functions import load_function
from keel.store.queue import Queue

PROMPTS = [f"Question {i}?" for i in range(40)]
GOOD = [f"A good answer to {i}." for i in range(40)]
BAD = [f"A bad answer to {i}." for i in range(40)]


def answers(texts, scores=()):
    return Answers(texts=texts, finished=[True] * len(texts), scores=scores)


def prefers_good(pairs):
    return [Comparison(p.prompt, p.a, p.b, float("good" in p.a)) for p in pairs]


def prefers_left(pairs):
    return [Comparison(p.prompt, p.a, p.b, 1.0) for p in pairs]


@pytest.fixture
def check(tmp_path):
    return PairCheck(queue=Queue(tmp_path / "judging.sqlite"), run="ppo-1", stage="ppo", seed=3)


def test_a_judge_who_knows_the_better_answer_finds_the_policy_wherever_it_stands(check):
    check = replace(check, judge=prefers_good)
    asked = check.draw(8, PROMPTS, answers(GOOD, [2.0] * 40), answers(BAD, [1.0] * 40))
    assert (asked.pairs, asked.settled, asked.labels_spent, asked.verdict) == (40, 0, 0, None)
    figures = check.read(8).figures()
    assert {name: figures[name] for name in ("verdicts", "wins", "ties", "losses", "labels_spent")} == {
        "verdicts": 40,
        "wins": 40,
        "ties": 0,
        "losses": 0,
        "labels_spent": 40,
    }
    assert figures["win_rate"] == figures["win_rate_high"] == 1.0
    assert figures["win_rate_low"] > 0.5
    assert (figures["proxy_win_rate"], figures["reward_agreement"]) == (1.0, 1.0)


def test_a_judge_who_always_takes_the_left_side_favours_nobody(check):
    check = replace(check, judge=prefers_left)
    check.draw(8, PROMPTS, answers(GOOD), answers(BAD))
    wins = sum(check.read(8).values)
    assert 10 <= wins <= 30  # 40 tosses of a fair coin: 99.9 %
    sides = {question.id: question.left in GOOD for question in check.queue.pending("someone else")}
    assert sum(sides.values()) == wins


def test_the_same_seed_tosses_the_same_sides(check, tmp_path):
    other = replace(check, queue=Queue(tmp_path / "other.sqlite"), run="ppo-2")
    third = replace(check, queue=Queue(tmp_path / "third.sqlite"), seed=4)
    for one in (check, other, third):
        one.draw(8, PROMPTS, answers(GOOD), answers(BAD))
    lefts = [[question.left for question in one.queue.pending()] for one in (check, other, third)]
    assert lefts[0] == lefts[1] != lefts[2]


def test_equal_answers_are_a_tie_and_an_empty_one_loses_without_a_label(check):
    def never_asked_about_these(pairs):
        assert [(p.prompt, {p.a, p.b}) for p in pairs] == [("d", {"x", "y"})]
        return [Comparison(p.prompt, p.a, p.b, 0.5) for p in pairs]

    check = replace(check, judge=never_asked_about_these)
    asked = check.draw(8, list("abcd"), answers(["same", "", "fine", "x"]), answers(["same", "fine", " \n", "y"]))
    assert (asked.pairs, asked.settled) == (1, 3)
    evidence = check.read(8)
    assert evidence.values == [0.5, 0.0, 1.0, 0.5]
    assert evidence.labels_spent == 1
    assert check.queue.pending("ann")[0].prompt == "d"


def test_drawing_again_after_a_kill_asks_the_judge_nothing_twice(check):
    calls = []
    judge = lambda pairs: calls.append(len(pairs)) or prefers_good(pairs)[:30]  # noqa: E731
    check = replace(check, judge=judge)
    for _ in range(2):
        check.draw(8, PROMPTS, answers(GOOD), answers(BAD))
    assert calls == [40, 10]
    assert len(check.read(8).values) == 40


def test_one_step_can_ask_again_about_other_prompts(check):
    keys = []
    judge = lambda pairs: keys.extend(pair.key for pair in pairs) or prefers_good(pairs)  # noqa: E731
    check = replace(check, judge=judge)
    check.draw(8, PROMPTS[:4], answers(GOOD[:4]), answers(BAD[:4]))
    check.draw(8, PROMPTS[4:8], answers(GOOD[4:8]), answers(BAD[4:8]), first=4)
    assert check.read(8).values == [1.0] * 8
    assert len(set(keys)) == 8


def test_late_answers_of_people_are_fresh_at_the_next_reading_and_a_replay_reads_as_before(check):
    check.draw(8, PROMPTS[:3], answers(GOOD[:3], [1.0, 2.0, nan]), answers(BAD[:3], [2.0, 1.0, 0.0]))
    first, second, third = check.queue.pending()
    check.queue.answer(first.id, "ann", "left" if first.left in GOOD else "right")
    check.queue.answer(third.id, "ann", "skip")
    before = check.read(8)
    assert (before.values, before.proxy_win_rate, before.reward_agreement) == ([1.0], 0.0, 0.0)

    check.draw(16, PROMPTS[:1], answers(["z"]), answers(["y"]))
    check.queue.answer(second.id, "ann", "left" if second.left in BAD else "right")
    check.queue.answer(third.id, "ann", "tie")
    after = check.read(16)
    assert (after.values, after.proxy_win_rate, after.reward_agreement) == ([0.0, 0.5], 1.0, 0.0)
    assert after.batches == {8: [1.0, 0.0, 0.5]}
    assert [(judged.step, judged.value) for judged in after.every] == [(8, 1.0), (8, 0.0), (8, 0.5)]
    assert after.labels_spent == 3

    check.queue.answer(first.id, "ann", "tie")
    assert (check.read(8), check.read(16)) == (before, after)
    assert check.read(24).values == []
    assert check.read(24).batches == {8: [0.5, 0.0, 0.5]}
    assert check.draw(16, PROMPTS[:1], answers(["z"]), answers(["y"])).labels_spent == 1


def test_the_majority_of_several_judges_decides_and_half_against_half_is_a_tie(check):
    check.draw(8, PROMPTS[:2], answers(GOOD[:2]), answers(BAD[:2]))
    for question in check.queue.pending():
        good, bad = ("left", "right") if question.left in GOOD else ("right", "left")
        for judge, choice in [("ann", good), ("bob", bad)]:
            check.queue.answer(question.id, judge, choice)
    check.queue.answer(question.id, "cyd", good)
    evidence = check.read(8)
    assert evidence.values == [0.5, 1.0]
    assert evidence.labels_spent == 5


def test_without_verdicts_the_figures_are_nan_and_old_pairs_that_wait_are_said_aloud(check):
    check.draw(8, PROMPTS[:2], answers(GOOD[:2]), answers(BAD[:2]))
    figures = check.read(8).figures()
    assert (figures["verdicts"], figures["labels_spent"]) == (0, 0)
    assert isnan(figures["win_rate"])
    assert isnan(figures["proxy_win_rate"])
    assert isnan(figures["reward_agreement"])
    assert check.read(8).verdict is None  # nobody has had the time yet
    verdict = check.read(16).verdict
    assert (verdict.level, verdict.rule) == ("watch", "judges_silent")
    assert verdict.message == "2 pairs wait for a judge since an earlier check, and none has an answer."


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise OSError('the service is away')", "judge.py, line 2 (OSError: the service is away)."),
        ("return []", "It returned an empty list."),
    ],
)
def test_a_judge_that_raises_or_says_nothing_does_not_end_the_run(check, tmp_path, body, said):
    (tmp_path / "judge.py").write_text(f"def label(pairs):\n    {body}\n")
    check = replace(check, judge=load_function("judge.py:label", "guardian.judge", tmp_path))
    verdict = check.draw(8, PROMPTS, answers(GOOD), answers(BAD)).verdict
    assert (verdict.level, verdict.rule, verdict.figures) == ("watch", "judge_failed", {"pairs": 40})
    assert verdict.message.startswith("The judge gave no verdict on 40 pairs. ")
    assert verdict.message.endswith(said)
    assert check.read(8).values == []
    assert len(check.queue.pending()) == 40


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        (lambda pairs: "left", r"guardian.judge returned 'left'. Return a list of at most one"),
        (lambda pairs: [1], r"guardian.judge returned 1, which is no Comparison"),
        (lambda pairs: [Comparison("?", "a", "b", 2.0)], "preference between 0 and 1"),
        (lambda pairs: prefers_good(pairs) * 2, "returned 80 comparisons for 40 pairs"),
        (lambda pairs: [Comparison("?", "x", "y", 1.0)], "a comparison of 'x' and 'y', which it was not asked about"),
        (lambda pairs: [prefers_good(pairs)[0]] * 2, "or not so often"),
    ],
)
def test_a_judge_that_returns_something_else_is_told_what_was_expected(check, judge, said):
    check = replace(check, judge=judge, setting="guardian.judge")
    with pytest.raises(TrainingError, match=said):
        check.draw(8, PROMPTS, answers(GOOD), answers(BAD))
    assert check.read(8).values == []


def test_comparisons_may_come_in_any_order_and_either_way_round_also_where_texts_repeat(check):
    check.draw(8, ["p", "q", "r"], answers(["yes", "yes", "no"]), answers(["no", "no", "yes"]))
    questions = check.queue.pending()
    records = [
        Comparison("q", "no", "yes", 0.1),
        Comparison("r", "yes", "no", 0.7),
        Comparison("p", "no", "yes", 0.5),
    ]
    chosen = choices_of(records, questions, "judge")
    by_prompt = {question.prompt: (question, chosen[question.id]) for question in questions}
    assert by_prompt["p"][1] == "tie"
    for prompt in "qr":
        question, choice = by_prompt[prompt]
        assert getattr(question, choice) == "yes"


def test_the_demos_panel_prefers_the_crowds_answers_to_stammering(check):
    desk = HelpDesk(0)
    questions = desk.world.eval_questions[:20]
    check = replace(check, judge=desk.label, judge_name="panel")
    written = [desk.world.demonstration(question, generator(0, question.text)) for question in questions]
    asked = check.draw(4, [q.prompt for q in questions], answers(written), answers(["No. No. No. No. No."] * 20))
    assert asked.pairs == 20
    evidence = check.read(4)
    assert evidence.labels_spent == 20
    assert sum(evidence.values) > 15
