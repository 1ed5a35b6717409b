"""Every refusal as {"error": {"message", "field"?, "hint"?}} with the status that fits it."""

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from keel.core.errors import AccessError, ArtifactError, ConflictError, KeelError, MissingError

log = logging.getLogger(__name__)
STATUS: dict[type[KeelError], int] = {AccessError: 403, MissingError: 404, ConflictError: 409}
"""Anything else that keel can explain is a value that does not fit: 422."""


class ApiError(KeelError):
    """A request that is refused, with the status to answer with."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        field: str | None = None,
        hint: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.field, self.hint, self.retry_after_s = status, field, hint, retry_after_s


def error_body(message: str, field: str | None = None, hint: str | None = None) -> dict[str, Any]:
    extra = {name: value for name, value in (("field", field), ("hint", hint)) if value}
    return {"error": {"message": message, **extra}}


def answer(error: ApiError) -> Response:
    headers = {} if error.retry_after_s is None else {"Retry-After": str(max(1, round(error.retry_after_s)))}
    return JSONResponse(error_body(str(error), error.field, error.hint), error.status, headers)


def add_handlers(app: FastAPI) -> None:
    """Answers for whatever an endpoint raises, under /api; pages add their own for people."""
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(KeelError, _explained)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _fault)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return answer(error)


def _explained(request: Request, error: Exception) -> Response:
    """What the store or the data refuse. Only the database itself failing is not the caller's to put right."""
    if isinstance(error, ArtifactError):
        log.error("%s", error)
        return JSONResponse(error_body(str(error)), 503, {"Retry-After": "5"})
    return JSONResponse(error_body(str(error)), next((s for kind, s in STATUS.items() if isinstance(error, kind)), 422))


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = [part for part in first["loc"] if part not in ("body", "query", "path", "header")]
    field = ".".join(str(part) for part in place) or None
    count = len(error.errors())
    more = f" (and {count - 1} more)" if count > 1 else ""
    return JSONResponse(error_body(f"{_sentence(first)}{more}", field, _hint(first["loc"])), 422)


def _sentence(error: dict[str, Any]) -> str:
    text = str(error["msg"]).removeprefix("Value error, ")
    return text if text.endswith(".") else f"{text}."


def _hint(place: Sequence[Any]) -> str | None:
    return "Send JSON with the header Content-Type: application/json." if tuple(place) == ("body",) else None


WORDS = {
    404: "There is no such address.",
    405: "This address does not take that method.",
}


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = WORDS.get(error.status_code, str(error.detail))
    hint = "All addresses: /api/openapi.json" if error.status_code in WORDS else None
    return JSONResponse(error_body(message, hint=hint), error.status_code, error.headers)


def _fault(request: Request, error: Exception) -> Response:
    """A fault of the program: logged with its trace by the server, told without one."""
    return JSONResponse(error_body("The studio made a mistake; it is in the server's log. Nothing saved is lost."), 500)
