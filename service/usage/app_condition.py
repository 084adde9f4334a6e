"""An app's condition in one word and one sentence: the first thing to check when callers complain. Pure."""

from service.model.budgets import AppCondition, CallResults, RecentCalls
from service.model.errors import CallsStopped

FAILING_SHARE = 0.5
"""The share of failed calls in the last minute from which an app counts as failing."""


def app_condition(
    recent: RecentCalls,
    *,
    stopped: CallsStopped | None,
    redis_away: bool,
    makes_calls: bool,
    pause_s: float,
    pause_reason: str,
    stale_last_minute: int,
) -> AppCondition:
    """Return the app's condition; if several apply, the most serious.

    `stopped` is why this replica makes no calls; `makes_calls` whether calls are made without Redis while `redis_away`;
    `stale_last_minute` counts stale answers.

    - `stopped`: the upstream refuses the credentials or the account; no calls until that changes.
    - `redis-away`: no calls, since Redis cannot be reached. If replicas share the calls, another state applies.
    - `stale`: no call succeeded in the last minute, some failed, and callers get stale answers.
    - `failing`: half of the calls of the last minute failed, or more.
    - `paused`: the upstream asked for a pause.
    - `serving`: none of these.
    """
    if stopped is not None:
        return AppCondition(state="stopped", detail=_sentence("Calls are stopped", stopped.advice or str(stopped)))
    if redis_away and not makes_calls:
        return AppCondition(state="redis-away", detail="Redis can't be reached, so no calls are made.")
    minute = recent.minute
    failures = minute.failures
    if failures and not minute.ok and stale_last_minute:
        return AppCondition(state="stale", detail=f"Stale pages are served; {_failed(minute)}")
    if failures and failures >= FAILING_SHARE * (minute.ok + failures):
        return AppCondition(state="failing", detail=_failed(minute))
    if pause_s > 0:
        why = f" ({pause_reason})" if pause_reason else ""
        return AppCondition(state="paused", detail=f"Calls are paused for {pause_s:.1f} s{why}.")
    if redis_away:
        detail = "Redis can't be reached; each replica makes its share of the calls."
    else:
        detail = "Calls succeed." if minute.ok else "No call failed in the last minute."
    return AppCondition(state="serving", detail=detail)


def _failed(minute: CallResults) -> str:
    failures = minute.failures
    return f"{failures} of {minute.ok + failures} upstream calls failed in the last minute."


def _sentence(start: str, reason: str) -> str:
    return f"{start}: {reason}" if reason.endswith(".") else f"{start}: {reason}."
