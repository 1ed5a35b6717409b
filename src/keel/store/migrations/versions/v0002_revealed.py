"""Which votes may be read by those who lead, and who may have read some."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("slots", sa.Column("revealed", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("memberships", sa.Column("insider", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.execute(
        "UPDATE slots SET revealed = true WHERE kind = 'golden' OR "
        "(state <> 'open' AND (votes + skips > 0 OR settled IS NOT NULL))"
    )
    database = op.get_bind()
    closed = database.execute(sa.text("SELECT item_ids FROM rounds WHERE state <> 'open'"))
    if items := sorted({item for (item_ids,) in closed for item in json.loads(item_ids)}):
        reveal = sa.text("UPDATE slots SET revealed = true WHERE item_id = :item")
        database.execute(reveal, [{"item": item} for item in items])
    op.execute("UPDATE memberships SET insider = true WHERE role IN ('senior', 'lead')")
