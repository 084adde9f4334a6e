"""Frees the budgets of a fleet whose upstream was reset."""

from pathlib import Path

from service.budget.scheduler.rules import rules_of
from service.configuration import load
from service.model.calls import CallKind
from service.sandbox.new_budgets import tick_once
from service.store.redis_store import RedisStore


async def free_slots(configuration: Path) -> None:
    """Make all slots of a configuration's apps free, rather than wait until they are."""
    settings = load(str(configuration), {}).settings
    store = RedisStore(settings.redis)
    try:
        for name, app in settings.apps.items():
            for kind in CallKind:
                rules = rules_of(settings.budget, app, settings.upstream, kind)
                await tick_once(store, settings.redis.prefix, name, kind, calls=rules.calls, window_ms=1)
    finally:
        await store.aclose()
