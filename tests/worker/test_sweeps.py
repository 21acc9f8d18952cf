"""Sweeps made by real workers with the demo model: every encoder runs once, and cells lie where they belong."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wanreel.core.errors import InvalidRequest
from wanreel.core.job import JobStatus
from wanreel.core.sweep import parse_sweep
from wanreel.generation import encode
from wanreel.media.contact_sheet import Tile, layout_of, write_sheet
from wanreel.media.video import probe, read_frames
from wanreel.service import Terms
from wanreel.service.sweeps import SweepView
from worker.place import SMALL, Place

PROMPTS = ["a red circle moves right over a blue background", "a green star moves up over a white background"]
AXES = {"prompt": PROMPTS, "guidance": ["1", "3"], "seed": [1, 2, 3]}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("sweeps"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def counted() -> Iterator[dict[str, int]]:
    """How often the text encoder and the encoder of pictures ran."""
    counts = {"_encoded": 0, "_picture_latents": 0}
    with pytest.MonkeyPatch.context() as patch:
        for name in counts:
            real = getattr(encode, name)

            def counting(*given: Any, name: str = name, real: Any = real) -> Any:
                counts[name] += 1
                return real(*given)

            patch.setattr(encode, name, counting)
        yield counts


@pytest.fixture(scope="module")
def done(place: Place, counted: dict[str, int]) -> SweepView:
    """Twelve cells from one picture, made."""
    png = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 30, 30)).save(png, "PNG")
    picture = place.runtime.take_picture(png.getvalue())
    view = place.create(AXES, image=picture, title="Twelve")
    assert (view.status, len(view.jobs)) == ("queued", 12)
    place.work()
    return place.sweeps.get(view.group.id)


def test_encoders_ran_once_for_each_prompt_and_picture(done: SweepView, counted: dict[str, int]) -> None:
    assert {job.status for job in done.jobs} == {JobStatus.COMPLETED}
    assert done.status == "completed"
    # Two prompts and the negative one; one picture at one size.
    assert counted == {"_encoded": 3, "_picture_latents": 1}


def test_the_sheet_has_every_cell_in_its_place(place: Place, done: SweepView) -> None:
    path = place.sweeps.path(done, "sheet")
    assert path is not None
    sheet = np.asarray(Image.open(path).convert("RGB")).astype(int)
    table = json.loads(place.sweeps.path(done, "json").read_text())  # type: ignore[union-attr]
    assert done.sweep.grid == (4, 3)
    for row, cell, job in zip(table["cells"], done.cells, done.jobs, strict=True):
        poster = Image.open(place.service.results / place.service.files(job.id)["poster"].name).convert("RGB")
        left, top, width, height = row["sheet"]
        shown = sheet[top : top + height, left : left + width]
        assert np.abs(shown - np.asarray(poster.resize((width, height))).astype(int)).max() <= 2
        assert list(row["axes"].values()) == list(cell.labels)
    corners = [tuple(row["sheet"][:2]) for row in table["cells"]]
    assert corners == sorted(corners, key=lambda corner: (corner[1], corner[0])) and len(set(corners)) == 12


def test_a_sheet_of_colours(tmp_path: Path) -> None:
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]
    tiles: list[Tile] = []
    for number, colour in enumerate(colours):
        Image.new("RGB", (96, 64), colour).save(tmp_path / f"{number}.png")
        tiles.append(Tile((f"seed {number}", "漢字"), tmp_path / f"{number}.png"))
    tiles[3] = Tile(("seed 3", "failed"))
    layout = write_sheet(tmp_path / "sheet.png", tiles, (2, 3), (96, 64), "Colours")
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.size == layout.size == layout_of((2, 3), (96, 64), head=layout.head).size
    for number, colour in enumerate(colours):
        left, top = layout.corner(number)
        expected = (214, 214, 210) if number == 3 else colour
        for x, y in ((left, top), (left + 95, top), (left, top + 63), (left + 95, top + 63)):
            assert sheet.getpixel((x, y)) == expected
        words = sheet.crop((left, top + 64, left + 96, top + 64 + layout.caption))
        assert np.asarray(words.convert("L")).min() < 120  # something is written under it


def test_the_video_plays_all_cells_side_by_side(place: Place, done: SweepView) -> None:
    path = place.sweeps.path(done, "video")
    assert path is not None
    facts = probe(path)
    shape = place.service.get(done.jobs[0].id)
    fps = json.loads(shape.request)["fps"]
    assert (facts.num_frames, float(facts.fps), facts.codec) == (5, fps, "h264")
    layout = layout_of(done.sweep.grid, (64, 64))
    assert (facts.width, facts.height) == layout.size
    whole = list(read_frames(path))
    for number, job in enumerate(done.jobs):
        own = list(read_frames(place.service.results / place.service.files(job.id)["video"].name))
        left, top = layout.corner(number)
        for frame in (0, 4):
            shown = whole[frame][top : top + layout.height, left : left + layout.width].astype(int)
            assert np.abs(shown - own[frame]).mean() < 6


def test_tables_hold_settings_and_timings(place: Place, done: SweepView) -> None:
    rows = list(csv.DictReader(place.sweeps.path(done, "csv").read_text("utf-8-sig").splitlines()))  # type: ignore[union-attr]
    assert len(rows) == 12
    assert [row["axis seed"] for row in rows[:4]] == ["seed 1", "seed 2", "seed 3", "seed 1"]
    assert {row["prompt"] for row in rows} == set(PROMPTS)
    assert all(float(row["seconds"]) >= float(row["denoise_seconds"]) > 0 for row in rows)
    assert rows[3]["guidance_high"] == "3.0"


def test_the_order_of_making_changes_nothing(place: Place, done: SweepView) -> None:
    image = done.sweep.base.image
    again = place.create({"prompt": PROMPTS[:1], "guidance": ["3"], "seed": [3, 1]}, image=image)
    place.service.move(again.jobs[1].id, before=again.jobs[0].id)
    place.work()
    before, after = place.shas(done), place.shas(place.sweeps.get(again.group.id))
    assert len(after) == 2 and all(before[labels] == sha for labels, sha in after.items())


def test_cells_share_a_seed_that_nobody_asked_for(place: Place) -> None:
    view = place.create({"guidance": ["1", "3"]}, prompt="a red circle")
    seeds = {json.loads(job.request)["seed"] for job in view.jobs}
    assert seeds == {view.sweep.base.seed}
    place.sweeps.cancel(view.group.id)
    place.sweeps.delete(view.group.id)


def test_cells_that_would_be_the_same_video_are_refused(place: Place) -> None:
    with pytest.raises(InvalidRequest, match="is the same video as"):
        place.create({"preset": ["standard", "high"]}, prompt="a red circle", seed=1)
    assert place.sweeps.list(owner=None, limit=100)[0].sweep.axes[0].name != "preset"


def test_the_same_key_is_the_same_sweep(place: Place) -> None:
    asked = parse_sweep({**SMALL, "prompt": "a red circle", "axes": {"guidance": [1, 2]}})
    one, _ = place.sweeps.create(asked, Terms(idempotency_key="k"))
    other, _ = place.sweeps.create(asked, Terms(idempotency_key="k"))
    assert one.group.id == other.group.id
    place.sweeps.cancel(one.group.id)
    place.sweeps.delete(one.group.id)


def test_a_stopped_sweep_shows_what_is_there_and_goes_on(place: Place) -> None:
    view = place.create({"seed": [1, 2]}, prompt=PROMPTS[0])
    place.service.cancel(view.jobs[1].id)
    place.work()
    stopped = place.sweeps.get(view.group.id)
    assert stopped.status == "completed"
    rows = json.loads(place.sweeps.path(stopped, "json").read_text())["cells"]  # type: ignore[union-attr]
    assert [row["status"] for row in rows] == ["completed", "cancelled"]
    place.sweeps.retry(view.group.id)
    assert place.sweeps.get(view.group.id).status == "in_progress"
    place.work()
    whole = place.sweeps.get(view.group.id)
    assert whole.status == "completed" and len(whole.group.made_of) == 2
    files = {path for kind in ("sheet", "video", "csv", "json") if (path := place.sweeps.path(whole, kind))}
    assert len(files) == 4 and place.sweeps.path(stopped, "sheet") is None  # the older sheet gave way
    place.sweeps.delete(view.group.id)
    assert not any(path.exists() for path in files)


def test_all_cells_stopped(place: Place) -> None:
    view = place.create({"seed": [1, 2]}, prompt=PROMPTS[0])
    assert place.sweeps.cancel(view.group.id).status in ("cancelled", "in_progress")
    place.work()
    assert place.sweeps.get(view.group.id).status == "cancelled"


def test_a_killed_worker_s_sweep_goes_on(place: Place) -> None:
    view = place.create({"seed": [11, 12, 13]}, prompt=PROMPTS[1])
    fault = {"WANREEL_FAULT": "attempt.before_complete:kill@2", "WANREEL_DATA_DIR": str(place.root)}
    command = [sys.executable, "-m", "wanreel", "worker", "--once"]
    killed = subprocess.run(command, env=os.environ | fault, capture_output=True, check=False, timeout=120)
    assert killed.returncode != 0, killed.stderr
    states = [str(job.status) for job in place.sweeps.get(view.group.id).jobs]
    assert states == ["completed", "in_progress", "queued"]
    place.work()
    after = place.sweeps.get(view.group.id)
    assert after.status == "completed"
    assert [job.attempt for job in after.jobs] == [1, 2, 1]
    fresh = place.create({"seed": [12]}, prompt=PROMPTS[1])
    place.work()
    (sha,) = place.shas(place.sweeps.get(fresh.group.id)).values()
    assert place.shas(after)[("seed 12",)] == sha
