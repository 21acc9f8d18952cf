"""Addresses: which ones a request may make the server call. Knows nothing of how they are called.

Only what is public by the registries of IANA, and none of the public ones that lead back inside: addresses that carry
another one (6to4, NAT64, Teredo, mapped and compatible IPv4) and those that clouds serve their machines at.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import httpx

PORTS = (80, 443)
LONGEST = 2048  #: characters of an address
_DEFAULT_PORT = {"https": 443, "http": 80}
#: What no address holds as it stands, and what other parsers read otherwise than ours.
_ODD = re.compile(r"[\x00-\x20\x7f\\<>\"^`{|}]")
#: A last label that some resolvers read as a number, and with it the whole name as an IPv4 address (inet_aton(3)).
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?")
_USER = re.compile(r"[^/?#]*//[^/?#]*@")
_IPV6_PUBLIC = ipaddress.ip_network("2000::/3")  # all that is given out as unicast addresses so far
_DENIED = tuple(
    ipaddress.ip_network(text)
    for text in (
        "100.64.0.0/10",  # behind a provider's address translation
        "168.63.129.16/32",  # Azure's own services, from within
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata
        "192.88.99.0/24",  # 6to4 relays
        "2001::/23",  # protocol assignments; Teredo
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
    )
)


class Denied(ValueError):
    """The address may not be called. Its text is for developers; clients are told no more than that."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where an address leads, read once: whoever calls it uses these parts and never the text."""

    scheme: str
    host: str  #: ASCII, in lower case, IPv6 without brackets
    port: int
    path: str  #: path and query as sent
    is_private: bool  #: the operator says that it may be called though it is not public

    @property
    def origin(self) -> str:
        return _origin(self.scheme, self.host, self.port)

    @property
    def authority(self) -> str:
        """As in the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORT[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator allows."""

    allow_http: bool = False
    private_origins: frozenset[str] = field(default_factory=frozenset[str])  #: as `origins_of` writes them

    def target(self, text: str) -> Target:
        """Where `text` leads. Raises Denied; looks nothing up."""
        url = _parsed(text)
        scheme, host = url.scheme, url.raw_host.decode("ascii").lower()
        if scheme not in _DEFAULT_PORT:
            raise Denied("neither https nor http")
        if _USER.match(text):
            raise Denied("names a user")
        port = _port_of(url)
        is_private = _origin(scheme, host, port) in self.private_origins
        if not is_private:
            self._check_public(scheme, host, port)
        return Target(scheme, host, port, url.raw_path.decode("ascii"), is_private)

    def _check_public(self, scheme: str, host: str, port: int) -> None:
        if scheme == "http" and not self.allow_http:
            raise Denied("http, not https")
        if port not in PORTS:
            raise Denied("a port that is not the web's")
        literal = _address(host)
        if literal is None and (_NUMERIC.fullmatch(host) or "%" in host or ":" in host):
            raise Denied("an address written oddly")
        if literal is not None and not is_public(host):
            raise Denied("not public")

    def follow(self, target: Target, location: str) -> Target:
        """Where a redirect from `target` leads. Raises Denied."""
        try:
            joined = str(httpx.URL(target.url).join(location))
        except (httpx.InvalidURL, UnicodeError, ValueError) as exc:
            raise Denied("not an address") from exc
        following = self.target(joined)
        if target.scheme == "https" and following.scheme != "https":
            raise Denied("from https to http")
        return following

    def check_all(self, target: Target, addresses: Iterable[str]) -> list[str]:
        """The IP addresses a name stands for, all of which must be allowed. Raises Denied."""
        found = list(dict.fromkeys(addresses))
        if not found:
            raise Denied("stands for nothing")
        if not target.is_private and not all(is_public(text) for text in found):
            raise Denied("not public")
        return found


def is_public(text: str) -> bool:
    """Whether an IP address is public, and leads nowhere else."""
    address = _address(text)
    if address is None or not address.is_global or address.is_multicast:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address not in _IPV6_PUBLIC:
        return False
    return not any(address.version == network.version and address in network for network in _DENIED)


def origins_of(texts: Iterable[str]) -> frozenset[str]:
    """What an operator wrote as `private_origins`, in one form. Raises ValueError for what is no origin."""
    found: set[str] = set()
    for text in texts:
        url = _parsed(text)
        if url.scheme not in _DEFAULT_PORT or _USER.match(text) or url.raw_path not in (b"", b"/"):
            raise Denied(f"{text!r} is not of the form http://name:port")
        found.add(_origin(url.scheme, url.raw_host.decode("ascii").lower(), _port_of(url)))
    return frozenset(found)


def _parsed(text: str) -> httpx.URL:
    if len(text) > LONGEST or _ODD.search(text) or not text.isprintable():
        raise Denied("holds what no address holds")
    try:
        url = httpx.URL(text)
        named = url.raw_host.isascii()
    except (httpx.InvalidURL, UnicodeError, ValueError) as exc:
        raise Denied("not an address") from exc
    if not named or not url.raw_host:
        raise Denied("names no server")
    return url


def _port_of(url: httpx.URL) -> int:
    return _DEFAULT_PORT[url.scheme] if url.port is None else url.port


def _origin(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _address(
    text: str | ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An IP address without a zone; None for anything else."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if getattr(address, "scope_id", None) else address
