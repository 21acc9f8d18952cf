"""Lead: a model of rank 0 whose experts compute on all ranks. Knows nothing of processes or of what is generated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from wanreel.core.cancel import CancelToken
from wanreel.core.lora import ResolvedLora
from wanreel.core.parallel import Parallel
from wanreel.models.expert import Expert
from wanreel.models.parallel.crew import Crew
from wanreel.models.parallel.decoding import LedDecoder
from wanreel.models.parallel.passes import Inputs, predict_part
from wanreel.models.ranks.bands import Bands


@dataclass
class Lead:
    """One model that every rank holds."""

    crew: Crew
    model: str
    parallel: Parallel  #: of the run at hand
    _worn: tuple[ResolvedLora, ...] = field(default=())
    _given: tuple[Any, ...] = field(default=())  #: texts and picture as they were given last …
    _sent: tuple[tuple[Tensor, ...], Tensor | None] = field(default=((), None))  #: … and as every rank has them

    def wear(self, loras: Sequence[ResolvedLora], steps: int) -> None:
        """The other ranks put on what this one wears. Raises what one of them meets."""
        if self._worn != tuple(loras) or loras:
            self.crew.ask({"do": "wear", "model": self.model, "loras": [asdict(it) for it in loras], "steps": steps})
        self._worn = tuple(loras)

    def steering(
        self, expert: Expert, texts: Sequence[Tensor], image: Tensor | None
    ) -> tuple[tuple[tuple[Tensor, ...], Tensor | None], bool]:
        """Texts and picture on the device, and whether every rank has them from the step before.

        Then they are the same objects here and there, and what was computed from them alone is not computed again.
        """
        given = (expert.device, expert.dtype, image, *texts)
        if len(given) == len(self._given) and all(a is b for a, b in zip(given, self._given, strict=True)):
            return self._sent, True
        brought = tuple(text.to(expert.device, expert.dtype) for text in texts)
        self._given = given
        self._sent = (brought, None if image is None else image.to(expert.device, expert.dtype))
        return self._sent, False

    def bands(self, latents: Tensor) -> Bands | None:
        """The rows of the latents by rank; None where they are too few."""
        return Bands.of(self.crew.everybody, latents.shape[-2])

    def decoder(self, vae: Any, bands: Bands, *, lean: bool) -> LedDecoder:
        return LedDecoder.of(self.crew, self.model, vae, bands, lean=lean)


@dataclass(frozen=True)
class LedExpert:
    """The `lead` of an expert: its predictions, made by all ranks."""

    lead: Lead
    expert: Expert
    number: int

    def __call__(
        self, latents: Tensor, timestep: Tensor, texts: Sequence[Tensor], image: Tensor | None, cancel: CancelToken
    ) -> list[Tensor]:
        """One velocity for each text. Raises Cancelled between two blocks, after which all ranks are as before."""
        cancel.check()
        expert, crew = self.expert, self.lead.crew
        steering, kept = self.lead.steering(expert, texts, image)
        inputs = Inputs(latents.to(expert.device, expert.dtype), timestep.to(expert.device), *steering)
        parallel = self._plan(len(texts))
        with crew.exchanging():
            crew.tell(self._order(parallel, inputs, kept=kept))
            mesh = crew.mesh(parallel)
            inputs.send(mesh.everybody, kept=kept)
            stopped, made = False, list[Tensor]()

            def go() -> None:
                nonlocal stopped
                stopped = cancel.cancelled
                crew.tell({"go": not stopped})
                if stopped:
                    raise _Stop

            try:
                made = predict_part(expert, mesh, inputs, go)
            except _Stop:
                made = []
        cancel.check()
        return made

    def _plan(self, passes: int) -> Parallel:
        heads: int = self.expert.transformer.config.num_attention_heads
        parallel = self.lead.parallel
        return parallel if passes == parallel.cfg or parallel.cfg == 1 else parallel.unguided(heads)

    def _order(self, parallel: Parallel, inputs: Inputs, *, kept: bool) -> dict[str, Any]:
        rows = self.expert.rows
        return {
            "do": "predict",
            "model": self.lead.model,
            "expert": self.number,
            "parallel": parallel.to_dict(),
            "rows": [rows.elementwise, rows.feed_forward] if rows else None,
            "manner": None if self.expert.step is None else asdict(self.expert.step.manner),
            "strengths": list(self.expert.loras.strengths),
            "tensors": inputs.forms(),
            "kept": kept,
        }


class _Stop(Exception):
    """Somebody asked to stop, and every rank knows."""
