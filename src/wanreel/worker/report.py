"""Report: writes into a job's record what the events of one attempt say. Knows nothing of files or of how it ends.

It alone sees each step, so it is also what leaves the work when the worker drains.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import asdict

from wanreel.core import events
from wanreel.core.errors import Cancelled
from wanreel.core.events import Event
from wanreel.core.job import Job, Progress
from wanreel.storage.previews import PreviewFile
from wanreel.worker.courier import Courier
from wanreel.worker.keeper import Keeper
from wanreel.worker.manifests import Findings
from wanreel.worker.space import Reserve
from wanreel.worker.stopwatch import Stopwatch
from wanreel.worker.task import Task
from wanreel.worker.workshop import Workshop

_WRITE_PROGRESS = 0.5  # seconds between writes of progress


class Report:
    """See every event as it comes."""

    def __init__(self, shop: Workshop, job: Job, keeper: Keeper, courier: Courier, reserve: Reserve) -> None:
        self.plan = ""  #: under which the attempt runs, as `str(Placement)`
        self.left = ""  #: why it stopped by itself
        self.preview = PreviewFile(shop.data.previews / f"{job.id}.webp")
        self.findings = Findings(notes=job.notes)
        self.stopwatch = Stopwatch(shop.clock)
        self._job = job
        self._keeper = keeper
        self._courier = courier
        self._reserve = reserve
        self._clock = shop.clock
        self._leases = shop.store.leases
        self._hit = shop.failpoints.hit
        self._written = -math.inf  # when progress was last written
        self._saved_step: int | None = None  # of a checkpoint that was not reported yet
        self._step_saved = 0
        self._saves = False  # whether states are saved while denoising
        self._again = ""  # the stage to which a change of plan goes back; empty for the first
        self._proved = False  # whether a checkpoint of this attempt was reported
        self._steps = (0, 0)  # done, and to do

    def begin(self, task: Task) -> None:
        """What follows are the events of this task."""
        self._saves = task.checkpoints is not None
        self._steps = (0, task.request.num_inference_steps)

    def see(self, event: Event) -> None:
        """Write down what it says. Raises Cancelled where the worker drains and the state after this step is kept."""
        self.findings.see(event)
        self.stopwatch.see(event)
        self._record(event)
        self.note((*_notes_of(event), *self._courier.troubles()))
        self._hit(f"attempt.{_PLACES.get(type(event), 'other')}")

    def note(self, notes: tuple[str, ...]) -> None:
        """For people to read, in the record and in the manifest."""
        for note in notes:
            self.findings.note(note)
            self._leases.note(self._job.id, self._job.attempt, note)

    def _record(self, event: Event) -> None:
        pace = self._keeper.pace
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
                    self.preview.write(data)
            case events.Decoded() | events.Downloading() | events.KeyframeStep() | events.KeyframeDrawn():
                self._counted(event)
            case events.Exported(seconds=seconds):
                pace.stage = "export"
                self._tell("exported", {"seconds": seconds}, stage="export")
                self._leases.measure(self._job.id, self._job.attempt, self.stopwatch.measures)
            case _:
                pass

    def _placed(self, event: events.ModelLoaded | events.PlanChanged) -> None:
        match event:
            case events.ModelLoaded(model=model, device=device, seconds=seconds, plan=plan):
                self._keeper.pace.stage = stage = self._again or "encode"
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
                self._keeper.pace.stage = "keyframe"
                detail = {"step": step, "total_steps": total, "eta_seconds": round(eta, 1)}
                self._progress("keyframe", detail, last=step in (0, total), share=step / total if total else 0.0)
            case events.KeyframeDrawn():
                self._tell("keyframe_drawn", asdict(event), stage="keyframe")
            case events.Downloading(received_bytes=received, total_bytes=total):
                self._keeper.pace.stage = "downloading"
                detail = {"received_bytes": received, "total_bytes": total}
                self._progress("downloading", detail, share=received / total if total else 0.0)
            case events.Decoded(frames=frames, total_frames=total):
                self._progress("decode", {"frames": frames, "total_frames": total}, share=frames / total)

    def _stepped(self, event: events.StepCompleted) -> None:
        pace, done = self._keeper.pace, event.step == event.total_steps
        pace.step_seconds = event.seconds
        detail = {
            "seconds": round(event.seconds, 3),
            "eta_seconds": round(event.eta_seconds, 1),
            "expert": event.expert,
        }
        self._steps = (event.step, event.total_steps)
        self._progress("denoise", detail, last=done or self._keeper.draining)
        if self._keeper.draining:
            self._leave_if_saved(event.step)

    def _leave_if_saved(self, step: int) -> None:
        """Draining: the state after this step is on disk, or none is kept, so stop here."""
        if not self._saves or self._step_saved >= step:
            self.left = "drain"
            raise Cancelled("The worker stops.")

    def _progress(self, stage: str, detail: Mapping[str, object], *, last: bool = False, share: float = 0.0) -> None:
        """Write progress, but not so often that writing costs more than the work. The `last` of a stage always."""
        now = self._clock()
        # The first checkpoint of an attempt is told of at once, as it proves that the job is no poison.
        proof = self._saved_step is not None and not self._proved
        if not (last or proof or share >= 1.0) and now - self._written < _WRITE_PROGRESS:
            return
        self._proved = self._proved or proof
        self._written = now
        saved, self._saved_step = self._saved_step, None
        progress = Progress(stage, *self._steps, share)
        self._leases.heartbeat(self._job.id, self._job.attempt, progress, saved_step=saved, detail=detail)

    def _tell(self, kind: str, data: Mapping[str, object], *, stage: str = "") -> None:
        self._leases.record(self._job.id, self._job.attempt, kind, data, stage=stage)


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
