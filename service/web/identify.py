"""Finds out who asks, and notes it."""

from typing import Any

from litestar import Request

from service.model.callers import Caller
from service.model.errors import SigningKeyUnknown
from service.web.port import Callers
from service.web.trail import Trail, trail_of


async def identify(request: Request[Any, Any, Any], callers: Callers) -> tuple[Caller, Trail]:
    """The caller and the trail on which it is noted. Raises Unauthenticated, NotAllowed and KeysUnavailable."""
    trail = trail_of(request)
    field = trail.fields.get(b"authorization")
    authorization = None if field is None else field.decode("latin-1")
    try:
        caller = callers.identify(authorization)
    except SigningKeyUnknown:  # the issuer may have changed its keys
        await callers.refresh()
        caller = callers.identify(authorization)
    trail.caller = caller.name
    return caller, trail
