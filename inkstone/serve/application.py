"""The HTTP application, put together: who may come in, how much, what for, and what is told about it.

    Watch    request id, safe headers, counting, logging, 500        metrics.py
      Gate     Host, Origin, API key: deny by default                auth.py
        Limits   the body, weighed and read                          limits.py
          routes   /v1/translate  /v1/classify                       apps.py
                   /v1/models  /health  /metrics                     catalogue.py
                   the workbench                                     page.py

FastAPI's own pages for documentation load scripts from elsewhere, so they are off; /openapi.json stays. Its
built-in telemetry is off whatever the environment says: nothing leaves this machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.middleware import Middleware

import inkstone
from inkstone.serve import errors
from inkstone.serve.apps import add_app_routes
from inkstone.serve.auth import LOOPBACK_NAMES, Gate, Keys
from inkstone.serve.catalogue import add_catalogue_routes
from inkstone.serve.limits import BODY_TIMEOUT_S, Limits
from inkstone.serve.metrics import Metrics, Watch
from inkstone.serve.models import Models
from inkstone.serve.page import page_routes


@dataclass(frozen=True, slots=True)
class Settings:
    """What the person who starts the server decides.

    hosts: names that requests may be addressed to; None: any (a server bound beyond loopback has keys).
    """

    keys: Keys = field(default_factory=Keys)
    hosts: tuple[str, ...] | None = LOOPBACK_NAMES
    body_timeout_s: float = BODY_TIMEOUT_S


def create_app(settings: Settings, models: Models) -> FastAPI:
    """The ASGI application over these models. Whoever loaded them closes them."""
    metrics = Metrics(models)
    app = FastAPI(
        title="Inkstone",
        version=inkstone.__version__,
        description="Translation and classification by models on this machine. All errors have one shape: "
        '`{"error": {"message", "type", "param", "code"}}`.',
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        middleware=[
            Middleware(Watch, metrics=metrics),
            Middleware(Gate, keys=settings.keys, hosts=settings.hosts),
            Middleware(Limits, body_timeout_s=settings.body_timeout_s),
        ],
    )
    add_app_routes(app, models, metrics)
    add_catalogue_routes(app, models, metrics)
    app.router.routes.extend(page_routes())
    errors.install(app)
    app.openapi = lambda: _schema(app)  # type: ignore[method-assign]
    return app


def _schema(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, without the 422 that FastAPI adds to every route: ours is a 400."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        schemas = schema["components"]["schemas"]
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        for operations in schema["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
                operation["security"] = [{"key": []}, {}]
        schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        schema["paths"]["/health"]["get"]["security"] = []
        app.openapi_schema = schema
    return app.openapi_schema
