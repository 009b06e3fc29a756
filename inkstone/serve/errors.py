"""Every failing answer has one shape, the one OpenAI's clients already understand.

    {"error": {"message": "...", "type": "invalid_request_error", "param": "text[3]", "code": "too_long"}}

`message` is for people: what came, what is valid, what to do. `type` and `code` are for programs; `param`
names the field. An answer never echoes a text, and neither does the log: an exception's own words may quote
what somebody typed, so of an unexpected exception only its class and the lines of code it passed are
written down.

Errors belong to one request. Whatever breaks inside one is answered here, and the next request never hears
of it.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from inkstone.ground.errors import InkstoneError, not_known

log = logging.getLogger("inkstone.serve")

INVALID, SERVER = "invalid_request_error", "server_error"


class ErrorDetail(BaseModel):
    """What went wrong, for people (`message`) and for programs (the rest)."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """The body of every answer with a status of 400 or above."""

    error: ErrorDetail


class ApiError(Exception):
    """An answer other than the one hoped for. Raised anywhere below a route, turned into JSON at the door."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        type: str = INVALID,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code)
        self.status, self.headers = status, dict(headers or {})
        self.detail = ErrorDetail(message=message, type=type, param=param, code=code)

    def response(self) -> JSONResponse:
        """The answer itself."""
        return JSONResponse(ErrorBody(error=self.detail).model_dump(), self.status, headers=self.headers)


def busy(message: str, *, status: int, code: str, retry_after_s: float) -> ApiError:
    """Too much to do now: try again later. Retry-After stays within what clients obey (1 to 120 s)."""
    seconds = str(max(1, min(120, round(retry_after_s))))
    kind = "rate_limit_error" if status == HTTPStatus.TOO_MANY_REQUESTS else SERVER
    return ApiError(status, message, code=code, type=kind, headers={"Retry-After": seconds})


def internal_error(error: BaseException) -> ApiError:
    """Our own fault: say so, and log where it happened without the words of the exception."""
    frames = traceback.extract_tb(error.__traceback__)
    places = "".join(f"\n  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames)
    log.error("internal error: %s%s", type(error).__name__, places)
    message = "Something went wrong inside the server. It is not your request's fault; the log says where."
    return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, message, code="internal_error", type=SERVER)


def install(app: FastAPI) -> None:
    """Make the application answer every failure in the one shape."""
    app.add_exception_handler(ApiError, _answer)
    app.add_exception_handler(InkstoneError, _answer)
    app.add_exception_handler(RequestValidationError, _answer)
    app.add_exception_handler(HTTPException, _answer)


async def _answer(request: Request, error: Exception) -> JSONResponse:
    match error:
        case ApiError():
            return error.response()
        case InkstoneError():
            return ApiError(400, str(error), code="invalid_value").response()
        case RequestValidationError():
            return _invalid(request, error.errors()).response()
        case HTTPException():
            return _http(error).response()
        case _:  # pragma: no cover - install() names the four
            return internal_error(error).response()


def _http(error: HTTPException) -> ApiError:
    headers = error.headers or {}
    match error.status_code:
        case 404:
            message = "There is nothing at this address. The routes are listed in /openapi.json."
            return ApiError(404, message, code="not_found")
        case 405:
            message = (
                f"This route does not take that method. Valid: {headers.get('Allow', 'see /openapi.json')}."
            )
            return ApiError(405, message, code="method_not_allowed", headers=headers)
        case (
            400
        ):  # the only one that FastAPI raises by itself: nesting too deep, numbers too long, bytes not UTF-8
            message = "The body is not readable JSON: UTF-8 is needed, no deep nesting, no giant numbers."
            return ApiError(400, message, code="invalid_json")
        case status:
            kind = SERVER if status >= 500 else INVALID
            return ApiError(status, HTTPStatus(status).phrase, code="http_error", type=kind, headers=headers)


def _invalid(request: Request, problems: Sequence[Mapping[str, Any]]) -> ApiError:
    first = problems[0]
    if first["type"] == "json_invalid":
        reason, place = first["ctx"]["error"], first["loc"][-1]
        message = f"The body is not valid JSON ({reason} at character {place})."
        return ApiError(400, message, code="invalid_json")
    if tuple(first["loc"]) == ("body",):
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        if kind and kind != "application/json" and not kind.endswith("+json"):
            message = "The body must be JSON: send it with the header Content-Type: application/json."
            return ApiError(415, message, code="unsupported_media_type")
        message = 'The body must be a JSON object, for example {"text": "你好"}, sent as application/json.'
        return ApiError(400, message, code="invalid_body")
    told = [_explain(problem, _field_names(request)) for problem in _relevant(problems)]
    param, code, _ = told[0]
    message = " ".join(dict.fromkeys(sentence for _, _, sentence in told))
    return ApiError(400, message, param=param, code=code)


def _relevant(problems: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """`text` may be a string or a list, and pydantic reports both attempts: keep the one that was meant."""
    wrong_kind = ("string_type", "list_type")
    kept = []
    for problem in problems:
        field = problem["loc"][1]
        others = [p for p in problems if p["loc"][1] == field and p["type"] not in wrong_kind]
        inside = [p for p in problems if p["loc"][1] == field and len(p["loc"]) > len(problem["loc"])]
        if problem["type"] in wrong_kind and (others or inside):
            continue
        kept.append(problem)
    return kept[:8]


def _field_names(request: Request) -> list[str]:
    route = request.scope.get("route")
    body = route.body_field if isinstance(route, APIRoute) else None
    model = body.field_info.annotation if body is not None else None
    return [field.alias or name for name, field in getattr(model, "model_fields", {}).items()]


def _explain(problem: Mapping[str, Any], fields: Sequence[str]) -> tuple[str, str, str]:
    """(field, code, sentence) of one of pydantic's findings, without the value that came."""
    _, field, *rest = problem["loc"]
    index = "".join(f"[{step}]" for step in rest if isinstance(step, int))
    param, limits = f"{field}{index}", problem.get("ctx", {})
    match problem["type"]:
        case "missing":
            return param, "missing", f"{param} is missing."
        case "extra_forbidden":
            return param[:60], "unknown_field", not_known("field", param[:60], fields)
        case "string_type" | "list_type" if field == "text" and not index:
            return param, "wrong_type", "text must be a string, or a list of strings."
        case "string_type":
            return param, "wrong_type", f"{param} must be a string."
        case "string_unicode":
            return (
                param,
                "invalid_unicode",
                f"{param} holds half of a surrogate pair: it is not valid Unicode.",
            )
        case "string_too_long":
            return (
                param,
                "too_long",
                f"{param} is too long: at most {limits['max_length']:,} characters are taken.",
            )
        case "too_long":
            return (
                param,
                "too_many",
                f"{param} has too many items: at most {limits['max_length']:,} are taken.",
            )
        case "too_short" | "string_too_short":
            return param, "empty", f"{param} is empty."
        case "value_error":
            return param, "invalid_value", f"{param}: {limits['error']}"
        case kind:
            return param, kind, f"{param}: {problem['msg'][0].lower()}{problem['msg'][1:]}."
