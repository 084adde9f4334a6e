"""The apps that are served, and the parts that serve each kind of their calls."""

import msgspec

from service.budget.line.line import Line
from service.budget.scheduler.fallback import FallbackScheduler
from service.gateway.fetch import Fetching
from service.model.budgets import BudgetNote
from service.model.callers import AppInfo
from service.model.calls import CallKind
from service.usage.store import UsageStore


class ServedCall(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of upstream call of one app, with its own budget: `calls` in any `window_s`.

    The names of blocks whose fetches have ended are published on `channel`. `sharing` is there only if replicas share
    the calls while Redis is away.
    """

    app: str
    kind: CallKind
    channel: str
    fetching: Fetching
    line: Line
    usage_store: UsageStore
    sharing: FallbackScheduler | None
    calls: int
    window_s: float

    @property
    def calls_alone(self) -> int | None:
        """Return how many calls this replica gives out on its own, or None while it does not."""
        return None if self.sharing is None else self.sharing.calls_alone

    @property
    def is_cut_off(self) -> bool:
        """Return whether the last call to Redis failed."""
        return self.line.is_cut_off or self.calls_alone is not None

    def note(self) -> BudgetNote | None:
        """Return the budget as last seen, None if it was never seen."""
        last = self.line.last
        if last is None:
            return None
        reset_s = self.window_s if last.due_in_ms is None else last.due_in_ms / 1000
        return BudgetNote(
            kind=self.kind,
            calls=self.calls_alone or self.calls,
            window_s=self.window_s,
            free=last.free,
            reset_s=reset_s,
        )


class ServedApp(msgspec.Struct, frozen=True, kw_only=True):
    """One app, and its calls: for blocks of lists, and for single tasks."""

    info: AppInfo
    list: ServedCall
    get: ServedCall

    @property
    def calls(self) -> tuple[ServedCall, ServedCall]:
        """All kinds of calls."""
        return self.list, self.get

    def of(self, kind: CallKind) -> ServedCall:
        """Return the calls of this kind."""
        return self.list if kind is CallKind.LIST else self.get
