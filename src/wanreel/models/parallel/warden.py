"""Warden: a process that ends a worker and its ranks from outside. Knows nothing of tensors, and holds none.

What watches over ranks inside of the worker stands still when the worker is stopped, or when native code (a collective
whose partner is gone, a driver) keeps Python's lock. So the worker tells this process once a second that it lives, and
how long it may be silent. When it is silent for longer, does not end in time after it has lost a rank, or has ended and
left ranks behind, the kernel ends all of them: nothing here waits for a call into NCCL, CUDA or Python of another process.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from wanreel.host import OtherProcess, stop_signals
from wanreel.models.parallel.wire import Message, Wire

LOOK = 0.25  #: seconds between looks
STOPPED = 9.0  #: seconds for which a worker may be stopped by a signal, however long it may be silent
ENDING = 2.0  #: seconds in which a worker ends that has let go of its warden without a word
_AT_FIRST = 60.0  # seconds of silence before the worker has said how long it may be silent


@dataclass
class Warden:
    """What is known of one worker, and what follows from it."""

    worker: OtherProcess
    ranks: tuple[OtherProcess, ...] = ()
    clock: Callable[[], float] = time.monotonic
    left: bool = False  #: the worker needs nobody any more
    _heard: float = field(init=False)
    _patience: float = _AT_FIRST
    _until: float = math.inf

    def __post_init__(self) -> None:
        self._heard = self.clock()

    def hear(self, said: Message) -> None:
        """A word of the worker, each of which is a sign of life.

        `patience`: seconds of silence from now on; `within`: seconds in which it will have ended;
        `leave`.
        """
        self._heard = self.clock()
        if "within" in said:
            self._until = min(self._until, self._heard + said["within"])
        self._patience = said.get("patience", self._patience)
        self.left = self.left or "leave" in said

    @property
    def verdict(self) -> str:
        """Why nobody may go on; empty while all is well."""
        now = self.clock()
        if self.worker.gone:
            return "it has ended"
        if now > self._until:
            return "it has lost a rank and does not come back"
        silent = now - self._heard
        if silent > self._patience or (silent > STOPPED and self.worker.stopped):
            return f"it gave no sign of life for {silent:.0f} s"
        return ""

    def execute(self) -> None:
        """Ranks first: the worker's end is what others wait for."""
        for process in (*self.ranks, self.worker):
            process.kill()


def keep_watch(warden: Warden, wire: Wire) -> str:
    """Until the worker needs it no more, or nobody may go on: then why."""
    left = threading.Event()

    def listen() -> None:
        while not warden.left and (said := wire.receive()) is not None:
            warden.hear(said)
        if warden.left:
            left.set()
        else:  # it is about to end, or has ended
            warden.hear({"within": ENDING})

    threading.Thread(target=listen, name="worker", daemon=True).start()
    while not (why := warden.verdict):
        if left.wait(LOOK):
            return ""
    return why


def main() -> int:
    """Watch over the worker whose number comes first and the ranks whose numbers follow, hearing it on stdin."""
    worker, *ranks = (OtherProcess(int(word)) for word in sys.argv[1:])
    warden = Warden(worker, tuple(ranks))
    reading = cast("BinaryIO", sys.stdin.buffer.raw)  # pyright: ignore[reportAttributeAccessIssue]
    with stop_signals(lambda name: None):  # those are for the worker
        why = keep_watch(warden, Wire(reading, sys.stdout.buffer))
    if why:
        silent = not worker.gone
        warden.execute()
        if silent:
            sys.stderr.write(f"Process {worker.pid} and its ranks were ended: {why}.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
