"""Pictures as text: base64, data: URLs and http(s) addresses. Never a path. Knows nothing of what becomes of them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable

from wanreel.core.errors import InvalidRequest
from wanreel.media.pictures import MAX_BYTES

Fetch = Callable[[str, str], bytes]  #: what lies at a URL; raises InvalidRequest naming the knob

_DATA_URL = re.compile(r"data:[\w.+/-]{0,100}(?:;[\w=.+-]{1,60})*;base64,", re.IGNORECASE)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,15}:")
_LONGEST_BASE64 = 2 * MAX_BYTES  #: characters, line breaks included
_HOW = "Send base64 or a data: URL."


def is_address(text: str) -> bool:
    """Whether the text begins like a URL of any scheme, data: too."""
    return _URL.match(text) is not None


def picture_bytes(text: str, knob: str, fetch: Fetch | None, how: str = _HOW) -> bytes:
    """The bytes that a text stands for. Raises InvalidRequest naming `knob`; without `fetch`, for every address."""
    if match := _DATA_URL.match(text):
        return _decoded(text[match.end() :], knob, how)
    if not is_address(text):
        return _decoded(text, knob, how)
    if fetch is None or not text.lower().startswith(("http://", "https://")):
        raise InvalidRequest.of(
            knob, "url_not_read", "this server does not read addresses.",
            "Send the picture as a file, as base64 or as a data: URL.",
        )  # fmt: skip
    return fetch(text, knob)


def _decoded(text: str, knob: str, how: str) -> bytes:
    if len(text) > _LONGEST_BASE64:
        raise InvalidRequest.of(knob, "too_large", "is larger than any picture that is read.", "Save it smaller.")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidRequest.of(knob, "bad_base64", "is no picture in base64.", how) from exc
