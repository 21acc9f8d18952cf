"""Errors as OpenAI's clients read them, and the status of each. Never repeats what was sent, never shows internals."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from wanreel.core.errors import (
    GroupNotFound,
    HubUnavailable,
    IdempotencyConflict,
    IllegalTransition,
    InsufficientStorage,
    InvalidRequest,
    JobNotFound,
    MachineError,
    ModelError,
    ModelNotInstalled,
    Problem,
    QueueFull,
    StorageUnavailable,
    StoreError,
    WanreelError,
)
from wanreel.core.request import KNOBS

#: The first class that fits decides, so subclasses come before their bases.
STATUSES: tuple[tuple[type[WanreelError], int], ...] = (
    (InvalidRequest, 400),
    (HubUnavailable, 503),
    (ModelError, 400),
    (JobNotFound, 404),
    (GroupNotFound, 404),
    (IllegalTransition, 409),
    (IdempotencyConflict, 409),
    (QueueFull, 429),
    (StoreError, 503),
    (StorageUnavailable, 503),
    (InsufficientStorage, 503),
    (MachineError, 503),
    (WanreelError, 500),
)
#: Errors whose own words may name places on this machine.
_UNSPECIFIC: tuple[tuple[type[WanreelError], str], ...] = (
    (ModelNotInstalled, "The weights of this model are not on this server; GET /v1/models lists those that are."),
    (HubUnavailable, "The model hub can't be reached, or refuses; the server's log says why."),
    (ModelError, "The model can't be used; the server's log says why."),
    (InsufficientStorage, "The server's disk is full."),
    (StoreError, "The job database can't be used now; the server's log says why."),
    (StorageUnavailable, "The server's object storage can't be used now, so nothing was done; its log says why."),
    (MachineError, "The server can't do this now; its log says why."),
)
#: Seconds after which a client should try again where nothing better is known.
_LATER = 30
_KINDS = {
    "text": "text",
    "name": "text",
    "integer": "a whole number",
    "number": "a number",
    "flag": "true or false",
    "picture": "a picture",
    "sound": "a sound",
    "loras": "a list of LoRAs",
}
_log = logging.getLogger("wanreel.http")


class Refused(Exception):
    """A request that is answered with an error before any part of the product sees it."""

    def __init__(self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = dict(headers or {})

    def response(self) -> JSONResponse:
        return JSONResponse(error_body(self.status, self.code, self.message), self.status, self.headers)


def status_of(error: WanreelError) -> int:
    """The HTTP status of an error."""
    return next(status for kind, status in STATUSES if isinstance(error, kind))


def error_body(status: int, code: str, message: str, *, param: str | None = None, **more: object) -> dict[str, object]:
    """OpenAI's error object, with `more` beside its four fields."""
    return {"error": {"message": message, "type": _type_of(status), "param": param, "code": code, **more}}


def body_of(error: WanreelError) -> dict[str, object]:
    """The same for one of our errors."""
    if not isinstance(error, InvalidRequest):
        message = next((text for kind, text in _UNSPECIFIC if isinstance(error, kind)), str(error))
        return error_body(status_of(error), error.code, message, retryable=error.retryable)
    problems = [
        {"field": problem.field[:64], "code": problem.code, "message": _told(problem), "hint": problem.hint}
        for problem in error.problems
    ]
    message = "; ".join(f"{problem['field']}: {problem['message']} {problem['hint']}".strip() for problem in problems)
    param = problems[0]["field"] if problems else None
    return error_body(400, error.code, message, param=param, hint=error.hint, retryable=False, problems=problems)


def _told(problem: Problem) -> str:
    """What was wrong. A value of the wrong kind is not repeated: it may be anything, a secret too."""
    if problem.code == "wrong_type" and problem.field in KNOBS:
        return f"must be {_KINDS[KNOBS[problem.field].kind]}."
    if problem.code == "contradiction":
        return "was given twice with different values, or beside a knob that means the same."
    return problem.message if len(problem.message) <= 300 else problem.message[:297] + "…"


def _type_of(status: int) -> str:
    match status:
        case 401:
            return "authentication_error"
        case 403 | 421:
            return "permission_error"
        case 404:
            return "not_found_error"
        case 429:
            return "rate_limit_error"
        case _:
            return "server_error" if status >= 500 else "invalid_request_error"


def install(app: FastAPI) -> None:
    """Make every error of the app take this form."""
    app.exception_handler(WanreelError)(_ours)
    app.exception_handler(Refused)(_refused)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(HTTPException)(_http)
    app.exception_handler(Exception)(_unexpected)


def _ours(_request: Request, error: WanreelError) -> JSONResponse:
    status = status_of(error)
    headers: dict[str, str] = {}
    if isinstance(error, QueueFull):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    elif status == 503:
        headers["Retry-After"] = str(_LATER)
    return JSONResponse(body_of(error), status, headers)


def _refused(_request: Request, error: Refused) -> JSONResponse:
    return error.response()


def _invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
    """Only where and what: FastAPI's own answer repeats the input, secrets included."""
    problems = [
        {"field": _where(item), "code": str(item["type"]), "message": str(item["msg"]), "hint": ""}
        for item in error.errors()
    ]
    message = "; ".join(f"{problem['field']}: {problem['message']}" for problem in problems)
    param = problems[0]["field"] if problems else None
    return JSONResponse(error_body(400, "invalid_request", message, param=param, problems=problems), 400)


def _where(item: Mapping[str, Any]) -> str:
    return ".".join(str(part)[:64] for part in item["loc"][1:]) or str(item["loc"][0])


def _http(_request: Request, error: HTTPException) -> JSONResponse:
    status = error.status_code
    phrase = HTTPStatus(status).phrase
    return JSONResponse(error_body(status, phrase.lower().replace(" ", "_"), f"{phrase}."), status, error.headers)


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    """A fault of ours: told in the log, not to the client."""
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse(
        error_body(500, "internal_error", "Something went wrong in Wanreel; the server's log says what."), 500
    )
