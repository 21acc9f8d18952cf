"""The virtual environment: made, repaired, and stamped when it is complete. Knows nothing of torch."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from console import SetupError, say, warn

# Prints the dist-info folder of each package of which a file is missing. A package without RECORD was never finished.
_FIND_BROKEN = """
import importlib.metadata as m, sysconfig
for d in m.distributions(path=[sysconfig.get_path("purelib")]):
    files = None if d.read_text("RECORD") is None else d.files
    if files is None or any(not d.locate_file(f).exists() for f in files if f.suffix != ".pyc"):
        print(d._path)
"""


@dataclass(frozen=True)
class Stamp:
    """What a complete environment was made from. Written last, so that one without it is not complete."""

    fingerprint: str  #: of pyproject.toml, the Python and the place
    root: str  #: the checkout; scripts in an environment carry its path
    extras: list[str]
    gpu: bool  #: whether there were signs of an NVIDIA GPU
    summary: str  #: torch and GPU in words


class Environment:
    """The `.venv` of a checkout."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / ".venv"
        self.scripts = self.path / ("Scripts" if os.name == "nt" else "bin")
        self.python = self.scripts / ("python.exe" if os.name == "nt" else "python")
        self._stamp = self.path / "wanreel-setup.json"
        self._unfinished = self.path / "wanreel-setup.unfinished"

    def stamp(self) -> Stamp | None:
        """The stamp of the last set-up that ended well; None when there is none."""
        try:
            return Stamp(**json.loads(self._stamp.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def fingerprint(self) -> str:
        digest = hashlib.sha256((self.root / "pyproject.toml").read_bytes())
        digest.update(f"{sys.version_info[:2]} {self.root}".encode())
        return digest.hexdigest()

    def write_stamp(self, stamp: Stamp) -> None:
        temporary = self._stamp.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(stamp), indent=1), encoding="utf-8")
        os.replace(temporary, self._stamp)
        self._unfinished.unlink(missing_ok=True)

    def prepare(self, *, anew: bool, system_packages: bool) -> None:
        """Leave an environment whose Python and pip run, keeping what is in it when it is sound."""
        former = self.stamp()
        moved = former is not None and former.root != str(self.root)
        if moved:
            say("The checkout was moved: making .venv anew.")
        if anew or moved or not self._runs("import sys"):
            self._create(system_packages)
        elif self._unfinished.exists():
            self._remove_broken()
        self._stamp.unlink(missing_ok=True)
        self._unfinished.touch()
        if not self._runs("import pip") and self.run("-m", "ensurepip", "--upgrade") != 0:
            self._create(system_packages)

    def run(self, *arguments: str, variables: dict[str, str] | None = None) -> int:
        """Run this environment's Python, its output going to stderr. -> exit status"""
        command = [str(self.python), *arguments]
        return subprocess.run(command, stdout=sys.stderr, env=os.environ | (variables or {}), check=False).returncode

    def answer(self, *arguments: str) -> str | None:
        """What this environment's Python prints; None when it fails."""
        try:
            command = [str(self.python), *arguments]
            found = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return found.stdout.strip() if found.returncode == 0 else None

    def install(self, extras: Iterable[str], torch: str) -> None:
        """Install Wanreel, editable, with what it needs; torch stays as it is. Raises SetupError."""
        constraints = self.path / "wanreel-constraints.txt"
        constraints.write_text(f"torch=={torch}\n", encoding="utf-8")
        chosen = ",".join(sorted(extras))
        wanted = ["-e", f"{self.root}[{chosen}]" if chosen else str(self.root), "-c", str(constraints)]
        quiet = [] if sys.stderr.isatty() else ["--quiet"]
        if self._with_uv(wanted, quiet) or self.run("-m", "pip", "install", *quiet, *wanted) == 0:
            return
        raise SetupError(
            "The packages could not be installed; the reason stands above.",
            "Check the connection and the free disk space, then run this again: it goes on where it stopped.",
        )

    def _with_uv(self, wanted: list[str], quiet: list[str]) -> bool:
        """uv does the same as pip in a fifth of the time, but doesn't know every way in which pip can be set up."""
        if self.run("-m", "pip", "install", "--quiet", "uv>=0.9") != 0:
            return False
        index = os.environ.get("PIP_INDEX_URL")
        variables = {"UV_DEFAULT_INDEX": index} if index and "UV_DEFAULT_INDEX" not in os.environ else {}
        command = ["-m", "uv", "pip", "install", "--python", str(self.python), *quiet, *wanted]
        if self.run(*command, variables=variables) == 0:
            return True
        warn("uv could not install the packages.", "none needed yet: trying pip, which takes longer.")
        return False

    def _runs(self, program: str) -> bool:
        return self.answer("-c", program) is not None

    def _create(self, system_packages: bool) -> None:
        say(f"Making {self.path.name} with Python {sys.version.split()[0]}.")
        base: str = getattr(sys, "_base_executable", sys.executable)
        flags = ["--system-site-packages"] if system_packages else []
        command = [base, "-m", "venv", "--clear", *flags, str(self.path)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode != 0:
            say(f"{made.stdout}{made.stderr}".strip())
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            raise SetupError(
                "Python could not make a virtual environment; the reason stands above.",
                f"On Debian and Ubuntu: sudo apt install python{version}-venv. Then run this again.",
            )

    def _remove_broken(self) -> None:
        """Forget packages of which only a part was written, so that they are installed again."""
        say("The last set-up was interrupted: going on from there.")
        for folder in (self.answer("-c", _FIND_BROKEN) or "").splitlines():
            say(f"Incomplete: {Path(folder).stem}")
            shutil.rmtree(folder, ignore_errors=True)
