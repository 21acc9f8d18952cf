"""`wanreel picture`: a still picture from words, or from a picture and words, and the video that begins with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from wanreel.core.cancel import CancelToken
from wanreel.core.drawing import Drawing
from wanreel.core.errors import UnreadableRecipe, WanreelError
from wanreel.core.picture import PictureRef
from wanreel.core.picture_request import PICTURE_KNOBS, PictureRequest, ResolvedPicture
from wanreel.core.picture_resolve import PictureResolution
from wanreel.core.request import VideoRequest
from wanreel.core.resolved import Resolution
from wanreel.frontends.cli.failure import as_json, exit_code
from wanreel.frontends.cli.knobs import options_of
from wanreel.frontends.cli.output import Output, resolution_json, video_json
from wanreel.frontends.cli.progress import show_drawing, show_progress
from wanreel.frontends.cli.session import interruptible, open_runtime
from wanreel.service import Terms
from wanreel.storage.keeping import Keeping
from wanreel.wiring import Runtime, build_service, read_work

_PNG = ".png"
_EDIT = "edit"  # word and mode
#: Names of files that are not what is made here; other names of --out are folders.
_OTHERS = frozenset({".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".mp4", ".webm"})


@click.command()
@click.argument("inputs", nargs=-1, metavar="[IMAGE] PROMPT")
@options_of(PICTURE_KNOBS)
@click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path),
    help="The file, NAME.png, which is replaced; or a folder. The data directory's outputs/ by default.",
)
@click.option("--animate", metavar="PROMPT", help="Then make a video that begins with it, in which this happens.")
@click.option("--video-model", help="Which model makes that video.")
@click.option(
    "--queue", "queued", is_flag=True, help="Queue it and return at once. A worker makes it: `wanreel worker`."
)
@click.option("--device", help="auto, cpu, cuda, cuda:1, …")
@click.option(
    "--from", "from_picture", type=click.Path(path_type=Path), help="Start from the recipe inside this picture."
)
@click.option("--no-download", is_flag=True, help="Refuse when the model's weights are not here.")
@click.option("--dry-run", is_flag=True, help="Show what would run, and stop.")
@click.option("--json", "json_", is_flag=True, help="Print one JSON object and nothing else.")
def picture(inputs: tuple[str, ...], json_: bool, out: Path | None, **options: Any) -> int:
    """Make a picture from a PROMPT, or from a picture and a PROMPT.

    `wanreel picture edit IMAGE PROMPT` changes the picture as the PROMPT says.
    """
    if inputs[:1] == (_EDIT,) and not Path(_EDIT).exists():
        inputs, options["mode"] = inputs[1:], _EDIT
        if len(inputs) != 2 and options["from_picture"] is None:
            raise click.UsageError(
                "To edit takes a picture and a prompt: wanreel picture edit photo.png 'make it night'."
            )
    if len(inputs) > 2:
        raise click.UsageError(f"At most a picture and a prompt are expected, got {len(inputs)} words.")
    if options["queued"] and (out is not None or options["animate"]):
        raise click.UsageError("--queue keeps the result where the queue keeps results: leave out --out and --animate.")
    if options["video_model"] and not options["animate"]:
        raise click.UsageError("--video-model goes with --animate.")
    if out is not None and out.suffix.lower() in _OTHERS and not out.is_dir():
        raise click.UsageError(f"Pictures are PNG files: --out {out.with_suffix(_PNG)}.")
    output = Output.open(json_)
    named = out is not None and out.suffix.lower() == _PNG
    folder = out.parent if out is not None and named else out
    download = False if options["no_download"] else None
    with (
        open_runtime(out=folder, device=options["device"], download=download) as runtime,
        interruptible() as cancel,
    ):
        try:
            resolution = _resolution(runtime, inputs, options)
            return _Errand(runtime, output, cancel, out.stem if out is not None and named else None).run(
                resolution, options
            )
        except WanreelError as error:
            if not output.json:
                raise
            output.result(as_json(error))
            return exit_code(error)


def _resolution(runtime: Runtime, inputs: tuple[str, ...], options: Mapping[str, Any]) -> PictureResolution:
    given = {name: options[name] for name in PICTURE_KNOBS if options.get(name) is not None}
    if options["from_picture"] is not None:
        given = _recipe_values(options["from_picture"]) | given
    if inputs:
        given["prompt"] = inputs[-1]
    if len(inputs) == 2:
        given["image"] = runtime.take_picture_file(Path(inputs[0]))
    return runtime.resolve_picture(PictureRequest.from_mapping(given))


def _recipe_values(picture: Path) -> dict[str, object]:
    """The knobs that make a picture again. Raises UnreadableRecipe."""
    work = read_work(picture)
    if not isinstance(work, ResolvedPicture):
        raise UnreadableRecipe.of("from", "no_picture", f"{picture.name} is a video.", "See `wanreel generate --from`.")
    asked = work.as_request()
    return {name: value for name in PICTURE_KNOBS if (value := getattr(asked, name)) is not None}


class _Errand:
    """One picture, and what is to become of it."""

    def __init__(self, runtime: Runtime, output: Output, cancel: CancelToken, stem: str | None) -> None:
        self._runtime = runtime
        self._output = output
        self._cancel = cancel
        self._stem = stem

    def run(self, resolution: PictureResolution, options: Mapping[str, Any]) -> int:
        self._output.picture_plan(resolution)
        if options["dry_run"]:
            self._output.result(resolution_json(resolution))
            return 0
        if options["queued"]:
            return self._queue(resolution)
        if options["animate"]:
            # Before the picture is made, which may take minutes: what is wrong with the video.
            size = (resolution.request.export_width, resolution.request.export_height)
            self._video_of(PictureRef("", *size), resolution.request.seed, options)
        running = self._runtime.draw(resolution, self._cancel, self._keeping())
        drawing = show_drawing(running, self._output.console, self._runtime.settings.data.previews)
        for path in drawing.paths:
            self._output.say(f"[green]✓[/green] [bold]{path}[/bold]")
        row = resolution_json(resolution) | {"picture": drawing_json(drawing)}
        if options["animate"]:
            row |= self._animate(drawing, options)
        self._output.result(row)
        return 0

    def _keeping(self) -> Keeping | None:
        """Under which name it is made, where one was asked for."""
        if self._stem is None:
            return None
        settings = self._runtime.settings
        return Keeping(self._stem, settings.data.checkpoints, settings.results_dir, self._stem, self._runtime.pictures)

    def _queue(self, resolution: PictureResolution) -> int:
        service = build_service(self._runtime)
        try:
            body = json.dumps(asdict(resolution.request), sort_keys=True, ensure_ascii=False)
            job = service.enqueue(resolution, Terms(), body=body)
        finally:
            service.close()
        self._output.result({"id": job.id, "status": str(job.status)} | resolution_json(resolution))
        self._output.say(f"[green]✓[/green] queued as [bold]{job.id}[/bold]")
        return 0

    def _video_of(self, first: PictureRef, seed: int, options: Mapping[str, Any]) -> Resolution:
        """What --animate asks for. Raises InvalidRequest, ModelNotInstalled."""
        return self._runtime.resolve(
            VideoRequest(prompt=options["animate"], image=first, model=options["video_model"], seed=seed)
        )

    def _animate(self, drawing: Drawing, options: Mapping[str, Any]) -> dict[str, object]:
        runtime = self._runtime
        resolution = self._video_of(runtime.take_picture_file(drawing.path), drawing.request.seed, options)
        self._output.plan(resolution)
        running = runtime.generate(resolution, self._cancel)
        video = show_progress(running, self._output.console, runtime.settings.data.previews)
        self._output.made(video)
        return {"video": video_json(video), "video_request": resolution.request.to_dict()}


def drawing_json(drawing: Drawing) -> dict[str, object]:
    return {
        "paths": [str(path) for path in drawing.paths],
        "poster": str(drawing.poster),
        "sha256": drawing.sha256,
        "size_bytes": drawing.size_bytes,
        "width": drawing.width,
        "height": drawing.height,
        "seed": drawing.request.seed,
    }
