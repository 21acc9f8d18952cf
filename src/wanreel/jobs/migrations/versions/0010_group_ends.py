"""Who is told when a group's result is there, and where the result is copied to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    for name in ("webhook", "told", "storage", "upload", "upload_outcome", "uploaded"):
        op.add_column("groups", sa.Column(name, sa.Text, nullable=False, server_default=""))
    op.add_column("groups", sa.Column("upload_due", sa.Float, nullable=False, server_default="0"))
    op.add_column("groups", sa.Column("upload_attempts", sa.Integer, nullable=False, server_default="0"))
    op.create_index("ix_groups_upload", "groups", ["upload", "upload_due"])
