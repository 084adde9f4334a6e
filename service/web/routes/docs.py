"""`/openapi.json` and `/docs`: the contract, and Scalar to browse it. No other host is contacted."""

from functools import cache
from typing import Any

from litestar import Request, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from service.web.openapi.document import openapi_document
from service.web.responses import JSON, Response
from service.web.static_files import FOR_A_MINUTE, StaticFile, StaticSite, static_file

# Scalar adds inline styles and shows images from data: URLs; it needs nothing else.
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@cache
def _contract() -> StaticFile:
    """Build the contract for the first request, rather than at every start."""
    return static_file(JSON, openapi_document(), policy=_POLICY)


@cache
def _site() -> StaticSite:
    return StaticSite("docs", ("favicon.svg", "theme.css", "scalar.js", "start.js"), policy=_POLICY)


def docs_routes() -> tuple[HTTPRouteHandler, ...]:
    """Return the routes that serve the contract and its page."""
    to_page = Response(status=308, headers=((b"location", b"../docs"), (b"cache-control", b"no-store")))

    @get("/openapi.json")
    async def show_openapi(request: Request[Any, Any, Any]) -> Response:
        """Return the contract."""
        return _contract().response(request, cache_control=FOR_A_MINUTE)

    @get("/docs")
    async def show_docs(request: Request[Any, Any, Any]) -> Response:
        """Return the page. A trailing slash in its path would break its relative references."""
        return to_page if (request.scope.get("raw_path") or b"").endswith(b"/") else _site().page(request)

    @get("/docs/{name:str}")
    async def show_docs_part(request: Request[Any, Any, Any], name: FromPath[str]) -> Response:
        """Return a file that the page loads."""
        return _site().part(request, name)

    @get("/favicon.ico")
    async def show_icon(request: Request[Any, Any, Any]) -> Response:
        """Return the icon at the path that browsers request by default."""
        return _site().part(request, "favicon.svg")

    return show_openapi, show_docs, show_docs_part, show_icon
