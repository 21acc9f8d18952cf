"""Solvers: from a predicted velocity to the next latents, over Diffusers' schedulers or a few lines of our own.

Everything a solver remembers can be taken out and put back (`state`, `load`), so that a run continues to the same bits.
Knows nothing of models, guidance or files.

Shift, here and everywhere: sigma(s) = shift * s / (1 + (shift - 1) * s), s from 1 (noise) to 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Generator, Tensor

from wanreel.core.catalog import ModelSpec
from wanreel.core.errors import CheckpointError
from wanreel.core.request import Solver as SolverName
from wanreel.generation.state import SolverState
from wanreel.models.wan_model import TRAIN_TIMESTEPS

#: FastVideo's DMD stage builds its table with this shift for every model, whatever the pipeline's own shift is
#: (hao-ai-lab/FastVideo: fastvideo/pipelines/stages/denoising.py, DmdDenoisingStage).
DMD_TABLE_SHIFT = 8.0
DMD_TIMESTEPS = (1000, 757, 522)
#: Before the shift (ModelTC/LightX2V: configs/distill/wan22).
DISTILL_TIMESTEPS = (1000, 750, 500, 250)


class Solver(Protocol):
    """One run's way from noise to latents."""

    timesteps: Tensor  #: [steps], CPU, as the transformer gets them (int64 or fp32); always the full list
    sigmas: tuple[float, ...]  #: [steps + 1], the last one 0

    def step(self, prediction: Tensor, index: int, latents: Tensor) -> Tensor:
        """The latents after step `index` (0-based), fp32. Steps are taken in order, each once."""
        ...

    def state(self) -> SolverState: ...

    def load(self, state: SolverState) -> None:
        """Go on where `state` was taken. Raises CheckpointError for the state of another solver."""
        ...


def make_solver(name: SolverName, *, steps: int, shift: float, spec: ModelSpec, generator: Generator) -> Solver:
    """The solver called `name`.

    The weights folder's scheduler config is not read: the flow_shift in hub conversions is wrong for many models
    (huggingface/diffusers scripts/convert_wan_to_diffusers.py writes 3 for A14B, whose authors use 12 and 5).
    `generator` is the CPU generator that drew the first noise; few-step solvers go on drawing from it.
    """
    match name:
        case "unipc":
            return UniPC(steps, shift)
        case "dpm++":
            return DpmPlusPlus(steps, shift)
        case "euler":
            return Euler(steps, shift)
        case "dmd":
            return FewStep.dmd(spec.few_step_timesteps or DMD_TIMESTEPS, generator)
        case "distill":
            timesteps = spec.few_step_timesteps or DISTILL_TIMESTEPS
            return FewStep.distilled(timesteps, shift, generator, renoise=spec.release == "2.1")


class _Scheduled:
    """A Diffusers scheduler with its memory made visible."""

    _tensors: tuple[str, ...] = ()  # attributes that hold a tensor or None
    _lists: tuple[str, ...] = ()  # attributes that hold a list of tensors and None
    _scalars: tuple[str, ...] = ()  # attributes that hold an int, absent before the first step

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        # Index 0, not a search by value: with many steps and a large shift two timesteps round to the same integer,
        # and the search would skip the first one.
        scheduler.set_begin_index(0)
        self.timesteps: Tensor = scheduler.timesteps
        self.sigmas: tuple[float, ...] = tuple(scheduler.sigmas.tolist())

    def step(self, prediction: Tensor, index: int, latents: Tensor) -> Tensor:
        return self._scheduler.step(prediction, self.timesteps[index], latents, return_dict=False)[0]

    def state(self) -> SolverState:
        tensors = {name: getattr(self._scheduler, name) for name in self._tensors}
        for name in self._lists:
            tensors |= {f"{name}.{place}": item for place, item in enumerate(getattr(self._scheduler, name))}
        scalars = {name: getattr(self._scheduler, name, None) for name in self._scalars}
        return SolverState(
            {name: tensor for name, tensor in tensors.items() if tensor is not None},
            {name: int(scalar) for name, scalar in scalars.items() if scalar is not None},
        )

    def load(self, state: SolverState) -> None:
        own = {*self._tensors, *(f"{name}.{place}" for name in self._lists for place in self._places(name))}
        if not own.issuperset(state.tensors) or not set(self._scalars).issuperset(state.scalars):
            raise CheckpointError(f"The solver state is not one of {type(self).__name__}'s.")
        for name in self._tensors:
            setattr(self._scheduler, name, state.tensors.get(name))
        for name in self._lists:
            setattr(self._scheduler, name, [state.tensors.get(f"{name}.{place}") for place in self._places(name)])
        for name, scalar in state.scalars.items():
            setattr(self._scheduler, name, scalar)

    def _places(self, name: str) -> range:
        return range(len(getattr(self._scheduler, name)))


def _flowing(kind: Any, steps: int, shift: float) -> Any:
    """A scheduler of Diffusers for flow matching, with its timesteps set."""
    scheduler = kind(
        num_train_timesteps=TRAIN_TIMESTEPS, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )
    scheduler.set_timesteps(steps)
    return scheduler


class UniPC(_Scheduled):
    """The authors' default. Order 2, bh2, predictor and corrector, lower order at the end."""

    _tensors = ("last_sample",)
    _lists = ("model_outputs",)
    _scalars = ("lower_order_nums", "this_order", "_step_index")

    def __init__(self, steps: int, shift: float) -> None:
        super().__init__(_flowing(UniPCMultistepScheduler, steps, shift))

    def load(self, state: SolverState) -> None:
        super().load(state)
        # Written at every step and read only by an outer solver (solver_p), which we never have; kept as it would be.
        done = state.scalars.get("_step_index", 0)
        past = [self.timesteps[done - 1 - back] if done > back else None for back in self._places("timestep_list")]
        self._scheduler.timestep_list = past[::-1]


class DpmPlusPlus(_Scheduled):
    """The authors' other solver: DPM-Solver++ 2M, midpoint."""

    _lists = ("model_outputs",)
    _scalars = ("lower_order_nums", "_step_index")

    def __init__(self, steps: int, shift: float) -> None:
        super().__init__(_flowing(DPMSolverMultistepScheduler, steps, shift))


class Euler(_Scheduled):
    """First-order steps over the authors' sampling sigmas: 1 to 1/steps evenly, then shifted.

    Sigmas as in Wan-Video/Wan2.2 wan/utils/fm_solvers.py, get_sampling_sigmas. Diffusers' own default list is another:
    it bends the smallest sigma twice, which spends the last of four steps on almost nothing.
    """

    _scalars = ("_step_index",)

    def __init__(self, steps: int, shift: float) -> None:
        scheduler: Any = FlowMatchEulerDiscreteScheduler(num_train_timesteps=TRAIN_TIMESTEPS, shift=shift)
        scheduler.set_timesteps(sigmas=sampling_sigmas(steps))
        super().__init__(scheduler)


def sampling_sigmas(steps: int) -> list[float]:
    """[steps] unshifted sigmas from 1 down to 1/steps."""
    return np.linspace(1.0, 0.0, steps + 1)[:steps].tolist()


class FewStep:
    """Fixed timesteps of a distilled model. Predicts the clean latents each step, then goes to the next sigma.

    With `renoise` the way there is fresh noise: x' = (1 - sigma') * x0 + sigma' * noise. Without it is the predicted
    velocity itself: x' = x0 + sigma' * v, which is an Euler step. Its memory is the generator's alone.
    """

    def __init__(
        self, timesteps: Tensor, sigmas: Sequence[float], generator: Generator, *, renoise: bool, exact: torch.dtype
    ) -> None:
        self.timesteps = timesteps
        self.sigmas = (*sigmas, 0.0)
        self._generator = generator
        self._renoise = renoise
        self._exact = exact  # the dtype x0 is computed in

    @classmethod
    def dmd(cls, timesteps: Sequence[int], generator: Generator) -> FewStep:
        """FastWan: x0 in fp64, re-noised; integer timesteps looked up in the shifted training table.

        Source: hao-ai-lab/FastVideo: fastvideo/pipelines/stages/denoising.py (DmdDenoisingStage), fastvideo/models/
        utils.py (pred_noise_to_pred_video), schedulers/scheduling_flow_match_euler_discrete.py (add_noise). The sigma
        of timestep t is that of the table row whose shifted timestep is nearest to t, so about t / 1000.
        Difference: they keep latents and noise in bf16, we in fp32.
        """
        table = dmd_table()
        rows = [int((table * TRAIN_TIMESTEPS - t).abs().argmin()) for t in timesteps]
        sigmas = [float(table[row]) for row in rows]
        return cls(torch.tensor(timesteps), sigmas, generator, renoise=True, exact=torch.float64)

    @classmethod
    def distilled(cls, timesteps: Sequence[int], shift: float, generator: Generator, *, renoise: bool) -> FewStep:
        """4-step distilled weights: the given timesteps are shifted; the transformer gets the shifted ones.

        Source: ModelTC/LightX2V: lightx2v/models/schedulers/wan/step_distill/scheduler.py. WanStepDistillScheduler (Wan
        2.1) re-noises, Wan22StepDistillScheduler takes the deterministic step.
        """
        line = torch.linspace(1.0, 0.0, TRAIN_TIMESTEPS + 1)[:-1]
        shifted = shift * line / (1 + (shift - 1) * line)
        rows = torch.tensor([TRAIN_TIMESTEPS - t for t in timesteps])
        sigmas = shifted[rows]
        return cls(sigmas * TRAIN_TIMESTEPS, sigmas.tolist(), generator, renoise=renoise, exact=torch.float32)

    def step(self, prediction: Tensor, index: int, latents: Tensor) -> Tensor:
        clean = (latents.to(self._exact) - self.sigmas[index] * prediction.to(self._exact)).to(torch.float32)
        sigma = self.sigmas[index + 1]
        if index == len(self.timesteps) - 1:
            return clean
        if not self._renoise:
            return clean + sigma * prediction.to(torch.float32)
        noise = torch.randn(latents.shape, generator=self._generator, dtype=torch.float32).to(latents.device)
        return (1 - sigma) * clean + sigma * noise

    def state(self) -> SolverState:
        return SolverState()

    def load(self, state: SolverState) -> None:
        if state.tensors or state.scalars:
            raise CheckpointError("The solver state is not a few-step solver's.")


def dmd_table() -> Tensor:
    """[1000] fp32 sigmas of the shifted training timesteps 1000, 999, … 1."""
    line = torch.arange(TRAIN_TIMESTEPS, 0, -1, dtype=torch.float32) / TRAIN_TIMESTEPS
    return DMD_TABLE_SHIFT * line / (1 + (DMD_TABLE_SHIFT - 1) * line)
