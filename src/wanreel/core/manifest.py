"""Manifest: what a video was made from and with, in full. Knows nothing of how that is found out or checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self, cast

from wanreel.core.errors import UnreadableRecipe
from wanreel.core.lora import LoraApplied
from wanreel.core.work import Work, work_from_dict

VERSION = 1


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which two manifests, or two videos, are not alike."""

    what: str  #: "weights", "software.torch", "latents", "video", …
    recorded: str
    now: str

    def __str__(self) -> str:
        return f"{self.what}: {self.recorded} → {self.now}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Equal manifests, `notes` aside, mean equal bytes."""

    request: Work
    #: SHA-256 of each weight file, by its path within the model's folder; a second model's are under its name.
    weights: Mapping[str, str]
    loras: Mapping[str, Mapping[str, Any]] = field(
        default_factory=dict[str, Mapping[str, Any]]
    )  #: as `record_of` has it
    software: Mapping[str, str]  #: version by package
    device: str  #: "cpu", "cuda:0 NVIDIA H200", …
    plan: str = ""  #: how the model was held and run at the end; what of it the bits depend on is in `environment`
    environment: Mapping[str, str] = field(default_factory=dict[str, str])  #: what else the bits depend on, by name
    sigmas: tuple[float, ...] = ()  #: the noise levels denoised through
    latents_sha256: str = ""  #: of the final latents' bytes, fp32
    video_sha256: str = ""  #: of the result, the first picture where it is pictures
    notes: tuple[str, ...] = ()  #: "resumed_inexact: …"

    def to_json(self) -> str:
        values = asdict(self) | {"version": VERSION, "request": self.request.to_dict()}
        return json.dumps(values, ensure_ascii=False, indent=2, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`. Raises UnreadableRecipe."""
        try:
            values = cast("dict[str, Any]", json.loads(text))
            version = values.pop("version")
            if version != VERSION:
                raise UnreadableRecipe.of(
                    "manifest", "unreadable", f"it has version {version}; this program reads {VERSION}."
                )
            values["request"] = work_from_dict(values["request"])
            for name in ("sigmas", "notes"):
                values[name] = tuple(values[name])
            return cls(**values)
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise UnreadableRecipe.of("manifest", "unreadable", "this version can't read it.") from exc


def record_of(applied: Iterable[LoraApplied]) -> dict[str, dict[str, Any]]:
    """{NAME: {"sha256": …, "high": {"rank": …, "matched": …, "unmatched": …, "scale": [smallest, largest]}}}

    With one expert "model" stands in the place of "high" and "low".
    """
    found: dict[str, dict[str, Any]] = {}
    for lora in applied:
        found.setdefault(lora.name, {"sha256": lora.sha256})[lora.expert or "model"] = {
            "rank": lora.rank,
            "matched": lora.matched,
            "unmatched": lora.unmatched,
            "scale": [lora.smallest_scale, lora.largest_scale],
        }
    return found


def differences(recorded: Manifest, now: Manifest) -> Iterator[Difference]:
    """Everything in which `now` is not what was recorded, causes before effects."""
    yield from _of_mappings("request", recorded.request.to_dict(), now.request.to_dict())
    yield from _of_mappings("weights", recorded.weights, now.weights)
    for name in sorted(recorded.loras.keys() | now.loras.keys()):
        yield from _of_mappings(f"loras.{name}", recorded.loras.get(name, {}), now.loras.get(name, {}))
    for name in ("software", "environment"):
        yield from _of_mappings(name, getattr(recorded, name), getattr(now, name))
    for name in ("device", "sigmas", "latents_sha256", "video_sha256"):
        before, after = getattr(recorded, name), getattr(now, name)
        if before != after:
            yield Difference(name, _short(before), _short(after))


def _of_mappings(what: str, recorded: Mapping[str, object], now: Mapping[str, object]) -> Iterator[Difference]:
    for key in sorted(recorded.keys() | now.keys()):
        before, after = recorded.get(key), now.get(key)
        if before != after:
            yield Difference(f"{what}.{key}", _short(before), _short(after))


def _short(value: object) -> str:
    if value is None or value == "":
        return "nothing"
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
