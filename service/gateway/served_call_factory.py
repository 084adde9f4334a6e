"""Builds the parts that serve one kind of upstream call of one app."""

from collections.abc import Callable, Sequence

from service.budget.line.line import Line
from service.budget.scheduler.fallback import FallbackScheduler, notice_s
from service.budget.scheduler.rules import Rules, rules_of, window_s_of
from service.budget.scheduler.shared import RedisScheduler
from service.cache.block_cache import BlockCache
from service.gateway.fetch import CallsUpstream, Fetching, Stoppable
from service.gateway.served import ServedCall
from service.model.calls import CallKind, budget_name
from service.settings import Settings
from service.store.interfaces import Store
from service.upstream.apps import UpstreamApp
from service.upstream.call_events import CallTracing, OnUpstreamCall
from service.usage.store import UsageStore


class ServedCallFactory:
    """Builds the parts of all calls from the settings. `clock` is the shared clock."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        cache: BlockCache,
        *,
        stops: Stoppable,
        replica: str,
        clock: Callable[[], float],
        on_call: Sequence[OnUpstreamCall],
        tracing: CallTracing | None,
    ) -> None:
        """`on_call` are called after each upstream call, `tracing` before it."""
        self._settings = settings
        self._store = store
        self._cache = cache
        self._stops = stops
        self._replica = replica
        self._clock = clock
        self._on_call = tuple(on_call)
        self._tracing = tracing

    def make(self, app: UpstreamApp, kind: CallKind, calls: CallsUpstream) -> ServedCall:
        """Return the parts for these calls, not started."""
        settings, prefix, name = self._settings, self._settings.redis.prefix, app.name
        budget = settings.budget
        rules = rules_of(budget, settings.apps[name], settings.upstream, kind)
        shared = RedisScheduler(self._store, prefix=prefix, app=name, kind=kind, replica=self._replica, rules=rules)
        sharing = sharing_of(settings, shared, app=budget_name(name, kind), rules=rules)
        usage_store = UsageStore(
            self._store,
            prefix=prefix,
            app=name,
            kind=kind,
            replica=self._replica,
            clock=self._clock,
            window_s=window_s_of(budget, kind),
        )
        line = Line(
            sharing or shared,
            app=budget_name(name, kind),
            rules=rules,
            redis_grace_s=budget.redis_grace_s,
            used=usage_store.count_call,
        )
        fetching = Fetching(
            app=app,
            kind=kind,
            calls=calls,
            stops=self._stops,
            cache=self._cache,
            attempts=budget.attempts,
            pause_s=budget.pause_s,
            pause_max_s=budget.pause_max_s,
            clock=self._clock,
            on_call=(*self._on_call, lambda end: usage_store.count_result(end.call.payer.caller, end.result)),
            tracing=self._tracing,
        )
        return ServedCall(
            app=name,
            kind=kind,
            channel=shared.channel,
            fetching=fetching,
            line=line,
            usage_store=usage_store,
            sharing=sharing,
            calls=rules.calls,
            window_s=window_s_of(budget, kind),
        )


def sharing_of(settings: Settings, shared: RedisScheduler, *, app: str, rules: Rules) -> FallbackScheduler | None:
    """Return the fallback for outages of Redis, if enabled; it takes over before the line rejects waiting requests.

    Fewer calls than replicas can't be shared: then no such calls are made without Redis.
    """
    if settings.budget.on_redis_down == "closed" or rules.calls < settings.budget.max_replicas:
        return None
    return FallbackScheduler(
        shared,
        app=app,
        rules=rules,
        max_replicas=settings.budget.max_replicas,
        grace_s=min(1.0, settings.budget.redis_grace_s / 2),
        notice_s=notice_s(settings.redis.timeout_s),
    )
