"""Attempt: one time that this worker holds one job, from claim to record. Knows nothing of queues or processes.

Whatever happens, exactly one end is recorded, and only the files of a completed attempt stay.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import logging
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from wanreel.core import events
from wanreel.core.catalog import ModelSpec
from wanreel.core.data_directory import DataDirectory
from wanreel.core.drawing import Drawing
from wanreel.core.errors import (
    Cancelled,
    DeviceFault,
    GenerationError,
    InsufficientStorage,
    InvalidRequest,
    JobNotFound,
    JobTimeout,
    LeaseLost,
    OutOfMemory,
    StorageUnavailable,
    StoreError,
    WanreelError,
)
from wanreel.core.events import Event, Turn
from wanreel.core.failpoints import Failpoints
from wanreel.core.job import ArtifactRef, Job, JobFailure, Progress
from wanreel.core.picture_models import PictureSpec
from wanreel.core.picture_request import ResolvedPicture
from wanreel.core.resolved import ResolvedRequest
from wanreel.core.video import Video
from wanreel.core.work import AnySpec, Work
from wanreel.jobs import JobStore
from wanreel.service import checkpoints_of, remove_tree, same_generation, wants_less, work_of
from wanreel.service.uploader import Uploader
from wanreel.storage.previews import PreviewFile
from wanreel.storage.shared import SharedStates
from wanreel.worker.courier import Courier
from wanreel.worker.extending import joined_to_source
from wanreel.worker.files import discard, keep_latents, media_type_of, stem_of, write_durably
from wanreel.worker.gathering import Gatherer
from wanreel.worker.keeper import Keeper
from wanreel.worker.manifests import Findings
from wanreel.worker.orders import Order
from wanreel.worker.space import Reserve
from wanreel.worker.stopwatch import Stopwatch
from wanreel.worker.taking import Taking
from wanreel.worker.weights import hashes_of_work

_log = logging.getLogger(__name__)

_WRITE_PROGRESS = 0.5  # seconds between writes of progress


class Ending(enum.Enum):
    """What the worker does after an attempt."""

    GO_ON = enum.auto()
    IDLE = enum.auto()  #: there was no job
    WAIT = enum.auto()  #: the machine can't take this job now
    REPLACE = enum.auto()  #: this process may be damaged: leave, and let another one go on


@dataclass(frozen=True, slots=True)
class Task:
    """What the renderer needs to know of an attempt."""

    work: str  #: whose checkpoints are used: the job's id, or for another export the id of the job with the latents
    request: Work
    spec: AnySpec
    results: Path  #: folder for the video and the pictures beside it
    stem: str  #: their names without suffix; belongs to this attempt alone
    checkpoints: Path | None  #: folder of saved states; None to save none
    keeper: Keeper  #: `token` to stop at once, `draining` to save after this step
    handoffs: tuple[int, ...] = ()  #: frames, counted back from the last one, that other jobs go on from

    @property
    def video(self) -> tuple[ResolvedRequest, ModelSpec]:
        """Request and model of a task that makes a video. Raises GenerationError for another."""
        if not isinstance(self.request, ResolvedRequest) or not isinstance(self.spec, ModelSpec):
            raise GenerationError(f"{self.spec.name} can't make what the job asks for.")
        return self.request, self.spec

    @property
    def pictures(self) -> tuple[ResolvedPicture, PictureSpec]:
        """The same of a task that makes pictures."""
        if not isinstance(self.request, ResolvedPicture) or not isinstance(self.spec, PictureSpec):
            raise GenerationError(f"{self.spec.name} can't make what the job asks for.")
        return self.request, self.spec


#: Turns a task into its result, as `generation.render` and `draw`: events up to Completed or Drawn; typed errors;
#: closing it leaves nothing.
#: The one seam between jobs and models.
Render = Callable[[Task], Iterator[Event]]


@dataclass(frozen=True)
class Workshop:
    """What attempts of one worker share."""

    store: JobStore
    render: Render
    spec_of: Callable[[str], AnySpec]  #: raises UnknownModel
    weights_of: Callable[[AnySpec], Mapping[str, str]]  #: hashes by file name; raises BrokenWeights
    data: DataDirectory
    results: Path
    reserve: Reserve
    failpoints: Failpoints
    taking: Taking
    gatherer: Gatherer | None = None  #: makes what groups of jobs result in; None where there are no groups
    keep_free: int = 0  #: bytes of disk that no job may use
    checkpoints: bool = True  #: whether states are saved while denoising
    held: Callable[[], str | None] = lambda: None  #: name of the model in memory
    all_held: Callable[[], tuple[str, ...]] = lambda: ()  #: names of all models in memory
    warm_up: Callable[[], None] = lambda: None  #: loads the model that the operator wants held; raises WanreelError
    obey: Callable[[Order], None] = lambda order: None  #: loads or unloads a model; raises WanreelError
    sample_seconds: float = 5.0  #: between two looks at the machine
    uploader: Uploader | None = None  #: copies results to object storage while the worker lives
    clock: Callable[[], float] = time.monotonic
    reduce: Callable[[str], None] = lambda job_id: None  #: queues a smaller job in the place of a failed one
    states: SharedStates | None = None  #: where workers on other machines find saved states
    batch: int = 1  #: jobs that may be begun at a time, where parts of a model take turns on the device
    only: tuple[str, ...] = ()  #: names of the models whose jobs are taken; empty for all


#: An attempt that runs: the turns that it waits for, and None at each other event; at last how it ended.
Running = Generator[Turn | None, None, Ending]


class Attempt:
    """One claimed job. `perform` runs it to its recorded end; `running` does so as far as its caller goes on."""

    def __init__(self, shop: Workshop, job: Job) -> None:
        self.job = job
        self.keeper = Keeper(shop.store.leases, job, job.time_limit or math.inf, clock=shop.clock)
        self._shop = shop
        self._reserve = shop.reserve.of(job.id)
        self._leases = shop.store.leases
        self._hit = shop.failpoints.hit
        self._courier = Courier(shop.states, job.id)
        self._preview = PreviewFile(shop.data.previews / f"{job.id}.webp")
        self._written = -math.inf  # when progress was last written
        self._saved_step: int | None = None  # of a checkpoint that was not reported yet
        self._step_saved = 0
        self._saves = False  # whether states are saved while denoising
        self._left = ""  # why the attempt stopped by itself
        self.plan = ""  #: under which it runs, as `str(Placement)`
        self._again = ""  # the stage to which a change of plan goes back; empty for the first
        self._proved = False  # whether a checkpoint of this attempt was reported
        self._steps = (0, 0)  # done, and to do
        self._findings = Findings(notes=job.notes)
        self._stopwatch = Stopwatch(shop.clock)

    def perform(self) -> Ending:
        """Render the job and record what became of it. Raises StoreError when that can't be recorded."""
        running = self.running()
        while True:
            try:
                next(running)
            except StopIteration as end:
                return end.value

    def wait(self, turn: Turn) -> None:
        """Others go first. To be called where `running` has yielded a turn, and then `go_on` before it is asked again."""
        self.keeper.rest()
        self._stopwatch.wait()
        self._recorded(lambda: self._leases.wait(self.job.id, self.job.attempt, turn.part))

    def go_on(self, turn: Turn) -> None:
        """It is this one's turn, or it is to stop."""
        self._stopwatch.go_on()
        self.keeper.go_on()
        stage = self.keeper.pace.stage
        self._recorded(lambda: self._leases.go_on(self.job.id, self.job.attempt, turn.part, stage))

    def _recorded(self, record: Callable[[], None]) -> None:
        """A lease that is lost stops the work; a full disk loses the word alone."""
        try:
            record()
        except LeaseLost:
            self.keeper.token.cancel("lease_lost")
        except InsufficientStorage as error:
            _log.warning("job %s: %s", self.job.id, error)

    def running(self) -> Running:
        """The same, standing still at each event."""
        _log.info("job %s: attempt %d begins", self.job.id, self.job.attempt)
        self._hit("attempt.claimed")
        for number in range(1, self.job.attempt):
            discard_attempt(self._shop.store, self._shop.results, self.job.evolve(attempt=number))
        try:
            with self._preview, self._courier:
                return (yield from self._perform())
        except LeaseLost as error:
            _log.warning("%s", error)
            self._discard()
            return Ending.GO_ON

    def _perform(self) -> Running:
        try:
            self._complete(*(yield from self._render()))
        except Cancelled:
            return self._stopped()
        except (InsufficientStorage, StorageUnavailable) as error:
            return self._wait(error)
        except (LeaseLost, StoreError):
            raise
        except WanreelError as error:
            return self._fail(error, retryable=error.retryable)
        except MemoryError:
            return self._fail(OutOfMemory("The machine ran out of memory."), retryable=True)
        except Exception as error:  # noqa: BLE001 - one job's fault must not end the others: it is recorded whole
            _log.exception("job %s: a fault in Wanreel", self.job.id)
            said = f"{type(error).__name__}: a fault in Wanreel; the worker's log has the details."
            self._fail(GenerationError(said), retryable=False)
            return Ending.REPLACE
        return Ending.GO_ON

    # Running

    def _render(self) -> Generator[Turn | None, None, tuple[Video | Drawing, tuple[ArtifactRef, ...]]]:
        reserve = self._reserve
        with self.keeper:
            try:
                self.job, notes = self._shop.taking.bound(self.job)
                self._note(notes)
                task = self._task()
                self._steps = (0, task.request.num_inference_steps)
                again = self.job.attempt > 1
                self._note(self._courier.bring(task.checkpoints, again=again, cancel=self.keeper.token))
                reserve.hold(task.request, task.spec, self._shop.keep_free)
                result = yield from self._follow(task)
                return result, self._files(task, result)
            finally:
                reserve.release()

    def _task(self) -> Task:
        request = work_of(self.job)
        work = self.job.id
        self._saves = self._shop.checkpoints and isinstance(request, ResolvedRequest)
        if self.job.parent_id is not None and self._shares_latents(request, self.job.parent_id):
            work = self.job.parent_id
        return Task(
            work=work,
            request=request,
            spec=self._shop.spec_of(request.model),
            results=self._shop.results,
            stem=stem_of(self.job, request.prompt),
            checkpoints=checkpoints_of(self._shop.data, work) if self._saves else None,
            keeper=self.keeper,
            handoffs=self._shop.taking.wanted(self.job),
        )

    def _shares_latents(self, request: Work, parent_id: str) -> bool:
        try:
            return same_generation(request, work_of(self._shop.store.get(parent_id)))
        except (JobNotFound, InvalidRequest):
            return False

    def _follow(self, task: Task) -> Generator[Turn | None, None, Video | Drawing]:
        """Runs the generation, recording its events, until the result is there."""
        running = self._shop.render(task)
        with contextlib.closing(cast("Generator[Event]", running)):
            for event in running:
                if isinstance(event, events.Completed):
                    return event.video
                if isinstance(event, events.Drawn):
                    return event.drawing
                self._findings.see(event)
                self._stopwatch.see(event)
                self._record(event)
                yield event if isinstance(event, Turn) else None
        raise GenerationError("The generation ended without a result.")

    def _record(self, event: Event) -> None:
        pace = self.keeper.pace
        match event:
            case events.ModelLoaded() | events.PlanChanged():
                self._placed(event)
            case events.Encoded(seconds=seconds):
                pace.stage = "denoise"
                self._reserve.release_checkpoints()
                self._tell("encoded", {"seconds": seconds}, stage="denoise")
            case events.Resumed(step=step):
                self._step_saved = step
                self._steps = (step, self._steps[1])
                self._tell("resumed", {"step": step})
            case events.Denoised():
                pace.stage = "decode"
                self._reserve.release()
                self._progress("decode", {}, last=True)
            case events.Saved(step=step):
                self._saved_step = self._step_saved = step
                self._courier.saved()
            case events.StepCompleted():
                self._stepped(event)
            case events.Preview(data=data):
                with contextlib.suppress(OSError):  # a disk that refuses a preview is no reason to stop
                    self._preview.write(data)
            case events.Decoded() | events.Downloading() | events.KeyframeStep() | events.KeyframeDrawn():
                self._counted(event)
            case events.Exported(seconds=seconds):
                pace.stage = "export"
                self._tell("exported", {"seconds": seconds}, stage="export")
                self._leases.measure(self.job.id, self.job.attempt, self._stopwatch.measures)
            case _:
                pass
        self._note((*_notes_of(event), *self._courier.troubles()))
        self._hit(f"attempt.{_PLACES.get(type(event), 'other')}")

    def _placed(self, event: events.ModelLoaded | events.PlanChanged) -> None:
        match event:
            case events.ModelLoaded(model=model, device=device, seconds=seconds, plan=plan):
                self.keeper.pace.stage = stage = self._again or "encode"
                self.plan = plan
                detail = {"model": model, "device": device, "seconds": seconds, "plan": plan}
                self._tell("loaded", detail, stage=stage)
            case events.PlanChanged(stage=stage, after=after):
                self.plan = after
                self._again = stage if stage in ("denoise", "decode") else ""
                self._tell("plan_changed", asdict(event))

    def _counted(self, event: events.Decoded | events.Downloading | events.KeyframeStep | events.KeyframeDrawn) -> None:
        match event:
            case events.KeyframeStep(step=step, total_steps=total, eta_seconds=eta):
                self.keeper.pace.stage = "keyframe"
                detail = {"step": step, "total_steps": total, "eta_seconds": round(eta, 1)}
                self._progress("keyframe", detail, last=step in (0, total), share=step / total if total else 0.0)
            case events.KeyframeDrawn():
                self._tell("keyframe_drawn", asdict(event), stage="keyframe")
            case events.Downloading(received_bytes=received, total_bytes=total):
                self.keeper.pace.stage = "downloading"
                detail = {"received_bytes": received, "total_bytes": total}
                self._progress("downloading", detail, share=received / total if total else 0.0)
            case events.Decoded(frames=frames, total_frames=total):
                self._progress("decode", {"frames": frames, "total_frames": total}, share=frames / total)

    def _stepped(self, event: events.StepCompleted) -> None:
        pace, done = self.keeper.pace, event.step == event.total_steps
        pace.step_seconds = event.seconds
        detail = {
            "seconds": round(event.seconds, 3),
            "eta_seconds": round(event.eta_seconds, 1),
            "expert": event.expert,
        }
        self._steps = (event.step, event.total_steps)
        self._progress("denoise", detail, last=done or self.keeper.draining)
        if self.keeper.draining:
            self._leave_if_saved(event.step)

    def _leave_if_saved(self, step: int) -> None:
        """Draining: the state after this step is on disk, or none is kept, so stop here."""
        if not self._saves or self._step_saved >= step:
            self._left = "drain"
            raise Cancelled("The worker stops.")

    def _progress(self, stage: str, detail: Mapping[str, object], *, last: bool = False, share: float = 0.0) -> None:
        """Write progress, but not so often that writing costs more than the work. The `last` of a stage always."""
        now = self._shop.clock()
        # The first checkpoint of an attempt is told of at once, as it proves that the job is no poison.
        proof = self._saved_step is not None and not self._proved
        if not (last or proof or share >= 1.0) and now - self._written < _WRITE_PROGRESS:
            return
        self._proved = self._proved or proof
        self._written = now
        saved, self._saved_step = self._saved_step, None
        progress = Progress(stage, *self._steps, share)
        self._leases.heartbeat(self.job.id, self.job.attempt, progress, saved_step=saved, detail=detail)

    def _tell(self, kind: str, data: Mapping[str, object], *, stage: str = "") -> None:
        self._leases.record(self.job.id, self.job.attempt, kind, data, stage=stage)

    def _note(self, notes: tuple[str, ...]) -> None:
        for note in notes:
            self._findings.note(note)
            self._leases.note(self.job.id, self.job.attempt, note)

    # Ending

    def _files(self, task: Task, result: Video | Drawing) -> tuple[ArtifactRef, ...]:
        """The result as the record names it, with a manifest beside it. Everything is on disk when this returns."""
        self._hit("attempt.rendered")
        weights = hashes_of_work(task.request, lambda name: self._shop.weights_of(self._shop.spec_of(name)))
        manifest = self._findings.manifest(task.request, weights, result).to_json().encode()
        path = result.path.with_suffix(".json")
        write_durably(path, manifest)
        (main, _), *others = result.files().items()
        files = [ArtifactRef(main, result.path.name, result.sha256, result.size_bytes, media_type_of(result.path))]
        for kind, other in (*others, ("manifest", path)):
            data = other.read_bytes()
            files.append(
                ArtifactRef(kind, other.name, hashlib.sha256(data).hexdigest(), len(data), media_type_of(other))
            )
        if isinstance(result, Video):
            store, results = self._shop.store, self._shop.results
            more, notes = joined_to_source(store, results, self.job, result, self.keeper.token)
            self._note(notes)
            files += more
        self._shop.taking.leave(self.job, files)
        return tuple(files)

    def _complete(self, result: Video | Drawing, files: tuple[ArtifactRef, ...]) -> None:
        self._hit("attempt.before_complete")
        self._leases.complete(self.job.id, self.job.attempt, result.sha256, files, seconds=self.keeper.seconds)
        self._hit("attempt.after_complete")
        _log.info("job %s: completed in %.1f s, %s", self.job.id, self.keeper.seconds, result.path.name)
        keep_latents(checkpoints_of(self._shop.data, self.job.id))
        self._courier.forget()
        self._hit("attempt.cleaned")

    def _stopped(self) -> Ending:
        """The work stopped because somebody asked."""
        self._discard()
        reason = self.keeper.token.reason or self._left
        if reason == "drain":
            self._give_back("drain")
        elif reason == "timeout":
            return self._fail(JobTimeout(f"The job ran past its limit of {self.job.time_limit:g} s."), retryable=False)
        elif reason != "lease_lost":
            self._leases.confirm_cancel(self.job.id, self.job.attempt, seconds=self.keeper.seconds)
            self._courier.forget()
            remove_tree(checkpoints_of(self._shop.data, self.job.id))
        _log.info("job %s: stopped (%s)", self.job.id, reason or "cancelled")
        return Ending.GO_ON

    def _wait(self, error: WanreelError) -> Ending:
        """The disk is too full for this job now, or its pictures can't be fetched: it goes back blameless."""
        _log.warning("job %s: %s", self.job.id, error)
        self._discard()
        self._give_back(error.code)
        return Ending.WAIT

    def _give_back(self, reason: str) -> None:
        """Another worker may take it at once, so what this one saved is shared first."""
        self._courier.settle()
        self._note(self._courier.troubles())
        if self._leases.requeue(self.job.id, self.job.attempt, reason, seconds=self.keeper.seconds).ended:
            self._courier.forget()

    def _fail(self, error: WanreelError, *, retryable: bool) -> Ending:
        """Checkpoints stay, so that a retry goes on from them."""
        _log.warning("job %s: %s: %s", self.job.id, error.code, error)
        self._discard()
        failure, seconds = JobFailure.of(error), self.keeper.seconds
        # No plan was left, so the same again would fail again.
        reducing = isinstance(error, OutOfMemory) and wants_less(self.job)
        retryable = retryable and not reducing
        if retryable:
            self._courier.settle()
        failed = self._leases.fail(self.job.id, self.job.attempt, failure, retryable=retryable, seconds=seconds)
        if failed.ended:
            self._courier.forget()
        if reducing and not failed.cancel_requested:
            self._shop.reduce(self.job.id)
        return Ending.REPLACE if isinstance(error, DeviceFault) else Ending.GO_ON

    def _discard(self) -> None:
        discard_attempt(self._shop.store, self._shop.results, self.job)


def discard_attempt(store: JobStore, results: Path, job: Job) -> None:
    """Delete the files of an attempt that did not complete. A result that is on record is never touched."""
    try:
        stem = stem_of(job, work_of(job).prompt)
    except InvalidRequest:
        return  # an attempt at a request that can't be read wrote nothing
    discard(results, stem, (file.name for file in store.artifacts(job.id)))


def _notes_of(event: Event) -> tuple[str, ...]:
    """What an event says to people."""
    match event:
        case events.ModelLoaded(notes=notes) | events.Encoded(notes=notes) | events.Resumed(notes=notes):
            return notes
        case events.KeyframeStep(notes=notes) | events.Exported(notes=notes):
            return notes
        case events.LorasApplied(applied=applied):
            return tuple(str(lora) for lora in applied)
        case events.PlanChanged():
            return (f"plan_changed: {event}",)
        case events.StepsChosen():
            return (f"steps: {event}",)
        case events.Denoised(foretold=foretold, sigmas=sigmas) if foretold:
            return (f"turbo: {foretold} of {len(sigmas) - 1} steps were foretold",)
        case _:
            return ()


#: Names of failpoints after each kind of event.
_PLACES: dict[type, str] = {
    events.ModelLoaded: "loaded",
    events.Encoded: "encoded",
    events.Resumed: "resumed",
    events.Saved: "saved",
    events.StepCompleted: "step",
    events.Preview: "preview",
    events.Denoised: "denoised",
    events.Decoded: "decoded",
    events.Exported: "exported",
}
