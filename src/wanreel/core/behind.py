"""Behind: a thread that works on what it is handed, in order, while whoever hands it goes on. Knows nothing of the work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Behind(Generic[T]):
    """Calls `work` on everything that is put in, one after the other, in a thread that ends with the `with` block.

        with Behind(writer.write) as behind:
            for frames in chunks:
                behind.put(frames)

    The block's end waits for all of it; where the block fails, for the piece at hand alone. What `work` raises comes out
    of a later `put`, or of the end of the block; nothing is worked on after it.
    """

    def __init__(self, work: Callable[[T], None], ahead: int = 2, name: str = "behind") -> None:
        self._work = work
        self._ahead = ahead
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._given: deque[Future[None]] = deque()
        self._last: Future[None] | None = None

    def put(self, piece: T) -> None:
        """Hand over; waits while `ahead` pieces wait already."""
        while self._given and (len(self._given) > self._ahead or self._given[0].done()):
            self._given.popleft().result()
        self._last = self._thread.submit(self._after, self._last, piece)
        self._given.append(self._last)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=kind is not None)
        if kind is None and self._last is not None:
            self._last.result()

    def _after(self, before: Future[None] | None, piece: T) -> None:
        if before is not None:
            before.result()  # done by now; where that failed, so does this
        self._work(piece)
