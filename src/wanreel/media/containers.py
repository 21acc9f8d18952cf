"""open_container: a video file for reading, whoever made it. Knows nothing of what is read from it."""

from __future__ import annotations

from typing import BinaryIO

import av
from av.container import InputContainer
from av.error import InvalidDataError

#: (offset, bytes there, FFmpeg's name of the only demuxer that gets to see the file)
_KINDS: tuple[tuple[int, bytes, str], ...] = (
    (4, b"ftyp", "mp4"),
    (0, b"\x1aE\xdf\xa3", "matroska"),
    (0, b"GIF8", "gif"),
)


def open_container(file: BinaryIO) -> InputContainer:
    """MP4, WebM or GIF. Raises FFmpegError for anything else.

    FFmpeg gets the bytes and one demuxer, never a name: playlists and lists of files would make it open other files
    and addresses.
    """
    head = file.read(16)
    file.seek(0)
    demuxer = next((name for at, magic, name in _KINDS if head[at : at + len(magic)] == magic), None)
    if demuxer is None:
        raise InvalidDataError(0, "no kind of video that is read here")
    return av.open(file, "r", format=demuxer, metadata_errors="replace")
