"""How far ten clips drift that go on from one another, with and without what is done against it. Real demo model; deep.

The figures stand in docs/storyboards.md.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from wanreel.core.settings import load_settings
from wanreel.core.storyboard import parse_storyboard
from wanreel.service.storyboards import Storyboards
from wanreel.wiring import build_runtime, build_service, build_worker

pytestmark = [pytest.mark.deep, pytest.mark.timeout(3000)]

CLIPS = 10
PROMPTS = ("a red circle moves right", "a green star turns")
BOARD: dict[str, object] = {"model": "demo", "num_frames": 5, "steps": 4, "width": 64, "height": 64}
CURES: dict[str, dict[str, object]] = {
    "none": {},
    "colour_match 0.5": {"colour_match": 0.5},
    "colour_match 1": {"colour_match": 1.0},
    "overlap 1": {"transition": "crossfade", "transition_frames": 1},
    "colour_match 1, overlap 1": {"colour_match": 1.0, "transition": "crossfade", "transition_frames": 1},
    "anchor every third": {"anchor": 3},
}


def drifts(folder: Path, cures: dict[str, object]) -> list[list[float]]:
    """The drift as shown of each clip, for each of the prompts."""
    runtime = build_runtime(load_settings(data_dir=folder, device="cpu", threads=1, min_free_gb=0))
    service = build_service(runtime)
    boards = Storyboards(service)
    made = []
    cures = dict(cures)
    every = int(str(cures.pop("anchor", 0)))
    for number, prompt in enumerate(PROMPTS):
        scenes: list[dict[str, object]] = [{"prompt": prompt, "seed": 100 * number + n} for n in range(CLIPS)]
        if every:
            # Its first clip's last frame is not known beforehand, so the anchor is a first frame of its own.
            first = boards.create(parse_storyboard({**BOARD, "scenes": [scenes[0]]}))
            build_worker(runtime).run(once=True)
            frame = service.results / service.files(first.jobs[0].id)["last_frame"].name
            picture = runtime.take_picture(frame.read_bytes())
            scenes[0]["keyframe"] = picture
            for n in range(every, CLIPS, every):
                scenes[n]["start"] = "anchor"
        made.append(boards.create(parse_storyboard({**BOARD, **cures, "scenes": scenes}, lambda value, _: value)))  # type: ignore[arg-type,return-value]
    build_worker(runtime).run(once=True)
    found = [boards.get(view.group.id) for view in made]
    assert all(view.status == "completed" and view.film is not None for view in found)
    result = [[clip["shown_drift"] for clip in (view.film or {})["clips"]] for view in found]
    service.close()
    runtime.close()
    return result


def test_drift_over_ten_clips_with_and_without_cures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    means: dict[str, list[float]] = {}
    for number, (name, cures) in enumerate(CURES.items()):
        runs = drifts(tmp_path / str(number), cures)
        means[name] = [statistics.mean(run[n] for run in runs) for n in range(CLIPS)]
        with capsys.disabled():
            print(f"\n| {name} | " + " | ".join(f"{value:.1f}" for value in means[name]) + " |", flush=True)
    last = {name: statistics.mean(values[-3:]) for name, values in means.items()}
    assert last["colour_match 1"] < last["colour_match 0.5"] < last["none"]
    assert last["anchor every third"] < last["none"]
