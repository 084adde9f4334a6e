"""`GET /apps`: the apps that the caller may read."""

from typing import Any

import msgspec
from litestar import Request, get
from litestar.handlers import HTTPRouteHandler

from service.model.callers import AppInfo
from service.web.identify import identify
from service.web.interfaces import Callers, GatewayAPI
from service.web.responses import Response, json_response


class AppListBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body."""

    apps: tuple[AppInfo, ...]


def apps_route(gateway: GatewayAPI, callers: Callers) -> HTTPRouteHandler:
    """Return the route."""

    @get("/apps")
    async def list_apps(request: Request[Any, Any, Any]) -> Response:
        """Return the caller's apps, sorted by name."""
        caller, _ = await identify(request.scope, callers)
        return json_response(AppListBody(apps=gateway.apps(caller)))

    return list_apps
