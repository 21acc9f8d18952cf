"""Turns: where a run stands aside, so that others that need the same part of the model can go first.

Only where parts take turns on the device. What the run has made so far waits in host memory and comes back to the bit.
Knows nothing of who else runs: a run that is alone goes on at once.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch

from wanreel.core.cancel import CancelToken
from wanreel.core.events import Part, Turn
from wanreel.core.resolved import ResolvedRequest
from wanreel.generation.conditioning import tokens_of
from wanreel.generation.denoise import planned_solver
from wanreel.generation.ladder import Kept
from wanreel.models.lora.shelf import LoraShelf
from wanreel.models.machine import restart_peak
from wanreel.models.pool import ModelPool
from wanreel.models.suit import suit
from wanreel.models.wan_model import WanModel
from wanreel.models.wear import wear

_HOST = torch.device("cpu")
_EXPERTS: tuple[Part, Part] = ("high", "low")


@dataclass(frozen=True)
class Turns:
    """Of one run."""

    pool: ModelPool
    request: ResolvedRequest
    loras: LoraShelf | None
    cancel: CancelToken
    kept: Kept

    def take(self, model: WanModel, part: Part) -> Generator[Turn, None, WanModel]:
        """Stand aside before `part` is needed. Returns the model, dressed and placed for this run again, whoever used it
        meanwhile. Raises Cancelled before anything comes to the device."""
        placement = model.placement
        if not placement.swaps:
            return model
        self.kept.measure()
        self.kept.move(_HOST)
        yield Turn(part, self.kept.visiting_share)
        self.cancel.check()
        model = self.pool.acquire(model.spec, placement).model
        wear(model, self.request.loras, self.request.num_inference_steps, self.loras)
        suit(model, tokens_of(model.spec, self.request))
        self.kept.model = model
        self.kept.move(model.device)
        restart_peak(model.device)
        return model


def parts_of(model: WanModel, request: ResolvedRequest) -> tuple[Part, ...]:
    """The part that each step needs."""
    steps = planned_solver(model, request, torch.Generator()).timesteps
    if not model.spec.two_experts:
        return ("denoise",) * len(steps)
    return tuple(_EXPERTS[model.expert_index(step.item(), request.boundary_ratio)] for step in steps)
