"""Figures for Prometheus. The queue is asked when it is scraped; exchanges are counted as they happen."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from wanreel.frontends.http.guard import Exchange
from wanreel.frontends.http.house import House

_SECONDS = (0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 30.0)


class Metrics:
    """One app's figures. Routes are counted by template, so that their number is fixed."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, house: House) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "wanreel_http_requests", "Answered requests.", ["method", "route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "wanreel_http_seconds", "Seconds to answer.", ["route"], buckets=_SECONDS, registry=self._registry
        )
        self._registry.register(_Queue(house))

    def count(self, exchange: Exchange) -> None:
        """Count one exchange."""
        known = exchange.method in ("GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS")
        method = exchange.method if known else "other"
        self._requests.labels(method, exchange.route, str(exchange.status)).inc()
        self._seconds.labels(exchange.route).observe(exchange.seconds)

    def text(self) -> str:
        """Everything in Prometheus' text format. Blocks."""
        return generate_latest(self._registry).decode()


class _Queue(Collector):
    def __init__(self, house: House) -> None:
        self._house = house

    def describe(self) -> Iterable[Metric]:
        """Nothing ahead of time, so that registering asks no database."""
        return ()

    def collect(self) -> Iterable[Metric]:
        service = self._house.service
        state = service.queue()
        jobs = GaugeMetricFamily("wanreel_jobs", "Jobs that have not ended.", labels=["status"])
        jobs.add_metric(["queued"], state.queued)
        jobs.add_metric(["in_progress"], state.in_progress)
        yield jobs
        yield GaugeMetricFamily("wanreel_queue_capacity", "Queued jobs accepted at most.", value=state.capacity)
        yield GaugeMetricFamily("wanreel_queue_paused", "1 while no job is started.", value=int(state.paused))
        alive = sum(self._house.worker_lives(name) for name, _ in service.store.workers())
        yield GaugeMetricFamily("wanreel_workers", "Workers that live.", value=alive)
        yield GaugeMetricFamily("wanreel_event_streams", "Open event streams.", value=self._house.news.listeners)
