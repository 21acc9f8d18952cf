"""Runs catalogue rows end to end at their default sizes with random weights of the real shapes, and prints a table.

No weights are needed: random bf16 ones are made on the GPU, so times and memory are those of the real model and the
pictures are noise. Encode, denoise (a few steps) and decode are the product's own.

    PYTHONPATH=src python scripts/bench_rows.py --rows all --json rows.json
    PYTHONPATH=src python scripts/bench_rows.py --rows i2v-a14b --limit-gib 24 --json rows24.json

With --limit-gib the process takes no more GPU memory than such a card has, and the placement is the one chosen for it.
"""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import argparse
import gc
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch
from bench_weights import build
from PIL import Image
from torch import Tensor

from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import Catalog, ModelSpec
from wanreel.core.machines import GIB
from wanreel.core.resolved import ResolvedRequest
from wanreel.generation.decode import decode
from wanreel.generation.denoise import denoise
from wanreel.generation.encode import Pictures, encode
from wanreel.models.attention import attention_facts
from wanreel.models.components import TRANSFORMER_SIZES
from wanreel.models.machine import machine_now
from wanreel.models.planning import Planner

T = TypeVar("T")
CARD_CONTEXT = 0.5 * GIB  # of a card's memory, taken by the CUDA context and out of reach
PROMPT = "A cat walks on the grass, realistic style."


@dataclass(frozen=True)
class Row:
    """What was measured of one catalogue row."""

    model: str
    mode: str
    width: int
    height: int
    num_frames: int
    guided: bool  #: two passes a step
    plan: str
    vae_tiling: bool
    steps: int
    build_s: float
    encode_s: float
    first_step_s: float
    step_s: float  #: of the last step
    decode_s: float
    encode_peak_gib: float
    denoise_peak_gib: float
    decode_peak_gib: float
    reserved_gib: float  #: most that the allocator held
    limit_gib: float | None

    def line(self) -> str:
        size = f"{self.width}x{self.height}x{self.num_frames}"
        plan = self.plan + (", tiles" if self.vae_tiling else "")
        return (
            f"| {self.model} | {self.mode} | {size} | {plan} | {'2' if self.guided else '1'} | {self.step_s:.2f} | "
            f"{self.denoise_peak_gib:.1f} | {self.encode_s:.2f} | {self.decode_s:.2f} | {self.decode_peak_gib:.1f} |"
        )


HEADER = (
    "| model | mode | size | plan | passes | s/step | peak GiB | encode s | decode s | decode peak GiB |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    options = _options()
    began = time.monotonic()
    device = torch.device("cuda")
    if options.limit_gib:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction((options.limit_gib * GIB - CARD_CONTEXT) / total)
    rows: list[Row] = []
    failures: dict[str, str] = {}
    print(json.dumps(attention_facts(device).to_dict()), HEADER, sep="\n", flush=True)
    for spec in _specs(options.rows):
        if time.monotonic() - began > options.deadline:
            failures[spec.name] = "not run: out of time"
            continue
        try:
            row = _measure(spec, device, options)
        except torch.OutOfMemoryError as error:
            failures[spec.name] = f"out of memory: {error}"
            print(f"| {spec.name} | {failures[spec.name][:100]} |", flush=True)
            continue
        finally:
            gc.collect()
            torch.cuda.empty_cache()
        rows.append(row)
        print(row.line(), f"<!-- {time.monotonic() - began:.0f} s -->", flush=True)
        _save(options.json, rows, failures, device)
    _save(options.json, rows, failures, device)
    print(json.dumps(failures))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="all", help="names from the catalogue, with commas between, or all")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--limit-gib", type=float, help="behave as on a card of this size")
    parser.add_argument("--resolution", help="480P, 720P or 1080P instead of the row's default")
    parser.add_argument("--deadline", type=float, default=math.inf, help="start no row after this many seconds")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _specs(names: str) -> Iterator[ModelSpec]:
    """In the order given; the demo is left out of "all"."""
    if names != "all":
        yield from map(Catalog().get, names.split(","))
        return
    yield from (spec for spec in Catalog() if spec.parameters in TRANSFORMER_SIZES)


def _measure(spec: ModelSpec, device: torch.device, options: argparse.Namespace) -> Row:
    placement = Planner(lambda: machine_now(device)).default(spec).placement
    model, build_s, _ = _measured(lambda: build(spec, device, placement))
    request, pictures = _request(spec, options)
    token = CancelToken()
    conditioning, encode_s, encode_peak = _measured(lambda: encode(model, request, pictures, token))
    states = denoise(model, conditioning, request)
    seconds: list[float] = []
    peaks: list[float] = []
    latents: Tensor | None = None
    for _ in range(request.num_inference_steps):
        state, step_s, peak = _measured(lambda: next(states))
        seconds.append(step_s)
        peaks.append(peak)
        latents = state.latents
    assert latents is not None
    frames, decode_s, decode_peak = _measured(lambda: sum(len(chunk) for chunk in decode(model, latents)))
    if frames != request.num_frames:
        raise RuntimeError(f"{spec.name}: {frames} frames instead of {request.num_frames}")
    reserved = torch.cuda.max_memory_reserved() / GIB
    plan, tiling = str(model.placement), model.placement.tile is not None
    model.unload()
    return Row(
        model=spec.name,
        mode=request.mode,
        width=request.width,
        height=request.height,
        num_frames=request.num_frames,
        guided=conditioning.negative is not None,
        plan=plan,
        vae_tiling=tiling,
        steps=request.num_inference_steps,
        build_s=build_s,
        encode_s=encode_s,
        first_step_s=seconds[0],
        step_s=seconds[-1],
        decode_s=decode_s,
        encode_peak_gib=encode_peak,
        denoise_peak_gib=max(peaks),
        decode_peak_gib=decode_peak,
        reserved_gib=reserved,
        limit_gib=options.limit_gib,
    )


def _measured(work: Callable[[], T]) -> tuple[T, float, float]:
    """Result, seconds, peak of allocated GiB."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    began = time.monotonic()
    result = work()
    torch.cuda.synchronize()
    return result, time.monotonic() - began, torch.cuda.max_memory_allocated() / GIB


def _request(spec: ModelSpec, options: argparse.Namespace) -> tuple[ResolvedRequest, Pictures]:
    """The row's recipe at its default size; only the number of steps is smaller."""
    size = spec.sizes[options.resolution or spec.default_resolution]
    width, height = (-(-side // spec.size_multiple) * spec.size_multiple for side in (size.width, size.height))
    mode = spec.modes[0]
    pictures = Pictures()
    if mode != "text":
        last = Image.new("RGB", (width, height), "navy") if mode == "first_last" else None
        pictures = Pictures(Image.new("RGB", (width, height), "teal"), last)
    return ResolvedRequest(
        prompt=PROMPT,
        negative_prompt="blurry",
        model=spec.name,
        mode=mode,
        image=None,
        last_image=None,
        width=width,
        height=height,
        export_width=width,
        export_height=height,
        num_frames=spec.num_frames,
        fps=spec.fps,
        num_inference_steps=spec.steps if spec.few_step else options.steps,
        guidance_high=spec.guidance_high,
        guidance_low=spec.guidance_low,
        flow_shift=size.flow_shift,
        solver=spec.solver,
        seed=0,
        loras=(),
        output_format="mp4",
        quality="high",
        metadata=False,
    ), pictures


def _save(path: Path | None, rows: list[Row], failures: dict[str, str], device: torch.device) -> None:
    if path is None:
        return
    facts = attention_facts(device).to_dict()
    path.write_text(json.dumps({"facts": facts, "rows": [asdict(row) for row in rows], "failures": failures}, indent=1))


if __name__ == "__main__":
    main()
