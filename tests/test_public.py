"""What users import."""

from __future__ import annotations

import pytest

import wanreel
from wanreel.core.errors import SettingsError


def test_everything_public_is_there() -> None:
    assert sorted(wanreel.__all__) == wanreel.__all__
    for name in wanreel.__all__:
        assert getattr(wanreel, name) is not None
    with pytest.raises(AttributeError):
        wanreel.nothing_of_that_name  # type: ignore[attr-defined]  # noqa: B018


def test_several_gpus_are_refused_clearly() -> None:
    with pytest.raises(SettingsError, match=r"\[0, 1\]"):
        wanreel.Wanreel(gpus=(0, 1))
