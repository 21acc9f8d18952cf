"""Fuzzers of whatever reads bytes from outside, for libFuzzer through atheris: `python fuzzers.py TARGET [libFuzzer's options]`.

What a target raises beyond the errors that are meant for clients is a finding, as is what takes longer than 10 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import io
import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Has a wheel for few systems, and no types.
atheris: Any = importlib.import_module("atheris")

with atheris.instrument_imports(
    include=["wanreel", "python_multipart", "starlette.formparsers", "starlette.responses"]
):
    from starlette.requests import Request
    from starlette.responses import FileResponse, RangeNotSatisfiable

    from wanreel.core.errors import InvalidRequest, UnreadablePicture
    from wanreel.core.picture import PictureRef
    from wanreel.frontends.addresses import Denied, Rules
    from wanreel.frontends.http import files
    from wanreel.frontends.http.errors import Refused
    from wanreel.frontends.http.forms import read_body
    from wanreel.frontends.http.pictures import PictureDesk
    from wanreel.frontends.http.uploads import Uploads
    from wanreel.media.pictures import read_picture

_loop = asyncio.new_event_loop()
_folder = Path(tempfile.mkdtemp())


def request(body: bytes, **headers: str) -> Request:
    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    sent = [(name.replace("_", "-").encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": sent}, receive)


def multipart(data: bytes) -> None:
    with contextlib.suppress(Refused):
        _loop.run_until_complete(read_body(request(data, content_type="multipart/form-data; boundary=b")))


def form(data: bytes) -> None:
    with contextlib.suppress(Refused):
        _loop.run_until_complete(read_body(request(data, content_type="application/x-www-form-urlencoded")))


def json(data: bytes) -> None:
    with contextlib.suppress(Refused):
        _loop.run_until_complete(read_body(request(data, content_type="application/json")))


_desk = PictureDesk(lambda data, knob: PictureRef("0" * 64, len(data), 1), Uploads(_folder / "uploads"))


def data_url(data: bytes) -> None:
    text = data.decode("latin-1")
    for value in (text, f"data:{text}", f"data:image/png;base64,{text}"):
        with contextlib.suppress(InvalidRequest):
            _desk.accept("", "image_url", value)


def picture(data: bytes) -> None:
    try:
        made = read_picture(data)
    except UnreadablePicture:
        return
    assert made.png.startswith(b"\x89PNG") and made.width > 0


def address(data: bytes) -> None:
    text = data.decode("latin-1")
    for given in (text, f"https://{text}"):
        try:
            target = Rules(allow_http=True).target(given)
        except Denied:
            continue
        # Read again, an address that was accepted leads to the same place.
        again = Rules(allow_http=True).target(target.url)
        assert (again.host, again.port, again.scheme) == (target.host, target.port, target.scheme)


def ranges(data: bytes) -> None:
    """What Starlette is given to read it reads as one range within the file."""
    value = data.decode("latin-1")
    for given in (value, f"bytes={value}"):
        if files.is_one_range(given):
            with contextlib.suppress(RangeNotSatisfiable):
                ((first, end),) = FileResponse._parse_range_header(given, 1024)
                assert 0 <= first < end <= 1024


TARGETS: dict[str, Callable[[bytes], None]] = {
    "multipart": multipart, "form": form, "json": json, "data_url": data_url, "picture": picture, "address": address,
    "ranges": ranges,
}  # fmt: skip
#: What libFuzzer begins with.
SEEDS: dict[str, list[bytes]] = {
    "multipart": [b'--b\r\nContent-Disposition: form-data; name="a[b][]"; filename="x"\r\n\r\n1\r\n--b--\r\n'],
    "form": [b"prompt=x&loras[][name]=a&extra_body=%7B%22a%22%3A1%7D"],
    "json": [b'{"prompt": "x", "loras": [{"name": "a"}], "extra_body": {"seed": 1e3}}'],
    "data_url": [b"data:image/png;charset=x;base64,iVBORw0KGgo="],
    "address": [b"https://[2606:4700::1111]:443/a?b#c", b"//user@127.1:80\\x", b"xn--a.example."],
    "ranges": [b"bytes=0-9", b"0-0,-1", b"-5"],
}


def picture_seeds() -> list[bytes]:
    from PIL import Image

    made: list[bytes] = []
    for kind in ("PNG", "JPEG", "WEBP"):
        data = io.BytesIO()
        Image.effect_noise((32, 24), 50).convert("RGB").save(data, kind)
        made.append(data.getvalue())
    return made


def main() -> None:
    name = sys.argv[1]
    logging.disable()
    corpus = Path(tempfile.mkdtemp())
    for number, seed in enumerate(picture_seeds() if name == "picture" else SEEDS[name]):
        (corpus / str(number)).write_bytes(seed)
    atheris.Setup([sys.argv[0], *sys.argv[2:], "-timeout=10", "-rss_limit_mb=2048", str(corpus)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
