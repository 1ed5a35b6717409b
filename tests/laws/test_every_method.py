"""No method without its laws, its one-file reference and its page, and all of them stay small."""

import inspect
import re
from pathlib import Path
from typing import get_args

import pytest
from helpers.benches import BENCHES, ONLINE, PREFERENCE

from keel.algorithms import grpo, kto, online_dpo, preference, reinforce_pp, rloo, settings
from keel.functional import advantages, preference_losses
from keel.stages.sections.prefer import PreferConfig
from keel.stages.sections.rl import RLConfig

ROOT = Path(__file__).parents[2]
WORDS = [word for kind in (RLConfig, PreferConfig) for word in get_args(kind.model_fields["algorithm"].annotation)]
FEATURES = {
    "rloo": (rloo, settings.RLOOConfig, advantages.leave_one_out),
    "grpo": (grpo, settings.GRPOConfig, advantages.group_centred, advantages.group_normalised),
    "reinforce_pp": (reinforce_pp, settings.ReinforcePPConfig, advantages.reward_to_go),
    "online_dpo": (online_dpo, settings.OnlineDPOConfig),
    "ipo": (settings.IPOConfig, preference_losses.ipo),
    "simpo": (settings.SimPOConfig, preference_losses.simpo),
    "orpo": (settings.ORPOConfig, preference_losses.log_odds, preference_losses.orpo),
    "kto": (kto, settings.KTOConfig, preference_losses.kto),
    "all of those on pairs": (preference,),
}
"""What each method beside PPO and DPO has of its own: module, settings, functions."""


def written(text: str) -> int:
    """Lines that are not blank."""
    return sum(bool(line.strip()) for line in text.splitlines())


@pytest.mark.parametrize("word", WORDS)
def test_every_method_stands_in_every_law_and_has_a_reference_and_a_page(word):
    """The laws on splitting, nan and resuming run over all benches, those on learning over ONLINE, PREFERENCE and kto."""
    assert word in {name.split()[0] for name in BENCHES}
    assert word in {name.split()[0] for name in (*ONLINE, *PREFERENCE, "kto")}
    assert (ROOT / "examples" / "from_scratch" / f"{word}.py").is_file()
    page = word.replace("_", "-")
    assert (ROOT / "docs" / f"{page}.md").is_file()
    assert f"({page}.md)" in (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FEATURES)
def test_a_method_adds_less_than_a_hundred_lines(name):
    assert sum(written(inspect.getsource(part)) for part in FEATURES[name]) < 100


def test_all_methods_together_are_as_small_as_their_page_says():
    source = ROOT / "src" / "keel"
    files = [*(source / "algorithms").glob("*.py")]
    files += [source / "functional" / f"{name}.py" for name in ("advantages", "policy_losses", "preference_losses")]
    count = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
    assert count < 1200
    said = re.search(r"([\d,]+) lines", (ROOT / "docs" / "methods.md").read_text(encoding="utf-8"))
    assert said is not None
    assert int(said[1].replace(",", "")) == pytest.approx(count, rel=0.01)
