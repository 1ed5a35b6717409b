from collections import Counter

from helpers.rating_rooms import said

from keel.annotate.golden import gold_candidates, stock
from keel.store.rows import Item


def item(number, **fields):
    plain = {"project_id": 1, "key": str(number), "prompt": "p" * number, "a": "x", "b": "y", "kind": "pair"}
    plain |= {"gold": None, "skills": (), "priority": 0.0, "provenance": {}, "created": 0.0, "removed": None}
    return Item(**{"id": number, **plain, **fields})


def test_only_pairs_that_seniors_see_alike_can_be_golden():
    rows = {
        1: "s1 a,s2 a",
        2: "s1 a,s2 b",
        3: "s1 a",
        4: "s1 tie,s2 tie",
        5: "s1 b,s2 b,s3 b,r1 a",
        6: "r1 a,r2 a",
        7: "s1 a,s2 a",
        8: "s1 a,s2 a",
        9: "s1 a,s2 skip,s3 a",
    }
    items = [item(n) for n in range(1, 10)]
    items[6], items[7] = item(7, kind="golden", gold="a"), item(8, removed=1.0)
    found = gold_candidates(items, said(rows), {"s1", "s2", "s3"}, 50)
    assert {(one.item_id, one.choice, one.num_seniors) for one in found} == {(1, "a", 2), (5, "b", 3), (9, "a", 2)}


def test_candidates_are_spread_over_skills_lengths_and_answers():
    items = [item(n, skills=("law",) if n % 10 == 0 else ()) for n in range(1, 301)]
    votes = said({n: f"s1 {'ab'[n % 2]},s2 {'ab'[n % 2]}" for n in range(1, 301)})
    found = gold_candidates(items, votes, {"s1", "s2"}, 40)
    assert len(found) == 40
    assert Counter(one.skills for one in found) == {(): 20, ("law",): 20}
    thirds = Counter((one.item_id - 1) // 100 for one in found)
    assert min(thirds.values()) >= 10
    plain = Counter(one.choice for one in found if not one.skills)
    assert min(plain.values()) >= 9
    assert found == gold_candidates(items[::-1], votes, {"s1", "s2"}, 40)
    assert {one.item_id for one in found} != {
        one.item_id for one in gold_candidates(items, votes, {"s1", "s2"}, 40, seed=1)
    }


def test_the_stock_of_golden_items():
    golden = [item(n, kind="golden", gold="ab"[n % 2]) for n in range(1, 61)]
    assert stock(golden, 0.05, 1000).level == "ok"
    assert "Have seniors judge 40 more pairs" in stock(golden, 0.05, 2000).remedy
    lopsided = [item(n, kind="golden", gold="a" if n < 50 else "b") for n in range(1, 61)]
    assert "clicking it passes for care" in stock(lopsided, 0.05, 1000).message
