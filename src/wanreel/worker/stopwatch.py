"""Stopwatch: how long each stage of an attempt takes, from the events of its generation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from wanreel.core import events
from wanreel.core.events import Event
from wanreel.core.measures import Measures


@dataclass
class Stopwatch:
    """See every event as it comes; `measures` is whole after Exported."""

    clock: Callable[[], float]
    measures: Measures = field(default_factory=Measures)
    _mark: float = 0.0  # when denoising began, later by what it waited
    _waiting: float | None = None  # since when the run waits for its turn

    def wait(self) -> None:
        """What follows is time of others."""
        self._waiting = self.clock()

    def go_on(self) -> None:
        """It ends."""
        if self._waiting is not None:
            self._mark += self.clock() - self._waiting
        self._waiting = None

    def see(self, event: Event) -> None:
        match event:
            case events.ModelLoaded(device=device, seconds=seconds):
                self.measures = replace(self.measures, device=device, load=seconds)
                self._mark = self.clock()
            case events.Encoded(seconds=seconds):
                self.measures = replace(self.measures, encode=seconds)
                self._mark = self.clock()
            case events.StepCompleted():
                self.measures = replace(self.measures, steps=self.measures.steps + 1)
            case events.Denoised():
                # By the clock and not by steps: what is saved and shown between them takes time too.
                denoised = self.clock() - self._mark if self.measures.steps else 0.0
                self.measures = replace(self.measures, denoise=denoised)
            case events.Exported(seconds=seconds, decode_seconds=decoding):
                self.measures = replace(self.measures, decode=decoding, export=max(0.0, seconds - decoding))
            case _:
                pass
