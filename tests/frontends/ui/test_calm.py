"""Work that stands back while requests are answered, but not for ever."""

from __future__ import annotations

import asyncio
import time

from starlette.concurrency import run_in_threadpool

from wanreel.frontends.ui.calm import Calm


def test_it_waits_while_a_request_is_answered() -> None:
    async def scene() -> tuple[float, float]:
        calm = Calm()
        alone = await run_in_threadpool(_seconds, calm)
        request = asyncio.create_task(run_in_threadpool(time.sleep, 0.3))
        await asyncio.sleep(0.05)
        beside = await run_in_threadpool(_seconds, calm)
        await request
        return alone, beside

    alone, beside = asyncio.run(scene())
    assert beside > 0.1 and beside > alone


def test_its_patience_ends() -> None:
    async def scene() -> float:
        calm = Calm(patience=0.05)
        request = asyncio.create_task(run_in_threadpool(time.sleep, 1.0))
        await asyncio.sleep(0.02)
        waited = await run_in_threadpool(_seconds, calm)
        waited += await run_in_threadpool(_seconds, calm)
        request.cancel()
        return waited

    assert asyncio.run(scene()) < 0.6


def _seconds(calm: Calm) -> float:
    began = time.monotonic()
    calm.wait()
    return time.monotonic() - began
