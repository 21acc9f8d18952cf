"""The gate for pictures: what comes in clean, and what does not come in."""

from __future__ import annotations

import io
import re
import struct
import tracemalloc
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from wanreel.core.errors import UnreadablePicture
from wanreel.media.headers import stated_size
from wanreel.media.pictures import Picture, cover_and_crop, open_picture, read_picture


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def gradient(width: int = 64, height: int = 48) -> Image.Image:
    xs, ys = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([xs, ys, 255 - xs], axis=-1).astype(np.uint8))


def pixels(picture: Picture) -> Any:
    return np.asarray(open_picture(picture.png), np.int32)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of_size(width: int, height: int) -> bytes:
    """A PNG header that promises more than it holds."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def with_chunk(kind: bytes, body: bytes) -> bytes:
    """A sound PNG with one more chunk after its header."""
    data = saved(gradient())
    return data[:33] + chunk(kind, body) + data[33:]


def webp_of_size(width: int, height: int) -> bytes:
    """An animated WebP whose canvas is said to be larger than it is."""
    data = bytearray(saved(gradient(), "WEBP", save_all=True, append_images=[Image.new("RGB", (64, 48))]))
    data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


def jpeg_of_size(width: int, height: int) -> bytes:
    data = bytearray(saved(gradient(), "JPEG"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("JPEG", {"quality": 98, "subsampling": 0}), ("WEBP", {"lossless": True})]
)
def test_the_three_formats(kind: str, options: dict[str, Any]) -> None:
    picture = read_picture(saved(gradient(), kind, **options))
    assert (picture.width, picture.height, picture.notes) == (64, 48, ())
    assert np.abs(pixels(picture) - np.asarray(gradient(), np.int32)).mean() < 3


def test_metadata_does_not_survive() -> None:
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    options = {"exif": exif, "icc_profile": profile, "dpi": (72, 72), "comment": b"and with whom"}
    picture = read_picture(saved(gradient(), "JPEG", **options))
    chunks = set(re.findall(rb"IHDR|IDAT|IEND|iCCP|eXIf|pHYs|tEXt|iTXt|zTXt", picture.png))
    assert chunks == {b"IHDR", b"IDAT", b"IEND"}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = read_picture(saved(gradient(), kind, exif=exif, quality=95))
    with Image.open(io.BytesIO(saved(gradient(), kind, exif=exif, quality=95))) as opened:
        expected = ImageOps.exif_transpose(opened).convert("RGB")
    assert (picture.width, picture.height) == expected.size
    assert np.array_equal(pixels(picture), np.asarray(expected, np.int32))
    assert any("upright" in note for note in picture.notes) == (2 <= orientation <= 8)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"II*\x00",
        b"MM\x00*\xff\xff\xff\xff",
        b"II*\x00\x08\0\0\0\xff\xff" + b"\x12\x01\x02\0" * 9,
        b"nonsense" * 20,
    ],
)
def test_broken_metadata_does_not_spoil_a_sound_picture(kind: str, exif: bytes) -> None:
    picture = read_picture(saved(gradient(), kind, exif=b"Exif\0\0" + exif, quality=98))
    assert (picture.width, picture.height) == (64, 48)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_text_that_unpacks_to_64_megabytes_stays_packed(kind: bytes) -> None:
    packed = zlib.compress(bytes(64 * 2**20), 9)
    head = {b"zTXt": b"key\0\0", b"iTXt": b"key\0\1\0\0\0", b"iCCP": b"key\0\0"}[kind]
    tracemalloc.start()
    try:
        with suppress(UnreadablePicture):
            read_picture(with_chunk(kind, head + packed))
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def test_a_thousand_frames_cost_one() -> None:
    frames = [Image.new("RGB", (16, 16), (index * 97 % 256, index * 31 % 256, 0)) for index in range(1001)]
    picture = read_picture(saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], method=0))
    assert picture.notes == ("the first of more than 1000 frames is used",)


def test_transparency_is_laid_over_white() -> None:
    image = gradient().convert("RGBA")
    image.putalpha(0)
    picture = read_picture(saved(image))
    assert pixels(picture).min() == 255
    assert any("white" in note for note in picture.notes)
    opaque = gradient().convert("RGBA")
    assert read_picture(saved(opaque)).notes == ()


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    picture = read_picture(saved(Image.fromarray(ramp)))
    assert np.array_equal(pixels(picture)[..., 0], (ramp / 257).round())
    assert picture.notes


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGB", "RGBA"])
def test_every_png_mode_becomes_rgb(mode: str) -> None:
    picture = read_picture(saved(gradient().convert(mode)))
    assert pixels(picture).shape == (48, 64, 3)


def test_a_palette_with_a_transparent_colour() -> None:
    image = gradient().quantize(8)
    picture = read_picture(saved(image, transparency=0))
    assert pixels(picture).shape == (48, 64, 3)


def test_cmyk_jpeg() -> None:
    assert pixels(read_picture(saved(gradient().convert("CMYK"), "JPEG"))).shape == (48, 64, 3)


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_the_first_of_several_frames(kind: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")]
    picture = read_picture(saved(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert pixels(picture)[5, 5, 0] > 200
    assert any("first of 3 frames" in note for note in picture.notes)


BAD: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "empty"),
    ("text", b"hello, this is no picture", "no picture"),
    ("gif", saved(gradient(), "GIF"), "a GIF"),
    ("bmp", saved(gradient(), "BMP"), "a BMP"),
    ("tiff", saved(gradient(), "TIFF"), "a TIFF"),
    ("pdf", b"%PDF-1.7 ...", "a PDF"),
    ("heic", b"\x00\x00\x00\x18ftypheic\x00\x00", "HEIC"),
    ("avif", b"\x00\x00\x00\x1cftypavif\x00\x00", "AVIF"),
    ("mp4", b"\x00\x00\x00\x20ftypisom\x00\x00", "a video"),
    ("svg", b'\n <svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    ("html", b"<!DOCTYPE html>", "a web page"),
    ("cut png", saved(gradient())[:120], "damaged"),
    ("cut jpeg", saved(gradient(), "JPEG")[:300], "damaged"),
    ("cut webp", saved(gradient(), "WEBP")[:100], "damaged"),
    ("only magic", b"\x89PNG\r\n\x1a\n", "damaged"),
    ("a bomb", png_of_size(9000, 9000), "9000×9000"),
    ("a bomb that Pillow warns of", png_of_size(10000, 10000), "10000×10000"),
    ("a bomb that Pillow refuses", png_of_size(60000, 60000), "60000×60000"),
    ("a WebP bomb", webp_of_size(16383, 16383), "16383×16383"),
    ("a JPEG bomb", jpeg_of_size(65535, 65535), "65535×65535"),
    ("too many pixels", png_of_size(8000, 8000), "megapixels"),
    ("too long", png_of_size(1, 30000), "1×30000"),
    ("no size", png_of_size(0, 0), "damaged"),
    ("a JPEG without frames", b"\xff\xd8\xff\xe0\x00\x04ab\xff\xd9", "damaged"),
    ("jxl", b"\xff\x0a" + bytes(30), "JPEG XL"),
    ("a WebP in name only", b"RIFF\x20\x00\x00\x00WEBPXXXX" + bytes(30), "damaged"),
    ("too small", saved(Image.new("RGB", (15, 64))), "at least 16"),
    ("too heavy", b"\x89PNG\r\n\x1a\n" + bytes(20 * 2**20), "20 MiB"),
]


@pytest.mark.parametrize(("data", "part"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_what_is_refused(data: bytes, part: str) -> None:
    with pytest.raises(UnreadablePicture) as caught:
        read_picture(data, "last_image")
    (problem,) = caught.value.problems
    assert problem.field == "last_image"
    assert problem.code == "unreadable_picture"
    assert part in problem.message
    assert problem.hint
    assert "0x" not in str(caught.value), "no addresses of objects"


@pytest.mark.parametrize("name", ["pretty.png", "pretty.jpg"])
def test_names_are_not_believed(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(saved(gradient(), "TIFF"))
    with pytest.raises(UnreadablePicture, match="TIFF"):
        read_picture(path.read_bytes())


@given(st.sampled_from(["PNG", "JPEG", "WEBP"]), st.integers(16, 200), st.integers(16, 200), st.booleans())
def test_the_stated_size_is_the_true_one(kind: str, width: int, height: int, flag: bool) -> None:
    options = {"JPEG": {"progressive": flag}, "WEBP": {"lossless": flag}, "PNG": {}}[kind]
    assert stated_size(kind, saved(gradient(width, height), kind, **options)) == (width, height)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(
    st.binary(max_size=400), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x00\x00\x00\x00WEBP"])
)
def test_any_bytes_are_read_or_refused(data: bytes, magic: bytes) -> None:
    try:
        read_picture(magic + data)
    except UnreadablePicture as error:
        assert error.problems


@cache
def sample(kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "x" * 40
    return saved(gradient(), kind, exif=exif)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(
    st.sampled_from(["PNG", "JPEG", "WEBP"]),
    st.lists(st.tuples(st.integers(0, 5000) | st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_flipped_bytes_are_read_or_refused(kind: str, flips: list[tuple[int, int]]) -> None:
    data = bytearray(sample(kind))
    for place, value in flips:
        data[place % len(data)] = value
    try:
        picture = read_picture(bytes(data))
    except UnreadablePicture:
        return
    assert picture.width > 0


@given(st.integers(16, 300), st.integers(16, 300), st.integers(16, 200), st.integers(16, 200))
def test_covering_never_stretches(width: int, height: int, target_width: int, target_height: int) -> None:
    """A grid of the picture's own x and y coordinates shows what happened to them."""
    xs, ys = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    image = Image.fromarray(np.stack([xs, ys, xs * 0], axis=-1).round().astype(np.uint8))
    fitted = np.asarray(cover_and_crop(image, target_width, target_height), np.float64)
    assert fitted.shape == (target_height, target_width, 3)
    if min(target_width, target_height, width, height) < 48:
        return
    # source pixels per target pixel, along each axis
    along_x = np.diff(fitted[:, :, 0].mean(axis=0)).mean() / 255 * (width - 1)
    along_y = np.diff(fitted[:, :, 1].mean(axis=1)).mean() / 255 * (height - 1)
    assert abs(along_x / along_y - 1) < 0.1
