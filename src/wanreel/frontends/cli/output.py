"""What a command prints: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import click
from rich.console import Console

from wanreel.core.picture_resolve import PictureResolution
from wanreel.core.resolved import Resolution
from wanreel.core.video import Video
from wanreel.core.work import AnyResolution


@dataclass(frozen=True)
class Output:
    """Words for people, or JSON lines for programs."""

    json: bool
    console: Console  #: on stderr, silent with `json`

    @classmethod
    def open(cls, json: bool) -> Output:
        return cls(json, Console(stderr=True, highlight=False, quiet=json))

    def say(self, text: str) -> None:
        self.console.print(text)

    def warn(self, text: str) -> None:
        if not self.json:
            click.echo(text, err=True)

    def result(self, row: Mapping[str, object]) -> None:
        if self.json:
            click.echo(json.dumps(row, ensure_ascii=False))

    def plan(self, resolution: Resolution) -> None:
        """What will run, and every way in which it is not what was asked."""
        request = resolution.request
        experts = f" and {request.guidance_low:g}" if resolution.spec.two_experts else ""
        self.say(
            f"[bold]{resolution.spec.title}[/bold]  {request.export_width}×{request.export_height}, "
            f"{request.num_frames} frames at {request.fps:g} frames/s ({request.num_frames / request.fps:.1f} s), "
            f"{request.num_inference_steps} steps, guidance {request.guidance_high:g}{experts}, "
            f"shift {request.flow_shift:g}, {request.solver}, seed {request.seed}"
        )
        for adjustment in resolution.adjustments:
            self.say(f"  [dim]• {adjustment}[/dim]")
        for picture in (request.image, request.last_image):
            for note in picture.notes if picture else ():
                self.say(f"  [dim]• picture: {note}[/dim]")

    def picture_plan(self, resolution: PictureResolution) -> None:
        """The same for pictures."""
        request = resolution.request
        count = f"{request.num_images} pictures, " if request.num_images > 1 else ""
        refined = f", then {request.refiner_inference_steps} of {request.refiner}" if request.refiner else ""
        self.say(
            f"[bold]{resolution.spec.title}[/bold]  {request.export_width}×{request.export_height}, {count}"
            f"{request.num_inference_steps} steps{refined}, guidance {request.guidance_scale:g}, {request.solver}, "
            f"seed {request.seed}"
        )
        for adjustment in resolution.adjustments:
            self.say(f"  [dim]• {adjustment}[/dim]")

    def made(self, video: Video) -> None:
        self.say(f"[green]✓[/green] [bold]{video.path}[/bold] ({video.size_bytes / 1e6:.2f} MB)")


def resolution_json(resolution: AnyResolution) -> dict[str, object]:
    """{"request": {...}, "adjustments": [...]}"""
    return {
        "request": resolution.request.to_dict(),
        "adjustments": [adjustment.to_dict() for adjustment in resolution.adjustments],
    }


def video_json(video: Video) -> dict[str, object]:
    return {
        "path": str(video.path),
        "last_frame": str(video.last_frame),
        "poster": str(video.poster),
        "sha256": video.sha256,
        "size_bytes": video.size_bytes,
        "width": video.width,
        "height": video.height,
        "num_frames": video.num_frames,
        "fps": video.fps,
        "seconds": video.seconds,
    }
