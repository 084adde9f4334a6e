"""The budgets of an upstream that is as new as its Redis."""

from service.budget.scheduler.interfaces import TickRequest
from service.budget.scheduler.rules import Rules
from service.budget.scheduler.shared import RedisScheduler
from service.model.calls import CallKind
from service.model.errors import StoreUnavailable
from service.sandbox.errors import SandboxError
from service.sandbox.upstream import SandboxOptions
from service.settings import RedisSettings
from service.store.redis_store import RedisStore

_LONG_MS = 60_000
"""Longer than any slot is taken, so that a tick by these rules shortens nothing."""


async def open_budgets(redis: RedisSettings, options: SandboxOptions) -> None:
    """Make the slots of the sandbox's apps free, unless a gateway has them already. Raise SandboxError.

    In a Redis without slots, all slots start taken for at least a window, because earlier calls are unknown. A sandbox
    that has just started has had no calls, so its first page does not have to wait.
    """
    store = RedisStore(redis)
    try:
        for app in options.apps:
            for kind in CallKind:
                if await tick_once(store, redis.prefix, app.name, kind, calls=options.calls, window_ms=_LONG_MS):
                    await tick_once(store, redis.prefix, app.name, kind, calls=options.calls, window_ms=1)
    except StoreUnavailable as exc:
        raise SandboxError(f"the embedded Valkey can't be used: {exc.detail}") from exc
    finally:
        await store.aclose()


async def tick_once(store: RedisStore, prefix: str, app: str, kind: CallKind, *, calls: int, window_ms: int) -> bool:
    """Tick by other rules than the gateways'; return whether there were no slots. Raise StoreUnavailable.

    None is taken for longer than the window afterwards.
    """
    rules = Rules(calls=calls, window_ms=window_ms, transit_ms=0, ahead_ms=0)
    scheduler = RedisScheduler(store, prefix=prefix, app=app, kind=kind, replica="demo", rules=rules)
    await scheduler.tick(TickRequest())
    return scheduler.resets > 0
