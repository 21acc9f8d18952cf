"""Sounds in requests, in every shape clients send them: files, base64, data: URLs, ids of uploads. Never a path."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

from wanreel.core.errors import InvalidRequest
from wanreel.core.sound import SoundRef
from wanreel.frontends.http.errors import Refused
from wanreel.frontends.http.forms import Upload
from wanreel.frontends.http.uploads import Uploads
from wanreel.frontends.picture_text import is_address, picture_bytes

KNOB = "audio"
FIELDS = (KNOB, "audio_base64")  #: what takes a sound
_AT_A_TIME = 2  #: sounds read, each in a process of its own
_PATIENCE = 30.0  #: seconds that a sound waits for its turn
_HOW = "Send a file, base64, a data: URL, or the id of an upload."

Take = Callable[[bytes, str], SoundRef]  #: checks bytes and keeps them; raises InvalidRequest naming the knob


@dataclass(frozen=True, slots=True)
class SoundDesk:
    """Turns what a client sent as a sound into a SoundRef."""

    read: Take
    uploads: Uploads
    _free: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(_AT_A_TIME))

    def take(self, data: bytes, knob: str = KNOB) -> SoundRef:
        """Raises InvalidRequest, and Refused when there are too many before this one."""
        if not self._free.acquire(timeout=_PATIENCE):
            raise Refused(503, "busy", "Too many sounds are being read now.", headers={"Retry-After": "10"})
        try:
            return self.read(data, knob)
        finally:
            self._free.release()

    def accept(self, owner: str, value: object) -> SoundRef:
        """The sound in `value`. Raises InvalidRequest."""
        if isinstance(value, Upload):
            return self.take(value.data)
        if isinstance(value, Mapping):
            value = cast("Mapping[str, object]", value).get("file_id")
        if not isinstance(value, str):
            raise InvalidRequest.of(KNOB, "wrong_type", "must be a sound.", _HOW)
        text = value.strip()
        upload = None if is_address(text) else self.uploads.get(owner, text)
        if upload is None and not is_address(text) and len(text) < 64:
            upload = self.uploads.find(owner, text, KNOB)
        if upload is None:
            return self.take(picture_bytes(text, KNOB, None, _HOW))
        if upload.sound is None:
            raise InvalidRequest.of(KNOB, "wrong_type", "is no sound but a picture.", _HOW)
        return upload.sound
