"""Sharing: a public address for a server on this machine, through a tunnel that may not come about."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from wanreel.core.companion import Companion
from wanreel.core.errors import MissingDependency, RemoteError, WanreelError
from wanreel.frontends.http.entrance import Shared

_PATIENCE = 2.0  # seconds that a tunnel under way is waited for at the end


class Tunnel(Protocol):
    """Whoever can make a local port reachable from everywhere."""

    def open(self, port: int) -> str:
        """The public https address. Blocks for up to a minute. Raises WanreelError saying why there is none."""
        ...

    def close(self) -> None: ...


class GradioTunnel:
    """Gradio's share servers, reached with its own program, which it downloads the first time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, port: int) -> str:
        try:
            from gradio import networking, tunneling
        except ImportError as exc:
            raise MissingDependency("Sharing needs Gradio.", hint="pip install 'wanreel[ui]'.") from exc
        try:
            tunneling.Tunnel.download_binary()
            _check_program(tunneling)
            self._folder.mkdir(parents=True, exist_ok=True)
            # Gradio keeps the server's certificate in the working directory otherwise, wherever that is.
            networking.CERTIFICATE_PATH = str(self._folder / "share.pem")  # pyright: ignore[reportPrivateImportUsage]
            return networking.setup_tunnel("127.0.0.1", port, secrets.token_urlsafe(32), None, None)
        except Exception as exc:  # Gradio raises what it likes
            said = str(exc).strip().splitlines() or [type(exc).__name__]
            raise RemoteError(
                f"Gradio's tunnel can't be opened: {said[0].rstrip('.')}.", hint="Is there a connection?"
            ) from exc

    def close(self) -> None:
        from gradio import tunneling

        for tunnel in tunneling.CURRENT_TUNNELS:
            if tunnel.proc is not None:
                tunnel.proc.terminate()
                tunnel.proc = None  # else Gradio says so on stdout when Python ends


def _check_program(tunneling: Any) -> None:
    """Gradio compares the hash after a download only. Raises RemoteError for another program than it names."""
    expected = tunneling.CHECKSUMS.get(tunneling.BINARY_URL)
    found = hashlib.sha256(Path(tunneling.BINARY_PATH).read_bytes()).hexdigest()
    if expected is not None and found != expected:
        raise RemoteError(f"{tunneling.BINARY_PATH} is not the program that Gradio names.", hint="Delete it.")


class Sharing(Companion):
    """A context in which a tunnel is opened beside the server. `opened` and `failed` are called once, from a thread."""

    def __init__(
        self,
        tunnel: Tunnel,
        port: int,
        shared: Shared,
        opened: Callable[[str], None],
        failed: Callable[[WanreelError], None],
    ) -> None:
        super().__init__("tunnel", _PATIENCE)
        self._tunnel = tunnel
        self._port = port
        self._shared = shared
        self._opened = opened
        self._failed = failed
        self._open = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if self._open:
            self._tunnel.close()

    def _run(self) -> None:
        try:
            url = self._tunnel.open(self._port)
        except WanreelError as error:
            self._failed(error)
            return
        self._open = True
        self._shared.url = url.rstrip("/")
        self._opened(self._shared.url)
