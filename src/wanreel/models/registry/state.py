"""How far a download is, on disk, so that every process sees it. Knows nothing of hubs.

One process downloads a model at a time: the one that holds its lock, which its death releases.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from wanreel.host import FileLock

State = Literal["starting", "downloading", "paused", "interrupted", "failed", "complete", "verifying", "damaged"]
_UNDER_WAY = ("starting", "downloading", "verifying")
FOLDER = ".downloads"  #: in the models' folder


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one model's download is."""

    state: State
    received_bytes: int = 0  #: or, verifying, read so far
    total_bytes: int = 0  #: 0 while unknown
    file: str = ""  #: one of those under way
    message: str = ""  #: why it failed, or what is damaged


@dataclass(frozen=True, slots=True)
class Download:
    """The files that stand for one model's download."""

    root: Path  #: the models' folder
    model: str

    @property
    def parts(self) -> Path:
        """Folder of files that are not whole yet."""
        return self.root / FOLDER / self.model

    @property
    def lock(self) -> FileLock:
        """A new handle on the lock of whoever downloads."""
        (self.root / FOLDER).mkdir(parents=True, exist_ok=True)
        return FileLock(self.root / FOLDER / f"{self.model}.lock")

    @property
    def _state(self) -> Path:
        return self.root / FOLDER / f"{self.model}.json"

    @property
    def _order(self) -> Path:
        return self.root / FOLDER / f"{self.model}.pause"

    def running(self) -> bool:
        """Whether some process downloads it now."""
        if not (self.root / FOLDER / f"{self.model}.lock").exists():
            return False
        lock = self.lock
        if not lock.acquire():
            return True
        lock.release()
        return False

    def read(self) -> Progress | None:
        """The state as far as it was written; None when nobody ever downloaded it."""
        try:
            row: dict[str, Any] = json.loads(self._state.read_text(encoding="utf-8"))
            progress = Progress(**row)
        except (OSError, ValueError, TypeError):
            return None
        if progress.state in _UNDER_WAY and not self.running():
            return Progress("interrupted", progress.received_bytes, progress.total_bytes)
        return progress

    def write(self, progress: Progress) -> None:
        """Best effort: a disk that refuses it is about to stop the download anyway."""
        temporary = self._state.with_name(f"{self._state.name}.{os.getpid()}.tmp")
        with suppress(OSError):
            self._state.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(asdict(progress)), encoding="utf-8")
            temporary.replace(self._state)

    def forget(self) -> None:
        self._state.unlink(missing_ok=True)
        self._order.unlink(missing_ok=True)

    # Pausing: whoever downloads looks for a file.

    def order_pause(self) -> None:
        self._order.touch()

    def clear_pause(self) -> None:
        self._order.unlink(missing_ok=True)

    @property
    def pause_ordered(self) -> bool:
        return self._order.exists()
