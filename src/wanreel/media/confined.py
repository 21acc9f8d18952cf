"""confined: files from anybody, decoded in a process of their own with little memory and little time.

A decoder that is fooled by a file then ends itself and nothing else. `python -m wanreel.media.confined TASK` is that
process: it reads the file from its stdin and writes to its stdout what is kept of it.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Mapping

from wanreel.host import confine

MEMORY = 2 * 2**30  #: bytes of address space: FFmpeg's libraries alone take a quarter of it
PATIENCE = 60  #: seconds, of its processor's time and of the clock
REFUSED = 3  #: exit code of a file that is not what it should be; what is wrong stands on stderr
_LONGEST = 300  #: characters of what is wrong

#: Task: where its function is. It takes and gives bytes, and raises ValueError with words for people.
_TASKS: Mapping[str, tuple[str, str]] = {
    "sound": ("wanreel.media.sound_reader", "flac_of"),
    "last_frame": ("wanreel.media.last_frame", "read_ending"),
}


class Unreadable(ValueError):
    """The file is not what it should be."""


def confined(task: str, data: bytes) -> bytes:
    """What `task` keeps of a file. Raises Unreadable, also where it took too much memory or time."""
    command = [sys.executable, "-m", __name__, task]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired as exc:
        raise Unreadable("it takes too long to read.") from exc
    if done.returncode == 0:
        return done.stdout
    told = done.stderr.decode(errors="replace").strip()
    raise Unreadable(told[:_LONGEST] if done.returncode == REFUSED else "it can't be read.")


def main(task: str) -> int:
    """The child's part."""
    confine(MEMORY, PATIENCE)
    module, name = _TASKS[task]
    function: Callable[[bytes], bytes] = getattr(importlib.import_module(module), name)
    data = sys.stdin.buffer.read()
    try:
        kept = function(data)
    except ValueError as error:
        sys.stderr.write(str(error))
        return REFUSED
    sys.stdout.buffer.write(kept)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
