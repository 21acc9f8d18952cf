"""PictureRef: a picture that already lies in the data directory. Knows neither its bytes nor where they lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PictureRef:
    """Names a picture by content, so that a request never holds a path or bytes."""

    sha256: str  #: of the cleaned PNG that was stored, 64 hex digits; empty while another job has yet to make it
    width: int  #: pixels, after EXIF orientation
    height: int  #: pixels
    notes: tuple[str, ...] = ()  #: what was changed when it was read ("first of 12 frames used")

    @property
    def pending(self) -> bool:
        """Whether another job has yet to make it."""
        return not self.sha256

    def to_dict(self) -> dict[str, object]:
        return {"sha256": self.sha256, "width": self.width, "height": self.height, "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> PictureRef:
        notes = data.get("notes") or ()
        if not isinstance(notes, (list, tuple)):
            raise TypeError("notes must be a list")
        return cls(
            sha256=str(data["sha256"]),
            width=int(str(data["width"])),
            height=int(str(data["height"])),
            notes=tuple(str(note) for note in notes),
        )
