"""The progress bar: events in, one live line out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from wanreel.core.drawing import Drawing
from wanreel.core.errors import GenerationError
from wanreel.core.events import (
    Completed,
    Decoded,
    Denoised,
    Downloading,
    Drawn,
    Encoded,
    Event,
    Exported,
    KeyframeDrawn,
    KeyframeStep,
    LorasApplied,
    ModelLoaded,
    PlanChanged,
    Preview,
    StepCompleted,
    StepsChosen,
)
from wanreel.core.video import Video
from wanreel.storage.previews import PreviewFile

Result = TypeVar("Result")


def show_progress(events: Iterator[Event], console: Console, previews: Path) -> Video:
    """Runs the generation to its end, showing where it is. Returns the video; errors pass through.

    The newest preview lies in `previews` while it runs.
    """
    return _shown(events, console, previews, lambda event: event.video if isinstance(event, Completed) else None)


def show_drawing(events: Iterator[Event], console: Console, previews: Path) -> Drawing:
    """The same for pictures."""
    return _shown(events, console, previews, lambda event: event.drawing if isinstance(event, Drawn) else None)


def _shown(
    events: Iterator[Event], console: Console, previews: Path, result_of: Callable[[Event], Result | None]
) -> Result:
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("[dim]{task.fields[note]}[/dim]"),
    )
    with (
        Progress(*columns, console=console, disable=console.quiet, transient=True) as progress,
        PreviewFile(previews / f"preview-{os.getpid()}.webp") as preview,
    ):
        bar = _Bar(progress, preview, console)
        for event in events:
            if isinstance(event, (Completed, Drawn)):
                console.print(f"  [dim]• done in {event.seconds:.1f} s[/dim]")
            result = result_of(event)
            if result is not None:
                return result
            bar.show(event)
    raise GenerationError("The generation ended without a result.")


class _Bar:
    """One bar that changes its meaning with the stage."""

    def __init__(self, progress: Progress, preview: PreviewFile, console: Console) -> None:
        self._progress = progress
        self._console = console
        self._preview = preview
        self._task = progress.add_task("loading", total=None, note="")

    def show(self, event: Event) -> None:
        match event:
            case Downloading() | KeyframeStep() | KeyframeDrawn():
                self._before(event)
            case ModelLoaded(seconds=seconds, notes=notes, device=device):
                if seconds:
                    self._console.print(f"  [dim]• loaded in {seconds:.1f} s on {device}[/dim]")
                self._say(notes)
                self._stage("encoding")
            case PlanChanged() | StepsChosen() | LorasApplied() | Denoised():
                self._say(_words(event))
            case Encoded(notes=notes):
                self._say(notes)
                self._stage("denoising")
            case StepCompleted(step=step, total_steps=total, seconds=seconds, eta_seconds=eta):
                preview = f", preview {self._preview.path}" if self._preview.written else ""
                note = f"{seconds:.2f} s/step, {_clock(eta)} left{preview}"
                self._progress.update(self._task, description="denoising", completed=step, total=total, note=note)
            case Preview(data=data):
                self._preview.write(data)
            case Decoded(frames=frames, total_frames=total):
                self._progress.update(self._task, description="decoding", completed=frames, total=total, note="frames")
            case Exported():
                self._stage("finishing")
            case _:
                pass

    def _before(self, event: Downloading | KeyframeStep | KeyframeDrawn) -> None:
        """What comes before the model that makes the result."""
        match event:
            case Downloading(received_bytes=received, total_bytes=total):
                megabytes = (received // 10**6, total // 10**6 if total else None)
                self._progress.update(
                    self._task, description="download", completed=megabytes[0], total=megabytes[1], note="MB"
                )
            case KeyframeStep(step=step, total_steps=total, eta_seconds=eta, notes=notes):
                self._say(notes)
                left = f"{_clock(eta)} left"
                self._progress.update(self._task, description="keyframe", completed=step, total=total, note=left)
            case KeyframeDrawn(width=width, height=height, seconds=seconds):
                self._say((f"keyframe drawn in {seconds:.1f} s, {width}×{height}",))
                self._stage("loading")

    def _stage(self, name: str) -> None:
        self._progress.update(self._task, description=name, completed=0, total=None, note="")

    def _say(self, notes: tuple[str, ...]) -> None:
        for note in notes:
            self._console.print(f"  [dim]• {note}[/dim]")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    return f"{minutes}:{rest:02d}" if minutes else f"{rest} s"


def _words(event: PlanChanged | StepsChosen | LorasApplied | Denoised) -> tuple[str, ...]:
    match event:
        case LorasApplied(applied=applied):
            return tuple(map(str, applied))
        case Denoised(foretold=foretold, sigmas=sigmas):
            return (f"turbo: {foretold} of {len(sigmas) - 1} steps were foretold",) if foretold else ()
        case _:
            return (str(event),)
