"""Which votes may be read by those who lead, and who may have read some."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("slots", sa.Column("revealed", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("memberships", sa.Column("insider", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.execute(
        "UPDATE slots SET revealed = true WHERE state <> 'open' OR kind = 'golden' OR (kind = 'calibration' "
        "AND project_id NOT IN (SELECT project_id FROM rounds WHERE state = 'open'))"
    )
    op.execute("UPDATE memberships SET insider = true WHERE role IN ('senior', 'lead')")
