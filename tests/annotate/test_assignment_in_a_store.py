"""Assignment on a real database: what `choose` decides from what the store gathers."""

from collections import Counter

import pytest
from helpers.rated import pairs, rated

from keel.annotate.agreement import gate
from keel.annotate.assignment import choose
from keel.annotate.ballots import ballots_of
from keel.annotate.freeze import comparison_records
from keel.store.rows import NewItem
from keel.store.store import Store

GOLDEN = [NewItem(prompt=f"gold {i}", a=f"right {i}", b=f"wrong {i}", gold="a") for i in range(30)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """38 pairs of which 8 need a skill that 3 of 5 raters have, 30 golden items; everything is judged."""
    new = [*pairs(30), *[NewItem(prompt=f"law {i}", a="x", b=f"y {i}", skills=("law",)) for i in range(8)], *GOLDEN]
    with Store.open(str(tmp_path_factory.mktemp("studio") / "studio.sqlite")) as store:
        room = rated(store, raters=5, items=0, new=new, golden_share=0.1, repeat_share=0.1, repeat_after=10)
        with store.writing() as tx:
            for user in room.raters[:3]:
                tx.people.set_skills(room.project.id, user.id, ("law",))

        def chosen(candidates):
            return choose(candidates, candidates.project.settings, seed=7)

        waiting = list(room.raters)
        while waiting:
            user = waiting.pop(0)
            room.now += 20.0
            lease = room.lease(user, chosen)
            if lease is not None:
                prompt = room.item(lease.item_id).prompt
                room.judge(lease, "b" if prompt.endswith(("3", "7")) else "a", seconds=12.0)
                waiting.append(user)
        yield room


def test_every_pair_gets_its_overlap_from_raters_with_the_skills(desk):
    votes = desk.votes("judge")
    assert set(Counter(vote.item_id for vote in votes).values()) == {3}
    assert len({vote.item_id for vote in votes}) == 38
    lawyers = {user.id for user in desk.raters[:3]}
    assert {vote.user_id for vote in votes if desk.item(vote.item_id).skills} <= lawyers
    assert max(Counter((vote.user_id, vote.item_id) for vote in votes).values()) == 1


def test_golden_items_and_repeats_come_at_their_shares_and_sides_are_balanced(desk):
    votes = desk.votes("judge", "golden", "repeat")
    shares = {purpose: sum(v.purpose == purpose for v in votes) / len(votes) for purpose in ("golden", "repeat")}
    assert shares["golden"] == pytest.approx(0.1, abs=0.05)
    assert 0.02 <= shares["repeat"] <= 0.13
    for user in desk.raters:
        mine = [vote for vote in votes if vote.user_id == user.id]
        assert abs(sum(vote.swapped for vote in mine) - len(mine) / 2) <= 2
        first = {vote.item_id: vote.swapped for vote in mine if vote.purpose == "judge"}
        assert all(first[vote.item_id] != vote.swapped for vote in mine if vote.purpose == "repeat")


def test_votes_go_through_the_gate_into_records(desk):
    with desk.store.reading() as tx:
        ballots = ballots_of(tx.work.votes(desk.project.id, ("judge",)), tx.people.members(desk.project.id))
        records = list(comparison_records(tx.items.each(desk.project.id), ballots, "dawid_skene"))
    assert gate(ballots).passed
    assert len(records) == 38
    assert all(len(record["votes"]) == 3 for record in records)
