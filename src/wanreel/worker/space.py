"""Space: how much disk a job will need, and holding it until it is needed. Knows nothing of what is written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from wanreel.core.errors import InsufficientStorage
from wanreel.core.picture_models import PictureSpec
from wanreel.core.picture_request import ResolvedPicture
from wanreel.core.work import AnySpec, Work
from wanreel.host import free_bytes, preallocate

GIB = 2**30
SUFFIX = ".space"

#: The latents and at most three tensors of a solver's history, fp32.
_TENSORS, _FP32 = 4, 4
#: Two generations of checkpoints are kept while a third is being written.
_GENERATIONS = 3
#: Bytes for each pixel of each frame. Video never exceeds raw 4:2:0; the others at worst keep every colour.
_PIXEL_BYTES = {"mp4": 1.5, "webm": 1.5, "gif": 1.0, "webp": 3.0, "mov": 4.0}
_RAW = 3  #: bytes for each pixel of a boomerang, whose way back lies on the disk meanwhile
_SOUND = 24_000  #: bytes a second
_PNG_BYTES = 3.1  #: a PNG of noise is a little larger than its pixels
#: For each pixel of the pictures beside the video: the last frame and the poster.
_STILLS = 2 * 3
#: Headers, manifest, preview. Bytes.
_SMALL_FILES = 2**20


def checkpoint_bytes(request: Work, spec: AnySpec) -> int:
    """The most that the checkpoints of this request take at one time."""
    if isinstance(spec, PictureSpec):
        return 0  # none are saved
    frames = spec.latent_frames(request.num_frames)
    cells = frames * (request.height // spec.spatial_stride) * (request.width // spec.spatial_stride)
    return spec.latent_channels * cells * _TENSORS * _FP32 * _GENERATIONS + _SMALL_FILES


def result_bytes(request: Work) -> int:
    """The most that the video, or the pictures, and the pictures beside it take."""
    pixels = request.export_width * request.export_height
    if isinstance(request, ResolvedPicture):
        return int(pixels * (request.num_images * _PNG_BYTES + 3)) + _SMALL_FILES
    shape, asked = request.finished, request.finishing
    scratch = pixels * len(asked.kept(request.num_frames, request.fps)) * _RAW if asked.loop == "boomerang" else 0
    sound = shape.seconds * _SOUND if asked.audio is not None else 0.0
    video = shape.width * shape.height * shape.num_frames * _PIXEL_BYTES[request.output_format]
    return int(video + scratch + sound + pixels * _STILLS) + _SMALL_FILES


def needed_bytes(request: Work, spec: AnySpec) -> int:
    """Both together."""
    return checkpoint_bytes(request, spec) + result_bytes(request)


class Reserve:
    """Disk space held by two files, each given up right before the real thing is written.

    Results may lie on another disk than checkpoints, so each is held where it will be needed.
    """

    def __init__(self, worker: str, checkpoints: Path, results: Path, job: str = "") -> None:
        self._places = (worker, checkpoints, results)
        self._checkpoint_file = checkpoints / f".{worker}-checkpoints{job}{SUFFIX}"
        self._result_file = results / f".{worker}-result{job}{SUFFIX}"

    def of(self, job: str) -> Reserve:
        """One for this job alone, as a worker may have begun several."""
        return Reserve(*self._places, job)

    def hold(self, request: Work, spec: AnySpec, keep_free: int) -> None:
        """Take what `request` needs and leave at least `keep_free` bytes to others. Raises InsufficientStorage."""
        _take(self._checkpoint_file, checkpoint_bytes(request, spec), keep_free)
        _take(self._result_file, result_bytes(request), keep_free)

    def release_checkpoints(self) -> None:
        """Checkpoints are about to be written."""
        _give_up(self._checkpoint_file)

    def release(self) -> None:
        """Give everything up. Twice is no fault."""
        _give_up(self._checkpoint_file)
        _give_up(self._result_file)


def sweep(folder: Path, is_alive: Callable[[str], bool]) -> None:
    """Delete what dead workers still hold in `folder`."""
    for path in folder.glob(f".*-*{SUFFIX}"):
        worker = path.name.removeprefix(".").rpartition("-")[0]
        if not is_alive(worker):
            _give_up(path)


def _take(path: Path, size: int, keep_free: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    free = free_bytes(path.parent)
    if free < size + keep_free:
        raise InsufficientStorage(
            f"The disk has {free / GIB:.2f} GiB left; this job needs {size / GIB:.2f} GiB "
            f"beside the {keep_free / GIB:.2f} GiB that stay free."
        )
    if not size:
        return
    try:
        preallocate(path, size)
    except OSError as exc:
        _give_up(path)
        raise InsufficientStorage(f"The disk can't hold the {size / GIB:.2f} GiB that this job needs.") from exc


def _give_up(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
