"""Node: Ray on this machine, as a process of ours; closed to whoever has no token. Knows nothing of pools and videos.

Ray itself listens on every address of the machine, whatever it is told, so what guards it is the token and the network.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

from wanreel.core.errors import MissingDependency, SettingsError, WanreelError
from wanreel.core.settings import variable
from wanreel.frontends.addresses import is_public
from wanreel.host import ask_to_stop

_log = logging.getLogger(__name__)

TOKEN_FILE = Path("ray.token")
_START = 120.0  # seconds
_TOO_SLOW = b"timed out during startup"
_STOP = 30.0
_LOOK = 0.1
_PORTS = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port", "runtime-env-agent-port")
_OBJECT_STORE = 100 * 2**20  # bytes; nothing large passes through Ray
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_agent_register_timeout_ms": "120000",  # its Python parts take long to start on a busy machine
}


def guard(root: Path, *, make: bool) -> Path | None:
    """Have this process, and all it starts, speak to Ray with a token: the one that the environment names, or the data
    directory's, which is made where `make`. The token's file; None where the environment names another.

    Before Ray is imported. Raises SettingsError.
    """
    mode = variable("RAY_AUTH_MODE")
    if mode not in ("", "token"):
        raise SettingsError(
            f"RAY_AUTH_MODE={mode} lets anybody who reaches Ray run programs here.", hint="Leave it unset."
        )
    more = {"RAY_AUTH_MODE": "token", **_QUIET}
    path = None
    if not variable("RAY_AUTH_TOKEN") and not variable("RAY_AUTH_TOKEN_PATH"):
        path = root / TOKEN_FILE
        if not path.is_file():
            if not make:
                raise SettingsError(
                    f"There is no {TOKEN_FILE} in {root}.", hint="Copy it from the data directory of the first machine."
                )
            _write_token(path)
        more["RAY_AUTH_TOKEN_PATH"] = str(path)
    os.environ.update(more)  # noqa: TID251 - Ray reads these; none of them is a setting of ours
    return path


def _write_token(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))


def refuse_public(addresses: Iterable[str], *, private: bool) -> None:
    """Raises SettingsError where Ray could be reached from everywhere, unless the operator says that it can't."""
    public = sorted({address for address in addresses if is_public(address)})
    if public and not private:
        raise SettingsError(
            f"Ray listens on every address of a machine, and {', '.join(public)} can be reached from everywhere.",
            hint="Put a firewall before it and say --ray-network-is-private, or use machines without a public address.",
        )


def own_addresses() -> list[str]:
    """The addresses of this machine's network interfaces."""
    families = (socket.AF_INET, socket.AF_INET6)
    rows = psutil.net_if_addrs().values()
    return [row.address.partition("%")[0] for interface in rows for row in interface if row.family in families]


@dataclass
class Node:
    """Ray's processes here. They end with `close`, or when the one that started them does."""

    process: subprocess.Popen[bytes]
    address: str  #: of the cluster, HOST:PORT
    log: Path

    def listeners(self) -> list[str]:
        """Where its processes listen for other machines, as ADDRESS:PORT."""
        found: set[str] = set()
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    rows = [row for row in process.net_connections("inet") if row.status == psutil.CONN_LISTEN]
                    found |= {f"{row.laddr.ip}:{row.laddr.port}" for row in rows}
        return sorted(row for row in found if not row.startswith(("127.", "::1:")))

    def check(self) -> None:
        """Raises WanreelError when it has ended."""
        code = self.process.poll()
        if code is not None:
            raise WanreelError(f"Ray ended with {code}.", hint=f"Its last words: {_last_words(self.log)}")

    def close(self) -> None:
        """End all of it."""
        if self.process.poll() is not None:
            return
        children: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(self.process.pid).children(recursive=True)
        ask_to_stop(self.process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_STOP)
        self.process.kill()
        self.process.wait()
        for child in psutil.wait_procs(children, timeout=5.0)[1]:
            with contextlib.suppress(psutil.Error):
                child.kill()


@contextlib.contextmanager
def running(
    log: Path,
    address: str = "",
    *,
    ip: str = "127.0.0.1",
    port: int = 0,
    cpus: int | None = None,
    gpus: int | None = None,
) -> Generator[Node]:
    """Ray on this machine while it is open: the first node, or one more of the cluster at `address`.

    `ip`: the address by which the cluster's other machines reach this one. Raises WanreelError.
    """
    port = port or free_port()
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    command += [f"--node-ip-address={ip}"]
    # Where it is left to choose, it waits 15 s for its own parts to say what they chose, and gives up.
    command += [f"--{name}={free_port()}" for name in _PORTS]
    command += [f"--object-store-memory={_OBJECT_STORE}"]
    command += [f"--{name}={amount}" for name, amount in (("num-cpus", cpus), ("num-gpus", gpus)) if amount is not None]
    command += [f"--address={address}"] if address else _head(port)
    log.parent.mkdir(parents=True, exist_ok=True)
    node = _started(command, address or f"{ip}:{port}", log)
    try:
        yield node
    finally:
        node.close()


def _started(command: list[str], address: str, log: Path) -> Node:
    """Raises WanreelError. On a machine that is busy Ray's parts may miss the 30 s that it gives them: then once more."""
    before = log.stat().st_size if log.exists() else 0
    try:
        return _start(command, address, log)
    except WanreelError:
        if _TOO_SLOW not in log.read_bytes()[before:]:
            raise
    _log.warning("Ray did not start within its own time; trying once more")
    return _start(command, address, log)


def _start(command: list[str], address: str, log: Path) -> Node:
    with log.open("ab") as out:
        said = out.seek(0, os.SEEK_END)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    node = Node(process, address, log)
    with contextlib.ExitStack() as stack:
        stack.callback(node.close)
        _wait(node, said)
        stack.pop_all()
    return node


def _head(port: int) -> list[str]:
    return ["--head", f"--port={port}", f"--ray-client-server-port={free_port()}", "--include-dashboard=false"]


def _wait(node: Node, said: int) -> None:
    """Until it says so in its log, beyond what was `said` there before. Raises WanreelError."""
    until = time.monotonic() + _START
    while b"Ray runtime started" not in node.log.read_bytes()[said:]:
        node.check()
        if time.monotonic() > until:
            raise WanreelError(f"Ray did not start within {_START:g} s.", hint=f"Look at {node.log}.")
        time.sleep(_LOOK)


def end_orphan(owner: int, pid: int) -> None:
    """End a Ray of ours whose owner was killed."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid) if pid and not psutil.pid_exists(owner) else None
        if process is not None and "ray.scripts.scripts" in process.cmdline():
            process.terminate()  # the rest of it ends with it


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " / ".join(lines[-3:])


def need_ray() -> None:
    """Raises MissingDependency."""
    if find_spec("ray") is None:
        raise MissingDependency("A cluster takes Ray, which is not installed.", hint="pip install 'wanreel[ray]'")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
