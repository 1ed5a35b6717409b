"""What a letter may advise exists, and every rule has something to advise."""

import re

import pytest

from keel.core.config import fields_of
from keel.diagnose.moves import CALLED_FOR, DEFAULT_MOVES, HEALTHY_MOVES, MOVES, NAMES
from keel.diagnose.prescription import BACK_OFF
from keel.diagnose.read import DIALECTS
from keel.diagnose.rulebook import COUNTERPARTS, RULES
from keel.diagnose.settings import VOCABULARIES, Setting
from keel.monitor import rules as monitor
from keel.monitor.history import History
from keel.monitor.thresholds import DEFAULT
from keel.stages.recipe import Recipe

KIND_OF = {
    "keel-ppo": "rl",
    "keel-reward": "reward",
    "keel-prefer": "preference",
    "keel-sft": "sft",
    **{dialect.settings: dialect.kind for dialect in DIALECTS},
}


def test_every_key_of_a_recipe_that_is_advised_exists():
    known = {doc.name for doc in fields_of(Recipe)}
    for vocabulary in (v for name, v in VOCABULARIES.items() if name.startswith("keel-")):
        for setting in vocabulary.values():
            for algorithm in ("ppo", "rloo", "grpo"):
                name = setting.name.replace("{algorithm}", algorithm)
                assert name in known, name


def test_every_move_is_one_that_is_explained():
    named = {move for table in (CALLED_FOR, DEFAULT_MOVES, HEALTHY_MOVES) for moves in table.values() for move in moves}
    named |= {move for vocabulary in VOCABULARIES.values() for move in vocabulary}
    assert named - set(BACK_OFF.values()) <= set(MOVES)


@pytest.mark.parametrize("kind", RULES)
def test_every_rule_has_a_name_and_moves(kind):
    rules = {rule(History(), DEFAULT).rule for rule in RULES[kind]}
    assert rules <= set(NAMES)
    assert rules <= set(CALLED_FOR)


def test_every_rule_of_the_monitor_has_a_name_and_moves_of_a_recipe():
    spoken = {rule(History(), DEFAULT).rule for rule in monitor.RULES.values()} | {"kl_per_sequence", "kl_finite"}
    assert spoken <= set(NAMES)
    for rule in spoken:
        assert any(move in VOCABULARIES["keel-ppo"] for move in CALLED_FOR[rule]), rule


def test_counterparts_are_rules_of_the_monitor():
    assert set(COUNTERPARTS) == set(RULES["rl"])
    assert {name for names in COUNTERPARTS.values() for name in names} <= set(monitor.RULES)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_every_tool_has_three_settings_to_offer_whatever_is_wrong_and_when_nothing_is(vocabulary):
    settings, kind = VOCABULARIES[vocabulary], KIND_OF[vocabulary]
    for rule in RULES[kind]:
        moves = [*CALLED_FOR[rule(History(), DEFAULT).rule], *DEFAULT_MOVES[kind]]
        assert len({settings[move].name for move in moves if move in settings}) >= 2, rule
    assert any(move in settings for move in HEALTHY_MOVES[kind])


def test_a_new_value_follows_from_the_old_one_where_that_is_known():
    setting = Setting("beta", 2.0, to="0.04", default=0.1, highest=0.5)
    assert setting.change({"beta": 0.1}, "ppo") == (0.1, "0.2")
    assert setting.change({"beta": 0.4}, "ppo") == (0.4, "0.5")
    assert setting.change({"beta": 0}, "ppo") == (0.0, "0.04")
    assert setting.change({"beta": None}, "ppo") == (None, "0.04")
    assert setting.change({}, "ppo") == (None, "double it (the default is 0.1)")


def test_a_value_that_has_nowhere_to_go_is_no_advice():
    warmer = Setting("temperature", 1.5, highest=1.2)
    assert warmer.change({"temperature": 1.5}, "ppo") == (1.5, "")
    assert warmer.change({"temperature": 1.2}, "ppo") == (1.2, "")
    assert warmer.change({"temperature": 1.0}, "ppo") == (1.0, "1.2")
    assert Setting("epochs", 0.5, whole=True).change({"epochs": 1}, "ppo") == (1.0, "")
    assert Setting("kl", 0.5, to="0.02").change({"kl": 0}, "ppo") == (0.0, "")


def test_what_a_run_does_already_is_no_advice():
    clean = VOCABULARIES["keel-reward"]["clean"]
    assert clean.change({"krippendorff_alpha": 0.56}, "ppo") == (None, "")
    assert clean.change({"krippendorff_alpha": 0.3}, "ppo")[1].startswith("null, and votes of two raters")
    assert clean.change({"krippendorff_alpha": None}, "ppo")[1].startswith("null, and votes of two raters")
    critic = VOCABULARIES["keel-ppo"]["no_critic"]
    assert critic.change({"algorithm": "rloo"}, "rloo") == (None, "")
    assert critic.change({"algorithm": "ppo"}, "ppo") == (None, "rloo")


def test_a_flag_of_openrlhf_is_written_as_one():
    for name, vocabulary in VOCABULARIES.items():
        if name.startswith("openrlhf"):
            for setting in vocabulary.values():
                assert re.fullmatch(r"--[a-z_.0-9]+", setting.name)
                assert not setting.formerly or re.fullmatch(r"--[a-z_]+", setting.formerly)
