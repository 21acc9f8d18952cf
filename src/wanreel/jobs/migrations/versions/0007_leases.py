"""When each worker last showed that it lives, by the database's clock; what a worker should hold warm for a job."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("workers", sa.Column("renewed_at", sa.Float, nullable=False, server_default="0"))
    op.create_index("ix_workers_renewed", "workers", ["renewed_at"])
    op.add_column("jobs", sa.Column("adapters", sa.Text, nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("passed_over", sa.Integer, nullable=False, server_default="0"))
    op.create_index("ix_jobs_warm", "jobs", ["status", "priority", "model", "turn", "place", "seq"])
