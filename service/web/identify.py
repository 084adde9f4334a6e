"""Finds out who asks, and notes it."""

from typing import Any

from litestar import Request

from service.model.callers import Caller
from service.web.port import Callers
from service.web.trail import Trail, trail_of


def identify(request: Request[Any, Any, Any], callers: Callers) -> tuple[Caller, Trail]:
    """The caller and the trail on which it is noted. Raises Unauthenticated."""
    trail = trail_of(request)
    authorization = trail.fields.get(b"authorization")
    caller = callers.identify(None if authorization is None else authorization.decode("latin-1"))
    trail.caller = caller.name
    return caller, trail
