"""Nobody reads another's vote, or a known answer, and is asked about that item afterwards."""

import pytest
import sqlalchemy as sa
from helpers.rated import Rated, first, pairs, rated

from keel.core.errors import ConflictError
from keel.store import migrate
from keel.store.rows import NewItem
from keel.store.store import Store


def seen(demo: Rated, user, purpose: str = "judge"):
    """Items that this person could be given for a purpose."""
    found = []

    def look(candidates):
        lists = {"judge": candidates.open, "golden": candidates.golden, "repeat": candidates.repeats}
        lists |= {"adjudicate": candidates.disputes, "calibration": candidates.calibration}
        found.extend(candidate.item_id for candidate in lists[purpose])

    demo.lease(user, look)
    return found


def member(demo: Rated, user):
    with demo.store.reading() as tx:
        return tx.people.membership(demo.project.id, user.id)


def set_role(demo: Rated, user, role: str) -> None:
    with demo.store.writing() as tx:
        tx.people.set_role(demo.project.id, user.id, role)


def reopened(store: Store) -> Rated:
    """One pair that had both its votes, and of which one was taken back and its place given up."""
    demo = rated(store, raters=3, items=1, overlap=2, repeat_share=0.0)
    demo.vote(demo.raters[0], "a")
    lease = demo.undo(demo.vote(demo.raters[1], "b"))
    with store.writing() as tx:
        tx.work.release(lease.id, demo.raters[1].id, demo.now)
    return demo


def test_votes_may_be_read_when_all_are_in_and_for_good(store):
    demo = rated(store, raters=2, items=1, overlap=2)
    demo.vote(demo.raters[0])
    assert not demo.item(demo.items[0]).revealed
    last = demo.vote(demo.raters[1])
    assert demo.item(demo.items[0]).revealed
    demo.undo(last)
    assert (demo.item(demo.items[0]).state, demo.item(demo.items[0]).revealed) == ("open", True)


@pytest.mark.parametrize("role", ["senior", "lead", "admin", "rater"])
def test_a_pair_that_was_revealed_and_opened_again_goes_to_those_who_could_not_read_it(store, role):
    demo = reopened(store)
    person = demo.raters[2]
    if role == "admin":
        with store.writing() as tx:
            tx.people.set_admin(person.id, True)
    else:
        set_role(demo, person, role)
    assert seen(demo, person) == (list(demo.items) if role == "rater" else [])


def test_another_overlap_opens_complete_pairs_for_raters_only(store):
    demo = rated(store, raters=2, items=2, overlap=1, repeat_share=0.0)
    demo.vote(demo.raters[0])
    with store.writing() as tx:
        tx.projects.update_settings(demo.project.id, demo.project.settings.model_copy(update={"overlap": 2}))
    assert sorted(seen(demo, demo.raters[1])) == sorted(demo.items)
    assert len(seen(demo, demo.lead)) == 1
    assert not demo.item(seen(demo, demo.lead)[0]).revealed


@pytest.mark.parametrize("role", ["senior", "lead"])
def test_whoever_led_once_is_treated_so_in_every_later_role(store, role):
    demo = rated(store, raters=1, new=[*pairs(1), NewItem(prompt="known", a="x", b="y", gold="a")])
    assert seen(demo, demo.raters[0], "golden") == [demo.items[1]]
    set_role(demo, demo.raters[0], role)
    set_role(demo, demo.raters[0], "rater")
    assert member(demo, demo.raters[0]).insider
    assert seen(demo, demo.raters[0], "golden") == []
    with store.writing() as tx:
        assert tx.people.join(demo.project.id, demo.raters[0].id, "rater", now=demo.now).insider


def test_an_item_that_was_golden_is_no_secret_to_those_who_could_read_its_answer(store):
    demo = rated(store, raters=1, items=1)
    for gold in ("a", None):
        with store.writing() as tx:
            tx.items.set_gold(demo.items[0], gold, now=demo.now)
    assert (seen(demo, demo.raters[0]), seen(demo, demo.lead)) == ([demo.items[0]], [])


def test_what_a_lead_holds_is_taken_back_when_its_votes_can_be_read(store):
    demo = rated(store, raters=1, items=1, overlap=3)
    held = demo.lease(demo.lead)
    demo.vote(demo.raters[0])
    with store.writing() as tx:
        assert tx.items.hidden(demo.project.id) == {demo.items[0]}
        tx.items.reveal(demo.project.id)
        assert tx.items.hidden(demo.project.id) == frozenset()
    with pytest.raises(ConflictError, match="may be read by seniors and leads now"):
        demo.judge(held)
    with store.writing() as tx:
        tx.work.release_revealed(demo.project.id, demo.lead.id)
        assert tx.work.held(demo.project.id, demo.lead.id) == []
    assert demo.lease(demo.lead) is None


def test_a_lead_cannot_take_back_or_change_a_vote_after_reading_the_others(store):
    demo = rated(store, raters=1, items=1, overlap=2)
    mine = demo.vote(demo.lead, "a")
    demo.vote(demo.raters[0], "b")
    with pytest.raises(ConflictError, match="what you said before stands"):
        demo.undo(mine)
    with store.reading() as tx:
        lease = tx.work.get(mine.lease_id)
    with pytest.raises(ConflictError, match="what you said before stands"):
        demo.judge(lease, "b")
    assert {vote.choice for vote in demo.votes()} == {"a", "b"}


def test_who_judges_alone_can_take_back_and_meets_repeats(store):
    demo = rated(store, raters=0, items=3, overlap=1, repeat_after=1)
    first_vote = demo.vote(demo.lead, "a")
    lease = demo.undo(first_vote)
    demo.judge(lease, "b")
    demo.vote(demo.lead)
    assert seen(demo, demo.lead, "repeat") == [first_vote.item_id]


def test_who_judges_alone_gets_back_what_they_took_back_and_left(store):
    demo = rated(store, raters=0, items=1, overlap=1, repeat_share=0.0)
    lease = demo.undo(demo.vote(demo.lead, "a"))
    with store.writing() as tx:
        tx.work.release(lease.id, demo.lead.id, demo.now)
    assert demo.item(demo.items[0]).revealed
    again = demo.vote(demo.lead, "b")
    assert (again.item_id, demo.item(demo.items[0]).state) == (demo.items[0], "complete")


def test_what_was_taken_out_by_mistake_waits_for_everybody_again(store):
    demo = rated(store, raters=0, items=1, overlap=1)
    with store.writing() as tx:
        tx.items.remove(demo.items[0], now=demo.now)
        tx.items.restore(demo.items[0])
    assert seen(demo, demo.lead) == list(demo.items)


def test_a_vote_that_another_took_back_was_to_be_read_all_the_same(store):
    demo = rated(store, raters=1, items=2, overlap=1, repeat_share=0.0)
    lease = demo.undo(demo.vote(demo.raters[0], "a"))
    with store.writing() as tx:
        tx.work.release(lease.id, demo.raters[0].id, demo.now)
    assert seen(demo, demo.lead) == [item for item in demo.items if item != lease.item_id]


def test_an_export_tells_what_was_taken_back_too(store):
    demo = rated(store, raters=1, items=1, overlap=2)
    demo.undo(demo.vote(demo.raters[0], "a"))
    with store.writing() as tx:
        tx.items.reveal(demo.project.id, until=demo.now - 1)
    assert seen(demo, demo.lead) == list(demo.items)
    with store.writing() as tx:
        tx.items.reveal(demo.project.id)
    assert seen(demo, demo.lead) == []


def test_whoever_was_an_administrator_is_treated_so_ever_after(store):
    demo = rated(store, raters=1, new=[*pairs(1), NewItem(prompt="known", a="x", b="y", gold="a")])
    for admin in (True, False):
        with store.writing() as tx:
            tx.people.set_admin(demo.raters[0].id, admin)
    assert member(demo, demo.raters[0]).insider
    assert seen(demo, demo.raters[0], "golden") == []


def test_a_rater_made_senior_in_a_round_is_not_asked_what_an_earlier_round_told(store):
    demo = rated(store, raters=2, items=1, state="calibrating")
    with store.writing() as tx:
        opened = tx.rounds.open(demo.project.id, demo.items, now=demo.now)
        tx.rounds.close(opened.id, {}, False, now=demo.now)
        tx.rounds.open(demo.project.id, demo.items, now=demo.now)
    held = demo.lease(demo.raters[0])
    set_role(demo, demo.raters[0], "senior")
    with pytest.raises(ConflictError, match="may be read by seniors and leads now"):
        demo.judge(held)
    with store.writing() as tx:
        tx.work.release_revealed(demo.project.id, demo.raters[0].id)
    assert demo.lease(demo.raters[0]) is None


def test_repeats_of_what_others_judged_too_are_for_raters_only(store):
    demo = rated(store, raters=1, items=4, overlap=2, repeat_after=1)
    for _ in range(2):
        demo.vote(demo.lead)
        demo.vote(demo.raters[0])
    assert seen(demo, demo.raters[0], "repeat") != []
    assert seen(demo, demo.lead, "repeat") == []


def test_a_senior_still_settles_what_is_disputed(store):
    demo = rated(store, raters=2, items=1, overlap=2)
    demo.vote(demo.raters[0], "a")
    demo.vote(demo.raters[1], "b")
    assert seen(demo, demo.lead, "adjudicate") == [demo.items[0]]
    settled = demo.judge(demo.lease(demo.lead, first("adjudicate")), "a")
    demo.judge(demo.undo(settled), "b")
    assert demo.item(demo.items[0]).settled == "b"


def test_votes_of_a_round_may_be_read_when_it_is_closed_and_not_before(store):
    demo = rated(store, raters=2, items=2, state="calibrating")
    with store.writing() as tx:
        opened = tx.rounds.open(demo.project.id, demo.items, now=demo.now)
    demo.vote(demo.raters[0])
    assert not any(demo.item(item).revealed for item in demo.items)
    assert sorted(seen(demo, demo.lead, "calibration")) == sorted(demo.items)
    with store.writing() as tx:
        tx.rounds.close(opened.id, {}, False, now=demo.now)
        tx.rounds.open(demo.project.id, demo.items, now=demo.now)
    assert all(demo.item(item).revealed for item in demo.items)
    assert seen(demo, demo.lead, "calibration") == []
    assert sorted(seen(demo, demo.raters[0], "calibration")) == sorted(demo.items)


OLD = """
INSERT INTO users (id, name, name_key, admin, active, kind, created) VALUES
    (1, 'lea', 'lea', false, true, 'person', 1), (2, 'sam', 'sam', false, true, 'person', 1),
    (3, 'rob', 'rob', false, true, 'person', 1);
INSERT INTO projects (id, name, title, state, settings, guide_version, created) VALUES
    (1, 'old', 'Old', 'calibrating', '{"overlap": 2, "repeat_share": 0.0}', 0, 1);
INSERT INTO memberships (project_id, user_id, role, pseudonym, skills, weight, active, joined) VALUES
    (1, 1, 'lead', 'x', '[]', 1, true, 1), (1, 2, 'senior', 'y', '[]', 1, true, 1),
    (1, 3, 'rater', 'z', '[]', 1, true, 1);
INSERT INTO rounds (id, project_id, number, guide_version, item_ids, state, opened, figures) VALUES
    (1, 1, 1, 0, '[6, 7]', 'failed', 1, '{}'), (2, 1, 2, 0, '[7, 8]', 'open', 1, '{}')
"""
OLD_SLOTS = {  # kind, gold, state, removed, settled, votes: revealed
    1: ("'pair', NULL, 'open', NULL, NULL, 0", False),
    2: ("'pair', NULL, 'open', NULL, NULL, 1", False),
    3: ("'pair', NULL, 'disputed', NULL, NULL, 2", True),
    4: ("'pair', NULL, 'settled', NULL, 'a', 0", True),
    5: ("'golden', 'a', 'open', NULL, NULL, 0", True),
    6: ("'calibration', NULL, 'open', NULL, NULL, 0", True),
    7: ("'calibration', NULL, 'open', NULL, NULL, 0", True),
    8: ("'calibration', NULL, 'open', NULL, NULL, 0", False),
    9: ("'pair', NULL, 'removed', 1.0, NULL, 0", False),
    10: ("'pair', NULL, 'removed', 1.0, NULL, 1", True),
}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_database_of_before_knows_what_could_be_read_in_it(kind, tmp_path, request, monkeypatch):
    """Made by step 0001 alone, filled, and opened by today's keel."""
    if kind == "sqlite":
        url = str(tmp_path / "old.sqlite")
    else:
        server = request.getfixturevalue("postgres")
        url = server.url(server.database())
    with monkeypatch.context() as before:
        before.setattr(migrate, "REVISIONS", ("0001",))
        with Store.open(url) as store, store.writing() as tx:
            for statement in OLD.split(";"):
                tx.run(sa.text(statement.replace(":", "\\:")))
            for item, (values, _) in OLD_SLOTS.items():
                texts = f"({item}, 1, 'key {item}', '\"q {item}\"', 'a', 'b', '{{}}', 1)"
                tx.run(sa.text(f"INSERT INTO items VALUES {texts}".replace(":", "\\:")))
                columns = "item_id, project_id, skills, priority, kind, gold, state, removed, settled, votes"
                tx.run(sa.text(f"INSERT INTO slots ({columns}) VALUES ({item}, 1, '[]', 0, {values})"))
    with Store.open(url) as store, store.reading() as tx:
        assert {item: tx.items.get(item).revealed for item in OLD_SLOTS} == {
            item: revealed for item, (_, revealed) in OLD_SLOTS.items()
        }
        members = {member.role: member.insider for member in tx.people.members(1)}
        assert members == {"lead": True, "senior": True, "rater": False}


def test_a_withdrawn_or_late_vote_of_a_rater_is_not_touched_by_any_of_this(store):
    demo = reopened(store)
    again = demo.vote(demo.raters[2], "a")
    demo.judge(demo.undo(again), "b")
    assert {vote.choice for vote in demo.votes()} == {"a", "b"}
