"""Decoding on all ranks, a band of rows each. Knows nothing of video files or of what latents mean."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch import Tensor

from wanreel.models.parallel.crew import Crew
from wanreel.models.ranks.bands import Bands
from wanreel.models.vae.guarded import GuardedDecoder
from wanreel.models.vae.plain import PlainDecoder, frames_of


@dataclass
class BandDecoder:
    """This rank's part in decoding."""

    vae: Any
    bands: Bands
    lean: bool
    go: Callable[[], None]  #: called before each chunk; raises to stop
    overflowed: int | None = None  #: as of GuardedDecoder

    def chunks(self, latents: Tensor) -> Iterator[Tensor]:
        """All rows of the frames, uint8 on the host, chunk by chunk. `latents`: all rows, not normalised."""
        own = self.bands.own(latents)
        if self.lean:
            decoder = GuardedDecoder(self.vae, self._joined, bands=self.bands, go=self.go)
            yield from decoder.chunks(own)
            self.overflowed = decoder.overflowed
            return
        found = iter(PlainDecoder(self.vae, self.bands).chunks(own))
        for _ in range(latents.shape[2]):
            self.go()
            yield self._joined(next(found)).cpu()

    def _joined(self, pixels: Tensor) -> Tensor:
        return self.bands.whole(frames_of(pixels), 1)


@dataclass
class LedDecoder:
    """Rank 0's: tells the others, and frees them when nobody takes further frames."""

    crew: Crew
    model: str
    decoder: BandDecoder

    @classmethod
    def of(cls, crew: Crew, model: str, vae: Any, bands: Bands, *, lean: bool) -> LedDecoder:
        return cls(crew, model, BandDecoder(vae, bands, lean, lambda: crew.tell({"go": True})))

    @property
    def overflowed(self) -> int | None:
        return self.decoder.overflowed

    def chunks(self, latents: Tensor) -> Iterator[Tensor]:
        """As BandDecoder's."""
        crew, done = self.crew, False
        with crew.exchanging():
            crew.tell(
                {
                    "do": "decode",
                    "model": self.model,
                    "lean": self.decoder.lean,
                    "form": [str(latents.dtype).removeprefix("torch."), list(latents.shape)],
                }
            )
            dist.broadcast(latents.contiguous(), 0, group=self.decoder.bands.circle.group)
        found = self.decoder.chunks(latents)
        try:
            while not done:
                chunk = None
                with crew.exchanging():
                    chunk = next(found, None)
                done = chunk is None
                if chunk is not None:
                    yield chunk
        finally:
            if not done and crew.gathered:
                with contextlib.suppress(OSError):
                    crew.tell({"go": False})
