r"""What fp8 and left-out steps do to trained weights: the built-in demo model, on a GPU by its real kernels, on a CPU emulated.

    PYTHONPATH=src python scripts/bench_trained.py --json trained.json

Relative errors (L2) against exact: of single forwards along the way of an exact run, and of the final latents of whole runs.
Where there is no GPU, attention rounds what cuDNN's rounds but the probabilities, and matrices are those of fp8 numbers
multiplied in fp32; it is never run so.
"""
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from bench_step import Bench
from torch import Tensor

from wanreel import demo
from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import Catalog
from wanreel.core.placement import Placement
from wanreel.core.request import VideoRequest
from wanreel.core.resolve import Defaults, resolve
from wanreel.core.resolved import ResolvedRequest
from wanreel.generation.conditioning import Conditioning
from wanreel.generation.denoise import denoise
from wanreel.generation.encode import Pictures, encode
from wanreel.models.load import load_model
from wanreel.models.step import kernels
from wanreel.models.step.kernels import Eighths, Kernel, emulated_eight
from wanreel.models.step.own import has_own
from wanreel.models.step.path import Manner, StepPath
from wanreel.models.step_bench import error_of
from wanreel.models.wan_model import WanModel

PROMPTS = ("a red ball bounces", "a blue square turns over a green background")
EVERY = 3  #: of the forwards of an exact run, so many-th is computed again


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--runs", type=int, default=2, help="prompts and seeds")
    parser.add_argument("--ends", default="1,0", help="last blocks whose attention stays exact")
    parser.add_argument("--json", default="")
    chosen = parser.parse_args()
    torch.set_grad_enabled(False)
    bench = Bench(chosen)
    for number in range(chosen.runs):
        measure(bench, number)


def measure(bench: Bench, number: int) -> None:
    request = asked(number, bench.chosen.steps)
    model, fast = opened(bench, Placement()), opened(bench, Placement(precision="fp8", compute="fast"))
    conditioning = encode(model, request, Pictures(), CancelToken())
    calls, velocities = list[Any](), list[Tensor]()
    wanted, exact = run(model, conditioning, request, recorder(model, calls, velocities))
    turbo, seconds = run(model, conditioning, replace(request, compute="turbo"))
    bench.add("trained", run=number, manner="exact", seconds=exact)
    told(bench, number, "exact, turbo", turbo, wanted, seconds)
    for name, manner in manners(bench):
        path: Any = StepPath(fast.experts[0], manner)
        fast.experts[0].step = path
        again = [
            error_of(path.forward(*call, lambda: None).float(), velocity)
            for call, velocity in list(zip(calls, velocities, strict=True))[::EVERY]
        ]
        row = {"mean": statistics.mean(again), "largest": max(again), "last": again[-1], "forwards": len(again)}
        bench.add("trained", run=number, manner=name, **row)
        for compute in ("fast", "turbo"):
            done, seconds = run(fast, conditioning, replace(request, compute=compute))
            told(bench, number, f"{name}, {compute}", done, wanted, seconds)


def told(bench: Bench, number: int, name: str, done: Any, wanted: Any, seconds: float) -> None:
    left_out = done.savings.scalars.get("left_out", 0)
    error = error_of(done.latents, wanted.latents)
    bench.add("trained", run=number, manner=name, final_latents=error, left_out=left_out, seconds=seconds)


def asked(number: int, steps: int) -> ResolvedRequest:
    given = VideoRequest(prompt=PROMPTS[number], model="demo", seed=3 + number, num_inference_steps=steps)
    return resolve(given, Catalog(), Defaults({}, frozenset({"demo"}))).request


def opened(bench: Bench, placement: Placement) -> WanModel:
    return load_model(Catalog().get("demo"), demo.weights_path(), bench.device, placement=placement)


def recorder(model: WanModel, calls: list[Any], velocities: list[Tensor]) -> Callable[[], None]:
    """Writes down what the expert is given and gives, until the result is called."""
    expert: Any = model.experts[0]
    plain = expert.forward

    def forward(*given: Any) -> Tensor:
        found = plain(*given)
        calls.append(given[:4])
        velocities.append(found.float())
        return found

    expert.forward = forward
    return lambda: setattr(expert, "forward", plain)


def run(
    model: WanModel, conditioning: Conditioning, request: ResolvedRequest, after: Callable[[], None] = lambda: None
) -> tuple[Any, float]:
    """The last state, and seconds."""
    began = time.perf_counter()
    *_, last = denoise(model, conditioning, request)
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    after()
    return last, time.perf_counter() - began


def manners(bench: Bench) -> list[tuple[str, Manner]]:
    names = [it for it in bench.rounded if it != "sage2"]
    if bench.device.type != "cuda":
        registry: Any = kernels
        emulated = Kernel("emulated", "", "rounded", lambda: Eighths(emulated_eight))
        if emulated.name not in {it.name for it in registry.KERNELS}:
            registry.KERNELS = (*registry.KERNELS, emulated)
        names = [emulated.name]
    mine = has_own() and bench.device.type == "cuda"
    given = Manner("", bench.exact[-1], eight=True, middles=True, own=mine, compiled=False)
    return [
        (f"{name}, end {end}{', middles rounded' * (not middles)}",
         replace(given, attention=name, end=int(end), middles=middles))
        for name in names
        for end in bench.chosen.ends.split(",")
        for middles in ((True, False) if end == bench.chosen.ends.split(",")[0] else (True,))
    ]  # fmt: skip


if __name__ == "__main__":
    main()
