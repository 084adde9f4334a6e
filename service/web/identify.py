"""Who a request comes from; and for requests that take long, whether that still holds."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from litestar import Request

from service.model.callers import Caller
from service.model.errors import SigningKeyUnknown, TaskgateError, Unauthenticated
from service.observe.request import RequestContext
from service.web.context import request_context
from service.web.interfaces import Callers
from service.web.parameters import readable

Result = TypeVar("Result")


async def identify(request: Request[Any, Any, Any], callers: Callers) -> tuple[Caller, RequestContext]:
    """Return the caller, and the context that names it now. Raises Unauthenticated, NotAllowed, KeysUnavailable."""
    context = request_context(request)
    authorization = context.fields.get(b"authorization")
    try:
        caller = callers.identify(authorization)
    except SigningKeyUnknown:  # the issuer may have changed its keys
        await callers.refresh()
        caller = callers.identify(authorization)
    context.caller = caller.name
    return caller, context


class Access:
    """A caller's right to read an app, for as long as a request lasts: it ends with the credential, or by a reload.

    `clock` is the wall clock, in seconds since the epoch.
    """

    def __init__(
        self, context: RequestContext, callers: Callers, caller: Caller, *, app: str, clock: Callable[[], float]
    ) -> None:
        self._authorization = context.fields.get(b"authorization")
        self._context = context
        self._callers = callers
        self._app = app
        self._clock = clock
        self._note(caller)

    def now(self) -> Caller:
        """Return the caller as things stand now: a reload may have changed what it may do.

        Raises what `Callers.identify` does, and UnknownApp or NotAllowed if the app is the caller's no more.
        """
        if self._callers.generation != self._generation or self._until_s is None:
            caller = self._callers.identify(self._authorization)
            readable(self._app, caller)
            self._note(caller)
        elif self._clock() >= self._until_s:
            raise Unauthenticated(presented=True)
        return self._caller

    async def caller_now(self) -> Caller:
        """Return and raise as `now`."""
        return self.now()

    async def during(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Return the result of `work`, which is cancelled as soon as the right ends; then raise as `now` does."""
        async with self.held():
            return await work

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Cancel what is awaited within as soon as the right ends, and raise as `now` does.

        Who waits in line has then left it: no turn is used for somebody who may not read the answer.
        """
        task = asyncio.current_task()
        lost: list[TaskgateError] = []
        if task is None:
            raise RuntimeError("held outside of a task")

        def check() -> None:
            if lost:
                return
            try:
                self.now()
            except TaskgateError as exc:
                lost.append(exc)
                task.cancel()

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
        return asyncio.get_running_loop().call_later(max(self._until_s - self._clock(), 0.0), check)

    def _note(self, caller: Caller) -> None:
        """Note the caller, and until when that is known; None where each check has to be made anew."""
        known = self._callers.authenticate_cached(self._authorization)
        self._until_s = None if known is None else known.until_s
        self._generation = self._callers.generation
        self._caller = caller
        self._context.caller = caller.name
