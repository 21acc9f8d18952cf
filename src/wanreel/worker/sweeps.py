"""Sweeps' results: a sheet of stills, a video of all cells at once, and tables. A finisher for `Gatherer`."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from wanreel.core.cancel import CancelToken
from wanreel.core.errors import InsufficientStorage
from wanreel.core.group import Group
from wanreel.core.job import Job
from wanreel.core.measures import STAGES
from wanreel.core.media_types import media_type_of
from wanreel.core.sweep import Cell, Sweep
from wanreel.jobs import JobStore
from wanreel.media.contact_sheet import Tile, write_sheet, write_side_by_side
from wanreel.service import request_of
from wanreel.storage.durable import write_durably
from wanreel.storage.outputs import slug

KIND = "sweep"
#: What tables say of each cell's request, beside the axes.
_COLUMNS = (
    *("model", "seed", "num_inference_steps", "guidance_high", "guidance_low", "flow_shift", "solver"),
    *("prompt", "negative_prompt"),
)


@dataclass(frozen=True)
class SweepSheets:
    """For one worker."""

    store: JobStore
    results: Path

    def finish(self, group: Group, jobs: Sequence[Job], cancel: CancelToken) -> str:
        """Makes all files of the cells that completed; others have an empty place. Raises InsufficientStorage,
        ExportFailed, InvalidRequest for a cell whose video is gone, Cancelled."""
        sweep = Sweep.from_dict(json.loads(group.spec))
        cells, done = sweep.cells(), {job.id for job in jobs}
        members = self.store.groups.jobs(group.id)
        tiles = [self._tile(cell, job, done) for cell, job in zip(cells, members, strict=True)]
        shape = request_of(jobs[0]).finished
        stem = self._stem(group, jobs)
        paths = {kind: self.results / f"{stem}.{suffix}" for kind, suffix in _SUFFIXES.items()}
        try:
            title = group.title if sweep.title else ""
            layout = write_sheet(paths["sheet"], tiles, sweep.grid, (shape.width, shape.height), title)
            facts = (shape.width, shape.height, shape.fps)
            write_side_by_side(paths["video"], tiles, sweep.grid, facts, cancel)
            rows = [self._row(sweep, cell, job) for cell, job in zip(cells, members, strict=True)]
            for row, place in zip(rows, range(len(rows)), strict=True):
                row["sheet"] = [*layout.corner(place), layout.width, layout.height]
            write_durably(paths["csv"], _csv(sweep, rows))
            write_durably(paths["json"], _json({"title": group.title, "sweep": sweep.to_dict(), "cells": rows}))
        except OSError as exc:
            self._delete(path.name for path in paths.values())
            raise InsufficientStorage(f"The sweep's files can't be written: {exc.strerror}.") from exc
        except BaseException:
            self._delete(path.name for path in paths.values())
            raise
        return json.dumps({"files": {kind: _file(path) for kind, path in paths.items()}}, ensure_ascii=False)

    def sweep(self, result: str) -> None:
        """Deletes files that others have taken the place of."""
        with contextlib.suppress(ValueError, KeyError):
            files = cast("dict[str, dict[str, str]]", json.loads(result)["files"])
            self._delete(Path(file["name"]).name for file in files.values())

    def _delete(self, names: Any) -> None:
        for name in names:
            with contextlib.suppress(OSError):
                (self.results / name).unlink(missing_ok=True)

    def _tile(self, cell: Cell, job: Job, done: set[str]) -> Tile:
        words = sorted(cell.labels, key=len)  # prompts last: they may be cut
        if job.id not in done:
            return Tile((str(job.status), *words))
        files = {file.kind: self.results / file.name for file in self.store.artifacts(job.id)}
        return Tile(words, files["poster"], files["video"])

    def _row(self, sweep: Sweep, cell: Cell, job: Job) -> dict[str, Any]:
        """Settings and timings of a cell."""
        request = request_of(job).to_dict()
        seconds = [it.seconds for it in self.store.attempts(job.id) if it.seconds is not None]
        files = {file.kind: file.name for file in self.store.artifacts(job.id)}
        return {
            "cell": 1 + (job.cell or 0),
            "job": job.id,
            "status": str(job.status),
            "axes": {axis.name: label for axis, label in zip(sweep.axes, cell.labels, strict=True)},
            "request": request,
            "seconds": round(sum(seconds), 3) if seconds else None,
            "stages": self._stages(job),
            "video": files.get("video"),
            "error": None if job.error is None else {"code": job.error.code, "message": job.error.message},
        }

    def _stages(self, job: Job) -> Mapping[str, float]:
        """Seconds of each stage, of the attempt that made the video."""
        measured = [event.data for event in self.store.events(job.id) if event.kind == "measured"]
        return {stage: round(float(measured[-1][stage]), 3) for stage in STAGES} if measured else {}

    def _stem(self, group: Group, jobs: Sequence[Job]) -> str:
        """Of these files alone: what they are made of is in their name, as older ones are deleted after them."""
        when = time.strftime("%Y%m%d-%H%M%S", time.gmtime(group.created_at))
        made_of = hashlib.sha256(" ".join(f"{job.id}-{job.attempt}" for job in jobs).encode()).hexdigest()[:8]
        return "_".join(part for part in (when, slug(group.title), f"{group.id[:8]}-{made_of}") if part)


_SUFFIXES = {"sheet": "sheet.png", "video": "side-by-side.mp4", "csv": "cells.csv", "json": "cells.json"}


def _file(path: Path) -> dict[str, object]:
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return {"name": path.name, "media_type": media_type_of(path), "bytes": len(data), "sha256": digest}


def _csv(sweep: Sweep, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """One line a cell. Numbers, words and nothing that a spreadsheet would compute."""
    text = io.StringIO()
    names = [axis.name for axis in sweep.axes]
    writer = csv.writer(text, lineterminator="\r\n")
    stages = [f"{stage}_seconds" for stage in STAGES]
    writer.writerow(
        ["cell", "job", "status", *(f"axis {name}" for name in names), *_COLUMNS, "seconds", *stages, "video"]
    )
    for row in rows:
        request, axes = row["request"], row["axes"]
        writer.writerow(
            [
                *(row["cell"], row["job"], row["status"]),
                *(_harmless(axes[name]) for name in names),
                *(_harmless(request[name]) for name in _COLUMNS),
                row["seconds"],
                *(row["stages"].get(stage) for stage in STAGES),
                row["video"],
            ]
        )
    return text.getvalue().encode("utf-8-sig")


def _harmless(value: object) -> object:
    """Text that begins like a formula begins with an apostrophe, as spreadsheets want it."""
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value


def _json(values: Mapping[str, object]) -> bytes:
    return (json.dumps(values, ensure_ascii=False, indent=2) + "\n").encode()
