"""All that is to be known of several GPUs and needs some: three calls of ten minutes at most, each with what matters first.

    losses   2 GPUs: a rank or the worker is killed or stopped while NCCL waits; then what exchanges cost, by setting
    steps    4 GPUs: compiled steps at 480p and 720p on one, two and four, each timed several times, one GPU first
    memory   4 GPUs: fp8 steps on one, two and four; weights shared out; decoding in bands

    PYTHONPATH=src python scripts/measure_ranks.py losses --json losses.json
    PYTHONPATH=src python scripts/measure_ranks.py losses --tiny          # the same over gloo on the CPU, for trying it

Rows are written as they come, so that a call that is cut off leaves what it has. Nothing here runs longer than --seconds.
"""
# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bench_parallel import build, devices, facts, inputs_for
from torch import Tensor

from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import Catalog
from wanreel.core.errors import WanreelError
from wanreel.core.parallel import Parallel
from wanreel.core.placement import Placement
from wanreel.host import OtherProcess
from wanreel.models.parallel.crew import REPLACE, Crew, Losses
from wanreel.models.parallel.opening import lead_model
from wanreel.models.ranks import split as splitting
from wanreel.models.ranks.attention import attend_whole
from wanreel.models.ranks.mesh import join, part
from wanreel.models.ranks.split import Split

HERE = Path(__file__).parent
PROMISE = 15.0  #: seconds from a loss to the end of all
#: Who is lost, and how.
LOSSES = {
    f"{who} {name}": (who, number)
    for who in ("rank", "worker")
    for name, number in (("killed", signal.SIGKILL), ("stopped", signal.SIGSTOP))
}
#: What NCCL and torch are told, by name; multicast stays off in all of them.
SETTINGS: dict[str, dict[str, str]] = {
    "as it is": {},
    "high priority": {"TORCH_NCCL_HIGH_PRIORITY": "1"},
    "32 channels": {"NCCL_MIN_P2P_NCHANNELS": "32", "NCCL_MAX_P2P_NCHANNELS": "32", "NCCL_NCHANNELS_PER_PEER": "32"},
    "8 channels": {"NCCL_MAX_P2P_NCHANNELS": "8", "NCCL_NCHANNELS_PER_PEER": "8"},
    "32 channels, high priority": {
        "NCCL_MIN_P2P_NCHANNELS": "32",
        "NCCL_MAX_P2P_NCHANNELS": "32",
        "NCCL_NCHANNELS_PER_PEER": "32",
        "TORCH_NCCL_HIGH_PRIORITY": "1",
    },
    "large chunks": {"NCCL_P2P_NVL_CHUNKSIZE": str(2**21), "NCCL_BUFFSIZE": str(2**24)},
    "copy engines": {"NCCL_P2P_USE_CUDA_MEMCPY": "1"},
}
GOES = (1, 2, 4)
TOKENS = {"480": 21 * 30 * 52, "720": 21 * 45 * 80}
HEADS, WIDTH = 40, 128
_EACH = 90.0  # seconds for one setting


class Rows:
    """What was found, written at once."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.began = options, time.monotonic()
        self.rows: list[dict[str, Any]] = []

    @property
    def left(self) -> float:
        return self.options.seconds - (time.monotonic() - self.began)

    def add(self, **row: Any) -> None:
        self.rows.append({"at": round(time.monotonic() - self.began, 1), **row})
        print(json.dumps(self.rows[-1]), flush=True)
        if self.options.json:
            self.options.json.write_text(json.dumps({"call": self.options.call, "rows": self.rows}, indent=1))


# Losses


def lose(rows: Rows, name: str) -> bool:
    """A worker computes on all GPUs; then it or its last rank is lost. Whether all were gone in time."""
    who, number = LOSSES[name]
    command = own(rows.options, "worker")
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        rows.add(what="loss", name=name, error=worker.communicate()[1][-1000:])
        return False
    pids: list[int] = json.loads(line)
    all_of_them = [OtherProcess(pid) for pid in (worker.pid, *pids)]
    time.sleep(2.0)
    began = time.monotonic()
    os.kill(worker.pid if who == "worker" else pids[-1], number)
    while not all(it.gone for it in all_of_them) and time.monotonic() - began < 4 * PROMISE:
        time.sleep(0.02)
    seconds = round(time.monotonic() - began, 2)
    left = [it.pid for it in all_of_them if not it.gone]
    for it in all_of_them:
        it.kill()
    said = worker.communicate()[1].strip().splitlines()
    in_time = not left and seconds <= PROMISE
    rows.add(
        what="loss", name=name, seconds=seconds, left=left, code=worker.returncode, in_time=in_time,
        said=[line for line in said if "ranks" in line or "process ends" in line][-3:], used_gib=memory_used(),
    )  # fmt: skip
    return in_time


def be_worker(options: argparse.Namespace) -> int:
    """Predicts without end on all ranks, and says the numbers of the others."""
    names = devices(options)
    device, plan = torch.device(names[0]), Parallel(ulysses=len(names))
    rank = [sys.executable, str(HERE / "bench_parallel.py"), "--tiny", "--model", options.model, "--rank"]
    crew = Crew([[*rank, name] for name in names[1:]], device, losses=Losses(fatal=True))
    token, placement = CancelToken(), Placement(parallel=plan)
    options.tiny = True  # what NCCL waits for is the same for any model
    try:
        crew.gather()
        name = Catalog().get(options.model).name
        crew.tell({"do": "open", "model": name, "placement": placement.to_dict()})
        model = build(options, device, placement)
        model.spec = replace(model.spec, name=name)
        crew.answered()
        lead_model(crew, model, plan)
        inputs = inputs_for(model.spec, "480", device, tiny=True)
        model.experts[0].predict_each(*inputs, token)
        print(json.dumps(crew.pids), flush=True)
        while True:
            model.experts[0].predict_each(*inputs, token)
    except WanreelError as error:
        print(f"ranks: {error}", file=sys.stderr)
        return REPLACE
    finally:
        crew.disband()


# Exchanges


def exchanges(rows: Rows, name: str) -> None:
    """One setting, in processes of its own, as NCCL reads its settings once."""
    options = rows.options
    count = len(devices(options))
    with tempfile.TemporaryDirectory() as folder:
        commands = [[*own(options, "exchange"), "--place", str(place), "--store", folder] for place in range(count)]
        said = first_of(commands, {**os.environ, **SETTINGS[name]}, min(_EACH, rows.left))
    found = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    for row in found or [{"error": "not done in time"}]:
        rows.add(what="exchange", setting=name, ranks=count, **row)


def first_of(commands: list[list[str]], environment: dict[str, str], seconds: float) -> str:
    """What the first of several processes that run at once says; they end after so many seconds."""
    ranks = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for command in commands]
    ends = threading.Timer(seconds, lambda: [rank.kill() for rank in ranks])
    ends.start()
    said = [rank.communicate()[0] for rank in ranks]
    ends.cancel()
    return said[0]


@torch.no_grad()
def be_exchanging(options: argparse.Namespace) -> int:
    """Milliseconds of a block's self-attention with its matrices, by goes; beside it the same without any exchange."""
    names = devices(options)
    device = torch.device(names[options.place])
    mesh = join(device, Path(options.store) / "store", options.place, len(names)).of(Parallel(ulysses=len(names)))
    sizes = {"tiny": 24 * len(names)} if options.tiny else TOKENS
    heads, width = (4 * len(names), 8) if options.tiny else (HEADS, WIDTH)
    dtype = torch.float32 if options.tiny else torch.bfloat16
    layers = [torch.nn.Linear(heads * width, heads * width, device=device, dtype=dtype) for _ in range(3)]
    for size, tokens in sizes.items():
        split = Split(mesh, tokens)
        hidden = torch.randn(1, split.part, heads * width, device=device, dtype=dtype)

        def made(layer: Any, hidden: Tensor = hidden) -> Tensor:
            return layer(hidden).unflatten(2, (heads, width))

        def shared(split: Split = split, made: Any = made) -> Tensor:
            value, key = split.to_heads(made(layers[0])), split.to_heads(made(layers[1]))
            return split.attended(split.in_goes(made(layers[2])), key, value, heads, attend_whole)

        few = [torch.randn(1, tokens, heads // len(names), width, device=device, dtype=dtype) for _ in range(3)]

        def alone(made: Any = made, few: list[Tensor] = few) -> Tensor:
            for layer in layers:
                made(layer)
            return attend_whole(*few)

        given = made(layers[0])

        def bare(split: Split = split, given: Tensor = given) -> Tensor:
            return split.arrived(split.to_heads(given))

        found = {"alone_ms": milliseconds(alone, device), "one_exchange_ms": milliseconds(bare, device)}
        reference: Tensor | None = None
        for goes in GOES:
            splitting.GOES = goes
            out = shared()
            reference = out if reference is None else reference
            row = {"size": size, "goes": goes, "ms": milliseconds(shared, device), **found}
            row["same_bits"] = torch.equal(out, reference)
            if options.place == 0:
                print(json.dumps(row), flush=True)
    part()
    return 0


def milliseconds(work: Callable[[], Any], device: torch.device, runs: int = 10) -> float:
    """Of one run, in a row of them."""
    for _ in range(3):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.monotonic()
    for _ in range(runs):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return round(1000 * (time.monotonic() - began) / runs, 3)


# Steps and memory


def bench(rows: Rows, *arguments: str) -> None:
    """One run of bench_parallel.py; its rows."""
    options = rows.options
    if rows.left < 20:
        rows.add(what="left out", arguments=arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "rows.json"
        command = [sys.executable, str(HERE / "bench_parallel.py"), "--model", options.model, *arguments]
        command += ["--json", str(found), *(["--tiny"] if options.tiny else [])]
        try:
            done = subprocess.run(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=rows.left, text=True
            )
            if done.returncode:
                rows.add(what="failed", arguments=arguments, error=done.stderr[-500:])
        except subprocess.TimeoutExpired:
            rows.add(what="cut off", arguments=arguments)
        for row in json.loads(found.read_text())["rows"] if found.exists() else ():
            rows.add(**{f"of_{name}" if name == "at" else name: value for name, value in row.items()})


def steps(rows: Rows) -> None:
    """Compiled; the one GPU by itself, as its figure is what all others are divided by."""
    compiled = ("--manners", "compiled", "--large-manners", "compiled", "--references", "", "--decodes", "")
    runs = ("--runs", "1", "--large-runs", "1") if rows.options.tiny else ("--runs", "5", "--large-runs", "3")
    for count in ("1", "2", "4"):
        bench(rows, "--count", count, "--large", "2", *runs, *compiled)


def memory(rows: Rows) -> None:
    for count in ("2", "4"):  # weights shared out: what a GPU holds and what a step takes at most
        bench(rows, "--count", count, "--fsdp", "--manners", "", "--large-manners", "", "--references", "")
    bench(rows, "--count", "1", "--manners", "", "--large-manners", "")  # decoding on one, to compare with
    for count in ("1", "2", "4"):
        fp8 = ("--manners", "fp8", "--large-manners", "fp8", "--references", "fp8", "--decodes", "")
        bench(rows, "--count", count, "--large", "1", "--runs", "3", "--large-runs", "2", *fp8)


def losses(rows: Rows) -> None:
    for name in LOSSES:
        if rows.left > 60:
            lose(rows, name)
    for name in SETTINGS:
        if rows.left > 20:
            exchanges(rows, name)


CALLS = {"losses": losses, "steps": steps, "memory": memory}


def memory_used() -> list[str]:
    if not torch.cuda.is_available():
        return []
    asked = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]


def own(options: argparse.Namespace, part: str) -> list[str]:
    tiny = ["--tiny"] if options.tiny else []
    return [sys.executable, __file__, options.call, "--be", part, "--count", str(options.count), *tiny]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("call", choices=sorted(CALLS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=570.0, help="the call ends itself before")
    parser.add_argument("--model", default="i2v-a14b")
    parser.add_argument("--tiny", action="store_true", help="tiny models over gloo on the CPU")
    parser.add_argument("--count", type=int, default=2, help="GPUs of the losses and exchanges")
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--fsdp", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--be", choices=("worker", "exchange"), help=argparse.SUPPRESS)
    parser.add_argument("--place", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--store", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    options = parse()
    if options.be:
        return {"worker": be_worker, "exchange": be_exchanging}[options.be](options)
    rows = Rows(options)
    rows.add(what="facts", **facts(torch.device("cuda" if torch.cuda.is_available() else "cpu")))
    CALLS[options.call](rows)
    return 0 if all(row.get("in_time", True) for row in rows.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
