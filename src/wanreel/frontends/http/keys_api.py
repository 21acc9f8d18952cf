"""/v1/keys: API keys made and revoked on the page. A key is shown once, when it is made."""

from __future__ import annotations

from typing import Any, Literal, cast

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from wanreel.core.errors import InvalidRequest
from wanreel.frontends.http import body_schema, schema
from wanreel.frontends.http.entrance import Entrance
from wanreel.frontends.http.errors import Refused
from wanreel.frontends.http.forms import read_json, take_only
from wanreel.frontends.http.house import require_admin
from wanreel.frontends.http.keys import SCOPES, ApiKey, KeyRing
from wanreel.frontends.http.schema import Wire

_MOST_A_MINUTE = 100_000
_FIELDS: dict[str, Any] = {
    "name": {"type": "string", "minLength": 1, "maxLength": 64, "description": "Unique, for people."},
    "scopes": {"type": "array", "items": {"type": "string", "enum": list(SCOPES)}, "minItems": 1},
    "owner": {"type": ["string", "null"], "maxLength": 64, "description": "Keys of one owner see each other's videos."},
    "submits_per_minute": {"type": ["integer", "null"], "minimum": 1, "maximum": _MOST_A_MINUTE},
}


class Key(Wire):
    """What is known of a key. Not the key itself."""

    object: Literal["key"] = "key"
    name: str
    owner: str
    scopes: list[str]
    created_at: int
    submits_per_minute: int | None


class KeyList(Wire):
    object: Literal["list"] = "list"
    data: list[Key]
    needed: bool = Field(description="Whether every request needs a key.")


class NewKey(Key):
    key: str = Field(description="Shown this once.")


class RevokedKey(Wire):
    name: str
    object: Literal["key"] = "key"
    deleted: bool = True


class KeyRoutes:
    """The routes, over the key ring."""

    def __init__(self, keys: KeyRing, entrance: Entrance) -> None:
        self._keys = keys
        self._entrance = entrance

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1/keys", tags=["settings"], responses=schema.ERRORS)
        router.get("", response_model=KeyList, summary="List the API keys")(self.list)
        body = body_schema.json_body(
            _FIELDS, required=["name"], example={"name": "laptop", "scopes": ["read", "submit"]}
        )
        router.post("", response_model=NewKey, openapi_extra={"requestBody": body}, summary="Make an API key")(
            self.create
        )
        router.delete("/{name:path}", response_model=RevokedKey, summary="Revoke an API key")(self.revoke)
        return router

    async def list(self, request: Request) -> KeyList:
        """Names, owners and scopes (admin)."""
        require_admin(request)
        known = await run_in_threadpool(self._keys.list)
        return KeyList(data=[_shown(key) for key in known], needed=self._entrance.needs_key or bool(self._keys))

    async def create(self, request: Request, response: Response) -> NewKey:
        """Makes a key and tells it, this once (admin). The first one must have the scope admin: from then on every
        request needs a key, and somebody must be able to make the next."""
        require_admin(request)
        values = await read_json(request)
        take_only(values, *_FIELDS)
        name, scopes = values.get("name"), values.get("scopes", ["read", "submit"])
        owner, limit = values.get("owner"), values.get("submits_per_minute")
        if not isinstance(name, str):
            raise InvalidRequest.of("name", "required", "must be text.")
        if not isinstance(scopes, list) or not scopes or not all(isinstance(one, str) for one in cast("Any", scopes)):
            raise InvalidRequest.of("scopes", "wrong_type", f"must be a list of {', '.join(SCOPES)}.")
        if owner is not None and not (isinstance(owner, str) and owner.isprintable() and 1 <= len(owner) <= 64):
            raise InvalidRequest.of("owner", "bad_text", "must have 1 to 64 printable characters.")
        if limit is not None and not (type(limit) is int and 1 <= limit <= _MOST_A_MINUTE):
            raise InvalidRequest.of("submits_per_minute", "out_of_range", f"must be 1 to {_MOST_A_MINUTE}.")
        if not self._keys and "admin" not in scopes:
            raise Refused(
                409, "first_key", "The first key needs the scope admin: from then on every request needs a key."
            )
        key = await run_in_threadpool(
            self._keys.create, name, cast("list[str]", scopes), owner=owner, submits_per_minute=limit
        )
        row = next(one for one in self._keys.list() if one.name == name)
        return NewKey(**_shown(row).model_dump(), key=key)

    async def revoke(self, request: Request, name: str) -> RevokedKey:
        """Makes a key worthless at once (admin)."""
        require_admin(request)
        await run_in_threadpool(self._revoke, name)
        return RevokedKey(name=name)

    def _revoke(self, name: str) -> None:
        left = [key for key in self._keys.list() if key.name != name]
        if left and not self._keys.given and not any("admin" in key.scopes for key in left):
            raise Refused(409, "last_admin", "This is the last key with the scope admin. Make another one first.")
        if not left and not self._keys.given and self._entrance.needs_key:
            raise Refused(409, "last_key", "Other machines can reach this server, so it needs a key.")
        self._keys.revoke(name)


def _shown(key: ApiKey) -> Key:
    return Key(
        name=key.name,
        owner=key.owner,
        scopes=list(key.scopes),
        created_at=int(key.created_at),
        submits_per_minute=key.submits_per_minute,
    )
