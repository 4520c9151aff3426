"""Refusals as answers of both apps: errorInformation under its HTTP status, also for what the router does not know.

Refusal                  its own status; 503 with Retry-After, 401 with WWW-Authenticate
a path that is unknown   3002, 404
a method that is not     3000, 405 with Allow
a bug                    2001, 500; the server logs it
"""

from collections.abc import Callable
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match

from domain.fspiop_errors import ErrorCode
from schemas.fspiop.errors import ERROR_CONTENT_TYPE, Refusal


def answer_every_error(app: FastAPI, count: Callable[[Refusal], None] | None = None) -> None:
    """Give the app its answers to all that is not answered by an endpoint; `count` hears of every refusal."""

    async def answer_refusal(_: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        if count is not None:
            count(error)
        return answer(error)

    app.add_exception_handler(Refusal, answer_refusal)
    app.add_exception_handler(HTTPException, _answer_unknown)
    app.add_exception_handler(Exception, _answer_bug)


def answer(refusal: Refusal) -> Response:
    """The response that says this."""
    headers = {"Connection": "close"} if refusal.close else {}
    if refusal.http_status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(refusal.retry_after_s)
    if refusal.http_status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(refusal.body(), refusal.http_status, headers, media_type=ERROR_CONTENT_TYPE)


async def _answer_unknown(request: Request, error: Exception) -> Response:
    """What the router did not find: a path, or a method on it."""
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        detail = f"{request.method} is not allowed on this resource"
        response = answer(Refusal(ErrorCode.CLIENT_ERROR, detail, http_status=HTTPStatus.METHOD_NOT_ALLOWED))
        response.headers["Allow"] = ", ".join(sorted(_methods_of_path(request)))
        return response
    if error.status_code == HTTPStatus.NOT_FOUND:
        return answer(Refusal(ErrorCode.UNKNOWN_URI, "there is no such resource"))
    return answer(Refusal(ErrorCode.CLIENT_ERROR, HTTPStatus(error.status_code).phrase))


def _methods_of_path(request: Request) -> set[str]:
    return {
        method
        for route in request.app.routes
        if isinstance(route, APIRoute) and route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }


async def _answer_bug(_: Request, __: Exception) -> Response:
    """The server logs the exception when this has been answered."""
    return answer(Refusal(ErrorCode.INTERNAL_SERVER_ERROR))
