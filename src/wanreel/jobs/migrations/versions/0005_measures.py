"""What workers measure: their machine, how far a stage is, and how long each stage of an attempt took."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("stage_share", sa.Float, nullable=False, server_default="0"))
    op.add_column("attempts", sa.Column("measures", sa.Text, nullable=False, server_default=""))
    op.add_column("workers", sa.Column("sample", sa.Text, nullable=False, server_default=""))
