"""Guard: a worker's end of its warden, the process that ends it where it can't (see warden.py). Knows no tensors."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, cast

from wanreel.host import start_piped
from wanreel.models.parallel.wire import Message, Wire

_log = logging.getLogger(__name__)

_BEAT = 1.0  # seconds between two signs of life
_LEAVING = 2.0  # seconds in which a warden that is needed no more ends by itself


class Guard:
    """Over this process and the ranks with the given numbers, until `leave`. May be used from any thread."""

    def __init__(self, ranks: Sequence[int]) -> None:
        self._numbers = [str(pid) for pid in (os.getpid(), *ranks)]
        self._patience = 0.0
        self._said = 0.0
        self._process, self._wire = self._start()

    @property
    def pid(self) -> int:
        """Of the warden."""
        return self._process.pid

    def beat(self, patience: float) -> None:
        """This process lives, and may be silent for `patience` seconds from now on."""
        now = time.monotonic()
        if patience == self._patience and now - self._said < _BEAT:
            return
        self._patience, self._said = patience, now
        if self._process.poll() is not None:
            _log.warning("the warden of the ranks ended with %d; another one starts", self._process.returncode)
            self._close()
            self._process, self._wire = self._start()
        self._say({"patience": patience})

    def end_within(self, seconds: float) -> None:
        """From now on this process has so long to end."""
        self._say({"within": seconds})

    def leave(self) -> None:
        """Nobody is to be watched over any more."""
        self._say({"leave": True})
        try:
            self._process.wait(_LEAVING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._close()

    def _start(self) -> tuple[subprocess.Popen[bytes], Wire]:
        process = start_piped([sys.executable, "-m", "wanreel.models.parallel.warden", *self._numbers])
        return process, Wire(cast("Any", process.stdout), cast("Any", process.stdin))

    def _say(self, word: Message) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._wire.send(word)

    def _close(self) -> None:
        self._wire.close()
