"""The spine: a run that is stopped anywhere goes on from disk to the same file, and failures cost what they must."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from generation.factory import ARCHITECTURES, Case, make_case, model_of, noise_picture
from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import Mode
from wanreel.core.errors import Cancelled, DeviceFault, ExportFailed, InsufficientStorage, OutOfMemory
from wanreel.core.events import (
    Completed,
    Decoded,
    Denoised,
    Encoded,
    Event,
    Exported,
    ModelLoaded,
    Preview,
    Resumed,
    Saved,
    StepCompleted,
)
from wanreel.core.resolved import Resolution
from wanreel.core.video import Video
from wanreel.generation import export as export_module
from wanreel.generation.cadence import ALWAYS, Cadence
from wanreel.generation.checkpoint import CheckpointStore
from wanreel.generation.faults import mapped_faults
from wanreel.generation.render import Saving, Target, render
from wanreel.models.pool import ModelPool
from wanreel.storage.disk import MemoryBlobs

STEPS = 4


class Studio:
    """A request, the folders it writes to, and a pool of tiny models."""

    def __init__(self, root: Path, case: Case) -> None:
        pictures = MemoryBlobs()
        request = case.request
        for name, seed in (("image", 1), ("last_image", 2)):
            reference = getattr(request, name)
            if reference is not None:
                png = root / f"{name}.png"
                noise_picture(seed, reference.width, reference.height).save(png)
                reference = replace(reference, sha256=pictures.put(png.read_bytes()))
                request = replace(request, **{name: reference})
        self.pool = ModelPool(lambda spec, placement: model_of(spec.name))
        self.results = root / "results"
        self.resolution = Resolution(request, case.spec, ())
        self.target = Target(self.results, pictures)
        self.store = CheckpointStore(root / "checkpoints")

    def events(self, cancel: CancelToken | None = None, *, kept: bool = True, **saving: Any) -> Any:
        """One attempt. That fresh objects give equal bits is `test_resume`'s to show."""
        options: dict[str, Any] = {"cadence": ALWAYS} | saving
        how = Saving(self.store, "job", **options) if kept else None
        return render(self.pool, self.resolution, self.target, cancel or CancelToken(), how)

    def video(self, **options: Any) -> Video:
        return completed(self.events(**options))


def completed(events: Iterator[Event]) -> Video:
    *_, last = events
    assert isinstance(last, Completed)
    return last.video


def kinds(events: Iterator[Event]) -> list[type]:
    return [type(event) for event in events]


def stop_after(studio: Studio, step: int) -> None:
    """Runs until `step` is done and reported, and leaves."""
    with closing(studio.events()) as events:
        next(event for event in events if isinstance(event, StepCompleted) and event.step == step)


def studio_for(root: Path, name: str = "t2v-1.3b", mode: Mode = "text", **knobs: Any) -> Studio:
    return Studio(root, make_case(name, mode, **({"num_inference_steps": STEPS} | knobs)))


def test_the_order_of_events(tmp_path: Path) -> None:
    studio = studio_for(tmp_path)
    events = [kind for kind in kinds(studio.events()) if kind is not Preview]
    steps = [Saved, StepCompleted] * STEPS
    assert events == [ModelLoaded, Encoded, *steps, Denoised, Decoded, Decoded, Decoded, Exported, Completed]


def test_nothing_is_saved_where_nobody_asked(tmp_path: Path) -> None:
    studio = studio_for(tmp_path)
    assert Saved not in kinds(studio.events(kept=False))
    assert not studio.store.folder.exists()


IN_THE_GATE = {("t2v-1.3b", "text"), ("i2v-a14b", "picture"), ("ti2v-5b", "picture")}


@pytest.mark.parametrize(
    ("name", "mode"),
    [pytest.param(*it, marks=[] if it in IN_THE_GATE else pytest.mark.deep) for it in ARCHITECTURES],
)
def test_a_run_left_after_any_step_gives_the_same_file(tmp_path: Path, name: str, mode: Mode) -> None:
    studio = studio_for(tmp_path, name, mode)
    whole = studio.video(kept=False)
    for stop in range(1, STEPS + 1):
        stop_after(studio, stop)
        again = list(studio.events())
        assert [event.step for event in again if isinstance(event, Resumed)] == [stop]
        assert [event.step for event in again if isinstance(event, StepCompleted)] == list(range(stop + 1, STEPS + 1))
        assert completed(iter(again)).sha256 == whole.sha256
        studio.store.remove()


def test_finished_latents_are_only_decoded_again(tmp_path: Path) -> None:
    studio = studio_for(tmp_path)
    whole = studio.video()
    events = list(studio.events())
    assert {Encoded, StepCompleted}.isdisjoint(kinds(iter(events)))
    assert [event.step for event in events if isinstance(event, Resumed)] == [STEPS]
    assert completed(iter(events)).sha256 == whole.sha256
    studio.resolution = replace(
        studio.resolution, request=replace(studio.resolution.request, fps=30.0, output_format="webm")
    )
    other = list(studio.events())
    assert Encoded not in kinds(iter(other))
    assert completed(iter(other)).path.suffix == ".webm"


def test_a_failed_export_is_done_again_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studio = studio_for(tmp_path)

    def fail(*_: object) -> None:
        raise ExportFailed("the encoder broke")

    monkeypatch.setattr(export_module.VideoWriter, "write", fail)
    with pytest.raises(ExportFailed):
        list(studio.events())
    assert list(studio.results.iterdir()) == []
    monkeypatch.undo()
    events = list(studio.events())
    assert StepCompleted not in kinds(iter(events))
    assert completed(iter(events)).path.is_file()


def test_damaged_latents_are_refused_and_made_again(tmp_path: Path) -> None:
    studio = studio_for(tmp_path)
    whole = studio.video()
    path = studio.store.latents_path(0)
    path.write_bytes(path.read_bytes()[:-9])
    for state in studio.store.folder.glob("*step*"):
        state.unlink()
    events = list(studio.events())
    (resumed,) = [event for event in events if isinstance(event, Resumed)]
    assert resumed.step == 0
    assert "saved latents" in resumed.notes[0]
    assert completed(iter(events)).sha256 == whole.sha256


def test_another_request_takes_nothing_of_the_first(tmp_path: Path) -> None:
    studio = studio_for(tmp_path)
    first = studio.video()
    studio.resolution = replace(studio.resolution, request=replace(studio.resolution.request, seed=77))
    events = list(studio.events())
    assert Encoded in kinds(iter(events))
    assert completed(iter(events)).sha256 != first.sha256


def test_an_inexact_resume_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studio = studio_for(tmp_path)
    stop_after(studio, 1)
    monkeypatch.setattr(torch, "__version__", "9.9")
    (resumed,) = [event for event in studio.events() if isinstance(event, Resumed)]
    assert len(resumed.notes) == 1
    assert resumed.notes[0].startswith("resumed_inexact: torch: ")
    assert resumed.notes[0].endswith("→ 9.9")


def test_a_full_disk_costs_the_checkpoint_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studio = studio_for(tmp_path)

    def full(*_: object) -> None:
        raise InsufficientStorage("No room.")

    monkeypatch.setattr(CheckpointStore, "save", full)
    monkeypatch.setattr(CheckpointStore, "save_latents", full)
    events = list(studio.events())
    assert Saved not in kinds(iter(events))
    assert completed(iter(events)).path.is_file()


def test_a_draining_worker_gets_its_checkpoint(tmp_path: Path) -> None:
    studio = studio_for(tmp_path)
    asked = iter([False, True, False])
    never = Cadence(share=0.0, loss=float("inf"))
    events = list(studio.events(cadence=never, urgent=lambda: next(asked)))
    assert [event.step for event in events if isinstance(event, Saved)] == [2, STEPS]


@pytest.mark.parametrize("stop_at", [ModelLoaded, Encoded, StepCompleted, Preview, Denoised, Decoded])
def test_cancelled_or_closed_anywhere_no_file_stays(tmp_path: Path, stop_at: type) -> None:
    studio, cancel = studio_for(tmp_path), CancelToken()
    with pytest.raises(Cancelled):
        for event in studio.events(cancel, kept=False):
            if isinstance(event, stop_at):
                cancel.cancel()
    with closing(studio.events(kept=False)) as events:
        next(event for event in events if isinstance(event, stop_at))
    assert not studio.results.exists() or list(studio.results.iterdir()) == []


def test_a_given_name_is_used(tmp_path: Path) -> None:
    studio = studio_for(tmp_path)
    studio.target = replace(studio.target, stem="2026_a-name_1")
    video = studio.video()
    assert {path.name for path in studio.results.iterdir()} == {
        "2026_a-name_1.mp4",
        "2026_a-name_1.last.png",
        "2026_a-name_1.poster.jpg",
    }
    assert video.path.parent == studio.results


def test_what_denoised_says_is_true(tmp_path: Path) -> None:
    studio = studio_for(tmp_path)
    (fact,) = [event for event in studio.events() if isinstance(event, Denoised)]
    (again,) = [event for event in studio.events() if isinstance(event, Denoised)]
    assert fact == again  # made, and read back
    assert len(fact.sigmas) == STEPS + 1
    assert fact.sigmas[-1] == 0.0
    assert fact.environment["torch"] == torch.__version__


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), OutOfMemory),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), OutOfMemory),
        (RuntimeError("could not create a primitive"), OutOfMemory),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), OutOfMemory),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), OutOfMemory),
        (MemoryError(), OutOfMemory),
        (MemoryError("Unable to allocate 3.0 GiB for an array"), OutOfMemory),
        (RuntimeError("CUDA error: an illegal memory access was encountered\nadvice"), DeviceFault),
        (RuntimeError("shapes do not match"), RuntimeError),
        (ValueError("x"), ValueError),
    ],
)
def test_torchs_failures_get_our_names(raised: Exception, expected: type[Exception]) -> None:
    with pytest.raises(expected) as caught, mapped_faults():
        raise raised
    assert type(caught.value) is expected
    assert "advice" not in str(caught.value)


PROCESS = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from generation.test_render import ARCHITECTURES, folder_of, stop_after, studio_for
for name, mode in ARCHITECTURES:
    folder = folder_of(Path(sys.argv[2]), name, mode)
    folder.mkdir()
    stop_after(studio_for(folder, name, mode, solver=sys.argv[3]), 2)
os.kill(os.getpid(), signal.SIGKILL)
"""


def folder_of(root: Path, name: str, mode: Mode) -> Path:
    return root / f"{name}-{mode}"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.deep  # one architecture, and the whole program, in tests/faults/test_kills.py
@pytest.mark.parametrize("solver", ["unipc", "dpm++"])
def test_what_a_killed_process_saved_goes_on_in_another(tmp_path: Path, solver: str) -> None:
    """Every architecture, begun in one process and ended in this one, against begun and ended here."""
    command = [sys.executable, "-c", PROCESS, str(Path(__file__).parents[1]), str(tmp_path), solver]
    assert subprocess.run(command, capture_output=True, check=False, timeout=250).returncode == -signal.SIGKILL
    for name, mode in ARCHITECTURES:
        studio = studio_for(folder_of(tmp_path, name, mode), name, mode, solver=solver)
        whole = studio.video(kept=False)
        events = list(studio.events())
        (resumed,) = [event for event in events if isinstance(event, Resumed)]
        assert resumed == Resumed(2)
        assert completed(iter(events)).sha256 == whole.sha256
