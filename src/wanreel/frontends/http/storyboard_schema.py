"""The schema of storyboards as they are sent: derived from the fields of `core.storyboard` and from the knobs."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args

from wanreel.core.request import KNOBS
from wanreel.core.storyboard import (
    MAX_FADE,
    MAX_SCENES,
    NOT_ANYWHERE,
    NOT_IN_SCENES,
    Scene,
    Start,
    Storyboard,
    Transition,
)
from wanreel.frontends.http import body_schema

_KINDS: dict[str, dict[str, Any]] = {
    "prompt": {"type": "string", "minLength": 1, "maxLength": 4000},
    "name": {"type": "string", "maxLength": 200},
    "title": {"type": "string", "maxLength": 200},
    "start": {"type": "string", "enum": list(get_args(Start))},
    "keyframe": {"type": ["string", "object"]},
    "end_keyframe": {"type": ["string", "object"]},
    "transition": {"type": "string", "enum": list(get_args(Transition))},
    "transition_frames": {"type": "integer", "minimum": 1, "maximum": MAX_FADE},
    "colour_match": {"type": "number", "minimum": 0, "maximum": 1},
}


def _properties(kind: type, refused: tuple[str, ...]) -> dict[str, Any]:
    own = {
        item.name: body_schema.or_null(_KINDS[item.name] | {"description": item.metadata["help"]})
        for item in fields(kind)
        if item.name in _KINDS
    }
    knobs = body_schema.knob_properties({name: knob for name, knob in KNOBS.items() if name not in refused})
    return {**own, **{name: body_schema.or_null(value) for name, value in knobs.items() if name not in own}}


SCENE: dict[str, Any] = {
    "type": "object",
    "required": ["prompt"],
    "properties": _properties(Scene, (*NOT_ANYWHERE, *NOT_IN_SCENES)),
}
_BOARD: dict[str, Any] = {
    "type": "object",
    "required": ["scenes"],
    "properties": {
        **_properties(Storyboard, NOT_ANYWHERE),
        "scenes": {"type": "array", "items": SCENE, "minItems": 1, "maxItems": MAX_SCENES},
    },
}
_EXAMPLE = {"title": "A walk", "scenes": [{"prompt": "a cat sits"}, {"prompt": "it gets up"}]}

BOARD: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": _BOARD, "example": _EXAMPLE}}}
}
_TOLD = {"webhook_url": body_schema.or_null(body_schema.webhook_schema("the film is there"))}
_NEW = {**_BOARD, "properties": {**_BOARD["properties"], **_TOLD}}
#: The same when it is handed in.
NEW_BOARD: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": _NEW, "example": _EXAMPLE}}}
}
CHANGES: dict[str, Any] = {
    "requestBody": {
        "content": {
            "application/json": {
                "schema": {"type": "object", "properties": SCENE["properties"]},
                "example": {"prompt": "it gets up slowly"},
            }
        }
    }
}
_NUMBERS = {"order": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": MAX_SCENES}}}
ORDER: dict[str, Any] = {"requestBody": body_schema.json_body(_NUMBERS, required=["order"], example={"order": [2, 1]})}
