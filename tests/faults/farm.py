"""Farm: a data directory, its queue, and real worker processes on it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wanreel.core.job import Job, JobStatus, Outcome
from wanreel.core.manifest import Manifest
from wanreel.core.request import VideoRequest
from wanreel.core.settings import load_settings
from wanreel.service import Service
from wanreel.wiring import Runtime, build_runtime, build_service

#: Small enough that a job takes about a second.
SMALL = {"num_frames": 5, "width": 64, "height": 64, "num_inference_steps": 4}


class ForkServer:
    """Starts `wanreel` processes that need not import anything."""

    def __init__(self) -> None:
        script = str(Path(__file__).with_name("fork_server.py"))
        self._process = subprocess.Popen(
            [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, argv: Iterable[str], env: Mapping[str, str], log: Path) -> int:
        return self._ask({"argv": list(argv), "env": dict(env), "log": str(log)})["pid"]

    def wait(self, pid: int) -> int:
        """The exit code; negative for the signal that ended it."""
        return self._ask({"wait": pid})["code"]

    def poll(self, pid: int) -> int | None:
        """The same, or None while it runs."""
        return self._ask({"poll": pid})["code"]

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def _ask(self, order: dict[str, object]) -> dict[str, int]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@dataclass
class Farm:
    """One data directory under test."""

    root: Path
    server: ForkServer
    settings: dict[str, str] = field(default_factory=dict)
    database_url: str = ""

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        settings = load_settings(data_dir=self.root, device="cpu", database_url=self.database_url)
        self.runtime: Runtime = build_runtime(settings)
        self.service: Service = build_service(self.runtime)

    def close(self) -> None:
        self.service.close()
        self.runtime.close()

    @property
    def log(self) -> Path:
        return self.root / "worker.log"

    def submit(self, prompt: str = "a red circle moves right", model: str = "tiny:ti2v-5b", **knobs: object) -> Job:
        values = {"prompt": prompt, "model": model, "seed": 7, **SMALL, **knobs}
        return self.service.submit(VideoRequest.from_mapping(values))

    def start(self, *argv: str, fault: str = "") -> int:
        """A worker process; its pid."""
        env = {
            "WANREEL_DATA_DIR": str(self.root),
            "WANREEL_DATABASE_URL": self.database_url,
            "WANREEL_DEVICE": "cpu",
            "WANREEL_THREADS": "1",
            "WANREEL_FAULT": fault,
            "WANREEL_MIN_FREE_GB": "0.05",
            "WANREEL_CHECKPOINT_SHARE": "1000",  # after every step, though steps take no time here
            **self.settings,
        }
        return self.server.start(["worker", *(argv or ("--once",))], env, self.log)

    def work(self, *, fault: str = "") -> int:
        """A worker that empties the queue, run to its end. Returns the exit code."""
        return self.server.wait(self.start("--once", fault=fault))

    def said(self) -> str:
        """What the workers logged."""
        return self.log.read_text() if self.log.exists() else ""

    def manifest(self, job: Job) -> Manifest:
        return Manifest.from_json((self.service.results / self.service.files(job.id)["manifest"].name).read_text())

    def check(self, expected: Mapping[str, str]) -> None:
        """Every job completed once, to the bits of `expected` (SHA-256 by job id), and nothing lies about."""
        recorded: set[str] = set()
        for job_id, sha256 in expected.items():
            job = self.service.get(job_id)
            assert job.status is JobStatus.COMPLETED, (job, self.said())
            assert job.result_sha256 == sha256, job
            for file in self.service.files(job_id).values():
                data = (self.service.results / file.name).read_bytes()
                assert hashlib.sha256(data).hexdigest() == file.sha256, file
                recorded.add(file.name)
            endings = [attempt.outcome for attempt in self.service.attempts(job_id)]
            assert endings.count(Outcome.COMPLETED) == 1, endings
        assert {path.name for path in self.service.results.iterdir()} == recorded
        assert not list((self.root / "workers").iterdir())
        kept = [path.name for path in (self.root / "checkpoints").rglob("*") if path.is_file()]
        assert all(name.endswith("-latents.safetensors") for name in kept), kept


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
