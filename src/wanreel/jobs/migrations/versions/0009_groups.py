"""Groups of jobs with one result, and jobs that wait for others."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "groups",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("gathering", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("pending", sa.Boolean, nullable=False),
        sa.Column("worker", sa.Text),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("made_of", sa.Text, nullable=False, server_default=""),
        sa.Column("result", sa.Text, nullable=False, server_default=""),
        sa.Column("error_code", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("error_hint", sa.Text),
        sa.UniqueConstraint("id", name="uq_groups_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_groups_pending", "groups", ["pending", "worker", "seq"])
    op.create_index("ix_groups_owner", "groups", ["owner", "seq"])
    op.create_table(
        "waits",
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("for_id", sa.Text, primary_key=True),
        sa.Column("takes", sa.Text, primary_key=True),
        sa.Column("file", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
    op.create_index("ix_waits_for", "waits", ["for_id"])
    op.add_column("jobs", sa.Column("group_id", sa.Text))
    op.add_column("jobs", sa.Column("cell", sa.Integer))
    op.add_column("jobs", sa.Column("waits", sa.Integer, nullable=False, server_default="0"))
    op.create_index("ix_jobs_group", "jobs", ["group_id", "cell"])
