"""The schema of what is sent: derived from the knobs, once, for every route that takes a request.

Knows nothing of what is answered (schema.py) and checks nothing itself: it is what the OpenAPI document says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from wanreel.core.lora import MAX_LORAS, MAX_STRENGTH, NAME
from wanreel.core.request import KNOBS, Knob


def request_schema(*, multipart: bool) -> dict[str, Any]:
    """JSON Schema of a request's body. Names every knob, its aliases and what other servers' clients send."""
    properties = knob_properties(KNOBS, multipart=multipart)
    properties["size"] = {
        "type": "string",
        "pattern": "^([0-9]{2,4}x[0-9]{2,4}|auto)?$",
        "description": "WIDTHxHEIGHT, as OpenAI's clients send it; empty or auto: the model's own.",
        "examples": ["1280x720"],
    }
    properties["input_reference"] = _picture_schema(
        "The first frame, as OpenAI's clients send it.", multipart=multipart
    )
    properties["webhook_url"] = webhook_schema("the video has ended")
    properties["upload"] = own_storage_schema()
    optional = {name: or_null(value) for name, value in properties.items() if name != "prompt"}
    return {"type": "object", "required": ["prompt"], "properties": {"prompt": properties["prompt"], **optional}}


def knob_properties(known: Mapping[str, Knob], *, multipart: bool = False) -> dict[str, Any]:
    """JSON Schema of each knob."""
    return {name: _knob_schema(knob, multipart=multipart) for name, knob in known.items()}


def webhook_schema(when: str) -> dict[str, Any]:
    """Who is told."""
    said = f"Told, signed, when {when}; where the operator allows it."
    return {"type": "string", "maxLength": 2048, "description": said}


def own_storage_schema() -> dict[str, Any]:
    """Storage and keys that come with a request."""
    text: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 4096}
    secret = text | {"writeOnly": True}
    members = {
        "endpoint_url": text
        | {"description": "https://<account>.r2.cloudflarestorage.com, or one the operator allows."},
        "bucket_name": text,
        "access_key_id": secret,
        "secret_access_key": secret,
        "session_token": secret,
        "region": text | {"description": "auto by default."},
    }
    return {
        "type": "object",
        "required": ["endpoint_url", "bucket_name", "access_key_id", "secret_access_key"],
        "additionalProperties": False,
        "properties": members,
        "description": "S3 storage of your own, where the operator allows it. Also: r2. The keys are never stored.",
    }


def or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with null allowed too, which is as if the value were left out."""
    if "anyOf" in schema:
        return schema | {"anyOf": [*schema["anyOf"], {"type": "null"}]}
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    choices = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return schema | {"type": [*kinds, "null"]} | choices


_STRENGTH: dict[str, Any] = {"type": "number", "minimum": -MAX_STRENGTH, "maximum": MAX_STRENGTH}
_LORA_NAME: dict[str, Any] = {"type": "string", "pattern": f"^{NAME.pattern}$", "description": "From GET /v1/loras."}
_LORA: dict[str, Any] = {
    "anyOf": [
        _LORA_NAME,
        {
            "type": "object",
            "required": ["name"],
            "additionalProperties": False,
            "properties": {
                "name": _LORA_NAME,
                "strength": _STRENGTH | {"description": "On whichever expert the file is for; 1 by default."},
                "strength_high": _STRENGTH | {"description": "On the high-noise expert, or the only one."},
                "strength_low": _STRENGTH | {"description": "On the low-noise expert."},
                "schedule": {
                    "type": "string",
                    "description": "Factors over the steps: 0,1 is off in the first half, 0>1 rises evenly.",
                },
                "sha256": {"type": "string", "description": "The file it must be."},
            },
        },
    ]
}


def _knob_schema(knob: Knob, *, multipart: bool) -> dict[str, Any]:
    about = knob.help + (f" Unit: {knob.unit}." if knob.unit else "")
    if knob.aliases:
        about += f" Also: {', '.join(knob.aliases)}."
    schema: dict[str, Any]
    match knob.kind:
        case "picture":
            return _picture_schema(about, multipart=multipart)
        case "sound":
            return _sound_schema(about, multipart=multipart)
        case "loras":
            schema = {"type": "array", "items": _LORA, "maxItems": MAX_LORAS}
        case "text" | "name":
            schema = {"type": "string"} | _bounds(knob, "minLength", "maxLength")
        case "integer" | "number":  # as text in forms
            schema = {"type": [knob.kind, "string"]} | _bounds(knob, "minimum", "maximum")
        case "flag":
            schema = {"type": ["boolean", "string"]}
    if knob.choices:
        schema["enum"] = list(knob.choices)
    return schema | {"description": about}


def _bounds(knob: Knob, low: str, high: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in ((low, knob.minimum), (high, knob.maximum)):
        if value is not None:
            found[name] = int(value) if float(value).is_integer() else value
    return found


def _picture_schema(about: str, *, multipart: bool) -> dict[str, Any]:
    if multipart:
        return {"type": "string", "format": "binary", "description": about + " PNG, JPEG or WebP."}
    reference = {"type": "object", "properties": {"file_id": {"type": "string"}, "image_url": {"type": "string"}}}
    return {
        "anyOf": [{"type": "string"}, reference],
        "description": about + " Base64, a data: URL, or the id of an upload; never a path.",
    }


def _sound_schema(about: str, *, multipart: bool) -> dict[str, Any]:
    if multipart:
        return {"type": "string", "format": "binary", "description": about + " WAV, MP3, FLAC, Ogg, M4A or WebM."}
    reference = {"type": "object", "required": ["file_id"], "properties": {"file_id": {"type": "string"}}}
    return {
        "anyOf": [{"type": "string"}, reference],
        "description": about + " Base64, a data: URL, or the id of an upload; never a path.",
    }


def request_body() -> dict[str, Any]:
    """OpenAPI's requestBody of whatever takes a request."""
    example = {"prompt": "a red circle moves right over a blue background", "seed": 7}
    return {
        "required": True,
        "content": {
            "application/json": {"schema": request_schema(multipart=False), "example": example},
            "multipart/form-data": {"schema": request_schema(multipart=True)},
        },
    }


def json_body(
    properties: Mapping[str, Any], *, required: Iterable[str] = (), example: Mapping[str, Any]
) -> dict[str, Any]:
    """OpenAPI's requestBody of an endpoint that takes a JSON object."""
    names = list(required)
    schema: dict[str, Any] = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    if names:
        schema["required"] = names
    return {"required": bool(names), "content": {"application/json": {"schema": schema, "example": dict(example)}}}


def upload_body(about: str, **others: Mapping[str, object]) -> dict[str, Any]:
    """A form with one file, and what may come beside it."""
    file = {"type": "string", "format": "binary", "description": about}
    form = {"type": "object", "required": ["file"], "properties": {"file": file, **others}}
    return {"required": True, "content": {"multipart/form-data": {"schema": form}}}
