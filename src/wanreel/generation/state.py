"""DenoiseState: everything needed to go on after a step. Knows nothing of files, models or who saves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False, slots=True)
class SolverState:
    """What a solver remembers between steps. Latents alone are not enough: multistep solvers look back."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])  #: each like the latents
    scalars: Mapping[str, int] = field(default_factory=dict[str, int])

    def to(self, device: torch.device) -> SolverState:
        return SolverState({name: tensor.to(device) for name, tensor in self.tensors.items()}, self.scalars)


@dataclass(frozen=True, eq=False, slots=True)
class DenoiseState:
    """After `step` of `total_steps` steps. Tensors are never changed in place, so keeping a state is free."""

    step: int  #: steps done; 0 is the noise itself
    total_steps: int
    latents: Tensor  #: [1, c, f, h, w], fp32, normalised as the transformer sees them
    solver: SolverState
    rng: Tensor  #: uint8, of the CPU generator that noise comes from
    estimate: Tensor | None = None  #: the clean latents as this step saw them, for previews; not part of a checkpoint
    savings: SolverState = field(default_factory=SolverState)  #: what foretells steps (generation/savings.py)
    foretold: bool = False  #: this step's velocity was not computed; not part of a checkpoint
    expert: str = ""  #: "high" or "low" for two-expert models; not part of a checkpoint

    @property
    def done(self) -> bool:
        return self.step == self.total_steps

    def to(self, device: torch.device) -> DenoiseState:
        """The same bits on another device, without the estimate."""
        solver, savings = self.solver.to(device), self.savings.to(device)
        return replace(self, latents=self.latents.to(device), solver=solver, savings=savings, estimate=None)
