"""A KL that takes off, and one that has reason to."""

import pytest

from keel.monitor.drift import kl_runaway
from keel.monitor.history import History


def taking_off(score_per_nat):
    """The KL rises by 0.2 nats an update, then by 1; a nat pays one point of score, then `score_per_nat`."""
    rows, kl, score = [], 0.0, 0.0
    for step in range(16):
        moved = 0.2 if step < 12 else 1.0
        kl, score = kl + moved, score + moved * (1.0 if step < 12 else score_per_nat)
        rows.append({"kl_nats_per_sequence": kl, "score_mean": score})
    return History.of(rows)


def test_a_kl_that_takes_off_is_no_sign_while_a_nat_buys_as_much_as_before():
    assert kl_runaway(taking_off(0.9)).level == "ok"
    found = kl_runaway(taking_off(0.4))
    assert found.level == "act"
    assert found.figures["kl_yield"] == pytest.approx(0.4, rel=0.25)


def test_a_kl_that_takes_off_is_a_sign_where_scores_are_not_known():
    rows = [{"kl_nats_per_sequence": row["kl_nats_per_sequence"]} for row in taking_off(0.9).steps.rows]
    assert kl_runaway(History.of(rows)).level == "act"
