"""Exception handlers that convert errors to problems; routes do not catch errors themselves."""

from collections.abc import Callable
from typing import Any

import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException

from service.model.errors import TaskgateError
from service.observe.outcomes import outcome_of_problem
from service.observe.request import RequestContext, context_of
from service.web.answers import Answer
from service.web.headers.ratelimit import ratelimit
from service.web.problems.from_errors import (
    Problem,
    ProblemDetails,
    details_of,
    details_of_status,
    problem_answer,
    problem_of,
)

ExceptionHandler = Callable[[Request[Any, Any, Any], Any], Response[Any]]

_log = structlog.get_logger()


def on_taskgate_error(request: Request[Any, Any, Any], exc: TaskgateError) -> Response[bytes]:
    """Return the problem for a `TaskgateError`; an error that the table lacks is handled as an unexpected failure."""
    details = details_of(exc)
    if details.kind.status == 500:
        return on_failure(request, exc)
    context = context_of(request.scope)
    answer = _answer(details, context)
    if exc.budget is not None and context.app is not None:
        fields = answer.headers + ratelimit(context.app, exc.budget)
        answer = Answer(status=answer.status, headers=fields, body=answer.body)
    return _response(answer)


def on_http_error(request: Request[Any, Any, Any], exc: HTTPException) -> Response[bytes]:
    """Return the problem for an HTTP error raised by Litestar: 404, 405 with its `Allow` field, or 400."""
    if exc.status_code >= 500:
        return on_failure(request, exc)
    details = details_of_status(exc.status_code)
    allow = (exc.headers or {}).get("allow")
    response = _response(_answer(details, context_of(request.scope)))
    if allow is not None:
        response.headers["allow"] = allow
    return response


def on_failure(request: Request[Any, Any, Any], exc: Exception) -> Response[bytes]:
    """Log an unexpected exception with its traceback and return a 500 without details."""
    return _response(failure_answer(context_of(request.scope), exc))


def failure_answer(context: RequestContext, exc: BaseException) -> Answer:
    """Log the exception as `web.failed` and return a 500."""
    _log_failure(context, exc)
    return _answer(details_of_status(500), context)


def late_problem(context: RequestContext, exc: Exception) -> Problem:
    """Return the problem for an error raised after the response has started; same table and logging as before it."""
    details = details_of(exc)
    if details.kind.status == 500:
        _log_failure(context, exc)
    context.outcome = outcome_of_problem(details.kind.slug, wait_applied_s=context.wait_applied_s)
    return problem_of(details, request_id=context.request_id)


def refusal_answer(status: int, context: RequestContext) -> Answer:
    """Return the problem for a request rejected with a bare HTTP status."""
    return _answer(details_of_status(status), context)


def exception_handlers() -> dict[int | type[Exception], ExceptionHandler]:
    """Return the handlers by exception class, for Litestar."""
    return {TaskgateError: on_taskgate_error, HTTPException: on_http_error, Exception: on_failure}


def _log_failure(context: RequestContext, exc: BaseException) -> None:
    _log.error("web.failed", request_id=context.request_id, caller=context.caller, app=context.app, exc_info=exc)


def _answer(details: ProblemDetails, context: RequestContext) -> Answer:
    slug = details.kind.slug or str(details.kind.status)
    context.outcome = outcome_of_problem(slug, wait_applied_s=context.wait_applied_s)
    return problem_answer(details, request_id=context.request_id, wait_applied_s=context.wait_applied_s)


def _response(answer: Answer) -> Response[bytes]:
    headers = {name.decode(): value.decode("latin-1") for name, value in answer.headers}
    media_type = headers.pop("content-type")
    return Response(content=answer.body, status_code=answer.status, headers=headers, media_type=media_type)
