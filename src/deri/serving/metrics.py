"""Counts for Prometheus: requests, times, batches; none of them of a single recording."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from deri._version import __version__

_METHODS = ("GET", "POST", "HEAD")
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class Metrics:
    """The counts of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._requests = Counter(
            "deri_requests", "requests answered", ("route", "method", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "deri_request_seconds", "from first byte to answer", ("route",), buckets=_SECONDS, registry=self.registry
        )
        self._batch = Histogram(
            "deri_batch_size", "windows encoded at once", buckets=(1, 2, 4, 8, 16, 32, 64), registry=self.registry
        )
        self.waiting = Gauge("deri_waiting", "requests worked on or waiting", registry=self.registry)
        Gauge("deri_info", "version", ("version",), registry=self.registry).labels(__version__).set(1)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request; a client's invented method is counted as ``other``."""
        known = method if method in _METHODS else "other"
        self._requests.labels(route, known, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, size: int) -> None:
        """Count a batch."""
        self._batch.observe(size)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)
