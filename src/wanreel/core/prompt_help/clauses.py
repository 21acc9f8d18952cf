"""A prompt as clauses, which can be taken out and put together again. Knows no vocabulary."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_ENDS = re.compile(r"\s*(?:([,;]+|[.!?]+)(?=\s|$|[,;.!?])|([，。；、！？]))[\s,，、;；]*|\n+")
_STOPS = ".!?。！？"
_WIDE = "，。；、！？"
_ARTICLES = re.compile(r"\b(?:a|an|the)\b", re.IGNORECASE)
_WEIGHT = re.compile(r"\(([^()]{1,300}?):\s*\d+(?:\.\d+)?\)")
_DOUBLE = re.compile(r"\(\(+([^()]{1,300}?)\)+\)")
_LORA_TAG = re.compile(r"<(?:lora|lyco|hypernet|embedding):[^<>]{1,200}>", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Clause:
    text: str
    end: str  #: the mark after it; empty at the end of a text that has none

    @property
    def stops(self) -> bool:
        """Whether a sentence ends with it."""
        return self.end[:1] in tuple(_STOPS)

    @property
    def key(self) -> str:
        """Equal for clauses that say the same."""
        bare = re.sub(r"[^\w]+", " ", _ARTICLES.sub(" ", self.text.casefold()))
        return " ".join(bare.split())


def clauses_of(text: str) -> list[Clause]:
    """The text's clauses, white space and doubled marks gone."""
    found: list[Clause] = []
    place = 0
    for match in _ENDS.finditer(text):
        end = match.group(1) or match.group(2) or ","
        _add(found, text[place : match.start()], end[0] if end[0] in ",;" else end)
        place = match.end()
    _add(found, text[place:], "")
    return found


def _add(found: list[Clause], text: str, end: str) -> None:
    words = " ".join(text.split())
    if words:
        found.append(Clause(words, end))
    elif found and Clause("", end).stops and not found[-1].stops:
        found[-1] = Clause(found[-1].text, end)  # ",." is a stop


def joined(clauses: Iterable[Clause]) -> str:
    """The clauses as one text."""
    every = list(clauses)
    parts: list[str] = []
    for number, clause in enumerate(every):
        last = number == len(every) - 1
        mark = "" if last and not clause.stops else clause.end
        parts.append(clause.text + mark + ("" if last or mark in _WIDE and mark else " "))
    return "".join(parts)


def without(clauses: list[Clause], number: int) -> list[Clause]:
    """All but one. The one before it ends the sentence that the one taken out would have ended."""
    gone, rest = clauses[number], [*clauses[:number], *clauses[number + 1 :]]
    if gone.stops and number > 0 and not rest[number - 1].stops:
        rest[number - 1] = Clause(rest[number - 1].text, gone.end)
    return rest


def plain(text: str) -> str:
    """The text without the marks of other programs, which the text encoder would read as words: weights, LoRA tags."""
    before = ""
    while before != text:
        before = text
        text = _DOUBLE.sub(r"\1", _WEIGHT.sub(r"\1", _LORA_TAG.sub(" ", text)))
    return text
