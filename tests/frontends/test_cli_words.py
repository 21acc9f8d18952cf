"""What `wanreel show` makes of a job's record for a person."""

from __future__ import annotations

import pytest

from wanreel.frontends.cli.jobs import _in_words

ATTEMPTS = [
    {"number": 1, "outcome": "lost", "seconds": None, "error": None},
    {"number": 2, "outcome": "completed", "seconds": 13.68, "error": None},
]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("attempts", ATTEMPTS, "1: lost; 2: completed after 13.7 s"),
        ("time_limit", 21600.0, "21600 s"),
        ("error", {"code": "poison", "message": "It failed.", "hint": "Retry."}, "It failed. Retry. (poison)"),
        ("notes", ["resumed_inexact: a", "b"], "resumed_inexact: a; b"),
        ("step", 12, "12"),
    ],
)
def test_facts_in_words(name: str, value: object, words: str) -> None:
    assert _in_words(name, value) == words


def test_times_are_dates() -> None:
    assert _in_words("created_at", 1795253033.04).startswith("2026-11-2")
