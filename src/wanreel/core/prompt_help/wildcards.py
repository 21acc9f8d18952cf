"""Wildcards: `{red|green|blue}` is one of them, drawn by the seed. Text alone: there are no files of words.

`{2::red|blue}` draws red twice as often, groups nest, a backslash before a brace or bar makes it a plain one. Braces
without a bar are plain text, so that prompts in JSON stay what they are.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from wanreel.core.errors import InvalidRequest

_DEEPEST = 8
_WEIGHT = re.compile(r"\s*(\d{1,3}(?:\.\d{1,2})?)::")
_ESCAPED = re.compile(r"\\([{}|\\])")


def has_wildcards(text: str) -> bool:
    """Whether something is to be drawn, or a brace is escaped."""
    return any(isinstance(part, _Group) for part in _parse(text)[0]) or _ESCAPED.search(text) is not None


def expand(text: str, seed: int) -> str:
    """The text with every group drawn. The same seed draws the same, on any machine. Raises InvalidRequest."""
    parts, _ = _parse(text)
    # By name and version, so that what is drawn does not hang on the process.
    chance = random.Random(f"wanreel wildcards 1 {seed}")
    return _ESCAPED.sub(r"\1", "".join(_drawn(parts, chance)))


@dataclass(frozen=True, slots=True)
class _Option:
    weight: float
    parts: tuple[str | _Group, ...]


@dataclass(frozen=True, slots=True)
class _Group:
    options: tuple[_Option, ...]


def _drawn(parts: tuple[str | _Group, ...], chance: random.Random) -> Iterator[str]:
    for part in parts:
        if isinstance(part, str):
            yield part
            continue
        weights = [option.weight for option in part.options]
        yield from _drawn(chance.choices(part.options, weights)[0].parts, chance)


def _parse(text: str) -> tuple[tuple[str | _Group, ...], int]:
    reader = _Reader(text)
    parts = reader.parts(0, top=True)
    return parts, reader.place


class _Reader:
    """Reads a text from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.place = 0

    def parts(self, depth: int, *, top: bool = False) -> tuple[str | _Group, ...]:
        """Up to the bar or brace that ends it, or to the end of the text at the `top`."""
        found: list[str | _Group] = []
        plain: list[str] = []
        while self.place < len(self._text):
            sign = self._text[self.place]
            if sign == "\\" and self.place + 1 < len(self._text):
                plain.append(self._text[self.place : self.place + 2])
                self.place += 2
            elif sign == "{" and (group := self._group(depth + 1)) is not None:
                found += ["".join(plain), group]
                plain = []
            elif sign in "|}" and not top:
                break
            else:
                plain.append(sign)
                self.place += 1
        return (*found, "".join(plain))

    def _group(self, depth: int) -> _Group | None:
        """A group that begins here; None for a brace that begins none, which is plain text."""
        if depth > _DEEPEST:
            raise InvalidRequest.of("prompt", "wildcards", f"groups nest at most {_DEEPEST} deep.", "Make it simpler.")
        if not self._begins_group():
            return None
        self.place += 1
        options: list[_Option] = []
        while True:
            weight = _WEIGHT.match(self._text, self.place)
            if weight is not None:
                self.place = weight.end()
            share = float(weight.group(1)) if weight is not None else 1.0
            options.append(_Option(share, self.parts(depth)))
            ended = self._text[self.place] == "}"
            self.place += 1
            if ended:
                break
        if not any(option.weight for option in options):
            raise InvalidRequest.of(
                "prompt", "wildcards", "every choice of a group has weight 0.", "Give one a weight."
            )
        return _Group(tuple(options))

    def _begins_group(self) -> bool:
        """Whether the brace here is closed, with a bar at its own depth."""
        depth, bar, place = 0, False, self.place
        while place < len(self._text):
            sign = self._text[place]
            if sign == "\\":
                place += 1
            elif sign == "{":
                depth += 1
            elif sign == "}":
                depth -= 1
                if depth == 0:
                    return bar
            elif sign == "|" and depth == 1:
                bar = True
            place += 1
        return False
