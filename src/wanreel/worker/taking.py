"""Taking: what a job needs of the jobs that it waited for, and leaving to others what they need of it.

The frames that clips hand on are the PNGs kept at render; what was decoded is taken only where those are not there, and
that is said. Once taken, a picture is part of the job's own request: so its recipe is whole, and an attempt that comes
again finds it there.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from wanreel.core.chain import frames_back, strength_in
from wanreel.core.errors import GenerationError, InvalidRequest
from wanreel.core.group import After
from wanreel.core.job import ArtifactRef, Job
from wanreel.core.picture import PictureRef
from wanreel.jobs import JobStore
from wanreel.media.colour import Look, Pixels, Shift
from wanreel.media.pictures import pixels_of
from wanreel.media.video import read_frames
from wanreel.service import text_of, work_of
from wanreel.storage.disk import Blobs

_PICTURES = ("image", "last_image")  #: knobs that are filled
COLOUR = "colour"  #: what a clip is taken for, to whose colours the first frame is brought


@dataclass(frozen=True)
class Taking:
    """For the attempts of one worker."""

    store: JobStore
    results: Path
    pictures: Blobs
    share: Callable[[str], None] = lambda sha256: None  #: puts a picture where workers on other machines find it

    def bound(self, job: Job) -> tuple[Job, tuple[str, ...]]:
        """The job with its pictures in its request, and what people should know. Writes the request.

        Raises GenerationError where one can't be had any more, and what its storage raises.
        """
        work = work_of(job)
        waiting = [knob for knob in _PICTURES if (it := getattr(work, knob, None)) is not None and it.pending]
        if not waiting:
            return job, ()
        afters = {after.takes: after for after in self.store.groups.afters(job.id)}
        notes: list[str] = []
        filled = {knob: self._picture(knob, afters, notes) for knob in waiting}
        request = text_of(replace(work, **filled))  # pyright: ignore[reportArgumentType] - its own fields
        self.store.leases.bind(job.id, job.attempt, request)
        return job.evolve(request=request), tuple(notes)

    def wanted(self, job: Job) -> tuple[int, ...]:
        """Frames, counted back from the last one, that others go on from."""
        found = (frames_back(kind) for kind in self.store.groups.taken_of(job.id))
        return tuple(sorted(back for back in found if back))

    def leave(self, job: Job, files: Iterable[ArtifactRef]) -> None:
        """Puts what others take of this job where they find it."""
        taken = self.store.groups.taken_of(job.id)
        for file in files:
            if file.kind in taken and file.media_type == "image/png":
                self.share(self.pictures.put((self.results / file.name).read_bytes()))

    def _picture(self, knob: str, afters: dict[str, After], notes: list[str]) -> PictureRef:
        after = afters.get(knob)
        if after is None:
            raise GenerationError(f"Nothing is known of the picture {knob}, which another job was to make.")
        png = self._frame(after, notes)
        colour = afters.get(COLOUR)
        if colour is not None and colour.job_id != after.job_id:
            png = self._drawn_together(png, colour)
        with Image.open(io.BytesIO(png), formats=["PNG"]) as opened:
            width, height = opened.size
        sha256 = self.pictures.put(png)
        self.share(sha256)
        return PictureRef(sha256, width, height, (f"a frame of video {after.job_id}",))

    def _drawn_together(self, png: bytes, colour: After) -> bytes:
        return drawn_together(png, self._frame(colour, []), strength_in(json.loads(colour.detail or "{}")))

    def _frame(self, after: After, notes: list[str]) -> bytes:
        """The PNG of a frame that another job ended with, or made a little before that."""
        files = {file.kind: file for file in self.store.artifacts(after.job_id)}
        if (found := files.get(after.file)) is not None:
            return self._bytes(found, after.job_id)
        back, video = frames_back(after.file), files.get("video")
        if back is None or video is None:
            raise _gone(after.job_id)
        notes.append(f"taken_from_file: frame {back} before the last of {after.job_id} had been written with losses")
        return self._decoded(video, back, after.job_id)

    def _bytes(self, file: ArtifactRef, job_id: str) -> bytes:
        try:
            return self.pictures.open(file.sha256)
        except InvalidRequest:
            pass
        try:
            return self.pictures.open(self.pictures.put((self.results / file.name).read_bytes()))
        except OSError as exc:
            raise _gone(job_id) from exc

    def _decoded(self, video: ArtifactRef, back: int, job_id: str) -> bytes:
        kept: list[Pixels] = []
        try:
            for frame in read_frames(self.results / video.name):
                kept = [*kept[-back:], frame]
        except InvalidRequest as exc:
            raise _gone(job_id) from exc
        if len(kept) <= back:
            raise GenerationError(f"Video {job_id} is too short to be gone on from {back} frames before its end.")
        return _png(kept[0])


def drawn_together(png: bytes, wanted: bytes, strength: float) -> bytes:
    """A PNG brought, as far as `strength` says, to the colours of another one."""
    frame = pixels_of(png)
    return _png(Shift.between(Look.of(frame), Look.of(pixels_of(wanted)), strength)(frame))


def _gone(job_id: str) -> GenerationError:
    return GenerationError(
        f"The frame that video {job_id} ended with is not here any more.",
        hint="Make that one again, or keep the results where all workers find them (shared_storage).",
    )


def _png(pixels: Pixels) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()
