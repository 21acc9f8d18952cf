"""OutputName: what a result is called. Knows nothing of what is in it."""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from wanreel.core.errors import InsufficientStorage

MAX_SLUG_BYTES = 80  #: of UTF-8; with time and suffix far below the 255 that file systems allow


def slug(prompt: str) -> str:
    """The prompt as a part of a file name that every system takes: letters and digits of any script, dashes between."""
    text = unicodedata.normalize("NFKC", prompt).lower()
    words = re.findall(r"[^\W_]+", text)
    kept: list[str] = []
    for word in words:
        if len("-".join([*kept, word]).encode()) > MAX_SLUG_BYTES:
            break
        kept.append(word)
    # A single endless word (no spaces, as in Chinese) is cut between characters.
    return "-".join(kept) or _cut(words[0] if words else "")


@dataclass(frozen=True, slots=True)
class Reservation:
    """A name that is ours: an empty file holds it until the result takes its place."""

    path: Path

    @property
    def last_frame(self) -> Path:
        return self.path.with_suffix(".last.png")

    @property
    def poster(self) -> Path:
        return self.path.with_suffix(".poster.jpg")

    def release(self) -> None:
        """Give the name up, with whatever was written under it."""
        for path in (self.path, self.last_frame, self.poster):
            path.unlink(missing_ok=True)


def reserve(directory: Path, when: datetime, prompt: str, suffix: str) -> Reservation:
    """A new name in `directory`: time and prompt, with a number when taken. Raises InsufficientStorage.

    Safe against other processes: the file is created, and never one that was there before.
    """
    stem = "_".join(part for part in (when.strftime("%Y%m%d-%H%M%S"), slug(prompt)) if part)
    number = 1
    while True:
        name = f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}"
        reservation = Reservation(directory / name)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if not any(path.exists() for path in (reservation.last_frame, reservation.poster)):
                os.close(os.open(reservation.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
                return reservation
        except FileExistsError:
            pass
        except OSError as exc:
            raise InsufficientStorage(f"{directory} can't be written: {exc.strerror}.") from exc
        number += 1


def _cut(word: str) -> str:
    return word.encode()[:MAX_SLUG_BYTES].decode(errors="ignore")
