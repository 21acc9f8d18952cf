"""Our loop against Diffusers' pipelines: equal modules, noise and schedule must give equal latents, to the bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from generation.factory import ARCHITECTURES, Case, make_case
from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import Mode
from wanreel.generation.denoise import denoise, draw_noise
from wanreel.models.expert import Expert
from wanreel.testing import diffusers_pipeline

FLOW: dict[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}


class AuthorsEuler(FlowMatchEulerDiscreteScheduler):
    """Diffusers' Euler on the authors' sigmas: its pipelines have no way to hand them in."""

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:  # type: ignore[override]
        sigmas = torch.linspace(1, 0, num_inference_steps + 1, dtype=torch.float64)[:-1]
        super().set_timesteps(sigmas=sigmas.tolist(), device=device)


def scheduler(solver: str, shift: float) -> Any:
    match solver:
        case "unipc":
            return UniPCMultistepScheduler(flow_shift=shift, **FLOW)
        case "dpm++":
            return DPMSolverMultistepScheduler(flow_shift=shift, **FLOW)
        case _:
            return AuthorsEuler(shift=shift)


def ours(case: Case) -> torch.Tensor:
    *_, last = denoise(case.model(), case.encode(), case.request)
    return last.latents


def theirs(case: Case) -> torch.Tensor:
    request, pictures = case.request, case.pictures
    pipeline = diffusers_pipeline(case.model(), picture=request.mode != "text")
    pipeline.scheduler = scheduler(request.solver, request.flow_shift)
    pipeline.set_progress_bar_config(disable=True)
    given: dict[str, Any] = {"image": pictures.first, "last_image": pictures.last}
    given = {name: picture for name, picture in given.items() if picture is not None}
    if case.spec.two_experts:
        given["guidance_scale_2"] = request.guidance_low
    return pipeline(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        height=request.height,
        width=request.width,
        num_frames=request.num_frames,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_high,
        generator=torch.Generator().manual_seed(request.seed),
        output_type="latent",
        **given,
    ).frames


@pytest.mark.parametrize("solver", ["unipc", "dpm++", "euler"])
@pytest.mark.parametrize(("name", "mode"), ARCHITECTURES)
def test_latents_equal_diffusers(name: str, mode: Mode, solver: str) -> None:
    case = make_case(name, mode, solver=solver)
    assert torch.equal(ours(case), theirs(case))


@pytest.mark.parametrize(("name", "mode"), [("t2v-1.3b", "text"), ("i2v-a14b", "picture"), ("ti2v-5b", "picture")])
def test_latents_equal_diffusers_without_guidance(name: str, mode: Mode) -> None:
    case = make_case(name, mode, guidance_high=1.0, **({"guidance_low": 1.0} if name.endswith("a14b") else {}))
    assert case.encode().negative is None
    assert torch.equal(ours(case), theirs(case))


@pytest.mark.parametrize(("high", "low"), [(4.0, 3.0), (1.0, 3.5), (3.5, 1.0), (1.0, 1.0)])
def test_guidance_is_decided_per_expert(high: float, low: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Diffusers looks at the high scale alone; here each expert has its own, and 1.0 costs no second pass."""
    case = make_case("t2v-a14b", guidance_high=high, guidance_low=low)
    passes = {0: 0, 1: 0}
    experts, predict = case.model().experts, Expert.predict

    def counted(self: Expert, *args: Any) -> torch.Tensor:
        passes[experts.index(self)] += 1
        return predict(self, *args)

    monkeypatch.setattr(Expert, "predict", counted)
    latents = ours(case)
    expected, steps = written_out(case, high, low)
    assert torch.equal(latents, expected)
    assert passes == {0: steps[0] * (1 + (high > 1)), 1: steps[1] * (1 + (low > 1))}


def written_out(case: Case, high: float, low: float) -> tuple[torch.Tensor, dict[int, int]]:
    """Two-expert sampling from its definition, over the transformers' own forward. Returns latents, steps an expert."""
    request, model, conditioning = case.request, case.model(), case.encode()
    solver = scheduler("unipc", request.flow_shift)
    solver.set_timesteps(request.num_inference_steps)
    latents = torch.randn(conditioning.shape, generator=torch.Generator().manual_seed(request.seed))
    steps = {0: 0, 1: 0}

    def velocity(which: int, t: torch.Tensor, text: Any) -> torch.Tensor:
        transformer = model.experts[which].transformer
        return transformer(latents, t.expand(1), encoder_hidden_states=text, return_dict=False)[0]

    with torch.no_grad():
        for t in solver.timesteps:
            which = 0 if t >= (case.spec.boundary_ratio or 0) * 1000 else 1
            scale = (high, low)[which]
            steps[which] += 1
            v = velocity(which, t, conditioning.text)
            if scale > 1:
                u = velocity(which, t, conditioning.negative)
                v = u + scale * (v - u)
            latents = solver.step(v, t, latents, return_dict=False)[0]
    return latents, steps


@pytest.mark.parametrize(("name", "mode"), [("fastwan2.1-t2v-1.3b", "text"), ("fastwan2.2-ti2v-5b", "picture")])
def test_dmd_from_its_definition(name: str, mode: Mode) -> None:
    case = make_case(name, mode, guidance_high=1.0)
    model, conditioning, request = case.model(), case.encode(), case.request
    table = [8 * s / (1 + 7 * s) for s in (k / 1000 for k in range(1000, 0, -1))]  # FastVideo's, whatever the model
    generator = torch.Generator().manual_seed(request.seed)
    x = draw_noise(conditioning.shape, generator)
    timesteps = (1000, 757, 522)
    clean = x
    nearest = [min(table, key=lambda sigma: abs(1000 * sigma - t)) for t in timesteps]
    for place, t in enumerate(timesteps):
        times = conditioning.token_timesteps(t, model.device) if model.expand_timesteps else torch.tensor([t])
        v = model.experts[0].predict(conditioning.apply(x), times, conditioning.text, None, CancelToken())
        clean = (x.double() - nearest[place] * v.double()).float()
        if place < 2:
            noise = torch.randn(x.shape, generator=generator)
            x = (1 - nearest[place + 1]) * clean + nearest[place + 1] * noise
    # 1e-6: the table here is fp64, the product's fp32 as the authors'.
    torch.testing.assert_close(ours(case), conditioning.hold(clean), rtol=0, atol=2e-6)


def distilled_case(name: str) -> Case:
    case = make_case(name, guidance_high=1.0)
    return replace(case, request=replace(case.request, solver="distill", guidance_low=1.0, flow_shift=5.0))


def test_distill_is_euler_over_shifted_steps_for_wan_2_2() -> None:
    case = distilled_case("t2v-a14b")
    model, conditioning = case.model(), case.encode()
    sigmas = [5 * s / (1 + 4 * s) for s in (1.0, 0.75, 0.5, 0.25)]
    assert [1000 * sigma >= 875 for sigma in sigmas] == [True, True, False, False]
    x = draw_noise(conditioning.shape, torch.Generator().manual_seed(case.request.seed))
    for place, (sigma, following) in enumerate(zip(sigmas, [*sigmas[1:], 0.0], strict=True)):
        times = torch.tensor([1000 * sigma])
        v = model.experts[place // 2].predict(x, times, conditioning.text, None, CancelToken())
        x = x + (following - sigma) * v
    torch.testing.assert_close(ours(case), x, rtol=0, atol=5e-6)  # x0 + sigma' v rounds differently from a step


def test_distill_renoises_for_wan_2_1() -> None:
    case = distilled_case("t2v-1.3b")
    model, conditioning = case.model(), case.encode()
    sigmas = [5 * s / (1 + 4 * s) for s in (1.0, 0.75, 0.5, 0.25)]
    generator = torch.Generator().manual_seed(case.request.seed)
    x = draw_noise(conditioning.shape, generator)
    for place, sigma in enumerate(sigmas):
        v = model.experts[0].predict(x, torch.tensor([1000 * sigma]), conditioning.text, None, CancelToken())
        x = x - sigma * v
        if place < 3:
            x = (1 - sigmas[place + 1]) * x + sigmas[place + 1] * torch.randn(x.shape, generator=generator)
    torch.testing.assert_close(ours(case), x, rtol=0, atol=5e-6)
