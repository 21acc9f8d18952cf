"""OutputName: what a result is called. Knows nothing of what is in it."""

from __future__ import annotations

import itertools
import os
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from wanreel.core.errors import InsufficientStorage

MAX_SLUG_BYTES = 80  #: of UTF-8; with time and suffix far below the 255 that file systems allow

_UNSEEN = frozenset(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))  #: variation selectors


def slug(prompt: str) -> str:
    """The prompt as a part of a file name that every system takes: letters and digits of any script, dashes between."""
    words = _plain(unicodedata.normalize("NFKC", prompt).lower()).split()
    kept: list[str] = []
    for word in words:
        if len("-".join([*kept, word]).encode()) > MAX_SLUG_BYTES:
            break
        kept.append(word)
    # A single endless word (no spaces, as in Chinese) is cut between characters.
    return "-".join(kept) or _cut(words[0] if words else "")


@dataclass(frozen=True, slots=True)
class Reservation:
    """A name that is ours: a hidden file holds it, in which the result grows and which then takes the name.

    So a killed process leaves nothing that looks like a result.
    """

    path: Path

    @property
    def partial(self) -> Path:
        return self.path.with_name(f".{self.path.name}.part{self.path.suffix}")

    @property
    def last_frame(self) -> Path:
        return self.path.with_suffix(".last.png")

    @property
    def poster(self) -> Path:
        return self.path.with_suffix(".poster.jpg")

    def handoff(self, back: int) -> Path:
        """The frame that is so many before the last one."""
        return self.path.with_suffix(f".{back}-before-last.png")

    def hold(self) -> bool:
        """Make the name ours unless it is somebody's. Raises OSError."""
        try:
            os.close(os.open(self.partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        except FileExistsError:
            return False
        # lexists: a link that leads nowhere is somebody's too.
        if any(os.path.lexists(path) for path in (self.path, self.last_frame, self.poster)):
            self.partial.unlink(missing_ok=True)
            return False
        return True

    def release(self) -> None:
        """Give the name up, with whatever was written under it."""
        for path in (self.partial, self.path, self.last_frame, self.poster):
            path.unlink(missing_ok=True)


def reserve(directory: Path, when: datetime, prompt: str, suffix: str) -> Reservation:
    """A new name in `directory`: time and prompt, with a number when taken. Raises InsufficientStorage.

    Safe against other processes: a name is held before it is looked at, and given up only after it is used.
    """
    stem = "_".join(part for part in (when.strftime("%Y%m%d-%H%M%S"), slug(prompt)) if part)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            name = f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}"
            reservation = Reservation(directory / name)
            if reservation.hold():
                return reservation
    except OSError as exc:
        raise InsufficientStorage(f"{directory} can't be written: {exc.strerror}.") from exc
    raise AssertionError("numbers never end")


def _plain(text: str) -> str:
    """Letters and digits; a space for anything else. A mark on a letter stays: Hindi and Thai words are full of them."""
    made = ""
    for character in text:
        on_a_letter = not made.endswith(" ") and made and unicodedata.category(character) in ("Mn", "Mc")
        made += character if character.isalnum() or (on_a_letter and character not in _UNSEEN) else " "
    return made


def _cut(word: str) -> str:
    return word.encode()[:MAX_SLUG_BYTES].decode(errors="ignore")
