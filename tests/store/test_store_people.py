"""Who may come in, what they are called, and how they are forgotten."""

import pytest
import sqlalchemy as sa
from helpers.rated import START, rated

from keel.core.errors import ConflictError, DataError, MissingError
from keel.store import tables
from keel.store.store import Store

HOUR = 3600.0


def test_a_name_belongs_to_one_user_however_it_is_written(store):
    with store.writing() as tx:
        ann = tx.people.create_user("  Ann   Marie ", now=START, email="ann@example.org")
        assert (ann.name, ann.active, ann.admin, ann.kind) == ("Ann Marie", True, False, "person")
        for same in ("ann marie", "ANN MARIE", "Ａnn Marie"):
            assert tx.people.user_by_name(same) == ann
            with pytest.raises(ConflictError, match="already"):
                tx.people.create_user(same, now=START)
        for bad in ("", "   ", "Ann\u202emarie", "a\nb\0", "x" * 101, "half \ud800", "zero\u200bwidth"):
            with pytest.raises(DataError):
                tx.people.create_user(bad, now=START)
        assert tx.people.user_by_name("Bob") is None
        with pytest.raises(MissingError, match="There is no user 77"):
            tx.people.user(77)


def test_passwords_and_rights_are_kept_and_one_administrator_stays(store):
    with store.writing() as tx:
        ann = tx.people.create_user("Ann", now=START, admin=True)
        bob = tx.people.create_user("Bob", now=START, password_hash="argon2 of it")
        assert (tx.people.password_hash(ann.id), tx.people.password_hash(bob.id)) == (None, "argon2 of it")
        tx.people.set_password_hash(ann.id, "another")
        for act in (
            lambda: tx.people.set_admin(ann.id, False),
            lambda: tx.people.set_active(ann.id, False),
            lambda: tx.people.erase(ann.id, by=bob.id, now=START),
        ):
            with pytest.raises(ConflictError, match="the only administrator"):
                act()
        tx.people.set_admin(bob.id, True)
        tx.people.set_admin(ann.id, False)
        assert tx.people.any_admin()
        assert [user.admin for user in tx.people.users()] == [False, True]


def test_members_are_known_by_pseudonyms_that_say_nothing(store):
    demo = rated(store, raters=6)
    with store.writing() as tx:
        members = tx.people.members(demo.project.id)
        assert len({member.pseudonym for member in members}) == 7
        first = members[1]
        assert tx.people.by_pseudonym(demo.project.id, first.pseudonym) == first
        again = tx.people.join(demo.project.id, first.user_id, "senior", now=START + 5, skills=["law", "Law", "med"])
        assert (again.pseudonym, again.role, again.skills) == (first.pseudonym, "senior", ("Law", "law", "med"))
        with pytest.raises(MissingError, match="Nobody in this project"):
            tx.people.by_pseudonym(demo.project.id, "no-one")
        with pytest.raises(DataError, match="no role"):
            tx.people.join(demo.project.id, first.user_id, "king", now=START)
        with pytest.raises(DataError, match="expected at least 0"):
            tx.people.set_skills(demo.project.id, first.user_id, [], weight=-1.0)
        with pytest.raises(MissingError, match="not in project"):
            tx.people.set_role(demo.project.id, 999, "rater")


def test_erasing_a_rater_keeps_the_votes_and_forgets_the_person(store):
    demo = rated(store, raters=2)
    ann = demo.raters[0]
    with store.writing() as tx:
        tx.access.create_token(ann.id, "notebook", "t1", now=demo.now)
        tx.access.create_session(ann.id, "s1", "csrf", now=demo.now, expires=demo.now + HOUR)
        tx.run(
            sa.update(tables.users)
            .where(tables.users.c.id == ann.id)
            .values(email="ann@example.org", password_hash="secret hash")
        )
    vote = demo.vote(ann, rationale="clear")
    held = demo.lease(ann)
    with store.writing() as tx:
        pseudonym = tx.people.membership(demo.project.id, ann.id).pseudonym
        tx.people.erase(ann.id, by=demo.lead.id, now=demo.now)
        tx.people.erase(ann.id, by=demo.lead.id, now=demo.now)
    with store.reading() as tx:
        user = tx.people.user(ann.id)
        assert (user.erased, user.active, user.email, user.name) == (True, False, None, f"erased-{ann.id}")
        assert tx.people.password_hash(ann.id) is None
        assert tx.people.user_by_name(ann.name) is None
        assert tx.access.token_by_hash("t1", demo.now) is None
        assert tx.access.session_by_hash("s1", demo.now) is None
        assert tx.people.by_pseudonym(demo.project.id, pseudonym).user_id == ann.id
        assert tx.work.get(held.id).state == "released"
        entries = tx.audit.find(action="erase")
        assert [(entry.user_id, entry.target) for entry in entries] == [(demo.lead.id, f"user {ann.id}")]
        for table in tables.metadata.tables.values():
            for row in tx.rows(sa.select(table)):
                assert not {"Rater 0", "ann@example.org", "secret hash"} & {str(value) for value in row}
    assert demo.votes(user_id=ann.id) == [vote]
    with pytest.raises(ConflictError, match="was erased and cannot join"), store.writing() as tx:
        tx.people.join(demo.project.id, ann.id, "rater", now=demo.now)
    with store.writing() as tx:  # the name is free again
        assert tx.people.create_user(ann.name, now=demo.now).id != ann.id


def test_tokens_work_until_they_are_revoked_or_too_old(store):
    with store.writing() as tx:
        ann, bob = (tx.people.create_user(name, now=START) for name in ("Ann", "Bob"))
        token = tx.access.create_token(ann.id, "notebook", "h1", now=START, expires=START + HOUR)
        forever = tx.access.create_token(ann.id, "server", "h2", now=START)
        assert tx.access.token_by_hash("h1", START) == token
        assert tx.access.token_by_hash("h1", START + HOUR) is None
        assert tx.access.token_by_hash("h3", START) is None
        tx.access.note_use(token, START + 10)
        tx.access.note_use(tx.access.token_by_hash("h1", START), START + 30)  # within a minute: not written
        assert tx.access.token_by_hash("h1", START).used == START + 10
        with pytest.raises(MissingError):
            tx.access.revoke_token(forever.id, bob.id, START)
        tx.access.revoke_token(forever.id, ann.id, START)
        assert tx.access.token_by_hash("h2", START) is None
        assert [t.revoked for t in tx.access.tokens(ann.id)] == [None, START]
        tx.people.set_active(ann.id, False)
        assert tx.access.token_by_hash("h1", START) is None


def test_a_link_does_not_let_in_again_who_was_taken_out(store):
    demo = rated(store, raters=1)
    project, ann = demo.project.id, demo.raters[0]
    with store.writing() as tx:
        tx.access.create_invite(project, "lead", "i", by=demo.lead.id, now=START, expires=START + HOUR, uses=9)
        tx.people.set_member_active(project, ann.id, False)
        with pytest.raises(ConflictError, match="taken out of this project"):
            tx.access.take_invite("i", ann.id, START)
        assert not tx.people.membership(project, ann.id).active
        tx.people.set_member_active(project, ann.id, True)
        tx.access.take_invite("i", ann.id, START)
        assert tx.people.membership(project, ann.id).role == "rater"


def test_what_is_erased_is_not_in_the_files_any_more(tmp_path):
    with Store.open(tmp_path / "studio.sqlite") as store:
        with store.writing() as tx:
            user = tx.people.create_user("Zebulon Quackenbush", now=START, email="zeb@quack.example")
        assert any(b"Quackenbush" in path.read_bytes() for path in tmp_path.iterdir())
        with store.writing() as tx:
            tx.people.erase(user.id, by=None, now=START)
        store.sweep()
        assert not any(b"Quackenbush" in p.read_bytes() or b"quack.ex" in p.read_bytes() for p in tmp_path.iterdir())


def test_an_invite_lets_in_as_many_as_it_says_and_only_in_its_time(store):
    demo = rated(store, raters=0)
    project = demo.project.id
    with store.writing() as tx:
        ann, bob, cyd = (tx.people.create_user(name, now=START) for name in ("Ann", "Bob", "Cyd"))
        made = tx.access.create_invite(
            project, "senior", "i1", by=demo.lead.id, now=START, expires=START + HOUR, uses=2, skills=["law"]
        )
        assert tx.access.invites(project, START) == [made]
        tx.access.take_invite("i1", ann.id, START)
        tx.access.take_invite("i1", ann.id, START)  # an active member leaves it unused
        assert tx.people.membership(project, ann.id).role == "senior"
        assert tx.people.membership(project, ann.id).skills == ("law",)
        with pytest.raises(MissingError, match="unknown, used up or too old"):
            tx.access.take_invite("i1", bob.id, START + HOUR)
        tx.access.take_invite("i1", bob.id, START)
        with pytest.raises(MissingError, match="unknown, used up or too old"):
            tx.access.take_invite("i1", cyd.id, START)
        admin = tx.access.create_invite(None, "admin", "i2", by=None, now=START, expires=START + HOUR)
        assert tx.access.invite_by_hash("i2", START) == admin
        tx.access.take_invite("i2", cyd.id, START)
        assert tx.people.user(cyd.id).admin
        other = tx.access.create_invite(project, "rater", "i3", by=demo.lead.id, now=START, expires=START + HOUR)
        tx.access.revoke_invite(other.id, project)
        assert tx.access.invites(project, START) == []
        for role, where, uses in (("king", project, 1), ("rater", None, 1), ("rater", project, 0)):
            with pytest.raises(DataError):
                tx.access.create_invite(where, role, "i4", by=None, now=START, expires=START, uses=uses)


def test_sessions_end(store):
    with store.writing() as tx:
        ann = tx.people.create_user("Ann", now=START)
        for number in (1, 2, 3):
            tx.access.create_session(ann.id, f"s{number}", "c", now=START + number, expires=START + number + 10)
        assert tx.access.session_by_hash("s1", START + 5).csrf == "c"
        assert tx.access.session_by_hash("s1", START + 11) is None
        tx.access.end_session("s2")
        assert tx.access.session_by_hash("s2", START + 5) is None
        tx.access.end_sessions(ann.id)
        assert tx.access.session_by_hash("s3", START + 5) is None


def test_the_audit_log_is_read_from_its_end(store):
    demo = rated(store)
    with store.writing() as tx:
        made = [
            tx.audit.add("login" if i % 2 else "export", at=START + i, user_id=demo.lead.id, details={"n": i})
            for i in range(6)
        ]
        tx.audit.add("open", at=START + 9, project_id=demo.project.id, target="demo")
        assert [entry.details["n"] for entry in tx.audit.find(action="login", limit=2)] == [5, 3]
        assert [entry.id for entry in tx.audit.find(before=made[1].id)] == [made[0].id]
        assert [entry.target for entry in tx.audit.find(project_id=demo.project.id)] == ["demo"]
        assert len(tx.audit.find(user_id=demo.lead.id)) == 6
        with pytest.raises(DataError, match="cannot be written as JSON"):
            tx.audit.add("odd", at=START, details={"x": float("nan")})


def test_projects_have_names_for_addresses_and_guides_in_versions(store):
    demo = rated(store, raters=1)
    with store.writing() as tx:
        for bad in ("", "Demo", "a b", "../x", "-x", "x" * 61, "ümlaut"):
            with pytest.raises(DataError, match="no name for a project"):
                tx.projects.create(bad, "T", demo.project.settings, by=None, now=START)
        with pytest.raises(ConflictError, match="already"):
            tx.projects.create("demo", "T", demo.project.settings, by=None, now=START)
        other = tx.projects.create("other", "Ünicode 👍", demo.project.settings, by=None, now=START)
        assert tx.projects.all_for(demo.raters[0].id) == [tx.projects.by_name("demo")]
        assert [project.name for project in tx.projects.all_for(demo.lead.id)] == ["demo", "other"]
        assert (other.state, other.guide_version, tx.projects.guide(other.id)) == ("setup", 0, None)
        second = tx.projects.new_guide(demo.project.id, "Second", by=demo.lead.id, now=START)
        assert tx.projects.guide(demo.project.id) == second
        assert tx.projects.guide(demo.project.id, 1).text == "Choose the better answer."
        assert [guide.version for guide in tx.projects.guides(demo.project.id)] == [1, 2]
        assert tx.projects.set_title(other.id, "Better").title == "Better"
        with pytest.raises(DataError, match="no state of a project"):
            tx.projects.set_state(other.id, "gone")
        with pytest.raises(MissingError, match="There is no project 99"):
            tx.projects.get(99)
