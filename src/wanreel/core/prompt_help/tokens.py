"""How many tokens a text has: what a tokenizer counts, or a stated estimate where there is none. Knows no models."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

LIMIT = 512  #: tokens that the Wan models' text encoder reads
_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\u3040-\u30ff\uac00-\ud7af]")
_WORD = re.compile(r"[^\W_]+|[^\w\s]", re.UNICODE)
_LETTERS_PER_TOKEN = 5.0  # of a long word; short ones are a token each


def estimated_tokens(text: str) -> int:
    """About what UMT5's tokenizer counts, rather too many than too few, with the end of the text."""
    han = len(_HAN.findall(text))
    rest = _HAN.sub(" ", text)
    words = sum(max(1, math.ceil(len(word) / _LETTERS_PER_TOKEN)) for word in _WORD.findall(rest))
    return han + words + 1


@dataclass(frozen=True, slots=True)
class Tokens:
    """Who counts, and how many may be read."""

    count: Callable[[str], int] = estimated_tokens
    limit: int = LIMIT
    exact: bool = False  #: a model's own tokenizer counts; False: an estimate
    source: str = "an estimate"  #: for people: whose tokenizer it is
