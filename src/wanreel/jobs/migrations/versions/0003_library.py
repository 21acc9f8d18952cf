"""The library: favourites, and the words and mode of each job, by which it is found."""

from __future__ import annotations

import json
import unicodedata

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("favourite", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("jobs", sa.Column("mode", sa.Text, nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("words", sa.Text, nullable=False, server_default=""))
    _fill()
    op.create_index(
        "ix_jobs_library", "jobs", ["status", "seq", "owner", "model", "mode", "favourite", "created_at", "id"]
    )


def _fill() -> None:
    """Words and mode of the jobs that are there. A request that can't be read is found by neither."""
    jobs = sa.table(
        "jobs", sa.column("seq", sa.Integer), sa.column("request", sa.Text), sa.column("mode", sa.Text),
        sa.column("words", sa.Text),
    )  # fmt: skip
    connection = op.get_bind()
    rows: list[dict[str, object]] = []
    for seq, request in connection.execute(sa.select(jobs.c.seq, jobs.c.request)):
        try:
            values = json.loads(request)
            rows.append({"at": seq, "mode": str(values["mode"]), "words": _folded(str(values["prompt"]))})
        except (ValueError, KeyError, TypeError):
            continue
    if rows:
        connection.execute(jobs.update().where(jobs.c.seq == sa.bindparam("at")), rows)


def _folded(text: str) -> str:
    """As `wanreel.core.job.folded` was when this was written: a migration must not change with the program."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
