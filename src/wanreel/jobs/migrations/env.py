"""Alembic's entry point: runs the migrations inside the transaction that `wanreel.jobs.migrate` opened."""

from __future__ import annotations

from alembic import context

connection = context.config.attributes["connection"]
# All migrations are one transaction, so that a kill at any statement leaves the old schema whole. SQLite's DDL is
# transactional; Alembic assumes it is not because the driver's legacy mode commits behind its back, which ours does not.
context.configure(connection=connection, transactional_ddl=True, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
