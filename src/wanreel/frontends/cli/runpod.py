"""`wanreel runpod`: the process that RunPod's containers run."""

from __future__ import annotations

import logging

import click

from wanreel.frontends.cli.session import open_runtime


@click.command()
@click.option(
    "--test_input", "--test-input", metavar="JSON", help='Make one job, such as {"input": {"prompt": …}}, and exit.'
)
def runpod(test_input: str | None) -> int:
    """Make the videos that a RunPod serverless endpoint is asked for.

    Without --test_input and outside of RunPod, the job in test_input.json of the current folder is made.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    from wanreel.frontends.runpod.worker import run_worker

    with open_runtime() as runtime:
        run_worker(runtime, test_input)
    return 0
