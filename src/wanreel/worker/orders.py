"""Orders: what an operator asks of all workers' memory, in a file beside their locks. Knows nothing of models.

The newest order is the one that counts. A worker that is at work obeys when its job has ended; one that starts later
has nothing to obey.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from wanreel.core.errors import InsufficientStorage

_NAME = "order.json"


@dataclass(frozen=True, slots=True)
class Order:
    """One order."""

    verb: Literal["load", "unload"]
    model: str
    number: int  #: grows from order to order


@dataclass(frozen=True, slots=True)
class Orders:
    """In the folder of the workers' locks."""

    folder: Path

    def give(self, verb: Literal["load", "unload"], model: str) -> Order:
        """Raises InsufficientStorage when it can't be written."""
        order = Order(verb, model, time.time_ns())
        temporary = self.folder / f".{_NAME}.{os.getpid()}.tmp"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(asdict(order)), encoding="utf-8")
            temporary.replace(self.folder / _NAME)
        except OSError as exc:
            raise InsufficientStorage(f"{self.folder} can't be written: {exc.strerror}.") from exc
        return order

    def newest(self) -> Order | None:
        """None when there never was one."""
        try:
            return Order(**json.loads((self.folder / _NAME).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
