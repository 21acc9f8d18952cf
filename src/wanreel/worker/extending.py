"""Extending: a video that goes on from another is joined to it before it counts as completed. Knows no models."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from wanreel.core.cancel import CancelToken
from wanreel.core.chain import Chain
from wanreel.core.errors import GenerationError, InvalidRequest, JobNotFound
from wanreel.core.job import ArtifactRef, Job
from wanreel.core.media_types import media_type_of
from wanreel.core.video import Video
from wanreel.jobs import JobStore
from wanreel.service import request_of
from wanreel.service.extending import WHOLE
from wanreel.worker.assembly import Clip, assemble

CHAIN = "chain"  #: kind of the file that says what the whole consists of


def joined_to_source(
    store: JobStore, results: Path, job: Job, video: Video, cancel: CancelToken
) -> tuple[list[ArtifactRef], tuple[str, ...]]:
    """The whole, where the job extends another one's video, and what people should know. Raises what joining raises."""
    after = next((it for it in store.groups.afters(job.id) if it.takes == WHOLE), None)
    if after is None:
        return [], ()
    chain = Chain.from_dict(json.loads(after.detail))
    try:
        earlier = [clip_of(store, results, link.job) for link in chain.links[:-1]]
    except GenerationError as error:
        return [], (f"not_joined: {error.message}",)
    clips = [*earlier, Clip(job.id, video.path, video.last_frame, video.request)]
    path = video.path.with_suffix(f".whole{video.path.suffix}")
    whole = assemble(chain, clips, path, video.request.prompt, cancel)
    facts = path.with_suffix(".json")
    data = json.dumps(whole.to_dict(), ensure_ascii=False).encode()
    facts.write_bytes(data)
    written = whole.joined.written
    digest = hashlib.sha256(data).hexdigest()
    files = [
        ArtifactRef(WHOLE, path.name, written.sha256, written.size_bytes, media_type_of(path)),
        ArtifactRef(CHAIN, facts.name, digest, len(data), "application/json"),
    ]
    return files, () if whole.joined.copied else (f"joined_anew: {whole.joined.why}, so all frames were written again",)


def clip_of(store: JobStore, results: Path, job_id: str) -> Clip:
    """The video of a completed job. Raises GenerationError where it is not here."""
    files = {file.kind: file for file in store.artifacts(job_id)}
    video, last = files.get("video"), files.get("last_frame")
    try:
        request = request_of(store.get(job_id))
    except (JobNotFound, InvalidRequest) as exc:
        raise GenerationError(f"Video {job_id} was deleted.") from exc
    if video is None or last is None or not all((results / it.name).is_file() for it in (video, last)):
        raise GenerationError(f"The file of video {job_id} is not on this machine.")
    return Clip(job_id, results / video.name, results / last.name, request)
