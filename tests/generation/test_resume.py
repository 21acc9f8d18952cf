"""Stop after any step and go on in fresh objects: the same bits. From latents alone: other bits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from generation.factory import ARCHITECTURES, Case, make_case
from wanreel.core.catalog import Mode
from wanreel.core.errors import CheckpointError
from wanreel.generation.denoise import denoise
from wanreel.generation.state import DenoiseState, SolverState

GRID = [(name, mode, solver) for name, mode in ARCHITECTURES for solver in ("unipc", "dpm++", "euler")]
FEW_STEP = [("fastwan2.1-t2v-1.3b", "text", "dmd"), ("fastwan2.2-ti2v-5b", "picture", "dmd")]


def case_of(name: str, mode: Mode, solver: str) -> Case:
    if solver == "dmd":
        return make_case(name, mode, guidance_high=1.0)
    return make_case(name, mode, solver=solver, num_inference_steps=4)


def distilled(name: str) -> Case:
    case = make_case(name)
    return replace(case, request=replace(case.request, solver="distill", flow_shift=5.0))


def check_every_step(case: Case, every: int = 1) -> None:
    states = list(denoise(case.model(), case.encode(), case.request))
    whole, total = states[-1].latents, states[-1].total_steps
    assert [state.step for state in states] == list(range(1, total + 1))
    model = case.fresh_model()
    conditioning = case.encode(model)
    for state in states[::every]:
        rest = list(denoise(model, conditioning, case.request, start=detached(state)))
        assert [later.step for later in rest] == list(range(state.step + 1, total + 1))
        assert torch.equal(rest[-1].latents if rest else state.latents, whole), f"after step {state.step}"


def detached(state: DenoiseState) -> DenoiseState:
    """A copy through memory of its own, as a checkpoint gives."""
    solver = SolverState({name: tensor.clone() for name, tensor in state.solver.tensors.items()}, state.solver.scalars)
    return DenoiseState(state.step, state.total_steps, state.latents.clone(), solver, state.rng.clone())


@pytest.mark.parametrize(("name", "mode", "solver"), GRID + FEW_STEP)
def test_resume_at_every_step(name: str, mode: Mode, solver: str) -> None:
    check_every_step(case_of(name, mode, solver))


@pytest.mark.parametrize("name", ["t2v-1.3b", "t2v-a14b"])
def test_resume_at_every_step_distilled(name: str) -> None:
    check_every_step(distilled(name))


@pytest.mark.parametrize(("steps", "every"), [(2, 1), (14, 4), (15, 4)])
@pytest.mark.parametrize("solver", ["unipc", "dpm++"])
def test_resume_in_runs_of_other_lengths(solver: str, steps: int, every: int) -> None:
    """DPM++ treats its last steps otherwise below 15 steps."""
    check_every_step(make_case("t2v-a14b", solver=solver, num_inference_steps=steps), every)


@pytest.mark.parametrize("solver", ["unipc", "dpm++"])
@pytest.mark.parametrize(("name", "mode"), ARCHITECTURES)
def test_latents_alone_are_not_enough(name: str, mode: Mode, solver: str) -> None:
    """The control: without the solver's memory a multistep run ends elsewhere."""
    case = case_of(name, mode, solver)
    states = list(denoise(case.model(), case.encode(), case.request))
    for state in states[1:-2]:  # the last step looks back at nothing
        memory = SolverState({}, {"_step_index": state.step, "lower_order_nums": 0})
        forgetful = replace(detached(state), solver=memory)
        *_, last = denoise(case.model(), case.encode(), case.request, start=forgetful)
        assert not torch.equal(last.latents, states[-1].latents)


def test_dmd_needs_the_generator() -> None:
    case = case_of("fastwan2.1-t2v-1.3b", "text", "dmd")
    first, *_, last = denoise(case.model(), case.encode(), case.request)
    reseeded = replace(detached(first), rng=torch.Generator().manual_seed(case.request.seed).get_state())
    *_, other = denoise(case.model(), case.encode(), case.request, start=reseeded)
    assert not torch.equal(other.latents, last.latents)


def test_a_finished_state_has_no_steps_left() -> None:
    case = case_of("t2v-1.3b", "text", "unipc")
    *_, last = denoise(case.model(), case.encode(), case.request)
    assert last.done
    assert list(denoise(case.model(), case.encode(), case.request, start=last)) == []


def test_a_state_that_does_not_fit_is_refused() -> None:
    case = case_of("t2v-1.3b", "text", "unipc")
    first, *_ = denoise(case.model(), case.encode(), case.request)
    foreign = {
        "other length": replace(first, total_steps=9),
        "beyond the end": replace(first, step=5),
        "other shape": replace(first, latents=first.latents[:, :, :1]),
        "other solver": replace(first, solver=SolverState({"momentum": first.latents}, {})),
    }
    for name, state in foreign.items():
        with pytest.raises(CheckpointError):
            next(denoise(case.model(), case.encode(), case.request, start=state))
            pytest.fail(name)
