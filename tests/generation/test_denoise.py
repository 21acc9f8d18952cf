"""The denoise loop: which expert, when to stop, what it leaves alone, and the recipe traps of this layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
import torch

from generation.factory import CATALOG, Case, make_case
from wanreel.core.cancel import CancelToken
from wanreel.core.errors import Cancelled, NumericalFault
from wanreel.core.request import Solver
from wanreel.generation.denoise import denoise, draw_noise, planned_solver
from wanreel.generation.savings import FEWEST
from wanreel.generation.solvers import DMD_TIMESTEPS, dmd_table, make_solver, sampling_sigmas
from wanreel.generation.state import DenoiseState
from wanreel.models.expert import Expert

#: Every solver, the distilled one as it is in both releases.
SOLVERS = [("t2v-1.3b", solver) for solver in get_args(Solver)] + [("t2v-a14b", "distill")]


def schedule(name: str, shift: float, steps: int, solver: Any = "unipc") -> list[float]:
    spec = CATALOG.get(name)
    made = make_solver(solver, steps=steps, shift=shift, spec=spec, generator=torch.Generator())
    return [float(t) for t in made.timesteps]


def split(name: str, shift: float, steps: int = 40) -> tuple[int, int]:
    """Steps of the high-noise and of the low-noise expert."""
    boundary = 1000 * (CATALOG.get(name).boundary_ratio or 0)
    high = sum(t >= boundary for t in schedule(name, shift, steps))
    return high, steps - high


@pytest.mark.parametrize(
    ("name", "official", "converted"), [("t2v-a14b", (26, 14), (13, 27)), ("i2v-a14b", (15, 25), (11, 29))]
)
def test_shift_decides_where_the_experts_change(
    name: str, official: tuple[int, int], converted: tuple[int, int]
) -> None:
    """The authors' shift gives the authors' split; the 3 in converted folders gives another."""
    assert split(name, CATALOG.get(name).sizes["720P"].flow_shift) == official
    assert split(name, 3.0) == converted


def test_the_shift_in_the_weights_folder_is_ignored() -> None:
    case = make_case("t2v-a14b")
    model = case.fresh_model()
    assert model.scheduler_config["flow_shift"] == 3.0
    *_, first = denoise(model, case.encode(model), case.request)
    model.scheduler_config = {"flow_shift": 99.0}
    *_, second = denoise(model, case.encode(model), case.request)
    assert torch.equal(first.latents, second.latents)
    solver = planned_solver(model, case.request, torch.Generator())
    unshifted = 1 - (1 - 0.001) / 6
    assert solver.sigmas[1] == pytest.approx(12 * unshifted / (1 + 11 * unshifted), abs=1e-6)


def test_the_boundary_belongs_to_the_high_noise_expert() -> None:
    model = make_case("t2v-a14b").model()
    assert [model.expert_index(t) for t in (1000, 875.0, 874.999, 0)] == [0, 0, 1, 1]


def test_experts_take_turns_high_first(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case("t2v-a14b")
    model, called, predict = case.model(), list[int](), Expert.predict

    def noted(self: Expert, *args: Any) -> torch.Tensor:
        called.append(model.experts.index(self))
        return predict(self, *args)

    monkeypatch.setattr(Expert, "predict", noted)
    states = list(denoise(model, case.encode(), case.request))
    assert [state.expert for state in states] == ["high"] * 4 + ["low"] * 2
    assert called == [0] * 8 + [1] * 4


def parts(case: Case) -> tuple[Any, Any, Any]:
    return case.model(), case.encode(), case.request


def test_one_expert_has_no_name() -> None:
    assert [state.expert for state in denoise(*parts(make_case("t2v-1.3b")))] == [""] * 6


def test_guidance_reaches_its_own_expert() -> None:
    """(high, low) is the order; swapped numbers give another video."""
    one = make_case("t2v-a14b", guidance_high=4.0, guidance_low=3.0)
    other = make_case("t2v-a14b", guidance_high=3.0, guidance_low=4.0)
    *_, first = denoise(*parts(one))
    *_, second = denoise(*parts(other))
    assert not torch.equal(first.latents, second.latents)


def test_noise_is_the_seeds_on_the_cpu() -> None:
    case = make_case("t2v-1.3b", seed=11)
    first = next(denoise(*parts(case)))
    generator = torch.Generator("cpu").manual_seed(11)
    expected = torch.randn(case.encode().shape, generator=generator, dtype=torch.float32)
    assert torch.equal(first.rng, generator.get_state())
    assert torch.equal(draw_noise(expected.shape, torch.Generator().manual_seed(11)), expected)
    assert first.latents.dtype == torch.float32


def test_the_same_seed_gives_the_same_latents_and_another_seed_others() -> None:
    runs = [list(denoise(*parts(make_case("ti2v-5b", seed=seed))))[-1].latents for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_the_clean_first_frame_survives() -> None:
    case = make_case("ti2v-5b", "picture")
    *_, last = denoise(*parts(case))
    conditioning = case.encode()
    assert conditioning.first_frame is not None
    assert torch.equal(last.latents[:, :, :1], conditioning.first_frame)


def test_clean_tokens_are_at_timestep_zero() -> None:
    conditioning = make_case("ti2v-5b", "picture").encode()
    _, _, frames, height, width = conditioning.shape
    times = conditioning.token_timesteps(700, torch.device("cpu"))
    each = height // 2 * (width // 2)
    assert times.shape == (1, frames * each)
    assert not times[0, :each].any()
    assert (times[0, each:] == 700).all()


def test_the_last_estimate_is_the_result_and_earlier_ones_come_near() -> None:
    states = list(denoise(*parts(make_case("t2v-1.3b", num_inference_steps=12))))
    assert states[-1].estimate is not None
    assert torch.equal(states[-1].estimate, states[-1].latents)
    final = states[-1].latents
    for state in states[6:]:
        assert state.estimate is not None
        assert (state.estimate - final).norm() < (state.latents - final).norm() or state.done


def tensors_of(state: DenoiseState) -> dict[str, torch.Tensor]:
    assert state.estimate is not None
    own = {"latents": state.latents, "rng": state.rng, "estimate": state.estimate}
    return {**own, **state.solver.tensors, **state.savings.tensors}


@pytest.mark.parametrize(("name", "solver"), SOLVERS)
def test_states_are_not_changed_by_later_steps(name: str, solver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are written to disk beside the next step, and on a CPU nothing is copied for that. Without guidance solver and
    savings get the very tensor that the expert gave."""
    monkeypatch.setattr(Expert, "predict", lambda self, latents, times, text, *_: 0.5 * latents + text.mean())
    case = make_case(name, num_inference_steps=12, guidance_high=1.0)
    request = replace(case.request, solver=solver, guidance_low=1.0, compute="turbo")
    states, copies = list[DenoiseState](), list[dict[str, torch.Tensor]]()
    for state in denoise(case.model(), case.encode(), request):
        states.append(state)
        copies.append({part: tensor.clone() for part, tensor in tensors_of(state).items()})
    assert any(state.foretold for state in states) == (len(states) >= FEWEST)
    for state, copy in zip(states, copies, strict=True):
        assert [part for part, tensor in tensors_of(state).items() if not torch.equal(tensor, copy[part])] == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_latents_that_are_no_numbers_stop_the_run(bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def broken(self: Expert, latents: torch.Tensor, *_: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        prediction = torch.zeros(1, 16, *latents.shape[2:])
        if calls == 5:
            prediction[0, 3, 1, 2, 2] = bad
        return prediction

    monkeypatch.setattr(Expert, "predict", broken)
    seen = []
    with pytest.raises(NumericalFault, match="step 3"):
        seen.extend(state.step for state in denoise(*parts(make_case("t2v-1.3b"))))
    assert calls == 6


def test_cancel_stops_inside_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    case, cancel = make_case("t2v-1.3b"), CancelToken()
    model, blocks = case.model(), 0
    block = model.experts[0].transformer.blocks[0]

    def count(*_: Any) -> None:
        nonlocal blocks
        blocks += 1
        if blocks == 3:  # first pass of the second step
            cancel.cancel()

    hook = block.register_forward_hook(count)
    states = denoise(model, case.encode(), case.request, cancel=cancel)
    try:
        assert next(states).step == 1
        with pytest.raises(Cancelled):
            next(states)
        assert blocks == 3
    finally:
        hook.remove()


def test_closing_between_steps_leaves_nothing_behind() -> None:
    case = make_case("t2v-1.3b")
    *_, expected = denoise(*parts(case))
    stopped: Any = denoise(*parts(case))
    next(stopped)
    next(stopped)
    stopped.close()
    *_, again = denoise(*parts(case))
    assert torch.equal(again.latents, expected.latents)


def test_torch_state_is_as_it_was() -> None:
    case = make_case("fastwan2.1-t2v-1.3b", guidance_high=1.0)
    before = torch.get_rng_state()
    for state in denoise(*parts(case)):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        assert not state.latents.requires_grad
    assert torch.equal(torch.get_rng_state(), before)


def test_euler_runs_over_the_authors_sigmas() -> None:
    assert sampling_sigmas(4) == [1.0, 0.75, 0.5, 0.25]
    assert schedule("t2v-14b", 5.0, 4, "euler") == pytest.approx([1000.0, 937.5, 833.3333, 625.0])


def test_distilled_steps_split_two_and_two() -> None:
    assert schedule("t2v-a14b", 5.0, 4, "distill") == pytest.approx([1000.0, 937.5, 833.3333, 625.0])
    boundary = [1000 * (CATALOG.get(name).boundary_ratio or 0) for name in ("t2v-a14b", "i2v-a14b")]
    for limit in boundary:
        assert [t >= limit for t in schedule("t2v-a14b", 5.0, 4, "distill")] == [True, True, False, False]


def test_dmd_takes_sigmas_from_its_own_table_whatever_the_shift() -> None:
    generator = torch.Generator()
    spec = CATALOG.get("fastwan2.2-ti2v-5b")
    solvers = [make_solver("dmd", steps=3, shift=shift, spec=spec, generator=generator) for shift in (5.0, 8.0)]
    assert solvers[0].sigmas == solvers[1].sigmas
    assert solvers[0].timesteps.tolist() == list(DMD_TIMESTEPS)
    assert solvers[0].timesteps.dtype == torch.int64
    assert solvers[0].sigmas == pytest.approx((1.0, 0.757, 0.522, 0.0), abs=1e-3)
    assert set(solvers[0].sigmas[:-1]) <= {float(sigma) for sigma in dmd_table()}


@pytest.mark.parametrize("solver", ["unipc", "dpm++", "euler"])
def test_many_steps_at_a_large_shift_start_at_the_first_sigma(solver: Any) -> None:
    """Two timesteps then round to the same integer; a search by value would skip a step."""
    case = make_case("t2v-1.3b", num_inference_steps=100, solver=solver)
    case = replace(case, request=replace(case.request, flow_shift=16.0))
    made = planned_solver(case.model(), case.request, torch.Generator())
    if solver != "euler":
        assert int(made.timesteps[0]) == int(made.timesteps[1])
    one = torch.ones(1, 1, 1, 1, 1)
    first = made.step(one, 0, one)
    assert made.state().scalars["_step_index"] == 1
    # A velocity of 1 everywhere: x moves by the difference of the sigmas.
    assert first.item() == pytest.approx(1 + made.sigmas[1] - made.sigmas[0], abs=1e-4)
