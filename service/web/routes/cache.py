"""`DELETE /cache`: drops an app's stored blocks."""

from typing import Any

import msgspec
from litestar import Request, delete
from litestar.handlers import HTTPRouteHandler

from service.model.errors import BadRequest, Fault, NotAllowed
from service.web.identify import identify
from service.web.interfaces import Callers, GatewayAPI
from service.web.query_string import read_query_string
from service.web.responses import Response, json_response

_KNOWN = {b"app": "app"}


class DroppedBody(msgspec.Struct, frozen=True, kw_only=True):
    """What was dropped."""

    app: str
    dropped: int


def cache_route(gateway: GatewayAPI, callers: Callers) -> HTTPRouteHandler:
    """Return the route."""

    @delete("/cache", status_code=200)
    async def drop_blocks(request: Request[Any, Any, Any]) -> Response:
        """Drop an app's blocks on all replicas. Requires an operator, who need not be allowed to read the app."""
        caller, context = await identify(request.scope, callers)
        if not caller.operator:
            raise NotAllowed("only operators may drop stored blocks")
        texts, faults = read_query_string(request.scope["query_string"], known=_KNOWN)
        if not faults and "app" not in texts:
            faults.append(Fault(parameter="app", detail="is required: name the app whose blocks are dropped"))
        if faults:
            raise BadRequest(*faults)
        dropped = await gateway.drop(texts["app"])
        context.app = texts["app"]
        return json_response(DroppedBody(app=texts["app"], dropped=dropped))

    return drop_blocks
