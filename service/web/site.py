"""Puts the HTTP side together: the routes in Litestar, and the edge around it."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from litestar import Litestar

from service.observe.request import Observer
from service.watch.feeds import Feeds
from service.web.event_stream import Watch
from service.web.interfaces import Callers, GatewayAPI
from service.web.middleware import RequestMiddleware
from service.web.openapi.document import openapi_document
from service.web.problems.handlers import exception_handlers
from service.web.routes.apps import apps_route
from service.web.routes.budget import budget_route
from service.web.routes.cache import cache_route
from service.web.routes.docs import docs_routes
from service.web.routes.page import page_routes
from service.web.routes.problems import problem_routes
from service.web.routes.state import state_routes
from service.web.routes.tasks import tasks_route
from service.web.routes.usage import usage_route
from service.web.settings import WebSettings

Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]


def create_web(
    gateway: GatewayAPI,
    callers: Callers,
    settings: Callable[[], WebSettings],
    *,
    feeds: Feeds,
    clock: Callable[[], float] = time.time,
    observers: Sequence[Observer] = (),
    lifespan: Sequence[Lifespan] = (),
    is_open: bool = False,
) -> RequestMiddleware:
    """The ASGI application.

    `settings` tells those of now; `clock` the seconds since the epoch; `observers` are told of each request when it
    has ended; `lifespan` are entered in order at start and left in reverse; `is_open` says that everybody is served.
    """
    app = Litestar(
        route_handlers=[
            tasks_route(gateway, callers, settings, clock=clock, watch=Watch(feeds, callers, settings, clock=clock)),
            apps_route(gateway, callers),
            budget_route(gateway, callers),
            usage_route(gateway, callers, clock=clock),
            cache_route(gateway, callers),
            *state_routes(gateway),
            *problem_routes(),
            *docs_routes(openapi_document()),
            *page_routes(),
        ],
        exception_handlers=exception_handlers(),
        lifespan=list(lifespan),
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
    return RequestMiddleware(app, observers=observers, is_open=is_open)
