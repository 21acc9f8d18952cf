"""What the launcher says, all of it on stderr. Knows nothing of what is being set up."""

from __future__ import annotations

import os
import sys

BANNER = r"""
                                  _
 __      ____ _ _ __  _ __ ___  ___| |
 \ \ /\ / / _` | '_ \| '__/ _ \/ _ \ |
  \ V  V / (_| | | | | | |  __/  __/ |
   \_/\_/ \__,_|_| |_|_|  \___|\___|_|
"""


class SetupError(Exception):
    """Set-up can't go on. `cure` is what the user can do about it."""

    def __init__(self, message: str, cure: str) -> None:
        super().__init__(message)
        self.cure = cure


def say(text: str) -> None:
    _print("36", "»", text)


def done(text: str) -> None:
    _print("32", "✓", text)


def warn(text: str, cure: str) -> None:
    _print("33", "!", text)
    _print("33", " ", f"Cure: {cure}")


def fail(text: str, cure: str) -> None:
    _print("31", "✗", text)
    _print("31", " ", f"Cure: {cure}")


def banner() -> None:
    _write(_coloured("36", BANNER.strip("\n")))


def is_terminal() -> bool:
    return sys.stderr.isatty()


def _print(colour: str, sign: str, text: str) -> None:
    _write(f"{_coloured(colour, sign)} {text}")


def _coloured(colour: str, text: str) -> str:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not is_terminal()
    return text if plain else f"\033[{colour}m{text}\033[0m"


def _write(text: str) -> None:
    # A terminal with a small character set must not stop the set-up.
    encoding = sys.stderr.encoding or "ascii"
    print(text.encode(encoding, "replace").decode(encoding), file=sys.stderr, flush=True)
