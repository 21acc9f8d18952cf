"""Webhooks: tells of the ends of jobs and groups, signed, until it was heard. Knows neither routes nor tables.

Messages have the form of Standard Webhooks (standardwebhooks.com), which OpenAI's clients verify: the headers webhook-id,
webhook-timestamp and webhook-signature. At least once: a receiver that answered, but too late, gets the same id again.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import logging
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from wanreel.core.delivery import Delivery
from wanreel.core.errors import InvalidRequest, RemoteError, SettingsError, WanreelError
from wanreel.core.job import JobStatus
from wanreel.frontends.fetcher import Fetcher
from wanreel.host import fsync_directory, fsync_file
from wanreel.jobs.outbox import Outbox

SECRET_PREFIX = "whsec_"  # noqa: S105 - how receivers know what it is
_AT_A_TIME = 4  #: messages under way
_LOOK = 1.0  #: seconds between looks while there is none
_ROOT_BYTES = 32
_PURPOSE = b"wanreel webhooks\0"
_log = logging.getLogger("wanreel.webhooks")


@dataclass(frozen=True)
class SigningSecrets:
    """A secret for each owner, made from one that the server keeps: no owner can sign in another's name."""

    path: Path  #: where it is kept, unless it is given
    given: str = field(default="", repr=False)

    def of(self, owner: str) -> str:
        """The owner's secret, as receivers are given it. Raises SettingsError."""
        return SECRET_PREFIX + base64.b64encode(self._key(owner)).decode()

    def sign(self, owner: str, message_id: str, timestamp: int, body: bytes) -> str:
        """The value of webhook-signature."""
        signed = f"{message_id}.{timestamp}.".encode() + body
        return "v1," + base64.b64encode(hmac.digest(self._key(owner), signed, "sha256")).decode()

    def _key(self, owner: str) -> bytes:
        return hmac.digest(self._root(), _PURPOSE + owner.encode("utf-8", "surrogateescape"), "sha256")

    def _root(self) -> bytes:
        if self.given:
            return hashlib.sha256(self.given.encode()).digest()
        try:
            return _read_or_make(self.path)
        except (OSError, ValueError) as exc:
            raise SettingsError(
                f"{self.path.name}, which webhooks are signed with, can't be read.",
                hint="Restore it, or delete it and give receivers the new secret.",
            ) from exc


def _read_or_make(path: Path) -> bytes:
    """The root secret. Whoever links it into place first has made it, so that processes agree."""
    with contextlib.suppress(FileNotFoundError):
        return _checked(path.read_bytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    temporary.touch(mode=0o600)
    try:
        temporary.write_text(secrets.token_hex(_ROOT_BYTES), encoding="ascii")
        fsync_file(temporary)
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(temporary)
        fsync_directory(path.parent)
    finally:
        temporary.unlink()
    return _checked(path.read_bytes())


def _checked(text: bytes) -> bytes:
    root = bytes.fromhex(text.decode("ascii").strip())
    if len(root) != _ROOT_BYTES:
        raise ValueError("another length")
    return root


@dataclass
class Postman:
    """Takes messages from the outbox and hands them in. Several may run on one outbox: each message has one at a time."""

    outbox: Outbox
    fetcher: Fetcher
    secrets: SigningSecrets
    house_url: str = ""  #: the operator's own address, told in the operator's name whoever's job it is
    clock: Callable[[], float] = time.time
    jitter: Callable[[], float] = random.random

    async def run(self) -> None:
        """Deliver until cancelled. What is under way is finished first, which takes seconds."""
        slots = asyncio.Semaphore(_AT_A_TIME)
        async with asyncio.TaskGroup() as group:
            while True:
                await slots.acquire()
                taken = await self._take()
                if taken is None:
                    slots.release()
                    await asyncio.sleep(_LOOK)
                    continue
                group.create_task(self._deliver(taken)).add_done_callback(lambda _: slots.release())

    async def _take(self) -> Delivery | None:
        try:
            return await run_in_threadpool(self.outbox.take)
        except WanreelError as error:
            _log.warning("The outbox can't be read now: %s", error)
            return None

    async def _deliver(self, taken: Delivery) -> None:
        try:
            await run_in_threadpool(self.deliver, taken)
        except WanreelError as error:
            # The outbox puts it off by itself.
            _log.warning("Message %s can't be delivered now: %s", taken.id, error)

    def deliver(self, taken: Delivery) -> None:
        """One attempt, and what became of it in the outbox. Raises SettingsError, StoreError."""
        body, timestamp = body_of(taken), int(self.clock())
        owner = "" if taken.url == self.house_url else taken.owner
        headers = {
            "Content-Type": "application/json",
            "webhook-id": taken.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": self.secrets.sign(owner, taken.id, timestamp, body),
        }
        try:
            status = self.fetcher.post(taken.url, headers, body)
        except RemoteError:
            outcome, heard = "no answer", False
        else:
            outcome, heard = f"status {status}", 200 <= status < 300
        # Neither the address, which may hold a secret, nor the answer is logged.
        _log.info("webhook", extra={"job": taken.job_id, "delivery": taken.id, "outcome": outcome})
        if heard:
            self.outbox.delivered(taken, outcome)
        else:
            self.outbox.failed(taken, outcome, jitter=self.jitter())


def build_postman(outbox: Outbox, fetcher: Fetcher, signing: SigningSecrets, house_url: str) -> Postman:
    """A Postman. Raises SettingsError for an address of the operator's that is never called."""
    if house_url:
        try:
            fetcher.check(house_url, "webhook_url")
        except InvalidRequest as exc:
            raise SettingsError(
                "outbound.webhook_url can't be called.",
                hint="It must be a public https address, or its server must stand in outbound.private_origins.",
            ) from exc
    return Postman(outbox, fetcher, signing, house_url)


def body_of(taken: Delivery) -> bytes:
    """The message: the same bytes each time it is sent."""
    kind = taken.data.get("object", "video")
    error = {"code": taken.data["code"], "message": taken.data["message"]} if "code" in taken.data else None
    if taken.kind is JobStatus.CANCELLED:
        error = {"code": "cancelled", "message": f"The {'job' if kind == 'video' else kind} was cancelled."}
    message = {
        "id": taken.id,
        "object": "event",
        "type": f"{kind}.{taken.kind}",
        "created_at": int(taken.created_at),
        "data": {"id": taken.job_id, "status": str(taken.kind), "error": error},
    }
    return json.dumps(message, ensure_ascii=True, separators=(",", ":")).encode()
