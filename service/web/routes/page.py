"""`/`: the live budgets, for people. The page asks the API with the key that its reader gives it, and nothing else."""

from importlib.resources import files
from typing import Any

from litestar import Request, get
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from service.web.answers import HTML, Reply
from service.web.fixed import SCRIPT, STYLE, fixed_file, reply_fixed

_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_KEEP_S = 60


def page_routes() -> tuple[HTTPRouteHandler, ...]:
    """The page, and what it loads."""
    page = fixed_file(HTML, _packaged("index.html"), policy=_POLICY, keep_s=_KEEP_S)
    parts = {
        name: fixed_file(kind, _packaged(name), policy=_POLICY, keep_s=_KEEP_S)
        for name, kind in (("page.css", STYLE), ("page.js", SCRIPT), ("card.js", SCRIPT))
    }

    @get("/")
    async def show_page(request: Request[Any, Any, Any]) -> Reply:
        """The page."""
        return reply_fixed(request, page)

    @get("/page/{name:str}")
    async def show_page_part(request: Request[Any, Any, Any], name: FromPath[str]) -> Reply:
        """Its style or one of its scripts."""
        part = parts.get(name)
        if part is None:
            raise NotFoundException
        return reply_fixed(request, part)

    return show_page, show_page_part


def _packaged(name: str) -> bytes:
    return (files("service.web") / "page" / name).read_bytes()
