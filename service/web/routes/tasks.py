"""`GET /tasks`: a slice of a query's list, or the whole list as a stream."""

from collections.abc import Callable
from functools import partial
from typing import Any

from litestar import Request, get
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from msgspec.structs import replace

from service.model.long_lists import ListPosition
from service.model.pages import PageRequest
from service.observe.outcomes import TASKS_ROUTE, outcome_of_page
from service.web.answers import JSON, Reply, Silence
from service.web.event_stream import Watch
from service.web.hangup import unless_hung_up
from service.web.headers.accept import choose
from service.web.headers.cache_control import cache_directives_of, patience_of
from service.web.headers.encoding import Encodings, compressors
from service.web.headers.link import link_to
from service.web.identify import Access, identify
from service.web.in_flight import InFlight
from service.web.interfaces import Callers, GatewayAPI
from service.web.page_answer import page_answer, render
from service.web.parameters import NDJSON, TasksReader
from service.web.server_sent_events import EVENT_STREAM
from service.web.settings import WebSettings
from service.web.stream import TaskStream

_FORMS = (JSON.decode(), NDJSON, EVENT_STREAM)


def tasks_route(
    gateway: GatewayAPI,
    callers: Callers,
    settings: Callable[[], WebSettings],
    *,
    clock: Callable[[], float],
    watch: Watch,
) -> HTTPRouteHandler:
    """Return the route. `settings` returns the current settings, `clock` seconds since the epoch."""
    reader = TasksReader(settings())
    in_flight = InFlight()
    encodings = Encodings(compressors(), max_bytes=settings().compressed_max_bytes)

    @get(TASKS_ROUTE)
    async def list_tasks(request: Request[Any, Any, Any]) -> Reply:
        """Parse and check the request, and return a page or a stream; `problems/handlers.py` handles errors."""
        nonlocal reader
        caller, context = await identify(request, callers)
        scope = request.scope
        if (now := settings()) is not reader.settings:
            reader = TasksReader(now)
        patience = patience_of(context.fields, caller=caller, default_s=now.wait_default_s)
        context.wait_applied_s = patience.applied_s
        media_type = choose(context.fields.get(b"accept"), _FORMS)
        if media_type is None:
            raise HTTPException(status_code=406)
        streamed = media_type != _FORMS[0]
        asked = reader.read(
            scope["query_string"],
            caller=caller,
            now_s=clock(),
            streamed=streamed,
            divided=media_type == NDJSON,
        )
        context.app = asked.query.app
        directives = cache_directives_of(context.fields, caller=caller)
        ask = PageRequest(
            caller=caller,
            query=asked.query,
            slice=asked.slice,
            patience_s=patience.wait_s,
            directives=directives,
            only=asked.only,
            filter_max_blocks=now.filter_max_blocks,
            origin=context.origin,
        )
        if media_type == EVENT_STREAM:
            return await watch.open(request, ask, only=asked.only, context=context)
        path, query_string = scope.get("root_path", "") + TASKS_ROUTE, scope["query_string"]
        access = Access(context, callers, caller, app=asked.query.app, clock=clock)
        if streamed:
            start = ListPosition(parts=asked.parts, offset=asked.slice.offset)
            with in_flight.one_of(caller):
                work = access.during(gateway.chunk(replace(ask, query=start.query)))
                first = await unless_hung_up(work, receive=request.receive, context=context)
            if first is None:
                return Silence()
            link = partial(link_to, path, query_string)
            return TaskStream(
                gateway,
                ask,
                first,
                start=start,
                only=asked.only,
                context=context,
                in_flight=in_flight.one_of(caller),
                access=access,
                link=link,
                tasks_max=now.stream_max_tasks,
            )
        with in_flight.one_of(caller):
            page = await unless_hung_up(access.during(gateway.page(ask)), receive=request.receive, context=context)
        if page is None:
            return Silence()
        context.outcome = outcome_of_page(page, wait_applied_s=patience.applied_s)
        return Reply(
            page_answer(
                page,
                render(page, path=path, query_string=query_string),
                directives=directives,
                cost=context.cost,
                wait_applied_s=patience.applied_s,
                if_none_match=context.fields.get(b"if-none-match"),
                accept_encoding=context.fields.get(b"accept-encoding"),
                encodings=encodings,
                now_s=clock(),
            )
        )

    return list_tasks
