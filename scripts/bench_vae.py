"""Measures the VAE on this GPU: precisions and their errors, encoding a picture's clip, writing the video beside it.

Random weights of the real shapes; rows are printed as they are found and written as JSON at the end.

    PYTHONPATH=src PYTORCH_ALLOC_CONF=expandable_segments:True python scripts/bench_vae.py --json vae.json
"""
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import argparse
import gc
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import bench_step
import torch
import torch.nn.functional as functional
from torch import Tensor

from wanreel.core.catalog import Catalog
from wanreel.core.vae_work import decode_operations, encode_operations
from wanreel.media.video import VideoFormat, VideoWriter
from wanreel.models.clock import timed
from wanreel.models.components import full_modules
from wanreel.models.random_weights import fill
from wanreel.models.tiny import build_tiny
from wanreel.models.vae.enlarge import enlarged, folded
from wanreel.models.vae.guarded import Finish, GuardedDecoder
from wanreel.models.vae.lean import LeanVae
from wanreel.models.vae.plain import PlainDecoder, frames_of
from wanreel.models.vae.steady import Steady, encoder_stages, lean_stages, moments

Chunks = Callable[[Finish], Iterator[Tensor]]
SIZES = {"480p": (832, 480, 81), "720p": (1280, 720, 81), "1080p": (1920, 1072, 81), "tiny": (32, 16, 9)}
_BEGAN = time.monotonic()
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="480p,720p,1080p")
    parser.add_argument("--budget", type=float, default=1e9, help="seconds after which nothing new is begun")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--parts",
        default="decode,encode,write",
        help="also: profile, what the kernels of one chunk take; upsample, enlarging at the decoder's shapes",
    )
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    rows: list[Row] = []
    torch.set_grad_enabled(False)
    for row in measured(chosen):
        rows.append(row | {"at": round(time.monotonic() - _BEGAN, 1)})
        print(json.dumps(rows[-1]), flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1))


def measured(chosen: argparse.Namespace) -> Iterator[Row]:
    device, spec, parts = torch.device(chosen.device), Catalog().get("i2v-a14b"), chosen.parts.split(",")
    with torch.device("meta"):
        vae = full_modules(spec)["vae"]
    if chosen.sizes == "tiny":
        vae = build_tiny(spec).vae
    else:
        fill(vae, torch.float32, device, device)
    for name in chosen.sizes.split(","):
        width, height, frames = SIZES[name]
        shape = (1, 16, (frames - 1) // 4 + 1, height // 8, width // 8)
        latents = torch.randn(shape, device=device, generator=torch.Generator(device).manual_seed(1))
        if "profile" in parts and device.type == "cuda":
            profile(vae, latents)
        for row in enlargings(vae, latents) if "upsample" in parts and device.type == "cuda" else ():
            yield row | {"size": name}
        work = decode_operations(spec, width, height, frames) / 1e12
        for row in decodings(vae, latents, name, chosen) if "decode" in parts else ():
            yield row | {"size": name, "tflops": round(work / row["seconds"], 1)}
        work = encode_operations(spec, width, height, frames) / 1e12
        for row in encodings(vae, (width, height, frames), chosen) if "encode" in parts else ():
            yield row | {"size": name, "tflops": round(work / row["seconds"], 1)}
    if "write" in parts and chosen.sizes != "tiny":
        yield from writing()


def decodings(vae: Any, latents: Tensor, size: str, chosen: argparse.Namespace) -> Iterator[Row]:
    """Reference first: fp32 without TF32, which Diffusers' is not by default. Times are those of 8-bit frames."""
    device = latents.device

    def plain(finish: Finish) -> Iterator[Tensor]:
        return (finish(chunk).to("cpu") for chunk in PlainDecoder(vae).chunks(latents))

    def lean(dtype: torch.dtype, step: int) -> Chunks:
        return lambda finish: GuardedDecoder(vae, finish, step, dtype).chunks(latents)

    torch.backends.cudnn.allow_tf32 = False
    truth = None if size == "1080p" else whole(plain)
    torch.backends.cudnn.allow_tf32 = True
    kinds: list[tuple[str, Chunks]] = [
        ("decode, lean fp16", lean(torch.float16, 1)),
        ("decode, lean fp16, cuDNN's benchmark", lean(torch.float16, 1)),
        ("decode, Diffusers fp32", plain),
        ("decode, lean fp16, 2 latent frames", lean(torch.float16, 2)),
        ("decode, lean bf16", lean(torch.bfloat16, 1)),
        ("decode, lean fp32", lean(torch.float32, 1)),
    ]
    for name, chunks in kinds[: 1 if size == "1080p" else None]:
        if time.monotonic() - _BEGAN < chosen.budget:
            torch.backends.cudnn.benchmark = "benchmark" in name
            yield decoding(name, device, chunks, truth)
            torch.backends.cudnn.benchmark = False


def enlargings(vae: Any, latents: Tensor) -> Iterator[Row]:
    """Each enlarging of one latent frame's decoding, in one step and in two."""
    frames, height, width = 1, *latents.shape[-2:]
    for place, block in enumerate(vae.decoder.up_blocks):
        if not block.upsamplers:
            continue
        sampler = block.upsamplers[0]
        frames *= 2 if sampler.mode == "upsample3d" else 1
        conv = sampler.resample[1]
        shape = (frames, conv.in_channels, height, width)
        given = torch.randn(shape, device=latents.device, dtype=torch.float16).to(memory_format=torch.channels_last)
        for steps in (1, 2):
            name = f"up{place}, {conv.in_channels} to {conv.out_channels}, steps: {steps}"
            yield {"name": name, "shape": shape} | enlarging(vae, conv, given, steps)
        height, width = 2 * height, 2 * width


def enlarging(vae: Any, conv: Any, given: Tensor, steps: int) -> Row:
    """The median of several, and the error of the first frame against fp32."""
    lean = LeanVae(vae, torch.float16)

    def work() -> Tensor:
        return enlarged(given, lean._weight(conv, folded)) if steps == 1 else plainly(given, lean._weight(conv))

    torch.backends.cudnn.allow_tf32 = False
    off = error(work()[:1], plainly(given[:1].float(), conv.weight))
    torch.backends.cudnn.allow_tf32 = True
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    took = bench_step.timed(work)
    peak = (torch.cuda.max_memory_allocated() - held) / 2**30
    return {"ms": round(took, 4), "error": off, "peak_gib": round(peak, 3)}


def plainly(pictures: Tensor, weight: Tensor) -> Tensor:
    wide = functional.interpolate(pictures, scale_factor=2.0, mode="nearest-exact")
    return functional.conv2d(wide, weight, padding=1)


def decoding(name: str, device: torch.device, chunks: Chunks, truth: Tensor | None) -> Row:
    """The first run warms up, and its pixels are compared."""
    gc.collect()
    off = {} if truth is None else {"error": error(whole(chunks), truth)}
    found = timed(device, lambda: sum(len(chunk) for chunk in chunks(frames_of)), 2 if truth is not None else 1)
    return row_of(name, found) | off


def whole(chunks: Chunks) -> Tensor:
    return torch.cat(list(chunks(lambda pixels: pixels.clamp(-1, 1).half())), dim=2)


def encodings(vae: Any, size: tuple[int, int, int], chosen: argparse.Namespace) -> Iterator[Row]:
    width, height, frames = size
    device = next(vae.parameters()).device
    video = torch.zeros(1, 3, frames, height, width, device=device)
    video[:, :, 0].uniform_(-1, 1)
    if time.monotonic() - _BEGAN > chosen.budget:
        return
    full = timed(device, lambda: vae.encode(video, return_dict=False)[0].mode())
    yield row_of("encode, Diffusers fp32", full)

    def steady(stages: Callable[[], Any], dtype: torch.dtype) -> Callable[[], tuple[Tensor, int]]:
        def work() -> tuple[Tensor, int]:
            encoder, cuts = Steady(stages()), [0, *range(1, frames + 1, 4)]
            parts = [moments(vae, encoder, video[:, :, a:b].to(dtype)) for a, b in itertools.pairwise(cuts)]
            return torch.cat(parts, dim=2), encoder.runs

        return work

    exact = timed(device, steady(lambda: encoder_stages(vae), torch.float32))
    found = vae.quant_conv(exact.value[0]).chunk(2, dim=1)[0]
    yield row_of("encode, nothing twice", exact) | {
        "equal": torch.equal(found, full.value),
        "error": error(found, full.value),
        "runs": exact.value[1],
        "of": 21 * len(encoder_stages(vae)),
    }
    work = steady(lambda: lean_stages(LeanVae(vae, torch.float16)), torch.float16)
    work()
    lean = timed(device, work)
    yield row_of("encode, nothing twice, lean fp16", lean) | {
        "error": error(lean.value[0].chunk(2, dim=1)[0], full.value),
        "runs": lean.value[1],
    }


def writing() -> Iterator[Row]:
    """The encoder alone, of moving soft noise."""
    import numpy as np
    from PIL import Image, ImageFilter

    rng = np.random.default_rng(0)
    rough = Image.fromarray(rng.integers(0, 255, (90, 160, 3), dtype=np.uint8)).resize((1280, 720))
    base = np.asarray(rough.filter(ImageFilter.GaussianBlur(3))).astype(np.int16)
    grain = rng.integers(-6, 7, base.shape).astype(np.int16)
    frames = np.stack(
        [np.clip(np.roll(base, (2 * i, 3 * i), (0, 1)) + np.roll(grain, 17 * i, 1), 0, 255) for i in range(81)]
    ).astype(np.uint8)
    with TemporaryDirectory() as folder:
        began = time.perf_counter()
        with VideoWriter(Path(folder) / "a.mp4", VideoFormat(1280, 720, 16)) as writer:
            writer.write(frames)
        yield {"name": "writing an MP4", "size": "720p", "seconds": time.perf_counter() - began}


def row_of(name: str, found: Any) -> Row:
    return {"name": name, "seconds": round(found.seconds, 4), "peak_gib": found.peak_gib}


def error(found: Tensor, truth: Tensor) -> float:
    return float((found.float() - truth.float()).norm() / truth.float().norm())


def profile(vae: Any, latents: Tensor) -> None:
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    lean, memory = LeanVae(vae, torch.float16), dict[Any, Tensor]()
    for start in range(3):
        lean.decode(latents[:, :, start : start + 1], memory, first=start == 0)
    torch.cuda.synchronize()
    with profiled(activities=[ProfilerActivity.CUDA]) as found:
        lean.decode(latents[:, :, 3:4], memory, first=False)
        torch.cuda.synchronize()
    print(found.key_averages().table(sort_by="cuda_time_total", row_limit=16, max_name_column_width=70))


if __name__ == "__main__":
    main()
