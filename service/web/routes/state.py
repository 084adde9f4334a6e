"""`/livez`, `/readyz` and `/version`, for operations. They need no API key and so do not name any app."""

import msgspec
from litestar import get
from litestar.handlers import HTTPRouteHandler

from service import __version__
from service.web.interfaces import GatewayAPI
from service.web.responses import Response, json_response


class LivenessBody(msgspec.Struct, frozen=True, kw_only=True):
    """The process responds."""

    live: bool = True


class ReadinessBody(msgspec.Struct, frozen=True, kw_only=True):
    """Whether requests can be served, and for how many apps fetches are possible now."""

    ready: bool
    redis: str
    apps_ok: int
    apps_total: int


class VersionBody(msgspec.Struct, frozen=True, kw_only=True):
    """The running release."""

    name: str
    version: str


def state_routes(gateway: GatewayAPI) -> tuple[HTTPRouteHandler, ...]:
    """Return the three routes."""
    live = json_response(LivenessBody())
    version = json_response(VersionBody(name="taskgate", version=__version__))

    @get("/livez")
    async def livez() -> Response:
        """Return 200 without checking anything: a process that can respond is alive."""
        return live

    @get("/readyz")
    async def readyz() -> Response:
        """Return the readiness known to the gateway; makes no calls."""
        readiness = gateway.readiness()
        body = ReadinessBody(
            ready=readiness.ready,
            redis=readiness.redis,
            apps_ok=sum(app.ok for app in readiness.apps),
            apps_total=len(readiness.apps),
        )
        return json_response(body, status=200 if readiness.ready else 503)

    @get("/version")
    async def show_version() -> Response:
        """Return the service's name and version."""
        return version

    return livez, readyz, show_version
