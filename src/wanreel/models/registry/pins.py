"""models.lock: which commit of each repository is used here, and the SHA-256 of every file. Knows nothing of downloads."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from wanreel.core.errors import BrokenWeights
from wanreel.host import FileLock, replace_durably

NAME = "models.lock"
_VERSION = 1
_POLL = 0.02  # seconds between tries for the lock on the file


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """One file as the hub listed it at the pinned commit."""

    size: int  #: bytes
    blob: str  #: git object id
    sha256: str | None = None  #: None for a small file that was not received yet


@dataclass(frozen=True, slots=True)
class Pin:
    """What is used of one repository."""

    repo: str
    commit: str
    files: Mapping[str, PinnedFile] = field(default_factory=dict[str, PinnedFile])

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


@dataclass(frozen=True, slots=True)
class Pins:
    """The file `models.lock` in the models' folder. Several processes may change it."""

    root: Path

    @property
    def path(self) -> Path:
        return self.root / NAME

    def all(self) -> Mapping[str, Pin]:
        """By model. Raises BrokenWeights for a file that can't be read: guessing would unpin everything."""
        try:
            body: Any = json.loads(self.path.read_text(encoding="utf-8"))
            if body["version"] != _VERSION:
                raise ValueError(f"version {body['version']}")
            return {str(name): _pin(row) for name, row in body["models"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            raise BrokenWeights(
                f"{self.path} can't be read ({exc}).", hint="Restore it, or delete it and pull the models again."
            ) from exc

    def of(self, model: str) -> Pin | None:
        return self.all().get(model)

    def put(self, model: str, pin: Pin) -> None:
        """Pin `model`."""
        self._change(lambda pins: pins | {model: pin})

    def learn(self, model: str, path: str, sha256: str) -> None:
        """Write down the SHA-256 of a file that was received."""

        def changed(pins: dict[str, Pin]) -> dict[str, Pin]:
            pin = pins[model]
            files = dict(pin.files) | {path: replace(pin.files[path], sha256=sha256)}
            return pins | {model: replace(pin, files=files)}

        self._change(changed)

    def forget(self, model: str) -> None:
        self._change(lambda pins: {name: pin for name, pin in pins.items() if name != model})

    def _change(self, change: Callable[[dict[str, Pin]], dict[str, Pin]]) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.root / f".{NAME}.lock")
        while not lock.acquire():
            time.sleep(_POLL)
        try:
            pins = change(dict(self.all()))
            body = {"version": _VERSION, "models": {name: asdict(pins[name]) for name in sorted(pins)}}
            temporary = self.path.with_name(f".{NAME}.{os.getpid()}.tmp")
            temporary.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
            replace_durably(temporary, self.path)
        finally:
            lock.release()


def _pin(row: Any) -> Pin:
    files = {
        str(path): PinnedFile(int(facts["size"]), str(facts["blob"]), facts["sha256"])
        for path, facts in row["files"].items()
    }
    return Pin(str(row["repo"]), str(row["commit"]), files)
