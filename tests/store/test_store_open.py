"""Opening a studio's database: whose it is, which version, and what is said when it cannot be used."""

import importlib.util
import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from helpers.rated import START, rated

from keel.core.errors import ArtifactError, ConfigError, KeelError, MissingError
from keel.store import tables
from keel.store.engine import parse
from keel.store.migrate import MIGRATIONS
from keel.store.migrations import REVISIONS
from keel.store.queue import Queue
from keel.store.settings import ProjectSettings
from keel.store.store import Store


def test_the_migrations_make_the_tables_that_the_code_knows(store):
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    with store._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": tables.VERSION_TABLE})
        assert compare_metadata(context, tables.metadata) == []
        inspector = sa.inspect(connection)
        for table in tables.metadata.tables.values():
            made = {
                index["name"] for index in inspector.get_indexes(table.name) if not index.get("duplicates_constraint")
            }
            assert made >= {index.name for index in table.indexes}


def test_nobody_else_on_the_machine_can_read_a_new_database(tmp_path):
    with Store.open(tmp_path / "studio.sqlite"):
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_the_migrations_are_numbered_without_a_gap_and_known_in_order():
    files = sorted((MIGRATIONS / "versions").glob("v*.py"))
    found = []
    for path in files:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found.append((module.down_revision, module.revision))
        assert path.stem.startswith(f"v{module.revision}_")
    assert found == list(zip((None, *REVISIONS), REVISIONS, strict=False))


OPENER = """
import sys
from keel.store.settings import ProjectSettings
from keel.store.store import Store
sys.stdin.readline()
Store.open(sys.argv[1]).close()
"""


def test_servers_that_begin_the_same_database_together_both_succeed(tmp_path, request):
    for url in (str(tmp_path / "new" / "studio.sqlite"), None):
        if url is None:
            server = request.getfixturevalue("postgres")
            url = server.url(server.database())
        openers = [
            subprocess.Popen([sys.executable, "-c", OPENER, url], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
            for _ in range(3)
        ]
        for opener in openers:
            opener.stdin.write(b"go\n")
            opener.stdin.flush()
        for opener in openers:
            assert opener.communicate(timeout=120)[1] == b""
            assert opener.returncode == 0
        Store.open(url).close()


def test_a_database_of_a_newer_keel_is_refused(tmp_path, postgres):
    for url in (str(tmp_path / "studio.sqlite"), postgres.url(postgres.database())):
        with Store.open(url) as store, store.writing() as tx:
            tx.run(sa.text(f"UPDATE {tables.VERSION_TABLE} SET version_num = '0999'"))
        with pytest.raises(ArtifactError, match="version 0999 of its tables, written by a newer keel; this one knows"):
            Store.open(url)


def test_a_file_of_another_program_a_run_s_queue_and_a_damaged_one_are_left_alone(tmp_path):
    foreign = sqlite3.connect(tmp_path / "foreign.sqlite")
    foreign.execute("CREATE TABLE bookmarks (id INTEGER)")
    foreign.close()
    before = (tmp_path / "foreign.sqlite").read_bytes()
    with pytest.raises(ArtifactError, match="an SQLite file of another program, keel leaves it alone"):
        Store.open(tmp_path / "foreign.sqlite")
    assert (tmp_path / "foreign.sqlite").read_bytes() == before

    Queue(tmp_path / "judging.sqlite")
    with pytest.raises(ArtifactError, match="the judging queue of a run, not a studio's database"):
        Store.open(tmp_path / "judging.sqlite")
    with Store.open(tmp_path / "studio.sqlite"), pytest.raises(ArtifactError, match="of another program"):
        Queue(tmp_path / "studio.sqlite")

    (tmp_path / "text.sqlite").write_text("these are notes, not a database\n" * 100)
    with pytest.raises(ArtifactError, match="damaged or is no SQLite file"):
        Store.open(tmp_path / "text.sqlite")
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(ArtifactError, match="cannot be written"):
        Store.open(tmp_path / "folder.sqlite")
    with pytest.raises(ArtifactError, match="cannot make the folder"):
        Store.open(tmp_path / "text.sqlite" / "studio.sqlite")


def test_a_server_with_tables_of_another_program_is_left_alone(postgres):
    name = postgres.database()
    postgres.run("CREATE TABLE bookmarks (id INTEGER)", name)
    with pytest.raises(ArtifactError, match=r"holds tables of another program \(bookmarks\)"):
        Store.open(postgres.url(name))
    assert postgres.run("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", name) == [("bookmarks",)]


def test_a_server_that_is_not_there_is_named_without_its_password(postgres):
    with pytest.raises(ArtifactError, match="cannot be reached") as raised:
        Store.open("postgresql://ann:secret@127.0.0.1:9/studio")
    assert "secret" not in str(raised.value)
    assert "ann" in str(raised.value)
    with pytest.raises(ArtifactError, match="does not exist"):
        Store.open(postgres.url("nowhere"))


@pytest.mark.parametrize(
    "url", ["mysql://host/name", "sqlite://", "sqlite:///:memory:", "", "  ", "postgresql+asyncpg://host/name", "x://"]
)
def test_an_address_that_keel_does_not_know_is_refused(url):
    with pytest.raises(ConfigError, match=r"Expected a path|Give a path"):
        parse(url)


def test_addresses_that_people_write_are_understood(tmp_path):
    assert parse("a b/studio.sqlite").database == "a b/studio.sqlite"
    assert parse(tmp_path).database == str(tmp_path)
    assert parse("sqlite:////srv/studio.sqlite").database == "/srv/studio.sqlite"
    assert parse("postgres://u@h/n").drivername == parse("postgresql://u@h/n").drivername == "postgresql+psycopg"


def test_a_locked_file_is_explained_and_nothing_is_lost(tmp_path):
    path = tmp_path / "studio.sqlite"
    with Store.open(path, busy_s=0.2) as store:
        demo = rated(store)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ArtifactError, match=r"studio.sqlite: another process has been writing for 0.2 s"):
            demo.lease(demo.raters[0])
        with store.reading() as tx:  # readers never wait
            assert tx.projects.get(demo.project.id) == demo.project
        other.execute("ROLLBACK")
        other.close()
        assert demo.lease(demo.raters[0]) is not None


def test_a_transaction_left_open_by_another_server_is_explained(postgres, migrated_postgres):
    url = postgres.url(postgres.database(migrated_postgres))
    with Store.open(url, busy_s=0.3) as store, Store.open(url) as second:
        demo = rated(store)
        with second.writing() as held:
            held.lock(demo.project.id)
            with pytest.raises(ArtifactError, match=r"another process has been writing for 0\.3 s"):
                demo.lease(demo.raters[0])
        assert demo.lease(demo.raters[0]) is not None


def test_a_full_disk_is_explained_and_what_was_acknowledged_is_there(tmp_path):
    with Store.open(tmp_path / "studio.sqlite") as store:
        demo = rated(store)
        vote = demo.vote(demo.raters[0])

        @sa.event.listens_for(store._engine, "checkout")
        def full(connection, _record, _proxy):
            connection.execute("PRAGMA max_page_count = 1")  # no page beyond those there are: SQLITE_FULL

        with pytest.raises(ArtifactError, match=r"the disk is full\. Nothing that was acknowledged is lost"):
            demo.vote(demo.raters[1], rationale="x" * 20_000)
        sa.event.remove(store._engine, "checkout", full)
        assert demo.votes() == [vote]


def test_two_servers_on_one_database_see_each_other_at_once(url):
    with Store.open(url) as first, Store.open(url) as second:
        demo = rated(first, raters=2, items=1, overlap=1)
        lease = demo.lease(demo.raters[0])
        demo.store = second
        assert demo.lease(demo.raters[1]) is None
        vote = demo.judge(lease)
        demo.store = first
        assert demo.votes() == [vote]


def test_nothing_is_written_when_the_block_fails(store):
    def fail():
        with store.writing() as tx:
            tx.people.create_user("Ann", now=START)
            tx.people.user(99)

    with pytest.raises(MissingError, match="There is no user 99"):
        fail()
    with store.reading() as tx:
        assert tx.people.users() == []


def test_a_reading_transaction_sees_one_state_throughout(store):
    demo = rated(store)
    with store.reading() as tx:
        before = tx.work.progress(demo.project.id)
        demo.vote(demo.raters[0])
        assert tx.work.progress(demo.project.id) == before


def test_an_existing_database_opens_fast_and_without_the_tools_for_migrating(tmp_path):
    path = tmp_path / "studio.sqlite"
    Store.open(path).close()
    start = time.process_time()
    for _ in range(3):
        Store.open(path).close()
    assert (time.process_time() - start) / 3 < 0.2
    program = (
        "import sys; from keel.store.store import Store; Store.open(sys.argv[1]).close(); "
        "sys.exit(' '.join({'alembic', 'torch', 'psycopg'} & sys.modules.keys()) or 0)"
    )
    ran = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_queue_of_a_run_and_the_rows_need_no_sqlalchemy():
    program = (
        "import sys, keel.store.queue, keel.store.rows, keel.store.settings; "
        "sys.exit(' '.join({'sqlalchemy', 'alembic', 'torch', 'psycopg'} & sys.modules.keys()) or 0)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_every_method_of_the_store_is_on_its_page(store):
    page = (Path(__file__).parents[2] / "docs" / "store.md").read_text(encoding="utf-8")
    with store.reading() as tx:
        for name in ("people", "access", "projects", "items", "work", "rounds", "snapshots", "audit"):
            methods = [method for method in dir(getattr(tx, name)) if not method.startswith("_")]
            assert [method for method in methods if not re.search(rf"\b{method}\(", page)] == []


def test_every_setting_of_a_project_is_on_the_page_with_its_default():
    page = (Path(__file__).parents[2] / "docs" / "store.md").read_text(encoding="utf-8")
    for name, field in ProjectSettings.model_fields.items():
        assert f"| `{name}` | `{field.default}` | {field.description} |" in page


def test_a_constraint_of_the_database_is_no_crash(store):
    demo = rated(store)
    with pytest.raises(KeelError, match="refused by the database"), store.writing() as tx:
        tx.run(sa.insert(tables.projects).values(**{**_bare(demo), "name": demo.project.name}))


def _bare(demo):
    return {"title": "x", "state": "open", "settings": "{}", "guide_version": 0, "created": demo.now}
