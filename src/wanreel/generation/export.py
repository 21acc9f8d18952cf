"""export: finished latents to a video on disk, decoded and written by chunks. Knows nothing of how they came to be."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from torch import Tensor

import wanreel
from wanreel.core.behind import Behind
from wanreel.core.cancel import CancelToken
from wanreel.core.chain import handoff
from wanreel.core.errors import BrokenWeights
from wanreel.core.events import Decoded, Exported
from wanreel.core.resolved import ResolvedRequest
from wanreel.core.video import Video
from wanreel.generation.decode import Decoding, Frames
from wanreel.media.finish import Crop, Keepsakes, Line, Stage, Stills, Trim, stages_of
from wanreel.media.recipe import MARK, recipe_metadata
from wanreel.media.soundtrack import Soundtrack
from wanreel.media.video import VideoFormat, VideoWriter, Written
from wanreel.models.lora.shelf import LoraShelf
from wanreel.models.upscale import Upscaler
from wanreel.models.upscalers import UpscalerShelf
from wanreel.models.wan_model import WanModel
from wanreel.storage.disk import Blobs
from wanreel.storage.outputs import Reservation, reserve


@dataclass(frozen=True, slots=True)
class Target:
    """Where pictures come from and the video goes."""

    folder: Path
    pictures: Blobs
    stem: str | None = None  #: name without suffix that belongs to this work alone; None: time and prompt, a new one
    loras: LoraShelf | None = None  #: None: requests with LoRAs are refused
    handoffs: tuple[int, ...] = ()  #: frames, counted back from the last one, that are kept as pictures too
    upscalers: UpscalerShelf | None = None  #: None: requests with one are refused

    def reserve(self, request: ResolvedRequest) -> Reservation:
        suffix = f".{request.output_format}"
        if self.stem is None:
            return reserve(self.folder, datetime.now().astimezone(), request.prompt, suffix)
        self.folder.mkdir(parents=True, exist_ok=True)
        return Reservation(self.folder / f"{self.stem}{suffix}")


def export(
    model: WanModel, latents: Tensor, request: ResolvedRequest, target: Target, cancel: CancelToken
) -> Generator[Decoded | Exported, None, Video]:
    """Decodes and writes; returns the video. Leaves nothing when it is closed or fails.

    Raises ExportFailed, InsufficientStorage and, between chunks, Cancelled.
    """
    began = time.monotonic()
    cancel.check()
    network = _network(model, request, target, cancel)
    files = target.reserve(request)
    decoding = Decoding(model, latents, cancel)
    frames = _Timed(iter(decoding))
    try:
        written = yield from _write(frames, request, files, target, cancel, network)
    except BaseException:
        files.release()
        for back in target.handoffs:
            files.handoff(back).unlink(missing_ok=True)
        raise
    video = Video(
        path=written.path,
        last_frame=files.last_frame,
        poster=files.poster,
        sha256=written.sha256,
        size_bytes=written.size_bytes,
        width=request.finished.width,
        height=request.finished.height,
        num_frames=written.num_frames,
        fps=request.finished.fps,
        request=request,
        handoffs={handoff(back): files.handoff(back) for back in target.handoffs},
    )
    yield Exported(video, time.monotonic() - began, frames.seconds, decoding.notes)
    return video


def _network(model: WanModel, request: ResolvedRequest, target: Target, cancel: CancelToken) -> Upscaler | None:
    """The one that enlarges, on the model's device. Raises BrokenWeights where it is not what was asked for."""
    wanted = request.finishing.upscaler
    if wanted is None:
        return None
    if target.upscalers is None:
        raise BrokenWeights(f"Upscaler {wanted.name} can't be used here.")
    return Upscaler(target.upscalers.check(wanted), model.device, cancel)


def recipe_of(request: ResolvedRequest) -> str:
    """The JSON text inside a video from which it can be made again. No time, no path: same video, same bytes."""
    return json.dumps({MARK: wanreel.__version__, "request": request.to_dict()}, ensure_ascii=False)


class _Timed:
    """Chunks of frames, and the seconds that were waited for them."""

    def __init__(self, chunks: Iterator[Frames]) -> None:
        self._chunks = chunks
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Frames]:
        while True:
            began = time.monotonic()
            chunk = next(self._chunks, None)
            self.seconds += time.monotonic() - began
            if chunk is None:
                return
            yield chunk


def _write(
    chunks: Iterable[Frames],
    request: ResolvedRequest,
    files: Reservation,
    target: Target,
    cancel: CancelToken,
    network: Upscaler | None,
) -> Generator[Decoded, None, Written]:
    """The video appears last: when it is there, so are its pictures."""
    metadata = recipe_metadata(recipe_of(request), request.prompt) if request.metadata else None
    shape, done = request.finished, 0
    # What a clip that starts from a picture continues ends with that very picture, so it is joined without its own.
    fresh = 1 if request.image is not None else 0
    form = VideoFormat(shape.width, shape.height, shape.fps, request.output_format, request.quality, fresh)
    sound = request.finishing.audio
    track = None if sound is None else Soundtrack(target.pictures.open(sound.sha256))
    with (
        VideoWriter(files.path, form, metadata, files.partial, track) as writer,
        Line([*_first_stages(request, files, target.handoffs), *_stages(request, files, network)]) as line,
    ):

        def write(frames: Frames) -> None:
            for frame in frames:
                _append(writer, line.feed(frame), cancel)

        with Behind(write, name="export") as behind:  # the device decodes on meanwhile
            for frames in chunks:
                behind.put(frames)
                done += len(frames)
                yield Decoded(done, request.num_frames)
        _append(writer, line.finish(), cancel)
        writer.settle()
    return writer.result


def _append(writer: VideoWriter, frames: Iterable[Frames], cancel: CancelToken) -> None:
    for frame in frames:
        cancel.check()
        writer.write(frame[None])


def _first_stages(request: ResolvedRequest, files: Reservation, handoffs: tuple[int, ...]) -> list[Stage]:
    """What every video passes: cut to its size and length, and looked at for its pictures."""
    kept = request.finishing.kept(request.num_frames, request.fps)
    return [
        Crop(request.export_width, request.export_height),
        Trim(kept),
        Stills(len(kept), files.poster, files.last_frame),
        *([Keepsakes(len(kept), {back: files.handoff(back) for back in handoffs})] if handoffs else []),
    ]


def _stages(request: ResolvedRequest, files: Reservation, network: Upscaler | None) -> list[Stage]:
    frames = len(request.finishing.kept(request.num_frames, request.fps))
    return stages_of(request.finishing, frames, request.fps, files.path.parent, network)
