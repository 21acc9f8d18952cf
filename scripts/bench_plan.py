r"""Runs what is to be measured on a GPU in portions, each within a limit of time; the output of every task is kept.

    PYTHONPATH=src python scripts/bench_plan.py kernels --out measured     (then steps, large, requests)
    PYTHONPATH=src python scripts/bench_plan.py kernels --list             (says what would be run)
    PYTHONPATH=src python scripts/bench_plan.py kernels --tiny --out tried (in small, on a CPU)

A task that fails costs no other; a task is not begun when less time is left than it is expected to take. Compiled kernels
are kept in --out/cache, so that later portions on the same machine start warm.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Task:
    """One command. `{out}` in it stands for the folder of results."""

    name: str
    command: tuple[str, ...]
    seconds: float  #: that it is expected to take
    tiny: tuple[str, ...] = ()  #: the same in small; empty: left out there


def script(name: str, *given: str) -> tuple[str, ...]:
    return (sys.executable, str(HERE / name), *given)


def fast(parts: str, seconds: float) -> Task:
    name = "fast-" + parts.replace(",", "-")
    given = script("bench_fast.py", "--parts", parts, "--json", "{out}/" + name + ".json")
    return Task(name, (*given, "--budget", "{left}"), seconds, (*given, "--tiny"))


def request(name: str, model: str, seconds: float, *given: str) -> Task:
    """`wanreel bench` with drawn weights: load, prompts, condition, steps, preview's share, decode, end to end; twice."""
    command = (sys.executable, "-m", "wanreel", "bench", "--random-weights", "--json", "{out}/" + name + ".json")
    small = (
        sys.executable,
        "-m",
        "wanreel",
        "bench",
        "--device",
        "cpu",
        "--steps",
        "2",
        "--json",
        "{out}/" + name + ".json",
    )
    compute = given[given.index("--compute") + 1] if "--compute" in given else "exact"
    return Task(name, (*command, "--model", model, *given), seconds, (*small, "--compute", compute))


KERNEL_TESTS = ("-q", "-m", "gpu", "-o", "addopts=", "tests/models/test_step.py", "tests/models/test_step_passes.py")
VAE = Task(
    "vae",
    script("bench_vae.py", "--sizes", "720p", "--parts", "profile,decode", "--json", "{out}/vae.json"),
    120,
    script("bench_vae.py", "--sizes", "tiny", "--device", "cpu"),
)
PORTIONS: dict[str, tuple[Task, ...]] = {
    "kernels": (
        Task("kernel-tests", (sys.executable, "-m", "pytest", *KERNEL_TESTS), 90),
        fast("sums,passes,launches", 60),
        fast("blocks", 150),
        fast("profile", 60),
        fast("tuned", 200),
        Task(
            "trained",
            script("bench_trained.py", "--json", "{out}/trained.json"),
            60,
            script("bench_trained.py", "--steps", "4", "--runs", "1", "--json", "{out}/trained.json"),
        ),
    ),
    "steps": (fast("480p", 240), fast("outliers", 240)),
    "large": (fast("720p", 420), VAE),
    "requests": (
        request("a14b-4-steps", "i2v-a14b", 200, "--size", "1280x720", "--steps", "4", "--guidance", "1", "--compute", "fast"),
        request("14b-fast-480p", "i2v-14b-480p", 150, "--size", "832x480", "--steps", "4", "--compute", "fast"),
        request("1.3b-fast", "t2v-1.3b", 60, "--steps", "20", "--compute", "fast"),
        request("1.3b-turbo", "t2v-1.3b", 60, "--steps", "20", "--compute", "turbo"),
        Task("warm-start", script("bench_step.py", "--parts", "warm", "--json", "{out}/warm.json"), 120),
    ),
    "turbo": (
        request("14b-fast-20", "i2v-14b-480p", 240, "--size", "832x480", "--steps", "20", "--compute", "fast"),
        request("14b-turbo-20", "i2v-14b-480p", 200, "--size", "832x480", "--steps", "20", "--compute", "turbo"),
    ),
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("portion", choices=tuple(PORTIONS))
    parser.add_argument("--out", type=Path, default=Path("measured"))
    parser.add_argument("--limit", type=float, default=580.0, help="seconds that the whole portion may take")
    parser.add_argument("--only", default="", help="names of tasks, with commas between")
    parser.add_argument("--tiny", action="store_true", help="in small, on a CPU")
    parser.add_argument("--list", action="store_true", help="say what would be run")
    chosen = parser.parse_args()
    tasks = [it for it in PORTIONS[chosen.portion] if not chosen.only or it.name in chosen.only.split(",")]
    if chosen.list:
        for task in tasks:
            print(f"{task.name} ({task.seconds:.0f} s): {' '.join(task.command)}")
        return 0
    chosen.out.mkdir(parents=True, exist_ok=True)
    return run(tasks, chosen.out, chosen.limit, tiny=chosen.tiny)


def run(tasks: Sequence[Task], out: Path, limit: float, *, tiny: bool) -> int:
    """The number of tasks that failed or found no time."""
    began, told = time.monotonic(), list[str]()
    for task in tasks:
        left, command = limit - (time.monotonic() - began), task.tiny if tiny else task.command
        if not command:
            told.append(f"{task.name}: only on a GPU")
            continue
        if not tiny and left < task.seconds:
            told.append(f"{task.name}: NO TIME, {left:.0f} of {task.seconds:.0f} s left")
            continue
        told.append(one(task.name, command, out, left))
        print(told[-1], flush=True)
    print("", *told, sep="\n")
    shutil.rmtree(out / "data", ignore_errors=True)
    return sum(" failed" in it or "NO TIME" in it for it in told)


def one(name: str, command: Sequence[str], out: Path, left: float) -> str:
    """Runs one task; its output goes to a file, and its end is printed."""
    filled = [it.replace("{out}", str(out)).replace("{left}", str(int(left))) for it in command]
    given = {
        **os.environ,
        "WANREEL_DATA_DIR": str(out.resolve() / "data"),
        "TORCHINDUCTOR_CACHE_DIR": str(out.resolve() / "cache"),
    }
    given.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    began, path = time.monotonic(), out / f"{name}.txt"
    with path.open("w") as log:
        try:
            code = subprocess.run(
                filled, stdout=log, stderr=subprocess.STDOUT, env=given, timeout=left, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
    print("\n".join(path.read_text().splitlines()[-25:]), flush=True)
    said = "done" if code == 0 else "failed, out of time" if code == -1 else f"failed with {code}"
    return f"{name}: {said} after {time.monotonic() - began:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
