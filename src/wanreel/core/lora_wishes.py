"""LoraWishes: from the LoRAs that were asked for to those that run. Knows nothing of files but what a judge says of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wanreel.core.catalog import ModelSpec
from wanreel.core.errors import InvalidRequest
from wanreel.core.lora import LoraFacts, LoraRef, ResolvedLora
from wanreel.core.resolving import Resolving, given

#: What is known of a LoRA that is to run with a model, by its header. Raises InvalidRequest.
Judge = Callable[[LoraRef, ModelSpec], LoraFacts]


@dataclass(frozen=True)
class LoraWishes:
    """LoRAs for one model. Each must be here and fit; what is wrong, and what was chosen, is said to `said`."""

    refs: tuple[LoraRef, ...]
    spec: ModelSpec
    judge: Judge
    said: Resolving

    def resolved(self) -> tuple[ResolvedLora, ...]:
        """In the order asked."""
        found: list[ResolvedLora] = []
        for ref in self.refs:
            try:
                found.append(self._lora(ref, self.judge(ref, self.spec)))
            except InvalidRequest as error:
                self.said.problems.extend(error.problems)
        return tuple(found)

    def _lora(self, ref: LoraRef, facts: LoraFacts) -> ResolvedLora:
        for note in facts.notes:
            self.said.note("loras", None, facts.name, note)
        only_low = facts.target == "low" and self.spec.two_experts
        high = float(given(ref.strength_high, 0.0 if only_low else ref.strength))
        if not self.spec.two_experts:
            if ref.strength_low is not None and ref.strength_low != high:
                self.said.note(
                    "loras", f"{facts.name}: low {ref.strength_low:g}", high, f"{self.spec.name} has one expert"
                )
            return ResolvedLora(facts.name, facts.sha256, high, high, ref.schedule, facts.rank)
        low = float(given(ref.strength_low, 0.0 if facts.target == "high" else ref.strength))
        if ref.strength_high is None and ref.strength_low is None:
            self.said.note("loras", None, facts.name, self._where(facts))
        return ResolvedLora(facts.name, facts.sha256, high, low, ref.schedule, facts.rank)

    def _where(self, facts: LoraFacts) -> str:
        """What is said of where a file is applied when the request does not say."""
        if facts.target == "both":
            return "one file for both experts, as its name says neither high nor low noise"
        where = f"on the {facts.target}-noise expert"
        if facts.partner in {ref.name for ref in self.refs}:
            return f"{where}, as its name says"
        missing = f"its partner {facts.partner} was not asked for" if facts.partner else "its partner is not here"
        return f"{where} alone, as its name says; {missing}"
