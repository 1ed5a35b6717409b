"""Faults are planted into the product, one at a time; the suite has to notice (SCIENCE T2)."""

from pathlib import Path

import pytest
from helpers.exact_online import tabular
from helpers.mutants import CHECKS, MUTANTS, SURVIVORS, Mutant, planted

NOTICED = 0.03
"""Nats per response from the best policy, after a run that without a fault ends within 0.017."""
RUNS = {
    "ppo": {"updates": 70},
    "rloo": {"updates": 100},
    "ppo warm": {"updates": 100, "temperature": 0.7},
    "rloo warm": {"updates": 100, "temperature": 0.7},
    "reinforce_pp": {"updates": 120},
    "online_dpo": {"updates": 100},
    "online_dpo warm": {"updates": 120, "temperature": 0.7},
}


def distance(run: str) -> float:
    """KL to the best policy after a short run."""
    return tabular(run.split()[0], **RUNS[run]).kl_to_best


def notices(mutant: Mutant) -> str | None:
    """What notices the fault, or None."""
    with planted(mutant):
        if mutant.run:
            found = distance(mutant.run)
            return f"{found:.2f} nats from the best policy" if found > NOTICED else None
        for check in CHECKS:
            try:
                check.run()
            except AssertionError:
                return check.name
    return None


@pytest.mark.parametrize("run", RUNS)
def test_the_runs_pass_without_a_fault(run):
    assert distance(run) <= 0.02


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_the_checks_pass_without_a_fault(check):
    check.run()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_fault_is_noticed(mutant):
    assert (notices(mutant) is None) == (mutant.name in SURVIVORS)


def test_the_page_names_every_fault_and_every_survivor():
    page = (Path(__file__).parents[2] / "docs" / "exactness.md").read_text(encoding="utf-8")
    assert [m.name for m in MUTANTS if f"| {m.name} |" not in page] == []
    assert f"with {len(MUTANTS)} faults" in page
    assert f"**Survivors: {', '.join(sorted(SURVIVORS)) or 'none'}.**" in page


def test_of_twenty_faults_at_most_one_survives():
    assert {mutant.name for mutant in MUTANTS} >= SURVIVORS
    assert len(MUTANTS) >= 40
    print(f"{len(MUTANTS)} faults, survivors: {sorted(SURVIVORS) or 'none'}")  # noqa: T201
    assert len(SURVIVORS) <= 0.05 * len(MUTANTS)
