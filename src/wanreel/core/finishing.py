"""Finishing: what is done to decoded frames on their way into the file. Arithmetic alone: knows no pixels.

Always in this order: trim, loop, speed and interpolation, upscaling, sound.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from typing import Any, Literal, cast

from wanreel.core.errors import Problem
from wanreel.core.sound import SoundRef
from wanreel.core.upscaler import UpscalerRef

Loop = Literal["none", "boomerang", "seamless"]

MAX_FRAMES = 10_000  #: in a finished file
MAX_SIDE = 8192  #: px in a finished file
SILENT = ("gif", "webp")  #: kinds of file that hold no sound
_OVERLAP = Fraction(1, 2)  #: seconds over which the end of a seamless loop becomes its beginning
_LEAST_LOOP = 3  #: frames; fewer have no middle that could be played backwards or blended


@dataclass(frozen=True, slots=True)
class Shape:
    """What a file holds."""

    num_frames: int
    fps: float
    width: int  #: px
    height: int

    @property
    def seconds(self) -> float:
        """Playing time."""
        return self.num_frames / self.fps if self.fps else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finishing:
    """The stages asked for. By default none, and the file is as it would be without any of this."""

    trim_start: float = 0.0  #: seconds of the generated video that are left out at its beginning
    trim_end: float | None = None  #: second of the generated video at which it ends
    loop: Loop = "none"
    speed: float = 1.0
    interpolate_fps: float | None = None
    upscale: float = 1.0
    upscaler: UpscalerRef | None = None  #: None: by Lanczos' filter
    audio: SoundRef | None = None

    @property
    def plain(self) -> bool:
        """Whether nothing is asked for."""
        return self == _PLAIN

    def kept(self, num_frames: int, fps: float) -> range:
        """Numbers of the generated frames that trimming leaves."""
        stop = num_frames if self.trim_end is None else min(num_frames, round(self.trim_end * fps))
        return range(min(round(self.trim_start * fps), stop), stop)

    def overlap(self, frames: int, fps: float) -> int:
        """How many of `frames` frames a seamless loop blends with its first ones."""
        if self.loop != "seamless" or frames < _LEAST_LOOP:
            return 0
        return max(1, min(round(_OVERLAP * exact_rate(fps)), frames // 3))

    def looped(self, frames: int, fps: float) -> int:
        """How many frames one round of the loop has."""
        if self.loop == "boomerang" and frames >= _LEAST_LOOP:
            return 2 * frames - 2  # neither end is shown twice
        return frames - self.overlap(frames, fps)

    def rate(self, fps: float) -> float:
        """Of the file."""
        return self.interpolate_fps or fps

    def pace(self, fps: float) -> Fraction:
        """Frames of the loop that pass in the time of one frame of the file."""
        return exact_rate(fps) * Fraction(self.speed).limit_denominator(1000) / exact_rate(self.rate(fps))

    def shape(self, num_frames: int, fps: float, width: int, height: int) -> Shape:
        """What comes out of a generated video."""
        frames = self.looped(len(self.kept(num_frames, fps)), fps)
        frames = max(1, round(frames / self.pace(fps))) if frames else 0
        return Shape(frames, self.rate(fps), scaled(width, self.upscale), scaled(height, self.upscale))

    def problems(self, num_frames: int, fps: float, width: int, height: int, kind: str) -> Iterator[Problem]:
        """What of it can't be done with such a video, in a file of this kind."""
        if not self.kept(num_frames, fps):
            name = "trim_start" if self.trim_end is None or round(self.trim_end * fps) > 0 else "trim_end"
            text = f"no frame is left of {num_frames / fps:.2f} s."
            yield Problem(name, "out_of_range", text, "Let trim_start be below trim_end, and within the video.")
            return
        shape = self.shape(num_frames, fps, width, height)
        if shape.num_frames > MAX_FRAMES:
            text = f"the file would have {shape.num_frames} frames; at most {MAX_FRAMES} are written."
            name = "interpolate_fps" if self.interpolate_fps else "speed"
            yield Problem(name, "out_of_range", text, "Ask for a lower rate, a higher speed or a shorter video.")
        if max(shape.width, shape.height) > MAX_SIDE:
            text = f"{shape.width}×{shape.height} px would be written; the longest side is {MAX_SIDE} px."
            yield Problem("upscale", "out_of_range", text, "Ask for a smaller factor.")
        if self.audio is not None and kind in SILENT:
            text = f"{kind.upper()} files hold no sound."
            yield Problem("audio", "unsupported", text, "Choose mp4, webm or mov, or leave the sound out.")

    def asked(self) -> dict[str, Any]:
        """What is asked for, by knob."""
        asked = self._asked()
        return asked | ({"upscaler": self.upscaler.name} if self.upscaler is not None else {})

    def _asked(self) -> dict[str, Any]:
        return {name: value for name in FINISHING_KNOBS if (value := getattr(self, name)) != getattr(_PLAIN, name)}

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values, of what is asked for alone."""
        kept = (SoundRef, UpscalerRef)
        return {name: asdict(value) if isinstance(value, kept) else value for name, value in self._asked().items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Finishing:
        """The inverse of `to_dict`. Raises KeyError or TypeError on foreign data."""
        values = dict(cast("Mapping[str, Any]", data))
        if values.get("audio") is not None:
            values["audio"] = SoundRef(**values["audio"])
        if values.get("upscaler") is not None:
            values["upscaler"] = UpscalerRef(**values["upscaler"])
        return cls(**values)


_PLAIN = Finishing()
#: Knobs of the same names.
FINISHING_KNOBS = tuple(field.name for field in fields(Finishing))
#: Knobs with which a finished video can be written again, without generating it.
EXPORT_KNOBS = ("fps", "output_format", "quality", *FINISHING_KNOBS)


def scaled(side: int, factor: float) -> int:
    """A side of the enlarged picture; video sides are even. Untouched by the factor 1."""
    return side if factor == 1 else 2 * round(side * factor / 2)


def exact_rate(fps: float) -> Fraction:
    """The rate as a fraction: whole numbers stay, 23.976 and its kin become n · 1000 / 1001."""
    if math.isclose(fps, round(fps), abs_tol=1e-9):
        return Fraction(round(fps))
    ntsc = Fraction(round(fps * 1001 / 1000) * 1000, 1001)
    return ntsc if abs(float(ntsc) - fps) < 5e-4 else Fraction(fps).limit_denominator(1001)
