"""Animated pictures: WebP and GIF files, and the small WebP previews. Knows nothing of video codecs."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import escape, unescape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wanreel.core.request import Quality

_WEBP_QUALITY: Mapping[Quality, int] = {"low": 50, "medium": 70, "high": 85, "maximum": 95}
#: Adobe XMP specification, part 1: a packet whose dc:description is the recipe. EXIF text would be ASCII only.
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:description>{}</dc:description>'
    "</rdf:Description></rdf:RDF></x:xmpmeta>"
)


class AnimationEncoder:
    """Collects frames and writes them as one animated picture. These formats are small by nature."""

    def __init__(
        self, path: Path, kind: Literal["webp", "gif"], fps: float, quality: Quality, metadata: Mapping[str, str]
    ) -> None:
        self._path = path
        self._kind: Literal["webp", "gif"] = kind
        self._fps = fps
        self._quality: Quality = quality
        self._comment = metadata.get("comment", "")
        self._frames: list[Image.Image] = []

    def write(self, frame: NDArray[np.uint8]) -> None:
        self._frames.append(Image.fromarray(frame))

    def close(self) -> None:
        options: dict[str, Any] = {"save_all": True, "append_images": self._frames[1:], "loop": 0}
        options["duration"] = durations(len(self._frames), self._fps, step=10 if self._kind == "gif" else 1)
        if self._kind == "webp":
            options |= {"quality": _WEBP_QUALITY[self._quality], "method": 4}
            if self._comment:
                options["xmp"] = xmp_packet(self._comment)
        elif self._comment:
            options["comment"] = self._comment.encode()
        self._frames[0].save(self._path, self._kind.upper(), **options)


def xmp_packet(text: str) -> bytes:
    """An XMP packet that describes the picture with `text`."""
    return _XMP.format(escape(text)).encode()


def xmp_text(packet: bytes) -> str:
    """The text of `xmp_packet`; empty for another's packet."""
    _, _, rest = packet.decode(errors="replace").partition("<dc:description>")
    return unescape(rest.partition("</dc:description>")[0])


def durations(frames: int, fps: float, step: int) -> list[int]:
    """Milliseconds of each frame in multiples of `step`, so that the whole is as long as it should be."""
    ends = [round(1000 * (index + 1) / fps / step) * step for index in range(frames)]
    return [max(step, end - start) for start, end in zip([0, *ends], ends, strict=False)]


def encode_animation(frames: Sequence[NDArray[np.uint8]], fps: float) -> bytes:
    """A small animated WebP of frames [h, w, 3]."""
    images = [Image.fromarray(frame) for frame in frames]
    data = io.BytesIO()
    images[0].save(
        data,
        "WEBP",
        save_all=True,
        append_images=images[1:],
        loop=0,
        duration=durations(len(images), fps, 1),
        quality=60,
        method=0,
    )
    return data.getvalue()
