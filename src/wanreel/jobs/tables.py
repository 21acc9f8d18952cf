"""The tables as they are now. Knows nothing of how they came about: that is `migrations/`."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
)

metadata = MetaData()

#: SQLite numbers rows by itself only in a column whose type is spelt INTEGER.
_Serial = BigInteger().with_variant(Integer, "sqlite")


def _job_id() -> Column[str]:
    return Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False)


jobs = Table(
    "jobs",
    metadata,
    Column("seq", _Serial, primary_key=True),  # order of acceptance
    Column("id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("request_sha256", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("parent_id", Text),
    Column("time_limit", Float),
    # The line is ordered by (priority descending, turn, place, seq); see `line.py`.
    Column("priority", Integer, nullable=False),
    Column("turn", BigInteger, nullable=False),
    Column("place", Float, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("ended_at", Float),
    Column("ended_number", BigInteger),  # number of the event that ended it: order of ending without a clock
    Column("attempt", Integer, nullable=False),
    Column("attempts_charged", Integer, nullable=False),
    Column("saved_step", Integer, nullable=False),  # the furthest step a checkpoint was reported for
    Column("worker", Text),
    Column("stage", Text, nullable=False),
    Column("stage_share", Float, nullable=False, server_default="0"),  # 0 to 1, of a stage that has no steps
    Column("step", Integer, nullable=False),
    Column("total_steps", Integer, nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    Column("result_sha256", Text),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("error_hint", Text),
    Column("notes", Text, nullable=False),  # JSON list of text
    Column("upload", Text),
    Column("last_event", Integer, nullable=False),  # highest event seq given out
    Column("favourite", Boolean, nullable=False, server_default=false()),
    Column("mode", Text, nullable=False, server_default=""),
    Column("words", Text, nullable=False, server_default=""),  # the prompt, folded, for searching
    Column("adapters", Text, nullable=False, server_default=""),  # the LoRAs that a worker best has applied already
    Column("passed_over", Integer, nullable=False, server_default="0"),  # as the next in line; see `line.py`
    Column("group_id", Text),
    Column("cell", Integer),  # place within the group
    Column("waits", Integer, nullable=False, server_default="0"),  # rows of `waits` whose job has not completed
    UniqueConstraint("id", name="uq_jobs_id"),
    CheckConstraint("status IN ('queued', 'in_progress', 'completed', 'failed', 'cancelled')", name="ck_jobs_status"),
    sqlite_autoincrement=True,
)
Index("ix_jobs_line", jobs.c.status, jobs.c.priority.desc(), jobs.c.turn, jobs.c.place, jobs.c.seq)
Index("ix_jobs_warm", jobs.c.status, jobs.c.priority, jobs.c.model, jobs.c.turn, jobs.c.place, jobs.c.seq)
Index("ix_jobs_owner", jobs.c.owner, jobs.c.priority, jobs.c.turn)
Index("ix_jobs_owner_seq", jobs.c.owner, jobs.c.seq)
Index("ix_jobs_ended", jobs.c.ended_number)
Index("ix_jobs_request", jobs.c.request_sha256)
Index("ix_jobs_group", jobs.c.group_id, jobs.c.cell)
# Everything the library narrows by but the words, so that counting and paging read no requests.
Index(
    "ix_jobs_library",
    jobs.c.status,
    jobs.c.seq,
    jobs.c.owner,
    jobs.c.model,
    jobs.c.mode,
    jobs.c.favourite,
    jobs.c.created_at,
    jobs.c.id,
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", _Serial, primary_key=True),
    _job_id(),
    Column("number", Integer, nullable=False),
    Column("worker", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("seconds", Float),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("error_hint", Text),
    Column("measures", Text, nullable=False, server_default=""),  # JSON object; see `core.measures`
    UniqueConstraint("job_id", "number", name="uq_attempts_number"),
)
Index("ix_attempts_outcome", attempts.c.outcome, attempts.c.id)

events = Table(
    "events",
    metadata,
    Column("number", _Serial, primary_key=True),
    _job_id(),
    Column("seq", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("data", Text, nullable=False),  # JSON object
    Column("at", Float, nullable=False),
    UniqueConstraint("job_id", "seq", name="uq_events_seq"),
    # Compaction deletes the newest row, so numbers must not be given out twice.
    sqlite_autoincrement=True,
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("media_type", Text, nullable=False),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("body_sha256", Text, nullable=False),
    _job_id(),
)
Index("ix_idempotency_job", idempotency.c.job_id)

queue = Table(
    "queue",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # one row, id 1
    Column("paused", Boolean, nullable=False),
    Column("automatic", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
)

turns = Table(
    "turns",
    metadata,
    Column("priority", Integer, primary_key=True, autoincrement=False),
    Column("turn", BigInteger, nullable=False),  # the latest turn claimed at this priority
)

workers = Table(
    "workers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("description", Text, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("drain", Boolean, nullable=False),
    Column("sample", Text, nullable=False, server_default=""),  # JSON object; see `core.sample`
    Column(
        "renewed_at", Float, nullable=False, server_default="0"
    ),  # by the server's clock; 0 where no lease is needed
)
Index("ix_workers_renewed", workers.c.renewed_at)

webhooks = Table(
    "webhooks",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("url", Text, nullable=False),
)

# Not tied to the job's row: a job that ended and was deleted at once is still told of.
deliveries = Table(
    "deliveries",
    metadata,
    Column("seq", _Serial, primary_key=True),
    Column("id", Text, nullable=False),
    Column("job_id", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("data", Text, nullable=False),  # JSON object
    Column("url", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", Float, nullable=False),
    Column("outcome", Text, nullable=False),  # how the newest attempt went, in words
    UniqueConstraint("id", name="uq_deliveries_id"),
    CheckConstraint("state IN ('pending', 'delivered', 'given_up')", name="ck_deliveries_state"),
    sqlite_autoincrement=True,
)
Index("ix_deliveries_due", deliveries.c.state, deliveries.c.due_at)
Index("ix_deliveries_job", deliveries.c.job_id, deliveries.c.seq)

destinations = Table(
    "destinations",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("profile", Text, nullable=False),  # of the operator's; empty where the request brought its own storage
    Column("holder", Text, nullable=False),  # the process that has the request's keys in memory
    Column("token", Text, nullable=False),  # by which it finds them
    Column("renewed_at", Float, nullable=False),  # when the holder last showed that it lives
)
Index("ix_destinations_holder", destinations.c.holder)

uploads = Table(
    "uploads",
    metadata,
    Column("seq", _Serial, primary_key=True),
    _job_id(),
    Column("kind", Text, nullable=False),  # of the artifact
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", Float, nullable=False),  # of the next attempt; while one runs, when it is taken for dead
    Column("outcome", Text, nullable=False),  # how the newest attempt that failed went, in words
    Column("sender", Text, nullable=False),  # the process that is at it
    Column("bucket", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("is_here", Boolean, nullable=False),  # whether the local file was not yet deleted as a safe copy
    UniqueConstraint("job_id", "kind", name="uq_uploads_kind"),
    CheckConstraint("state IN ('waiting', 'uploading', 'done', 'failed', 'credentials_lost')", name="ck_uploads_state"),
    sqlite_autoincrement=True,
)
Index("ix_uploads_due", uploads.c.state, uploads.c.due_at)

plan_runs = Table(
    "plan_runs",
    metadata,
    Column("seq", _Serial, primary_key=True),
    Column("machine", Text, nullable=False),  # the GPU's name; empty for a CPU
    Column("model", Text, nullable=False),
    Column("size", Text, nullable=False),  # "1280x720x81"
    Column("plan", Text, nullable=False),  # `str(Placement)`
    Column("failed", Text, nullable=False),  # the stage in which memory ran out; empty for a run that went well
    Column("stages", Text, nullable=False),  # JSON object; see `core.memory_plan.PlanRun`
    Column("at", Float, nullable=False),  # wall clock, seconds since 1970
    sqlite_autoincrement=True,
)
Index("ix_plan_runs_machine", plan_runs.c.machine, plan_runs.c.model, plan_runs.c.seq)

groups = Table(
    "groups",
    metadata,
    Column("seq", _Serial, primary_key=True),
    Column("id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("spec", Text, nullable=False),  # JSON object; what is in it depends on the kind
    Column("gathering", Text, nullable=False),  # see `core.group`
    Column("created_at", Float, nullable=False),
    Column("pending", Boolean, nullable=False),  # a worker has to look what is to be made
    Column("worker", Text),  # who makes it
    Column("failures", Integer, nullable=False),
    Column("made_of", Text, nullable=False, server_default=""),  # ids with spaces between
    Column("result", Text, nullable=False, server_default=""),  # JSON object
    Column("error_code", Text),
    Column("error_message", Text),
    Column("error_hint", Text),
    Column("webhook", Text, nullable=False, server_default=""),
    Column("told", Text, nullable=False, server_default=""),  # the end that was told of last
    Column("storage", Text, nullable=False, server_default=""),  # the operator's profile
    Column("upload", Text, nullable=False, server_default=""),  # state of the copy; empty before the first result
    Column("upload_due", Float, nullable=False, server_default="0"),  # as of `uploads`
    Column("upload_attempts", Integer, nullable=False, server_default="0"),
    Column("upload_outcome", Text, nullable=False, server_default=""),
    Column("uploaded", Text, nullable=False, server_default=""),  # JSON list of the files that are there
    UniqueConstraint("id", name="uq_groups_id"),
    sqlite_autoincrement=True,
)
Index("ix_groups_pending", groups.c.pending, groups.c.worker, groups.c.seq)
Index("ix_groups_owner", groups.c.owner, groups.c.seq)
Index("ix_groups_upload", groups.c.upload, groups.c.upload_due)

# What it waits for is named and not tied: it may be deleted when it has completed.
waits = Table(
    "waits",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("for_id", Text, primary_key=True),
    Column("takes", Text, primary_key=True),  # what it takes of it: a knob, or another word; may be empty
    Column("file", Text, nullable=False),  # kind of the artifact that is taken
    Column("detail", Text, nullable=False),  # JSON object, or empty
)
Index("ix_waits_for", waits.c.for_id)
