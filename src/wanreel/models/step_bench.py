"""Measuring one denoise step: every manner of computing it on the same weights and inputs, and its error.

Weights are random, in the real shapes: times are the real model's, errors say what rounding does and nothing of pictures.
Knows nothing of tables or files.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed, WanTransformer3DModel
from torch import Tensor, nn

from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import ModelSpec
from wanreel.core.components import CLIP_DIM, CLIP_TOKENS, in_channels
from wanreel.core.compute import EXACT_END
from wanreel.core.placement import Placement
from wanreel.core.workload import Workload
from wanreel.models import clock
from wanreel.models.clock import error_of
from wanreel.models.components import TRANSFORMER_SIZES
from wanreel.models.expert import Expert
from wanreel.models.quantize import quantize, stored_of
from wanreel.models.step.path import Compiler, Manner, StepPath

__all__ = [
    "FAST",
    "Given",
    "StepRow",
    "Variant",
    "bench_step",
    "error_of",
    "fill",
    "given_for",
    "measured",
    "random_expert",
    "variants",
]

#: FLOP/s that a floor is counted with: what bf16 matrices reach on an H200.
FLOOR_RATE = 790e12
_TEXT_DIM = 4096
#: How weights are stored where they multiply in fp8.
FAST = Placement(precision="fp8", compute="fast")


@dataclass(frozen=True, slots=True)
class Variant:
    """One manner of computing a step."""

    name: str
    manner: Manner | None  #: None: Diffusers' own forward
    eight: bool = False  #: the matrices' weights in fp8


@dataclass(frozen=True, slots=True)
class StepRow:
    """What one variant took."""

    name: str
    seconds: float  #: of one step, with two forwards where the model is guided
    tflops: float
    of_floor: float
    peak_gib: float
    error: float  #: of one forward against the first variant's, relative (L2)
    first_seconds: float  #: of the first forward: compiling and choosing kernels
    compilations: int
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def variants(exact: Sequence[str], rounded: Sequence[str]) -> tuple[Variant, ...]:
    """Diffusers as it is, compiled blocks with each exact kernel, then fp8 with each of the others."""
    edge = exact[-1]
    return (
        Variant("diffusers", None),
        *(Variant(f"exact {name}", Manner(name, name)) for name in exact),
        Variant("fp8 matrices", Manner(edge, edge, eight=True), eight=True),
        *(Variant(f"fast {name}", Manner(name, edge, end=EXACT_END, eight=True), eight=True) for name in rounded),
    )


def random_expert(spec: ModelSpec, device: torch.device, *, outliers: bool = False, seed: int = 0) -> Expert:
    """One transformer of `spec` in bf16, or in fp32 on a CPU, its modules in fp32 that Diffusers keeps so.

    Activations keep their size from layer to layer, and logits spread by 2.2. `outliers`: a few channels of the residual
    stream and of the keys are many times as large as the others, as in trained models.
    """
    size: dict[str, Any] = dict(TRANSFORMER_SIZES[spec.parameters])
    dim = size["num_attention_heads"] * size["attention_head_dim"]
    size |= {"in_channels": in_channels(spec), "out_channels": spec.latent_channels}
    size |= {"image_dim": CLIP_DIM, "added_kv_proj_dim": dim} if spec.clip else {}
    with init_empty_weights():
        model: Any = WanTransformer3DModel(**size)
    if device.type == "cuda":
        model.to(torch.bfloat16)
    for name, parameter in model.named_parameters():
        if set(model._keep_in_fp32_modules) & set(name.split(".")):
            parameter.data = parameter.data.float()
    model.to_empty(device=device)
    model.rope = WanRotaryPosEmbed(size["attention_head_dim"], (1, 2, 2), 1024).to(device)
    fill(model, dim, torch.Generator(device).manual_seed(seed), outliers=outliers)
    return Expert(model.eval().requires_grad_(False), device=device)


@torch.no_grad()
def fill(model: nn.Module, dim: int, generator: torch.Generator, *, outliers: bool) -> None:
    """Draw every weight of `model`, a Wan transformer."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv3d)):
            module.weight.normal_(0, module.weight[0].numel() ** -0.5, generator=generator)
            if module.bias is not None:
                module.bias.normal_(0, 0.02, generator=generator)
    for name, parameter in model.named_parameters():
        owner, _, leaf = name.rpartition(".")
        if leaf == "scale_shift_table":
            parameter.normal_(0, dim**-0.5, generator=generator)
        elif owner.rpartition(".")[2].startswith("norm"):
            parameter.fill_((1.5 if owner.endswith(("norm_q", "norm_k")) else 1.0) if leaf == "weight" else 0.0)
    if outliers:
        whole: Any = model
        whole.patch_embedding.bias[:: dim // 8].add_(15.0)
        for block in whole.blocks:
            block.attn1.to_k.bias[5::64].add_(8.0)
            block.attn1.norm_q.weight[40::64].mul_(3.0)
            block.ffn.net[0].proj.bias[7::512].add_(6.0)


@dataclass(frozen=True)
class Given:
    """What a forward takes."""

    latents: Tensor
    timestep: Tensor
    texts: tuple[Tensor, Tensor]
    image: Tensor | None


def given_for(spec: ModelSpec, work: Workload, expert: Expert, *, smooth: bool = False, seed: int = 1) -> Given:
    """Random inputs. `smooth`: latents whose neighbours resemble each other, as those of videos do."""
    generator = torch.Generator(expert.device).manual_seed(seed)

    def drawn(*size: int) -> Tensor:
        return torch.randn(size, device=expert.device, generator=generator)

    shape = (spec.latent_frames(work.frames), work.height // spec.spatial_stride, work.width // spec.spatial_stride)
    latents = drawn(1, in_channels(spec), *shape)
    if smooth:
        coarse = drawn(1, in_channels(spec), *(max(1, -(-side // 6)) for side in shape))
        latents = 0.5 * latents + nn.functional.interpolate(coarse, size=shape, mode="trilinear")
    timestep = torch.tensor([700.0], device=expert.device)
    if spec.conditioning == "first_frame":
        timestep = timestep.expand(1, work.tokens)
    image = drawn(1, CLIP_TOKENS, CLIP_DIM).to(expert.dtype) if spec.clip else None
    texts = (drawn(1, spec.prompt_tokens, _TEXT_DIM).to(expert.dtype) for _ in range(2))
    return Given(latents.to(expert.dtype), timestep, tuple(texts), image)  # type: ignore[arg-type]


def bench_step(
    work: Workload,
    device: torch.device,
    wanted: Sequence[Variant],
    *,
    realistic: bool = False,
    timed: int = 2,
    stored_as: Placement = FAST,
) -> Iterator[StepRow]:
    """A row for each variant, the reference first. Those with weights in fp8 have to come last."""
    expert = random_expert(work.spec, device, outliers=realistic)
    given = given_for(work.spec, work, expert, smooth=realistic)
    reference: Tensor | None = None
    stored = False
    for variant in wanted:
        if variant.eight and not stored:
            quantize(stored_of(expert.transformer.blocks, stored_as), "fp8")
            stored = True
        row, found = measured(expert, given, work, variant, timed)
        if reference is None:
            reference = found
        row["error"] = error_of(found, reference)
        yield StepRow(**row)
    expert.unload()


def measured(
    expert: Expert, given: Given, work: Workload, variant: Variant, timed: int
) -> tuple[dict[str, Any], Tensor]:
    """A row but for its error, and the velocity for the first text."""
    compiler, plain = Compiler(), variant.manner is None
    expert.step = None if variant.manner is None else StepPath(expert, variant.manner, compiler)
    _rest(expert.device)
    first = clock.timed(expert.device, lambda: _forward(expert, given, 0, plain=plain))
    if work.passes > 1 and timed > 1:
        _forward(expert, given, 1, plain=plain)
    later = [
        clock.timed(expert.device, lambda which=number % work.passes: _forward(expert, given, which, plain=plain))
        for number in range(timed)
    ]
    seconds, operations = statistics.median(it.seconds for it in later), sum(work.forward_operations())
    peak = max(it.peak_gib or 0.0 for it in (first, *later))
    expert.step = None
    return {
        "name": variant.name,
        "seconds": work.passes * seconds,
        "tflops": operations / seconds / 1e12,
        "of_floor": seconds * FLOOR_RATE / operations,
        "peak_gib": peak,
        "first_seconds": first.seconds,
        "compilations": compiler.compilations,
        "note": compiler.failure,
    }, first.value.float()


@torch.no_grad()
def _forward(expert: Expert, given: Given, number: int, *, plain: bool) -> Tensor:
    if plain:
        call: Any = expert.transformer
        return call(given.latents, given.timestep, given.texts[number], given.image, return_dict=False)[0]
    return expert.predict(given.latents, given.timestep, given.texts[number], given.image, CancelToken())


def _rest(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
