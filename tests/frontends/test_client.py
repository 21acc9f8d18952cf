"""Client against the real API on a socket; a Hand plays the worker."""

from __future__ import annotations

import functools
import io
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from frontends.http.places import Place, places, serving
from wanreel import Client, VideoRequest
from wanreel.core.errors import (
    Cancelled,
    IdempotencyConflict,
    IllegalTransition,
    InvalidRequest,
    JobNotFound,
    OutOfMemory,
    QueueFull,
    RemoteError,
)
from wanreel.core.settings import load_settings
from wanreel.frontends.cli import main
from wanreel.frontends.http.app import create_app
from wanreel.frontends.http.entrance import Entrance
from wanreel.frontends.http.server import build_server
from wanreel.wiring import build_runtime, build_service
from wanreel.worker.gathering import Gatherer
from wanreel.worker.storyboards import Films
from wanreel.worker.sweeps import SweepSheets


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("client")
    runtime = build_runtime(load_settings(data_dir=folder / "empty"))
    build_service(runtime).close()
    with places(folder, runtime.settings.data.database) as make:
        yield make(enter=False, max_queue_size=4)


@pytest.fixture(scope="module")
def url(place: Place) -> Iterator[str]:
    with serving(place.app, place.app.begin_to_stop) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def client(url: str, place: Place) -> Iterator[Client]:
    with Client(url) as made:
        yield made
        for job in place.service.store.queued():
            place.service.cancel(job.id)


def test_a_video_from_submit_to_file(client: Client, place: Place, tmp_path: Path) -> None:
    video = client.submit("a red circle", model="demo", seed=7)
    assert (video.status, video.model, video.seed, video.position) == ("queued", "demo", 7, 1)
    claimed = place.hand.claim()
    place.hand.step(claimed, 3, 12)
    assert (client.get(video.id).step, client.get(video.id).total_steps) == (3, 12)
    data = place.hand.complete(claimed)
    assert client.wait(video.id).status == "completed"
    assert client.download(video.id, tmp_path / "clip.mp4").read_bytes() == data
    with Image.open(client.download(video.id, tmp_path / "t.jpg", "thumbnail")) as thumbnail:
        assert thumbnail.format == "JPEG"
    assert [row.id for row in client.list(limit=1)] == [video.id]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "t.jpg"]
    client.delete(video.id)
    with pytest.raises(JobNotFound):
        client.get(video.id)


def test_events_come_as_they_happen(client: Client, place: Place) -> None:
    video = client.submit("a red circle", model="demo")
    kinds: list[str] = []
    listening = threading.Thread(target=lambda: kinds.extend(event.kind for event in client.events(video.id)))
    listening.start()
    place.hand.complete(place.hand.claim())
    listening.join(20)
    assert (kinds[0], kinds[-1]) == ("queued", "completed")


def test_pictures_are_uploaded(client: Client, place: Place, tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.new("RGB", (96, 64), (200, 30, 30)).save(data, "PNG")
    (tmp_path / "photo.png").write_bytes(data.getvalue())
    for picture in (data.getvalue(), tmp_path / "photo.png"):
        plan = client.plan(VideoRequest(prompt="it moves", model="demo"), image=picture)
        assert plan["request"]["mode"] == "picture"
    with pytest.raises(InvalidRequest, match="can't be read"):
        client.plan("it moves", image=tmp_path / "absent.png")


def test_errors_are_the_products_own(client: Client, place: Place) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.submit("a", model="demo", seed=-5, num_inference_steps=1000)
    assert {problem.field for problem in caught.value.problems} == {"seed", "num_inference_steps"}
    video = client.submit("a", model="demo", idempotency_key="once")
    assert client.submit("a", model="demo", idempotency_key="once").id == video.id
    with pytest.raises(IdempotencyConflict):
        client.submit("b", model="demo", idempotency_key="once")
    with pytest.raises(IllegalTransition):
        client.retry(video.id)
    for _ in range(3):
        client.submit("a", model="demo")
    with pytest.raises(QueueFull) as full:
        client.submit("a", model="demo")
    assert full.value.retry_after >= 1
    with pytest.raises(JobNotFound):
        client.get("0" * 32)
    with pytest.raises(InvalidRequest):
        client.get("../keys")


def test_a_failed_and_a_cancelled_video_raise(client: Client, place: Place) -> None:
    failed = client.submit("a", model="demo")
    place.hand.fail(place.hand.claim())
    with pytest.raises(OutOfMemory, match="not enough memory"):
        client.wait(failed.id)
    smaller = client.reduce(failed.id)
    assert (smaller.status, smaller.facts["wanreel"]["parent_id"]) == ("queued", failed.id)
    client.cancel(smaller.id)
    assert client.retry(failed.id).status == "queued"
    assert client.cancel(failed.id).status == "cancelled"
    with pytest.raises(Cancelled):
        client.wait(failed.id)


def test_who_is_not_there_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}", patience=0.6) as client, pytest.raises(RemoteError, match="reached"):
        client.models()


def test_who_starts_late_is_waited_for(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    answers: list[int] = []
    with Client(f"http://127.0.0.1:{port}", patience=20) as client:
        asking = threading.Thread(target=lambda: answers.append(len(client.models())))
        asking.start()
        time.sleep(0.2)
        app = create_app(place.runtime, place.service, Entrance(), place.keys)
        server = build_server(app, app.begin_to_stop)
        with socket.create_server(("127.0.0.1", port)) as listener:
            running = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            running.start()
            asking.join(20)
            server.stop()
            running.join(20)
    assert answers and answers[0] > 5


def test_another_kind_of_server_is_named(tmp_path: Path) -> None:
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "models").write_text("<html>")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with Client(f"http://127.0.0.1:{server.server_port}") as client:
            with pytest.raises(RemoteError, match="no Wanreel"):
                client.models()
            with pytest.raises(RemoteError, match="404"):
                client.list()
        server.shutdown()
        thread.join()


def test_the_verbs_of_the_command_line(
    url: str,
    client: Client,
    place: Place,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In this process; the next test has one of its own."""
    monkeypatch.setenv("WANREEL_DATA_DIR", str(tmp_path / "other"))
    run = functools.partial(said, url, capsys)
    first, second = (run("submit", prompt, "--model", "demo")["id"] for prompt in ("a red circle", "a blue star"))
    assert {row["id"] for row in run("jobs")["jobs"]} >= {first, second}
    assert run("move", second, "--before", first[:8])["wanreel"]["position"] == 1
    assert run("edit", second, "--steps", "4")["wanreel"]["request"]["num_inference_steps"] == 4
    assert run("pause")["paused"] and not run("resume")["paused"]
    job = place.hand.claim()
    assert job.id == second
    data = place.hand.complete(job)
    assert run("watch", second)["kind"] == "completed"
    saved = Path(run("download", second, "--out", str(tmp_path / "videos"))["path"])
    assert saved.read_bytes() == data and saved.parent == tmp_path / "videos"
    named = tmp_path / "videos" / "mine.mp4"
    assert run("download", second, "-o", str(named))["path"] == str(named) and named.read_bytes() == data
    with pytest.raises(SystemExit):
        main(["--server", url, "download", second, "-o", str(named.with_suffix(".gif"))])
    assert "the video is a .mp4" in capsys.readouterr().err
    assert run("cancel", first)["wanreel"]["status"] == "cancelled"
    assert run("show", first)["error"]["code"] == "cancelled"
    assert run("generate", "a star", "--steps", "900", code=2)["error"]["code"] == "invalid_request"
    assert any(model["id"] == "demo" for model in run("models"))
    assert not (tmp_path / "other").exists()


def test_sweeps_and_storyboards_of_the_command_line(
    url: str, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Made there and saved here; what is wrong with a file is said by its line, before anything is sent."""
    monkeypatch.setenv("WANREEL_DATA_DIR", str(tmp_path / "other"))
    run = functools.partial(said, url, capsys)
    Image.new("RGB", (96, 64), (200, 30, 30)).save(tmp_path / "photo.png")
    asked = (str(tmp_path / "photo.png"), "it moves", "-m", "demo", "--frames", "9", "--seed", "1,2", "--title", "Two")
    made = run("sweep", *asked, "--key", "k")
    assert run("sweep", *asked, "--key", "k")["id"] == made["id"] and made["axes"][0]["values"] == [1, 2]
    assert run("sweeps", "save", made["id"][:8], code=2)["error"]["code"] == "invalid_request"
    assert run("sweeps", "show", "ffff", code=2)["error"]["code"] == "group_not_found"
    for _ in range(2):
        job = place.hand.claim()
        assert json.loads(job.request)["mode"] == "picture"
        place.hand.complete(job)
    sheets = SweepSheets(place.service.store, place.service.results)
    Gatherer(place.service.store, {"sweep": sheets.finish}).gather("hand")
    saved = run("sweeps", "watch", made["id"], "--out", str(tmp_path / "sweep"))["saved"]
    assert set(saved) == {"sheet", "video", "csv", "json"} and Path(saved["sheet"]).read_bytes()[:4] == b"\x89PNG"
    assert [row["id"] for row in [run("sweeps", "list")]] == [made["id"]]

    file = tmp_path / "walk.yaml"
    file.write_text("model: demo\nscenes:\n- {prompt: one, keyframe: photo.png}\n- {prompt: two, stps: 3}\n")
    assert "line 4" in run("storyboard", "render", str(file), code=2)["error"]["message"]
    file.write_text("model: demo\nscenes:\n- {prompt: one, keyframe: photo.png}\n- {prompt: two, start: text}\n")
    board = run("storyboard", "render", str(file))
    assert run("storyboard", "update", board["id"], str(file))["scenes"] == board["scenes"]
    redone = run("storyboard", "redo", board["id"][:8], "--scene", "2", "--set", "prompt=three")
    assert [scene["scene"]["prompt"] for scene in redone["scenes"]] == ["one", "three"]
    assert redone["scenes"][0]["video"] == board["scenes"][0]["video"]
    for _ in range(2):
        place.hand.complete(place.hand.claim())
    films = Films(place.service.store, place.service.results)
    Gatherer(place.service.store, {"storyboard": films.finish}).gather("hand")
    film = Path(run("storyboard", "save", board["id"], "--out", str(tmp_path))["film"])
    assert film.name == f"wanreel_{board['id'][:8]}.mp4" and film.read_bytes()[4:8] == b"ftyp"
    assert run("storyboard", "delete", board["id"])["deleted"] and run("sweeps", "delete", made["id"])["deleted"]
    assert not (tmp_path / "other").exists()


def said(url: str, capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    """What a command said last as JSON."""
    with pytest.raises(SystemExit) as ended:
        main(["--server", url, *words, "--json"])
    out, err = capsys.readouterr()
    assert (ended.value.code or 0) == code, out + err
    return json.loads(out.splitlines()[-1])


@pytest.mark.parametrize("name", ["", "the one.mp4"])
def test_generate_waits_and_saves(name: str, url: str, place: Place, tmp_path: Path) -> None:
    arguments = [
        sys.executable,
        "-m",
        "wanreel",
        "--server",
        url,
        "generate",
        "a circle",
        "-m",
        "demo",
        "-o",
        str(tmp_path / name),
    ]
    with subprocess.Popen([*arguments, "--json"], stdout=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 60
        while not place.service.store.queued() and time.monotonic() < until:
            time.sleep(0.1)
        data = place.hand.complete(place.hand.claim())
        answer, _ = process.communicate(timeout=60)
    path = Path(json.loads(answer)["path"])
    assert path.read_bytes() == data and (path.name == name or not name)
