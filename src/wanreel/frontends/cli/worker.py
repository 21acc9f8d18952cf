"""`wanreel worker`: the process that does the work."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from wanreel.core.settings import load_settings
from wanreel.frontends.cli.gpus import NAMES, choice_of, gpu_options, gpu_settings
from wanreel.frontends.cli.session import open_runtime, traced
from wanreel.host import stop_signals
from wanreel.wiring import build_worker, look_at_queue
from wanreel.worker.supervisor import Supervisor, rearranging, worker_commands


@click.command()
@click.option("--once", is_flag=True, help="Empty the queue and exit.")
@click.option("--device", help="auto (every GPU, or the CPU), cpu, cuda, cuda:1, …")
@click.option("--alone", is_flag=True, help="Work in this process, without one that watches over it.")
@click.option(
    "--supervised", is_flag=True, hidden=True, help="Alone, and leave when the one who started this has ended."
)
@click.option("--workers", type=click.IntRange(min=1), help="How many; one for each GPU by default.")
@gpu_options
@click.option("--models-dir", type=click.Path(path_type=Path), help="Folder of weights.")
@click.option("--auto-load", metavar="MODEL", help="Load a model at the start.")
@click.option("--quiet", is_flag=True, help="Only warnings.")
def worker(once: bool, alone: bool, supervised: bool, quiet: bool, workers: int | None, **given: Any) -> int:
    """Make the videos that were queued, one at a time on each GPU, until stopped.

    Ctrl-C or SIGTERM finishes the step, saves it and exits; the job goes on at the next start. A second one exits at
    once, which loses nothing but the step.
    """
    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s"
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)
    given = {name: value for name, value in given.items() if value is not None} | gpu_settings(given)
    if once or alone or supervised:
        return _work(given, once=once, supervised=supervised)
    options = [
        part for name in ("models_dir", "auto_load") if name in given for part in (_flag(name), str(given[name]))
    ]
    settings = load_settings(**{name: given[name] for name in ("device", *NAMES) if name in given})
    options += ["--quiet"] if quiet else []
    choice, device = choice_of(settings), settings.device
    supervisor = Supervisor(
        worker_commands(device, options, workers, choice),
        rearrange=rearranging(lambda: look_at_queue(settings), device, options, choice),
    )
    with stop_signals(supervisor.stop):
        return supervisor.run()


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _work(given: dict[str, Any], *, once: bool, supervised: bool) -> int:
    with open_runtime(**given) as runtime, traced(runtime.settings, "wanreel-worker") as tracing:
        worker = build_worker(runtime, supervised=supervised)
        if tracing is not None:
            worker.trace = tracing.of_job
        with stop_signals(worker.stop):
            return worker.run(once=once)
