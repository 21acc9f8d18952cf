"""What a model on rank 0 asks of whatever tells the other ranks. Knows nothing of who that is (models/parallel)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from torch import Tensor

from wanreel.core.lora import ResolvedLora
from wanreel.core.parallel import Parallel
from wanreel.models.ranks.bands import Bands


class SharedDecoder(Protocol):
    """Decoding on all ranks."""

    def chunks(self, latents: Tensor) -> Iterator[Tensor]:
        """uint8 frames [n, h, w, 3] on the host, chunk by chunk, of latents [1, c, f, h', w'] that are not normalised."""
        ...

    @property
    def overflowed(self) -> int | None:
        """The latent frame from which on fp16 did not suffice."""
        ...


class Leading(Protocol):
    """One model that every rank holds."""

    parallel: Parallel  #: of the run at hand

    def wear(self, loras: Sequence[ResolvedLora], steps: int) -> None:
        """The other ranks put on what this one wears."""
        ...

    def bands(self, latents: Tensor) -> Bands | None:
        """The rows of the latents by rank; None where they are too few."""
        ...

    def decoder(self, vae: Any, bands: Bands, *, lean: bool) -> SharedDecoder: ...
