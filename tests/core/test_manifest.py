"""Manifests: written, read back, compared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wanreel.core.catalog import Catalog
from wanreel.core.errors import UnreadableRecipe
from wanreel.core.manifest import Manifest, differences
from wanreel.core.request import VideoRequest
from wanreel.core.resolve import Defaults, resolve

DEFAULTS = Defaults({"text": "demo", "picture": "demo", "first_last": "demo"}, frozenset({"demo"}))


def manifest() -> Manifest:
    return Manifest(
        request=resolve(VideoRequest(prompt="a circle", seed=1), Catalog(), DEFAULTS).request,
        weights={"transformer/model.safetensors": "aa"},
        software={"torch": "2.13"},
        device="cpu",
        environment={"threads": "1"},
        sigmas=(1.0, 0.5, 0.0),
        latents_sha256="bb",
        video_sha256="cc",
        notes=("a note",),
    )


def test_there_and_back() -> None:
    assert Manifest.from_json(manifest().to_json()) == manifest()
    assert not list(differences(manifest(), manifest()))


def test_what_differs_is_named_causes_first() -> None:
    now = replace(
        manifest(),
        weights={"transformer/model.safetensors": "dd", "new": "ee"},
        software={"torch": "2.14"},
        latents_sha256="ff",
        notes=(),
    )
    assert [difference.what for difference in differences(manifest(), now)] == [
        "weights.new",
        "weights.transformer/model.safetensors",
        "software.torch",
        "latents_sha256",
    ]
    assert str(next(differences(manifest(), now))) == "weights.new: nothing → ee"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 99}', '{"version": 1}', '{"version": 1, "request": 3}'])
def test_foreign_text_is_refused(text: str) -> None:
    with pytest.raises(UnreadableRecipe):
        Manifest.from_json(text)
