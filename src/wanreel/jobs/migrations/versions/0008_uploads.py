"""Copies of results in object storage: where they go, and how each file fares."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    job = sa.ForeignKey("jobs.id", ondelete="CASCADE")
    op.create_table(
        "destinations",
        sa.Column("job_id", sa.Text, job, primary_key=True),
        sa.Column("profile", sa.Text, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("renewed_at", sa.Float, nullable=False),
    )
    op.create_index("ix_destinations_holder", "destinations", ["holder"])
    op.create_table(
        "uploads",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at", sa.Float, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("sender", sa.Text, nullable=False),
        sa.Column("bucket", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("is_here", sa.Boolean, nullable=False),
        sa.UniqueConstraint("job_id", "kind", name="uq_uploads_kind"),
        sa.CheckConstraint(
            "state IN ('waiting', 'uploading', 'done', 'failed', 'credentials_lost')", name="ck_uploads_state"
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_uploads_due", "uploads", ["state", "due_at"])
