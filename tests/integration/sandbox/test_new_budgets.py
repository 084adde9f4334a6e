"""The budgets of the demo: there is nothing that a first page would have to wait for."""

import pytest

from service.budget.scheduler.interfaces import TickRequest
from service.budget.scheduler.rules import Rules
from service.budget.scheduler.shared import RedisScheduler
from service.model.calls import CallKind
from service.sandbox.errors import SandboxError
from service.sandbox.new_budgets import open_budgets
from service.sandbox.upstream import SandboxOptions
from service.settings import RedisSettings
from service.store.redis_store import RedisStore
from tests.servers import Server

OPTIONS = SandboxOptions(calls=3)


async def free_slots(redis: RedisSettings, kind: CallKind) -> list[int]:
    """Return how many slots of each app a gateway finds free."""
    store, free = RedisStore(redis), []
    for app in OPTIONS.apps:
        rules = Rules(calls=OPTIONS.calls, window_ms=1000, transit_ms=500)
        scheduler = RedisScheduler(store, prefix=redis.prefix, app=app.name, kind=kind, replica="g", rules=rules)
        free.append((await scheduler.tick(TickRequest())).free)
    await store.aclose()
    return free


@pytest.mark.parametrize("kind", CallKind)
async def test_a_gateway_finds_all_slots_free(valkey: Server, kind: CallKind) -> None:
    """It need not wait for the window in which an empty Redis gives out no calls."""
    redis = RedisSettings(url=valkey.url, timeout_s=5.0)
    await open_budgets(redis, OPTIONS)
    assert set(await free_slots(redis, kind)) == {3}


@pytest.mark.parametrize("kind", CallKind)
async def test_slots_that_a_gateway_has_are_left_alone(valkey: Server, kind: CallKind) -> None:
    """A gateway that was faster may have made calls already: its slots are taken for as long as before."""
    redis = RedisSettings(url=valkey.url, timeout_s=5.0)
    assert set(await free_slots(redis, kind)) == {0}
    await open_budgets(redis, OPTIONS)
    assert set(await free_slots(redis, kind)) == {0}


async def test_an_unavailable_valkey_is_reported() -> None:
    """The demo reports it as a fault of its own parts."""
    with pytest.raises(SandboxError, match="the embedded Valkey can't be used"):
        await open_budgets(RedisSettings(url="redis://127.0.0.1:1"), OPTIONS)
