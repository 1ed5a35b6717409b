"""The tables of the studio's database as SQLAlchemy sees them; `migrations` makes them, a test holds both together.

Texts of an item stand in `items` and never change; what changes with every vote stands in `slots`, so that a vote
writes a short row. Counters in `slots`, `memberships` and `projects` follow from leases and judgments and are written
in the same transaction.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

metadata = MetaData()
Id = BigInteger().with_variant(Integer, "sqlite")
VERSION_TABLE = "keel_version"
"""Where Alembic notes the version; a name of our own tells the database from other programs'."""


def _column(name: str, kind: type | BigInteger, *more: ForeignKey) -> Column:
    return Column(name, kind, *more, nullable=False)


def _count(name: str) -> Column:
    return Column(name, Integer, nullable=False, server_default=text("0"))


def _flag(name: str) -> Column:
    return Column(name, Boolean, nullable=False, server_default=false())


users = Table(
    "users",
    metadata,
    Column("id", Id, primary_key=True),
    _column("name", Text),
    Column("name_key", Text, unique=True),
    Column("email", Text),
    _column("admin", Boolean),
    _column("active", Boolean),
    _column("kind", Text),
    Column("password_hash", Text),
    _column("created", Double),
    Column("erased", Double),
)

projects = Table(
    "projects",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    _column("title", Text),
    _column("state", Text),
    _column("settings", Text),
    _column("guide_version", Integer),
    _column("created", Double),
    _count("pairs"),
    _count("votes"),
)

memberships = Table(
    "memberships",
    metadata,
    _column("project_id", Id, ForeignKey("projects.id")),
    _column("user_id", Id, ForeignKey("users.id")),
    _column("role", Text),
    _column("pseudonym", Text),
    _column("skills", Text),
    _column("weight", Double),
    _column("active", Boolean),
    Column("unlocked_round", Integer),
    _column("joined", Double),
    _count("n_judge"),
    _count("n_calibration"),
    _count("n_golden"),
    _count("n_repeat"),
    _count("n_adjudicate"),
    _flag("insider"),
    PrimaryKeyConstraint("project_id", "user_id"),
    UniqueConstraint("project_id", "pseudonym"),
    Index("memberships_of_user", "user_id"),
)

guides = Table(
    "guides",
    metadata,
    _column("project_id", Id, ForeignKey("projects.id")),
    _column("version", Integer),
    _column("text", Text),
    Column("by_user", Id, ForeignKey("users.id")),
    _column("created", Double),
    PrimaryKeyConstraint("project_id", "version"),
)

items = Table(
    "items",
    metadata,
    Column("id", Id, primary_key=True),
    _column("project_id", Id, ForeignKey("projects.id")),
    _column("key", Text),
    _column("prompt", Text),
    _column("a", Text),
    _column("b", Text),
    _column("provenance", Text),
    _column("created", Double),
    UniqueConstraint("project_id", "key"),
)

slots = Table(
    "slots",
    metadata,
    Column("item_id", Id, ForeignKey("items.id"), primary_key=True, autoincrement=False),
    _column("project_id", Id, ForeignKey("projects.id")),
    _column("kind", Text),
    Column("gold", Text),
    _column("skills", Text),
    _column("priority", Double),
    _column("state", Text),
    Column("removed", Double),
    Column("settled", Text),
    _count("votes"),
    _count("votes_a"),
    _count("votes_b"),
    _count("votes_tie"),
    _count("votes_bad"),
    _count("skips"),
    _count("flags"),
    _count("live"),
    _count("filled"),  # votes + live: a column of its own for the index
    _flag("revealed"),
)
Index(
    "slots_open",
    slots.c.project_id,
    slots.c.skills,
    slots.c.filled,
    slots.c.priority.desc(),
    slots.c.item_id,
    sqlite_where=text("kind = 'pair' AND state = 'open'"),
    postgresql_where=text("kind = 'pair' AND state = 'open'"),
)
Index("slots_by_kind", slots.c.project_id, slots.c.kind, slots.c.state, slots.c.item_id)
Index("slots_of_project", slots.c.project_id, slots.c.item_id, slots.c.state)
for _name, _where in (("slots_flagged", "flags > 0"), ("slots_golden", "kind = 'golden'")):
    Index(_name, slots.c.project_id, slots.c.item_id, sqlite_where=text(_where), postgresql_where=text(_where))

rounds = Table(
    "rounds",
    metadata,
    Column("id", Id, primary_key=True),
    _column("project_id", Id, ForeignKey("projects.id")),
    _column("number", Integer),
    _column("guide_version", Integer),
    _column("item_ids", Text),
    _column("state", Text),
    _column("opened", Double),
    Column("closed", Double),
    _column("figures", Text),
    UniqueConstraint("project_id", "number"),
)

leases = Table(
    "leases",
    metadata,
    Column("id", Id, primary_key=True),
    _column("project_id", Id, ForeignKey("projects.id")),
    _column("item_id", Id, ForeignKey("items.id")),
    _column("user_id", Id, ForeignKey("users.id")),
    _column("purpose", Text),
    _column("round_key", Id),  # the round's id, 0 outside calibration: NULLs would be unequal to each other
    _column("swapped", Boolean),
    _column("guide_version", Integer),
    _column("leased", Double),
    _column("expires", Double),
    _column("state", Text),
    Column("judgment_id", Id),
    UniqueConstraint("user_id", "item_id", "purpose", "round_key"),
    Index("leases_seen", "user_id", "item_id", "state"),
    Index("leases_of_user", "user_id", "project_id", "purpose", "state", "id"),
    Index("leases_of_project", "project_id", "purpose", "id"),
    Index("leases_of_item", "item_id"),
)
for _name, _columns, _where in (
    ("leases_live", (leases.c.project_id, leases.c.expires), "state = 'live'"),
    ("leases_live_of_user", (leases.c.user_id, leases.c.project_id, leases.c.id), "state = 'live'"),
    ("leases_of_round", (leases.c.round_key, leases.c.user_id), "round_key > 0"),
):
    Index(_name, *_columns, sqlite_where=text(_where), postgresql_where=text(_where))

judgments = Table(
    "judgments",
    metadata,
    Column("id", Id, primary_key=True),
    _column("lease_id", Id, ForeignKey("leases.id")),
    _column("project_id", Id, ForeignKey("projects.id")),
    _column("item_id", Id, ForeignKey("items.id")),
    _column("user_id", Id, ForeignKey("users.id")),
    _column("purpose", Text),
    Column("round_id", Id, ForeignKey("rounds.id")),
    _column("choice", Text),
    Column("strength", Integer),
    Column("flag", Text),
    Column("rationale", Text),
    Column("seconds", Double),
    _column("swapped", Boolean),
    _column("guide_version", Integer),
    _column("client_key", Text),
    _column("created", Double),
    UniqueConstraint("user_id", "client_key"),
    Index("judgments_of_lease", "lease_id", "id"),
    Index("judgments_of_project", "project_id", "id"),
    Index("judgments_of_user", "user_id", "project_id", "created", "id"),
    Index("judgments_of_item", "item_id"),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("id", Id, primary_key=True),
    _column("project_id", Id, ForeignKey("projects.id")),
    _column("name", Text),
    _column("content_hash", Text),
    _column("created", Double),
    Column("by_user", Id, ForeignKey("users.id")),
    _column("manifest", Text),
    _column("records", Integer),
    _column("num_bytes", Id),
    UniqueConstraint("project_id", "name"),
    UniqueConstraint("project_id", "content_hash"),
)

snapshot_chunks = Table(
    "snapshot_chunks",
    metadata,
    _column("snapshot_id", Id, ForeignKey("snapshots.id")),
    _column("number", Integer),
    _column("data", LargeBinary),
    PrimaryKeyConstraint("snapshot_id", "number"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Id, primary_key=True),
    _column("at", Double),
    Column("user_id", Id, ForeignKey("users.id")),
    Column("project_id", Id, ForeignKey("projects.id")),
    _column("action", Text),
    _column("target", Text),
    _column("details", Text),
    Index("audit_of_project", "project_id", "id"),
    Index("audit_of_user", "user_id", "id"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Id, primary_key=True),
    _column("user_id", Id, ForeignKey("users.id")),
    _column("name", Text),
    Column("token_hash", Text, nullable=False, unique=True),
    _column("created", Double),
    Column("expires", Double),
    Column("used", Double),
    Column("revoked", Double),
    Index("tokens_of_user", "user_id"),
)

invites = Table(
    "invites",
    metadata,
    Column("id", Id, primary_key=True),
    Column("project_id", Id, ForeignKey("projects.id")),
    _column("role", Text),
    _column("skills", Text),
    Column("token_hash", Text, nullable=False, unique=True),
    _column("uses_left", Integer),
    _column("created", Double),
    _column("expires", Double),
    Column("by_user", Id, ForeignKey("users.id")),
    Index("invites_of_project", "project_id"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", Id, primary_key=True),
    _column("user_id", Id, ForeignKey("users.id")),
    Column("session_hash", Text, nullable=False, unique=True),
    _column("csrf", Text),
    _column("created", Double),
    _column("expires", Double),
    Index("sessions_of_user", "user_id"),
)

APPEND_ONLY = ("judgments", "snapshots", "snapshot_chunks", "guides", "audit")
"""Tables whose rows nobody may change or remove, whoever writes; triggers see to it."""
