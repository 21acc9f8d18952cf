"""Building the manifest of a video that was just made. Knows nothing of where it is kept."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from wanreel import __version__
from wanreel.core.drawing import Drawing
from wanreel.core.events import Denoised, Event, LorasApplied, ModelLoaded
from wanreel.core.lora import LoraApplied
from wanreel.core.manifest import Manifest, record_of
from wanreel.core.video import Video
from wanreel.core.work import Work

#: Packages that the bits of a video can depend on.
_PACKAGES = ("torch", "diffusers", "transformers", "numpy", "av", "pillow")


@dataclass
class Findings:
    """What the events of a generation say about how it was made."""

    device: str = ""
    plan: str = ""
    loras: tuple[LoraApplied, ...] = ()
    denoised: Denoised | None = None
    notes: tuple[str, ...] = ()

    def see(self, event: Event) -> None:
        match event:
            case ModelLoaded(device=device, plan=plan):
                self.device, self.plan = device, plan
            case LorasApplied(applied=applied):
                self.loras = applied
            case Denoised():
                self.denoised = event
            case _:
                pass

    def note(self, text: str) -> None:
        """Add a note; the same text is kept once."""
        if text not in self.notes:
            self.notes += (text,)

    def manifest(self, request: Work, weights: Mapping[str, str], result: Video | Drawing) -> Manifest:
        """Everything together."""
        denoised = self.denoised
        return Manifest(
            request=request,
            weights=weights,
            loras=record_of(self.loras),
            software=software(),
            device=self.device,
            plan=self.plan,
            environment=denoised.environment if denoised else {},
            sigmas=denoised.sigmas if denoised else (),
            latents_sha256=denoised.latents_sha256 if denoised else "",
            video_sha256=result.sha256,
            notes=self.notes,
        )


def software() -> Mapping[str, str]:
    """Versions by name. Imports none of the packages."""
    found = {"wanreel": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
