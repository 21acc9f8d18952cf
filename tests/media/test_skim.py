"""Skimming a file from anywhere: what is found, and that nothing in it is trusted."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanreel.core.errors import UnreadableRecipe
from wanreel.media.recipe import recipe_in, recipe_metadata
from wanreel.media.skim import MAX_BYTES, NoVideo, comment_of
from wanreel.media.stills import save_png
from wanreel.media.video import VideoFormat, VideoWriter

RECIPE = json.dumps({"wanreel": 1, "request": {"prompt": "a 猫 " * 200}}, ensure_ascii=False)
VIDEOS = ("mp4", "webm", "webp", "gif", "mov")
KINDS = (*VIDEOS, "png")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A video of each kind and a picture with a recipe."""
    folder: Path = tmp_path_factory.mktemp("skim")
    made: dict[str, bytes] = {}
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), np.uint8)
    for kind in VIDEOS:
        path = folder / f"a.{kind}"
        with VideoWriter(path, VideoFormat(96, 64, 16, kind), recipe_metadata(RECIPE, "t")) as writer:  # type: ignore[arg-type]
            writer.write(frames)
        made[kind] = path.read_bytes()
    save_png(folder / "a.png", frames[0], recipe_metadata(RECIPE, "t"))
    return made | {"png": (folder / "a.png").read_bytes()}


class Counting(io.BytesIO):
    """Counts what is read of it."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


@pytest.mark.parametrize("kind", KINDS)
def test_the_comment_is_found_and_little_else_is_read(files: dict[str, bytes], kind: str) -> None:
    file = Counting(files[kind])
    assert comment_of(file) == RECIPE
    assert file.count < len(RECIPE.encode()) + 2000


def test_the_frames_need_not_be_there(files: dict[str, bytes]) -> None:
    """What the page does with a large file: it sends the beginning only."""
    for kind in ("mp4", "webm", "gif", "png"):
        assert comment_of(io.BytesIO(files[kind][: len(RECIPE.encode()) + 3000])) == RECIPE


def box(kind: bytes, content: bytes, size: int | None = None) -> bytes:
    return struct.pack(">I4s", len(content) + 8 if size is None else size, kind) + content


def mp4(comment: bytes, size: int | None = None) -> bytes:
    data = box(b"data", bytes(8) + comment, size)
    meta = box(b"meta", bytes(4) + box(b"ilst", box(b"\xa9cmt", data)))
    return box(b"ftyp", b"isom") + box(b"mdat", bytes(100)) + box(b"moov", box(b"udta", meta))


def test_a_comment_behind_the_frames_is_found_too() -> None:
    assert comment_of(io.BytesIO(mp4(b"hello"))) == "hello"


def test_sizes_that_lie_end_where_the_file_does() -> None:
    assert comment_of(io.BytesIO(mp4(b"hello", 2**31))) == "hello"


def test_a_huge_comment_is_refused() -> None:
    with pytest.raises(NoVideo, match="larger"):
        comment_of(io.BytesIO(mp4(bytes(MAX_BYTES + 1))))
    with pytest.raises(UnreadableRecipe):
        recipe_in(io.BytesIO(mp4(bytes(MAX_BYTES + 1))), "x.mp4")


def test_a_huge_comment_of_a_gif_is_refused() -> None:
    blocks = b"".join(b"\xff" + bytes(255) for _ in range(MAX_BYTES // 255 + 2))
    with pytest.raises(NoVideo, match="larger"):
        comment_of(io.BytesIO(b"GIF89a" + bytes(7) + b"!\xfe" + blocks + b"\0"))


@pytest.mark.parametrize("size", [0, 1, 7])
def test_a_box_smaller_than_its_header_is_refused_or_ends_the_file(size: int) -> None:
    data = box(b"ftyp", b"isom") + box(b"free", b"", size) + bytes(64)
    try:
        assert comment_of(io.BytesIO(data)) == ""
    except NoVideo:
        assert size


def test_endless_small_boxes_are_given_up() -> None:
    with pytest.raises(NoVideo, match="too many"):
        comment_of(io.BytesIO(box(b"ftyp", b"isom") + box(b"free", b"") * 100_000))


def test_nested_recipes_are_refused() -> None:
    deep = b'{"wanreel": ' + b"[" * 200_000
    with pytest.raises(UnreadableRecipe):
        recipe_in(io.BytesIO(mp4(deep)), "x.mp4")


# PNG


def chunk(kind: bytes, content: bytes, size: int | None = None) -> bytes:
    length = len(content) if size is None else size
    return struct.pack(">I4s", length, kind) + content + struct.pack(">I", zlib.crc32(kind + content))


def text(content: bytes, keyword: bytes = b"Comment", packed: bool = False, size: int | None = None) -> bytes:
    return chunk(b"iTXt", keyword + (b"\0\1\0\0\0" if packed else b"\0\0\0\0\0") + content, size)


def png(*chunks: bytes) -> Counting:
    return Counting(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13)) + b"".join(chunks))


def test_a_pictures_recipe_is_found_among_others_words() -> None:
    words = (chunk(b"tEXt", b"Comment\0other"), text(b"other", b"Title"), text(b"other", b"Comment "), text(b"mine"))
    assert comment_of(png(*words)) == "mine"


def test_a_picture_without_a_recipe_has_none() -> None:
    bare = png(chunk(b"IDAT", bytes(100)), text(b"behind the pixels"), chunk(b"IEND", b""))
    assert comment_of(bare) == ""
    with pytest.raises(UnreadableRecipe, match="carries no recipe"):
        recipe_in(bare, "x.png")
    with pytest.raises(UnreadableRecipe, match="carries no recipe"):
        recipe_in(png(text(b"a holiday")), "x.png")


def test_a_picture_that_ends_early_never_gives_half_a_recipe(files: dict[str, bytes]) -> None:
    start = files["png"].index(b"Comment")
    for end in (8, 11, 12, 20, start, start + 12, start + 13, start + 500):
        with pytest.raises(UnreadableRecipe):
            recipe_in(io.BytesIO(files["png"][:end]), "x.png")


@pytest.mark.parametrize("claimed", [100, 2**31 - 1, 2**32 - 1])
def test_a_chunk_that_claims_more_than_there_is(claimed: int) -> None:
    file = png(text(b'{"wanreel": "1", "request": {}}', size=claimed))
    with pytest.raises(UnreadableRecipe):
        recipe_in(file, "x.png")
    assert comment_of(png(chunk(b"eXIf", b"", claimed), text(b"never reached"))) == ""


def test_a_huge_comment_of_a_picture_is_refused_and_not_read() -> None:
    file = png(text(bytes(MAX_BYTES + 1)))
    with pytest.raises(NoVideo, match="larger"):
        comment_of(file)
    assert file.count < 1000
    other = png(text(bytes(MAX_BYTES + 1), b"XML:com.adobe.xmp"), text(b"mine"))
    assert comment_of(other) == "mine", "how long others' words are is their matter"


def test_a_bomb_is_not_unpacked() -> None:
    """A thousandfold: 64 MiB in 64 KiB."""
    bomb = zlib.compress(b'{"wanreel": 1}' + bytes(64 * 2**20), 9)
    assert comment_of(png(text(bomb, packed=True), chunk(b"zTXt", b"Comment\0\0" + bomb))) == ""


def test_endless_chunks_are_given_up() -> None:
    file = png(*[chunk(b"tIME", b"")] * 50_000)
    with pytest.raises(NoVideo, match="too many"):
        comment_of(file)
    assert file.count < 20_000


def test_nested_recipes_of_pictures_are_refused() -> None:
    with pytest.raises(UnreadableRecipe):
        recipe_in(png(text(b'{"wanreel": ' + b"[" * 200_000)), "x.png")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_files_raise_nothing_else(files: dict[str, bytes], data: st.DataObject) -> None:
    whole = bytearray(files[data.draw(st.sampled_from(KINDS))])
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, min(len(whole), 6000) - 1))] = data.draw(st.integers(0, 255))
    del whole[data.draw(st.integers(1, len(whole))) :]
    with contextlib.suppress(NoVideo):
        comment_of(io.BytesIO(bytes(whole)))
