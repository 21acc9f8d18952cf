"""Many clients at once, from one process: open connections, event streams, and requests at a fixed rate."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

_HEAD = "Host: 127.0.0.1\r\nContent-Type: application/json\r\n"


@dataclass
class Outcome:
    """What became of the requests."""

    statuses: Counter[int] = field(default_factory=Counter[int])
    submit_seconds: list[float] = field(default_factory=list[float])
    events: int = 0
    streams: int = 0  #: that have begun
    opening_seconds: float = 0.0  #: until all connections and streams were there

    @property
    def faults(self) -> int:
        return sum(count for status, count in self.statuses.items() if status >= 500)


async def load(port: int, *, connections: int, streams: int, rate: float, seconds: float) -> Outcome:
    """Open-loop load: a request is sent when it is due, whatever became of those before.

    Of ten requests one submits, six look, two list and one cancels. `connections` stay open meanwhile and do nothing.
    The requests begin when every connection has had its answer and every stream has begun.
    """
    outcome = Outcome()
    ids = [await _submit(port, outcome)]
    began = time.monotonic()
    async with _idle(port, connections):
        following = [asyncio.create_task(_follow(port, ids[0], outcome)) for _ in range(streams)]
        while outcome.streams < streams:
            await asyncio.sleep(0.01)
        outcome.opening_seconds = time.monotonic() - began
        asked: list[asyncio.Task[None]] = []
        for number in range(int(rate * seconds)):
            asked.append(asyncio.create_task(_one(port, number, ids, outcome)))
            await asyncio.sleep(1 / rate)
        await asyncio.gather(*asked)
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
    return outcome


async def _one(port: int, number: int, ids: list[str], outcome: Outcome) -> None:
    kind, video = number % 10, random.choice(ids)
    if kind == 0:
        ids.append(await _submit(port, outcome))
    elif kind == 9 and len(ids) > 1:
        await _ask(port, f"POST /v1/videos/{ids.pop()}/cancel", outcome)
    elif kind in (7, 8):
        await _ask(port, "GET /v1/videos?limit=5", outcome)
    else:
        await _ask(port, f"GET /v1/videos/{video}", outcome)


async def _submit(port: int, outcome: Outcome) -> str:
    began = time.monotonic()
    answer = await _ask(port, "POST /v1/videos", outcome, json.dumps({"prompt": "x", "model": "demo"}))
    outcome.submit_seconds.append(time.monotonic() - began)
    return json.loads(answer)["id"]


async def _ask(port: int, line: str, outcome: Outcome, body: str = "") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = f"{line} HTTP/1.1\r\n{_HEAD}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        writer.write(head.encode())
        status = int((await reader.readline()).split()[1])
        rest = await reader.read()
        outcome.statuses[status] += 1
        return rest.partition(b"\r\n\r\n")[2]
    finally:
        writer.close()


async def _follow(port: int, video: str, outcome: Outcome) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET /v1/videos/{video}/events HTTP/1.1\r\n{_HEAD}\r\n".encode())
        await reader.readline()
        outcome.streams += 1
        async for line in reader:
            outcome.events += line.startswith(b"event:")
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def _idle(port: int, count: int) -> AsyncGenerator[None]:
    """So many connections that have asked once, were answered and are kept."""
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
    for _, writer in opened:
        writer.write(f"GET /live HTTP/1.1\r\n{_HEAD}\r\n".encode())
    await asyncio.gather(*(reader.readuntil(b"}") for reader, _ in opened))
    try:
        yield
    finally:
        for _, writer in opened:
            writer.close()
