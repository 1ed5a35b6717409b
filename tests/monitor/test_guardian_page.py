"""The page on the guardian: its code runs, its table is complete, its numbers are those of the source."""

import re
from math import exp, log

import pytest
from helpers.pages import follow, named

from keel.monitor.guardian import ALONE, DOUBT, HACKING, MOST, PRIOR, SURE_ENOUGH
from keel.monitor.rules import FAMILIES, RULES
from keel.monitor.thresholds import Thresholds

PAGE = named("guardian.md")
ROWS = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", PAGE, re.MULTILINE))


def test_the_code_of_guardian_md_prints_what_it_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    follow(PAGE)


def test_every_rule_stands_in_the_table_with_its_family():
    assert {rule: family for rule, family in ROWS.items() if rule in RULES} == dict(FAMILIES)


@pytest.mark.parametrize("rule", RULES)
def test_every_line_of_a_rule_is_a_threshold(rule):
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{rule}` |")]
    lines = re.findall(r"`(\w+_(?:watch|act|stop|updates|ratio|verdicts|saturated|correlation))`", row)
    known = set(Thresholds.model_fields) | {"length_reward_correlation"}
    assert set(lines) <= known


def test_every_line_of_the_guardian_stands_beside_a_rule():
    own = list(Thresholds.model_fields)
    own = own[own.index("kl_runaway_updates") :]
    assert [name for name in own if f"`{name}`" not in PAGE] == []


def test_the_numbers_of_the_weighing_are_those_of_the_source():
    def chance(*confidences):
        return f"{1 / (1 + exp(-PRIOR - sum(log(p / (1 - p)) for p in confidences))):.0%}".replace("%", " %")

    text = " ".join(PAGE.split())
    assert f"Before any evidence they are {PRIOR:.0f}: one in twenty." in text
    assert 0.04 < 1 / (1 + exp(-PRIOR)) < 0.06
    assert f"at most log 99 = {MOST:.1f}" in text
    assert f"one sign alone, however loud, reaches {chance(0.99)}" in text
    assert (
        f"each 95 % sure, reach {chance(0.95, 0.95)}, and the guardian goes back at {SURE_ENOUGH:.0%}"
        in text.replace(f"{SURE_ENOUGH * 100:.0f} %", f"{SURE_ENOUGH:.0%}")
    )
    assert f"| `ask_humans` | {DOUBT * 100:.0f} % sure or more" in text
    for rule in ALONE:
        assert f"`{rule}`" in text[text.index("Some verdicts read a line") : text.index("The family *training*")]
    assert sorted(re.findall(r"\*(\w+)\*", text[text.index("The families *drift*") :].split(".")[0])) == sorted(HACKING)
