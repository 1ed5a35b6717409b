"""Items in and out, calibration rounds, snapshots."""

import gzip
import hashlib
import json

import pytest
import sqlalchemy as sa
from helpers.rated import START, first, pairs, rated

from keel.core.errors import ArtifactError, ConflictError, DataError, MissingError
from keel.data.records import Message
from keel.store import tables
from keel.store.rows import NewItem


def add(demo, items):
    with demo.store.writing() as tx:
        return tx.items.add(demo.project.id, items, now=demo.now)


def test_an_item_is_there_once_whichever_answer_stands_first(store):
    demo = rated(store, items=0)
    chat = (Message("system", "Be kind."), Message("user", "Hallo 👋"))
    item = NewItem(prompt=chat, a="Größe", b="x\ny", skills=("med", "law"), priority=2.5, provenance={"a": "gpt"})
    assert add(demo, [item, NewItem(prompt=chat, a="x\ny", b="Größe")]).item_ids == (1, 1)
    outcome = add(demo, [item, *pairs(1)])
    assert (outcome.added, outcome.already_there, outcome.item_ids) == (1, 1, (1, 2))
    stored = demo.item(1)
    assert (stored.prompt, stored.a, stored.b) == (chat, "Größe", "x\ny")
    assert (stored.skills, stored.priority, stored.provenance) == (("law", "med"), 2.5, {"a": "gpt"})
    assert (stored.kind, stored.state, stored.created) == ("pair", "open", START)


WRONG_ITEMS = [
    (NewItem(prompt="nul \0", a="x", b="y"), "item 3, prompt: holds a NUL"),
    (NewItem(prompt="x", a="half \udc00", b="y"), "item 3, answer a: holds half of a character"),
    (
        NewItem(prompt="x", a="y", b="x" * 1_000_001),
        "item 3, answer b: 1,000,001 characters, more than the 1,000,000",
    ),
    (NewItem(prompt="x", a="y", b="z", provenance={"t": float("inf")}), "item 3, provenance: cannot be written"),
    (NewItem(prompt="x", a="y", b="z", gold="left"), "gold='left'"),
    (NewItem(prompt="x", a="y", b="z", priority=float("nan")), "expected a finite number"),
]


def test_an_item_that_no_database_takes_is_named_and_none_is_stored(store):
    demo = rated(store, items=0)
    for item, said in WRONG_ITEMS:
        with pytest.raises(DataError, match=said):
            add(demo, [*pairs(2), item])
    with store.reading() as tx:
        assert tx.items.find(demo.project.id).total == 0


def test_items_are_found_by_word_kind_and_state_a_page_at_a_time(store):
    new = [*pairs(7), NewItem(prompt="100% Sure_", a="x", b="y"), NewItem(prompt="known", a="x", b="y", gold="a")]
    demo = rated(store, new=new, overlap=1)
    demo.vote(demo.raters[0], flag="odd")
    with store.writing() as tx:
        tx.items.remove(demo.items[1], now=demo.now)
    with store.reading() as tx:

        def found(**by):
            return [item.id for item in tx.items.find(demo.project.id, **by).items]

        assert found(text="100% sure_") == found(text="SURE_") == [demo.items[7]]
        assert found(text="100_") == found(text="nowhere") == []
        assert found(text="reply 3") == [demo.items[3]]
        assert found(kind="golden") == [demo.items[8]]
        assert found(state="complete") == found(flagged=True) == [demo.items[0]]
        assert found(state="removed") == [demo.items[1]]
        assert found(page=2, size=3) == list(demo.items[4:7])
        assert tx.items.find(demo.project.id, size=3).total == 8
        assert [item.id for item in tx.items.each(demo.project.id, "pair")] == [demo.items[0], *demo.items[2:8]]
        assert [item.id for item in tx.items.many([3, 99, 1])] == [3, 1]
        assert tx.items.counts(demo.project.id)["complete"] == 1
        with pytest.raises(MissingError, match="There is no item 99"):
            tx.items.get(99)


def test_priorities_change_what_comes_next(store):
    demo = rated(store, items=4)
    with store.writing() as tx:
        tx.items.set_priority({demo.items[2]: 5, demo.items[3]: 7.5})
    assert [demo.vote(demo.raters[0]).item_id for _ in range(3)] == [demo.items[3], demo.items[2], demo.items[0]]


def test_a_pair_can_become_golden_and_a_pair_again(store):
    demo = rated(store, items=2, overlap=3)
    demo.vote(demo.raters[0])
    held = demo.lease(demo.raters[1])
    with store.writing() as tx:
        golden = tx.items.set_gold(held.item_id, "tie", now=demo.now)
    assert (golden.kind, golden.gold, golden.live) == ("golden", "tie", 0)
    with store.reading() as tx:
        assert tx.work.get(held.id).state == "released"
        assert tx.work.progress(demo.project.id).votes_wanted == 3
    assert demo.lease(demo.raters[0], first("golden")) is None  # judged it already
    assert demo.lease(demo.raters[2], first("golden")).item_id == held.item_id
    with store.writing() as tx:
        assert tx.items.set_gold(held.item_id, None, now=demo.now).kind == "pair"
        with pytest.raises(DataError, match="expected one of"):
            tx.items.set_gold(held.item_id, "skip", now=demo.now)
    with store.reading() as tx:
        assert tx.work.progress(demo.project.id).votes == 1


def calibrating(store, raters=2, items=4, **settings):
    demo = rated(store, raters=raters, items=items, state="calibrating", **settings)
    with store.writing() as tx:
        demo.round = tx.rounds.open(demo.project.id, demo.items[:2], now=demo.now)
    return demo


def test_a_calibration_round_puts_the_same_items_before_everybody_once(store):
    demo = calibrating(store)
    for rater in demo.raters:
        judged = [demo.vote(rater) for _ in range(2)]
        assert [vote.item_id for vote in judged] == list(demo.items[:2])
        assert {(vote.purpose, vote.round_id) for vote in judged} == {("calibration", demo.round.id)}
        assert demo.lease(rater) is None
    assert len(demo.votes("calibration", round_id=demo.round.id)) == 4
    with store.reading() as tx:
        assert tx.rounds.num_judged(demo.round.id, demo.raters[0].id) == 2
        assert tx.work.rater_progress(demo.project.id, demo.raters[0].id, 0).left == 0
        assert tx.work.progress(demo.project.id).votes_wanted == 2 * 3
    with store.writing() as tx:
        with pytest.raises(ConflictError, match="Round 1 is still open"):
            tx.rounds.open(demo.project.id, demo.items, now=demo.now)
        closed = tx.rounds.close(
            demo.round.id, {"kappa": 0.7}, True, now=demo.now, unlocked=[rater.id for rater in demo.raters]
        )
        assert (closed.state, closed.figures) == ("passed", {"kappa": 0.7})
        with pytest.raises(ConflictError, match="closed already"):
            tx.rounds.close(demo.round.id, {}, False, now=demo.now)
        tx.projects.set_state(demo.project.id, "open")
    assert demo.lease(demo.raters[0]).item_id == demo.items[2]  # calibration items are no pairs to collect


def test_a_closed_round_takes_no_more_votes(store):
    demo = calibrating(store)
    ann, bob = demo.raters
    vote, held = demo.vote(ann), demo.lease(bob)
    with store.writing() as tx:
        tx.rounds.close(demo.round.id, {}, False, now=demo.now)
    with pytest.raises(ConflictError, match="round is closed"):
        demo.judge(held)
    with pytest.raises(ConflictError, match="round is closed"):
        demo.undo(vote)
    with store.writing() as tx:  # the next round may ask the same again, under another guide
        tx.projects.new_guide(demo.project.id, "Clearer", by=None, now=demo.now)
        again = tx.rounds.open(demo.project.id, demo.items[:2], now=demo.now)
        assert (again.number, again.guide_version) == (2, 2)
        assert tx.rounds.by_number(demo.project.id, 1).state == "failed"
    assert demo.vote(ann).round_id == again.id
    assert [vote.guide_version for vote in demo.votes("calibration", user_id=ann.id)] == [1, 2]
    assert len(demo.votes("calibration", guide_version=2)) == 1


def test_who_joins_after_calibration_judges_the_round_that_was_passed_first(store):
    demo = calibrating(store, raters=1)
    with store.writing() as tx:
        tx.rounds.close(demo.round.id, {}, True, now=demo.now, unlocked=[demo.raters[0].id])
        tx.projects.set_state(demo.project.id, "open")
        late = tx.people.create_user("Late", now=demo.now)
        tx.people.join(demo.project.id, late.id, "rater", now=demo.now)
    votes = [demo.vote(late) for _ in range(2)]
    assert [vote.item_id for vote in votes] == list(demo.items[:2])
    assert {vote.purpose for vote in votes} == {"calibration"}


def test_who_has_not_passed_calibration_judges_nothing_else_unless_they_are_senior(store):
    demo = calibrating(store, items=6, golden_share=0.5)
    with store.writing() as tx:
        careful = demo.raters[0]
        for name in ("New", "Senior"):
            user = tx.people.create_user(name, now=demo.now)
            tx.people.join(demo.project.id, user.id, "senior" if name == "Senior" else "rater", now=demo.now)
        new, senior = tx.people.user_by_name("New"), tx.people.user_by_name("Senior")
    for rater in (new, careful):
        for _ in range(2):
            demo.vote(rater)
    with store.writing() as tx:
        tx.rounds.close(demo.round.id, {}, True, now=demo.now, unlocked=[careful.id])
        tx.projects.set_state(demo.project.id, "open")
    assert demo.lease(new) is None  # has judged the round, and was not let in
    assert demo.lease(careful).purpose == demo.lease(senior).purpose == "judge"
    with store.writing() as tx:
        tx.people.unlock(demo.project.id, [new.id], 1)
    assert demo.lease(new).purpose == "judge"


def test_a_reason_is_asked_for_where_the_project_says_so(store):
    demo = calibrating(store, rationale="required_on_calibration")
    lease = demo.lease(demo.raters[0])
    with pytest.raises(DataError, match="need a reason"):
        demo.judge(lease, "a")
    assert demo.judge(lease, "a", rationale="shorter").rationale == "shorter"


def test_a_round_refuses_items_that_cannot_be_calibrated_on(store):
    demo = rated(store, new=[*pairs(2), NewItem(prompt="known", a="x", b="y", gold="a")], state="calibrating")
    with store.writing() as tx:
        tx.items.remove(demo.items[1], now=demo.now)
        for items in ([], [demo.items[2]], [demo.items[1]], [99]):
            with pytest.raises(DataError):
                tx.rounds.open(demo.project.id, items, now=demo.now)
        with pytest.raises(MissingError, match="no calibration round 1"):
            tx.rounds.by_number(demo.project.id, 1)


def freeze(demo, name, records, **more):
    with demo.store.writing() as tx:
        return tx.snapshots.create(
            demo.project.id, name, by=demo.lead.id, records=records, manifest=more.pop("manifest", {}), now=demo.now
        )


def test_a_snapshot_is_its_content_and_reads_back(store):
    demo = rated(store, raters=2, items=3, overlap=2)
    with store.writing() as tx:
        more = [NewItem(prompt="m", a="x", b="y", provenance={"a": {"model": "m-1"}, "b": "m-2"})]
        tx.items.add(demo.project.id, more, now=demo.now)
    demo.vote(demo.raters[0])
    demo.now += 60
    demo.vote(demo.raters[1], "b")
    records = [{"z": i, "a": "größer 👍", "text": "x" * 30_000} for i in range(100)]
    made = freeze(demo, "march", iter(records), manifest={"method": "share"})
    lines = b"".join(
        json.dumps(r, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for r in records
    )
    assert (made.content_hash, made.records, made.num_bytes) == (hashlib.sha256(lines).hexdigest(), 100, len(lines))
    assert freeze(demo, "again", [dict(reversed(r.items())) for r in records]) == made
    with pytest.raises(ConflictError, match="A snapshot never changes"):
        freeze(demo, "march", records[:1])
    with store.reading() as tx:
        assert list(tx.snapshots.read(made)) == records
        assert b"".join(tx.snapshots.lines(made)) == lines
        assert tx.snapshots.get("demo", "march") == tx.snapshots.get("demo", made.content_hash[:8].upper()) == made
        chunks = tx.rows(sa.select(tables.snapshot_chunks.c.data).order_by(tables.snapshot_chunks.c.number))
        assert len(chunks) == 3
        assert gzip.decompress(b"".join(row.data for row in chunks)) == lines  # a valid .jsonl.gz as it stands
        names = {member.user_id: member.pseudonym for member in tx.people.members(demo.project.id)}
        for project, name in (("demo", "april"), ("demo", made.content_hash[:7]), ("nowhere", "march")):
            with pytest.raises(MissingError, match=r"There are: march|no project called 'nowhere'"):
                tx.snapshots.get(project, name)
    manifest = made.manifest
    assert (manifest["method"], manifest["guide_version"], manifest["sides"]) == (
        "share",
        1,
        {"a_left": 0, "b_left": 2},
    )
    assert [rater["rater"] for rater in manifest["raters"]] == sorted(names[rater.id] for rater in demo.raters)
    assert (manifest["first_judgment"], manifest["last_judgment"]) == (demo.now - 60, demo.now)
    assert manifest["generators"] == {"m-1": 1, "m-2": 1}
    assert manifest["items"]["disputed"] == 1
    assert manifest["guides"][0]["judgments"] == 2
    assert "Rater" not in json.dumps(manifest)


def test_a_snapshot_that_somebody_tampered_with_does_not_read(store):
    demo = rated(store)
    made = freeze(demo, "march", [{"i": i} for i in range(3)])
    with store.writing() as tx:
        extra = gzip.compress(b'{"i":3}\n')
        tx.run(sa.insert(tables.snapshot_chunks).values(snapshot_id=made.id, number=1, data=extra))
    with store.reading() as tx, pytest.raises(ArtifactError, match="'march' is not what was frozen"):
        list(tx.snapshots.read(made))
    broken = freeze(demo, "april", [{"i": 1}])
    with store.writing() as tx:
        tx.run(sa.insert(tables.snapshot_chunks).values(snapshot_id=broken.id, number=1, data=b"no gzip"))
    with store.reading() as tx, pytest.raises(ArtifactError, match="'april' is not what was frozen"):
        list(tx.snapshots.read(broken))


def test_a_snapshot_needs_a_name_that_is_no_hash(store):
    demo = rated(store)
    for name in ("", "March", "a b", "../x", "0123456789abcdef", "x" * 61):
        with pytest.raises(DataError, match="no name for a snapshot"):
            freeze(demo, name, [{"i": 1}])


def test_an_empty_snapshot_and_odd_records(store):
    demo = rated(store)
    empty = freeze(demo, "empty", [])
    with store.reading() as tx:
        assert (list(tx.snapshots.read(empty)), empty.records) == ([], 0)
    for record in ({"x": float("nan")}, {"x": object()}, {"x": "\ud800"}):
        with pytest.raises(DataError, match="record 2: cannot be written as JSON"):
            freeze(demo, "odd", [{"fine": "a\u2028b\r\n"}, record])
    lines = [{"text": "a\u2028b\u0085c\r\n\x0b"}, {"text": "d"}]
    made = freeze(demo, "lines", lines)
    with store.reading() as tx:
        assert list(tx.snapshots.read(made)) == lines
        assert [snapshot.name for snapshot in tx.snapshots.all(demo.project.id)] == ["empty", "lines"]
