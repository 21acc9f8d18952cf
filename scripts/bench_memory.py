"""Measures the memory and time of every stage under given plans, with random weights of the real shapes.

Each case is a model, a size, a number of frames, a placement and a cap on the process's GPU memory; the parts of a request
run as the product runs them: the text encoder, the VAE over the picture, one forward of each expert, the decoder over the
first latent frames. One JSON record a stage; memory_table.py prints them beside the predictions.

    PYTHONPATH=src PYTORCH_ALLOC_CONF=expandable_segments:True python scripts/bench_memory.py --cases calibrate --json out.json
"""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import argparse
import gc
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from bench_cases import CHUNKED, LEAN, Case, cases, placement_of, read_cases, request_of
from bench_weights import build
from PIL import Image
from torch import Tensor, nn

from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import Catalog
from wanreel.core.components import CLIP_DIM, CLIP_TOKENS, known
from wanreel.core.machines import GIB
from wanreel.core.placement import Placement
from wanreel.core.resolved import ResolvedRequest
from wanreel.generation.conditioning import Conditioning, latent_shape
from wanreel.generation.decode import decode
from wanreel.generation.denoise import denoise
from wanreel.generation.encode import Pictures, encode
from wanreel.models.attention import attention_facts
from wanreel.models.quantize import store_in
from wanreel.models.wan_model import WanModel

T = TypeVar("T")
CONTEXT = 0.5  # GiB of a card that the CUDA context takes, out of the allocator's reach
DECODED = 4  # latent frames decoded where not all are: the peak is there with the third


@dataclass(frozen=True)
class Record:
    """What one stage of one case took."""

    model: str
    width: int
    height: int
    frames: int
    placement: dict[str, Any]
    cap_gib: float | None
    mode: str
    stage: str
    seconds: float | None = None
    allocated: int | None = None  #: peak bytes
    reserved: int | None = None
    failed: str = ""
    values: dict[str, float] = field(default_factory=dict[str, float])


class Bench:
    """Runs cases and keeps the model of the last one as long as the next can use it."""

    def __init__(self, device: torch.device, path: Path | None, deadline: float = math.inf) -> None:
        self.device, self.path, self.deadline = device, path, deadline
        self.records: list[Record] = []
        self._began = time.monotonic()
        self._held: tuple[tuple[str, Placement], WanModel] | None = None

    def run(self, cases: list[Case]) -> None:
        for case in cases:
            if time.monotonic() - self._began > self.deadline:
                self._add(Record(**_facts(case), stage="all", failed="not run: out of time"))
                continue
            self._run(case)
        self.drop()

    def drop(self) -> None:
        """Free the model."""
        if self._held is not None:
            self._held[1].unload()
        self._held = None
        self._tidy()

    def model(self, case: Case) -> WanModel:
        key = (case.model, case.placement.loading)
        if self._held is None or self._held[0] != key:
            self.drop()
            self._cap(None)
            began = time.monotonic()
            model = build(Catalog().get(case.model), self.device, case.placement.loading)
            print(
                f"[{self._now():6.1f}] built {case.model} {case.placement.loading} in {time.monotonic() - began:.1f} s"
            )
            self._held = (key, model)
        model = self._held[1]
        model.run_with(case.placement)
        return model

    def _run(self, case: Case) -> None:
        model = self.model(case)
        model.vacate()
        self._cap(case.cap)
        request = request_of(model.spec, case)
        for stage in case.stages:
            self._tidy()
            work: Callable[[], dict[str, float]] = {
                "encode": lambda: run_encode(model, request if case.whole else _short(request)),
                "text": lambda: run_encode(model, replace(request, mode="text")),
                "denoise": lambda: run_denoise(model, request, again=case.whole),
                "decode": lambda: run_decode(model, request, None if case.whole else DECODED),
            }[stage]
            try:
                values, seconds, allocated, reserved = self._measured(work)
                record = Record(
                    **_facts(case), stage=stage, seconds=seconds, allocated=allocated, reserved=reserved, values=values
                )
            except torch.OutOfMemoryError as error:
                record = Record(**_facts(case), stage=stage, failed=str(error).splitlines()[0][:160])
            model.vacate()
            self._add(record)

    def _measured(self, work: Callable[[], T]) -> tuple[T, float, int | None, int | None]:
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        began = time.monotonic()
        result = work()
        if not cuda:
            return result, time.monotonic() - began, None, None
        torch.cuda.synchronize()
        seconds = time.monotonic() - began
        return result, seconds, torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()

    def _tidy(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _cap(self, gib: float | None) -> None:
        if self.device.type == "cuda":
            total = torch.cuda.get_device_properties(self.device).total_memory
            torch.cuda.set_per_process_memory_fraction(1.0 if gib is None else gib * GIB / total)

    def _add(self, record: Record) -> None:
        self.records.append(record)
        peak = (
            f"{record.allocated / GIB:6.2f} ({record.reserved / GIB:6.2f}) GiB"
            if record.allocated and record.reserved
            else ""
        )
        what = f"{record.model} {record.width}x{record.height}x{record.frames}"
        plan = placement_of(record.placement | {"tile": None})
        tile = record.placement.get("tile") or {}
        values = " ".join(f"{name}={value:.3f}" for name, value in record.values.items())
        said = record.failed or f"{record.seconds or 0:7.2f} s {peak} {values}"
        print(
            f"[{self._now():6.1f}] {what} {plan} tile={tile.get('width')} cap={record.cap_gib} {record.stage}: {said}",
            flush=True,
        )
        if self.path is not None:
            facts = attention_facts(self.device).to_dict()
            self.path.write_text(json.dumps({"facts": facts, "records": [asdict(it) for it in self.records]}, indent=1))

    def note(self, case: Case, stage: str, values: dict[str, float]) -> None:
        """A record of something other than memory."""
        self._add(Record(**_facts(case), stage=stage, seconds=values.get("seconds"), values=values))

    def _now(self) -> float:
        return time.monotonic() - self._began


def _short(request: ResolvedRequest) -> ResolvedRequest:
    """Few frames: the VAE's peak is there with the third latent frame."""
    return replace(request, num_frames=min(request.num_frames, 17))


def run_encode(model: WanModel, request: ResolvedRequest) -> dict[str, float]:
    size = (request.width, request.height)
    first = Image.new("RGB", size, "teal") if request.mode != "text" else None
    last = Image.new("RGB", size, "navy") if request.mode == "first_last" else None
    encode(model, request, Pictures(first, last), CancelToken())
    return {}


def run_denoise(model: WanModel, request: ResolvedRequest, *, again: bool) -> dict[str, float]:
    """One forward of the first expert, or two of each with `again`, as `generation/denoise.py` feeds it."""
    conditioning = drawn_conditioning(model, request)
    latents = torch.randn(conditioning.shape, device=model.device)
    values: dict[str, float] = {}
    for number, expert in enumerate(model.experts if again else model.experts[:1]):
        for turn in range(2 if again else 1):
            began = time.monotonic()
            step = 900.0 if number == 0 else 300.0
            times = torch.tensor([step], device=model.device)
            if model.expand_timesteps:
                times = conditioning.token_timesteps(step, model.device)
            given = conditioning.apply(latents).to(expert.dtype)
            out = expert.predict(given, times, conditioning.text, conditioning.clip, CancelToken()).float()
            finite = bool(torch.isfinite(out).all())
            del out, given
            values[f"forward_{number}_{turn}"] = time.monotonic() - began
            if not finite:
                raise RuntimeError("not finite")
    return values


def run_decode(model: WanModel, request: ResolvedRequest, latent_frames: int | None) -> dict[str, float]:
    latents = torch.randn(latent_shape(model.spec, request), device=model.device)
    if latent_frames is not None:
        latents = latents[:, :, :latent_frames]
    began = time.monotonic()
    frames = sum(len(chunk) for chunk in decode(model, latents))
    return {"frames": frames, "seconds_per_frame": (time.monotonic() - began) / frames}


def drawn_conditioning(model: WanModel, request: ResolvedRequest) -> Conditioning:
    """Random tensors in the place of what the encoders give."""
    spec, device = model.spec, model.device
    shape = latent_shape(spec, request)
    picture = request.mode != "text"
    width = model.text_encoder.config.d_model
    text = torch.randn(1, spec.prompt_tokens, width, device=device, dtype=model.dtype)
    channels = first = clip = None
    if picture and spec.conditioning == "channels":
        channels = torch.randn(1, 4 + spec.latent_channels, *shape[2:], device=device)
    if picture and spec.conditioning == "first_frame":
        first = torch.randn(1, spec.latent_channels, 1, *shape[3:], device=device)
    if spec.clip:
        pictures = 2 if request.mode == "first_last" else 1
        real = known(spec)
        tokens, dim = (CLIP_TOKENS, CLIP_DIM) if real else (17, 32)
        clip = torch.randn(pictures, tokens, dim, device=device)
    return Conditioning(shape, text, None, channels=channels, first_frame=first, clip=clip)


def _facts(case: Case) -> dict[str, Any]:
    return {
        "model": case.model,
        "width": case.width,
        "height": case.height,
        "frames": case.frames,
        "placement": asdict(case.placement),
        "cap_gib": case.cap,
        "mode": case.mode,
    }


def quality(bench: Bench, case: Case, steps: int) -> None:
    """How far each way of storing weights takes one forward, and the latents after `steps` steps, from the plain run."""
    model = bench.model(case)
    blocks = model.experts[0].transformer.blocks
    request = replace(request_of(model.spec, case), num_inference_steps=steps, guidance_high=1.0, guidance_low=1.0)
    torch.manual_seed(0)
    conditioning = drawn_conditioning(model, request)

    def tried() -> tuple[Tensor, Tensor | None, float]:
        """One forward, final latents, seconds of the forward (the second one)."""
        latents = torch.randn(conditioning.shape, generator=torch.Generator().manual_seed(1)).to(model.device)
        times = torch.tensor([900.0], device=model.device)
        if model.expand_timesteps:
            times = conditioning.token_timesteps(900.0, model.device)
        given = conditioning.apply(latents).to(model.experts[0].dtype)
        seconds = math.inf
        out = given
        for _ in range(2):
            began = time.monotonic()
            out = (
                model.experts[0]
                .predict(given, times, conditioning.text, conditioning.clip, CancelToken())
                .float()
                .cpu()
            )
            seconds = min(seconds, time.monotonic() - began)
        final = None
        if steps:
            final = list(denoise(model, conditioning, request))[-1].latents.cpu()
        return out, final, seconds

    plain, final, seconds = tried()
    bench.note(case, "plain", {"seconds": seconds})
    for name, placement in (("rows", LEAN), ("feed_forward_rows", CHUNKED)):
        model.run_with(replace(case.placement, **placement))
        out, _, took = tried()
        bench.note(case, name, {"error": error(out, plain), "equal": float(torch.equal(out, plain)), "seconds": took})
    model.run_with(case.placement)
    for scheme in ("fp8", "int8", "int4"):
        originals = {name: part for name, part in blocks.named_modules() if isinstance(part, nn.Linear)}
        for name, stored in store_in(blocks, scheme).items():
            stored.store(originals[name].weight, model.device)
        out, latents, took = tried()
        values = {"error": error(out, plain), "seconds": took}
        if latents is not None and final is not None:
            values["error_of_latents"] = error(latents, final)
        bench.note(case, scheme, values)
        for name, linear in originals.items():
            owner, _, leaf = name.rpartition(".")
            setattr(blocks.get_submodule(owner), leaf, linear)


def error(out: Tensor, reference: Tensor) -> float:
    """‖out − reference‖ / ‖reference‖."""
    return float((out.double() - reference.double()).norm() / reference.double().norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="", help="calibrate, matrix, tiny, or a JSON file with a list of cases")
    parser.add_argument("--quality", default="", help="model:WIDTHxHEIGHTxFRAMES:STEPS, with commas between")
    parser.add_argument("--deadline", type=float, default=math.inf, help="start no case after this many seconds")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    bench = Bench(torch.device(options.device), options.json, options.deadline)
    for wanted in filter(None, options.quality.split(",")):
        name, size, steps = wanted.rsplit(":", 2)
        width, height, frames = map(int, size.split("x"))
        quality(bench, Case(name, width, height, frames), int(steps))
    if options.cases:
        named = options.cases in ("calibrate", "matrix", "tiny")
        bench.run(cases(options.cases) if named else read_cases(Path(options.cases)))
    bench.drop()


if __name__ == "__main__":
    main()
