"""Leases and judgments, one rater at a time."""

import pytest
import sqlalchemy as sa
from helpers.rated import first, pairs, rated

from keel.core.errors import AccessError, ConflictError, DataError, KeelError, MissingError
from keel.store.rows import Draft, NewItem, Pick
from keel.store.store import Store


def test_a_rater_asks_again_and_has_the_same_lease(store):
    demo = rated(store)
    lease = demo.lease(demo.raters[0])
    assert demo.lease(demo.raters[0]) == lease
    assert (lease.purpose, lease.expires - lease.leased, lease.guide_version) == ("judge", 900.0, 1)
    assert demo.item(lease.item_id).live == 1


def test_the_next_item_can_be_fetched_ahead_and_becomes_the_current_one(store):
    demo = rated(store)
    ann = demo.raters[0]
    current, ahead = demo.lease(ann), demo.lease(ann, ahead=1)
    assert ahead.item_id != current.item_id
    assert demo.lease(ann, ahead=1) == ahead
    demo.judge(current)
    assert demo.lease(ann) == ahead


def test_votes_are_gathered_on_items_that_have_some_already_and_by_priority(store):
    demo = rated(store, raters=2, new=[*pairs(3), NewItem(prompt="urgent", a="x", b="y", priority=1.0)])
    assert demo.vote(demo.raters[0]).item_id == demo.items[3]
    assert demo.vote(demo.raters[1]).item_id == demo.items[3]
    assert demo.vote(demo.raters[0]).item_id == demo.items[0]


def test_an_item_gets_as_many_votes_as_the_overlap_and_nobody_two(store):
    demo = rated(store, raters=5, items=3, overlap=3, repeat_share=0, golden_share=0)
    given = {user.id: [] for user in demo.raters}
    for _ in range(4):
        for rater in demo.raters:
            if (lease := demo.lease(rater)) is not None:
                given[rater.id].append(demo.judge(lease).item_id)
    assert all(len(set(items)) == len(items) for items in given.values())
    assert sorted(item for items in given.values() for item in items) == sorted(demo.items * 3)
    assert {demo.item(item).state for item in demo.items} == {"complete"}


def test_a_lease_that_is_over_goes_to_another_and_a_late_vote_counts_only_in_a_free_place(store):
    demo = rated(store, raters=2, items=1, overlap=1)
    ann, bob = demo.raters
    lease = demo.lease(ann)
    assert demo.lease(bob) is None
    demo.now += 901
    assert demo.lease(bob, lambda c: None) is None  # Ann's time has run out, nobody has taken the place
    with store.reading() as tx:
        assert tx.work.get(lease.id).state == "expired"
    demo.judge(lease, key="late")
    assert demo.item(lease.item_id).votes == 1

    demo = rated_again(demo, items=1)
    late = demo.lease(ann)
    demo.now += 901
    demo.vote(bob)
    with pytest.raises(ConflictError, match="The time for this item ran out and another rater has taken the place"):
        demo.judge(late)
    assert [vote.user_id for vote in demo.votes(item_ids=[late.item_id])] == [bob.id]


def rated_again(demo, items):
    """More items in the same project."""
    with demo.store.writing() as tx:
        new = [NewItem(prompt=f"another {i}", a="x", b="y") for i in range(items)]
        demo.items = tx.items.add(demo.project.id, new, now=demo.now).item_ids
    return demo


def test_an_expired_item_may_come_back_to_the_same_rater_under_the_same_number(store):
    demo = rated(store, raters=1, items=1)
    lease = demo.lease(demo.raters[0])
    demo.now += 1000
    again = demo.lease(demo.raters[0])
    assert (again.id, again.leased, again.state) == (lease.id, demo.now, "live")
    assert demo.item(lease.item_id).live == 1


def test_a_vote_sent_again_is_the_same_vote(store):
    demo = rated(store)
    lease = demo.lease(demo.raters[0])
    vote = demo.judge(lease, "b", key="k", seconds=3.5, rationale=" because ", strength=2)
    assert demo.judge(lease, "a", key="k") == vote
    assert [demo.item(lease.item_id).votes, len(demo.votes())] == [1, 1]
    other = demo.lease(demo.raters[0])
    with pytest.raises(ConflictError, match="belongs to another judgment"):
        demo.judge(other, key="k")


def test_two_raters_may_use_the_same_key(store):
    demo = rated(store)
    for rater in demo.raters:
        demo.judge(demo.lease(rater), key="1")
    assert len(demo.votes()) == 3


def test_a_change_of_mind_is_a_new_row_and_counts_once(store):
    demo = rated(store, overlap=1)
    lease = demo.lease(demo.raters[0])
    demo.judge(lease, "a")
    demo.judge(lease, "tie")
    assert [vote.choice for vote in demo.votes()] == ["tie"]
    assert demo.item(lease.item_id).votes == 1
    with store.reading() as tx:
        assert [row.choice for row in tx.work.history(demo.project.id)] == ["a", "tie"]
        assert tx.work.rater_progress(demo.project.id, lease.user_id, 0).done == 1


def test_undo_gives_the_item_back_and_leaves_both_rows(store):
    demo = rated(store)
    ann = demo.raters[0]
    vote = demo.vote(ann)
    ahead = demo.lease(ann)
    demo.now += 5
    lease = demo.undo(vote)
    assert (lease.id, lease.state, lease.judgment_id, lease.expires) == (vote.lease_id, "live", None, demo.now + 900)
    assert demo.undo(vote) == lease  # asked twice
    assert demo.lease(ann) == lease  # it comes before the one fetched ahead
    assert demo.lease(ann, ahead=1) == ahead
    assert demo.votes() == []
    demo.judge(lease, "b")
    with pytest.raises(ConflictError, match="does not count any more"):
        demo.undo(vote)
    with store.reading() as tx:
        assert [row.choice for row in tx.work.history(demo.project.id)] == ["a", "withdrawn", "b"]


def test_nobody_can_undo_or_judge_for_another(store):
    demo = rated(store)
    ann, bob, _ = demo.raters
    lease = demo.lease(ann)
    vote = demo.judge(lease)
    with store.writing() as tx, pytest.raises(AccessError, match="is another rater's"):
        tx.work.judge(lease.id, bob.id, Draft(choice="a"), "k", demo.now)
    with store.writing() as tx, pytest.raises(MissingError, match="no judgment of yours"):
        tx.work.undo(vote.client_key, bob.id, demo.now)
    with store.writing() as tx, pytest.raises(MissingError, match="There is no lease 99"):
        tx.work.judge(99, bob.id, Draft(choice="a"), "k", demo.now)


def test_skips_count_for_nothing_and_park_an_item_that_nobody_can_judge(store):
    demo = rated(store, raters=3, items=1, overlap=1)
    for rater in demo.raters[:2]:
        demo.vote(rater, "skip", flag="cut off in the middle")
    item = demo.item(demo.items[0])
    assert (item.state, item.votes, item.skips, item.flags) == ("parked", 0, 2, 2)
    assert demo.lease(demo.raters[2]) is None


def test_a_skip_whose_place_is_taken_cannot_become_a_vote(store):
    demo = rated(store, raters=2, items=1, overlap=1)
    ann, bob = demo.raters
    skipped = demo.vote(ann, "skip")
    demo.vote(bob)
    with store.reading() as tx:
        lease = tx.work.get(skipped.lease_id)
    with pytest.raises(ConflictError, match="another rater has taken the place"):
        demo.judge(lease, "b")
    with pytest.raises(ConflictError, match="others have judged it since"):
        demo.undo(skipped)


def test_a_dispute_goes_to_a_senior_who_has_not_voted_and_can_be_settled_by_the_lead(store):
    demo = rated(store, raters=3, items=2, overlap=3)
    for rater, choice in zip(demo.raters, ("a", "b", "tie"), strict=True):
        demo.vote(rater, choice)
    disputed = demo.items[0]
    assert demo.item(disputed).state == "disputed"
    senior, ann = demo.lead, demo.raters[0]
    with store.writing() as tx:
        tx.people.set_role(demo.project.id, ann.id, "senior")
    assert demo.lease(ann).purpose == "judge"  # she had her say
    lease = demo.lease(senior)
    assert (lease.item_id, lease.purpose) == (disputed, "adjudicate")
    decision = demo.judge(lease, "b")
    assert (demo.item(disputed).state, demo.item(disputed).settled) == ("settled", "b")
    demo.undo(decision)
    assert demo.item(disputed).state == "disputed"
    with store.writing() as tx:
        settled = tx.work.settle(disputed, ann.id, Draft(choice="tie", rationale="as good"), "s", demo.now)
        assert tx.work.settle(disputed, ann.id, Draft(choice="a"), "s", demo.now) == settled
    assert demo.item(disputed).settled == "tie"
    with pytest.raises(AccessError, match="Only seniors"), store.writing() as tx:
        tx.work.settle(disputed, demo.raters[1].id, Draft(choice="a"), "t", demo.now)
    assert demo.item(disputed).votes == 3


def test_golden_items_come_once_to_each_and_need_no_overlap(store):
    demo = rated(store, items=2, new=[*pairs(2), NewItem(prompt="known", a="x", b="y", gold="a")])
    for rater in demo.raters:
        lease = demo.lease(rater, first("golden"))
        assert (lease.item_id, lease.purpose) == (demo.items[2], "golden")
        demo.judge(lease, "b")
        assert demo.lease(rater, first("golden")) is None
    assert (demo.item(demo.items[2]).votes, len(demo.votes("golden")), len(demo.votes())) == (0, 3, 0)


def test_a_repeat_is_an_own_item_long_enough_ago_and_comes_once(store):
    demo = rated(store, raters=1, items=6, repeat_after=3)
    ann = demo.raters[0]
    votes = [demo.vote(ann) for _ in range(3)]
    assert demo.lease(ann, first("repeat")) is None
    demo.vote(ann)
    seen = []
    lease = demo.lease(ann, lambda c: seen.append(c.repeats) or first("repeat")(c))
    assert [candidate.swapped_before for candidate in seen[0]] == [votes[0].swapped]
    assert (lease.item_id, lease.purpose, lease.swapped) == (votes[0].item_id, "repeat", not votes[0].swapped)
    demo.judge(lease, "b")
    assert demo.lease(ann, first("repeat")) is None
    assert [demo.item(lease.item_id).votes, len(demo.votes("repeat"))] == [1, 1]


def test_items_that_ask_for_skills_go_to_those_who_have_them(store):
    new = [
        NewItem(prompt="law", a="x", b="y", skills=("law",)),
        NewItem(prompt="both", a="x", b="y", skills=("law", "med")),
    ]
    demo = rated(store, raters=2, new=[*new, *pairs(1)])
    ann, bob = demo.raters
    with store.writing() as tx:
        tx.people.set_skills(demo.project.id, ann.id, ["Law", "law"], weight=2.0)
        assert tx.people.membership(demo.project.id, ann.id).weight == 2.0
    assert [demo.vote(ann).item_id for _ in range(2)] == [demo.items[0], demo.items[2]]
    assert demo.lease(ann) is None
    assert demo.vote(bob).item_id == demo.items[2]
    assert demo.lease(bob) is None


def test_candidates_tell_nothing_of_what_others_said(store):
    demo = rated(store)
    demo.vote(demo.raters[0], "a", rationale="clearly")
    seen = []
    demo.lease(demo.raters[1], lambda candidates: seen.append(candidates))
    assert {candidate.missing for candidate in seen[0].open} == {2, 3}
    assert "clearly" not in repr(seen)
    assert seen[0].given == {"judge": 0, "calibration": 0, "golden": 0, "repeat": 0, "adjudicate": 0}


def test_a_chooser_that_makes_an_item_up_is_a_fault(store):
    demo = rated(store)
    with pytest.raises(ValueError, match="not among the candidates"):
        demo.lease(demo.raters[0], lambda c: Pick(item_id=12345, purpose="judge", swapped=False))


def test_nothing_is_given_out_where_the_project_is_not_being_judged(store):
    demo = rated(store, raters=2, items=2, overlap=1)
    ann, bob = demo.raters
    lease = demo.lease(ann)
    with store.writing() as tx:
        tx.projects.set_state(demo.project.id, "paused")
    assert demo.lease(bob) is None
    assert demo.lease(ann) == lease
    demo.judge(lease)  # what was on a screen is taken
    with store.writing() as tx:
        tx.projects.set_state(demo.project.id, "closed")
    with pytest.raises(ConflictError, match="is closed"):
        demo.judge(lease, "b")


def test_viewers_strangers_and_those_who_left_may_not_judge(store):
    demo = rated(store, raters=3)
    viewer, gone, _ = demo.raters
    held = demo.lease(gone)
    with store.writing() as tx:
        tx.people.set_role(demo.project.id, viewer.id, "viewer")
        tx.people.set_member_active(demo.project.id, gone.id, False)
        stranger = tx.people.create_user("Eve", now=demo.now)
    for user, said in ((viewer, "As a viewer"), (gone, "not in this project"), (stranger, "not in this project")):
        with pytest.raises(AccessError, match=said):
            demo.lease(user)
    with pytest.raises(AccessError, match="not in this project"):
        demo.judge(held)
    assert demo.item(held.item_id).live == 0


WRONG_DRAFTS = [
    ({"choice": "left"}, "expected one of a, b, tie, both_bad, skip"),
    ({"choice": "withdrawn"}, "expected one of"),
    ({"choice": "tie"}, "does not offer it"),
    ({"choice": "a", "strength": 4}, "expected 1 .slightly., 2"),
    ({"choice": "a", "seconds": float("nan")}, "seconds=nan"),
    ({"choice": "a", "rationale": "nul \0"}, "NUL character"),
    ({"choice": "a", "flag": "half \ud800"}, "lone surrogate"),
    ({"choice": "a", "rationale": "x" * 20_001}, "20,001 characters, more than the 20,000"),
    ({"choice": "a", "key": "withdraw:1"}, "client_key"),
    ({"choice": "a", "key": " "}, "client_key"),
    ({"choice": "a", "key": "k" * 201}, "client_key"),
]


def test_a_wrong_draft_is_refused_and_leaves_no_row(store):
    demo = rated(store, ties=False)
    lease = demo.lease(demo.raters[0])
    for draft, said in WRONG_DRAFTS:
        with pytest.raises(DataError, match=said):
            demo.judge(lease, **draft)
    with store.reading() as tx:
        assert list(tx.work.history(demo.project.id)) == []
        assert tx.work.get(lease.id).state == "live"


def test_seconds_are_clipped_to_the_lease_and_texts_kept_as_they_are(store):
    demo = rated(store, lease_seconds=60)
    demo.vote(demo.raters[0], seconds=1e9, rationale="größer 👍\nline", strength=3)
    vote = demo.vote(demo.raters[1], "tie", seconds=-5, rationale="  ", strength=3)
    assert (vote.seconds, vote.rationale, vote.strength) == (0.0, None, None)
    kept = demo.votes(user_id=demo.raters[0].id)[0]
    assert (kept.seconds, kept.rationale, kept.strength) == (60.0, "größer 👍\nline", 3)


def test_a_removed_item_keeps_its_votes_and_counts_nowhere(store):
    demo = rated(store, raters=3, items=2, overlap=2)
    ann, bob, cyd = demo.raters
    vote = demo.vote(ann)
    held = demo.lease(bob)
    assert held.item_id == vote.item_id
    with store.writing() as tx:
        tx.items.remove(vote.item_id, now=demo.now)
        tx.items.remove(vote.item_id, now=demo.now + 1)
    assert demo.item(vote.item_id).state == "removed"
    assert demo.item(vote.item_id).removed == demo.now
    assert demo.votes() == []
    demo.judge(held, "b")  # it was on Bob's screen: kept, though it counts nowhere
    assert demo.lease(cyd).item_id != vote.item_id
    with store.reading() as tx:
        progress = tx.work.progress(demo.project.id)
        assert (progress.votes, progress.votes_wanted, progress.items["removed"]) == (0, 2, 1)
        assert len(list(tx.work.history(demo.project.id))) == 2
    with store.writing() as tx:
        tx.items.restore(vote.item_id)
    assert {vote.user_id for vote in demo.votes()} == {ann.id, bob.id}
    assert demo.item(vote.item_id).state == "disputed"


def test_progress_is_what_the_votes_say(store):
    demo = rated(store, raters=3, items=4, overlap=2)
    ann, bob, _ = demo.raters
    demo.vote(ann)
    demo.now += 86_400
    demo.vote(ann, flag="odd")
    demo.undo(demo.vote(ann))
    demo.vote(bob, "b")
    with store.reading() as tx:
        progress = tx.work.progress(demo.project.id)
        mine = tx.work.rater_progress(demo.project.id, ann.id, demo.now - 10)
        table = tx.work.votes_table(demo.project.id)
        own = tx.work.own(demo.project.id, ann.id)
    assert (progress.votes, progress.votes_wanted, progress.flagged) == (3, 8, 1)
    assert progress.items == {"open": 3, "complete": 0, "disputed": 1, "settled": 0, "parked": 0, "removed": 0}
    assert (mine.done, mine.left, mine.today) == (2, 2, 1)
    assert progress.raters[ann.id]["judge"] == 2
    assert [vote.flag for vote in own] == ["odd", None]
    assert table.item_ids.tolist() == [demo.items[0]] * 2 + [demo.items[1]]
    assert table.choices.tolist() == [0, 1, 0]


def test_another_overlap_changes_which_items_are_complete(store):
    demo = rated(store, raters=2, items=1, overlap=3)
    for rater in demo.raters:
        demo.vote(rater)
    assert demo.item(demo.items[0]).state == "open"
    for overlap, state in ((2, "complete"), (5, "open"), (1, "complete")):
        with store.writing() as tx:
            settings = demo.project.settings.model_copy(update={"overlap": overlap})
            tx.projects.update_settings(demo.project.id, settings)
        assert demo.item(demo.items[0]).state == state


def test_release_gives_the_item_to_others(store):
    demo = rated(store, raters=2, items=1, overlap=1)
    ann, bob = demo.raters
    lease = demo.lease(ann)
    for _ in range(2):
        with store.writing() as tx:
            tx.work.release(lease.id, ann.id, demo.now)
    assert demo.lease(bob).item_id == lease.item_id


def test_a_clock_that_jumps_back_cannot_turn_stored_times_around(url):
    wall = [2_000_000_100.0]
    with Store.open(url, wall=lambda: wall[0]) as store:
        demo = rated(store, raters=1, items=3)
        demo.now = store.clock()
        demo.vote(demo.raters[0])
        wall[0] -= 3600
        assert store.clock() == demo.now
        wall[0] += 30
        assert store.clock() == demo.now + 30  # it runs on from what is stored, so that leases go on expiring
        demo.now = wall[0]
        lease = demo.lease(demo.raters[0])
        assert lease.leased >= 2_000_000_100.0
        demo.judge(lease)
        with store.reading() as tx:
            times = [row.created for row in tx.work.history(demo.project.id)]
        assert times == sorted(times)


def test_what_is_append_only_cannot_be_changed_by_anybody(store):
    demo = rated(store)
    demo.vote(demo.raters[0])
    with store.writing() as tx:
        tx.snapshots.create(demo.project.id, "one", by=None, records=[{"a": 1}], manifest={}, now=demo.now)
        tx.audit.add("test", at=demo.now)
    again = "REPLACE INTO {0} SELECT * FROM {0}" if store.place.endswith(".sqlite") else "TRUNCATE {0}, snapshot_chunks"
    for table in ("judgments", "guides", "snapshots", "snapshot_chunks", "audit"):
        column = {"snapshot_chunks": "number", "guides": "version"}.get(table, "id")
        for statement in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}", again.format(table)):
            with pytest.raises(KeelError, match="append-only"), store.writing() as tx:
                tx.run(sa.text(statement))
