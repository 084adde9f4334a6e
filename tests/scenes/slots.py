"""The budgets of a fleet whose upstream has forgotten its calls."""

from pathlib import Path

from msgspec.structs import replace

from service.budget.scheduler.shared import RedisScheduler
from service.configuration import load
from service.gateway.served_call_factory import rules_of
from service.model.calls import CallKind
from service.store.redis_store import RedisStore


async def free_slots(configuration: Path) -> None:
    """Make all slots of a configuration's apps free, rather than wait until they are.

    A tick leaves none taken for longer than a window of its own rules: these have next to none.
    """
    settings = load(str(configuration), {}).settings
    store = RedisStore(settings.redis)
    try:
        for name, app in settings.apps.items():
            for kind in CallKind:
                rules = rules_of(settings.budget, app, settings.upstream, kind)
                scheduler = RedisScheduler(
                    store,
                    prefix=settings.redis.prefix,
                    app=name,
                    kind=kind,
                    replica="fleet",
                    rules=replace(rules, window_ms=1, transit_ms=0, ahead_ms=0),
                )
                await scheduler.tick((), returned=(), quiet=False, wants_board=False)
    finally:
        await store.aclose()
