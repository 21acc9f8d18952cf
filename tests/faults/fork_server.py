"""A process that has imported everything and forks on request, so that a fresh worker costs no import.

Run as a script. Reads JSON lines on stdin: {"argv": […], "env": {…}, "log": path} starts `wanreel ARGV` and answers
{"pid": …}; {"wait": pid} answers {"code": …} when it has ended, negative for a signal; {"poll": pid} the same
at once, null while it runs.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path

from PIL import Image

from wanreel import wiring
from wanreel.core.catalog import Catalog
from wanreel.frontends.cli import main, worker
from wanreel.jobs import JobStore
from wanreel.models import open as opening
from wanreel.models import planning
from wanreel.models.parallel import crew
from wanreel.models.tiny import build_tiny
from wanreel.worker import attempt, recovery, renderer, storyboards, sweeps
from wanreel.worker import worker as loop

NEEDED = (worker, attempt, renderer, wiring, opening, planning, recovery, storyboards, sweeps, loop)


def warm_up() -> None:
    """Bring in what is imported on first use. Computes nothing, as threads would not survive the fork."""
    with tempfile.TemporaryDirectory() as folder:
        JobStore.open(Path(folder) / "wanreel.db").close()
    Image.init()
    build_tiny(Catalog().get("tiny:ti2v-5b"))
    # A worker collects garbage whenever it unloads a model; what was imported is none, and to look at it takes a second.
    gc.collect()
    gc.freeze()


def get_stuck(manner: str) -> None:
    """From now on an exchange whose partner is lost does not fail, as gloo's do, but never comes back, as NCCL's do.

    "held": what waits keeps Python's lock.
    """
    waiting = ctypes.PyDLL(None) if manner == "held" else ctypes.CDLL(None)
    crew.Crew._cause = lambda self, error: waiting.pause()  # type: ignore[assignment,method-assign]
    begin = crew.Crew.gather

    def gather(self: crew.Crew) -> bool:
        self._fatal = True
        return begin(self)

    crew.Crew.gather = gather  # type: ignore[method-assign]


def start(order: dict[str, object]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        log = os.open(str(order["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(order["env"])  # type: ignore[arg-type]
        if os.environ.get("STUCK_EXCHANGES"):
            get_stuck(os.environ["STUCK_EXCHANGES"])
        main(order["argv"])  # type: ignore[arg-type]
    except SystemExit as end:
        sys.stdout.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException:  # noqa: BLE001 - the process is about to end, and says why
        traceback.print_exc()
    os._exit(70)


def serve() -> None:
    warm_up()
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            answer = {"code": os.waitstatus_to_exitcode(status)}
        elif "poll" in order:
            ended, status = os.waitpid(order["poll"], os.WNOHANG)
            answer = {"code": os.waitstatus_to_exitcode(status) if ended else None}
        else:
            answer = {"pid": start(order)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
