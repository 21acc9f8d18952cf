"""RunPod on loopback: the side that workers ask for jobs and the side that clients ask for videos, in one server; and a
server that speaks as much S3 as one put takes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

ENDPOINT, WORKER, KEY = "ep1", "pod1", "rpa_a-key-that-is-none"
_TAKE, _STOP = 0.3, 2.0  # seconds that a question for jobs, or for stops, is held
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")


@dataclass
class PlaneJob:
    """A job as RunPod keeps it."""

    id: str
    input: Any
    status: str = "IN_QUEUE"
    progress: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    answers: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])  # what was sent as its result
    late: int = 0  # reports that arrived after a result
    taken: int = 0  # times it was handed out

    @property
    def output(self) -> dict[str, Any]:
        return self.answers[-1]["output"]

    def shown(self) -> dict[str, Any]:
        """What /status answers."""
        row: dict[str, Any] = {"id": self.id, "status": self.status}
        if self.status == "IN_PROGRESS" and self.progress:
            row["output"] = self.progress[-1]
        if self.status in ("COMPLETED", "FAILED") and self.answers:
            row |= {name: self.answers[-1][name] for name in ("output", "error") if name in self.answers[-1]}
        return row


class Plane:
    """The state, and what tests do with it."""

    def __init__(self) -> None:
        self.jobs: dict[str, PlaneJob] = {}
        self.line: list[str] = []
        self.stops: list[str] = []
        self.pings: list[Mapping[str, list[str]]] = []
        self.received: list[str] = []  # every body that came from the worker
        self.keys: list[str] = []  # what clients showed
        self.slow_reports = 0.0  # seconds until a report counts
        self.alive: Callable[[], bool] = lambda: True  # whether there is a worker that could take jobs
        self.changed = threading.Condition()

    def run(self, values: Any, job_id: str = "") -> PlaneJob:
        with self.changed:
            job = PlaneJob(job_id or f"{uuid.uuid4()}-u1", values)
            self.jobs[job.id] = job
            self.hand_out(job)
        return job

    def hand_out(self, job: PlaneJob) -> None:
        """Put it into the line, once more perhaps."""
        with self.changed:
            job.status = "IN_QUEUE"
            self.line.append(job.id)
            self.changed.notify_all()

    def cancel(self, job: PlaneJob) -> None:
        with self.changed:
            if job.status == "IN_PROGRESS":
                self.stops.append(job.id)
            job.status = "CANCELLED"
            self.line = [waiting for waiting in self.line if waiting != job.id]
            self.changed.notify_all()

    def wait(self, until: Callable[[], object], seconds: float = 150.0) -> None:
        """Returns when it has come to that, and fails when it can't any more."""
        end = time.monotonic() + seconds
        with self.changed:
            while not self.changed.wait_for(lambda: bool(until()), 1.0):
                assert self.alive(), "the worker has ended"
                assert time.monotonic() < end, "it did not come to that"

    def answer(self, job: PlaneJob, count: int = 1) -> dict[str, Any]:
        """The result that was sent, waited for."""
        self.wait(lambda: len(job.answers) >= count)
        return job.answers[-1]

    # The worker's side

    def take(self) -> PlaneJob | None:
        with self.changed:
            if not self.changed.wait_for(lambda: self.line, _TAKE):
                return None
            job = self.jobs[self.line.pop(0)]
            job.status, job.taken = "IN_PROGRESS", job.taken + 1
            self.changed.notify_all()
            return job

    def stopped(self) -> list[str]:
        with self.changed:
            self.changed.wait_for(lambda: self.stops, _STOP)
            found, self.stops = self.stops, []
            return found

    def done(self, job_id: str, body: str) -> None:
        message = json.loads(body)
        report = message.get("status") == "IN_PROGRESS"
        if report:
            time.sleep(self.slow_reports)
        with self.changed:
            self.received.append(body)
            job = self.jobs[job_id]
            if report:
                job.late += bool(job.answers)
                job.progress.append(message["output"])
            else:
                job.answers.append(message)
                if job.status not in ENDED:
                    job.status = "FAILED" if "error" in message else "COMPLETED"
            self.changed.notify_all()


class _Handler(BaseHTTPRequestHandler):
    """What the plane says over HTTP."""

    protocol_version = "HTTP/1.1"
    plane: Plane

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        match address.path.split("/")[3:]:
            case ["job-take", _]:
                job = self.plane.take()
                self.say(None if job is None else {"id": job.id, "input": job.input})
            case ["job-stop", _]:
                stops = self.plane.stopped()
                self.say({"jobsToStop": stops} if stops else None)
            case ["ping", _]:
                self.plane.pings.append(parse_qs(address.query))
                self.say({})
            case ["status", job_id]:
                self.tell(job_id, lambda job: job.shown())
            case _:
                self.say({"error": "not found"}, 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        match urlsplit(self.path).path.split("/")[3:]:
            case ["job-done", _, job_id]:
                self.plane.done(job_id, body)
                self.say({})
            case ["run"] if self.known():
                job = self.plane.run(json.loads(body)["input"])
                self.say({"id": job.id, "status": job.status})
            case ["cancel", job_id]:
                self.tell(job_id, self.cancel)
            case ["retry", job_id]:
                self.tell(job_id, self.retry)
            case _:
                self.say({"error": "not found"}, 404)

    def cancel(self, job: PlaneJob) -> dict[str, Any]:
        self.plane.cancel(job)
        return {"id": job.id, "status": job.status}

    def retry(self, job: PlaneJob) -> dict[str, Any]:
        if job.status not in ("FAILED", "TIMED_OUT"):
            return {"error": "this job can't be retried"}
        self.plane.hand_out(job)
        return {"id": job.id, "status": job.status}

    def tell(self, job_id: str, what: Callable[[PlaneJob], dict[str, Any]]) -> None:
        if self.known():
            job = self.plane.jobs.get(job_id)
            self.say({"error": "job not found"}, 404) if job is None else self.say(what(job))

    def known(self) -> bool:
        self.plane.keys.append(self.headers.get("Authorization", ""))
        if self.plane.keys[-1] == f"Bearer {KEY}":
            return True
        self.say({"error": "unauthorized"}, 401)
        return False

    def say(self, answer: Any, status: int = 200) -> None:
        data = b"" if answer is None else json.dumps(answer).encode()
        with contextlib.suppress(OSError):
            self.send_response(204 if answer is None else status)
            self.send_header("Content-Type", "application/json")
            if answer is not None:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # of a worker that was killed
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Generator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def plane_serving() -> Generator[tuple[Plane, str]]:
    """(the plane, its address with /v2 at the end)"""
    plane = Plane()
    with _serving(type("Handler", (_Handler,), {"plane": plane})) as url:
        yield plane, f"{url}/v2"


def environment_of(url: str, data: Path, scratch: Path, **more: str) -> dict[str, str]:
    """What RunPod gives a worker, and where it works."""
    base = f"{url}/{ENDPOINT}"
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID?gpu=none",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=none",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/$RUNPOD_POD_ID/$ID?gpu=none",
        "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID",
        "RUNPOD_PING_INTERVAL": "1000",
        "RUNPOD_AI_API_KEY": "worker-key",
        "RUNPOD_POD_ID": WORKER,
        "RUNPOD_ENDPOINT_ID": ENDPOINT,
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
        "WANREEL_DATA_DIR": str(data),
        "WANREEL_DEVICE": "cpu",
        "WANREEL_RUNPOD__PROGRESS_SECONDS": "0",
        "WANREEL_CHECKPOINT_SHARE": "1000",  # every step is saved
        "WANREEL_DEFAULT_PICTURE_MODEL": "tiny:i2v-a14b",
        "WANREEL_DEFAULT_TEXT_MODEL": "tiny:ti2v-5b",
    } | more


class WorkerProcess:
    """`wanreel runpod` as a container runs it; what it prints goes to a file."""

    def __init__(self, environment: Mapping[str, str], log: Path, command: list[str] | None = None) -> None:
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                command or [sys.executable, "-m", "wanreel", "runpod"],
                env=dict(environment), stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip

    def alive(self) -> bool:
        return self.process.poll() is None

    def end(self, number: int = signal.SIGKILL) -> int:
        """Ends it and the process that it sends pings from."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
        return self.process.wait(30)


@dataclass
class Bucket:
    """What an S3 server was given."""

    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict[str, bytes])
    refuses: int = 0  # status of the next puts, 0 for none
    tries: int = 0  # puts
    authorizations: list[str] = field(default_factory=list[str])


@contextlib.contextmanager
def bucket_serving() -> Generator[Bucket]:
    bucket = Bucket()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            found = bucket.objects.get(urlsplit(self.path).path)
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Length", str(len(found or b"")))
            self.send_header("ETag", f'"{hashlib.md5(found or b"").hexdigest()}"')
            self.end_headers()

        def do_GET(self) -> None:
            found = bucket.objects.get(urlsplit(self.path).path, b"")
            bucket.authorizations.append(self.headers.get("Authorization", ""))
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(found)))
            self.end_headers()
            self.wfile.write(found)

        def do_PUT(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            bucket.tries += 1
            bucket.authorizations.append(self.headers.get("Authorization", ""))
            if not bucket.refuses:
                bucket.objects[urlsplit(self.path).path] = data
            self.send_response(bucket.refuses or 200)
            self.send_header("Content-Length", "0")
            self.send_header("ETag", f'"{hashlib.md5(data).hexdigest()}"')
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with _serving(Handler) as url:
        bucket.url = url
        yield bucket
