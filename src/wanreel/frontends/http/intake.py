"""Intake: from a body to an accepted job, once, however often the client sends it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from wanreel.core.errors import InvalidRequest
from wanreel.core.job import Job
from wanreel.core.resolved import Adjustment, Resolution
from wanreel.frontends.http.errors import Refused
from wanreel.frontends.http.forms import Body
from wanreel.frontends.http.guard import caller_of
from wanreel.frontends.http.house import House
from wanreel.frontends.http.keys import Caller
from wanreel.frontends.http.submission import Submission, translate
from wanreel.frontends.telemetry import name_job
from wanreel.service import Terms

#: Seconds within which a retried POST of a client that sends no key of its own is the same request.
_RETRY_WINDOW = 600.0
_REMEMBERED = 10_000
_LONGEST_KEY = 255


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job and what is to be said about it."""

    job: Job
    adjustments: tuple[Adjustment, ...] = ()
    notes: tuple[str, ...] = ()


#: Resolves and queues a body; the text is the client's Idempotency-Key.
Queue = Callable[[Caller, Body, str | None], Accepted]


class Intake:
    """Accepts requests. Belongs to one event loop."""

    def __init__(self, house: House, clock: Callable[[], float]) -> None:
        self._house = house
        self._clock = clock
        self._recent: OrderedDict[str, tuple[float, asyncio.Future[Accepted]]] = OrderedDict()

    async def accept(self, request: Request, body: Body, queue: Queue | None = None) -> Accepted:
        """Queue what was sent, as a video where `queue` does not say otherwise.

        Raises InvalidRequest, QueueFull, IdempotencyConflict, Refused.
        """
        accepted = await self._once(request, body, queue or self._queue)
        name_job(accepted.job.id)
        return accepted

    async def _once(self, request: Request, body: Body, queue: Queue) -> Accepted:
        caller, key = caller_of(request), idempotency_key(request)
        retries = request.headers.get("x-stainless-retry-count", "")
        if key is not None or not retries.isdecimal():
            return await self._accept(caller, body, key, queue)
        # The openai client sends no key, and repeats a POST whose answer it did not see.
        digest = f"{caller.owner}\n{_digest(body)}"
        if int(retries[:4]) > 0 and (earlier := self._earlier(digest)) is not None:
            return await asyncio.shield(earlier)
        return await self._remember(digest, asyncio.ensure_future(self._accept(caller, body, None, queue)))

    def _earlier(self, digest: str) -> asyncio.Future[Accepted] | None:
        then, accepted = self._recent.get(digest, (0.0, None))
        if accepted is None or self._clock() - then > _RETRY_WINDOW:
            return None
        failed = accepted.done() and (accepted.cancelled() or accepted.exception() is not None)
        return None if failed else accepted

    async def _remember(self, digest: str, accepted: asyncio.Future[Accepted]) -> Accepted:
        self._recent[digest] = (self._clock(), accepted)
        self._recent.move_to_end(digest)
        if len(self._recent) > _REMEMBERED:
            self._recent.popitem(last=False)
        return await asyncio.shield(accepted)

    async def _accept(self, caller: Caller, body: Body, key: str | None, queue: Queue) -> Accepted:
        self._house.rates.take(caller)
        return await run_in_threadpool(queue, caller, body, key)

    def _queue(self, caller: Caller, body: Body, key: str | None) -> Accepted:
        submission, resolution = self.resolve(caller, body)
        asked = json.dumps(asdict(submission.request()), sort_keys=True, ensure_ascii=False)
        url = submission.webhook_url
        own = submission.own_storage
        place = f"{own.endpoint}/{own.bucket}" if own else ""
        terms = Terms(owner=caller.owner, idempotency_key=key, webhook_url=url, upload_to=self._house.depots.hold(own))
        said = "\n".join((asked, url, place)).rstrip("\n")
        job = self._house.service.enqueue(resolution, terms, body=said)
        return Accepted(job, resolution.adjustments, tuple(submission.notes))

    def resolve(self, caller: Caller, body: Body) -> tuple[Submission, Resolution]:
        """What would run. Blocks. Raises InvalidRequest, ModelError."""
        values = dict(body.values)
        own = self._house.depots.take_own(values)
        submission = translate(replace(body, values=values), caller.owner, self._house.desk, self._house.sounds)
        submission.own_storage = own
        try:
            submission.webhook_url = self._house.webhooks.accept(submission.values.pop("webhook_url", None))
        except InvalidRequest as error:
            submission.problems.extend(error.problems)
        return submission, self._house.service.resolve(submission.request())


def idempotency_key(request: Request) -> str | None:
    """The client's Idempotency-Key. Raises Refused for one that is no plain text."""
    key = request.headers.get("idempotency-key")
    if key is not None and not (1 <= len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable()):
        raise Refused(
            400, "bad_idempotency_key", f"Idempotency-Key must have 1 to {_LONGEST_KEY} printable ASCII characters."
        )
    return key


def _digest(body: Body) -> str:
    files = {name: hashlib.sha256(file.data).hexdigest() for name, file in body.files.items()}
    return hashlib.sha256(json.dumps([body.values, files], sort_keys=True).encode()).hexdigest()
