"""A storyboard from its file to its film, through the command line, the API and a worker that is killed; real demo model.

One folder and one worker for all, as a worker imports torch: the tests of this module follow one another.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image

from frontends.http.places import Place, places
from wanreel.frontends.cli.app import cli
from wanreel.media.video import probe, read_frames
from wanreel.service.storyboards import Storyboards, StoryboardView
from wanreel.wiring import build_worker

pytestmark = pytest.mark.timeout(240)

FRAMES = 5
#: Mean difference of pixels, 0 to 255: between a frame and what codec and VAE make of it in so small a video.
SEAM = 12.0
FILE = """\
title: A walk
model: demo
steps: 2
num_frames: 5
width: 64
height: 64
seed: 7
scenes:
  - prompt: a red circle moves right
    keyframe: first.png
  - prompt: it moves on
  - prompt: and further
  - name: Turn
    prompt: a blue square turns
    start: text
  - prompt: the square moves left
  - prompt: the circle comes back
    start: anchor
    transition: crossfade
    transition_frames: 2
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Place]:
    with places(tmp_path_factory.mktemp("storyboards"), empty_database) as make:
        yield make(device="cpu", threads=1, min_free_gb=0.0)


@pytest.fixture(scope="module")
def file(place: Place) -> Path:
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[20:44, 10:34] = (220, 30, 30)
    Image.fromarray(picture).save(place.folder / "first.png")
    path = place.folder / "walk.yaml"
    path.write_text(FILE)
    return path


def run(place: Place, *words: str | Path) -> Result:
    env = {
        "WANREEL_DATA_DIR": str(place.folder),
        "WANREEL_DEVICE": "cpu",
        "WANREEL_THREADS": "1",
        "WANREEL_MIN_FREE_GB": "0",
    }
    return CliRunner().invoke(
        cli, [str(word) for word in words], env=env, catch_exceptions=False, standalone_mode=False
    )


def rows(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]


def work(place: Place) -> None:
    build_worker(place.runtime).run(once=True)


def boards(place: Place) -> Storyboards:
    return Storyboards(place.service)


def jobs_of(view: StoryboardView) -> list[str]:
    return [job.id for job in view.jobs]


def still(place: Place, job_id: str, kind: str = "last_frame") -> NDArray[np.uint8]:
    with Image.open(place.service.results / place.service.files(job_id)[kind].name) as opened:
        return np.asarray(opened.convert("RGB"))


def apart(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.abs(one.astype(int) - other).mean())


@pytest.fixture(scope="module")
def rendered(place: Place, file: Path) -> StoryboardView:
    """The storyboard, rendered by the command line: queued, its worker killed within scene 4, and gone on with."""
    (row,) = rows(run(place, "storyboard", "render", file, "--json"))
    steps_before_scene_4 = 3 * 2
    env = {**os.environ, "WANREEL_DATA_DIR": str(place.folder), "WANREEL_MIN_FREE_GB": "0", "OMP_NUM_THREADS": "1"}
    env |= {"WANREEL_FAULT": f"attempt.step:kill@{steps_before_scene_4 + 1}", "WANREEL_CHECKPOINT_SHARE": "100"}
    command = [sys.executable, "-m", "wanreel", "worker", "--once", "--device", "cpu", "--quiet"]
    killed = subprocess.run(command, env=env, capture_output=True, timeout=200, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    view = boards(place).get(row["id"])
    assert [str(job.status) for job in view.jobs] == ["completed"] * 3 + ["in_progress", "queued", "queued"]
    work(place)
    return boards(place).get(row["id"])


def test_a_killed_worker_costs_one_step_and_no_scene(place: Place, rendered: StoryboardView) -> None:
    assert rendered.status == "completed", [job.error for job in rendered.jobs]
    assert [job.attempt for job in rendered.jobs] == [1, 1, 1, 2, 1, 1]
    events = place.service.store.events(rendered.jobs[3].id)
    assert [event.data["step"] for event in events if event.kind == "resumed"] == [1]


def test_the_film_holds_every_scene_and_no_frame_twice(place: Place, rendered: StoryboardView) -> None:
    film, path = rendered.film, boards(place).path(rendered)
    assert film is not None and path is not None and rendered.whole
    # Scenes 2, 3 and 5 leave out the frame that they begin with; the last one is blended with two frames before it.
    assert probe(path).num_frames == film["num_frames"] == 6 * FRAMES - 3 - 2
    assert [clip["start"] for clip in film["clips"]] == [0, 5, 9, 13, 18, 20]
    assert (film["copied"], film["why"]) == (False, "clips are blended")
    assert [path.name] == [it.name for it in place.service.results.glob("*a-walk*")], "older films are deleted"


def test_each_scene_begins_with_the_frame_that_the_one_before_ends_with(place: Place, rendered: StoryboardView) -> None:
    for before, after in ((0, 1), (1, 2), (3, 4)):
        one, other = rendered.jobs[before], rendered.jobs[after]
        last = still(place, one.id)
        request = json.loads(other.request)
        picture = place.runtime.pictures.open(request["image"]["sha256"])
        with Image.open(io.BytesIO(picture)) as opened:
            assert np.array_equal(np.asarray(opened.convert("RGB")), last), "without loss, not the decoded video"
        first = next(iter(read_frames(place.service.results / place.service.files(other.id)["video"].name)))
        assert apart(first, last) < SEAM
    # Those that don't hang together differ by far more.
    last = still(place, rendered.jobs[2].id)
    other = next(iter(read_frames(place.service.results / place.service.files(rendered.jobs[3].id)["video"].name)))
    assert apart(other, last) > SEAM


def test_redoing_a_scene_makes_that_and_those_behind_it_again(place: Place, rendered: StoryboardView) -> None:
    before = jobs_of(rendered)
    result = run(place, "storyboard", "redo", rendered.group.id, "--scene", "2", "--json")
    assert result.exit_code == 0
    view = boards(place).get(rendered.group.id)
    same = [one == other for one, other in zip(before, jobs_of(view), strict=True)]
    assert same == [True, False, False, True, True, True]
    assert [str(job.status) for job in view.jobs].count("queued") == 2
    work(place)
    view = boards(place).get(rendered.group.id)
    assert view.status == "completed" and view.whole
    # The last one of a run costs itself alone.
    third = boards(place).redo(view.group.id, 4, {"prompt": "the square jumps"})
    assert [a == b for a, b in zip(jobs_of(view), jobs_of(third), strict=True)] == [True] * 4 + [False, True]
    boards(place).cancel(third.group.id)
    assert boards(place).get(third.group.id).status == "cancelled"
    boards(place).retry(third.group.id)
    work(place)
    assert boards(place).get(third.group.id).status == "completed"


def test_what_changes_no_picture_costs_no_picture(place: Place, rendered: StoryboardView) -> None:
    view = boards(place).get(rendered.group.id)
    before = jobs_of(view)
    # Another transition between scenes that don't hang together, a name, and another order of whole runs.
    client = place.client
    answer = client.patch(f"/v1/storyboards/{view.group.id}/scenes/6", json={"transition": "cut", "name": "Back"})
    assert [scene["video"] for scene in answer.json()["scenes"]] == before
    answer = client.post(f"/v1/storyboards/{view.group.id}/order", json={"order": [1, 2, 3, 6, 4, 5]})
    assert answer.status_code == 200, answer.text
    moved = [scene["video"] for scene in answer.json()["scenes"]]
    assert moved == [before[place] for place in (0, 1, 2, 5, 3, 4)]
    work(place)
    state = client.get(f"/v1/storyboards/{view.group.id}").json()
    assert (state["status"], state["film"]["copied"], state["film"]["whole"]) == ("completed", True, True)
    assert state["film"]["num_frames"] == 6 * FRAMES - 3
    film = client.get(f"/v1/storyboards/{view.group.id}/content")
    assert film.headers["content-type"] == "video/mp4" and len(film.content) == state["film"]["size_bytes"]


def test_through_the_api_colours_are_drawn_together_and_drift_is_told(place: Place) -> None:
    values = {"model": "demo", "steps": 2, "num_frames": FRAMES, "width": 64, "height": 64, "colour_match": 1.0}
    scenes = [{"prompt": "a red circle"}, {"motion_prompt": "it moves"}, {"prompt": "on and on", "seed": 3}]
    answer = place.client.post("/v1/videos", json={"mode": "storyboard", **values, "scenes": scenes})
    assert answer.status_code == 200, answer.text
    state = answer.json()
    assert (state["object"], state["status"], state["progress"]) == ("storyboard", "queued", 0)
    assert [scene["start"] for scene in state["scenes"]] == ["text", "previous", "previous"]
    assert state["scenes"][2]["after"] == sorted(scene["video"] for scene in state["scenes"][:2])
    work(place)
    state = place.client.get(f"/v1/storyboards/{state['id']}").json()
    assert state["status"] == "completed" and state["film"]["why"] == "colours are drawn together"
    drifts = [(scene["drift"], scene["shown_drift"]) for scene in state["scenes"]]
    assert drifts[0] == (0.0, 0.0)
    # The second clip is drawn back whole, to what 8 bits hold; the third begins from there.
    assert drifts[1][0] > drifts[1][1] and drifts[1][1] < 2.0
    video = place.client.get(f"/v1/videos/{state['scenes'][1]['video']}").json()
    assert video["wanreel"]["storyboard"] == state["id"]
    assert place.client.delete(f"/v1/storyboards/{state['id']}").json()["deleted"]
    assert place.client.get(f"/v1/videos/{video['id']}").status_code == 404


def test_extending_a_video_of_ours_gives_both_as_one(place: Place, rendered: StoryboardView) -> None:
    source = boards(place).get(rendered.group.id).jobs[0]
    body = {"video": {"id": source.id}, "prompt": "it falls", "num_frames": FRAMES, "steps": 2}
    first = place.client.post("/v1/videos/extensions", json=body).json()
    second = place.client.post(
        "/v1/videos/extensions",
        data={"video[id]": first["id"], "prompt": "and rises", "overlap": "2", "colour_match": "0.5"},
    ).json()
    assert (first["seconds"], second["seconds"]) == (f"{9 / 8:.4g}", f"{(9 + 5 - 1 - 2) / 8:.4g}")
    assert (first["wanreel"]["extends"], second["wanreel"]["extends"]) == (source.id, first["id"])
    work(place)
    one, other = (place.client.get(f"/v1/videos/{video['id']}").json() for video in (first, second))
    assert one["status"] == other["status"] == "completed", (one, other)
    assert "written again" in " ".join(other["wanreel"]["notes"])
    for video, frames in ((one, 9), (other, 11)):
        path = place.folder / "got.mp4"
        path.write_bytes(place.client.get(f"/v1/videos/{video['id']}/content").content)
        assert probe(path).num_frames == frames
        path.write_bytes(place.client.get(f"/v1/videos/{video['id']}/content?variant=clip").content)
        assert probe(path).num_frames == FRAMES
    chain = place.client.get(f"/v1/videos/{other['id']}/content?variant=chain").json()
    assert [clip["job"] for clip in chain["clips"]] == [source.id, first["id"], second["id"]]


def test_extending_a_file_reads_its_last_frame_alone(place: Place, rendered: StoryboardView) -> None:
    video = place.service.results / place.service.files(rendered.jobs[3].id)["video"].name
    knobs = {"prompt": "it goes on", "model": "demo", "num_frames": "5", "steps": "1"}
    answer = place.client.post(
        "/v1/videos/extensions", data=knobs, files={"video": ("x.mp4", video.read_bytes(), "video/mp4")}
    )
    assert answer.status_code == 200, answer.text
    assert "not joined" in answer.json()["wanreel"]["notes"][0]
    last = list(read_frames(video))[-1]
    picture = place.runtime.pictures.open(answer.json()["wanreel"]["request"]["image"]["sha256"])
    with Image.open(io.BytesIO(picture)) as opened:
        assert apart(np.asarray(opened.convert("RGB")), last) < 1.5
    (row,) = rows(run(place, "extend", video, "it goes on", "--model", "demo", "--json"))
    assert row["status"] == "queued"
    for job_id in (answer.json()["id"], row["id"]):
        place.service.cancel(job_id)
    for bad in ("nothing", b"\0\0\0\x18ftypisom" + bytes(500)):
        answer = place.client.post("/v1/videos/extensions", data=knobs, files={"video": ("x.mp4", bad, "video/mp4")})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "video"), answer.text
