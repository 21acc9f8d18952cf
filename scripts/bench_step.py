r"""Measures the denoise step on this GPU: exact, compiled, fp8, by each attention kernel, against Diffusers in the same run.

Random weights of the real shapes. Every row is printed as it is found, and all of them written as JSON at the end.

    PYTHONPATH=src TORCHINDUCTOR_CACHE_DIR=… PYTORCH_ALLOC_CONF=expandable_segments:True \
    python scripts/bench_step.py --parts 480p,720p --json step.json

Parts: kernels (attention alone, and its error), 480p (I2V-14B), 720p (one expert of I2V-A14B), errors (with outlying
channels), profile (by kernel), ratios (20 sizes, counting compilations), latents (8 steps of T2V-1.3B, exact against fast), warm (compiles
again in a new process: the cache).
"""
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false

from __future__ import annotations

import argparse
import json
import platform
import random
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import Catalog
from wanreel.core.compute import EXACT_END
from wanreel.core.workload import Workload
from wanreel.models.eight import wide
from wanreel.models.quantize import quantize, stored_of
from wanreel.models.step.choice import Shape, milliseconds
from wanreel.models.step.kernels import KERNELS, attend_of, torch_attend, usable
from wanreel.models.step.path import Compiler, Manner, StepPath
from wanreel.models.step_bench import (
    FAST,
    FLOOR_RATE,
    Variant,
    bench_step,
    error_of,
    given_for,
    random_expert,
    variants,
)

Row = dict[str, Any]
_BEGAN = time.monotonic()


class Bench:
    """What is common to all parts."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.chosen, self.rows = chosen, list[Row]()
        self.exact = [it.name for it in usable(self.device, "exact") if it.name != "cudnn"]
        self.rounded = [it.name for it in usable(self.device, "rounded")]

    def add(self, part: str, **row: Any) -> None:
        self.rows.append({"part": part, **row})
        shown = " ".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in row.items()
        )
        print(f"[{time.monotonic() - _BEGAN:6.1f}] {part}: {shown}", flush=True)
        if self.chosen.json:
            Path(self.chosen.json).write_text(json.dumps({"machine": machine(), "rows": self.rows}, indent=1))

    def left(self, seconds: float) -> bool:
        return self.chosen.budget - (time.monotonic() - _BEGAN) > seconds


def machine() -> Row:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    packages = {it.package: it.version for it in KERNELS if it.version}
    return {"gpu": gpu, "torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
            "python": platform.python_version(), "packages": packages, "floor_tflops": FLOOR_RATE / 1e12}  # fmt: skip


def kernels(bench: Bench) -> None:
    """Milliseconds of attention alone (fp8 ones quantise without being compiled), and what each kernel rounds."""
    for kernel in (*usable(bench.device, "exact"), *usable(bench.device, "rounded")):
        for tokens in (32_760, 75_600):
            try:
                bench.add(
                    "kernels",
                    kernel=kernel.name,
                    tokens=tokens,
                    ms=milliseconds(kernel, Shape(40, 128, tokens), bench.device),
                )
            except Exception as error:  # noqa: BLE001 - a row that fails costs no other
                traceback.print_exc()
                bench.add("kernels", kernel=kernel.name, tokens=tokens, failed=f"{type(error).__name__}: {error}"[:300])
                break
    for name in ("plain", "outliers"):
        query, key, value = attention_inputs(bench.device, outliers=name == "outliers")
        wanted = torch_attend(query.float(), key.float(), value.float())
        for kernel in usable(bench.device, "rounded"):
            try:
                found = wide(attend_of(kernel.name)(query, key, value), torch.float32)
                bench.add("kernels", kernel=kernel.name, given=name, error=error_of(found, wanted))
            except Exception as error:  # noqa: BLE001 - a row that fails costs no other
                bench.add("kernels", kernel=kernel.name, given=name, failed=f"{error}"[:200])
    fused_projection(bench)


def attention_inputs(device: torch.device, *, outliers: bool) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator(device).manual_seed(3)
    query, key, value = (torch.randn(1, 4096, 8, 128, device=device, generator=generator) for _ in range(3))
    query, key = 1.5 * query, 1.5 * key
    if outliers:
        key[..., 5] += 12
        key[..., 77] -= 9
        query[..., 5] *= 3
    return tuple(it.bfloat16() for it in (query, key, value))


def fused_projection(bench: Bench) -> None:
    """Whether one matrix for queries, keys and values is faster than three."""
    dim = 5120
    given = torch.randn(32_760, dim, device=bench.device, dtype=torch.bfloat16)
    parts = [torch.randn(dim, dim, device=bench.device, dtype=torch.bfloat16) for _ in range(3)]
    whole = torch.cat(parts)
    for name, call in (
        ("three", lambda: [F.linear(given, part) for part in parts]),
        ("one", lambda: F.linear(given, whole)),
    ):
        bench.add("kernels", projection=name, ms=timed(call))


def timed(call: Callable[[], Any]) -> float:
    times: list[float] = []
    for _ in range(4):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        call()
        ended.record()
        ended.synchronize()
        times.append(began.elapsed_time(ended))
    return sorted(times[1:])[1]


def steps(bench: Bench, part: str, work: Workload, wanted: tuple[Variant, ...], **options: Any) -> None:
    for row in bench_step(work, bench.device, wanted, **options):
        bench.add(part, **row.to_dict())
        if not bench.left(30):
            return


def at_480p(bench: Bench) -> None:
    steps(bench, "480p", work_of("i2v-14b-480p", 832, 480), wanted(bench))


def at_720p(bench: Bench) -> None:
    steps(bench, "720p", work_of("i2v-a14b", 1280, 720), wanted(bench), timed=1)


def wanted(bench: Bench) -> tuple[Variant, ...]:
    """Without fp8 matrices alone, and without our own kernel where there is a faster one."""
    rounded = [name for name in bench.rounded if name != "triton-fp8"] or bench.rounded
    return tuple(it for it in variants(bench.exact, rounded) if it.name != "fp8 matrices")


def errors(bench: Bench) -> None:
    """One forward with outlying channels and latents like a video's."""
    rounded = bench.rounded[:2]
    steps(bench, "errors", work_of("i2v-14b-480p", 832, 480), variants(["torch"], rounded), realistic=True, timed=1)


def work_of(name: str, width: int, height: int, frames: int = 81) -> Workload:
    spec = Catalog().get(name)
    return Workload(spec, width, height, frames, spec.steps, 2, int(spec.conditioning == "channels"))


def ratios(bench: Bench) -> None:
    """20 sizes with one compiled block, and what a symbol for the tokens costs against a number."""
    work = work_of("t2v-1.3b", 832, 480)
    expert, draw = random_expert(work.spec, bench.device), random.Random(0)
    compiler = Compiler()
    expert.step = StepPath(expert, Manner("torch", "torch"), compiler)
    began = time.monotonic()
    for _ in range(20):
        width, height = 16 * draw.randint(16, 80), 16 * draw.randint(16, 80)
        run(expert, given_for(work.spec, replace(work, width=width, height=height, frames=5), expert))
    bench.add(
        "ratios", sizes=20, compilations=compiler.compilations, seconds=time.monotonic() - began, note=compiler.failure
    )
    given = given_for(work.spec, work, expert)
    for name, options in (("symbol", {}), ("number", {"dynamic": False})):
        if options:
            expert.step = StepPath(expert, Manner("torch", "torch"), fixed())
        run(expert, given)
        bench.add("ratios", tokens=name, seconds=min(run(expert, given) for _ in range(3)))
    expert.unload()


class fixed(Compiler):
    """Compiles for one number of tokens."""

    @property
    def run(self) -> Any:
        if self._run is None:
            from wanreel.models.step.block import step_block

            compiled = torch.compile(step_block, fullgraph=True, dynamic=False)

            def call(block: Any, hidden: torch.Tensor, keys: Any, modulation: torch.Tensor, turn: Any, way: Any) -> Any:
                for tensor in (hidden, turn.cosine, turn.sine):
                    vars(tensor).pop("_dynamo_dynamic_indices", None)
                return compiled(block, hidden, keys, modulation, turn, way)

            self._run = call
        return self._run


def run(expert: Any, given: Any, text: int = 0) -> float:
    torch.cuda.synchronize()
    began = time.monotonic()
    expert.predict(given.latents, given.timestep, given.texts[text], given.image, CancelToken())
    torch.cuda.synchronize()
    return time.monotonic() - began


def latents(bench: Bench) -> None:
    """Final latents after 8 guided Euler steps, by each manner against Diffusers' own arithmetic."""
    work = work_of("t2v-1.3b", 832, 480)
    for realistic in (False, True):
        expert = random_expert(work.spec, bench.device, outliers=realistic)
        given = given_for(work.spec, work, expert, smooth=realistic)
        wanted: torch.Tensor | None = None
        for name, manner in manners(bench):
            if name == "fast":
                quantize(stored_of(expert.transformer.blocks, FAST), "fp8")
            expert.step = None if manner is None else StepPath(expert, manner)
            found = denoised(expert, given)
            wanted = found if wanted is None else wanted
            bench.add("latents", manner=name, realistic=realistic, error=error_of(found, wanted))
        expert.unload()


def manners(bench: Bench) -> Iterator[tuple[str, Manner | None]]:
    yield "diffusers", None
    yield "exact", Manner("torch", "torch")
    yield "fast", Manner(bench.rounded[0], "torch", end=EXACT_END, eight=True)


@torch.no_grad()
def denoised(expert: Any, given: Any) -> torch.Tensor:
    shift, count, latents = 3.0, 8, given.latents.float()
    sigmas = [shift * s / (1 + (shift - 1) * s) for s in (1 - number / count for number in range(count + 1))]
    for now, then in zip(sigmas, sigmas[1:], strict=False):
        at = torch.tensor([1000 * now], device=latents.device)
        with_text, without = (
            expert.predict(latents.to(expert.dtype), at, text, None, CancelToken()).float() for text in given.texts
        )
        latents = latents + (then - now) * (without + 5.0 * (with_text - without))
    return latents


def warm(bench: Bench) -> None:
    """What a new process needs for its first compiled forward, with what this one kept and without."""
    command = [sys.executable, __file__, "--parts", "first"]
    for name in ("kept", "kept again"):
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = [line for line in done.stdout.splitlines() if " first: " in line] or done.stderr.splitlines()[-3:]
        bench.add("warm", cache=name, process_seconds=time.monotonic() - began, said=" ".join(found)[:300])


def first(bench: Bench) -> None:
    work = work_of("i2v-14b-480p", 832, 480)
    for row in bench_step(work, bench.device, variants(["torch"], ())[1:2], timed=1):
        from torch._dynamo.utils import counters

        misses = counters["inductor"]["fxgraph_cache_miss"]
        bench.add(
            "first",
            first_seconds=row.first_seconds,
            step=row.seconds,
            hits=counters["inductor"]["fxgraph_cache_hit"],
            misses=misses,
        )


def profile(bench: Bench) -> None:
    """Where the time of a forward goes, by kernel: milliseconds of one block."""
    profiled(bench, wanted(bench))


def profiled(bench: Bench, variants: Sequence[Variant]) -> None:
    """Of those that are computed on this path. Weights in fp8 have to come last."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recording

    work = work_of("i2v-14b-480p", 832, 480)
    expert = random_expert(work.spec, bench.device)
    given, blocks = given_for(work.spec, work, expert), len(expert.transformer.blocks)
    for variant in variants:
        if variant.manner is None:
            continue
        if variant.eight and not any("packed" in name for name, _ in expert.transformer.named_buffers()):
            quantize(stored_of(expert.transformer.blocks, FAST), "fp8")
        expert.step = StepPath(expert, variant.manner, Compiler())
        run(expert, given)
        with recording(activities=[ProfilerActivity.CUDA]) as recorded:
            run(expert, given)
        averages: Any = recorded.key_averages()
        found: list[tuple[float, int, str]] = [
            (it.self_device_time_total / 1e3 / blocks, it.count, it.key) for it in averages
        ]
        for taken, count, name in sorted(found, reverse=True)[:24]:
            bench.add("profile", variant=variant.name, ms=taken, calls=count / blocks, kernel=name[:110])
        bench.add("profile", variant=variant.name, ms=sum(it[0] for it in found), kernel="all")
    expert.unload()


PARTS: dict[str, Callable[[Bench], None]] = {
    "kernels": kernels, "480p": at_480p, "720p": at_720p, "errors": errors, "ratios": ratios, "latents": latents, "profile": profile,
    "warm": warm, "first": first,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="kernels,480p,720p,errors,ratios,latents,warm")
    parser.add_argument("--json", default="")
    parser.add_argument("--budget", type=float, default=1e9, help="seconds after which no part is begun")
    chosen = parser.parse_args()
    bench = Bench(chosen)
    print(machine(), bench.exact, bench.rounded, flush=True)
    for part in chosen.parts.split(","):
        if not bench.left(20):
            bench.add(part, left_out="no time left")
            continue
        try:
            PARTS[part](bench)
        except Exception as error:  # noqa: BLE001 - a row that fails costs no other
            traceback.print_exc()
            bench.add(part, failed=f"{type(error).__name__}: {error}"[:400])
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
