import json
from decimal import Decimal

import numpy as np
import pytest

from keel.annotate.forecast import affordable_pairs, budget, forecast
from keel.core.errors import DataError
from keel.store.settings import ProjectSettings

SETTINGS = ProjectSettings()
DAY = 86_400.0


def test_a_budget_to_the_cent():
    # 1,000 pairs x 3 votes; 3,000 / .92 tasks, so ceil(3,000 x .05 / .92) = 164 golden and ceil(3,000 x .03 / .92) = 98
    # repeats; 2 rounds x 50 x 8 raters = 800; 100 disputes: 4,162 judgments at $0.10
    plan = budget(1000, 8, SETTINGS)
    parts = (plan.judge, plan.golden, plan.repeat, plan.calibration, plan.adjudicate)
    assert parts == (3000, 164, 98, 800, 100)
    assert plan.judgments == 4162
    assert (plan.usd_total, plan.usd_per_pair) == (416.20, 0.42)
    assert plan.calibration_share == pytest.approx(800 / 4162)
    assert json.loads(json.dumps(plan.to_dict()))["judgments"] == 4162
    assert plan.usd == {"judge": 300.0, "calibration": 80.0, "golden": 16.4, "repeat": 9.8, "adjudicate": 10.0}


@pytest.mark.parametrize(("price", "total"), [(0.10, 30.0), (0.155, 46.5), (0.333, 99.9), (0.005, 1.5), (0.0005, 0.15)])
def test_only_the_total_is_rounded(price, total):
    plain = ProjectSettings(golden_share=0, repeat_share=0, adjudicate=False, usd_per_judgment=price)
    assert budget(100, 1, plain, rounds=0).usd_total == total


def test_thirty_per_cent_of_disputes_in_ten_pairs_are_three():
    assert budget(10, 1, SETTINGS, dispute_share=0.3).adjudicate == 3


@pytest.mark.parametrize("usd", [0.0, 50.0, 416.2, 1234.56])
def test_what_a_budget_buys_can_be_paid_and_one_pair_more_cannot(usd):
    pairs = affordable_pairs(usd, SETTINGS)

    def cost(count):
        plan = budget(count, 1, SETTINGS, rounds=0, dispute_share=0)
        return Decimal(str(plan.usd_total))

    share = Decimal(str(usd)) * Decimal("0.75")
    assert pairs == 0 or cost(pairs) <= share
    assert cost(pairs + 1) > share


def test_impossible_plans_are_refused():
    with pytest.raises(DataError, match="No budget for 0 pairs"):
        budget(0, 3, SETTINGS)
    with pytest.raises(DataError, match="leave no room for votes"):
        budget(5, 3, ProjectSettings(golden_share=0.5, repeat_share=0.5))
    with pytest.raises(DataError, match="buy no number of pairs"):
        affordable_pairs(10, ProjectSettings(usd_per_judgment=0))


def told(times, now, votes_left=300, **more):
    return forecast(times, now=now, num_pairs=200, votes_left=votes_left, num_paid=320, settings=SETTINGS, **more)


def test_a_steady_room_finishes_when_it_should():
    # 100 votes a day in a sitting of a vote a minute, ten days: 300 left take three days
    times = [day * DAY + minute * 60.0 for day in range(10) for minute in range(100)]
    found = told(times, now=10 * DAY)
    assert found.finish.at == pytest.approx(13 * DAY)
    assert found.finish.low == pytest.approx(13 * DAY)
    assert found.finish.high == pytest.approx(13 * DAY)
    assert found.pairs_per_hour == pytest.approx(60 / 3)
    # 300 votes bring 17 golden items and 10 repeats
    assert (found.usd_spent, found.usd_total, found.usd_per_pair) == (32.00, 64.70, 0.32)
    json.dumps(found.to_dict(), allow_nan=False)


def test_uneven_days_widen_the_interval_and_it_holds_the_truth():
    rng, hits, widths = np.random.default_rng(0), [], []
    for seed in range(60):
        counts = rng.poisson(rng.gamma(2, 50, size=44))
        times = np.concatenate([day * DAY + np.sort(rng.uniform(0, 0.3 * DAY, n)) for day, n in enumerate(counts)])
        found = told(times[times < 14 * DAY], 14 * DAY, votes_left=1000, seed=seed).finish
        done = times[times > 14 * DAY][999]
        hits.append(found.low <= done <= (found.high or np.inf))
        widths.append((found.high - found.low) / DAY)
    assert np.mean(hits) >= 0.75
    assert np.median(widths) > 3


def test_who_may_never_finish_has_no_latest_day():
    found = told([0.0, 10.0, 20.0], now=40 * DAY)
    assert found.finish.high is None
    assert found.finish.at > 40 * DAY


@pytest.mark.parametrize(
    ("times", "now", "left"), [([], DAY, 5), ([0.0], DAY, 5), ([0.0, 60.0], 300.0, 5), ([0.0, 60.0], DAY, 0)]
)
def test_nothing_is_foretold_from_nothing(times, now, left):
    assert told(times, now, left).finish is None
