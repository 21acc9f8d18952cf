"""Crew: the ranks of one worker, seen from rank 0, which is the worker itself. Knows nothing of jobs or what is computed.

Every other rank is a process of its own, started and ended here by its number. It hears orders on its stdin, answers and
shows that it lives on its stdout; tensors go through torch.distributed. When a rank dies or falls silent, all of them are
ended and what was waiting for them is told: a fault costs seconds, never a hang.

Between GPUs a lost rank ends this process too. NCCL's kernels wait on the GPU for whom is gone, and every later call into
CUDA may wait for them, aborts of communicators among them, so nothing is asked of NCCL any more: what is to be recorded
is, and the process ends, by itself or by its guard (see warden.py).
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from wanreel.core.errors import DeviceFault, OutOfMemory, WanreelError, error_of_code
from wanreel.host import start_piped
from wanreel.models.parallel.guard import Guard
from wanreel.models.parallel.wire import Message, Wire
from wanreel.models.ranks.mesh import Circle, Mesh, Meshes, join, part

_log = logging.getLogger(__name__)

BEAT = 1.0  #: seconds between two signs of life of a rank
SILENCE = 9.0  #: seconds without one after which a rank is taken for hung while tensors are exchanged
_BUSY = 60.0  # and at other times
_LOOK = 0.25  # seconds between looks at the ranks
_START = 300.0  # seconds that a rank may take to import torch and show itself
_TELLING = 5.0  # seconds in which the reason for a broken exchange comes to light
_LAST_RESORT = 2.5  # seconds after which a process that does not come out of an exchange is given up
_GUARD = 2.0  # seconds more after which its guard ends it
REPLACE = 85  # exit code: this process may be damaged, start another one


@dataclass
class _Rank:
    """One process, and what was heard of it."""

    number: int
    process: subprocess.Popen[bytes]
    wire: Wire
    heard: float
    answers: queue.SimpleQueue[Message] = field(default_factory=queue.SimpleQueue[Any])
    ended: bool = False
    said: str = ""  #: the error it reported …
    code: str = ""  #: … and of which kind
    ready: bool = False  #: it has shown itself once


@dataclass(frozen=True, slots=True)
class Losses:
    """What happens when a rank is lost."""

    silence: float = SILENCE  #: seconds without a sign of life of a rank while tensors are exchanged
    fatal: bool | None = None  #: whether this process can't go on then; None: where tensors go through NCCL
    guarded: bool = True  #: a warden ends this process where it does not end by itself
    #: Told what happened, in another thread, before a process is given up that does not come back.
    last_words: Callable[[WanreelError], object] = lambda fault: None
    abandon: Callable[[int], object] = os._exit


class Crew:
    """Ranks 1 … n - 1. Not thread-safe: used by the thread that renders, watched over by one of its own."""

    def __init__(
        self,
        commands: Sequence[Sequence[str]],
        device: torch.device,
        hello: Mapping[str, Any] | None = None,
        losses: Losses | None = None,
    ) -> None:
        """`commands`: what starts each further rank; `device` is rank 0's; `hello` is told to each first."""
        self._losses = losses = losses or Losses()
        self._commands = commands
        self._device = device
        self._hello = dict(hello or {})
        self._fatal = device.type == "cuda" if losses.fatal is None else losses.fatal
        self._guard: Guard | None = None
        self._ranks: list[_Rank] = []
        self._meshes: Meshes | None = None
        self._fault: WanreelError | None = None
        self._exchanging = False
        self._over = threading.Event()
        self._watch: threading.Thread | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    @property
    def size(self) -> int:
        """Ranks, this one among them."""
        return 1 + len(self._commands)

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the processes of ranks 1, 2, …; none before `gather`."""
        return tuple(rank.process.pid for rank in self._ranks)

    @property
    def gathered(self) -> bool:
        return self._meshes is not None and self._fault is None

    def gather(self) -> bool:
        """Start the ranks unless they are there. True when they are new, and hold no model.

        Raises DeviceFault when one does not come up.
        """
        if self.gathered:
            return False
        if self._fatal and self._fault is not None:
            raise DeviceFault(f"{self._fault.message} Another process goes on.")
        self.disband()
        self._fault, self._over = None, threading.Event()
        self._scratch = tempfile.TemporaryDirectory(prefix="wanreel-ranks-")
        store = Path(self._scratch.name) / "store"
        self._ranks = [self._start(number, command) for number, command in enumerate(self._commands, 1)]
        self._guard = Guard(self.pids) if self._losses.guarded else None
        self._watch = threading.Thread(target=self._look, args=(self._over,), name="watch over ranks", daemon=True)
        self._watch.start()
        for rank in self._ranks:
            self._send(rank, {**self._hello, "store": str(store), "rank": rank.number, "ranks": self.size})
        self._await_answers()
        with self.exchanging():
            self.tell({"do": "join"})
            self._meshes = join(self._device, store, 0, self.size)
        self._await_answers()
        return True

    @property
    def everybody(self) -> Circle:
        """All ranks; nobody must be told."""
        return self._joined.everybody

    def mesh(self, parallel: Any) -> Mesh:
        """This rank's circles, within an exchange; other ranks must be told to make the same."""
        return self._joined.of(parallel)

    @property
    def _joined(self) -> Meshes:
        if self._meshes is None:
            raise RuntimeError("The ranks are not there; gather first.")
        return self._meshes

    def tell(self, message: Message) -> None:
        """To every other rank, without waiting. Raises what broke the crew."""
        for rank in self._ranks:
            self._send(rank, message)

    def ask(self, message: Message) -> None:
        """The same, returning when all have done it. Raises the first error that one of them met."""
        self.tell(message)
        self.answered()

    def answered(self) -> None:
        """Returns when all have done what they were told. Raises the first error that one of them met."""
        self._await_answers()

    @contextlib.contextmanager
    def exchanging(self) -> Generator[None]:
        """Around every exchange of tensors: what breaks it is told by its cause. Raises DeviceFault, OutOfMemory.

        Whoever leaves it by an error of his own leaves the others waiting, so the crew is broken then too.
        """
        self._exchanging = True
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                self._break(OutOfMemory(f"Rank 0 ran out of memory: {str(error).partition('. ')[0]}."))
                raise
            raise self._cause(error) from error
        except BaseException as error:
            self._break(DeviceFault(f"Rank 0 stopped in the middle of an exchange ({type(error).__name__})."))
            raise
        finally:
            self._exchanging = False

    def disband(self) -> None:
        """End every rank. The next `gather` starts new ones."""
        if self._guard is not None:
            self._guard.beat(_BUSY)
        self._over.set()
        for rank in self._ranks:
            with contextlib.suppress(WanreelError):
                self._send(rank, {"do": "leave"})
        if self._watch is not None:
            self._watch.join()
        broken = self._fault is not None
        if self._meshes is not None and not (broken and self._fatal):
            part(broken=broken)
        for rank in self._ranks:
            self._end(rank, patience=0.0 if broken else 5.0)
        if self._guard is not None and not (broken and self._fatal):
            self._guard.leave()
            self._guard = None
        self._ranks, self._meshes, self._watch = [], None, None
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    # Watching

    def _start(self, number: int, command: Sequence[str]) -> _Rank:
        process = start_piped(command)
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("a rank has no pipes")
        wire = Wire(cast("Any", process.stdout), cast("Any", process.stdin))
        rank = _Rank(number, process, wire, time.monotonic())
        threading.Thread(target=self._hear, args=(rank,), name=f"rank {number}", daemon=True).start()
        _log.info("rank %d: process %d", number, process.pid)
        return rank

    def _hear(self, rank: _Rank) -> None:
        while (message := rank.wire.receive()) is not None:
            rank.heard, rank.ready = time.monotonic(), True
            if "error" in message and "goes_on" not in message:
                rank.said, rank.code = str(message["error"]), str(message.get("code", ""))
            if "beat" not in message:
                rank.answers.put(message)
        rank.ended = True

    def _look(self, over: threading.Event) -> None:
        while not over.wait(_LOOK):
            if self._guard is not None:
                self._guard.beat(max(SILENCE, self._losses.silence) if self._exchanging else _BUSY)
            fault = self._fault or next((found for rank in self._ranks if (found := self._wrong(rank))), None)
            if fault is not None:
                self._break(fault)
                self._release(over)
                return

    def _wrong(self, rank: _Rank) -> WanreelError | None:
        """What is the matter with a rank, if anything."""
        if rank.ended or rank.process.poll() is not None:
            if rank.said:
                return self._untold(rank)
            code = rank.process.poll()
            return DeviceFault(f"Rank {rank.number} ended{'' if code is None else f' with {code}'}.")
        silent = time.monotonic() - rank.heard
        # While it loads, a rank may be too busy to show itself.
        patience = (self._losses.silence if self._exchanging else _BUSY) if rank.ready else _START
        if silent > patience:
            return DeviceFault(f"Rank {rank.number} gave no sign of life for {silent:.0f} s.")
        return None

    def _untold(self, rank: _Rank) -> WanreelError | None:
        """What a rank said at its end, unless whoever awaits its answer or the exchange that breaks is about to tell it.

        An exchange through NCCL does not break, nor does meeting at the store to make a group.
        """
        waiting = self._exchanging and time.monotonic() - rank.heard > _TELLING
        return _error_of({"error": rank.said, "code": rank.code}, rank.number) if self._fatal or waiting else None

    def _break(self, fault: WanreelError) -> None:
        """Nobody goes on: the ranks are killed, by their numbers."""
        if self._fault is None:
            self._fault = fault
            _log.error("The ranks are given up: %s", fault.message)
        for rank in self._ranks:
            rank.process.kill()

    def _release(self, over: threading.Event) -> None:
        """Gloo frees whoever waits in an exchange, as its connections are closed. Nobody else is waited for.

        `over`: this process lets go of the ranks by itself.
        """
        if self._guard is not None:
            self._guard.end_within(_LAST_RESORT + _GUARD)
        end = time.monotonic() + _LAST_RESORT
        while (self._fatal or self._exchanging) and time.monotonic() < end:
            if over.wait(0.05):
                return
        if self._fatal or self._exchanging:
            _log.error("The process ends, as it has lost a rank and may be stuck.")
            if self._fault is not None:
                self._losses.last_words(self._fault)
            self._losses.abandon(REPLACE)
        elif self._guard is not None:
            self._guard.leave()
            self._guard = None

    # Talking

    def _send(self, rank: _Rank, message: Message) -> None:
        try:
            rank.wire.send(message)
        except (OSError, ValueError) as error:
            raise self._cause(error) from error

    def _await_answers(self) -> None:
        failed = [
            (rank.number, answer)
            for rank, answer in [(rank, self._answer(rank)) for rank in self._ranks]
            if "error" in answer
        ]
        if not failed:
            return
        number, answer = failed[0]
        error = _error_of(answer, number)
        if any("goes_on" not in answer for _, answer in failed):
            self._break(error)
        raise error

    def _answer(self, rank: _Rank) -> Message:
        while True:
            try:
                return rank.answers.get(timeout=_LOOK)
            except queue.Empty:
                if self._fault is not None:
                    raise self._fault from None

    def _cause(self, error: Exception) -> WanreelError:
        """Why an exchange broke: what was noticed of a rank, soon after, or what the exchange itself says."""
        end = time.monotonic() + _TELLING
        while self._fault is None and time.monotonic() < end:
            told = next((rank for rank in self._ranks if rank.said), None)
            if told is not None and not told.answers.empty():
                self._break(_error_of(told.answers.get(), told.number))
            time.sleep(0.05)
        said = str(error).strip().partition("\n")[0][:200]
        self._break(DeviceFault(f"An exchange between ranks failed: {said}"))
        return self._fault or DeviceFault(said)

    @staticmethod
    def _end(rank: _Rank, patience: float) -> None:
        try:
            rank.process.wait(patience)
        except subprocess.TimeoutExpired:
            rank.process.kill()
            rank.process.wait()
        rank.wire.close()


def _error_of(answer: Message, number: int) -> WanreelError:
    """The error that a rank reported, in its own class."""
    kind = error_of_code(str(answer.get("code", ""))) or DeviceFault
    text = f"Rank {number}: {answer['error']}"
    try:
        return kind(text)
    except TypeError:
        return DeviceFault(text)
