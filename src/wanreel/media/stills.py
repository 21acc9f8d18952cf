"""Still pictures as files: PNG without loss, with what is to be known of them inside. Knows nothing of recipes' meaning."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from wanreel.core.errors import ExportFailed, InsufficientStorage
from wanreel.host import replace_durably

_FULL = (28, 122)  # ENOSPC, EDQUOT


def save_png(path: Path, pixels: NDArray[np.uint8], metadata: Mapping[str, str] | None = None) -> tuple[str, int]:
    """Write `pixels` [h, w, 3]; returns (SHA-256, bytes). The file appears whole, and survives a power cut.

    `metadata` ("title", "comment") become the standard's keywords Title and Comment. Raises ExportFailed,
    InsufficientStorage.
    """
    info = PngInfo()
    for name, text in (metadata or {}).items():
        info.add_itxt(name.capitalize(), text)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG", pnginfo=info)
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_bytes(data.getvalue())
        replace_durably(temporary, path)
    except OSError as exc:
        if exc.errno in _FULL:
            raise InsufficientStorage(f"The disk is full: {path.name} could not be written.") from exc
        raise ExportFailed(f"{path.name} could not be written: {exc.strerror or exc}.") from exc
    finally:
        temporary.unlink(missing_ok=True)
    return hashlib.sha256(data.getvalue()).hexdigest(), len(data.getvalue())
