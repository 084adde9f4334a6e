"""`/problems` and `/problems/{name}`: documentation of the problem types, at the URIs in their `type` members."""

from html import escape
from typing import Any

from litestar import Request, get
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from service.observe.request import context_of
from service.web.headers.accept import choose_media_type
from service.web.problems.types import PROBLEM_TYPES, ProblemType
from service.web.responses import HTML, TEXT, Response

_MEDIA_TYPES = ("text/plain", "text/html")
_POLICY = b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_CACHE_CONTROL = b"public, max-age=3600"


def problem_routes() -> tuple[HTTPRouteHandler, ...]:
    """Return the two routes."""

    @get("/problems")
    async def list_problems(request: Request[Any, Any, Any]) -> Response:
        """Return the descriptions of all problem types."""
        return _describe(request, tuple(PROBLEM_TYPES.values()))

    @get("/problems/{name:str}")
    async def show_problem(request: Request[Any, Any, Any], name: FromPath[str]) -> Response:
        """Return the description of one problem type."""
        problem_type = PROBLEM_TYPES.get(name)
        if problem_type is None:
            raise NotFoundException
        return _describe(request, (problem_type,))

    return list_problems, show_problem


def _describe(request: Request[Any, Any, Any], types: tuple[ProblemType, ...]) -> Response:
    """Return HTML to browsers and plain text to other clients."""
    wants_html = choose_media_type(context_of(request.scope).fields.get(b"accept"), _MEDIA_TYPES) == _MEDIA_TYPES[1]
    return Response(
        status=200,
        headers=(
            (b"content-type", HTML if wants_html else TEXT),
            (b"cache-control", _CACHE_CONTROL),
            (b"vary", b"Accept"),
            (b"content-security-policy", _POLICY),
        ),
        body=(problem_types_html(types) if wants_html else problem_types_text(types)).encode(),
    )


def problem_types_text(types: tuple[ProblemType, ...]) -> str:
    """Return meanings and remedies as plain text."""
    return "\n".join(
        f"{each.slug} ({each.status}): {each.title}\n\nWhat it means: {each.meaning}\nWhat to do: {each.remedy}\n"
        for each in types
    )


def problem_types_html(types: tuple[ProblemType, ...]) -> str:
    """Return meanings and remedies as an HTML page."""
    title = types[0].title if len(types) == 1 else "Problems"
    sections = "".join(
        f'<article><h2><a href="/problems/{escape(each.slug)}">{escape(each.slug)}</a> ({each.status})</h2>'
        f"<p><strong>{escape(each.title)}</strong></p><p>What it means: {escape(each.meaning)}</p>"
        f"<p>What to do: {escape(each.remedy)}</p></article>"
        for each in types
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Taskgate: {escape(title)}</title>'
        f'<h1>{escape(title)}</h1>{sections}<p><a href="/problems">All problems</a></p></html>\n'
    )
