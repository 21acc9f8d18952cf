"""Bodies as plain values: JSON, form fields with bracket keys, files. Knows no field by name but the JSON ones.

The openai client flattens nested values: `nested[a]=1`, `loras[][name]=x`. Text that holds JSON is accepted for
lists and objects too, as other clients send it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request

from wanreel.core.errors import InvalidRequest, Problem
from wanreel.frontends.http.errors import Refused
from wanreel.frontends.http.guard import MULTIPART_LIMIT

MAX_FIELDS = 64
MAX_FILES = 3  #: two pictures and a sound
MAX_ITEMS = 32  #: of one list in a form
MAX_DEPTH = 32  #: of nested JSON
MAX_MEMBERS = 256  #: of one JSON object
#: Values in a JSON body. A few bytes of it become a hundred in memory; only text, which pictures are, stays as it is.
MAX_VALUES = 20_000
_LONGEST_NAME = 255
_KEY = re.compile(r"([^\[\]]{1,64})((?:\[[^\[\]]{0,64}\]){0,4})")
_PART = re.compile(r"\[([^\[\]]*)\]")
#: Fields in which text that looks like JSON is JSON.
_JSON_FIELDS = frozenset(
    {
        "loras",
        "lora",
        "extra_body",
        "extra_json",
        "extra_params",
        "input_reference",
        "image_reference",
        "image",
        "last_image",
        "audio",
        "r2",
        "upload",
    }
)
#: Objects whose members count as fields of the body.
_MERGED = ("extra_body", "extra_json", "extra_params")


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as it came in. Its name is for people and is never made a path."""

    name: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Body:
    """What was sent, whatever the form."""

    values: dict[str, object]
    files: dict[str, Upload]


async def read_body(request: Request) -> Body:
    """The body as values and files. Raises Refused."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == "application/json":
            return Body(_merged(json_object(await _text(request))), {})
        if kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
            return await _form(request)
    except ClientDisconnect as exc:
        raise Refused(400, "disconnected", "The client left.") from exc
    raise Refused(415, "unsupported_media_type", "Send application/json or multipart/form-data.")


async def read_json(request: Request, *, empty: bool = False) -> dict[str, object]:
    """The body of an endpoint that takes JSON only. Raises Refused."""
    raw = await _text(request)
    if empty and not raw.strip():
        return {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, "unsupported_media_type", "Send application/json.")
    return json_object(raw)


async def _text(request: Request) -> str:
    """The body as text. One copy of it at a time, because it may hold a picture."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
    return _decoded(data)


def _decoded(data: bytes | bytearray) -> str:
    try:
        return data.decode(json.detect_encoding(data), "surrogatepass")
    except UnicodeDecodeError as exc:
        raise Refused(400, "bad_json", "The body is not JSON.") from exc


def take_only(values: dict[str, object], *names: str) -> None:
    """Raises InvalidRequest for a field with another name."""
    problems = [
        Problem(name, "unknown_field", "is not taken here.", f"Give {', '.join(names)}.")
        for name in values
        if name not in names
    ]
    if problems:
        raise InvalidRequest(*problems)


def json_object(raw: bytes | str) -> dict[str, object]:
    """A JSON object: finite numbers, text that is text, not too deep. Raises Refused."""
    text = raw if isinstance(raw, str) else _decoded(raw)
    if sum(text.count(mark) for mark in ",[{") > MAX_VALUES:
        raise Refused(400, "bad_json", "The body has too many values.")
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as exc:
        raise Refused(400, "bad_json", "The body is not JSON.") from exc
    if not isinstance(value, dict):
        raise Refused(400, "bad_json", "The body must be a JSON object.")
    _check(cast("object", value), MAX_DEPTH)
    return cast("dict[str, object]", value)


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


def _check(value: object, depth: int) -> None:
    """Raises Refused for what no database and no header can carry."""
    if depth == 0:
        raise Refused(400, "bad_json", "The body is nested too deeply.")
    if isinstance(value, str):
        check_text(value)
    elif isinstance(value, dict):
        members = cast("dict[str, object]", value)
        if len(members) > MAX_MEMBERS:
            raise Refused(400, "bad_json", f"An object has at most {MAX_MEMBERS} members.")
        for key, item in members.items():
            check_text(key)
            _check(item, depth - 1)
    elif isinstance(value, list):
        for item in cast("list[object]", value):
            _check(item, depth - 1)


def check_text(text: str) -> None:
    """Raises Refused for half a surrogate pair."""
    if text.isascii():  # as pictures are, of which a copy would be large
        return
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise Refused(400, "bad_text", "The text is not Unicode.") from exc


async def _form(request: Request) -> Body:
    try:
        form = await request.form(max_files=MAX_FILES, max_fields=MAX_FIELDS, max_part_size=MULTIPART_LIMIT)
    except (HTTPException, MultiPartException, UnicodeDecodeError, ValueError) as exc:
        raise Refused(400, "bad_form", "The form can't be read, or has too many fields or files.") from exc
    async with _Closing(form):
        files: dict[str, Upload] = {}
        fields: list[tuple[str, str]] = []
        for name, item in form.multi_items():
            if isinstance(item, UploadFile):
                files[name] = Upload(display_name(item.filename or ""), await item.read())
            else:
                check_text(item)
                fields.append((name, item))
    return Body(_merged(nested(fields)), files)


class _Closing:
    """Closes a form's temporary files."""

    def __init__(self, form: FormData) -> None:
        self._form = form

    async def __aenter__(self) -> FormData:
        return self._form

    async def __aexit__(self, *_: object) -> None:
        await self._form.close()


def display_name(name: str) -> str:
    """A client's file name as text to show: its last part, without control characters."""
    last = re.split(r"[/\\]", name)[-1]
    shown = "".join(c for c in last if c.isprintable()).encode("utf-8", "replace").decode()
    return shown[:_LONGEST_NAME]


def nested(fields: Iterable[tuple[str, str]]) -> dict[str, object]:
    """Fields with bracket keys as nested values. Raises Refused.

    A list of objects starts its next one when a member comes again: `l[][a]=1 l[][b]=2 l[][a]=3` are two.
    """
    values: dict[str, object] = {}
    for name, text in fields:
        match = _KEY.fullmatch(name)
        if match is None:
            raise Refused(400, "bad_form", "A field's name can't be read.")
        top, parts = match[1], _PART.findall(match[2])
        if parts:
            values[top] = _placed(values.get(top), parts, text)
        elif top in values:
            raise Refused(400, "bad_form", f"{display_name(top)} was given twice.")
        else:
            values[top] = _loaded(top, text)
    return values


def _placed(old: object, parts: list[str], text: str) -> object:
    """`old` with `text` put where the brackets say."""
    if not parts:
        return text
    part, rest = parts[0], parts[1:]
    if part == "" or part.isdecimal():
        items = cast("list[object]", old if isinstance(old, list) else _empty(old, []))
        if len(items) >= MAX_ITEMS:
            raise Refused(400, "bad_form", f"A list has at most {MAX_ITEMS} items.")
        last = items[-1] if items else None
        if rest and isinstance(last, dict) and rest[0] not in last and (part == "" or int(part[:4]) == len(items) - 1):
            items[-1] = _placed(cast("object", last), rest, text)
        else:
            items.append(_placed(None, rest, text))
        return items
    members = cast("dict[str, object]", old if isinstance(old, dict) else _empty(old, {}))
    members[part] = _placed(members.get(part), rest, text)
    return members


def _empty(old: object, new: Any) -> Any:
    if old is not None:
        raise Refused(400, "bad_form", "A field is both a value and a list or an object.")
    return new


def _loaded(name: str, text: str) -> object:
    if name in _JSON_FIELDS and text.lstrip()[:1] in ("{", "["):
        return json_object(f'{{"value": {text}}}')["value"]
    return text


def _merged(values: dict[str, object]) -> dict[str, object]:
    """Members of `extra_body` and its like as if they stood beside it. Raises Refused."""
    merged = dict(values)
    for name in _MERGED:
        extra = merged.pop(name, None)
        if extra is None:
            continue
        if isinstance(extra, str):
            extra = json_object(extra)
        if not isinstance(extra, Mapping):
            raise Refused(400, "bad_json", f"{name} must be an object.")
        for key, value in cast("Mapping[str, object]", extra).items():
            if key in merged and merged[key] != value:
                raise Refused(
                    400, "contradiction", f"{display_name(key)} stands in {name} and beside it, with different values."
                )
            merged[key] = value
    return merged
