"""Jobs, attempts, events, artifacts, idempotency keys and the state of the queue."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_Serial = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    _create_jobs()
    _create_histories()
    _create_queue()


def _job_id() -> sa.Column[str]:
    return sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False)


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("seq", _Serial, primary_key=True),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("request_sha256", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("parent_id", sa.Text),
        sa.Column("time_limit", sa.Float),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("turn", sa.BigInteger, nullable=False),
        sa.Column("place", sa.Float, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("started_at", sa.Float),
        sa.Column("ended_at", sa.Float),
        sa.Column("ended_number", sa.BigInteger),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("attempts_charged", sa.Integer, nullable=False),
        sa.Column("saved_step", sa.Integer, nullable=False),
        sa.Column("worker", sa.Text),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("total_steps", sa.Integer, nullable=False),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("result_sha256", sa.Text),
        sa.Column("error_code", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("error_hint", sa.Text),
        sa.Column("notes", sa.Text, nullable=False),
        sa.Column("upload", sa.Text),
        sa.Column("last_event", sa.Integer, nullable=False),
        sa.UniqueConstraint("id", name="uq_jobs_id"),
        sa.CheckConstraint(
            "status IN ('queued', 'in_progress', 'completed', 'failed', 'cancelled')", name="ck_jobs_status"
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_line", "jobs", ["status", sa.text("priority DESC"), "turn", "place", "seq"])
    op.create_index("ix_jobs_owner", "jobs", ["owner", "priority", "turn"])
    op.create_index("ix_jobs_owner_seq", "jobs", ["owner", "seq"])
    op.create_index("ix_jobs_ended", "jobs", ["ended_number"])
    op.create_index("ix_jobs_request", "jobs", ["request_sha256"])


def _create_histories() -> None:
    op.create_table(
        "attempts",
        sa.Column("id", _Serial, primary_key=True),
        _job_id(),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("ended_at", sa.Float),
        sa.Column("seconds", sa.Float),
        sa.Column("error_code", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("error_hint", sa.Text),
        sa.UniqueConstraint("job_id", "number", name="uq_attempts_number"),
    )
    op.create_index("ix_attempts_outcome", "attempts", ["outcome", "id"])
    op.create_table(
        "events",
        sa.Column("number", _Serial, primary_key=True),
        _job_id(),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.UniqueConstraint("job_id", "seq", name="uq_events_seq"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "artifacts",
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
    )


def _create_queue() -> None:
    op.create_table(
        "idempotency",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("body_sha256", sa.Text, nullable=False),
        _job_id(),
    )
    op.create_index("ix_idempotency_job", "idempotency", ["job_id"])
    queue = op.create_table(
        "queue",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.Column("automatic", sa.Boolean, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.bulk_insert(queue, [{"id": 1, "paused": False, "automatic": False, "reason": ""}])
    op.create_table(
        "turns",
        sa.Column("priority", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("turn", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "workers",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("drain", sa.Boolean, nullable=False),
    )
