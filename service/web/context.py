"""The record of the request that a handler serves."""

from typing import Any

from litestar import Request

from service.observe.request import Trail


def trail_of(request: Request[Any, Any, Any]) -> Trail:
    """The trail that the edge has laid for this request."""
    trail = request.scope["state"]["trail"]
    assert isinstance(trail, Trail)  # noqa: S101 - tells the type; the edge alone writes it
    return trail
