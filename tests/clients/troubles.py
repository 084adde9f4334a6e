"""Every problem of the contract, triggered by a request whose keyword is its name."""

import json
from typing import Any

from litestar.exceptions import HTTPException

from service.model.pages import Chunk, Page, PageRequest
from service.web.openapi.examples import ERRORS, problem_example
from service.web.problems.from_errors import details_of
from service.web.problems.types import PROBLEM_TYPES
from tests.http.fake_gateway import FakeGateway

LATE = {details_of(error).type.slug: error for error in ERRORS}
"""What may befall any block of a stream, by the problem's name."""
EARLY = {
    slug: LATE.get(slug, RuntimeError("unforeseen") if slug == "failed" else HTTPException(status_code=kind.status))
    for slug, kind in PROBLEM_TYPES.items()
    if slug not in ("not-found", "method-not-allowed", "stream-too-long")
}
"""What may befall a page. The three others are no answers to a request for one."""


class TroubledGateway(FakeGateway):
    """Fails each page, and each block except the first, with the problem named by the keyword."""

    async def page(self, ask: PageRequest) -> Page:
        """None."""
        raise EARLY[str(ask.query.keyword)]

    async def chunk(self, ask: PageRequest) -> Chunk:
        """Return only the first block."""
        if ask.slice.offset:
            raise LATE[str(ask.query.keyword)]
        return await super().chunk(ask)


def arguments() -> tuple[str, str]:
    """Return the problems to trigger: as a response, and within a stream."""
    return " ".join(EARLY), " ".join(LATE)


def read(said: str) -> list[Any]:
    """Return a program's output without the members that differ between responses."""
    return [_lasting(json.loads(line)) for line in said.splitlines()]


def expected() -> list[Any]:
    """The examples of the contract, in the same order."""
    return [_lasting(problem_example(PROBLEM_TYPES[slug])) for slug in (*EARLY, "not-found", *LATE)]


def _lasting(problem: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in problem.items() if name not in ("request_id", "instance")}
