"""What the server did, counted: Prometheus metrics, a log line a request, the last catch for exceptions.

Labels come from the program (route templates, model names, status codes), never from the request: a visitor
must not be able to invent label values, nor write his path into the log. Neither metrics nor log hold any
text.
"""

from __future__ import annotations

import logging
import time
import uuid
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inkstone.serve.errors import internal_error
from inkstone.serve.models import Model, Models
from inkstone.serve.page import FILES

log = logging.getLogger("inkstone.serve.access")

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

# On every answer. The page's own, wider policy is in page.py.
HEADERS = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class Metrics:
    """The counters of one application (no globals: two servers in one process do not mix)."""

    def __init__(self, models: Models) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "inkstone_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "inkstone_request_seconds",
            "Time to the answer.",
            ["route"],
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        self.texts = Counter("inkstone_texts", "Texts worked on.", ["task", "model"], registry=self.registry)
        self.characters = Counter(
            "inkstone_characters", "Characters of these texts.", ["task", "model"], registry=self.registry
        )
        waiting = Gauge(
            "inkstone_waiting_requests", "Requests in or before a model.", ["model"], registry=self.registry
        )
        for name, model in models.by_name.items():
            waiting.labels(name).set_function(partial(getattr, model, "waiting"))
            self.texts.labels(model.bundle.task, name)
            self.characters.labels(model.bundle.task, name)
        ProcessCollector(registry=self.registry)

    def worked(self, model: Model, texts: list[str]) -> None:
        """Count the texts of one answered request."""
        self.texts.labels(model.bundle.task, model.bundle.name).inc(len(texts))
        self.characters.labels(model.bundle.task, model.bundle.name).inc(sum(map(len, texts)))

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class Watch:
    """ASGI middleware around everything: request id, safe headers, counts, log; 500 for a stray exception."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and watch."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id, started, status = uuid.uuid4().hex, time.perf_counter(), 0

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", []))
                present = {name.lower() for name, _ in headers}
                headers += [(name, value) for name, value in HEADERS if name not in present]
                headers.append((b"x-request-id", request_id.encode()))
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        except Exception as error:  # noqa: BLE001 - the door: one request's trouble stays its own
            answer = internal_error(error)
            if not status:
                await answer.response()(scope, receive, watched_send)
        finally:
            route = _route(scope)
            method = scope["method"] if scope["method"] in METHODS else "other"
            seconds = time.perf_counter() - started
            self.metrics.requests.labels(method, route, status).inc()
            self.metrics.seconds.labels(route).observe(seconds)
            log.info("%s %s %d %.1f ms id=%s", method, route, status, seconds * 1000, request_id)


def _route(scope: Scope) -> str:
    """The template of the route that answered; "other" where none did (unknown, or refused at the gate)."""
    known = scope["path"] if scope["path"] in FILES else "other"
    return str(getattr(scope.get("route"), "path", known))
