"""denoise: noise to latents, one DenoiseState a step. Knows nothing of prompts, pictures, files or frames.

The loop is that of Diffusers' Wan pipelines, with three differences: guidance is decided per expert, a run can start
from any step, and predictions are fp32 before guidance and solver, as in the authors' own code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from wanreel.core.cancel import CancelToken
from wanreel.core.errors import CheckpointError, NumericalFault
from wanreel.core.resolved import ResolvedRequest
from wanreel.generation.conditioning import Conditioning
from wanreel.generation.savings import Savings
from wanreel.generation.solvers import Solver, make_solver
from wanreel.generation.state import DenoiseState, SolverState
from wanreel.models.wan_model import WanModel

EXPERT_NAMES = ("high", "low")


def denoise(
    model: WanModel,
    conditioning: Conditioning,
    request: ResolvedRequest,
    start: DenoiseState | None = None,
    cancel: CancelToken | None = None,
) -> Iterator[DenoiseState]:
    """Yields the state after each step that is left. From a `start` of the same request: the same bits as without.

    Raises NumericalFault when latents stop being finite, Cancelled between two transformer blocks, CheckpointError for
    a `start` that does not fit. Closing the iterator between two states leaves nothing behind.
    """
    run = _Run.begin(model, conditioning, request, start, cancel or CancelToken())
    for index in range(run.state.step, run.state.total_steps):
        run.advance(index)
        yield run.state


def draw_noise(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """fp32 noise from the CPU generator, so that a seed means the same noise on every device."""
    return torch.randn(shape, generator=generator, dtype=torch.float32)


def planned_solver(model: WanModel, request: ResolvedRequest, generator: Generator) -> Solver:
    """The solver that a run of `request` uses; `sigmas` and `timesteps` are its schedule."""
    return make_solver(
        request.solver,
        steps=request.num_inference_steps,
        shift=request.flow_shift,
        spec=model.spec,
        generator=generator,
    )


@dataclass
class _Run:
    """One denoise run and where it stands."""

    model: WanModel
    conditioning: Conditioning
    request: ResolvedRequest
    cancel: CancelToken
    solver: Solver
    generator: Generator
    state: DenoiseState
    savings: Savings | None  #: where steps may be left out

    @classmethod
    def begin(
        cls,
        model: WanModel,
        conditioning: Conditioning,
        request: ResolvedRequest,
        start: DenoiseState | None,
        cancel: CancelToken,
    ) -> _Run:
        if model.worn != request.loras:
            raise ValueError("The model does not wear the request's LoRAs; see models/wear.py.")
        generator = Generator("cpu").manual_seed(request.seed)
        solver = planned_solver(model, request, generator)
        total = len(solver.timesteps)
        rounded = model.placement.precision == "fp8"
        savings = Savings(total, rounded) if request.compute == "turbo" else None
        if start is None:
            noise = draw_noise(conditioning.shape, generator).to(model.device)
            start = DenoiseState(0, total, noise, solver.state(), generator.get_state())
        else:
            _check_fit(start, total, conditioning.shape)
            solver.load(start.solver)
            generator.set_state(start.rng)
            if savings is not None:
                savings.load(start.savings)
        return cls(model, conditioning, request, cancel, solver, generator, start, savings)

    @torch.no_grad()
    def advance(self, index: int) -> None:
        """Take step `index`."""
        timestep = self.solver.timesteps[index]
        latents = self.state.latents
        which = self.model.expert_index(timestep.item(), self.request.boundary_ratio)
        prediction, foretold = self._velocity(index, which, latents)
        estimate = self.conditioning.hold(latents - self.solver.sigmas[index] * prediction)
        latents = self.solver.step(prediction, index, latents)
        last = index == self.state.total_steps - 1
        if last:
            latents = self.conditioning.hold(latents)
        if not bool(torch.isfinite(latents).all()):
            raise NumericalFault(f"The latents stopped being finite numbers at step {index + 1}.")
        self.state = DenoiseState(
            step=index + 1,
            total_steps=self.state.total_steps,
            latents=latents,
            solver=self.solver.state(),
            rng=self.generator.get_state(),
            estimate=latents if last else estimate,
            expert=EXPERT_NAMES[which] if self.model.spec.two_experts else "",
            savings=self.savings.state() if self.savings is not None else SolverState(),
            foretold=foretold,
        )

    def _velocity(self, index: int, which: int, latents: Tensor) -> tuple[Tensor, bool]:
        """Computed, or foretold by the steps before; and which of both."""
        savings = self.savings
        if savings is None:
            return self._predict(index, which, latents), False
        sigma, kind = self.solver.sigmas[index], 2 * which + (index < self.request.guided_steps)
        found = savings.foretold(index, sigma, kind)
        if found is not None:
            self.cancel.check()
            return found, True
        velocity = self._predict(index, which, latents)
        savings.learn(sigma, velocity, kind)
        return velocity, False

    def _predict(self, index: int, which: int, latents: Tensor) -> Tensor:
        """The guided velocity [1, c, f, h, w], fp32, by expert `which`."""
        conditioning = self.conditioning
        expert = self.model.experts[which]
        expert.loras.strengthen([lora.at(index, self.state.total_steps, which) for lora in self.request.loras])
        guidance = self._guidance(index, which)
        given = conditioning.apply(latents).to(expert.dtype)
        times = self._times(self.solver.timesteps[index])
        guided = guidance > 1.0 and conditioning.negative is not None
        texts = [conditioning.text, conditioning.negative] if guided else [conditioning.text]
        found = expert.predict_each(
            given, times, [it for it in texts if it is not None], conditioning.clip, self.cancel
        )
        prediction, *negative = (it.float() for it in found)
        if not negative:
            return prediction
        (without,) = negative
        return without + guidance * (prediction - without)

    def _guidance(self, index: int, which: int) -> float:
        if index < self.request.guided_steps:
            return self.model.spec.default_guidance(picture=self.request.image is not None)[which]
        return (self.request.guidance_high, self.request.guidance_low)[which]

    def _times(self, timestep: Tensor) -> Tensor:
        """[1], or [1, tokens] where each token has its own."""
        if self.model.expand_timesteps:
            return self.conditioning.token_timesteps(timestep.item(), self.model.device)
        return timestep.expand(1).to(self.model.device)


def _check_fit(start: DenoiseState, total: int, shape: tuple[int, ...]) -> None:
    if start.total_steps != total or not 0 <= start.step <= total:
        raise CheckpointError(f"The state is of step {start.step} of {start.total_steps}, the run has {total} steps.")
    if tuple(start.latents.shape) != shape:
        raise CheckpointError(f"The state's latents are {tuple(start.latents.shape)}, the run's are {shape}.")
