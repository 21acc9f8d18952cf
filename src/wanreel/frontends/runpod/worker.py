"""The worker: RunPod's SDK around a Handler. The only module that knows the SDK.

Two things of the SDK are set right, as they would write request-borne keys down: it notes running jobs with their whole
input in a file of the folder it was imported in, and its level DEBUG, which is its default, prints inputs and results.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

from wanreel.core.errors import InvalidRequest, MissingDependency
from wanreel.core.settings import variable
from wanreel.frontends.fetcher import build_fetcher
from wanreel.frontends.own_storage import build_own_storage
from wanreel.frontends.runpod.handler import Handler
from wanreel.frontends.runpod.storing import Storing
from wanreel.wiring import Runtime

_log = logging.getLogger(__name__)

_CHATTY = frozenset({"DEBUG", "TRACE"})
_REPORT_THREAD = "(_thread_target)"  # how the names of the SDK's threads for reports end
_SETTLED = 5.0  # seconds that reports may take


def run_worker(runtime: Runtime, test_input: str | None) -> None:
    """Takes jobs from RunPod until it is asked to stop. With `test_input`, or outside of RunPod, one job and an exit.

    Raises MissingDependency, InvalidRequest, SystemExit with the SDK's exit code.
    """
    arguments = ["wanreel"] if test_input is None else ["wanreel", "--test_input", _checked(test_input)]
    with tempfile.TemporaryDirectory(prefix="wanreel-runpod-") as private:
        serverless = _import_sdk(private)
        config: dict[str, Any] = {}
        outbound = runtime.settings.outbound
        told = bool(variable("RUNPOD_WEBHOOK_POST_OUTPUT"))  # outside of RunPod there is nobody to report to
        fetcher = build_fetcher(outbound)
        handler = Handler(
            runtime,
            Storing(runtime.settings, build_own_storage(outbound, fetcher)),
            fetch=fetcher.get if outbound.pictures else None,
            report=lambda job_id, facts: serverless.progress_update({"id": job_id}, facts) if told else None,
            settle=_settle,
            replace_worker=lambda: config.update(refresh_worker=True),
        )
        config["handler"] = handler.answer
        began = time.monotonic()
        runtime.warm_up()
        if runtime.held:
            _log.info("%s is loaded, in %.1f s", runtime.held, time.monotonic() - began)
        given, sys.argv = sys.argv, arguments  # the SDK reads its flags there
        try:
            serverless.start(config)
        finally:
            sys.argv = given
            handler.close()


def _checked(test_input: str) -> str:
    """A job as JSON. Raises InvalidRequest: the SDK would show a traceback."""
    try:
        job: object = json.loads(test_input)
    except ValueError as exc:
        raise InvalidRequest.of("test_input", "bad_json", "is no JSON.", 'Give {"input": {"prompt": …}}.') from exc
    if not isinstance(job, dict) or "input" not in job:
        raise InvalidRequest.of("test_input", "required", "has no input.", 'Give {"input": {"prompt": …}}.')
    return test_input


def _import_sdk(private: str) -> Any:
    """RunPod's serverless module, keeping its file of running jobs in the folder `private`, with their ids alone.

    A folder of its own also lets a worker that starts where another one died take jobs at once: the SDK counts those
    that it finds in the file as its own. Raises MissingDependency.
    """
    try:
        with contextlib.chdir(private):
            serverless = importlib.import_module("runpod.serverless")
            state = importlib.import_module("runpod.serverless.modules.worker_state")
            logs = importlib.import_module("runpod.serverless.modules.rp_logger")
    except ImportError as exc:
        raise MissingDependency("RunPod's SDK is needed.", hint="pip install 'wanreel[runpod]'.") from exc
    state.Job.__getstate__ = _id_alone
    logger = logs.RunPodLogger()
    if logger.level in _CHATTY:
        logger.level = "INFO"
    return serverless


def _id_alone(job: Any) -> dict[str, object]:
    """What is written of a running job: enough for the SDK's pings."""
    return {"id": job.id}


def _settle() -> None:
    """Wait for the SDK's threads that send reports: one that arrives after the result makes the job run again."""
    until = time.monotonic() + _SETTLED
    for thread in _reports():
        thread.join(max(0.0, until - time.monotonic()))


def _reports() -> Iterator[threading.Thread]:
    return (thread for thread in threading.enumerate() if thread.name.endswith(_REPORT_THREAD))
