"""Counting and timing requests for Prometheus."""

from __future__ import annotations

import time
from typing import Any

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector


class Metrics:
    """What Prometheus reads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.requests = Counter(
            "counterfoil_http_requests_total", "Requests answered.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "counterfoil_http_request_seconds",
            "Time to answer.",
            ["route"],
            buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self.webhooks = Gauge(
            "counterfoil_webhook_deliveries",
            "Webhook deliveries that are not over, and those that failed.",
            ["status"],
            registry=self.registry,
        )
        self.webhook_age = Gauge(
            "counterfoil_webhook_oldest_seconds",
            "How long ago the oldest webhook delivery was queued that is not over.",
            registry=self.registry,
        )
        self._series: dict[tuple[str, int], tuple[Any, Any]] = {}

    def show_webhooks(self, counts: dict[str, int], age: float) -> None:
        """Say how many webhook deliveries stand how, and how many seconds ago the oldest was queued."""
        for status, number in counts.items():
            self.webhooks.labels(status).set(number)
        self.webhook_age.set(age)

    def count(self, template: str, status: int, seconds: float) -> None:
        """Note one request, by its route's template and its answer's status."""
        series = self._series.get((template, status))
        if series is None:
            series = (self.requests.labels(template, str(status)), self.seconds.labels(template))
            self._series[template, status] = series
        series[0].inc()
        series[1].observe(seconds)


class Measured:
    """Counts and times every request by its route (the template, so that ids make no new series)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            metrics: Metrics = scope["litestar_app"].state.metrics
            metrics.count(scope.get("path_template") or "other", status, time.perf_counter() - started)
