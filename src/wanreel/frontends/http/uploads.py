"""Uploads: pictures and sounds handed in ahead of the request that uses them. Knows nothing of HTTP.

They are checked and cleaned at once and kept by content, like any other; what is kept here is who handed it in and
how he called it. The name is only ever compared.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from wanreel.core.errors import InvalidRequest
from wanreel.core.picture import PictureRef
from wanreel.core.sound import SoundRef
from wanreel.host import replace_durably

MOST = 1000  #: kept per owner; the oldest gives way
_ID = re.compile(r"file-[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A picture or a sound that was handed in."""

    id: str
    name: str  #: as the client called it, for people
    size: int  #: bytes as handed in
    created_at: float  #: wall clock, seconds since 1970; for display only
    picture: PictureRef | None
    sound: SoundRef | None = None


class Uploads:
    """The uploads of every owner, one small file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, owner: str, name: str, size: int, content: PictureRef | SoundRef) -> UploadedFile:
        """Keep a picture or a sound that is in the data directory already."""
        kind = "picture" if isinstance(content, PictureRef) else "sound"
        kinds: dict[str, Any] = {"picture": None, kind: content}
        upload = UploadedFile(f"file-{secrets.token_hex(16)}", name, size, time.time(), **kinds)
        folder = self._of(owner)
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{upload.id}"
        temporary.write_text(json.dumps(asdict(upload), ensure_ascii=False), encoding="utf-8")
        replace_durably(temporary, folder / f"{upload.id}.json")
        for old in self.list(owner)[MOST:]:
            self.delete(owner, old.id)
        return upload

    def get(self, owner: str, upload_id: str) -> UploadedFile | None:
        """The upload, if it is this owner's."""
        if _ID.fullmatch(upload_id) is None:
            return None
        return _read(self._of(owner) / f"{upload_id}.json")

    def list(self, owner: str) -> list[UploadedFile]:
        """The owner's uploads, newest first."""
        found = [upload for path in self._of(owner).glob("file-*.json") if (upload := _read(path)) is not None]
        return sorted(found, key=lambda upload: (upload.created_at, upload.id), reverse=True)

    def delete(self, owner: str, upload_id: str) -> bool:
        """Forget an upload; False when there is none. The picture stays for the requests that use it."""
        if self.get(owner, upload_id) is None:
            return False
        (self._of(owner) / f"{upload_id}.json").unlink(missing_ok=True)
        return True

    def find(self, owner: str, name: str, knob: str) -> UploadedFile:
        """The upload with this id or, where it is the only one, this name. Raises InvalidRequest."""
        by_id = self.get(owner, name)
        if by_id is not None:
            return by_id
        named = [upload for upload in self.list(owner) if upload.name == name]
        if len(named) == 1:
            return named[0]
        if named:
            raise InvalidRequest.of(knob, "ambiguous", "several uploads have this name.", "Give the id.")
        raise InvalidRequest.of(
            knob, "no_upload", "is neither the id nor the name of a file you uploaded; paths are never read.",
            "Upload it with POST /v1/files, or send it as a file, base64 or data: URL.",
        )  # fmt: skip

    def _of(self, owner: str) -> Path:
        # A digest, because an owner's name is free text.
        return self._folder / hashlib.sha256(owner.encode()).hexdigest()[:32]


def _read(path: Path) -> UploadedFile | None:
    try:
        values = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
        picture, sound = values.pop("picture"), values.pop("sound", None)
        return UploadedFile(
            **values,
            picture=PictureRef.from_dict(picture) if picture else None,
            sound=SoundRef(**sound) if sound else None,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
