"""Fetcher: the one way in which a request can make the server call another one. Knows nothing of why.

The name is looked up once, all its addresses are checked, and the connection goes to one of those very addresses: what
was checked is what is called, whatever the name stands for a moment later. The host in TLS and HTTP stays the name.
No proxy, no cookies, no credentials, no compression; redirects are followed by hand and each is checked like the first.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import certifi
import httpcore

from wanreel.core.errors import InvalidRequest, RemoteError, SettingsError
from wanreel.core.settings_groups import OutboundSettings
from wanreel.frontends.addresses import Denied, Rules, Target, origins_of

MIB = 1024 * 1024
LARGEST = 20 * MIB
#: Seconds from the first look-up to the last byte, redirects included.
TOTAL = 10.0
#: Seconds after which a body must have brought FLOOR bytes for each second since it began.
GRACE = 3.0
FLOOR = 1 * MIB
MOST_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: Look-ups under way at a time. One that is given up goes on until the system's resolver has given up too.
_LOOKUPS = 32
_AGENT = b"wanreel"

Resolve = Callable[[str, int], list[str]]  #: the IP addresses of a name; raises OSError


def resolve(host: str, port: int) -> list[str]:
    """What the system knows the name as."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class Fetcher:
    """Calls other servers within the rules. Safe to use from several threads."""

    def __init__(
        self,
        rules: Rules,
        *,
        resolve: Resolve = resolve,
        trust: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rules = rules
        self._resolve = resolve
        self._given_trust = trust
        self._clock = clock
        self._lookups = threading.BoundedSemaphore(_LOOKUPS)

    @functools.cached_property
    def trust(self) -> ssl.SSLContext:
        """Who is believed to be who he says: whom the system believes. Made when it is first needed, as it takes a while."""
        if self._given_trust is not None:
            return self._given_trust
        known = ssl.get_default_verify_paths()
        # A system without certificates, as small containers are: those that come with Python packages.
        return ssl.create_default_context(cafile=None if known.cafile or known.capath else certifi.where())

    def check(self, url: str, knob: str) -> None:
        """Raises InvalidRequest naming `knob` where the text of `url` shows that it is never called."""
        try:
            self.rules.target(url)
        except Denied as exc:
            raise _unreadable(knob) from exc

    def get(self, url: str, knob: str) -> bytes:
        """What lies at `url`. Raises InvalidRequest naming `knob`, in the same words whatever the reason.

        Who could tell "refused" from "not there" could find out what is inside the server's network.
        """
        try:
            return self._get(url, _Deadline(self._clock, self._clock() + TOTAL))
        except (Denied, _Unfit, *_FAULTS) as exc:
            raise _unreadable(knob) from exc

    def _get(self, url: str, deadline: _Deadline) -> bytes:
        target = self.rules.target(url)
        for _ in range(MOST_REDIRECTS + 1):
            with self._call("GET", target, {}, None, deadline) as answer:
                if answer.status not in _REDIRECTS:
                    return self._body(answer, deadline)
                target = self.rules.follow(target, _header(answer, b"location"))
        raise _Unfit("too many redirects")

    def _body(self, answer: httpcore.Response, deadline: _Deadline) -> bytes:
        if answer.status != 200 or _header(answer, b"content-encoding", "identity").lower() != "identity":
            raise _Unfit("status or encoding")
        announced = _header(answer, b"content-length", "0")
        if not announced.isascii() or not announced.isdecimal() or int(announced[:20]) > LARGEST:
            raise _Unfit("length")
        began, data = self._clock(), bytearray()
        # Every byte buys the time in which the next must come.
        deadline.earlier = began + GRACE
        for chunk in answer.iter_stream():
            data += chunk
            if len(data) > LARGEST:
                raise _Unfit("length")
            deadline.earlier = began + max(GRACE, len(data) / FLOOR)
            deadline.left()
        return bytes(data)

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        """Hand `body` in at `url`; the status of the answer, which is not read. Follows nothing.

        Raises RemoteError, in the same words whatever the reason.
        """
        try:
            deadline = _Deadline(self._clock, self._clock() + TOTAL)
            with self._call("POST", self.rules.target(url), headers, body, deadline) as answer:
                return answer.status
        except (Denied, *_FAULTS) as exc:
            raise RemoteError("It can't be reached.") from exc

    def ask(self, url: str, headers: Mapping[str, str], body: bytes, seconds: float, largest: int) -> tuple[int, bytes]:
        """Hand `body` in at `url`; status and body of the answer, of at most `largest` bytes. Follows nothing.

        Raises RemoteError, saying whether it took longer than `seconds`.
        """
        deadline = _Deadline(self._clock, self._clock() + seconds)
        try:
            with self._call("POST", self.rules.target(url), headers, body, deadline) as answer:
                return answer.status, _whole(answer, largest)
        except (Denied, *_FAULTS) as exc:
            late = self._clock() >= deadline.end or isinstance(exc, httpcore.TimeoutException)
            said = f"gave no answer within {seconds:g} s." if late else "can't be reached."
            raise RemoteError(f"The language model's server {said}") from exc

    def addresses(self, origin: str) -> list[str]:
        """The IP addresses that a server may be called at, for callers that bring their own client.

        Raises RemoteError, in the same words whatever the reason.
        """
        try:
            target = self.rules.target(origin)
            return self.rules.check_all(target, self._look_up(target, _Deadline(self._clock, self._clock() + TOTAL)))
        except (Denied, _Unfit) as exc:
            raise RemoteError("It can't be reached.") from exc

    @contextlib.contextmanager
    def _call(
        self, method: str, target: Target, headers: Mapping[str, str], body: bytes | None, deadline: _Deadline
    ) -> Generator[httpcore.Response]:
        """One request to one of the addresses that the target's name stands for, on a connection of its own."""
        addresses = self.rules.check_all(target, self._look_up(target, deadline))
        sent = [(b"Host", target.authority.encode()), (b"Accept-Encoding", b"identity"), (b"User-Agent", _AGENT)]
        sent += [(name.encode(), value.encode()) for name, value in headers.items()]
        sent.append((b"Connection", b"close"))
        if body is not None:
            sent.append((b"Content-Length", str(len(body)).encode()))
        origin = httpcore.URL(
            scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path.encode()
        )
        # HTTP/1.1 alone, no retries, no proxy: httpcore reads no environment.
        wire = _Pinned(addresses, deadline)
        with (
            httpcore.ConnectionPool(
                ssl_context=self.trust if target.scheme == "https" else None, network_backend=wire
            ) as pool,
            pool.stream(method, origin, headers=sent, content=body) as answer,
        ):
            yield answer

    def _look_up(self, target: Target, deadline: _Deadline) -> list[str]:
        """The system's resolver takes no time limit, so it is asked in a thread that may be left behind."""
        answers: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()
        if not self._lookups.acquire(timeout=deadline.left()):
            raise _Unfit("too many look-ups")

        def ask() -> None:
            try:
                answers.put(self._resolve(target.host, target.port))
            except (OSError, UnicodeError) as exc:
                answers.put(exc)
            finally:
                self._lookups.release()

        threading.Thread(target=ask, name="resolve", daemon=True).start()
        try:
            answer = answers.get(timeout=deadline.left())
        except queue.Empty as exc:
            raise _Unfit("too slow") from exc
        if isinstance(answer, Exception):
            raise _Unfit("unknown name") from answer
        return answer


def _whole(answer: httpcore.Response, largest: int) -> bytes:
    data = bytearray()
    for part in answer.iter_stream():
        data += part
        if len(data) > largest:
            raise _Unfit("length")
    return bytes(data)


def build_fetcher(settings: OutboundSettings) -> Fetcher:
    """A Fetcher within the operator's rules. Raises SettingsError."""
    try:
        origins = origins_of(settings.private_origins)
    except Denied as exc:
        raise SettingsError(
            "outbound.private_origins holds what is no origin.", hint="Write each as http://name:port."
        ) from exc
    return Fetcher(Rules(settings.allow_http, origins))


class _Unfit(Exception):
    """The other server can't be used."""


_FAULTS = (_Unfit, OSError, ssl.SSLError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException)


@dataclass
class _Deadline:
    """When all must be over. `earlier` brings that forward for a while."""

    clock: Callable[[], float]
    end: float
    earlier: float = field(default=float("inf"))

    def left(self) -> float:
        """Seconds left. Raises _Unfit when there are none."""
        left = min(self.end, self.earlier) - self.clock()
        if left <= 0:
            raise _Unfit("too slow")
        return left


class _Pinned(httpcore.NetworkBackend):
    """Connects to given addresses and to nothing else, whatever name is asked for."""

    def __init__(self, addresses: list[str], deadline: _Deadline) -> None:
        self._addresses = addresses
        self._deadline = deadline
        self._system = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        for address in self._addresses[:-1]:
            with contextlib.suppress(httpcore.NetworkError, httpcore.TimeoutException):
                return self._connect(address, port, self._deadline.left() / 2)
        return self._connect(self._addresses[-1], port, self._deadline.left())

    def _connect(self, address: str, port: int, seconds: float) -> httpcore.NetworkStream:
        return _Timed(self._system.connect_tcp(address, port, timeout=seconds), self._deadline)


class _Timed(httpcore.NetworkStream):
    """A stream all of whose reads and writes together have until the deadline, not each a time of its own."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, timeout=self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout=self._deadline.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Timed(self._stream.start_tls(ssl_context, server_hostname, self._deadline.left()), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _header(answer: httpcore.Response, name: bytes, default: str | None = None) -> str:
    """The one value of a header. Raises _Unfit where it is there twice, or is not and has no default."""
    values = [value.decode("latin-1") for key, value in answer.headers if key.lower() == name]
    if len(values) > 1 or not values and default is None:
        raise _Unfit("headers")
    return values[0] if values else default or ""


def _unreadable(knob: str) -> InvalidRequest:
    return InvalidRequest.of(
        knob, "url_not_readable", "this address can't be used.",
        "It must be a public https address that answers soon; or send the picture itself.",
    )  # fmt: skip
