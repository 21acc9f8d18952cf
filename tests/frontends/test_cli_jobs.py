"""The commands about jobs, as a user types them, with a tiny model where something is really made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wanreel.frontends.cli import main

TINY = ("--model", "tiny:ti2v-5b", "--frames", "5", "--width", "64", "--height", "64", "--steps", "2", "--seed", "5")


class Shell:
    """Runs commands in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.error = ""

    def __call__(self, *argv: str, code: int = 0) -> str:
        """What the command printed; its exit code must be `code`."""
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(list(argv))
        out, self.error = self._capsys.readouterr()
        assert end.value.code == code, (argv, out, self.error)
        return out

    def json(self, *argv: str, code: int = 0) -> Any:
        """The one JSON value that it printed."""
        return json.loads(self(*argv, "--json", code=code))


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.setenv("WANREEL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANREEL_DEVICE", "cpu")
    monkeypatch.setenv("WANREEL_MIN_FREE_GB", "0.05")
    return Shell(capsys)


def test_from_submit_to_verify(shell: Shell, tmp_path: Path) -> None:
    handed = shell.json("submit", "a red circle", *TINY)
    assert set(handed) >= {"id", "status", "request", "adjustments"}
    queued = shell.json("show", handed["id"])
    assert (queued["status"], queued["position"], queued["result"]) == ("queued", 1, None)
    shell("worker", "--once", "--quiet")

    done = shell.json("show", handed["id"][:6])
    assert (done["status"], done["step"], done["total_steps"], done["error"]) == ("completed", 2, 2, None)
    assert [attempt["outcome"] for attempt in done["attempts"]] == ["completed"]
    video = Path(done["result"]["path"])
    assert video.is_file() and len(done["result"]["sha256"]) == 64
    events = [json.loads(line) for line in shell("watch", handed["id"], "--json").splitlines()]
    assert events[0]["kind"] == "queued" and events[-1]["kind"] == "completed"
    assert [event["seq"] for event in events] == sorted({event["seq"] for event in events})

    equal = shell.json("submit", "a red circle", *TINY, "--reuse")
    assert equal["id"] == handed["id"] and equal["reused"]

    verdict = shell.json("verify", str(video))
    assert verdict["same"] and verdict["manifest"], verdict
    video.write_bytes(video.read_bytes() + b"\0")
    verdict = shell.json("verify", str(video), code=7)
    assert {difference["what"] for difference in verdict["differences"]} >= {"file"}

    again = shell.json("reexport", handed["id"], "--fps", "8", "--format", "webm")
    shell("worker", "--once", "--quiet")
    row = shell.json("show", again["id"])
    assert row["status"] == "completed" and row["result"]["path"].endswith(".webm")
    assert not any(event["kind"] == "encoded" for event in watched(shell, again["id"])), "denoised again"


def watched(shell: Shell, job_id: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in shell("watch", job_id, "--json").splitlines()]


def test_looking_after_the_line(shell: Shell) -> None:
    first, second, third = (shell.json("submit", f"number {n}", *TINY)["id"] for n in range(3))
    assert shell.json("move", third, "--before", first)["position"] == 1
    assert shell.json("move", second, "--priority", "5")["position"] == 1
    assert shell.json("edit", first, "--steps", "3", "--prompt", "other words")["request"]["num_inference_steps"] == 3
    assert shell.json("cancel", second)["status"] == "cancelled"
    assert shell.json("retry", second)["status"] == "queued"
    listed = shell.json("jobs")
    assert [job["id"] for job in listed["jobs"]] == [third, second, first]
    assert listed["queue"]["queued"] == 3
    assert shell.json("jobs", "--status", "completed")["jobs"] == []
    assert "other words" in shell("jobs") and "3 queued" in shell.error


def test_pause_and_resume(shell: Shell) -> None:
    job = shell.json("submit", "a red circle", *TINY)["id"]
    assert shell.json("pause", "--reason", "tea")["reason"] == "tea"
    shell("worker", "--once", "--quiet")
    assert shell.json("show", job)["status"] == "queued"
    assert shell.json("show", job)["starts_in"] is None
    assert shell.json("resume")["paused"] is False


def test_the_queue_as_a_file(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [shell.json("submit", f"number {n}", *TINY)["id"] for n in range(2)]
    file = tmp_path / "queue.json"
    assert shell.json("queue", "export", str(file))["jobs"] == 2
    monkeypatch.setenv("WANREEL_DATA_DIR", str(tmp_path / "other"))
    taken = shell.json("queue", "import", str(file))["ids"]
    assert len(taken) == 2 and not set(taken) & set(ids)
    assert shell.json("queue", "import", str(file))["ids"] == taken


def test_a_batch_reports_each_item(shell: Shell, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text('{"prompt": "one"}\n{"prompt": "two", "num_frames": -3}\n')
    lines = [json.loads(line) for line in shell("submit", str(tasks), *TINY, "--json", code=6).splitlines()]
    assert "id" in lines[0] and lines[1]["error"]["problems"][0]["field"] == "num_frames"


@pytest.mark.parametrize(
    ("argv", "code", "error"),
    [
        (("show", "nothing"), 2, "job_not_found"),
        (("cancel", "nothing"), 2, "job_not_found"),
        (("watch", "nothing"), 2, "job_not_found"),
        (("reexport", "nothing"), 2, "job_not_found"),
        (("submit", "words", "--model", "no-such"), 2, "invalid_request"),
        (("queue", "import", "no-such-file"), 2, "invalid_request"),
        (("verify", "no-such-file.mp4"), 2, "unreadable_recipe"),
    ],
)
def test_errors_are_json_too(shell: Shell, argv: tuple[str, ...], code: int, error: str) -> None:
    assert shell.json(*argv, code=code)["error"]["code"] == error


def test_words_for_people(shell: Shell) -> None:
    shell("show", "nothing", code=2)
    assert "There is no job 'nothing'" in shell.error
    shell("move", "nothing", code=2)
    assert "--before" in shell.error
    shell("edit", "nothing", code=2)
    assert "Say what to change" in shell.error
