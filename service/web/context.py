"""The record of the request that a handler serves."""

from typing import Any

from litestar import Request

from service.observe.request import RequestContext


def request_context(request: Request[Any, Any, Any]) -> RequestContext:
    """The context that the edge has laid for this request."""
    context = request.scope["state"]["context"]
    assert isinstance(context, RequestContext)  # noqa: S101 - tells the type; the edge alone writes it
    return context
