"""Upscaler: a network that enlarges pictures, as requests and records name it. Knows nothing of files or pixels."""

from __future__ import annotations

import re
from dataclasses import dataclass

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LANCZOS = "lanczos"  #: in the place of a name: no network


@dataclass(frozen=True, slots=True)
class UpscalerRef:
    """One that is on the machine, and what it was when the request was taken in."""

    name: str
    scale: int  #: times that it enlarges by itself; the rest is Lanczos' filter
    sha256: str  #: of its weights, 64 hex digits
    config_sha256: str  #: of its config.json
