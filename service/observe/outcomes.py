"""How requests end, in the words of access log, metrics and usage."""

from service.model.freshness import StaleReason
from service.model.pages import Page

TASKS_ROUTE = "/tasks"
"""The route whose requests callers are charged for."""

REFUSED = frozenset(("wait-too-long", "line-full", "too-many-watchers", "shutting-down", "no-fetch-now"))
"""Problems that say: no fetch for this caller now, though it would have waited."""

NOT_WAITED = "not-waited"
"""The outcome of `wait-too-long` where the caller asked for no wait at all (`Prefer: wait=0`)."""

DECLINED = frozenset(("nothing-stored", NOT_WAITED))
"""Outcomes that the caller asked for: only what is stored (`only-if-cached`), or nothing that takes a wait."""

FALLBACK = "fallback"
"""The outcome of a page that is stale because no fetch could be had; other stale pages are being renewed."""

STREAMED = "streamed"
"""The outcome of a stream that has sent its last line."""


def outcome_of_page(page: Page, *, wait_applied_s: int | None) -> str:
    """Return the outcome of a request that gets this page; `wait_applied_s` is None where the caller named no wait."""
    match page.stale_reason:
        case StaleReason.ERROR:
            return FALLBACK
        case StaleReason.WAIT if wait_applied_s != 0:
            return FALLBACK
    return page.source.value


def outcome_of_problem(slug: str, *, wait_applied_s: int | None) -> str:
    """Return the outcome of a request that ends in a problem of this type."""
    return NOT_WAITED if slug == "wait-too-long" and wait_applied_s == 0 else slug


def problem_of_outcome(outcome: str) -> str:
    """Return the type of the problem that a request with this outcome got."""
    return "wait-too-long" if outcome == NOT_WAITED else outcome
