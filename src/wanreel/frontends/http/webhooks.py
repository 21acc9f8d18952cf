"""webhook_url in requests, and the secret that its receivers check signatures with."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from wanreel.core.errors import InvalidRequest
from wanreel.frontends.fetcher import Fetcher
from wanreel.frontends.http import schema
from wanreel.frontends.http.errors import Refused
from wanreel.frontends.http.guard import caller_of
from wanreel.frontends.http.schema import WebhookSecret
from wanreel.frontends.webhooks import SigningSecrets


@dataclass(frozen=True, slots=True)
class WebhookDesk:
    """Which addresses requests may have told."""

    secrets: SigningSecrets
    fetcher: Fetcher | None = None  #: None where requests may name nobody

    def accept(self, value: object) -> str:
        """The address in a request's `webhook_url`, "" for none. Raises InvalidRequest."""
        if value is None or value == "":
            return ""
        if not isinstance(value, str):
            raise InvalidRequest.of("webhook_url", "wrong_type", "must be text.", "Give an https address.")
        if self.fetcher is None:
            raise InvalidRequest.of(
                "webhook_url", "webhooks_off", "this server tells nobody.", "Follow the events, or ask its operator."
            )
        self.fetcher.check(value, "webhook_url")
        return value


class WebhookRoutes:
    """The routes, over one desk."""

    def __init__(self, desk: WebhookDesk) -> None:
        self._desk = desk

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1/webhooks", tags=["jobs"], responses=schema.ERRORS)
        router.get("/secret", response_model=WebhookSecret, summary="What your webhooks are signed with")(self.secret)
        return router

    async def secret(self, request: Request) -> WebhookSecret:
        """The secret of your key's owner. Anybody who has it can send what looks like a message of this server."""
        caller = caller_of(request)
        if not caller.may("submit"):
            raise Refused(403, "missing_scope", "This needs a key with the scope submit.")
        return WebhookSecret(secret=await run_in_threadpool(self._desk.secrets.of, caller.owner))
