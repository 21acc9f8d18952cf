"""How long the demo model takes on this machine: a warm generation by stages, and a cold process from start to end.

    python scripts/bench_demo.py [--warm 5] [--cold 3] [--threads 2]

Wall time needs a quiet machine; processor time (user and system, of all threads) means something on a busy one as well when
there is one thread.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from wanreel.core.events import Completed, Denoised, Encoded
from wanreel.core.request import VideoRequest
from wanreel.core.settings import Settings
from wanreel.wiring import Runtime, build_runtime

PROMPT = "a red circle moves right over a blue background"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--warm", type=int, default=5, help="generations in one process, after one that is not counted")
    parser.add_argument("--cold", type=int, default=3, help="processes")
    parser.add_argument("--threads", type=int, help="of the model; the machine's cores by default")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    with TemporaryDirectory() as scratch:
        if options.cold:
            cold(options.cold, Path(scratch), options.threads)
        if options.warm:
            warm(options.warm, Path(scratch), options.threads)
    print(f"load {os.getloadavg()[0]:.1f} after")
    return 0


def cold(count: int, data: Path, threads: int | None) -> None:
    """`wanreel generate` as a process of its own, start and end included."""
    given = {**os.environ, "WANREEL_DATA_DIR": str(data), "WANREEL_DEVICE": "cpu"}
    given |= {} if threads is None else {"WANREEL_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "wanreel", "generate", PROMPT, "--model", "demo"]
    seconds: list[tuple[float, ...]] = []
    for _ in range(count):
        before, began = os.times(), time.perf_counter()
        subprocess.run(command, env=given, check=True, capture_output=True)
        after = os.times()
        processor = after.children_user + after.children_system - before.children_user - before.children_system
        seconds.append((time.perf_counter() - began, processor))
    _show("cold process, 128x128x17, 12 steps", ("wall", "processor"), seconds)


def warm(count: int, data: Path, threads: int | None) -> None:
    """The same in a process that has the model in memory, by stages."""
    runtime = build_runtime(Settings(data_dir=data, device="cpu", threads=threads))
    try:
        rows = [_generation(runtime) for _ in range(count + 1)][1:]
    finally:
        runtime.close()
    _show("warm, 128x128x17, 12 steps", ("wall", "processor", "encode", "denoise", "decode and write"), rows)


def _generation(runtime: Runtime) -> tuple[float, ...]:
    """Seconds: wall, processor, and the wall time of each stage."""
    marks = [time.perf_counter()]
    processor = time.process_time()
    for event in runtime.generate(runtime.resolve(VideoRequest(prompt=PROMPT, model="demo", seed=1))):
        if isinstance(event, Encoded | Denoised | Completed):
            marks.append(time.perf_counter())
    stages = [end - start for start, end in itertools.pairwise(marks)]
    return (marks[-1] - marks[0], time.process_time() - processor, *stages)


def _show(title: str, names: tuple[str, ...], rows: list[tuple[float, ...]]) -> None:
    print(f"{title}, {len(rows)} times: median s (least to most)")
    for name, column in zip(names, zip(*rows, strict=True), strict=True):
        print(f"  {name:17} {median(column):6.2f} ({min(column):.2f} to {max(column):.2f})")


if __name__ == "__main__":
    raise SystemExit(main())
