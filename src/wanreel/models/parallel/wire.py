"""Wire: messages between a worker and its ranks, JSON in frames over pipes. Knows nothing of what they say."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Mapping
from typing import Any, BinaryIO, cast

Message = Mapping[str, Any]

_LENGTH = struct.Struct(">I")
_LONGEST = 16 * 2**20  # bytes; tensors do not go this way


class Wire:
    """Both ends of a conversation. Sending may be done from any thread, receiving from one."""

    def __init__(self, reading: BinaryIO, writing: BinaryIO) -> None:
        self._reading, self._writing = reading, writing
        self._turn = threading.Lock()

    def send(self, message: Message) -> None:
        """Raises OSError when nobody listens any more."""
        data = json.dumps(message, separators=(",", ":")).encode()
        with self._turn:
            self._writing.write(_LENGTH.pack(len(data)) + data)
            self._writing.flush()

    def receive(self) -> Message | None:
        """The next message; None at the end, and for what is none."""
        try:
            (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
            return cast("Message", json.loads(self._read(length))) if length <= _LONGEST else None
        except (OSError, ValueError, EOFError):
            return None

    def _read(self, count: int) -> bytes:
        """So many bytes, in as many pieces as they come. Raises EOFError."""
        data = b""
        while len(data) < count:
            piece = self._reading.read(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def close(self) -> None:
        for end in (self._writing, self._reading):
            try:
                end.close()
            except OSError:
                continue  # what was still to be sent has nobody to hear it
