"""POST /v1/translate and POST /v1/classify: each route is one function of `inkstone.apps`, over HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping
from typing import Annotated, Any, Literal, TypeVar, cast

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from inkstone.generate.engine import GenerationOptions
from inkstone.serve.errors import ApiError, ErrorBody
from inkstone.serve.limits import MAX_BEAM, MAX_CHARACTERS, MAX_TEXT_CHARACTERS, MAX_TEXTS
from inkstone.serve.metrics import Metrics
from inkstone.serve.models import Classified, Classifying, Model, Models, Translated, Translating

Value = TypeVar("Value")

Text = Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS)]
Texts = Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
Language = Annotated[str, Field(min_length=1, max_length=35, pattern="^[A-Za-z][A-Za-z0-9-]*$")]
Name = Annotated[str, Field(min_length=1, max_length=100)]

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": description}
    for status, description in {
        400: "The request is not valid; the message says which field and why",
        401: "An API key is needed, or the one that came is not known",
        403: "The request came from another site, or to a name that is not served",
        404: "There is no such model",
        408: "The body did not arrive in time",
        413: "The body is too large",
        415: "The body is not JSON",
        429: "The model's queue is full; Retry-After says when to try again",
        500: "Our fault",
        503: "Too busy, or not done before the deadline; Retry-After says when to try again",
    }.items()
}


class TranslateRequest(BaseModel):
    """What to translate, and how."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"text": "你好，世界", "to": "en"},
                {
                    "text": ["Good morning.", "The file was not found."],
                    "to": "zh",
                    "beam_size": 4,
                    "alternatives": 2,
                },
            ]
        },
    )

    text: Texts = Field(
        description="One text, or a list. Blank items of a list stay blank; long texts are split."
    )
    to: Language | None = Field(
        None, description="The language to translate into; null: the model's other language."
    )
    source: Language | None = Field(
        None, alias="from", description="The language of the texts; null: detected."
    )
    model: Name | None = Field(None, description="A model of GET /v1/models; null: the first that fits.")
    beam_size: int = Field(4, ge=1, le=MAX_BEAM, strict=True, description="1 is greedy and fastest.")
    alternatives: int = Field(
        1,
        ge=1,
        le=MAX_BEAM,
        strict=True,
        description="How many versions, the best one counted; at most beam_size.",
    )


class TranslateResult(BaseModel):
    """One translation. `score` is the mean log-probability of a token, in nats: 0 is certainty."""

    source: str
    translation: str
    score: FiniteFloat
    source_language: str
    target_language: str
    alternatives: list[str]


class TranslateAnswer(BaseModel):
    """The translations, in the order of the texts."""

    model: str
    results: list[TranslateResult]
    seconds: float


class ClassifyRequest(BaseModel):
    """What to classify."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"text": "what is my account balance"},
                {"text": ["book a table for two", "is it going to rain"], "top": 3},
            ]
        },
    )

    text: Texts = Field(description="One text, or a list.")
    model: Name | None = Field(None, description="A model of GET /v1/models; null: the first classifier.")
    top: int | None = Field(
        None, ge=1, le=1000, strict=True, description="How many scores to give, best first; null: all."
    )


class ClassifyResult(BaseModel):
    """One classification: `label` from a model with one label a text, `labels` from a multi-label model."""

    text: str
    label: str | None = None
    labels: list[str] | None = None
    scores: dict[str, FiniteFloat] = Field(description="Probability of each label, best first.")


class ClassifyAnswer(BaseModel):
    """The classifications, in the order of the texts."""

    model: str
    results: list[ClassifyResult]
    seconds: float


def add_app_routes(app: FastAPI, models: Models, metrics: Metrics) -> None:
    """The two routes, over these models."""

    @app.post("/v1/translate", summary="Translate texts", tags=["applications"], responses=ERRORS)
    async def translate(request: Request, asked: TranslateRequest) -> TranslateAnswer:
        texts = _texts(asked.text)
        if asked.alternatives > asked.beam_size:
            message = f"alternatives={asked.alternatives} needs beam_size={asked.alternatives} or more."
            raise ApiError(400, message, code="invalid_value", param="alternatives")
        model = models.pick("translate", asked.model, source=asked.source, to=asked.to)
        options = GenerationOptions(beam_size=asked.beam_size, alternatives=asked.alternatives)
        translator = cast(Translating, model.app)
        started = time.perf_counter()
        results = await unless_gone(
            request,
            model.run(
                lambda portion: translator.translate(
                    portion, to=asked.to, source=asked.source, options=options
                ),
                texts,
            ),
        )
        metrics.worked(model, texts)
        return TranslateAnswer(
            model=model.bundle.name,
            results=[_translation(result) for result in results],
            seconds=_since(started),
        )

    @app.post(
        "/v1/classify",
        summary="Classify texts",
        tags=["applications"],
        responses=ERRORS,
        response_model_exclude_none=True,
    )
    async def classify(request: Request, asked: ClassifyRequest) -> ClassifyAnswer:
        texts = _texts(asked.text)
        model = models.pick("classify", asked.model)
        started = time.perf_counter()
        results = await unless_gone(request, model.run(cast(Classifying, model.app).predict, texts))
        metrics.worked(model, texts)
        return ClassifyAnswer(
            model=model.bundle.name,
            results=[_classification(model, result, asked.top) for result in results],
            seconds=_since(started),
        )


def _texts(text: str | list[str]) -> list[str]:
    texts = [text] if isinstance(text, str) else text
    if sum(map(len, texts)) > MAX_CHARACTERS:
        message = (
            f"All texts together have more than {MAX_CHARACTERS:,} characters. Send them in several requests."
        )
        raise ApiError(400, message, code="too_long", param="text")
    if not any(text.strip() for text in texts):
        raise ApiError(400, "text is empty: there is nothing to work on.", code="empty", param="text")
    return texts


def _translation(result: Translated) -> TranslateResult:
    return TranslateResult(
        source=result.source,
        translation=result.translation,
        score=result.score,
        source_language=result.source_language,
        target_language=result.target_language,
        alternatives=list(result.alternatives),
    )


def _classification(model: Model, result: Classified, top: int | None) -> ClassifyResult:
    scores = best(result.scores, top)
    if model.bundle.description.get("multi_label"):
        return ClassifyResult(text=result.text, labels=list(result.labels), scores=scores)
    return ClassifyResult(text=result.text, label=result.labels[0] if result.labels else None, scores=scores)


def best(scores: Mapping[str, float], top: int | None) -> dict[str, float]:
    """The `top` highest scores, highest first; equal ones in the order they came."""
    return dict(sorted(scores.items(), key=lambda item: -item[1])[:top])


def _since(started: float) -> float:
    return round(time.perf_counter() - started, 4)


async def unless_gone(request: Request, work: Coroutine[Any, Any, Value]) -> Value:
    """The result of `work`; when the client goes away first, the work is cancelled."""
    task = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
    finally:
        leaving.cancel()
        task.cancel()
    raise ApiError(400, "The client closed the connection.", code="client_gone")


async def _gone(request: Request) -> Literal[True]:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    return True
