"""How requests end, in the terms of the access log, metrics and usage."""

from collections.abc import Mapping

from service.model.calls import CallKind
from service.model.freshness import StaleReason
from service.model.pages import Obtained, Source

TASKS_ROUTE = "/tasks"
TASK_ROUTE = "/tasks/{id}"

CALLS_OF_ROUTES: Mapping[str, CallKind] = {TASKS_ROUTE: CallKind.LIST, TASK_ROUTE: CallKind.GET}
"""The routes whose requests callers are charged for, and the kind of call that they may need."""

REFUSED = frozenset(("wait-too-long", "line-full", "too-many-watchers", "shutting-down", "no-fetch-now"))
"""Problems that mean: no fetch for this caller now, although it was willing to wait."""

NOT_WAITED = "not-waited"
"""The outcome of `wait-too-long` if the caller had ruled out any wait (`Prefer: wait=0`)."""

DECLINED = frozenset(("nothing-stored", NOT_WAITED))
"""Outcomes of the caller's own choice: stored pages only (`only-if-cached`), or no wait."""

FALLBACK = "fallback"
"""The outcome of an answer that is stale because no fetch was possible; other stale answers are being renewed."""

STREAMED = "streamed"
"""The outcome of a stream that has sent its last line."""

UNKNOWN_TASK = "unknown-task"
"""The outcome of a request for a task that does not exist, according to a call or a stored answer."""

HUNG_UP = "hung-up"
"""The outcome of a request whose caller disconnected, or stopped reading, before the end of the response."""

PAGES = frozenset((*(source.value for source in Source), FALLBACK))
"""Outcomes of requests that got a page or a task."""


def outcome_of_answer(obtained: Obtained, *, wait_applied_s: int | None) -> str:
    """Return the outcome of a request that gets this; `wait_applied_s` is None if the caller specified no wait."""
    reason = obtained.stale_reason
    if reason is StaleReason.ERROR or (reason is StaleReason.WAIT and wait_applied_s != 0):
        return FALLBACK
    return obtained.source.value


def outcome_of_problem(slug: str, *, wait_applied_s: int | None) -> str:
    """Return the outcome of a request that ends in a problem of this type."""
    return NOT_WAITED if slug == "wait-too-long" and wait_applied_s == 0 else slug


def problem_of_outcome(outcome: str) -> str:
    """Return the type of the problem for a request with this outcome."""
    return "wait-too-long" if outcome == NOT_WAITED else outcome
