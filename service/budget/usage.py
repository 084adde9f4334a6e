"""What callers used of an app in the last hour, as one may see it, put together from the ledger's minutes. Pure."""

from collections.abc import Mapping

from service.budget.ledger import MINUTES
from service.model.budgets import Counts, UsageView, Use, UseInMinute

_MINUTE_S = 60


def usage_view(
    counted: Mapping[int, Mapping[str, Counts]],
    *,
    app: str,
    only: str | None,
    redis_away: bool,
    since_s: int,
    now_s: int,
) -> UsageView:
    """The whole minutes from that of `since_s`, as far as the ledger goes back, to now; of `only` one caller or all."""
    last = now_s // _MINUTE_S
    first = min(max(since_s // _MINUTE_S, last - MINUTES + 1), last)
    callers: dict[str, Counts] = {}
    minutes = []
    for minute in range(first, last + 1):
        total = Counts()
        for name, counts in counted.get(minute, {}).items():
            if only is None or name == only:
                total += counts
                callers[name] = callers.get(name, Counts()) + counts
        minutes.append(UseInMinute(start_s=minute * _MINUTE_S, counts=total))
    return UsageView(
        app=app,
        only=only,
        redis_away=redis_away,
        since_s=first * _MINUTE_S,
        until_s=now_s,
        callers=tuple(Use(name=name, counts=counts) for name, counts in sorted(callers.items())),
        minutes=tuple(minutes),
    )
