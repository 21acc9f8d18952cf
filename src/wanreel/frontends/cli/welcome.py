"""Greeter: what a server says of itself and its machine before it serves. All of it on stderr."""

from __future__ import annotations

import importlib.metadata
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from wanreel import __version__
from wanreel.core.settings import Settings
from wanreel.frontends.http.entrance import Entrance
from wanreel.host import free_bytes
from wanreel.models.shelf import Shelf

_PATIENCE = 1.0  # seconds for nvidia-smi, which a server should not wait for
_GPU_QUERY = "name,driver_version,memory.free,memory.total"
_GIB = 2**30

_log = logging.getLogger("wanreel.serve")


class Greeter:
    """Says nothing but notes when it is `quiet`, and those to the log where that is `logged` as JSON."""

    def __init__(
        self, *, quiet: bool = False, no_color: bool = False, logged: bool = False, console: Console | None = None
    ) -> None:
        # Rich heeds NO_COLOR and terminals by itself.
        colours = None if no_color else "auto"
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True, color_system=colours)
        self._quiet = quiet or logged
        self._logged = logged

    def note(self, text: str) -> None:
        """Something that differs from what was asked."""
        if self._logged:
            _log.warning("%s", text)
            return
        self._console.print(f"[yellow]![/yellow] {text}")

    def welcome(self, settings: Settings, entrance: Entrance, workers: str) -> None:
        """The machine, what is installed, and the configuration in effect."""
        if self._quiet:
            return
        table = Table.grid(padding=(0, 2))
        for name, text in (*machine(), *installed(settings), *configuration(settings, entrance, workers)):
            table.add_row(f"[bold]{name}[/bold]", text)
        self._console.print(f"[bold cyan]wanreel {__version__}[/bold cyan]")
        self._console.print(table)


def machine() -> Iterator[tuple[str, str]]:
    """GPUs with driver and free memory, as nvidia-smi says: this process loads neither torch nor the driver."""
    gpus = gpu_lines()
    yield from (("GPU", line) for line in gpus)
    if not gpus:
        yield "GPU", "none found: the demo model works without one"


def gpu_lines() -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={_GPU_QUERY}", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ["nvidia-smi does not answer (`wanreel doctor` says more)"]
    rows = [[part.strip() for part in line.split(",")] for line in told.splitlines() if line.count(",") == 3]
    return [f"{name}, driver {driver}, {_mib(free)} of {_mib(total)} GiB free" for name, driver, free, total in rows]


def installed(settings: Settings) -> Iterator[tuple[str, str]]:
    """The environment and the models that are there."""
    kind = "virtual environment" if sys.prefix != sys.base_prefix else "Python"
    yield "Python", f"{sys.version.split()[0]}, torch {_version('torch')}, {kind} {sys.prefix}"
    shelf = Shelf(settings.weights_dir, {n: m.folder for n, m in settings.models.items() if m.folder is not None})
    names = sorted(shelf.installed(settings.catalog()) - {"demo"})
    yield "models", ", ".join(["demo (built in)", *(name for name in names if not name.startswith("tiny:"))])


def configuration(settings: Settings, entrance: Entrance, workers: str) -> Iterator[tuple[str, str]]:
    """Where everything is and how it will be run."""
    root = settings.data_dir
    free = f", {free_bytes(root) / _GIB:.0f} GiB free" if root.exists() else ""
    yield "data", f"{root}{free}"
    yield "weights", f"{settings.weights_dir}"
    yield "workers", workers + (f", loading {settings.auto_load}" if settings.auto_load else "")
    yield "queue", f"at most {settings.max_queue_size} jobs"
    reach = "this machine only" if entrance.is_loopback else f"everybody who reaches {entrance.host}"
    yield "open to", "everybody with a key, through a tunnel" if entrance.shared is not None else reach


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _mib(text: str) -> str:
    return f"{int(text) / 1024:.1f}" if text.isdecimal() else text
