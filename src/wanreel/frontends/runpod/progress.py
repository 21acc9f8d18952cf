"""Progress: what RunPod's clients are told while a job runs. Knows nothing of how it is sent.

Reports may arrive late or out of order, as each is sent by a thread of its own: so each has a number, and there are few.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from wanreel.core import events
from wanreel.core.events import Event

Send = Callable[[dict[str, object]], object]

#: Share of the whole work that is done when a stage begins; denoising takes most of it.
_DENOISE, _DECODE = 0.05, 0.9


class Progress:
    """Of one job."""

    def __init__(self, send: Send, pause: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._pause = pause
        self._clock = clock
        self._sent = -math.inf
        self._number = 0

    def see(self, event: Event) -> None:
        """Report an event, unless the last report is too fresh."""
        match event:
            case events.Downloading(model=model, received_bytes=received, total_bytes=total):
                self._tell("downloading", 0.0, model=model, received_bytes=received, total_bytes=total)
            case events.KeyframeStep(step=step, total_steps=total, eta_seconds=eta):
                self._tell("keyframe", 0.0, step=step, total_steps=total, eta_seconds=round(eta, 1))
            case events.ModelLoaded(model=model):
                self._tell("encode", 0.0, model=model)
            case events.Resumed(step=step):
                self._tell("denoise", _DENOISE, step=step)
            case events.StepCompleted(step=step, total_steps=total, eta_seconds=eta):
                share = _DENOISE + (_DECODE - _DENOISE) * step / total
                self._tell("denoise", share, step=step, total_steps=total, eta_seconds=round(eta, 1))
            case events.Decoded(frames=frames, total_frames=total):
                self._tell("decode", _DECODE + (1 - _DECODE) * frames / total, frames=frames, total_frames=total)
            case _:
                pass

    def _tell(self, stage: str, share: float, **facts: object) -> None:
        now = self._clock()
        if now - self._sent < self._pause:
            return
        self._sent = now
        self._number += 1
        self._send({"number": self._number, "stage": stage, "progress": int(100 * share), **facts})
