"""What OpenAI's Videos API has and this server does not: a plain answer, so that no client waits or tries again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request

from wanreel.frontends.http import schema
from wanreel.frontends.http.errors import Refused

#: (method, path, summary, what to do instead)
_UNBUILT = (
    ("POST", "/edits", "Edit a video", "POST /v1/videos/{id}/remix makes it again with another prompt."),
    ("POST", "/characters", "Make a character", "A LoRA keeps a character alike over videos."),
    ("GET", "/characters/{character_id}", "Look at a character", "A LoRA keeps a character alike over videos."),
)  # fmt: skip
_CHARACTER = {"name": "character_id", "in": "path", "required": True, "schema": {"type": "string"}}
_NOT_BUILT: dict[int | str, dict[str, Any]] = {501: {"model": schema.ErrorBody, "description": "Not built."}}


def unbuilt_routes() -> APIRouter:
    """The routes. They read no body."""
    router = APIRouter(prefix="/v1/videos", tags=["videos"], responses=schema.ERRORS | _NOT_BUILT)
    for method, path, summary, instead in _UNBUILT:
        router.add_api_route(
            path,
            _refusing(instead),
            methods=[method],
            status_code=501,
            summary=summary,
            description=f"Answers 501. {instead}",
            operation_id=f"unbuilt_{method}_{path.split('/')[1]}".lower(),
            openapi_extra={"parameters": [_CHARACTER]} if "{" in path else None,
        )
    return router


def _refusing(instead: str) -> Callable[[Request], Awaitable[None]]:
    async def refuse(_request: Request) -> None:
        # The openai client tries a 5xx again unless it is told not to.
        raise Refused(
            501, "not_supported", f"This server can't do that. {instead}", headers={"x-should-retry": "false"}
        )

    return refuse
