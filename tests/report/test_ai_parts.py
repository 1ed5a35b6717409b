"""What the report says of an AI judge and of a constitution."""

import pytest

from keel.core.events import EventLog
from keel.report.ai_parts import constitution_section, judge_section
from keel.report.read import read_run

JUDGE = {
    "golden": 120,
    "label_kappa": 0.52,
    "label_kappa_low": 0.4,
    "label_kappa_high": 0.63,
    "label_accuracy": 0.76,
    "accuracy": 0.74,
    "same_in_both_orders": 0.8,
    "position_bias": 0.12,
    "temperature": 2.4,
    "ece_before": 0.141,
    "ece": 0.036,
    "questions": 240,
    "usd": 1.5,
    "bins": [{"low": 0.5, "high": 0.6, "count": 9, "mean_probability": 0.55, "mean_label": 0.5}],
}


@pytest.fixture
def read(tmp_path):
    def told(stages):
        log = EventLog(tmp_path / "events.jsonl")
        for stage, metrics in stages.items():
            log.append("stage_started", stage=stage, config={})
            log.append("stage_finished", stage=stage, seconds=1.0, reused=False, metrics=metrics)
        return read_run(tmp_path)

    return told


def test_a_judge_is_shown_with_its_agreement_side_calibration_and_cost(read):
    page = judge_section(read({"judge": JUDGE, "labels 0": {"questions": 1000, "usd": 3.0}}))
    for text in ("0.52 (0.40 to 0.63)", "120 golden", "+0.12", "0.141 → 0.036", "1,240 questions", "$4.50", "<svg"):
        assert text in page, text


def test_a_judge_asked_in_one_order_has_no_pull_and_no_consistency(read):
    page = judge_section(read({"judge": {**JUDGE, "position_bias": None, "same_in_both_orders": None}}))
    assert "pull to" not in page
    assert "same verdict" not in page
    assert "nan" not in page


def test_a_constitution_is_shown_with_what_each_principle_did(read):
    revised = {"prompts": 40, "changed": 0.65, "principles": {"kind@2": 22, "<b>@1": 18}}
    learned = {"perplexity_before": 12.0, "perplexity": 8.5}
    page = constitution_section(read({"revisions": revised, "constitution": learned}))
    for text in ("40 answers", "65.0 %", "kind@2", "22", "12.00 before learning them, 8.50 after"):
        assert text.replace(" %", "\u00a0%") in page or text in page, text
    assert "<b>@1" not in page


def test_runs_without_an_ai_say_nothing_of_one(read):
    run = read({"sft": {}})
    assert judge_section(run) == constitution_section(run) == ""
