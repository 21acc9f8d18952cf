"""`wanreel rank`: one further process of a worker that has several GPUs. Started by the worker alone."""

from __future__ import annotations

import logging
import os
import sys

import click

from wanreel.host import stop_signals
from wanreel.wiring.serving_rank import serve_rank


@click.command(hidden=True)
@click.option("--device", required=True, help="Of this rank: cpu, cuda:1, …")
def rank(device: str) -> int:
    """Compute a part of what the worker on the other end of the pipes runs."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)-7s %(message)s")
    # Without buffers of Python's own, which a thread that reads would hold while the process ends; and what libraries
    # print must not get between the answers.
    with os.fdopen(os.dup(sys.stdin.fileno()), "rb", 0) as orders, os.fdopen(os.dup(sys.stdout.fileno()), "wb") as said:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        # Who stops all processes of a service means the worker: it finishes its step, for which it needs its ranks.
        with stop_signals(lambda name: None):
            return serve_rank(orders, said, device)
