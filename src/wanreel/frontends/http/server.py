"""Server: uvicorn with the patience it lacks. Knows nothing of what the app does.

uvicorn waits for ever for the rest of a header. Here a connection that does not bring its headers in time is closed, and
there are only so many connections, of one address and in all.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from wanreel.host import open_file_limit

#: Seconds in which the headers of a request must have come, from the connection or the request before.
HEADER_TIME = 10.0
#: Seconds that an idle connection is kept for another request.
IDLE_TIME = 15
#: Connections of one address; of addresses on this machine, which may be a proxy, as many as there are in all.
PER_ADDRESS = 256
MOST_CONNECTIONS = 4096
_LARGEST_HEADERS = 32 * 1024
#: Seconds that answers under way get when the server stops.
_LAST_WORDS = 10
_HERE = frozenset({"127.0.0.1", "::1"})


class Patience:
    """How many connections there are, and of whom. One per server."""

    def __init__(self, most: int, proxies: frozenset[str] = frozenset()) -> None:
        self._most = most
        self._unlimited = _HERE | proxies
        self._of_address: Counter[str] = Counter()
        self._all = 0

    def admit(self, address: str) -> bool:
        """Whether there is room for another connection; if so it is counted until `leave`."""
        crowded = address not in self._unlimited and self._of_address[address] >= PER_ADDRESS
        if crowded or self._all >= self._most:
            return False
        self._of_address[address] += 1
        self._all += 1
        return True

    def leave(self, address: str) -> None:
        self._all -= 1
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]


class PatientProtocol(H11Protocol):
    """uvicorn's protocol, closing connections whose headers do not come."""

    patience: Patience

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._address: str | None = None
        self._header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        if not self.patience.admit(address):
            transport.abort()
            return
        self._address = address
        _send_at_once(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._address is not None:
            self.patience.leave(self._address)
            self._address = None
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_answering():
            self._stop_timer()
        elif self.timeout_keep_alive_task is None:
            self._await_headers()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_answering():  # the next request had come already
            self._stop_timer()

    def _is_answering(self) -> bool:
        # uvicorn sets the cycle to None until the first request.
        return bool(self.cycle) and not self.cycle.response_complete

    def _await_headers(self) -> None:
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(HEADER_TIME, self._give_up)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _give_up(self) -> None:
        self._header_timer = None
        if not self._is_answering():
            self.transport.abort()


def _send_at_once(transport: asyncio.Transport) -> None:
    """Without TCP's wait for more to send: it holds the body back behind the headers until the client acknowledges them,
    which clients put off by 40 ms. asyncio sees to it only where the listener was made with the protocol's number."""
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Server(uvicorn.Server):
    """Serves one app until told to stop; tells the app first, so that it says not ready and its streams end."""

    def __init__(self, config: uvicorn.Config, begin_to_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._begin_to_stop = begin_to_stop

    def stop(self, signal_name: str = "") -> None:
        """Finish what is being answered and leave. Asked again: leave at once. Safe in a signal handler."""
        self.force_exit = self.should_exit
        self.should_exit = True

    def leave(self) -> None:
        """The same, however often it is said."""
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Signals belong to whoever runs the server."""
        yield

    async def shutdown(self, sockets: Any = None) -> None:
        """First the app, so that nothing waits for streams that have no end."""
        self._begin_to_stop()
        await super().shutdown(sockets)


def build_server(
    app: ASGIApp,
    begin_to_stop: Callable[[], None],
    trusted_proxies: Iterable[str] = (),
) -> Server:
    """A server for the app; `run` it on a listening socket. `trusted_proxies`: whose X-Forwarded headers are believed."""
    proxies = frozenset(trusted_proxies)
    # Half of the open files stay for the database, videos and pictures.
    patience = Patience(min(MOST_CONNECTIONS, open_file_limit() // 2), proxies)
    protocol = type("Protocol", (PatientProtocol,), {"patience": patience})
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=sorted(proxies) or [],
        timeout_keep_alive=IDLE_TIME,
        timeout_graceful_shutdown=_LAST_WORDS,
        h11_max_incomplete_event_size=_LARGEST_HEADERS,
        lifespan="on",
    )
    return Server(config, begin_to_stop)
