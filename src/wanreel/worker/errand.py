"""Errand: one download or verification of weights, in a process of its own. Knows nothing of jobs or devices.

It leaves when the process that sent it ends: its standard input closes then. `python -m wanreel.worker.errand` reads one
line of JSON there.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import Catalog
from wanreel.core.errors import WanreelError
from wanreel.host import stop_signals
from wanreel.models.registry import Hub, Progress, Registry
from wanreel.storage.digests import Digests

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Errand:
    """What to do, as it travels between processes."""

    verb: Literal["pull", "verify"]
    model: str
    root: str
    digests: str
    endpoint: str
    offline: bool
    keep_free: int

    def to_line(self) -> str:
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Errand:
        return cls(**json.loads(line))

    def registry(self) -> Registry:
        hub = Hub(self.endpoint, offline=self.offline)
        return Registry(Path(self.root), hub, Digests(Path(self.digests)), self.keep_free)


def run(errand: Errand, cancel: CancelToken) -> int:
    """Do it. The state on disk tells how it went; so does the exit code."""
    registry, spec = errand.registry(), Catalog().weights(errand.model)
    work: Generator[Progress, None, Any] = (
        registry.pull(spec, cancel) if errand.verb == "pull" else registry.verify(spec, cancel)
    )
    try:
        for _ in work:
            pass
    except WanreelError as error:
        _log.warning("%s of %s: %s", errand.verb, errand.model, error)
        return 1
    return 0


def main() -> int:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    cancel = CancelToken()
    errand = Errand.from_line(sys.stdin.readline())

    def watch() -> None:
        sys.stdin.read()
        cancel.cancel("the server ended")

    threading.Thread(target=watch, name="sender", daemon=True).start()
    with stop_signals(cancel.cancel):
        return run(errand, cancel)


if __name__ == "__main__":
    sys.exit(main())
