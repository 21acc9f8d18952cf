"""Ours beside Diffusers' group offload: one transformer of the real size, random weights, everything in one process.

First the resident run, then the planner's plans under caps on the process's GPU memory, then Diffusers' block level
offload with a stream over the same weights in the same page-locked memory. Outputs are compared with the resident ones.
Further sections: what a first forward costs over later ones, and compiled blocks. A JSON line as each is known.

    PYTHONPATH=src PYTORCH_ALLOC_CONF=expandable_segments:True python -u scripts/bench_offload.py --json-lines out.jsonl
"""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from bench_cases import GIB, Case, h200, request_of
from bench_memory import error
from bench_weights import build_rope
from diffusers.hooks.group_offloading import apply_group_offloading
from diffusers.hooks.hooks import HookRegistry
from torch import Tensor

from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import Catalog, ModelSpec
from wanreel.core.components import PATCH, TEXT_DIM, in_channels, known
from wanreel.core.memory import plan_memory
from wanreel.core.workload import Workload
from wanreel.models.attention import attention_facts
from wanreel.models.components import full_modules
from wanreel.models.expert import Expert
from wanreel.models.lean import Rows
from wanreel.models.offload import BlockStream, tensors_of
from wanreel.models.random_weights import fill
from wanreel.models.tiny import build_tiny

HOOKS = ("group_offloading", "layer_execution_tracker", "lazy_prefetch_group_offloading")
TINY_TEXT = 32


@dataclass
class Bench:
    """One transformer, its inputs, and where figures go."""

    spec: ModelSpec
    device: torch.device
    path: Path | None
    deadline: float
    began: float = field(default_factory=time.monotonic)
    transformer: Any = None
    reference: Tensor | None = None

    @property
    def now(self) -> float:
        return time.monotonic() - self.began

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    def note(self, what: str, **values: Any) -> None:
        record = {"what": what, "model": self.spec.name, "at": round(self.now, 1), **values}
        print(json.dumps(record), flush=True)
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(record) + "\n")

    def build(self) -> None:
        """Random weights, on the device."""
        if not known(self.spec):
            self.transformer = build_tiny(self.spec, device=self.device).experts[0].transformer
            return
        with torch.device("meta"):
            self.transformer = full_modules(self.spec)["transformer"]
        rope = build_rope(self.transformer)
        fill(self.transformer, torch.bfloat16, self.device, self.device)
        self.transformer.rope = rope.to(self.device)
        self.sync()
        self.note("built", seconds=self.now)

    def inputs(self, case: Case, *, per_token: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Latents with their picture channels, timestep, text; drawn on the device from a fixed seed."""
        spec, real = self.spec, known(self.spec)
        generator = torch.Generator(self.device).manual_seed(0)
        dtype = self.transformer.patch_embedding.weight.dtype
        frames, side = spec.latent_frames(case.frames), spec.spatial_stride
        height, width = case.height // side, case.width // side
        shape = (1, in_channels(spec), frames, height, width)
        latents = torch.randn(shape, generator=generator, device=self.device).to(dtype)
        text_shape = (1, spec.prompt_tokens, TEXT_DIM if real else TINY_TEXT)
        text = torch.randn(text_shape, generator=generator, device=self.device).to(dtype)
        times = torch.tensor([900.0], device=self.device)
        if per_token:
            tokens = frames * (height // PATCH) * (width // PATCH)
            times = torch.full((1, tokens), 900.0, device=self.device)
            times[:, : tokens // frames] = 0.0
        return latents, times, text

    def sync(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def cap(self, gib: float | None) -> None:
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
            total = torch.cuda.get_device_properties(self.device).total_memory
            torch.cuda.set_per_process_memory_fraction(1.0 if gib is None else gib * GIB / total)

    def timed(self, what: str, forward: Callable[[], Tensor], times: int, **facts: Any) -> Tensor | None:
        """Run it so many times; notes seconds, peaks and how far the result is from the reference."""
        if self.now > self.deadline:
            self.note(what, failed="not run: out of time", **facts)
            return None
        self.sync()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        seconds: list[float] = []
        out, failed = None, ""
        for _ in range(times):
            try:
                began = time.monotonic()
                with torch.no_grad():
                    out = forward()
                self.sync()
                seconds.append(round(time.monotonic() - began, 4))
            except RuntimeError as fault:  # out of memory, or what follows from it
                failed = f"{type(fault).__name__}: {str(fault).splitlines()[0][:160]}"
                out = None
                break
        if self.cuda:
            facts |= {"allocated": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}
        if out is not None and self.reference is not None and out.shape == self.reference.shape:
            facts |= {"equal": bool(torch.equal(out, self.reference)), "error": error(out, self.reference)}
        if out is not None and not bool(torch.isfinite(out).all()):
            failed = "not finite"
        self.note(what, seconds=seconds, **({"failed": failed} if failed else {}), **facts)
        return out


def offloading(bench: Bench, case: Case, caps: list[float]) -> None:
    """Resident, ours under each cap, Diffusers' without a cap and under each."""
    given = bench.inputs(case)
    size = f"{case.width}x{case.height}x{case.frames}"
    expert = Expert(bench.transformer, None, bench.device)
    bench.reference = bench.timed("resident", lambda: _predicted(expert, given), 2, size=size)
    began = time.monotonic()
    blocks = list(bench.transformer.blocks)
    inside = {id(tensor) for block in blocks for tensor in tensors_of(block)}
    for tensor in tensors_of(bench.transformer):
        if id(tensor) not in inside:
            tensor.data = tensor.data.cpu()
    stream = BlockStream(blocks, bench.device, pinned=True)
    homes = [(tensor, tensor.data) for tensor in tensors_of(bench.transformer)]
    bench.sync()
    bench.note("page-locked", seconds=time.monotonic() - began, pinned_bytes=stream.pinned_bytes)
    for number, cap in enumerate(caps):
        expert = Expert(bench.transformer, stream, bench.device)
        plan = plan_memory(Workload.of(bench.spec, request_of(bench.spec, case)), h200(cap)) if bench.cuda else None
        placement = plan.placement if plan is not None else None
        expert.rows = Rows(placement.rows) if placement is not None and placement.rows else None
        bench.cap(cap)
        expert.guest.enter()
        facts = {"size": size, "cap_gib": cap, "plan": str(placement), "streamed_bytes": stream.device_bytes}
        bench.timed("ours", lambda expert=expert: _predicted(expert, given), 1 if number else 2, **facts)
        expert.guest.leave()
    for cap in (None, *reversed(caps)):
        bench.cap(cap)
        _restore(homes)
        try:
            _group_offload(bench)
        except RuntimeError as fault:
            bench.note("diffusers", failed=f"{type(fault).__name__}: {fault}"[:200], size=size, cap_gib=cap)
            continue
        bench.timed("diffusers", lambda: _plain(bench, given), 2, size=size, cap_gib=cap)
        _remove_hooks(bench)
    bench.cap(None)
    _restore(homes)
    stream.leave()


def compiled(bench: Bench, case: Case) -> None:
    """Blocks as they are, ours and Diffusers', and compiled; everything on the device."""
    for tensor in tensors_of(bench.transformer):
        tensor.data = tensor.data.to(bench.device)
    bench.cap(None)
    given, size = bench.inputs(case), f"{case.width}x{case.height}x{case.frames}"
    expert = Expert(bench.transformer, None, bench.device)
    bench.reference = None
    bench.reference = bench.timed("ours, resident", lambda: _predicted(expert, given), 2, size=size)
    fast = Expert(bench.transformer, None, bench.device)
    fast.compile_blocks(dynamic=False)
    bench.timed("ours, compiled blocks", lambda: _predicted(fast, given), 3, size=size)
    bench.timed("diffusers, resident", lambda: _plain(bench, given), 2, size=size)
    lean = Expert(bench.transformer, None, bench.device)
    lean.rows = Rows(8192)
    bench.timed("ours, rows of 8192", lambda: _predicted(lean, given), 2, size=size)


def first_forwards(bench: Bench, case: Case) -> None:
    """What the first forward of a size costs over later ones."""
    given = bench.inputs(case, per_token=True)
    expert = Expert(bench.transformer, None, bench.device)
    size = f"{case.width}x{case.height}x{case.frames}"
    bench.timed("first and later forwards, picture", lambda: _predicted(expert, given), 4, size=size)


def _predicted(expert: Expert, given: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    latents, times, text = given
    return expert.predict(latents, times, text, None, CancelToken()).float()


def _plain(bench: Bench, given: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    latents, times, text = given
    return bench.transformer(latents, times, text, return_dict=False)[0].float()


def _group_offload(bench: Bench) -> None:
    """As Diffusers' documentation advises for speed."""
    apply_group_offloading(
        bench.transformer,
        onload_device=bench.device,
        offload_device=torch.device("cpu"),
        offload_type="block_level",
        num_blocks_per_group=1,
        use_stream=bench.cuda,
        non_blocking=bench.cuda,
    )


def _remove_hooks(bench: Bench) -> None:
    registry = HookRegistry.check_if_exists_or_initialize(bench.transformer)
    for name in HOOKS:
        registry.remove_hook(name, recurse=True)


def _restore(homes: list[tuple[Tensor, Tensor]]) -> None:
    for tensor, home in homes:
        tensor.data = home


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", default="offload,first,compile")
    parser.add_argument("--deadline", type=float, default=1e9, help="start nothing after this many seconds")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="for trying this script without a GPU")
    parser.add_argument("--json-lines", type=Path)
    options = parser.parse_args()
    device, wanted = torch.device(options.device), options.sections.split(",")
    names = {name: f"tiny:{name}" if options.tiny else name for name in ("i2v-a14b", "ti2v-5b")}
    bench = Bench(Catalog().get(names["i2v-a14b"]), device, options.json_lines, options.deadline)
    bench.note("facts", **attention_facts(device).to_dict())
    large, small = ((128, 128, 9), (64, 64, 9)) if options.tiny else ((1280, 720, 81), (832, 480, 81))
    if "first" in wanted:
        other = replace(bench, spec=Catalog().get(names["ti2v-5b"]), transformer=None)
        other.build()
        first_forwards(other, Case(other.spec.name, *small))
        other.transformer.to("meta")
    bench.build()
    if "offload" in wanted:
        offloading(bench, Case(bench.spec.name, *large), [7.0, 11.0])
    if "compile" in wanted:
        compiled(bench, Case(bench.spec.name, *small))


if __name__ == "__main__":
    main()
