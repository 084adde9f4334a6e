"""`/openapi.json` and `/docs`: the contract, and Swagger UI to browse it, without a request to anywhere else."""

from importlib.resources import files
from typing import Any

from litestar import Request, get
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from service.web.answers import HTML, JSON, Answer, Reply
from service.web.fixed import ICON, SCRIPT, STYLE, fixed_file, reply_fixed

# Swagger UI sets styles on its elements and draws its icons from data: URLs; it needs nothing else.
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Taskgate</title>
<link rel="icon" href="docs/favicon.svg" type="image/svg+xml">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="docs"></div>
<noscript>The contract itself is at <a href="openapi.json">openapi.json</a>.</noscript>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START = """"use strict";
window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  persistAuthorization: false,
  tryItOutEnabled: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
});
"""
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#1b4d6b"/>'
    '<path d="M3 4h10M3 8h6M3 12h3" stroke="#fff" stroke-width="2" stroke-linecap="round"/>'
    '<circle cx="12" cy="11" r="2" fill="#ffb703"/></svg>\n'
)


def docs_routes(document: bytes) -> tuple[HTTPRouteHandler, ...]:
    """The routes, for this contract."""
    contract = _file(JSON, document, keep_s=60)
    page = _file(HTML, _PAGE.encode(), keep_s=60)
    parts = {
        "swagger-ui-bundle.js": _file(SCRIPT, _packaged("swagger-ui-bundle.js")),
        "swagger-ui.css": _file(STYLE, _packaged("swagger-ui.css")),
        "start.js": _file(SCRIPT, _START.encode()),
        "favicon.svg": _file(ICON, _ICON.encode()),
    }

    to_page = Reply(Answer(status=308, headers=((b"location", b"../docs"), (b"cache-control", b"no-store")), body=b""))

    @get("/openapi.json")
    async def show_openapi(request: Request[Any, Any, Any]) -> Reply:
        """The contract."""
        return reply_fixed(request, contract)

    @get("/docs")
    async def show_docs(request: Request[Any, Any, Any]) -> Reply:
        """The page; with a slash at the end of its path its relative references would lead nowhere."""
        return to_page if (request.scope.get("raw_path") or b"").endswith(b"/") else reply_fixed(request, page)

    @get("/docs/{name:str}")
    async def show_docs_part(request: Request[Any, Any, Any], name: FromPath[str]) -> Reply:
        """What the page loads."""
        part = parts.get(name)
        if part is None:
            raise NotFoundException
        return reply_fixed(request, part)

    @get("/favicon.ico")
    async def show_icon(request: Request[Any, Any, Any]) -> Reply:
        """The same icon, for browsers that ask for it without being told."""
        return reply_fixed(request, parts["favicon.svg"])

    return show_openapi, show_docs, show_docs_part, show_icon


def _file(media_type: bytes, body: bytes, *, keep_s: int = 86_400) -> Answer:
    return fixed_file(media_type, body, policy=_POLICY, keep_s=keep_s)


def _packaged(name: str) -> bytes:
    return (files("litestar_offline_docs") / "static" / name).read_bytes()
