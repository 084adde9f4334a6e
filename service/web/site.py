"""Assembly of the HTTP side: the routes in a Litestar application, wrapped in the middleware."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from litestar import Litestar

from service.observe.request import RequestObserver
from service.watch.feeds import Feeds
from service.web.client_address import PEERS, ClientAddresses
from service.web.event_stream import WatchEndpoint
from service.web.headers.encoding import Encodings, compressors
from service.web.in_flight import InFlight
from service.web.interfaces import Callers, GatewayAPI
from service.web.middleware import RequestMiddleware
from service.web.problems.handlers import exception_handlers
from service.web.routes.apps import apps_route
from service.web.routes.budget import budget_route
from service.web.routes.cache import cache_route
from service.web.routes.docs import docs_routes
from service.web.routes.page import page_routes
from service.web.routes.problems import problem_routes
from service.web.routes.state import state_routes
from service.web.routes.task import task_route
from service.web.routes.tasks import TasksEndpoint, tasks_route
from service.web.routes.usage import usage_route
from service.web.settings import WebSettings

AppLifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]


def create_web(
    gateway: GatewayAPI,
    callers: Callers,
    settings: Callable[[], WebSettings],
    *,
    feeds: Feeds,
    clock: Callable[[], float] = time.time,
    observers: Sequence[RequestObserver] = (),
    lifespan: Sequence[AppLifespan] = (),
    clients: ClientAddresses = PEERS,
    is_open: bool = False,
) -> RequestMiddleware:
    """Return the ASGI application.

    `settings` returns the current settings, `clock` seconds since the epoch. `observers` are called after each
    request. `lifespan` contexts are entered in order at startup and exited in reverse. `clients` determines the
    addresses of clients, for logs. `is_open` means that requests need no credential.
    """
    in_flight = InFlight()
    encodings = Encodings(compressors(), max_bytes=settings().compressed_max_bytes)
    tasks = TasksEndpoint(
        gateway,
        callers,
        settings,
        clock=clock,
        watch=WatchEndpoint(feeds, callers, settings, clock=clock),
        in_flight=in_flight,
        encodings=encodings,
    )
    app = Litestar(
        route_handlers=[
            tasks_route(tasks),
            task_route(gateway, callers, settings, clock=clock, in_flight=in_flight, encodings=encodings),
            apps_route(gateway, callers),
            budget_route(gateway, callers),
            usage_route(gateway, callers, clock=clock),
            cache_route(gateway, callers),
            *state_routes(gateway),
            *problem_routes(),
            *docs_routes(),
            *page_routes(),
        ],
        exception_handlers=exception_handlers(),
        lifespan=list(lifespan),
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
    return RequestMiddleware(app, observers=observers, clients=clients, is_open=is_open)
