"""Member: a Worker in a Ray actor. It takes jobs from the store as any other; knows nothing of who started it.

The process belongs to the worker: when it dies, the kernel lets go of its lock, its lease runs out, and another worker goes
on from its last saved state.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wanreel import __version__
from wanreel.core.errors import WanreelError
from wanreel.frontends.ray.plan import Pool

if TYPE_CHECKING:
    from wanreel.worker.worker import Worker

_log = logging.getLogger(__name__)
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Report:
    """What a member says of itself."""

    worker: str = ""  #: its name in the store; empty while it starts
    machine: str = ""
    version: str = ""
    job: str = ""  #: id of the one that it runs
    seconds: float = 0.0  #: for which it has had that job, or none
    age: float = 0.0  #: seconds since it began to work
    ended: bool = False
    fault: str = ""  #: why it ended, where that was not asked for


class Member:
    """The actor. Its calls return at once; the work is done in a thread of its own."""

    def __init__(self, pool: Pool, settings: Mapping[str, Any]) -> None:
        self._pool = pool
        self._settings = dict(settings)
        self._worker: Worker | None = None
        self._began = self._changed = time.monotonic()
        self._job = ""
        self._ended = False
        self._fault = ""
        self._wishes: list[str] = []
        self._lock = threading.Lock()
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s")
        logging.getLogger("alembic").setLevel(logging.WARNING)
        threading.Thread(target=self._run, name="worker", daemon=True).start()

    def report(self) -> Report:
        """How it stands."""
        worker = self._worker
        job = worker.job if worker is not None else None
        now, name = time.monotonic(), job.id if job is not None else ""
        if name != self._job:
            self._job, self._changed = name, now
        return Report(
            worker=worker.name if worker is not None else "",
            machine=socket.gethostname(),
            version=__version__,
            job=name,
            seconds=now - self._changed,
            age=now - self._began,
            ended=self._ended,
            fault=self._fault,
        )

    def retire(self) -> None:
        """Take no further job, and end when the running one is done."""
        self._tell("retire")

    def stop(self) -> None:
        """Save the running job's state, give it back, and end."""
        self._tell("stop")

    def _tell(self, wish: str) -> None:
        with self._lock:
            if wish in self._wishes:
                return  # a worker that is told to stop twice leaves without saving
            self._wishes.append(wish)
            if self._worker is not None:
                getattr(self._worker, wish)()

    def _run(self) -> None:
        try:
            self._work()
        except WanreelError as error:
            _log.error("%s", error)
            self._fault = str(error)
        except BaseException as error:
            self._fault = f"{type(error).__name__}: {error}"
            raise
        finally:
            self._ended = True

    def _work(self) -> None:
        from wanreel.core.settings import load_settings
        from wanreel.wiring import build_runtime, build_worker

        runtime = build_runtime(load_settings(**self._settings, **_share(self._pool)))
        worker = build_worker(runtime, only=self._pool.models, placed=True)
        with self._lock:
            self._worker = worker
            self._began = self._changed = time.monotonic()
            for wish in self._wishes:
                getattr(worker, wish)()
        code = worker.run()
        if code:
            self._fault = f"its process may be damaged (exit code {code})"


def _share(pool: Pool) -> dict[str, Any]:
    """Settings for the share of the machine that Ray gave this process: it sees its own GPUs alone."""
    if not pool.gpus:
        return {"device": "cpu"}
    if pool.gpus > 1.0:
        own = ",".join(str(number) for number in range(int(pool.gpus)))
        return {"device": "auto", "multi_gpu": True, "parallel": "together", "gpus": own}
    if pool.gpus == 1.0:
        return {"device": "auto"}
    from wanreel.host import nvidia_gpus

    smallest = min((gpu.total_bytes for gpu in nvidia_gpus()), default=0)
    return {"device": "auto"} | ({"memory_gb": smallest * pool.gpus / _GIB} if smallest else {})
