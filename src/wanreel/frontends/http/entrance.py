"""Entrance: how the server is reached, and from where. Knows nothing of what it serves.

A page on a foreign site can make a browser send requests here, and with DNS rebinding even read the answers.
Three things stop it: the name asked for must be ours, the page asking must be ours, and beyond this machine there must be a key.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from wanreel.core.errors import SettingsError
from wanreel.frontends.http.errors import Refused

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::(?P<port>[0-9]{1,5}))?")
_SAFE_METHODS = frozenset({"GET", "HEAD"})
#: Where a browser may come from: this very site, or no site at all (typed, bookmarked, a program).
_OWN_SITES = frozenset({"same-origin", "none"})


@dataclass(eq=False, slots=True)
class Shared:
    """A tunnel to everywhere, which comes about while the server runs already."""

    url: str = ""  #: its public address; "" while there is none


@dataclass(frozen=True, slots=True)
class Entrance:
    """Where the server listens and by which names it may be called."""

    host: str = "127.0.0.1"  #: address bound
    port: int = 7860
    public_url: str = ""  #: what users type where a proxy stands in front, "" without one
    allowed_hosts: frozenset[str] = frozenset()  #: further names, in lower case
    shared: Shared | None = None  #: where it is also reached through a tunnel

    @property
    def is_loopback(self) -> bool:
        return self.host == "localhost" or _is_loopback(self.host)

    @property
    def needs_key(self) -> bool:
        """Whether others than this machine's users can reach it."""
        return not self.is_loopback or bool(self.public_url) or self.shared is not None

    @property
    def root_path(self) -> str:
        """The path under which a proxy shows the server, "" for its root."""
        return urlsplit(self.public_url).path.rstrip("/")

    @property
    def url(self) -> str:
        """Where to point a browser on this machine, or the public URL."""
        if self.public_url:
            return self.public_url
        name = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104 - compared, not bound
        return f"http://{f'[{name}]' if ':' in name else name}:{self.port}"

    @property
    def _public_urls(self) -> tuple[str, ...]:
        urls = (self.public_url, self.shared.url if self.shared is not None else "")
        return tuple(url for url in urls if url)

    def require_key(self, *, have: bool) -> None:
        """Raises SettingsError where others could come in without a key."""
        if self.needs_key and not have:
            where = self.public_url or (self.host if self.shared is None else "A shared server")
            raise SettingsError(
                f"{where} can be reached from other machines, and there is no API key.",
                hint="Create one with `wanreel keys create NAME`, or listen on 127.0.0.1.",
            )

    def refuse_host(self, headers: Headers) -> None:
        """Raises Refused when the name asked for is not ours (DNS rebinding)."""
        given = headers.getlist("host")
        match = _HOST.fullmatch(given[0]) if len(given) == 1 else None
        if match is None:
            raise Refused(400, "bad_host", "Exactly one Host header is needed.")
        if not self._knows(match["name"].strip("[]").rstrip(".").lower()):
            raise Refused(
                421, "foreign_host", "This server does not go by that name. Add it with --allow-host or --public-url."
            )

    def _knows(self, name: str) -> bool:
        if name == "localhost" or name in self.allowed_hosts or name in map(_name_in, self._public_urls):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name == self.host
        # A rebinding page is called by a name; nobody else's page has an address of this machine as its host. 0.0.0.0,
        # though, leads browsers past their own rules to a loopback server.
        return address.is_loopback or (not self.is_loopback and not address.is_unspecified)

    def refuse_site(self, method: str, headers: Headers, scheme: str) -> None:
        """Raises Refused when the page that asks is not ours. `method` is "GET" for a WebSocket too: see `guard`."""
        origins, sites = headers.getlist("origin"), headers.getlist("sec-fetch-site")
        own = {f"{scheme}://{headers['host'].lower()}", *map(_origin_of, self._public_urls)}
        if len(origins) > 1 or len(sites) > 1 or any(origin.lower() not in own for origin in origins):
            raise Refused(403, "foreign_origin", "Pages of other sites may not use this server.")
        if not sites or sites[0] in _OWN_SITES:
            return
        # A link from elsewhere may open a page; it can't read it.
        if (
            method in _SAFE_METHODS
            and headers.get("sec-fetch-mode") == "navigate"
            and headers.get("sec-fetch-dest") == "document"
        ):
            return
        raise Refused(403, "foreign_site", "Pages of other sites may not use this server.")


def entrance_for(host: str, port: int, public_url: str, allowed_hosts: Iterable[str]) -> Entrance:
    """An Entrance from what an operator typed. Raises SettingsError."""
    if public_url:
        parts = urlsplit(public_url)
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.username
            or parts.query
            or parts.fragment
        ):
            raise SettingsError(f"{public_url!r} is no address to be reached at.", hint="Give it as https://name/path.")
    return Entrance(host, port, public_url.rstrip("/"), frozenset(name.lower().rstrip(".") for name in allowed_hosts))


def _name_in(url: str) -> str:
    return urlsplit(url).hostname or ""


def _origin_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower() if parts.netloc else ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
