"""No request reaches the server's network (T18): every connection that is begun is seen by an audit hook."""

from __future__ import annotations

import gzip
import ipaddress
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest

from frontends.audit import Watch, watching
from frontends.canary import NAME, Canary, canary, certificates, drip
from wanreel.core.errors import InvalidRequest, RemoteError, SettingsError
from wanreel.core.settings_groups import OutboundSettings
from wanreel.frontends import fetcher
from wanreel.frontends.addresses import Denied, Rules, is_public, origins_of
from wanreel.frontends.fetcher import Fetcher, build_fetcher

PUBLIC = "93.184.216.34"
#: One of each kind that is not public, or leads to what is not.
FORBIDDEN = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.8", "192.0.0.192", "192.0.2.1", "192.88.99.1",
    "198.18.0.1", "198.51.100.7", "203.0.113.9", "168.63.129.16", "224.0.0.1", "239.255.255.250", "240.0.0.1",
    "255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::ffff:93.184.216.34", "::127.0.0.1", "::93.184.216.34",
    "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::",
    "2002:5db8:d822::1", "3fff::1", "4000::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%lo",
    "fec0::1", "ff02::1",
]  # fmt: skip
#: The same server in every spelling, and what is no address of a picture at all.
SPELLINGS = [
    "https://2130706433/", "https://0x7f000001/", "https://0x7f.0.0.1/", "https://017700000001/", "https://0177.0.0.1/",
    "https://127.1/", "https://127.0.1/", "https://0/", "https://127.0.0.1./", "https://[::ffff:7f00:1]/",
    "https://[0:0:0:0:0:0:0:1]/", "https://[::1%25lo]/", "https://127。0。0。1/", "https://127.0.0.1%2f@example.com/",
    "https://user@example.com/", "https://user:secret@example.com/", "https://@example.com/", "https://example.com@/",
    "https://example.com\\@127.0.0.1/", "https://example.com\\.evil.example/", "https://exa mple.com/", "https:///x",
    "https:x", "//example.com/", "example.com/x.png", "https://example.com:22/", "https://example.com:8443/",
    "https://example.com:0/", "https://example.com:99999/", "https://[::1/", "https://[example.com]/", "https://",
    "https://exam\tple.com/", "https://example.com/\r\nHost: x", "https://example.com/\x00", "https://ⓛocalhost/",
    "file:///etc/passwd", "gopher://127.0.0.1:70/x", "ftp://example.com/x", "dict://127.0.0.1:11211/",
    "jar:https://example.com!/", "https://[2606:00::1%1\xff]", "https://" + "a" * 3000, "http://example.com/x.png",
]  # fmt: skip
#: Names that stand for this machine or its network.
NAMES = ["localhost", "localhost.", "LOCALHOST", "ip6-localhost", "xn--lcalhost-q4a", "metadata", "a" * 63 + ".test"]


def no_connection(host: str, port: int) -> bool:
    return False


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Notes every connection begun, and lets none be made."""
    with watching(no_connection) as made:
        yield made


def never(host: str, port: int) -> list[str]:
    raise AssertionError(f"{host} was looked up")


def numeric(host: str, port: int) -> list[str]:
    """What the system's resolver makes of an address written out; it asks nobody."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST)]


def refuses(url: str, resolve: Any = never, **rules: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as error:
        Fetcher(Rules(**rules), resolve=resolve).get(url, "image")
    return error.value


@pytest.mark.parametrize("address", FORBIDDEN)
def test_addresses_inside_are_not_called(address: str, watch: Watch) -> None:
    literal = f"https://[{address.replace('%', '%25')}]/" if ":" in address else f"https://{address}/x.png"
    refuses(literal, numeric)
    refuses("https://pictures.example/x.png", lambda host, port: [address])
    # One address that is not public spoils a name, wherever it stands among others.
    refuses("https://pictures.example/x.png", lambda host, port: [PUBLIC, address])
    refuses("https://pictures.example/x.png", lambda host, port: [address, PUBLIC])
    assert watch.connects == []


@pytest.mark.parametrize("url", SPELLINGS)
def test_odd_spellings_are_not_called(url: str, watch: Watch) -> None:
    refuses(url, numeric)
    assert watch.connects == []


@pytest.mark.parametrize("name", NAMES)
def test_names_of_this_machine_are_not_called(name: str, watch: Watch) -> None:
    refuses(f"https://{name}/", lambda host, port: ["127.0.0.1"] if port == 443 else never(host, port))
    assert watch.connects == []


def test_there_are_enough_cases() -> None:
    assert len(FORBIDDEN) + len(SPELLINGS) + len(NAMES) >= 60
    assert all(not is_public(address) for address in FORBIDDEN)
    assert all(is_public(address) for address in (PUBLIC, "1.1.1.1", "2606:4700::1111", "2a00:1450:4001::1"))
    text = [ipaddress.ip_address(address.partition("%")[0]) for address in FORBIDDEN]
    assert sum(address.is_global for address in text) >= 5, "some are forbidden beyond what Python calls private"


@pytest.mark.parametrize("url", ["https://127.0.0.1:{}/", "http://127.0.0.1:{}/", "http://2130706433:{}/"])
def test_the_watch_and_the_canary_work(url: str) -> None:
    """The positive control: a client that checks nothing is seen, and gets through."""
    with canary() as server, watching(lambda host, port: port == server.port) as watch:
        server.answers("/", b"inside")
        if url.startswith("http:"):
            httpx.get(url.format(server.port), trust_env=False)
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/") as answer:
                assert answer.read() == b"inside"
        else:
            with pytest.raises(httpx.TransportError):
                httpx.get(url.format(server.port), trust_env=False)
        assert watch.connects and server.port == watch.connects[0][1]
        refuses(url.format(server.port), numeric, allow_http=True)


def test_a_name_that_means_something_else_a_moment_later(watch: Watch) -> None:
    answers = iter([[PUBLIC], ["127.0.0.1"], ["127.0.0.1"]])
    asked: list[str] = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return next(answers)

    refuses("https://rebinding.example/x.png", rebinding)
    assert asked == ["rebinding.example"] and watch.connects == [(PUBLIC, 443)]


def test_every_address_of_a_name_is_tried_and_no_other(watch: Watch) -> None:
    refuses("http://many.example/x.png", lambda host, port: [PUBLIC, "1.1.1.1", PUBLIC], allow_http=True)
    assert watch.connects == [(PUBLIC, 80), ("1.1.1.1", 80)]


@pytest.mark.parametrize("name", ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"])
def test_proxies_of_the_environment_are_not_used(name: str, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:3128")
    for scheme, port in (("http", 80), ("https", 443)):
        refuses(f"{scheme}://pictures.example/x.png", lambda host, port: [PUBLIC], allow_http=True)
        assert watch.connects.pop() == (PUBLIC, port) and not watch.connects


# With a server of the operator's own


def private(server: Canary, name: str = "127.0.0.1", scheme: str = "http") -> Fetcher:
    """A Fetcher that may call this one server inside, and nothing else there."""
    rules = Rules(True, origins_of([f"{scheme}://{name}:{server.port}"]))
    return Fetcher(rules, resolve=lambda host, port: ["127.0.0.1"])


@pytest.fixture
def server() -> Iterator[Canary]:
    with canary() as made:
        yield made


def test_a_server_that_the_operator_names_is_called(server: Canary) -> None:
    server.answers("/a.png", b"picture")
    assert private(server).get(f"http://127.0.0.1:{server.port}/a.png?q=1#part", "image") == b"picture"
    (asked,) = server.asked
    assert asked.path == "/a.png?q=1" and asked.headers["Host"] == f"127.0.0.1:{server.port}"
    assert asked.headers["Accept-Encoding"] == "identity" and "Cookie" not in asked.headers
    other = Fetcher(Rules(True, origins_of(["http://127.0.0.1:1"])), resolve=numeric)
    with pytest.raises(InvalidRequest):
        other.get(f"http://127.0.0.1:{server.port}/a.png", "image")
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_and_checked(server: Canary, status: int) -> None:
    server.answers("/a", status=status, Location="/b")
    server.answers("/b", status=status, Location=f"http://127.0.0.1:{server.port}/c")
    server.answers("/c", b"there")
    assert private(server).get(f"http://127.0.0.1:{server.port}/a", "image") == b"there"


def test_there_is_an_end_to_redirects(server: Canary) -> None:
    for number in range(6):
        server.answers(f"/{number}", status=302, Location=f"/{number + 1}")
    server.answers("/6", b"there")
    assert private(server).get(f"http://127.0.0.1:{server.port}/3", "image") == b"there"
    with pytest.raises(InvalidRequest):
        private(server).get(f"http://127.0.0.1:{server.port}/2", "image")
    assert [asked.path for asked in server.asked] == ["/3", "/4", "/5", "/6", "/2", "/3", "/4", "/5"]


@pytest.mark.parametrize(
    "target",
    [f"https://{a}/" if ":" not in a else f"https://[{a}]/" for a in FORBIDDEN[:40:3]]
    + SPELLINGS
    + ["http://localhost:{other}/", "//127.0.0.1:{other}/", "http://127.0.0.1:{other}/"],
)
def test_redirects_lead_to_nothing_inside(server: Canary, target: str) -> None:
    if not target.isascii() or not target.isprintable():
        target = target.encode("unicode_escape").decode()
    if target in ("https:x", "example.com/x.png", "http://example.com/x.png"):
        return  # relative ones, which stay on the server, and one that this fetcher may follow
    with canary() as other, watching(lambda host, port: port == server.port) as watch:
        server.answers("/a", status=302, Location=target.replace("{other}", str(other.port)))
        with pytest.raises(InvalidRequest):
            private(server).get(f"http://127.0.0.1:{server.port}/a", "image")
        assert watch.connects == [("127.0.0.1", server.port)] and other.asked == []


def test_tls_is_for_the_name_and_never_given_up(tmp_path: Path) -> None:
    shows, trusts = certificates(tmp_path)
    with canary(shows) as server, canary() as plain:
        origins = origins_of([f"https://{NAME}:{server.port}", f"https://other.test:{server.port}",
                              f"http://{NAME}:{plain.port}"])  # fmt: skip
        made = Fetcher(Rules(True, origins), resolve=lambda host, port: ["127.0.0.1"], trust=trusts)
        server.answers("/a", b"picture")
        server.answers("/down", status=302, Location=f"http://{NAME}:{plain.port}/a")
        plain.answers("/a", b"plain")
        assert made.get(f"https://{NAME}:{server.port}/a", "image") == b"picture"
        assert server.names == [NAME] and server.asked[0].headers["Host"] == f"{NAME}:{server.port}"
        for url in (f"https://other.test:{server.port}/a", f"https://{NAME}:{server.port}/down"):
            with pytest.raises(InvalidRequest):
                made.get(url, "image")
        assert plain.asked == []
        untrusting = Fetcher(made.rules, resolve=lambda host, port: ["127.0.0.1"])
        with pytest.raises(InvalidRequest):
            untrusting.get(f"https://{NAME}:{server.port}/a", "image")
        assert len(server.asked) == 2


def slow_headers(to: BaseHTTPRequestHandler) -> None:
    to.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(1000):
        to.wfile.write(f"X-{number}: y\r\n".encode())
        time.sleep(0.02)


def silent(to: BaseHTTPRequestHandler) -> None:
    time.sleep(3)


@pytest.mark.parametrize("case", ["drip", "stall", "headers", "silence"])
def test_slow_servers_are_given_up(server: Canary, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "TOTAL", 1.0)
    monkeypatch.setattr(fetcher, "GRACE", 0.3)
    server.streams("/drip", drip(b"x", 0.01))
    server.streams("/stall", lambda: iter([b"x" * 1000, time.sleep(3) or b""]))
    server.pages |= {"/headers": slow_headers, "/silence": silent}
    began = time.monotonic()
    with pytest.raises(InvalidRequest):
        private(server).get(f"http://127.0.0.1:{server.port}/{case}", "image")
    assert time.monotonic() - began < 2.5


def test_a_server_at_the_floor_is_heard_out(server: Canary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "GRACE", 0.2)
    monkeypatch.setattr(fetcher, "FLOOR", 1000)
    server.streams("/", lambda: (time.sleep(0.02) or b"x" * 100 for _ in range(40)))
    assert len(private(server).get(f"http://127.0.0.1:{server.port}/", "image")) == 4000


def test_a_resolver_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "TOTAL", 0.2)
    answer = threading.Event()

    def hanging(host: str, port: int) -> list[str]:
        answer.wait(20)
        return [PUBLIC]

    try:
        refuses("https://pictures.example/", hanging)
    finally:
        answer.set()


def test_an_endless_body_ends_at_the_limit(server: Canary) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 2**16
            yield b"x" * 2**16

    server.streams("/", endless)
    with pytest.raises(InvalidRequest):
        private(server).get(f"http://127.0.0.1:{server.port}/", "image")
    assert sent < 2 * fetcher.LARGEST


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Length": str(fetcher.LARGEST + 1)},
        {"Content_Encoding": "gzip", "Content_Length": "1000"},
        {"Content_Encoding": "br", "Content_Length": "0"},
        {"Content_Length": "-1"},
        {"Content_Length": "1e3"},
    ],
)
def test_what_is_announced_counts(server: Canary, headers: dict[str, str]) -> None:
    server.answers("/", gzip.compress(bytes(10_000_000))[:1000], headers=headers)
    with pytest.raises(InvalidRequest):
        private(server).get(f"http://127.0.0.1:{server.port}/", "image")


@pytest.mark.parametrize("status", [204, 206, 304, 401, 403, 404, 500])
def test_only_an_answer_is_an_answer(server: Canary, status: int) -> None:
    server.answers("/", b"" if status in (204, 304) else b"x", status)
    with pytest.raises(InvalidRequest):
        private(server).get(f"http://127.0.0.1:{server.port}/", "image")


def test_the_words_are_the_same_whatever_the_reason(server: Canary, watch: Watch) -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise OSError("no such name canary-name")

    told = {
        str(refuses("https://127.0.0.1/secret-path")),
        str(refuses("https://user:secret@example.com/")),
        str(refuses("https://inside.example/", lambda host, port: ["10.0.0.1"])),
        str(refuses("https://unknown.example/", unknown)),
        str(refuses("https://down.example/", lambda host, port: [PUBLIC])),
        str(refuses("ftp://x/")),
    }
    assert len(told) == 1 and "secret" not in told.pop()
    words: set[str] = set()
    for url in ("https://127.0.0.1/", "https://down.example/?token=secret"):
        with pytest.raises(RemoteError) as error:
            Fetcher(Rules(), resolve=lambda host, port: [PUBLIC]).post(url, {}, b"{}")
        words.add(str(error.value))
    assert len(words) == 1 and "secret" not in words.pop()


def test_post_follows_nothing(server: Canary) -> None:
    server.answers("/hook", status=307, Location="/other")
    assert private(server).post(f"http://127.0.0.1:{server.port}/hook", {"X-A": "b"}, b"body") == 307
    (asked,) = server.asked
    assert (asked.method, asked.body, asked.headers["X-A"]) == ("POST", b"body", "b")


def test_an_operators_origins() -> None:
    assert origins_of(["http://10.0.0.5:8080", "https://Hooks.internal/", "http://[fd00::1]"]) == {
        "http://10.0.0.5:8080",
        "https://hooks.internal:443",
        "http://[fd00::1]:80",
    }
    for text in ("10.0.0.5", "http://a/path", "ftp://a", "http://u@a", "*", ""):
        with pytest.raises(Denied):
            origins_of([text])
        with pytest.raises(SettingsError):
            build_fetcher(OutboundSettings(private_origins=(text,)))


def test_trust_is_the_systems_by_default() -> None:
    made = build_fetcher(OutboundSettings())
    assert made.trust.verify_mode is ssl.CERT_REQUIRED and made.trust.check_hostname
