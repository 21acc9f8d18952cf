"""qualify: do these weights run as their authors' pipeline runs them? Two steps at the default size, beside Diffusers.

Knows nothing of where the weights came from or of where the report goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import wanreel
from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import STANDARD_SOLVERS, Catalog, ModelSpec
from wanreel.core.picture import PictureRef
from wanreel.core.placement import Placement
from wanreel.core.request import VideoRequest
from wanreel.core.resolve import Defaults, resolve
from wanreel.core.resolved import ResolvedRequest
from wanreel.generation.conditioning import Conditioning, latent_shape
from wanreel.generation.decode import decode
from wanreel.generation.denoise import denoise, draw_noise
from wanreel.generation.encode import Pictures, encode
from wanreel.models.attention import attention_facts
from wanreel.models.diffusers_pipeline import diffusers_pipeline
from wanreel.models.folder import open_folder
from wanreel.models.load import Dtypes, load_model
from wanreel.models.machine import machine_facts
from wanreel.models.qualify import Comparison, QualifyReport, RunFacts, dtype_names, part_facts
from wanreel.models.wan_model import WanModel

T = TypeVar("T")

STEPS = 2
PROMPT = "A cat walks on the grass, realistic style."
FEW_STEP_NOTE = "Compared with UniPC: Diffusers has no pipeline for this model's own few-step sampling."
STREAMED_NOTE = "Not compared with Diffusers: its pipeline needs at least one whole expert on the GPU."


def qualify(
    spec: ModelSpec,
    folder: Path,
    device: torch.device | str,
    placement: Placement | None = None,
    cancel: CancelToken | None = None,
) -> QualifyReport:
    """Check `folder` as the weights of `spec` and run them. Raises BrokenWeights when they do not even load.

    The run takes `spec`'s default size and length, official guidance and two steps. A report that did not pass is
    returned like one that did: see `passed`.
    """
    device, cancel = torch.device(device), cancel or CancelToken()
    parts = part_facts(open_folder(spec, folder))
    notes = (FEW_STEP_NOTE,) if spec.few_step else ()
    spec = _with_standard_solver(spec)
    began = time.monotonic()
    model = load_model(spec, folder, device, placement=placement)
    loaded = time.monotonic() - began
    request, pictures = _request(spec)
    run, comparisons = _run(model, request, pictures, loaded, cancel)
    dtypes = Dtypes.of(device)
    return QualifyReport(
        model=spec.name,
        hub_id=spec.hub_id,
        wanreel=wanreel.__version__,
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine_facts(),
        attention=attention_facts(device),
        device=device.type,
        dtypes=dtype_names((name, dtypes.for_part(name)) for name in parts),
        plan=model.placement.plan,
        parts=parts,
        run=run,
        comparisons=comparisons,
        notes=(*notes, *model.notes, *(() if comparisons else (STREAMED_NOTE,))),
    )


def _run(
    model: WanModel, request: ResolvedRequest, pictures: Pictures, loaded: float, cancel: CancelToken
) -> tuple[RunFacts, tuple[Comparison, ...]]:
    """Encode, denoise and decode, each timed and measured; then the same latents from Diffusers."""
    device = model.device
    conditioning, encoded, _ = _measured(device, lambda: encode(model, request, pictures, cancel))
    latents, step, denoise_peak = _measured_denoise(model, conditioning, request, cancel)
    frames, decoded, decode_peak = _measured(device, lambda: list(decode(model, latents, cancel)))
    facts = RunFacts(
        mode=request.mode,
        width=request.width,
        height=request.height,
        num_frames=request.num_frames,
        steps=request.num_inference_steps,
        seconds_load=loaded,
        seconds_encode=encoded,
        seconds_per_step=step,
        seconds_decode=decoded,
        peak_bytes_denoise=denoise_peak,
        peak_bytes_decode=decode_peak,
        frames_vary=any(int(chunk.max()) != int(chunk.min()) for chunk in frames),
    )
    if model.placement.streamed:
        return facts, ()
    reference = _diffusers_latents(model, request, pictures)
    return facts, (Comparison.between(f"latents after {STEPS} steps", latents, reference),)


def _measured(device: torch.device, work: Callable[[], T]) -> tuple[T, float, int | None]:
    """Result, seconds, and on a GPU the peak of allocated bytes."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    began = time.monotonic()
    result = work()
    if cuda:
        torch.cuda.synchronize(device)
    seconds = time.monotonic() - began
    return result, seconds, torch.cuda.max_memory_allocated(device) if cuda else None


def _measured_denoise(
    model: WanModel, conditioning: Conditioning, request: ResolvedRequest, cancel: CancelToken
) -> tuple[Tensor, float, int | None]:
    """Latents, seconds of the last step, peak bytes of all steps."""
    states = denoise(model, conditioning, request, cancel=cancel)
    first, _, first_peak = _measured(model.device, lambda: next(states))
    seconds, peak, latents = 0.0, first_peak or 0, first.latents
    for _ in range(request.num_inference_steps - 1):
        state, seconds, step_peak = _measured(model.device, lambda: next(states))
        latents, peak = state.latents, max(peak, step_peak or 0)
    return latents, seconds, peak or None


def _diffusers_latents(model: WanModel, request: ResolvedRequest, pictures: Pictures) -> Tensor:
    """What Diffusers' pipeline makes of the same modules, request and noise."""
    model.vacate()
    pipeline = diffusers_pipeline(model, picture=request.mode != "text", flow_shift=request.flow_shift)
    pipeline.set_progress_bar_config(disable=True)
    if not model.placement.keeps_everything:
        pipeline.enable_model_cpu_offload(device=model.device)
    given: dict[str, Any] = {"image": pictures.first, "last_image": pictures.last}
    given = {name: picture for name, picture in given.items() if picture is not None}
    if model.spec.two_experts:
        given["guidance_scale_2"] = request.guidance_low
    noise = draw_noise(latent_shape(model.spec, request), torch.Generator().manual_seed(request.seed))
    return pipeline(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        width=request.width,
        height=request.height,
        num_frames=request.num_frames,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_high,
        latents=noise,
        output_type="latent",
        **given,
    ).frames


def _with_standard_solver(spec: ModelSpec) -> ModelSpec:
    return replace(spec, solver="unipc", solvers=STANDARD_SOLVERS, few_step_timesteps=()) if spec.few_step else spec


def _request(spec: ModelSpec) -> tuple[ResolvedRequest, Pictures]:
    """Two steps at the default size, with a drawn picture where the model needs one."""
    spec = replace(spec, name="weights")  # whatever it is called, it is the only one in this catalogue
    size = spec.sizes[spec.default_resolution]
    pictures = Pictures()
    given: dict[str, Any] = {}
    if "text" not in spec.modes:
        last = _drawn(size.width, size.height, flipped=True) if "first_last" in spec.modes else None
        pictures = Pictures(_drawn(size.width, size.height), last)
        given["image"] = PictureRef("0" * 64, size.width, size.height)
        given["last_image"] = PictureRef("1" * 64, size.width, size.height) if last else None
    asked = VideoRequest(prompt=PROMPT, model=spec.name, num_inference_steps=STEPS, seed=0, **given)
    return resolve(asked, Catalog((spec,)), Defaults({}, frozenset({spec.name}))).request, pictures


def _drawn(width: int, height: int, *, flipped: bool = False) -> Image.Image:
    """A colour ramp: no two columns or rows alike."""
    across, down = np.linspace(0, 255, width), np.linspace(0, 255, height)[:, None]
    bands = (across + 0 * down, down + 0 * across, 255 - (across + down) / 2)
    picture = Image.fromarray(np.stack(bands, axis=-1).astype(np.uint8))
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else picture
