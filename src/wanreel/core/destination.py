"""Destination: a place in object storage and the keys to it. Knows nothing of how bytes get there.

The keys are shown in no text: not by `repr`, not in an error. Whoever stores or logs a Destination stores its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import quote

#: Names that objects of a job end in, by the kind of file.
_ENDINGS: Mapping[str, str] = {"last_frame": "lastframe"}
LOCAL = "local"  #: in the place of a profile's name: the result stays on this machine
PROFILE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_KEY = re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")
LONGEST_PRESIGNED = 7 * 86_400  #: seconds, by Signature Version 4


@dataclass(frozen=True, slots=True)
class Credentials:
    """Keys to object storage."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where results go."""

    bucket: str
    credentials: Credentials | None = None  #: None: those that the machine has by itself, such as a role of AWS
    name: str = ""  #: of the operator's profile; empty for one that came with a request
    endpoint: str = ""  #: as https://name:port; empty for AWS
    region: str = "us-east-1"
    prefix: str = ""  #: of every key, without a slash at its end
    path_style: bool = True  #: https://endpoint/bucket/key, not https://bucket.endpoint/key
    public_url: str = ""  #: where the bucket's objects can be read by anybody; empty where they can't
    presign_seconds: int = 3600  #: for which a signed address is good
    proxied: bool = False  #: whether this server passes downloads on by itself

    def key(self, name: str) -> str:
        """The key of the object called `name`."""
        return f"{self.prefix}/{name}" if self.prefix else name

    def public_address(self, key: str) -> str:
        """Where anybody can read the object; "" where nobody can without a signature."""
        return f"{self.public_url.rstrip('/')}/{quote(key)}" if self.public_url else ""


def object_name(job_id: str, kind: str, file_name: str) -> str:
    """What a job's file is called in storage: <id>_video.mp4, <id>_lastframe.png."""
    return f"{job_id}_{_ENDINGS.get(kind, kind)}{PurePosixPath(file_name).suffix}"


def is_key(text: str) -> bool:
    """Whether a key can begin with it: plain characters, and no part that only dots are in, which URLs take for a step."""
    return _KEY.fullmatch(text) is not None and not any(part.strip(".") == "" for part in text.split("/"))
