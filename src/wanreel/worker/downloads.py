"""Downloads: weights brought and verified for a server, each in a process of its own. Knows nothing of HTTP.

How far they are lies on disk, so that a download which a worker or a command line began is seen here too.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from wanreel.core.errors import IllegalTransition, ModelNotInstalled
from wanreel.core.work import AnySpec
from wanreel.models.registry import Pin, Progress, Registry
from wanreel.worker.errand import Errand

_RESTING = ("interrupted", "paused", "failed", "complete", "damaged")
_PATIENCE = 15.0  # seconds that processes get to end by themselves


@dataclass
class Downloads:
    """One per server. Close it, and what runs here stops; what arrived stays."""

    registry: Registry
    digests: Path  #: the file in which they are remembered
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict[str, "subprocess.Popen[bytes]"])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def pins(self) -> Mapping[str, Pin]:
        """What was downloaded, by model. Raises BrokenWeights for a lock file that can't be read."""
        return self.registry.pins.all()

    def progresses(self) -> Mapping[str, Progress]:
        """How far every model is that was ever downloaded, by name."""
        found = dict(self.registry.progresses())
        with self._lock:
            self._sweep()
            for name in self._running:
                if name not in found or found[name].state in _RESTING:
                    found[name] = Progress("starting")
        return found

    def pull(self, spec: AnySpec) -> None:
        """Start or resume the download, unless it is under way. Raises ModelNotInstalled, HubUnavailable (offline)."""
        if spec.hub_id is None:
            raise ModelNotInstalled(f"{spec.name} has no repository to download it from.")
        self.registry.hub.check_online(spec.name)
        self._send("pull", spec)

    def verify(self, spec: AnySpec) -> None:
        """Start to read every byte of what was downloaded. Raises ModelNotInstalled when nothing was."""
        if spec.name not in self.pins():
            raise ModelNotInstalled(f"{spec.name} was not downloaded: there is nothing to compare its files with.")
        self._send("verify", spec)

    def pause(self, spec: AnySpec) -> None:
        """Raises IllegalTransition when it is not being downloaded."""
        self.registry.pause(spec)

    def remove(self, spec: AnySpec) -> int:
        """Returns the bytes freed. Raises ModelNotInstalled, IllegalTransition."""
        with self._lock:
            self._sweep()
            if spec.name in self._running:
                raise IllegalTransition(f"{spec.name} is being downloaded or verified.")
        return self.registry.remove(spec)

    def close(self) -> None:
        with self._lock:
            for process in self._running.values():
                if process.stdin is not None:
                    process.stdin.close()
            for process in self._running.values():
                try:
                    process.wait(_PATIENCE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            self._running.clear()

    def _send(self, verb: Literal["pull", "verify"], spec: AnySpec) -> None:
        registry = self.registry
        errand = Errand(
            verb,
            spec.name,
            str(registry.root),
            str(self.digests),
            registry.hub.endpoint,
            registry.hub.offline,
            registry.keep_free,
        )
        with self._lock:
            self._sweep()
            if spec.name in self._running:
                return
            # In a group of its own: Ctrl-C is for the server, which ends it by closing its input.
            process = subprocess.Popen(
                [sys.executable, "-m", "wanreel.worker.errand"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
            if process.stdin is not None:
                process.stdin.write(errand.to_line().encode())
                process.stdin.flush()
            self._running[spec.name] = process

    def _sweep(self) -> None:
        for name, process in list(self._running.items()):
            if process.poll() is not None:
                if process.stdin is not None:
                    process.stdin.close()
                del self._running[name]
