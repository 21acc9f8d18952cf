"""The last frame of a video from anywhere: read in a process that may do next to nothing, or refused in words."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wanreel.core.errors import InvalidRequest
from wanreel.media.last_frame import ending_of
from wanreel.media.video import VideoFormat, VideoWriter, read_frames


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "video.mp4"
    with VideoWriter(path, VideoFormat(64, 48, 8)) as writer:
        writer.write(np.stack([np.full((48, 64, 3), 10 * n, np.uint8) for n in range(20)]))
    return path


def test_the_last_frame_comes_as_it_is_decoded(video: Path) -> None:
    ending = ending_of(video.read_bytes())
    with Image.open(io.BytesIO(ending.png)) as picture:
        found = np.asarray(picture)
    last = list(read_frames(video))[-1]
    assert (found.shape, ending.fps) == (last.shape, 8.0)
    assert np.abs(found.astype(int) - last).max() <= 1


@pytest.mark.parametrize("what", ["text", "cut", "broken", "playlist", "matroska"])
def test_what_is_no_video_is_refused(video: Path, what: str) -> None:
    whole = video.read_bytes()
    data = {
        "text": b"hello, I am no video at all",
        "cut": whole[: len(whole) // 3],
        "broken": whole[:40] + bytes(len(whole) - 40),
        "playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        "matroska": b"\x1aE\xdf\xa3" + bytes(100),
    }[what]
    with pytest.raises(InvalidRequest) as refused:
        ending_of(data)
    assert refused.value.problems[0].code == "unreadable_video"


def test_references_to_other_files_are_not_followed(tmp_path: Path, video: Path) -> None:
    # A list of files that FFmpeg's concat demuxer would open, dressed up as an MP4 by its first bytes alone.
    data = b"ffconcat version 1.0\nfile " + str(video).encode()
    with pytest.raises(InvalidRequest):
        ending_of(data)
    with pytest.raises(InvalidRequest):
        ending_of(b"\0\0\0\x18ftyp" + data)
