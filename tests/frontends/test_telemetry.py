"""Traces of requests and jobs, through OpenTelemetry's in-memory exporter; nothing where nobody asked for them."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from frontends.http.conftest import empty_database, open_place
from frontends.http.places import Open
from wanreel.core.errors import MissingDependency
from wanreel.frontends.telemetry import JOB_ID, Tracing, open_tracing
from worker.bench import Bench, Trick

__all__ = ["empty_database", "open_place"]


class Kept:
    """Tracing, and the spans that ended."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(provider)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.service.close()


def facts(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def test_a_request_is_traced_with_its_jobs_id(open_place: Open, kept: Kept) -> None:
    place = open_place(tracing=kept.tracing)
    video = place.submit()["id"]
    place.client.get(f"/v1/videos/{video}")
    place.client.get("/v1/models")
    place.client.get("/v1/videos", headers={"Host": "evil.example"})
    posted, looked, models = kept.spans
    assert [span.name for span in kept.spans] == ["POST /v1/videos", "GET /v1/videos/{video_id}", "GET /v1/models"]
    assert facts(posted)[JOB_ID] == facts(looked)[JOB_ID] == video
    assert JOB_ID not in facts(models) and facts(posted)["http.response.status_code"] == 200


def test_a_repeated_post_is_named_too(open_place: Open, kept: Kept) -> None:
    place = open_place(tracing=kept.tracing)
    body = {"prompt": "x", "model": "demo"}
    for count in ("0", "1"):
        place.client.post("/v1/videos", json=body, headers={"x-stainless-retry-count": count})
    first, again = kept.spans
    assert facts(first)[JOB_ID] == facts(again)[JOB_ID]


def test_what_was_sent_is_in_no_span(open_place: Open, kept: Kept) -> None:
    place = open_place(tracing=kept.tracing, keys={"boss": ("admin",)})
    headers = place.as_key("canary") | {"Idempotency-Key": "canary-in-a-header"}
    place.client.post("/v1/videos", json={"prompt": "canary in a prompt", "model": "demo"}, headers=headers)
    place.client.post("/v1/videos", json={"prompt": "x", "seed": "canary in a fault"}, headers=headers)
    assert len(kept.spans) == 2
    said = "".join(span.to_json() for span in kept.spans)
    assert "canary" not in said and headers["Authorization"].split()[1] not in said


def test_an_attempt_is_traced_with_its_stages(bench: Bench, kept: Kept) -> None:
    worker = bench.worker()
    worker.trace = kept.tracing.of_job
    job = bench.submit()
    worker.run(once=True)
    (span,) = kept.spans
    assert span.name == "job" and facts(span)[JOB_ID] == job.id
    assert (facts(span)["wanreel.job.status"], facts(span)["wanreel.job.attempt"]) == ("completed", 1)
    assert [event.name for event in span.events] == ["claimed", "loaded", "encoded", "exported", "measured"]
    assert dict(span.events[-1].attributes or {})["steps"] == 3
    assert job.request not in span.to_json()


def test_a_failed_job_is_an_error(bench: Bench, kept: Kept) -> None:
    def trick(_task: object, place: str) -> None:
        if place == "loaded":
            raise ValueError

    tricks: list[Trick] = [trick]
    bench.render.tricks = tricks
    worker = bench.worker()
    worker.trace = kept.tracing.of_job
    bench.submit()
    worker.run(once=True)
    (span,) = kept.spans
    assert not span.status.is_ok and span.status.description == "generation_failed"


def test_off_unless_wanted_and_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_tracing("", "x") is None
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(MissingDependency, match="OpenTelemetry") as error:
        open_tracing("http://127.0.0.1:4318", "x")
    assert "wanreel[otel]" in error.value.hint


def test_spans_arrive_at_the_address(bench: Bench) -> None:
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tracing = open_tracing(f"http://127.0.0.1:{server.server_port}/", "wanreel-worker")
        assert tracing is not None
        worker = bench.worker()
        worker.trace = tracing.of_job
        job = bench.submit()
        worker.run(once=True)
        tracing.close()
        server.shutdown()
    ((path, sent),) = received
    assert path == "/v1/traces" and job.id.encode() in sent and b"wanreel-worker" in sent
    assert json.loads(job.request)["prompt"].encode() not in sent
