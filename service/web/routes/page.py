"""`/`: a page that shows the live budgets. It calls only the API, with the key that the user enters."""

from functools import cache
from typing import Any

from litestar import Request, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from service.web.responses import Response
from service.web.static_files import StaticSite

_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@cache
def _site() -> StaticSite:
    """Build the page for its first request, rather than at every start."""
    return StaticSite("page", ("page.css", "card.js", "page.js"), policy=_POLICY)


def page_routes() -> tuple[HTTPRouteHandler, ...]:
    """Return the routes of the page and its parts."""

    @get("/")
    async def show_page(request: Request[Any, Any, Any]) -> Response:
        """Return the page."""
        return _site().page(request)

    @get("/page/{name:str}")
    async def show_page_part(request: Request[Any, Any, Any], name: FromPath[str]) -> Response:
        """Return the page's stylesheet or one of its scripts."""
        return _site().part(request, name)

    return show_page, show_page_part
