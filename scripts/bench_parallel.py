"""One video on several GPUs: seconds of a guided step by parallel plan, error against one GPU, memory, decoding in bands.

An expert of the real shape with random weights, made on each GPU from one seed, and the real VAE; the product's own crew
of ranks, experts and decoders. `--count 1` is the run that the others are compared with. Without a GPU `--tiny` runs the
same over gloo, for trying the script.

    PYTHONPATH=src python scripts/bench_parallel.py --count 4 --json four.json
    PYTHONPATH=src python scripts/bench_parallel.py --count 2 --tiny
"""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor

from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import Catalog, ModelSpec, tiny
from wanreel.core.components import in_channels
from wanreel.core.errors import WanreelError
from wanreel.core.parallel import Parallel
from wanreel.core.placement import Placement
from wanreel.generation.decode import Decoding
from wanreel.models.components import full_modules
from wanreel.models.load import Dtypes, make_expert
from wanreel.models.parallel.crew import Crew
from wanreel.models.parallel.opening import lead_model
from wanreel.models.parallel.rank import Rank
from wanreel.models.parallel.wire import Wire
from wanreel.models.quantize import quantize
from wanreel.models.random_weights import fill
from wanreel.models.tiny import build_tiny
from wanreel.models.wan_model import WanModel

GIB = 2**30
SIZES = {"480": (480, 832), "720": (720, 1280)}
FRAMES = 81
#: Plans by count: all at 480p, the first ones at 720p.
PLANS: dict[int, tuple[Parallel, ...]] = {
    1: (Parallel(),),
    2: (Parallel(cfg=2), Parallel(ulysses=2), Parallel(ring=2)),
    4: (Parallel(cfg=2, ulysses=2), Parallel(ulysses=4), Parallel(cfg=2, ring=2), Parallel(ring=4)),
    8: (Parallel(cfg=2, ulysses=4), Parallel(ulysses=8), Parallel(cfg=2, ring=4)),
}


@dataclass
class Bench:
    """One model on `count` ranks, its figures and the time it has."""

    options: argparse.Namespace
    model: WanModel
    crew: Crew | None
    rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    began: float = field(default_factory=time.monotonic)
    references: dict[str, list[Tensor]] = field(default_factory=dict[str, list[Tensor]])

    @property
    def device(self) -> torch.device:
        return self.model.device

    def add(self, **row: Any) -> None:
        row = {"count": self.options.count, "at": round(time.monotonic() - self.began, 1), **row}
        self.rows.append(row)
        print(json.dumps(row), flush=True)
        if self.options.json:
            self.options.json.write_text(json.dumps({"rows": self.rows, "facts": facts(self.device)}, indent=1))

    def run(self) -> None:
        options, plans = self.options, PLANS[self.options.count]
        for size in options.sizes:
            for manner in options.manners if size == "480" else options.large_manners:
                self._manner(manner)
                if self.crew is not None and size == "480" and manner in options.references:
                    self._step(size, manner, Parallel())
                for plan in plans if size == "480" and manner == "eager" else plans[: options.large]:
                    self._step(size, manner, plan)
        if "fp8" not in options.manners:
            self._manner("eager")
        for size in options.sizes:
            for lean in options.decodes:
                self._decode(size, lean=lean == "lean")
        if self.crew is not None and options.fsdp:
            self._shared(plans[0])
        if self.crew is not None and options.kill:
            self._kill(plans[0])

    def _manner(self, manner: str) -> None:
        if self.options.tiny:
            return
        for expert in self.model.experts:
            set_manner(expert, manner)
        if self.crew is not None:
            self.crew.ask({"do": "manner", "manner": manner})

    def _step(self, size: str, manner: str, plan: Parallel) -> None:
        model, expert = self.model, self.model.experts[0]
        inputs = inputs_for(model.spec, size, self.device, tiny=self.options.tiny)
        lead, token = expert.lead, CancelToken()
        if plan.alone:
            expert.lead = None
        elif model.lead is not None:
            model.lead.parallel = plan
        key = f"{size} {manner}"
        try:
            runs = self.options.runs if size == "480" else self.options.large_runs
            seconds, made = timed(self.device, runs, lambda: expert.predict_each(*inputs, token))
        except (WanreelError, RuntimeError) as error:
            self.add(what="step", size=size, manner=manner, plan=str(plan) or "1 rank", error=str(error)[:300])
            if self.crew is not None and not self.crew.gathered:
                raise
            return
        finally:
            expert.lead = lead
        if plan.alone:
            self.references[key] = made
        self.add(
            what="step",
            size=size,
            manner=manner,
            plan=str(plan) or "1 rank",
            seconds=seconds,
            error=difference(made, self.references.get(key)),
            peak_gib=peak(self.device),
            used_gib=used(self.options.count),
        )

    def _decode(self, size: str, *, lean: bool) -> None:
        height, width = SIZES[size]
        spec = self.model.spec
        shape = (1, spec.latent_channels, 3, 8, 8) if self.options.tiny else latent_shape(spec, height, width)
        latents = torch.randn(shape, generator=torch.Generator().manual_seed(2)).to(self.device)
        for alone in (True, False) if self.crew is not None and size == "480" else (self.crew is None,):
            lead = self.model.lead
            self.model.lead = None if alone else lead
            seconds, made = timed(self.device, 2, lambda: list(Decoding(self.model, latents, lean=lean)))
            self.model.lead = lead
            kept = f"decode {size} {lean}"
            frames = [torch.from_numpy(chunk).float() for chunk in made]
            row = {"error": difference(frames, self.references.get(kept)), "peak_gib": peak(self.device)}
            self.references.setdefault(kept, frames)
            ranks = 1 if alone else self.options.count
            self.add(what="decode", size=size, lean=lean, ranks=ranks, seconds=seconds, **row)

    def _shared(self, plan: Parallel) -> None:
        """Weights shared out; the text encoder's as well."""
        assert self.crew is not None
        shared = replace(plan, fsdp=True)
        for expert in self.model.experts:
            expert.lead = None
        lead_model(self.crew, self.model, shared)
        torch.cuda.empty_cache() if self.device.type == "cuda" else None
        weights = allocated(self.device)
        for size in self.options.sizes:
            self._step(size, "eager" if "fp8" not in self.options.manners else "fp8", shared)
        tokens = torch.zeros(1, 512, dtype=torch.long, device=self.device)
        encoder = self.model.text_encoder
        seconds, _ = timed(self.device, 2, lambda: encoder(tokens, torch.ones_like(tokens)).last_hidden_state)
        self.add(what="text", plan=str(shared), seconds=seconds, weights_gib=weights, peak_gib=peak(self.device))

    def _kill(self, plan: Parallel) -> None:
        """A rank is killed in the middle of a step."""
        assert self.crew is not None
        if self.model.lead is not None:
            self.model.lead.parallel = replace(plan, fsdp=self.model.lead.parallel.fsdp)
        inputs = inputs_for(self.model.spec, "480", self.device, tiny=self.options.tiny)
        expert, pid, token = self.model.experts[0], self.crew.pids[-1], CancelToken()
        expert.predict_each(*inputs, token)
        subprocess.Popen([sys.executable, "-c", f"import time, os; time.sleep(1); os.kill({pid}, {signal.SIGKILL:d})"])
        began = time.monotonic()
        try:
            for _ in range(1000):
                expert.predict_each(*inputs, token)
            self.add(what="kill", error="nothing was noticed")
        except WanreelError as error:
            self.add(what="kill", seconds=[round(time.monotonic() - began - 1, 2)], error=str(error)[:200])


def set_manner(expert: Any, manner: str) -> None:
    """ "eager": Diffusers' blocks; "compiled": our own step path; "fp8": the same over matrices in fp8, for good."""
    from wanreel.models.step.path import Manner, StepPath

    if manner == "fp8":
        quantize(expert.transformer.blocks, "fp8")
    path = Manner(attention="torch", end_attention="torch", eight=manner == "fp8")
    expert.step = None if manner == "eager" else StepPath(expert, path)


def facts(device: torch.device) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"torch": torch.__version__, "device": name, "cuda": torch.version.cuda}


def inputs_for(
    spec: ModelSpec, size: str, device: torch.device, *, tiny: bool
) -> tuple[Tensor, Tensor, list[Tensor], None]:
    """Latents, timestep, both texts and no picture embeddings."""
    generator = torch.Generator().manual_seed(1)
    height, width = (64, 64) if tiny else SIZES[size]
    frames = 3 if tiny else 1 + (FRAMES - 1) // spec.temporal_stride
    shape = (1, in_channels(spec), frames, height // spec.spatial_stride, width // spec.spatial_stride)
    texts = [torch.randn(1, 512, 32 if tiny else 4096, generator=generator).to(device) for _ in range(2)]
    latents = torch.randn(shape, generator=generator).to(device)
    return latents, torch.tensor([700], device=device), texts, None


def latent_shape(spec: ModelSpec, height: int, width: int) -> tuple[int, ...]:
    frames = 1 + (FRAMES - 1) // spec.temporal_stride
    return (1, spec.latent_channels, frames, height // spec.spatial_stride, width // spec.spatial_stride)


@torch.no_grad()
def timed(device: torch.device, runs: int, work: Callable[[], Any]) -> tuple[list[float], Any]:
    """Seconds of each run after a first one that is not counted; the peak is theirs."""
    result: Any = work()
    seconds: list[float] = []
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(runs):
        began = time.monotonic()
        result = work()
        if cuda:
            torch.cuda.synchronize(device)
        seconds.append(round(time.monotonic() - began, 4))
    return seconds, result


def difference(made: list[Tensor], reference: list[Tensor] | None) -> float | None:
    """‖made − reference‖ / ‖reference‖, the worst of both passes."""
    if reference is None or made is reference:
        return None
    pairs = zip(made, reference, strict=True)
    return max(float((a.float() - b.float()).norm() / b.float().norm()) for a, b in pairs)


def peak(device: torch.device) -> float | None:
    return round(torch.cuda.max_memory_allocated(device) / GIB, 2) if device.type == "cuda" else None


def allocated(device: torch.device) -> float | None:
    return round(torch.cuda.memory_allocated(device) / GIB, 2) if device.type == "cuda" else None


def used(count: int) -> list[float] | None:
    """Of each GPU, as its driver tells; context and what allocators hold included."""
    if not torch.cuda.is_available():
        return None
    asked = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    lines = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
    return [round(int(line) / 1024, 1) for line in lines]


def build(options: argparse.Namespace, device: torch.device, placement: Placement) -> WanModel:
    """One expert of the real shape, the VAE and, where weights are shared out, the text encoder."""
    spec = Catalog().get(options.model)
    if options.tiny:
        return replace(build_tiny(tiny(spec), device=device), placement=placement)
    dtypes = Dtypes.of(device)
    with init_empty_weights(include_buffers=False):
        parts = full_modules(spec)
    parts["text_encoder"].encoder.embed_tokens = parts["text_encoder"].shared
    for name in ("transformer", "vae", *(("text_encoder",) if options.fsdp else ())):
        fill(parts[name], dtypes.for_part(name), device, device)
    base = build_tiny(spec, device=device)
    return replace(
        base,
        vae=parts["vae"],
        text_encoder=parts["text_encoder"] if options.fsdp else base.text_encoder,
        experts=(make_expert(parts["transformer"], device, Placement()),),
        device=device,
        dtype=dtypes.transformer,
        placement=placement,
    )


class BenchRank(Rank):
    """A rank that can also be told how blocks are computed."""

    def _obey(self, order: Any) -> None:
        if order["do"] != "manner":
            super()._obey(order)
            return
        for model in self._models.values():
            for expert in model.experts:
                set_manner(expert, order["manner"])
        self.wire.send({"done": True})


def be_rank(options: argparse.Namespace) -> int:
    with os.fdopen(os.dup(0), "rb", 0) as orders, os.fdopen(os.dup(1), "wb") as said:
        os.dup2(2, 1)
        wire = Wire(orders, said)
        hello = wire.receive()
        assert hello is not None
        device = torch.device(options.rank)
        return BenchRank(wire, hello, device, lambda _name, placement: build(options, device, placement)).serve()


def rank_commands(options: argparse.Namespace) -> Iterator[list[str]]:
    given = ["--model", options.model, *(["--tiny"] if options.tiny else []), *(["--fsdp"] if options.fsdp else [])]
    for device in devices(options)[1:]:
        yield [sys.executable, __file__, "--rank", device, *given]


def devices(options: argparse.Namespace) -> list[str]:
    if options.tiny:
        return ["cpu"] * options.count
    return [f"cuda:{options.first + number}" for number in range(options.count)]


def main() -> int:
    options = parse()
    if options.rank:
        return be_rank(options)
    device = torch.device(devices(options)[0])
    if device.type == "cuda":
        torch.cuda.set_device(device)
    plan = PLANS[options.count][0]
    placement = Placement(parallel=plan)
    crew = Crew(list(rank_commands(options)), device) if options.count > 1 else None
    began = time.monotonic()
    try:
        if crew is not None:
            crew.gather()
            crew.tell({"do": "open", "model": Catalog().get(options.model).name, "placement": placement.to_dict()})
        model = build(options, device, placement)
        model.spec = replace(model.spec, name=Catalog().get(options.model).name)
        if crew is not None:
            crew.answered()
            lead_model(crew, model, plan)
        bench = Bench(options, model, crew)
        bench.add(what="start", seconds=[round(time.monotonic() - began, 1)])
        bench.run()
    finally:
        if crew is not None:
            crew.disband()
    steps = [row for row in bench.rows if row["what"] == "step" and "seconds" in row]
    for row in steps:
        print(
            f"{row['count']} {row['size']} {row['manner']:9} {row['plan']:40} {statistics.median(row['seconds']):8.3f}"
        )
    return 0


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2, choices=sorted(PLANS))
    parser.add_argument("--first", type=int, default=0, help="number of the first GPU")
    parser.add_argument("--model", default="i2v-a14b")
    names: Any = {"type": _names}
    parser.add_argument("--sizes", **names, default=["480", "720"])
    parser.add_argument("--manners", **names, default=["eager"], help="eager, compiled, fp8 (last)")
    parser.add_argument("--large-manners", **names, default=["eager"], help="those at 720p")
    parser.add_argument("--large", type=int, default=2, help="plans at 720p, and of other manners than eager")
    parser.add_argument(
        "--references", **names, default=["eager"], help="manners with a run on one rank to compare with"
    )
    parser.add_argument("--decodes", **names, default=["lean", "plain"])
    parser.add_argument("--runs", type=int, default=2, help="timed, after one that is not")
    parser.add_argument("--large-runs", type=int, default=1, help="the same at 720p")
    parser.add_argument("--fsdp", action="store_true", help="share weights out at the end, the text encoder's too")
    parser.add_argument("--kill", action="store_true", help="kill a rank in the middle of a step, last")
    parser.add_argument("--tiny", action="store_true", help="tiny models over gloo on the CPU")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rank", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
