"""Which build of torch fits this machine, and how to get it. A torch that works is never replaced."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from console import SetupError, done, say, warn
from environment import Environment

PYTORCH = "https://download.pytorch.org/whl"
#: The oldest CUDA that a driver must know for each of PyTorch's own indexes, newest first.
CUDA_INDEXES = (((13, 0), "cu130"), ((12, 8), "cu128"), ((12, 6), "cu126"))

_PROBE = """
import json, torch
torch.ones(2).sum().item()
print(json.dumps([torch.__version__, torch.version.cuda, torch.cuda.is_available()]))
"""


@dataclass(frozen=True)
class Gpu:
    """What nvidia-smi tells."""

    names: tuple[str, ...]
    cuda: tuple[int, int]  #: newest CUDA that the driver knows


@dataclass(frozen=True)
class Torch:
    """A torch that can be imported and computes."""

    version: str
    cuda: str | None  #: the CUDA it was built for
    sees_gpu: bool

    def __str__(self) -> str:
        return f"torch {self.version}" + ("" if self.sees_gpu else " on the CPU")


def signs_of_gpu() -> bool:
    """Whether a driver seems to be there. Takes no time, unlike nvidia-smi."""
    if os.name == "nt":
        return shutil.which("nvidia-smi") is not None
    return any(Path(sign).exists() for sign in ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg"))


def find_gpu() -> Gpu | None:
    """The NVIDIA GPUs; None without any, or without a driver that answers."""
    program = shutil.which("nvidia-smi") or shutil.which("/usr/lib/wsl/lib/nvidia-smi")
    if program is None:
        return None
    names = _output([program, "--query-gpu=name,memory.total", "--format=csv,noheader"])
    version = re.search(r"CUDA(?: UMD)? Version:\s*(\d+)\.(\d+)", _output([program]))
    if not names.strip():
        return None
    cuda = (int(version[1]), int(version[2])) if version else (0, 0)
    return Gpu(tuple(line.strip() for line in names.splitlines()), cuda)


def probe(python: str) -> Torch | None:
    """The torch that `python` imports, if it works."""
    try:
        return Torch(*json.loads(_output([python, "-c", _PROBE]).strip().splitlines()[-1]))
    except (ValueError, IndexError):
        return None


def oldest_allowed(root: Path) -> tuple[int, ...]:
    """The lower bound that pyproject.toml gives torch."""
    found = re.search(r'"torch>=([\d.]+)"', (root / "pyproject.toml").read_text(encoding="utf-8"))
    return _release(found[1]) if found else (0,)


def usable_system_torch(root: Path) -> Torch | None:
    """The torch of the Python underneath, if it is new enough and runs on the GPU (as in ready-made GPU images)."""
    torch = probe(getattr(sys, "_base_executable", sys.executable))
    if torch is None or not torch.sees_gpu:
        return None
    if _release(torch.version) < oldest_allowed(root):
        say(f"The system's torch {torch.version} is too old: it stays as it is, and .venv gets its own.")
        return None
    return torch


def ensure(environment: Environment, gpu: Gpu | None) -> Torch:
    """Leave a torch that works in the environment. Raises SetupError."""
    torch = probe(str(environment.python))
    if torch is not None and _release(torch.version) >= oldest_allowed(environment.root):
        if gpu is not None and not torch.sees_gpu:
            warn(f"torch {torch.version} can't use the GPU; it is kept.", "./launch.sh --repair makes .venv anew.")
        else:
            done(f"{torch} is there already and stays.")
        return torch
    _install(environment, gpu)
    torch = probe(str(environment.python))
    if torch is None:
        raise SetupError("torch was installed but does not run.", "./launch.sh --repair makes .venv anew.")
    if gpu is not None and not torch.sees_gpu:
        warn(f"torch {torch.version} can't use the GPU.", "update the NVIDIA driver, or name a build in WANREEL_TORCH.")
    return torch


def _install(environment: Environment, gpu: Gpu | None) -> None:
    oldest = ".".join(map(str, oldest_allowed(environment.root)))
    for label, arguments in _sources(environment, gpu, f"torch>={oldest}"):
        say(f"Installing torch: {label}. This takes a while.")
        quiet = [] if sys.stderr.isatty() else ["--quiet"]
        if environment.run("-m", "pip", "install", *quiet, "--timeout", "30", "--retries", "2", *arguments) == 0:
            return
    raise SetupError(
        "No torch for this machine is within reach"
        + (" (the ordinary index has only the CUDA build, of several gigabytes)." if gpu is None else "."),
        "check the connection, or name what pip shall install: WANREEL_TORCH='torch' ./launch.sh",
    )


def _sources(environment: Environment, gpu: Gpu | None, wanted: str) -> list[tuple[str, list[str]]]:
    """What to try, in this order: (in words, arguments of pip install)."""
    chosen = os.environ.get("WANREEL_TORCH")
    if chosen:
        return [("as WANREEL_TORCH says", shlex.split(chosen))]
    if gpu is not None:
        return _cuda_sources(gpu, wanted)
    if platform.system() != "Linux":
        # There the ordinary index holds builds without CUDA.
        return [("the build for this system", [wanted])]
    pinned = (environment.root / "scripts" / "torch-cpu.txt").read_text(encoding="utf-8").split()
    sources = [("PyTorch's CPU build", ["--index-url", f"{PYTORCH}/cpu", wanted])]
    if _is_cpu_build(environment, pinned):
        sources.insert(0, (f"the CPU build {pinned[0]}", pinned))
    return sources


def _cuda_sources(gpu: Gpu, wanted: str) -> list[tuple[str, list[str]]]:
    tags = [tag for oldest, tag in CUDA_INDEXES if gpu.cuda >= oldest]
    from_pytorch = [(f"the build for {tag}", ["--index-url", f"{PYTORCH}/{tag}", wanted]) for tag in tags[:1]]
    ordinary = [("the CUDA build", [wanted])]
    if platform.system() != "Linux":
        return from_pytorch
    # The ordinary index has the build for the newest CUDA, which an older driver can't run.
    return ordinary + from_pytorch if gpu.cuda >= CUDA_INDEXES[0][0] else from_pytorch


def _is_cpu_build(environment: Environment, arguments: list[str]) -> bool:
    """Whether pip would install these without CUDA's packages. Downloads nothing but what describes them."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        flags = ["--dry-run", "--no-deps", "--ignore-installed", "--quiet", "--report", str(report)]
        if environment.answer("-m", "pip", "install", *flags, *arguments) is None:
            return False
        found = json.loads(report.read_text(encoding="utf-8"))
    needs = [need for item in found["install"] for need in item["metadata"].get("requires_dist", [])]
    return not any(need.lower().startswith(("nvidia", "cuda")) for need in needs)


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
