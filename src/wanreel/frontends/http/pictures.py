"""Pictures in requests, in every shape clients send them: files, base64, data: URLs, ids of uploads. Never a path."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

from wanreel.core.errors import InvalidRequest
from wanreel.core.picture import PictureRef
from wanreel.frontends.http.errors import Refused
from wanreel.frontends.http.forms import Upload
from wanreel.frontends.http.uploads import UploadedFile, Uploads
from wanreel.frontends.picture_text import Fetch, is_address, picture_bytes

#: What takes a picture, and of which knob.
FIELDS: Mapping[str, str] = {
    "image": "image",
    "input_reference": "image",
    "first_image": "image",
    "reference_image": "image",
    "image_reference": "image",
    "image_file": "image",
    "image_base64": "image",
    "image_data": "image",
    "image_url": "image",
    "reference_url": "image",
    "image_path": "image",
    "last_image": "last_image",
    "last_image_url": "last_image",
    "last_image_base64": "last_image",
    "last_frame_file": "last_image",
    "last_frame_path": "last_image",
}
_AT_A_TIME = 2  #: pictures read
_PATIENCE = 30.0  #: seconds that a picture waits for its turn
_SHORTEST_BASE64 = 64  #: characters; no picture we accept is smaller

Take = Callable[[bytes, str], PictureRef]  #: checks bytes and keeps them; raises UnreadablePicture naming the knob


class Turnstile:
    """A Take that reads only a few pictures at a time: the largest ones take a quarter of a GB while they are read.

    Always in the same few threads, because the C library keeps what a thread has freed for that thread.
    """

    def __init__(self, take: Take) -> None:
        self._take = take
        self._free = threading.BoundedSemaphore(_AT_A_TIME)
        self._readers = ThreadPoolExecutor(_AT_A_TIME, "picture")

    def __call__(self, data: bytes, knob: str) -> PictureRef:
        """Raises UnreadablePicture, and Refused when there are too many before this one."""
        if not self._free.acquire(timeout=_PATIENCE):
            raise Refused(503, "busy", "Too many pictures are being read now.", headers={"Retry-After": "10"})
        try:
            return self._readers.submit(self._take, data, knob).result()
        finally:
            self._free.release()


@dataclass(frozen=True, slots=True)
class PictureDesk:
    """Turns what a client sent as a picture into a PictureRef."""

    take: Take
    uploads: Uploads
    fetch: Fetch | None = None  #: None where http(s) addresses are not read

    def accept(self, owner: str, field: str, value: object) -> PictureRef:
        """The picture in `value`, which came in `field`. Raises InvalidRequest."""
        knob = FIELDS[field]
        if isinstance(value, Upload):
            return self.take(value.data, knob)
        if isinstance(value, Mapping):
            return self._object(owner, field, cast("Mapping[str, object]", value))
        if isinstance(value, str):
            return self._text(owner, field, value.strip())
        raise InvalidRequest.of(knob, "wrong_type", "must be a picture.", _HOW)

    def _object(self, owner: str, field: str, value: Mapping[str, object]) -> PictureRef:
        """{"file_id": …}, or {"image_url": …} or {"url": …} with an address, itself sometimes in an object."""
        knob = FIELDS[field]
        if isinstance(value.get("file_id"), str):
            return _picture_in(self.uploads.find(owner, cast("str", value["file_id"]), knob), knob)
        for name in ("image_url", "url"):
            inner = value.get(name)
            if isinstance(inner, Mapping):
                inner = cast("Mapping[str, object]", inner).get("url")
            if isinstance(inner, str):
                return self._text(owner, field, inner.strip())
        raise InvalidRequest.of(knob, "wrong_type", "must hold file_id or image_url.", _HOW)

    def _text(self, owner: str, field: str, text: str) -> PictureRef:
        knob = FIELDS[field]
        if not is_address(text):
            upload = self.uploads.get(owner, text) if len(text) <= _SHORTEST_BASE64 else None
            if upload is not None:
                return _picture_in(upload, knob)
            if field.endswith("_path") or len(text) < _SHORTEST_BASE64:
                return _picture_in(self.uploads.find(owner, text, knob), knob)
        return self.take(picture_bytes(text, knob, self.fetch, _HOW), knob)


def _picture_in(upload: UploadedFile, knob: str) -> PictureRef:
    if upload.picture is None:
        raise InvalidRequest.of(knob, "wrong_type", "is no picture but a sound.", _HOW)
    return upload.picture


_HOW = "Send a file, base64, a data: URL, or the id of an upload."
