"""Tracing: a trace of each request and of each job, sent by OTLP where the operator wants it. Off otherwise.

Both carry the job's id as `wanreel.job.id`: a request is over in milliseconds and its job may run an hour later, in another
process and after a restart, so they are two traces.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.trace import Span, StatusCode

from wanreel.core.errors import JobNotFound, MissingDependency
from wanreel.core.job import Job, JobEvent, JobStatus

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig
    from opentelemetry.sdk.trace import TracerProvider

    from wanreel.jobs import JobStore

JOB_ID = "wanreel.job.id"
#: What FastAPI is told where nobody wants traces, whatever else is set up in this process.
NOT_TRACED: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
#: Of a job's events those that tell of the run, and not of each step.
_TOLD = ("claimed", "loaded", "encoded", "resumed", "exported", "measured", "plan_changed", "requeued")
_PLAIN = (str, bool, int, float)


@dataclass(frozen=True)
class Tracing:
    """Where spans go."""

    provider: TracerProvider

    def for_requests(self) -> TelemetryConfig:
        """What FastAPI is told. It records neither bodies nor headers; its log and its own figures stay off."""
        return {"tracer_provider": self.provider, "metrics": False, "logs": False, "operation_spans": False}

    @contextlib.contextmanager
    def of_job(self, job: Job, store: JobStore) -> Generator[None]:
        """A span around one attempt at a job, with the events that were recorded meanwhile."""
        tracer = self.provider.get_tracer("wanreel")
        attributes = {JOB_ID: job.id, "wanreel.job.model": job.model, "wanreel.job.attempt": job.attempt}
        before = _last(store, job)
        with tracer.start_as_current_span("job", attributes=attributes) as span:
            yield
            with contextlib.suppress(JobNotFound):  # deleted meanwhile
                _describe(span, store.get(job.id), store.events(job.id, after=before))

    def close(self) -> None:
        """Send what is left. Takes seconds where nobody answers."""
        self.provider.shutdown()


def open_tracing(endpoint: str, service: str) -> Tracing | None:
    """Tracing to an OTLP/HTTP address, such as http://127.0.0.1:4318; None for "". Raises MissingDependency."""
    if not endpoint:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as exc:
        raise MissingDependency("Tracing needs OpenTelemetry's SDK.", hint="pip install 'wanreel[otel]'.") from exc
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")))
    return Tracing(provider)


def name_job(job_id: str) -> None:
    """Put a job's id on the span of the request that is being answered, if there is one."""
    trace.get_current_span().set_attribute(JOB_ID, job_id)


def _describe(span: Span, job: Job, events: Iterable[JobEvent]) -> None:
    """How an attempt went."""
    span.set_attribute("wanreel.job.status", str(job.status))
    for event in events:
        if event.kind in _TOLD:
            plain = {name: value for name, value in event.data.items() if isinstance(value, _PLAIN)}
            span.add_event(event.kind, plain, timestamp=int(event.at * 1e9))
    if job.status is JobStatus.FAILED and job.error is not None:
        span.set_status(StatusCode.ERROR, job.error.code)


def _last(store: JobStore, job: Job) -> int:
    """The event before this attempt's first, which is that it was claimed."""
    events = store.events(job.id)
    return events[-1].seq - 1 if events else 0
