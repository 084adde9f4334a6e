"""How requests end, in the terms of the access log, metrics and usage."""

from service.model.freshness import StaleReason
from service.model.pages import Page, Source

TASKS_ROUTE = "/tasks"
"""The route whose requests callers are charged for."""

REFUSED = frozenset(("wait-too-long", "line-full", "too-many-watchers", "shutting-down", "no-fetch-now"))
"""Problems that mean: no fetch for this caller now, although it was willing to wait."""

NOT_WAITED = "not-waited"
"""The outcome of `wait-too-long` if the caller had ruled out any wait (`Prefer: wait=0`)."""

DECLINED = frozenset(("nothing-stored", NOT_WAITED))
"""Outcomes of the caller's own choice: stored pages only (`only-if-cached`), or no wait."""

FALLBACK = "fallback"
"""The outcome of a page that is stale because no fetch was possible; other stale pages are being renewed."""

STREAMED = "streamed"
"""The outcome of a stream that has sent its last line."""

HUNG_UP = "hung-up"
"""The outcome of a request whose caller disconnected, or took nothing any more, before the end of the response."""

PAGES = frozenset((*(source.value for source in Source), FALLBACK))
"""Outcomes of requests that got a page."""


def outcome_of_page(page: Page, *, wait_applied_s: int | None) -> str:
    """Return the outcome of a request that gets this page; `wait_applied_s` is None if the caller specified no wait."""
    reason = page.stale_reason
    if reason is StaleReason.ERROR or (reason is StaleReason.WAIT and wait_applied_s != 0):
        return FALLBACK
    return page.source.value


def outcome_of_problem(slug: str, *, wait_applied_s: int | None) -> str:
    """Return the outcome of a request that ends in a problem of this type."""
    return NOT_WAITED if slug == "wait-too-long" and wait_applied_s == 0 else slug


def problem_of_outcome(outcome: str) -> str:
    """Return the type of the problem for a request with this outcome."""
    return "wait-too-long" if outcome == NOT_WAITED else outcome
