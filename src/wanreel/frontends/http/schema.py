"""What goes over the wire: OpenAI's Video object and its neighbours, and the request schema, derived from the knobs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from wanreel.core.delivery import DeliveryReport, DeliveryState
from wanreel.core.job import Job, JobFailure, JobStatus, Standing
from wanreel.core.picture_request import IMAGE
from wanreel.core.resolved import Adjustment
from wanreel.core.upload import UploadState
from wanreel.core.work import Work
from wanreel.service import work_of

_DENOISED, _DECODED = 95, 99  #: of 100 % progress, when all steps are done and when all frames are there
_OPENAI_STATUS: Mapping[JobStatus, Literal["queued", "in_progress", "completed", "failed"]] = {
    JobStatus.QUEUED: "queued",
    JobStatus.IN_PROGRESS: "in_progress",
    JobStatus.COMPLETED: "completed",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "failed",
}
_CANCELLED = JobFailure("cancelled", "The job was cancelled.")


#: How what runs differs from what was asked.
Adjustments = Iterable[Adjustment]


def _is_none(value: object) -> bool:
    return value is None


class Wire(BaseModel):
    """Base of what is answered."""

    model_config = ConfigDict(extra="forbid")


class VideoError(Wire):
    code: str
    message: str


class Webhook(Wire):
    """How the message to `webhook_url` fares."""

    state: DeliveryState
    id: str | None = Field(description="The header webhook-id; null until the video has ended.")
    attempts: int
    outcome: str = Field(description="How the newest attempt went; empty before the first.")


class UploadFile(Wire):
    """One file of a video in object storage."""

    kind: str = Field(examples=["video", "last_frame"])
    state: UploadState
    bucket: str | None = Field(description="Null until it is there, as is the key.")
    key: str | None
    url: str | None = Field(description="Where it can be fetched for a while; null in lists, and for your own storage.")


class Upload(Wire):
    """How the copy in object storage fares."""

    state: UploadState = Field(description="Of all files together. The video is here too until they are done.")
    storage: str | None = Field(description="The operator's profile; null for storage that came with the request.")
    attempts: int
    outcome: str = Field(description="How the newest attempt that failed went; empty where none did.")
    files: list[UploadFile]


class WebhookSecret(Wire):
    object: Literal["webhook.secret"] = "webhook.secret"
    secret: str = Field(description="In the form of Standard Webhooks: whsec_ and base64.")


class Detail(Wire):
    """What OpenAI's object has no place for."""

    status: JobStatus = Field(description="The finer status: `cancelled` is one of its own.")
    stage: str = Field(
        description="downloading, keyframe, load, encode, denoise, decode or export; empty while queued."
    )
    step: int = Field(description="Denoise steps done.")
    total_steps: int
    cancel_requested: bool
    position: int | None = Field(description="Place in line, 1 is next; null when not queued.")
    starts_in: float | None = Field(description="Seconds until it should start; null when unknown.")
    attempt: int
    priority: int
    parent_id: str | None = Field(description="The job this one was made from.")
    extends: str | None = Field(
        default=None, exclude_if=_is_none, description="The video that this one goes on from; both are shown as one."
    )
    storyboard: str | None = Field(default=None, exclude_if=_is_none, description="The group that it belongs to.")
    waits: int = Field(default=0, description="How many things it waits for that other videos have yet to make.")
    adjustments: list[dict[str, Any]] = Field(
        description="How what runs differs from what was asked; on creation only."
    )
    notes: list[str]
    favourite: bool
    webhook: Webhook | None = Field(description="Null when nobody is to be told.")
    upload: Upload | None = Field(default=None, description="Null when the video stays on the server.")
    request: dict[str, Any] = Field(description="Everything that runs, nothing left open.")
    cost: float | None = Field(
        default=None, exclude_if=_is_none, description="Of an ended job; left out where the operator set no price."
    )


class Video(Wire):
    """A job, as OpenAI shows it."""

    id: str
    object: Literal["video", "image"] = "video"
    model: str
    status: Literal["queued", "in_progress", "completed", "failed"]
    progress: int = Field(ge=0, le=100, description="Real: it follows denoise steps and decoded frames.")
    created_at: int
    completed_at: int | None
    expires_at: int | None = Field(description="Always null: videos are kept until they are deleted.")
    size: str
    seconds: str
    prompt: str
    remixed_from_video_id: str | None
    error: VideoError | None
    num_frames: int
    fps: float
    seed: int
    wanreel: Detail


class VideoList(Wire):
    object: Literal["list"] = "list"
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(Wire):
    id: str
    object: Literal["video.deleted", "file"]
    deleted: bool = True


class File(Wire):
    """An upload, as OpenAI shows it."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: Literal["user_data"] = "user_data"
    width: int = Field(description="Of a picture; 0 for a sound.")
    height: int
    seconds: float | None = Field(default=None, exclude_if=_is_none, description="Of a sound.")
    notes: list[str]


class FileList(Wire):
    object: Literal["list"] = "list"
    data: list[File]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Estimate(Wire):
    """What finished jobs let expect."""

    starts_in: float | None = Field(description="Seconds until it would start; null while unknown or paused.")
    seconds: float | None = Field(description="Of work, with loading the model where it must be; null while unknown.")
    basis: str = Field(description="What that goes by.", examples=["12 runs of this size on NVIDIA H200"])
    cost: float | None = Field(
        default=None, exclude_if=_is_none, description="Of these seconds; left out where the operator set no price."
    )


class StageOfPlan(Wire):
    """GPU memory at the highest point of one stage, bytes."""

    stage: str = Field(examples=["denoise"])
    weights: int
    activations: int
    peak: int


class ParallelOfPlan(Wire):
    """How the GPUs of one host share the video."""

    ranks: int = Field(description="GPUs, or processes on a CPU; 1 where nothing is shared.")
    cfg: int = Field(description="2: the passes with and without the prompt run at once.")
    ulysses: int = Field(description="Ranks that exchange tokens for heads around self-attention.")
    ring: int = Field(description="Ranks between which keys and values go round.")
    fsdp: bool = Field(description="Whether each holds its share of the weights alone.")


class MemoryOfPlan(Wire):
    """What the request takes of this machine, and why it runs so. All sizes are bytes; 0 where nothing is known."""

    name: str = Field(description="As job records name it.", examples=["streamed, rows of 8192, tiles 512×424"])
    plan: str = Field(description="Where weights wait: resident, encoders, exclusive or streamed.")
    precision: str
    exact: bool = Field(description="Whether the result is the plain run's to the bit.")
    tile: str | None = Field(description="Size of the VAE's tiles in pixels; null for whole frames.")
    parallel: ParallelOfPlan
    fits: bool
    gpu_bytes: int
    host_bytes: int
    pinned_bytes: int
    disk_bytes: int
    stages: list[StageOfPlan]
    load_seconds: float
    encode_seconds: float
    step_seconds: float = Field(description="By arithmetic; `estimate` goes by finished jobs.")
    decode_seconds: float
    seconds: float = Field(description="Of the whole request once the model is loaded, by arithmetic.")
    cost: float | None = Field(
        default=None, exclude_if=_is_none, description="Of these seconds; left out where the operator set no price."
    )
    reasons: list[str]


class MachineOfPlan(Wire):
    """What the plan is made for."""

    gpu: str = Field(description="Empty where it computes on the CPU.")
    gpu_bytes: int = Field(description="Of its memory, what may be used.")
    host_bytes: int = Field(description="Main memory that is free now.")


class Alternative(Wire):
    """Another way to run the same request: ask for its `offload` (here `plan`) and `precision`."""

    name: str
    plan: str
    precision: str
    exact: bool
    tile: str | None
    fits: bool
    gpu_bytes: int
    host_bytes: int
    disk_bytes: int
    seconds: float = Field(description="By arithmetic, once the model is loaded.")
    cost: float | None = Field(
        default=None, exclude_if=_is_none, description="Of these seconds; left out where the operator set no price."
    )


class Plan(Wire):
    """What would run."""

    request: dict[str, Any]
    adjustments: list[dict[str, Any]]
    notes: list[str]
    queued: int = Field(description="Jobs ahead of it.")
    estimate: Estimate
    memory: MemoryOfPlan
    machine: MachineOfPlan
    alternatives: list[Alternative] = Field(description="Empty on a CPU and for models of unknown size.")


class Queue(Wire):
    paused: bool
    reason: str
    automatic: bool
    queued: int
    in_progress: int
    capacity: int
    jobs: list[str] = Field(description="Your queued jobs, next one first.")


class Error(Wire):
    model_config = ConfigDict(extra="allow")

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(Wire):
    error: Error


def progress_of(job: Job) -> int:
    """Per cent done, by denoise steps, then by frames decoded; 100 only when the video is stored."""
    if job.status is JobStatus.COMPLETED:
        return 100
    done = job.progress
    if done.stage == "decode":
        return _DENOISED + int((_DECODED - _DENOISED) * done.share)
    if done.stage == "export":
        return _DECODED
    return _DENOISED * done.step // done.total_steps if done.total_steps else 0


def video_of(
    job: Job,
    standing: Standing | None = None,
    adjustments: Adjustments = (),
    notes: Iterable[str] = (),
    report: DeliveryReport | None = None,
    cost: float | None = None,
) -> Video:
    """The job on the wire."""
    request = work_of(job)
    shape = request.finished
    failure = job.error if job.status is JobStatus.FAILED else _CANCELLED if job.status is JobStatus.CANCELLED else None
    return Video(
        id=job.id,
        object="image" if request.mode == IMAGE else "video",
        model=job.model,
        status=_OPENAI_STATUS[job.status],
        progress=progress_of(job),
        created_at=int(job.created_at),
        completed_at=int(job.ended_at) if job.status is JobStatus.COMPLETED and job.ended_at is not None else None,
        expires_at=None,
        size=f"{shape.width}x{shape.height}",
        seconds=f"{shape.seconds:.4g}",
        prompt=request.prompt,
        remixed_from_video_id=job.parent_id,
        error=VideoError(code=failure.code, message=f"{failure.message} {failure.hint}".strip()) if failure else None,
        num_frames=shape.num_frames,
        fps=shape.fps,
        seed=request.seed,
        wanreel=_detail(job, request, standing, adjustments, notes, report).model_copy(update={"cost": cost}),
    )


def _detail(
    job: Job,
    request: Work,
    standing: Standing | None,
    adjustments: Adjustments,
    notes: Iterable[str],
    report: DeliveryReport | None,
) -> Detail:
    return Detail(
        status=job.status,
        stage=job.progress.stage,
        step=job.progress.step,
        total_steps=job.progress.total_steps,
        cancel_requested=job.cancel_requested,
        position=standing.position if standing else None,
        starts_in=round(standing.starts_in, 1) if standing and standing.starts_in is not None else None,
        attempt=job.attempt,
        priority=job.priority,
        parent_id=job.parent_id,
        storyboard=job.group_id,
        waits=job.waits,
        adjustments=[adjustment.to_dict() for adjustment in adjustments],
        notes=[*job.notes, *notes],
        favourite=job.favourite,
        webhook=None if report is None else Webhook(**asdict(report)),
        request=request.to_dict(),
    )


#: By reference: given as a model, FastAPI would compile it anew for each error of each route, half of its start.
_ERROR = {"application/json": {"schema": {"$ref": f"#/components/schemas/{ErrorBody.__name__}"}}}
#: Errors that any endpoint may answer, for the OpenAPI document. Its components must have `error_schemas()`.
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"content": _ERROR, "description": text}
    for status, text in {
        400: "The request can't be done as asked; every problem is named.",
        401: "An API key is needed.",
        403: "This key, or a page of another site, may not do that.",
        404: "There is no such thing, or it is not yours.",
        408: "The body came too slowly.",
        409: "Its state does not allow that.",
        413: "The body is too large.",
        415: "The body's type is not read.",
        421: "The server does not go by that name.",
        429: "The queue is full, or too many requests: see Retry-After.",
        503: "Not now: see Retry-After.",
    }.items()
}


def error_schemas() -> dict[str, Any]:
    """ErrorBody and what it holds, as components of the OpenAPI document."""
    whole = ErrorBody.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**whole.pop("$defs", {}), ErrorBody.__name__: whole}
