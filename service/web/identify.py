"""Identification of the caller, and revalidation of its access during long requests."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from litestar.types import Scope

from service.model.callers import Caller
from service.model.errors import SigningKeyUnknown, TaskgateError, Unauthenticated
from service.observe.request import RequestContext, context_of
from service.web.interfaces import Callers
from service.web.parameters import check_access

T = TypeVar("T")

TIMER_MIN_S = 0.001
"""How long after a check that came slightly too early to repeat it."""


async def identify(scope: Scope, callers: Callers) -> tuple[Caller, RequestContext]:
    """Return the caller and the context, now with its name. Raise Unauthenticated, NotAllowed or KeysUnavailable."""
    context = context_of(scope)
    authorization = context.fields.get(b"authorization")
    try:
        caller = callers.identify(authorization)
    except SigningKeyUnknown:  # the issuer may have rotated its keys
        await callers.refresh()
        caller = callers.identify(authorization)
    context.caller = caller.name
    return caller, context


class Access:
    """A caller's right to read an app during a request; it ends when the credential expires or a reload revokes it.

    `clock` returns the wall clock's seconds since the epoch.
    """

    def __init__(
        self, context: RequestContext, callers: Callers, caller: Caller, *, app: str, clock: Callable[[], float]
    ) -> None:
        self._authorization = context.fields.get(b"authorization")
        self._context = context
        self._callers = callers
        self._app = app
        self._clock = clock
        self._set_caller(caller)

    def current_caller(self) -> Caller:
        """Return the caller with its current rights, which a reload may have changed.

        Raise the errors of `Callers.identify`, and UnknownApp or NotAllowed if the caller may no longer read the app.
        """
        if self._callers.generation != self._generation or self._until_s is None:
            caller = self._callers.identify(self._authorization)
            check_access(self._app, caller)
            self._set_caller(caller)
        elif self._clock() >= self._until_s:
            raise Unauthenticated(presented=True)
        return self._caller

    async def during(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of `work`; if the right ends first, cancel it and raise the error of `current_caller`."""
        async with self.enforced():
            return await work

    @asynccontextmanager
    async def enforced(self) -> AsyncIterator[None]:
        """Cancel the body of the context when the right ends, and raise the error of `current_caller`.

        Cancellation also leaves the line, so that no turn is used for a caller that may not read the response.
        """
        task = asyncio.current_task()
        lost: list[TaskgateError] = []
        if task is None:
            raise RuntimeError("enforced outside of a task")

        timer: asyncio.TimerHandle | None = None

        def check() -> None:
            nonlocal timer
            if lost:
                return
            try:
                self.current_caller()
            except TaskgateError as exc:
                lost.append(exc)
                task.cancel()
                return
            if timer is not None:
                timer.cancel()
            timer = self._timer(check)

        cancelling = task.cancelling()
        unwatch = self._callers.watch(check)
        timer = self._timer(check)
        try:
            yield
        except asyncio.CancelledError:
            if lost and task.uncancel() <= cancelling:
                raise lost[0] from None
            raise
        finally:
            unwatch()
            if timer is not None:
                timer.cancel()

    def _timer(self, check: Callable[[], None]) -> asyncio.TimerHandle | None:
        if self._until_s is None or self._until_s == float("inf"):
            return None
        # A timer may fire a little before the wall clock is there: then it is set again.
        return asyncio.get_running_loop().call_later(max(self._until_s - self._clock(), TIMER_MIN_S), check)

    def _set_caller(self, caller: Caller) -> None:
        """Remember the caller and how long its credential is valid; None means that every check must be repeated."""
        known = self._callers.authenticate_cached(self._authorization)
        self._until_s = None if known is None else known.until_s
        self._generation = self._callers.generation
        self._caller = caller
        self._context.caller = caller.name
