"""Figures for Prometheus. Queue, workers and host are asked when it is scraped; the rest is counted as it happens.

Labels come from fixed sets (routes, models, devices, stages), so the number of series is bounded.
"""

from __future__ import annotations

import statistics
from collections import OrderedDict
from collections.abc import Iterable, Iterator

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from wanreel.core.errors import InvalidRequest, JobNotFound
from wanreel.core.job import TERMINAL, Job, JobEvent
from wanreel.core.measures import STAGES, Measures
from wanreel.frontends.http.guard import Exchange
from wanreel.frontends.http.house import House
from wanreel.service import work_of

_SECONDS = (0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 30.0)
_STAGE_SECONDS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
_RATIOS = (0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.5, 2.0, 4.0)
_PREDICTED = 1000  # jobs whose prediction is remembered


class Metrics:
    """One app's figures. Routes are counted by template, so that their number is fixed."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, house: House) -> None:
        self._house = house
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "wanreel_http_requests", "Answered requests.", ["method", "route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "wanreel_http_seconds", "Seconds to answer.", ["route"], buckets=_SECONDS, registry=registry
        )
        self._ended = Counter("wanreel_jobs_ended", "Jobs that ended.", ["status"], registry=registry)
        self._stages = Histogram(
            "wanreel_stage_seconds",
            "Seconds of each stage of a finished attempt.",
            ["model", "stage"],
            buckets=_STAGE_SECONDS,
            registry=registry,
        )
        self._steps = Counter("wanreel_steps", "Denoise steps of finished attempts.", ["model"], registry=registry)
        self._accuracy = Histogram(
            "wanreel_real_over_predicted",
            "Seconds that a job took over those predicted when it began.",
            buckets=_RATIOS,
            registry=registry,
        )
        self._promised = Counter("wanreel_predicted_seconds", "Seconds predicted, of the same jobs.", registry=registry)
        self._needed = Counter("wanreel_real_seconds", "Seconds needed, of the same jobs.", registry=registry)
        self._predicted: OrderedDict[str, float] = OrderedDict()
        self._state = _State(house)
        ProcessCollector(registry=registry)
        house.pulse.observe(self.see)

    def count(self, exchange: Exchange) -> None:
        """Count one exchange."""
        known = exchange.method in ("GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS")
        method = exchange.method if known else "other"
        self._requests.labels(method, exchange.route, str(exchange.status)).inc()
        self._seconds.labels(exchange.route).observe(exchange.seconds)

    def see(self, event: JobEvent) -> None:
        """Count what a job's event tells."""
        if event.kind == "claimed":
            self._predict(event.job_id)
        elif event.kind == "measured":
            self._measure(event.job_id, Measures.from_dict(event.data))
        elif event.kind in TERMINAL:
            self._ended.labels(event.kind).inc()
            self._predicted.pop(event.job_id, None)

    def _predict(self, job_id: str) -> None:
        job = self._job(job_id)
        if job is None or job.ended:
            return  # what has ended is part of the history that predicts
        try:
            seconds = self._house.service.estimator.work(work_of(job)).seconds
        except InvalidRequest:
            return
        if seconds:
            self._predicted[job_id] = seconds
            while len(self._predicted) > _PREDICTED:
                self._predicted.popitem(last=False)

    def _measure(self, job_id: str, measures: Measures) -> None:
        job = self._job(job_id)
        if job is None:
            return
        for stage in STAGES:
            self._stages.labels(job.model, stage).observe(getattr(measures, stage))
        self._steps.labels(job.model).inc(measures.steps)
        predicted = self._predicted.pop(job_id, None)
        if predicted is not None:
            real = sum(getattr(measures, stage) for stage in STAGES)
            self._accuracy.observe(real / predicted)
            self._promised.inc(predicted)
            self._needed.inc(real)

    def _job(self, job_id: str) -> Job | None:
        try:
            return self._house.service.get(job_id)
        except JobNotFound:
            return None

    @property
    def registry(self) -> CollectorRegistry:
        """For figures of others."""
        return self._registry

    def text(self) -> str:
        """Everything in Prometheus' text format. Blocks."""
        everything = CollectorRegistry()
        everything.register(self._state)
        everything.register(_Named(self._registry, self._house.replica) if self._house.replica else self._registry)
        return generate_latest(everything).decode()


class _Named(Collector):
    """Figures of one process of several behind one address. Without its name their counters would run to and fro."""

    def __init__(self, registry: CollectorRegistry, replica: str) -> None:
        self._registry, self._replica = registry, replica

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [it._replace(labels={**it.labels, "replica": self._replica}) for it in metric.samples]
            yield metric


class _State(Collector):
    """How things stand now."""

    def __init__(self, house: House) -> None:
        self._house = house

    def describe(self) -> Iterable[Metric]:
        """Nothing ahead of time, so that registering asks no database."""
        return ()

    def collect(self) -> Iterator[Metric]:
        yield from self._queue()
        yield self._webhooks()
        yield from self._workers()
        yield from self._host()
        yield from self._plans()
        yield from self._costs()

    def _queue(self) -> Iterator[Metric]:
        state = self._house.service.queue()
        jobs = GaugeMetricFamily("wanreel_jobs", "Jobs that have not ended.", labels=["status"])
        jobs.add_metric(["queued"], state.queued)
        jobs.add_metric(["in_progress"], state.in_progress)
        yield jobs
        yield GaugeMetricFamily("wanreel_queue_capacity", "Queued jobs accepted at most.", value=state.capacity)
        yield GaugeMetricFamily("wanreel_queue_paused", "1 while no job is started.", value=int(state.paused))
        yield GaugeMetricFamily("wanreel_event_streams", "Open event streams.", value=self._house.news.listeners)

    def _webhooks(self) -> Metric:
        told = GaugeMetricFamily("wanreel_webhook_deliveries", "Messages about ends of jobs.", labels=["state"])
        for state, count in self._house.service.store.outbox.counts().items():
            told.add_metric([state], count)
        return told

    def _workers(self) -> Iterator[Metric]:
        alive = [
            worker for worker in self._house.service.store.worker_records() if self._house.worker_lives(worker.name)
        ]
        yield GaugeMetricFamily("wanreel_workers", "Workers that live.", value=len(alive))
        used = GaugeMetricFamily("wanreel_gpu_memory_used_bytes", "GPU memory in use.", labels=["device"])
        total = GaugeMetricFamily("wanreel_gpu_memory_total_bytes", "GPU memory.", labels=["device"])
        busy = GaugeMetricFamily("wanreel_gpu_utilisation_ratio", "Share of time a kernel ran.", labels=["device"])
        for worker in alive:
            gpu = worker.sample.gpu if worker.sample is not None else None
            if gpu is None:
                continue
            # By device and not by worker, whose names are never used again.
            used.add_metric([worker.description], gpu.memory_used)
            total.add_metric([worker.description], gpu.memory_total)
            if gpu.utilisation is not None:
                busy.add_metric([worker.description], gpu.utilisation / 100.0)
        yield from (used, total, busy)

    def _host(self) -> Iterator[Metric]:
        moments = self._house.pulse.moments
        if not moments:
            return
        host = moments[-1].host
        rate = moments[-1].steps_per_second
        yield GaugeMetricFamily("wanreel_steps_per_second", "Denoise steps a second, all workers.", value=rate)
        yield GaugeMetricFamily("wanreel_host_cpu_ratio", "Of all cores.", value=host.cpu / 100.0)
        yield GaugeMetricFamily("wanreel_host_memory_used_bytes", "Memory in use.", value=host.ram_used)
        yield GaugeMetricFamily("wanreel_host_memory_total_bytes", "Memory.", value=host.ram_total)
        yield GaugeMetricFamily("wanreel_disk_free_bytes", "Where the data directory lies.", value=host.disk_free)

    def _plans(self) -> Iterator[Metric]:
        """How far plans of memory were off, over the newest runs of all workers."""
        ratios: dict[str, list[float]] = {}
        failed: dict[str, int] = {}
        for run in self._house.service.store.plans.newest():
            if run.error is not None:
                ratios.setdefault(run.model, []).append(1.0 + run.error)
            failed[run.model] = failed.get(run.model, 0) + bool(run.failed)
        off = GaugeMetricFamily(
            "wanreel_memory_real_over_predicted",
            "Peak of GPU memory over the one predicted, of the newest 100 runs under a plan.",
            labels=["model", "of"],
        )
        for model, values in ratios.items():
            off.add_metric([model, "median"], statistics.median(values))
            off.add_metric([model, "lowest"], min(values))
            off.add_metric([model, "highest"], max(values))
        ran_out = GaugeMetricFamily(
            "wanreel_plans_out_of_memory", "Of the same runs, those that ran out.", labels=["model"]
        )
        for model, count in failed.items():
            ran_out.add_metric([model], count)
        yield from (off, ran_out)

    def _costs(self) -> Iterator[Metric]:
        """Nothing where the operator has named no price."""
        cost = self._house.service.cost(self._house.service.store.run_seconds())
        if cost is not None:
            yield GaugeMetricFamily("wanreel_cost", "Worker time of all jobs that are kept, at its price.", value=cost)
