"""`GET /tasks`: a slice of a query's list, or the whole list as a stream."""

from collections.abc import Callable
from functools import partial

from litestar.exceptions import HTTPException, MethodNotAllowedException
from litestar.handlers import ASGIRouteHandler, asgi
from litestar.types import HTTPScope, Receive, Send
from msgspec.structs import replace

from service.model.long_lists import ListPosition
from service.model.pages import PageRequest
from service.observe.outcomes import TASKS_ROUTE, outcome_of_answer
from service.observe.request import UNROUTED, RequestContext
from service.web.cacheable_response import cacheable_response
from service.web.event_stream import WatchEndpoint
from service.web.hangup import unless_hung_up
from service.web.headers.accept import choose_media_type
from service.web.headers.cache_control import cache_directives_of, patience_of
from service.web.headers.encoding import Encodings
from service.web.headers.link import link_to
from service.web.identify import Access, identify
from service.web.in_flight import InFlight
from service.web.interfaces import Callers, GatewayAPI
from service.web.page_body import render_page
from service.web.parameters import NDJSON, TasksReader
from service.web.responses import JSON, NoResponse, Response
from service.web.server_sent_events import EVENT_STREAM
from service.web.settings import WebSettings
from service.web.stream import TaskStream

_MEDIA_TYPES = (JSON.decode(), NDJSON, EVENT_STREAM)
_ALLOW = "GET, OPTIONS"


def tasks_route(tasks: "TasksEndpoint") -> ASGIRouteHandler:
    """Return the route.

    Litestar passes it the bare ASGI request, since it reads the parameters itself: docs/adr/0009-server.md.
    """

    @asgi(TASKS_ROUTE, copy_scope=False)
    async def list_tasks(scope: HTTPScope, receive: Receive, send: Send) -> None:
        response = await tasks.get(scope, receive) if scope["method"] == "GET" else _other_method(scope)
        await response(scope, receive, send)

    return list_tasks


def _other_method(scope: HTTPScope) -> Response:
    """Respond to OPTIONS, or raise MethodNotAllowedException as Litestar does for ordinary routes."""
    if scope["method"] == "OPTIONS":
        return Response(status=204, headers=((b"allow", _ALLOW.encode()),))
    scope["path_template"] = UNROUTED
    raise MethodNotAllowedException(headers={"allow": _ALLOW})


class TasksEndpoint:
    """Parses and checks requests, and returns pages and streams; `problems/handlers.py` handles errors.

    `settings` returns the current settings, `clock` seconds since the epoch.
    """

    def __init__(
        self,
        gateway: GatewayAPI,
        callers: Callers,
        settings: Callable[[], WebSettings],
        *,
        clock: Callable[[], float],
        watch: WatchEndpoint,
        in_flight: InFlight,
        encodings: Encodings,
    ) -> None:
        self._gateway = gateway
        self._callers = callers
        self._settings = settings
        self._clock = clock
        self._watch = watch
        self._reader = TasksReader(settings())
        self._in_flight = in_flight
        self._encodings = encodings

    async def get(self, scope: HTTPScope, receive: Receive) -> Response:
        """Return the response to a GET."""
        caller, context = await identify(scope, self._callers)
        if (settings := self._settings()) is not self._reader.settings:
            self._reader = TasksReader(settings)
        fields = context.fields
        patience = patience_of(fields, caller=caller, default_s=settings.wait_default_s)
        context.wait_applied_s = patience.applied_s
        media_type = choose_media_type(fields.get(b"accept"), _MEDIA_TYPES)
        if media_type is None:
            raise HTTPException(status_code=406)
        is_page = media_type == _MEDIA_TYPES[0]
        parsed = self._reader.read(
            scope["query_string"],
            caller=caller,
            now_s=self._clock(),
            streamed=not is_page,
            divided=media_type == NDJSON,
        )
        context.app = parsed.query.app
        request = PageRequest(
            caller=caller,
            query=parsed.query,
            slice=parsed.slice,
            patience_s=patience.wait_s,
            directives=cache_directives_of(fields, caller=caller),
            only=parsed.only,
            filter_max_blocks=settings.filter_max_blocks,
            origin=context.origin,
        )
        if is_page:
            return await self._page(request, parsed.link_query, scope, receive, context)
        if media_type == EVENT_STREAM:
            return await self._watch.open(receive, request, context=context)
        start = ListPosition(parts=parsed.parts, offset=parsed.slice.offset)
        link = partial(link_to, _path(scope), parsed.link_query)
        return await self._stream(request, start, receive, context, link=link, tasks_max=settings.stream_max_tasks)

    async def _page(
        self, request: PageRequest, link_query: str, scope: HTTPScope, receive: Receive, context: RequestContext
    ) -> Response:
        page = self._gateway.page_from_memory(request)
        if page is None:
            with self._in_flight.track(request.caller):
                work = self._access(request, context).during(self._gateway.page(request))
                page = await unless_hung_up(work, receive=receive, context=context)
        if page is None:
            return NoResponse()
        context.outcome = outcome_of_answer(page, wait_applied_s=context.wait_applied_s)
        return cacheable_response(
            page,
            render_page(page, path=_path(scope), link_query=link_query),
            app=request.query.app,
            directives=request.directives,
            context=context,
            encodings=self._encodings,
            now_s=self._clock(),
        )

    async def _stream(
        self,
        request: PageRequest,
        start: ListPosition,
        receive: Receive,
        context: RequestContext,
        *,
        link: Callable[[int], str],
        tasks_max: int,
    ) -> Response:
        access = self._access(request, context)
        with self._in_flight.track(request.caller):
            work = access.during(self._gateway.chunk(replace(request, query=start.query)))
            first = await unless_hung_up(work, receive=receive, context=context)
        if first is None:
            return NoResponse()
        return TaskStream(
            self._gateway,
            request,
            first,
            start=start,
            only=request.only,
            context=context,
            in_flight=self._in_flight.track(request.caller),
            access=access,
            link=link,
            tasks_max=tasks_max,
        )

    def _access(self, request: PageRequest, context: RequestContext) -> Access:
        return Access(context, self._callers, request.caller, app=request.query.app, clock=self._clock)


def _path(scope: HTTPScope) -> str:
    return scope.get("root_path", "") + TASKS_ROUTE
