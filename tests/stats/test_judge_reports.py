"""Judges against golden answers, by hand and on the real verdicts of LLMBar."""

import gzip
import json

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from keel.core.errors import DataError
from keel.data.judge_files import judge_reports
from keel.stats.judges import TIE, A, B, judge_report


def test_a_worked_example():
    gold = [A, A, B, B, TIE]
    first = [A, B, B, A, TIE]
    swapped = [A, B, A, TIE, A]
    report = judge_report(gold, first, swapped)
    # Right: both; neither; one; half (a tie where b is better); one (the tie).
    assert report.accuracy.value == pytest.approx((2 + 0 + 1 + 0.5 + 1) / 10)
    assert report.consistency.value == pytest.approx(2 / 5)
    # For the first shown: a then b. Pair 3: b, then a: twice the second. Pair 4: a, then a tie. Pair 5: tie, then a.
    assert report.position_bias.value == pytest.approx((0 + 0 - 1 + 0.5 - 0.5) / 5)
    assert report.kappa.value == pytest.approx(cohen_kappa_score(gold * 2, first + swapped))
    assert (report.num_items, report.num_verdicts, report.num_both) == (5, 10, 5)


def test_missing_verdicts_and_missing_gold_count_where_they_can():
    report = judge_report([A, B, -1], [A, -1, B], [-1, B, B])
    assert report.accuracy.value == 1
    assert (report.num_items, report.num_verdicts, report.num_both) == (2, 2, 1)
    assert report.consistency.value == 1  # the pair without a golden answer
    nothing = judge_report([], [], [])
    assert np.isnan(nothing.accuracy.value)
    assert nothing.flags == ()


def test_a_fair_judge_is_not_flagged_and_a_biased_one_is():
    rng = np.random.default_rng(0)
    flagged = []
    for pull in (0.0, 0.3):
        gold = rng.choice([A, B], size=200)
        right = np.where(rng.random((2, 200)) < 0.85, gold, 2 - gold)
        lured = rng.random((2, 200)) < pull
        first, swapped = np.where(lured[0], A, right[0]), np.where(lured[1], B, right[1])
        flagged.append(judge_report(gold, first, swapped).flags)
    assert flagged[0] == ()
    assert "favours the answer shown first" in flagged[1][0]


def test_intervals_cover_and_keep_the_two_verdicts_on_a_pair_together():
    rng = np.random.default_rng(1)
    gold = rng.choice([A, B], size=150)
    said = np.where(rng.random(150) < 0.8, gold, 2 - gold)
    once, twice = judge_report(gold, said), judge_report(gold, said, said)
    assert twice.accuracy.high - twice.accuracy.low == pytest.approx(once.accuracy.high - once.accuracy.low, rel=0.05)


def test_codes_of_the_wrong_form_are_refused():
    with pytest.raises(DataError, match="verdict must hold 0"):
        judge_report([A], [3])
    with pytest.raises(DataError, match="One code a pair"):
        judge_report([A], [A, B])


def test_llmbar_judges_are_right_and_consistent_as_counted_by_hand(shared_data):
    folder = shared_data / "llmbar"
    rows = {}
    for name in ("judge_verdicts", "pairs"):
        with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows[name] = [json.loads(line) for line in lines]
    gold = {row["id"]: row["preference"] for row in rows["pairs"]}
    reading = judge_reports(str(folder / "judge_verdicts.jsonl.gz"), str(folder / "pairs.jsonl.gz"))
    assert len(reading.reports) == 65
    assert reading.num_items == 314
    for report in reading.reports:
        mine = [row for row in rows["judge_verdicts"] if row["judge"] == report.judge]
        said = [(gold[row["id"]], row.get(name)) for row in mine for name in ("verdict", "verdict_swapped")]
        right = [truth == verdict for truth, verdict in said if verdict]
        assert report.accuracy.value == pytest.approx(np.mean(right), abs=1e-12)
        pairs = [(row["verdict"], row.get("verdict_swapped")) for row in mine]
        pairs = [(v, s) for v, s in pairs if v and s]
        if pairs:
            assert report.consistency.value == pytest.approx(np.mean([v == s for v, s in pairs]), abs=1e-12)
            first = [(v == "a") - (v == "b") + (s == "b") - (s == "a") for v, s in pairs]
            assert report.position_bias.value == pytest.approx(np.mean(first) / 2, abs=1e-12)
    known = {report.judge: report for report in reading.reports}
    careful, hasty = known["GPT-4/Vanilla"], known["Falcon/CoT"]
    assert (round(careful.accuracy.value, 3), round(careful.consistency.value, 3)) == (0.828, 0.917)
    assert (round(hasty.accuracy.value, 3), round(hasty.consistency.value, 3)) == (0.521, 0.131)
    assert careful.flags == ()
    assert "favours the answer shown first, by 86 points" in hasty.flags[0]


def test_gpt4_on_mtbench_is_held_against_the_majority_of_people(shared_data):
    (report,) = judge_reports(str(shared_data / "mtbench-votes/votes.jsonl.gz"), None).reports
    assert report.judge == "gpt4_pair"
    assert report.num_items == 1211
    assert report.accuracy.value == pytest.approx(0.785, abs=5e-4)
    assert 0.5 < report.kappa.value < 0.7
    assert np.isnan(report.consistency.value)
