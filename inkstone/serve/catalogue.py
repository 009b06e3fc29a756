"""What the server has and how it is: GET /v1/models, /v1/models/{id}, /health, /metrics."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import FastAPI
from fastapi import Path as PathParameter
from pydantic import BaseModel, Field
from starlette.responses import Response

from inkstone.serve.apps import ERRORS
from inkstone.serve.metrics import Metrics
from inkstone.serve.models import Model, Models

CODES = (400, 401, 403, 500)  # what a route without a body may refuse with


class Measure(BaseModel):
    """A measured value with its 95 % confidence interval."""

    value: float
    low: float | None = None
    high: float | None = None


class Measured(BaseModel):
    """What came out on one held-out test set, the baselines beside it (a `Result` of the report card)."""

    test_set: str
    direction: str = Field("", description='The direction of a translation, "zh-en".')
    n: int = Field(description="How many examples.")
    metrics: dict[str, Measure]
    baselines: dict[str, dict[str, Measure]] = {}


class ModelEntry(BaseModel):
    """A model, as OpenAI's clients list them, with what Inkstone knows besides."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="When the bundle was made, in seconds since 1970.")
    owned_by: str = "inkstone"
    task: str
    languages: list[str]
    directions: list[tuple[str, str]] | None = Field(None, description="(from, to) of a translation model.")
    labels: list[str] | None = Field(None, description="The labels of a classifier.")
    multi_label: bool | None = None
    out_of_scope: str | None = Field(None, description="The label that stands for: none of these.")
    size_bytes: int
    results: list[Measured] = Field(description="What the report card says, by test set.")


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ModelEntry]


class ModelDetail(ModelEntry):
    """A model with its model card (Markdown) and its report card."""

    card: str
    report: dict[str, Any]


class Health(BaseModel):
    """The server is up; it listens only after its models are loaded."""

    status: Literal["ok"] = "ok"
    service: Literal["inkstone"] = "inkstone"
    models: int


def add_catalogue_routes(app: FastAPI, models: Models, metrics: Metrics) -> None:
    """The routes that only tell."""
    refusals: dict[int | str, dict[str, Any]] = {status: ERRORS[status] for status in CODES}

    @app.get(
        "/v1/models",
        summary="List the models",
        tags=["server"],
        responses=refusals,
        response_model_exclude_none=True,
    )
    async def list_models() -> ModelList:
        return ModelList(data=[_entry(model) for model in models.by_name.values()])

    @app.get(
        "/v1/models/{model_id}",
        summary="A model with its card and report",
        tags=["server"],
        responses={**refusals, 404: ERRORS[404]},
        response_model_exclude_none=True,
    )
    async def show_model(model_id: Annotated[str, PathParameter(max_length=100)]) -> ModelDetail:
        model = models.get(model_id)
        return ModelDetail(**_entry(model).model_dump(), card=model.card, report=model.report)

    @app.get(
        "/health",
        summary="Is the server up?",
        tags=["server"],
        responses={400: ERRORS[400], 403: ERRORS[403]},
    )
    async def health() -> Health:
        return Health(models=len(models.by_name))

    @app.get(
        "/metrics",
        summary="Prometheus metrics",
        tags=["server"],
        response_class=Response,
        responses={**refusals, 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def show_metrics() -> Response:
        return Response(metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _entry(model: Model) -> ModelEntry:
    description = model.bundle.description
    return ModelEntry(
        id=model.bundle.name,
        created=int(datetime.fromisoformat(model.created).timestamp()) if model.created else 0,
        task=model.bundle.task,
        languages=list(model.bundle.languages),
        directions=model.directions or None,
        labels=description.get("labels"),
        multi_label=description.get("multi_label"),
        out_of_scope=description.get("out_of_scope"),
        size_bytes=model.size_bytes,
        results=[Measured.model_validate(result) for result in model.report.get("results", [])],
    )
