"""What runs under memory plans took, and which plans ran out of memory."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "plan_runs",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("machine", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("size", sa.Text, nullable=False),
        sa.Column("plan", sa.Text, nullable=False),
        sa.Column("failed", sa.Text, nullable=False),
        sa.Column("stages", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_plan_runs_machine", "plan_runs", ["machine", "model", "seq"])
