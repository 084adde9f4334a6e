"""The budget as header fields (draft-ietf-httpapi-ratelimit-headers-11). Later drafts should affect only this file."""

import math

from service.model.budgets import BudgetNote
from service.model.calls import budget_name
from service.web.responses import Header

RATELIMIT_POLICY = "RateLimit-Policy"
RATELIMIT = "RateLimit"

_RATELIMIT_POLICY = RATELIMIT_POLICY.lower().encode()
_RATELIMIT = RATELIMIT.lower().encode()


def ratelimit(app: str, note: BudgetNote) -> tuple[Header, ...]:
    """Return the policy (quota, window in seconds) and its state (remaining, next free call).

    The policy is named after the app, with a suffix for single tasks: "shop/get".
    """
    name = budget_name(app, note.kind)
    window_s = max(math.ceil(note.window_s), 1)
    reset_s = max(math.ceil(note.reset_s), 0)
    free = min(max(note.free, 0), note.calls)
    return (
        (_RATELIMIT_POLICY, f'"{name}";q={note.calls};w={window_s}'.encode()),
        (_RATELIMIT, f'"{name}";r={free};t={reset_s}'.encode()),
    )
