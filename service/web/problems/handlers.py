"""Exception handlers that convert errors to problems; routes do not catch errors themselves."""

from collections.abc import Callable
from typing import Any

import litestar
import structlog
from litestar import Request
from litestar.exceptions import HTTPException

from service.model.errors import TaskgateError
from service.observe.outcomes import outcome_of_problem
from service.observe.request import RequestContext, context_of
from service.web.headers.ratelimit import ratelimit
from service.web.problems.from_errors import (
    Problem,
    ProblemDetails,
    details_of,
    details_of_status,
    problem_of,
    problem_response,
)
from service.web.responses import Response

ExceptionHandler = Callable[[Request[Any, Any, Any], Any], litestar.Response[Any]]

_log = structlog.get_logger()


def on_taskgate_error(request: Request[Any, Any, Any], exc: TaskgateError) -> litestar.Response[bytes]:
    """Return the problem for a `TaskgateError`; an error that the table lacks is handled as an unexpected failure."""
    details = details_of(exc)
    if details.type.status == 500:
        return on_failure(request, exc)
    context = context_of(request.scope)
    response = _respond(details, context)
    if exc.budget is not None and context.app is not None:
        response.headers += ratelimit(context.app, exc.budget)
    return _litestar_response(response)


def on_http_error(request: Request[Any, Any, Any], exc: HTTPException) -> litestar.Response[bytes]:
    """Return the problem for an HTTP error raised by Litestar: 404, 405 with its `Allow` field, or 400."""
    if exc.status_code >= 500:
        return on_failure(request, exc)
    details = details_of_status(exc.status_code)
    allow = (exc.headers or {}).get("allow")
    response = _litestar_response(_respond(details, context_of(request.scope)))
    if allow is not None:
        response.headers["allow"] = allow
    return response


def on_failure(request: Request[Any, Any, Any], exc: Exception) -> litestar.Response[bytes]:
    """Log an unexpected exception with its traceback and return a 500 without details."""
    return _litestar_response(failure_response(context_of(request.scope), exc))


def failure_response(context: RequestContext, exc: BaseException) -> Response:
    """Log the exception as `web.failed` and return a 500."""
    _log_failure(context, exc)
    return _respond(details_of_status(500), context)


def late_problem(context: RequestContext, exc: Exception) -> Problem:
    """Return the problem for an error raised after the response has started; same table and logging as before it."""
    details = details_of(exc)
    if details.type.status == 500:
        _log_failure(context, exc)
    context.outcome = outcome_of_problem(details.type.slug, wait_applied_s=context.wait_applied_s)
    return problem_of(details, request_id=context.request_id)


def rejection_response(status: int, context: RequestContext) -> Response:
    """Return the problem for a request rejected with a bare HTTP status."""
    return _respond(details_of_status(status), context)


def exception_handlers() -> dict[int | type[Exception], ExceptionHandler]:
    """Return the handlers by exception class, for Litestar."""
    return {TaskgateError: on_taskgate_error, HTTPException: on_http_error, Exception: on_failure}


def _log_failure(context: RequestContext, exc: BaseException) -> None:
    _log.error("web.failed", request_id=context.request_id, caller=context.caller, app=context.app, exc_info=exc)


def _respond(details: ProblemDetails, context: RequestContext) -> Response:
    slug = details.type.slug or str(details.type.status)
    context.outcome = outcome_of_problem(slug, wait_applied_s=context.wait_applied_s)
    return problem_response(details, request_id=context.request_id, wait_applied_s=context.wait_applied_s)


def _litestar_response(response: Response) -> litestar.Response[bytes]:
    headers = {name.decode(): value.decode("latin-1") for name, value in response.headers}
    media_type = headers.pop("content-type")
    return litestar.Response(content=response.body, status_code=response.status, headers=headers, media_type=media_type)
