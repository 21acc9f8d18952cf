"""Wanreel: serving the open Wan 2.1 / 2.2 video models.

The names below are imported when first used, so that `import wanreel` and `wanreel --help` stay quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from wanreel.core.cancel import CancelToken as CancelToken
    from wanreel.core.errors import WanreelError as WanreelError
    from wanreel.core.request import LoraRef as LoraRef
    from wanreel.core.request import VideoRequest as VideoRequest
    from wanreel.core.video import Video as Video
    from wanreel.frontends.client import Client as Client
    from wanreel.frontends.python import Wanreel as Wanreel

_HOME = {
    "CancelToken": "wanreel.core.cancel",
    "Client": "wanreel.frontends.client",
    "LoraRef": "wanreel.core.request",
    "Video": "wanreel.core.video",
    "VideoRequest": "wanreel.core.request",
    "Wanreel": "wanreel.frontends.python",
    "WanreelError": "wanreel.core.errors",
}

__all__ = ["CancelToken", "Client", "LoraRef", "Video", "VideoRequest", "Wanreel", "WanreelError", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'wanreel' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
