"""GroupDesk: what callers may do with groups of jobs of one kind. Knows nothing of how a group is shown."""

from __future__ import annotations

import asyncio
import re
from dataclasses import asdict
from typing import Generic

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from wanreel.core.errors import GroupNotFound, IllegalTransition
from wanreel.frontends.http.guard import caller_of
from wanreel.frontends.http.house import House, owner_filter
from wanreel.frontends.http.keys import Caller
from wanreel.frontends.http.schema import Upload, Webhook
from wanreel.service.group_files import upload_report
from wanreel.service.grouped import Grouped, View

_ID = re.compile(r"[0-9a-f]{32}")
_STOPS_WITHIN = 30.0  # seconds that a delete waits for running jobs
_LOOK = 0.1


class GroupDesk(Generic[View]):
    """Over one House. Each raises GroupNotFound."""

    def __init__(self, house: House, groups: Grouped[View]) -> None:
        self._house = house
        self._groups = groups

    def of(self, caller: Caller, group_id: str) -> View:
        """The caller's group: others' are as unknown as those that are not there."""
        try:
            view = self._groups.get(group_id) if _ID.fullmatch(group_id) else None
        except GroupNotFound:
            view = None
        if view is None or (view.group.owner != caller.owner and not caller.is_admin):
            raise GroupNotFound(f"There is no such {self._groups.kind}.")
        return view

    def page(self, caller: Caller, after: str | None, limit: int) -> tuple[tuple[View, ...], bool]:
        """The caller's groups, newest first, and whether there are more."""
        if after is not None:
            self.of(caller, after)
        found = self._groups.list(owner=owner_filter(caller), after=after, limit=limit + 1)
        return found[:limit], len(found) > limit

    def webhook(self, view: View) -> Webhook | None:
        """How the message about its end fares; None where nobody is to be told."""
        if not view.group.webhook:
            return None
        return Webhook(**asdict(self._house.service.store.outbox.report_of(view.group.id)))

    def upload(self, view: View, *, addresses: bool) -> Upload | None:
        """How the copy of its result fares; None where it stays here."""
        return self._house.depots.shown(upload_report(view.group.upload), addresses=addresses)

    async def asked(self, request: Request, group_id: str) -> View:
        """The group of whoever asks."""
        return await run_in_threadpool(self.of, caller_of(request), group_id)

    async def cancel(self, request: Request, group_id: str) -> View:
        view = await self.asked(request, group_id)
        return await run_in_threadpool(self._groups.cancel, view.group.id)

    async def retry(self, request: Request, group_id: str) -> View:
        view = await self.asked(request, group_id)
        self._house.rates.take(caller_of(request))
        return await run_in_threadpool(self._groups.retry, view.group.id)

    async def delete(self, request: Request, group_id: str) -> None:
        """Stop it and forget it. Raises IllegalTransition where it does not stop in time."""
        await self.cancel(request, group_id)
        try:
            async with asyncio.timeout(_STOPS_WITHIN):
                while not await run_in_threadpool(self._deleted, group_id):
                    await asyncio.sleep(_LOOK)
        except TimeoutError as exc:
            text = f"The {self._groups.kind} is still being stopped."
            raise IllegalTransition(text, hint="Delete it again in a while.") from exc

    def _deleted(self, group_id: str) -> bool:
        try:
            self._groups.delete(group_id)
        except IllegalTransition:
            return False
        return True
