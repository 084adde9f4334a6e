"""Finds out who asks, and notes it; for answers that take long, again where callers change meanwhile."""

from collections.abc import Awaitable, Callable
from typing import Any

from litestar import Request

from service.model.callers import Caller
from service.model.errors import SigningKeyUnknown
from service.observe.request import RequestContext
from service.web.context import request_context
from service.web.interfaces import Callers
from service.web.parameters import readable


async def identify(request: Request[Any, Any, Any], callers: Callers) -> tuple[Caller, RequestContext]:
    """The caller and the context on which it is noted. Raises Unauthenticated, NotAllowed and KeysUnavailable."""
    context = request_context(request)
    authorization = context.fields.get(b"authorization")
    try:
        caller = callers.identify(authorization)
    except SigningKeyUnknown:  # the issuer may have changed its keys
        await callers.refresh()
        caller = callers.identify(authorization)
    context.caller = caller.name
    return caller, context


def still(
    request: Request[Any, Any, Any], callers: Callers, caller: Caller, *, app: str
) -> Callable[[], Awaitable[Caller]]:
    """Tells the caller as things stand by then: who was just identified, or whoever that is since a reload.

    What is returned raises what `identify` does, and UnknownApp or NotAllowed where the app is the caller's no more.
    """
    known, generation = caller, callers.generation

    async def of_now() -> Caller:
        nonlocal known, generation
        if callers.generation != generation:
            generation = callers.generation
            known, _ = await identify(request, callers)
            readable(app, known)
        return known

    return of_now
