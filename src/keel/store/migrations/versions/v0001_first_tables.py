"""The first tables: people, projects, items, leases, judgments, rounds, snapshots, audit."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

APPLICATION = 0x6B656573
"""`kees` in ASCII (PRAGMA application_id): the studio's file, as against a run's queue."""
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
APPEND_ONLY = ("judgments", "snapshots", "snapshot_chunks", "guides", "audit")
NO_CHANGE = "is append-only: write a new row"
SAME_ROW = {
    "judgments": "id = NEW.id OR (user_id = NEW.user_id AND client_key = NEW.client_key)",
    "snapshots": "id = NEW.id OR (project_id = NEW.project_id AND NEW.name = name) "
    "OR (project_id = NEW.project_id AND content_hash = NEW.content_hash)",
    "snapshot_chunks": "snapshot_id = NEW.snapshot_id AND number = NEW.number",
    "guides": "project_id = NEW.project_id AND version = NEW.version",
    "audit": "id = NEW.id",
}
"""SQLite's INSERT OR REPLACE deletes such a row without asking a trigger for DELETE."""


def upgrade() -> None:
    _tables()
    if op.get_bind().dialect.name == "sqlite":
        _guard_sqlite()
        op.execute(f"PRAGMA application_id = {APPLICATION}")
    else:
        _guard_postgresql()


def _guard_sqlite() -> None:
    for table in APPEND_ONLY:
        refuse = f"BEGIN SELECT RAISE(ABORT, '{table} {NO_CHANGE}'); END"
        for verb in ("UPDATE", "DELETE"):
            op.execute(f"CREATE TRIGGER {table}_{verb.lower()} BEFORE {verb} ON {table} {refuse}")
        same = f"EXISTS (SELECT 1 FROM {table} WHERE {SAME_ROW[table]})"
        op.execute(f"CREATE TRIGGER {table}_replace BEFORE INSERT ON {table} WHEN {same} {refuse}")


def _guard_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION keel_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '% {NO_CHANGE}', TG_TABLE_NAME USING ERRCODE = 'restrict_violation'; END $$"
    )
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION keel_append_only()"
        )


def _column(name: str, kind: Any) -> sa.Column:
    return sa.Column(name, kind, nullable=False)


def _count(name: str) -> sa.Column:
    return sa.Column(name, sa.Integer(), nullable=False, server_default=sa.text("0"))


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def _tables() -> None:
    op.create_table(
        "projects",
        _column("id", ID),
        _column("name", sa.Text()),
        _column("title", sa.Text()),
        _column("state", sa.Text()),
        _column("settings", sa.Text()),
        _column("guide_version", sa.Integer()),
        _column("created", sa.Double()),
        _count("pairs"),
        _count("votes"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "users",
        _column("id", ID),
        _column("name", sa.Text()),
        sa.Column("name_key", sa.Text()),
        sa.Column("email", sa.Text()),
        _column("admin", sa.Boolean()),
        _column("active", sa.Boolean()),
        _column("kind", sa.Text()),
        sa.Column("password_hash", sa.Text()),
        _column("created", sa.Double()),
        sa.Column("erased", sa.Double()),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name_key"),
    )
    op.create_table(
        "audit",
        _column("id", ID),
        _column("at", sa.Double()),
        sa.Column("user_id", ID),
        sa.Column("project_id", ID),
        _column("action", sa.Text()),
        _column("target", sa.Text()),
        _column("details", sa.Text()),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("audit_of_project", "audit", ["project_id", "id"])
    op.create_index("audit_of_user", "audit", ["user_id", "id"])
    op.create_table(
        "guides",
        _column("project_id", ID),
        _column("version", sa.Integer()),
        _column("text", sa.Text()),
        sa.Column("by_user", ID),
        _column("created", sa.Double()),
        sa.ForeignKeyConstraint(["by_user"], ["users.id"]),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("project_id", "version"),
    )
    op.create_table(
        "invites",
        _column("id", ID),
        sa.Column("project_id", ID),
        _column("role", sa.Text()),
        _column("skills", sa.Text()),
        _column("token_hash", sa.Text()),
        _column("uses_left", sa.Integer()),
        _column("created", sa.Double()),
        _column("expires", sa.Double()),
        sa.Column("by_user", ID),
        sa.ForeignKeyConstraint(["by_user"], ["users.id"]),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("token_hash"),
    )
    op.create_index("invites_of_project", "invites", ["project_id"])
    op.create_table(
        "items",
        _column("id", ID),
        _column("project_id", ID),
        _column("key", sa.Text()),
        _column("prompt", sa.Text()),
        _column("a", sa.Text()),
        _column("b", sa.Text()),
        _column("provenance", sa.Text()),
        _column("created", sa.Double()),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("project_id", "key"),
    )
    op.create_table(
        "memberships",
        _column("project_id", ID),
        _column("user_id", ID),
        _column("role", sa.Text()),
        _column("pseudonym", sa.Text()),
        _column("skills", sa.Text()),
        _column("weight", sa.Double()),
        _column("active", sa.Boolean()),
        sa.Column("unlocked_round", sa.Integer()),
        _column("joined", sa.Double()),
        _count("n_judge"),
        _count("n_calibration"),
        _count("n_golden"),
        _count("n_repeat"),
        _count("n_adjudicate"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"]),
        sa.PrimaryKeyConstraint("project_id", "user_id"),
        sa.UniqueConstraint("project_id", "pseudonym"),
    )
    op.create_index("memberships_of_user", "memberships", ["user_id"])
    op.create_table(
        "rounds",
        _column("id", ID),
        _column("project_id", ID),
        _column("number", sa.Integer()),
        _column("guide_version", sa.Integer()),
        _column("item_ids", sa.Text()),
        _column("state", sa.Text()),
        _column("opened", sa.Double()),
        sa.Column("closed", sa.Double()),
        _column("figures", sa.Text()),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("project_id", "number"),
    )
    op.create_table(
        "sessions",
        _column("id", ID),
        _column("user_id", ID),
        _column("session_hash", sa.Text()),
        _column("csrf", sa.Text()),
        _column("created", sa.Double()),
        _column("expires", sa.Double()),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("session_hash"),
    )
    op.create_index("sessions_of_user", "sessions", ["user_id"])
    op.create_table(
        "snapshots",
        _column("id", ID),
        _column("project_id", ID),
        _column("name", sa.Text()),
        _column("content_hash", sa.Text()),
        _column("created", sa.Double()),
        sa.Column("by_user", ID),
        _column("manifest", sa.Text()),
        _column("records", sa.Integer()),
        _column("num_bytes", ID),
        sa.ForeignKeyConstraint(["by_user"], ["users.id"]),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("project_id", "content_hash"),
        sa.UniqueConstraint("project_id", "name"),
    )
    op.create_table(
        "tokens",
        _column("id", ID),
        _column("user_id", ID),
        _column("name", sa.Text()),
        _column("token_hash", sa.Text()),
        _column("created", sa.Double()),
        sa.Column("expires", sa.Double()),
        sa.Column("used", sa.Double()),
        sa.Column("revoked", sa.Double()),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("token_hash"),
    )
    op.create_index("tokens_of_user", "tokens", ["user_id"])
    op.create_table(
        "leases",
        _column("id", ID),
        _column("project_id", ID),
        _column("item_id", ID),
        _column("user_id", ID),
        _column("purpose", sa.Text()),
        _column("round_key", ID),
        _column("swapped", sa.Boolean()),
        _column("guide_version", sa.Integer()),
        _column("leased", sa.Double()),
        _column("expires", sa.Double()),
        _column("state", sa.Text()),
        sa.Column("judgment_id", ID),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"]),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("user_id", "item_id", "purpose", "round_key"),
    )
    op.create_index("leases_live", "leases", ["project_id", "expires"], **_where("state = 'live'"))
    op.create_index("leases_live_of_user", "leases", ["user_id", "project_id", "id"], **_where("state = 'live'"))
    op.create_index("leases_of_item", "leases", ["item_id"])
    op.create_index("leases_of_project", "leases", ["project_id", "purpose", "id"])
    op.create_index("leases_of_round", "leases", ["round_key", "user_id"], **_where("round_key > 0"))
    op.create_index("leases_of_user", "leases", ["user_id", "project_id", "purpose", "state", "id"])
    op.create_index("leases_seen", "leases", ["user_id", "item_id", "state"])
    op.create_table(
        "slots",
        sa.Column("item_id", ID, nullable=False, autoincrement=False),
        _column("project_id", ID),
        _column("kind", sa.Text()),
        sa.Column("gold", sa.Text()),
        _column("skills", sa.Text()),
        _column("priority", sa.Double()),
        _column("state", sa.Text()),
        sa.Column("removed", sa.Double()),
        sa.Column("settled", sa.Text()),
        _count("votes"),
        _count("votes_a"),
        _count("votes_b"),
        _count("votes_tie"),
        _count("votes_bad"),
        _count("skips"),
        _count("flags"),
        _count("live"),
        _count("filled"),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"]),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("item_id"),
    )
    op.create_index("slots_by_kind", "slots", ["project_id", "kind", "state", "item_id"])
    op.create_index("slots_flagged", "slots", ["project_id", "item_id"], **_where("flags > 0"))
    op.create_index("slots_golden", "slots", ["project_id", "item_id"], **_where("kind = 'golden'"))
    op.create_index("slots_of_project", "slots", ["project_id", "item_id", "state"])
    op.create_index(
        "slots_open",
        "slots",
        ["project_id", "skills", "filled", sa.literal_column("priority DESC"), "item_id"],
        **_where("kind = 'pair' AND state = 'open'"),
    )
    op.create_table(
        "snapshot_chunks",
        _column("snapshot_id", ID),
        _column("number", sa.Integer()),
        _column("data", sa.LargeBinary()),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshots.id"]),
        sa.PrimaryKeyConstraint("snapshot_id", "number"),
    )
    op.create_table(
        "judgments",
        _column("id", ID),
        _column("lease_id", ID),
        _column("project_id", ID),
        _column("item_id", ID),
        _column("user_id", ID),
        _column("purpose", sa.Text()),
        sa.Column("round_id", ID),
        _column("choice", sa.Text()),
        sa.Column("strength", sa.Integer()),
        sa.Column("flag", sa.Text()),
        sa.Column("rationale", sa.Text()),
        sa.Column("seconds", sa.Double()),
        _column("swapped", sa.Boolean()),
        _column("guide_version", sa.Integer()),
        _column("client_key", sa.Text()),
        _column("created", sa.Double()),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"]),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.id"]),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"]),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("user_id", "client_key"),
    )
    op.create_index("judgments_of_item", "judgments", ["item_id"])
    op.create_index("judgments_of_lease", "judgments", ["lease_id", "id"])
    op.create_index("judgments_of_project", "judgments", ["project_id", "id"])
    op.create_index("judgments_of_user", "judgments", ["user_id", "project_id", "created", "id"])
