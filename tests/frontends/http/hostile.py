"""Requests that nobody sends in good faith: pictures and bodies that grow, and names that are paths."""

from __future__ import annotations

import base64
import io
import itertools
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from PIL import Image

MIB = 2**20
#: In every name of the path fuzz: what is opened must not hold it, as names are only ever compared.
MARK = "zq7x"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *more: bytes, depth: int = 8, colour: int = 0, data: bytes | None = None) -> bytes:
    """A PNG put together by hand; its header may promise what it likes."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 10_000) if data is None else data
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(more) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def black(side: int) -> bytes:
    """A sound 1-bit PNG of a few KB."""
    return png(side, side, depth=1, data=zlib.compress(bytes((side // 8 + 2) * side), 9))


def many_scans(scans: int) -> bytes:
    """A progressive JPEG whose last scan is there again and again: each costs a pass over the whole picture."""
    data = saved(Image.new("RGB", (4096, 4096), (9, 90, 200)), "JPEG", progressive=True, quality=50)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def clear(width: int, height: int) -> bytes:
    """As large as is accepted, from a few KB."""
    return png(width, height, colour=6, data=zlib.compress(bytes((width * 4 + 1) * height), 1))


def noise(width: int, height: int) -> bytes:
    """The same as a JPEG."""
    image = Image.effect_noise((256, 256), 90).convert("RGB").resize((width, height))
    return saved(image, "JPEG", quality=40)


def frames(kind: str) -> bytes:
    images = [Image.new("RGB", (64, 48), (i % 256, i // 4, 7)) for i in range(1000)]
    return saved(images[0], kind, save_all=True, append_images=images[1:])


#: Name, the bytes, and whether they are a picture all the same.
PICTURES: tuple[tuple[str, Callable[[], bytes], bool], ...] = (
    ("9000 px of one bit", lambda: black(9000), False),
    ("60000 px", lambda: png(60_000, 60_000), False),
    ("2^31 px", lambda: png(2**31 - 1, 2**31 - 1), False),
    ("0x0", lambda: png(0, 0), False),
    ("1x30000", lambda: png(1, 30_000), False),
    ("64 MB of zTXt", lambda: png(64, 64, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(64 * MIB), 9))), False),
    ("64 MB of iCCP", lambda: png(64, 64, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(64 * MIB), 9))), False),
    ("64 MB of iTXt", lambda: png(64, 64, chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(64 * MIB), 9))), False),
    ("IDAT of 64 MB", lambda: png(64, 64, data=zlib.compress(bytes(64 * MIB), 9)), True),
    ("10000 chunks", lambda: png(64, 64, *[chunk(b"tEXt", b"a\0b")] * 10_000), True),
    ("1000 frames of GIF", lambda: frames("GIF"), False),
    ("1000 frames of WebP", lambda: frames("WEBP"), True),
    ("1000 frames of PNG", lambda: frames("PNG"), True),
    ("TIFF", lambda: saved(Image.new("RGB", (64, 48)), "TIFF"), False),
    ("BMP", lambda: saved(Image.new("RGB", (64, 48)), "BMP"), False),
    ("ICO", lambda: saved(Image.new("RGB", (64, 48)), "ICO"), False),
    ("PSD", lambda: b"8BPS\0\1" + bytes(100), False),
    ("EPS", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99999 99999\n", False),
    ("PDF", lambda: b"%PDF-1.7\n" + bytes(100), False),
    ("SVG", lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', False),
    ("HEIF", lambda: b"\0\0\0\x18ftypheic" + bytes(100), False),
    ("MP4", lambda: b"\0\0\0\x18ftypisom" + bytes(100), False),
    ("JPEG cut short", lambda: saved(Image.new("RGB", (640, 480)), "JPEG")[:400], False),
    ("JPEG of 65500 px", lambda: saved(Image.new("L", (65_500, 16)), "JPEG"), False),
    ("33 megapixels with transparency", lambda: clear(8192, 4028), True),
    ("33 megapixels of noise", lambda: noise(8192, 4028), True),
    ("JPEG of 2000 scans", lambda: many_scans(2000), False),
    ("WebP of 16383 px", lambda: saved(Image.new("RGB", (16_383, 16)), "WEBP"), False),
    ("nothing", lambda: b"", False),
    ("a magic number alone", lambda: b"\x89PNG\r\n\x1a\n", False),
)

#: Name, content type and body of requests to POST /v1/videos.
BODIES: tuple[tuple[str, str, Callable[[], bytes]], ...] = (
    ("JSON 10,000 deep", "application/json", lambda: b'{"prompt": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"),
    ("objects 10,000 deep", "application/json", lambda: b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    ("NaN", "application/json", lambda: b'{"prompt": "x", "guidance_scale": NaN}'),
    ("Infinity", "application/json", lambda: b'{"prompt": "x", "seconds": Infinity}'),
    ("1e999", "application/json", lambda: b'{"prompt": "x", "seconds": 1e999}'),
    ("a number of 5,000 digits", "application/json", lambda: b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}"),
    ("a prompt of 10 MB", "application/json", lambda: b'{"prompt": "' + b"x" * 10**7 + b'"}'),
    ("100,000 fields", "application/json", lambda: b"{" + b",".join(b'"f%d":1' % i for i in range(100_000)) + b"}"),
    ("15 million lists", "application/json", lambda: b'{"prompt": "x", "a": [' + b"[]," * (14 * 10**6) + b"1]}"),
    ("20,000 loras", "application/json", lambda: b'{"prompt": "x", "loras": [' + b'"a",' * 19_000 + b'"a"]}'),
    ("NUL in a prompt", "application/json", lambda: b'{"prompt": "a\\u0000b"}'),
    ("half a character", "application/json", lambda: b'{"prompt": "a\\ud800b"}'),
    ("not UTF-8", "application/json", lambda: b'{"prompt": "\xff\xfe"}'),
    ("100 MB of base64", "application/json", lambda: b'{"prompt": "x", "image": "' + b"A" * 10**8 + b'"}'),
    ("40 MB of base64", "application/json", lambda: b'{"prompt": "x", "image": "' + b"A" * (40 * 10**6) + b'"}'),
    ("31 MB of form", "multipart/form-data; boundary=b", lambda: _part("prompt", bytes(31 * 10**6)) + b"--b--\r\n"),
    ("5,000 parts", "multipart/form-data; boundary=b", lambda: _part("a", b"x") * 5000 + b"--b--\r\n"),
    ("a header of 1 MB", "multipart/form-data; boundary=b", lambda: _part("a" * MIB, b"x") + b"--b--\r\n"),
    ("a form without end", "multipart/form-data; boundary=b", lambda: b"--b\r\n" + b"\r" * 100_000),
    ("no boundary", "multipart/form-data", lambda: b"--\r\n\r\n----"),
    ("brackets", "application/x-www-form-urlencoded", lambda: b"a" + b"[a]" * 10_000 + b"=1"),
    ("a list of 100,000", "application/x-www-form-urlencoded", lambda: b"&".join([b"a[]=1"] * 100_000)),
)


def _part(name: str, data: bytes) -> bytes:
    return b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), data)


def data_url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


_ODD = (
    "..", "../..", "..\\..", "....//", "%2e%2e", "%2e%2e%2f", "%252e%252e%252f", "..%c0%af", "..%5c", ".", "~", "~root",
    "/", "//", "\\\\", "\\\\?\\C:\\", "C:", "C:\\", "/proc/self", "/proc/self/fd/0", "/dev/stdin", "/etc/passwd",
    "/etc", "file:", "file://", "file:///etc/passwd", "\x00", "\n", "\r\n", "\t", "\u202e", "\u2024\u2024",
    "\uff0e\uff0e\uff0f", "\u2215", "$HOME", "${HOME}", "`id`", "|id", ";", "*", "?", "[a]", "con", "nul", "aux.png",
    "wanreel.db", "keys.json", "webhook.secret", "config.toml", "outputs", "uploads", "pictures", "link", ".png",
    ".safetensors", "::$DATA", "\ud7ff", "\U0001f600", "a" * 300, "%00", "%0a", "0x2f", "&#47;", "..;/",
)  # fmt: skip


def names(outside: str, seed: int = 0) -> Iterator[str]:
    """Without end: names put together from what leads elsewhere on some system; `outside` is a file that must not be read."""
    dice = random.Random(seed)
    for number in itertools.count():
        pieces = [dice.choice(_ODD) for _ in range(dice.randrange(1, 6))]
        if number % 5 == 0:
            pieces.append(dice.choice(("", "..", "../" * dice.randrange(12))) + outside)
        glue = dice.choice(("/", "\\", "", "%2f", "//"))
        yield glue.join(dice.sample([*pieces, MARK], len(pieces) + 1))
