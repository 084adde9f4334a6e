"""`GET /tasks` as server-sent events: the current list, then its changes (WHATWG HTML, section 9.2)."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

from litestar.types import Receive

from service.model.errors import BadRequest, Fault
from service.model.pages import PageRequest
from service.observe.outcomes import STREAMED
from service.observe.request import RequestContext
from service.server.asgi import Send
from service.watch.feeds import Feeds, WatchCounter
from service.watch.watcher import Watcher
from service.web.hangup import unless_hung_up
from service.web.headers.freshness import VARY
from service.web.identify import Access
from service.web.interfaces import Callers
from service.web.problems.from_errors import Problem, details_of, problem_of
from service.web.problems.handlers import late_problem
from service.web.responses import Header, NoResponse, Response
from service.web.server_sent_events import EVENT_STREAM, KEEP_ALIVE, RETRY, encode_event, name_of
from service.web.settings import WebSettings
from service.web.stream import READER_MAX_S


class EventStream(Response):
    """Sends a watcher's batches. `stack` is closed when the stream ends; a reader has `reader_max_s` for each batch."""

    def __init__(
        self,
        watcher: Watcher,
        *,
        stack: ExitStack,
        context: RequestContext,
        last_id: str | None,
        idle_s: float,
        reader_max_s: float,
        counter: Callable[[], WatchCounter],
    ) -> None:
        """`counter` returns the counter of a watch that begins when it is called."""
        super().__init__(status=200, headers=_fields(context))
        self._watcher = watcher
        self._stack = stack
        self._context = context
        self._last_id = last_id
        self._idle_s = idle_s
        self._reader_max_s = reader_max_s
        self._counter = counter

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        """Send the stream until it ends or the caller disconnects or stops reading."""
        try:
            with self._stack:
                await unless_hung_up(self._send_all(send), receive=receive, context=self._context)
        except TimeoutError:
            self._context.hung_up = True  # the reader has stalled: leave the body unfinished

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": [*self.headers]})
        self._context.outcome = STREAMED
        if not self._context.is_head:
            await self._send_part(send, RETRY)
            counter = self._counter()
            try:
                async for batch in self._watcher.batches(last_id=self._last_id, idle_s=self._idle_s):
                    counter.sent([name_of(each.event) for each in batch])
                    events = b"".join(encode_event(each, problem=self._problem) for each in batch)
                    await self._send_part(send, events or KEEP_ALIVE)
            finally:
                counter.sent(())
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_part(self, send: Send, body: bytes) -> None:
        await asyncio.wait_for(
            send({"type": "http.response.body", "body": body, "more_body": True}), self._reader_max_s
        )

    def _problem(self, error: Exception, *, is_last: bool) -> Problem:
        if is_last:
            return late_problem(self._context, error)
        return problem_of(details_of(error), request_id=self._context.request_id)


class WatchEndpoint:
    """Opens event streams for `GET /tasks`. `settings` returns the current settings."""

    def __init__(
        self, feeds: Feeds, callers: Callers, settings: Callable[[], WebSettings], *, clock: Callable[[], float]
    ) -> None:
        self._feeds = feeds
        self._callers = callers
        self._settings = settings
        self._clock = clock

    async def open(self, receive: Receive, request: PageRequest, *, context: RequestContext) -> Response:
        """Return the stream once the list is known. Raise TaskgateError if it can't be."""
        if request.slice.offset:
            raise BadRequest(Fault(parameter="offset", detail="a watch covers the whole list; leave it out"))
        settings = self._settings()
        with ExitStack() as stack:
            access = Access(context, self._callers, request.caller, app=request.query.app, clock=self._clock)
            watcher = stack.enter_context(
                self._feeds.watcher(
                    request.query, request.only, caller=request.caller, current_caller=access.current_caller
                )
            )
            began_s = asyncio.get_running_loop().time()
            try:
                ready = watcher.ready(patience_s=request.patience_s)
                if await unless_hung_up(ready, receive=receive, context=context) is None:
                    return NoResponse()
            finally:  # the feed fetches for all watchers, so its calls belong to no request
                context.cost.waited_s = asyncio.get_running_loop().time() - began_s
            return EventStream(
                watcher,
                stack=stack.pop_all(),
                context=context,
                last_id=_last_event_id(context.fields),
                idle_s=settings.watch_idle_s,
                reader_max_s=READER_MAX_S,
                counter=partial(self._feeds.counter, request.query.app, request.caller.name),
            )


def _last_event_id(fields: Mapping[bytes, bytes]) -> str | None:
    """Return `Last-Event-ID`, the last event id received by a reconnecting client."""
    value = fields.get(b"last-event-id")
    return None if not value else value.decode("latin-1")


def _fields(context: RequestContext) -> tuple[Header, ...]:
    fields: list[Header] = [
        (b"content-type", EVENT_STREAM.encode()),
        (b"cache-control", b"no-store"),
        (b"vary", VARY),
        (b"x-accel-buffering", b"no"),
    ]
    if context.wait_applied_s is not None:
        fields.append((b"preference-applied", b"wait=%d" % context.wait_applied_s))
    return tuple(fields)
