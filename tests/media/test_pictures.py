"""The gate for pictures: what comes in clean, and what does not come in."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wanreel.core.errors import UnreadablePicture
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


def png_of_size(width: int, height: int) -> bytes:
    """A PNG header that promises more than it holds."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


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
    picture = read_picture(saved(gradient(), "JPEG", exif=exif))
    assert b"where I live" not in picture.png


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = read_picture(saved(gradient(), "JPEG", exif=exif, quality=95))
    assert (picture.width, picture.height) == (48, 64)
    assert any("upright" in note for note in picture.notes)
    turned = np.asarray(gradient().transpose(Image.Transpose.ROTATE_270), np.int32)
    assert np.abs(pixels(picture) - turned).mean() < 5


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
    assert np.abs(pixels(picture)[..., 0] - ramp / 257).max() <= 1
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
    ("too many pixels", png_of_size(8000, 8000), "megapixels"),
    ("too long", png_of_size(1, 30000), "1×30000"),
    ("no size", png_of_size(0, 0), ""),
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


@given(
    st.binary(max_size=400), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x00\x00\x00\x00WEBP"])
)
def test_any_bytes_are_read_or_refused(data: bytes, magic: bytes) -> None:
    try:
        read_picture(magic + data)
    except UnreadablePicture as error:
        assert error.problems


@given(st.integers(0, 5000), st.integers(0, 255))
def test_a_flipped_byte_is_read_or_refused(place: int, value: int) -> None:
    data = bytearray(saved(gradient(), "JPEG"))
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
