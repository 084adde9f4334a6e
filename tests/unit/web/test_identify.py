"""A caller's right that ends during a request."""

import asyncio
import time
from typing import Any

import pytest

from service.callers.authenticator import Authenticator
from service.callers.table import CallerTable, table_of
from service.model.callers import Authenticated, Caller
from service.model.errors import NotAllowed, TaskgateError, Unauthenticated, UnknownApp
from service.observe.request import RequestContext
from service.settings import CallerSettings
from service.web.identify import Access
from tests.settings import hashed, settings_of

KEY = b"Bearer key"


def table(**callers: CallerSettings) -> CallerTable:
    return table_of(settings_of(callers=callers))


def policy(key: str = "key", **changed: Any) -> CallerSettings:
    values: dict[str, Any] = {"keys": (hashed(key),), "apps": ("shop",)}
    return CallerSettings(**(values | changed))


class Ending(Authenticator):
    """Accepts every caller, with a credential that is valid until `until_s`."""

    until_s = 0.0

    def authenticate_cached(self, authorization: bytes | None) -> Authenticated | None:
        known = super().authenticate_cached(authorization)
        return None if known is None else Authenticated(caller=known.caller, until_s=self.until_s)


@pytest.fixture
def callers() -> Authenticator:
    return Authenticator(table(reports=policy()), issuer=None)


def access_of(callers: Authenticator) -> Access:
    context = RequestContext(request_id="x", fields={b"authorization": KEY})
    return Access(context, callers, callers.identify(KEY), app="shop", clock=time.time)


REFUSALS: list[tuple[dict[str, CallerSettings], type[TaskgateError]]] = [
    ({}, Unauthenticated),
    ({"reports": policy("another")}, Unauthenticated),
    ({"reports": policy(apps=())}, UnknownApp),
    ({"reports": policy(apps=(), operator=True)}, NotAllowed),
]


@pytest.mark.parametrize(("left", "error"), REFUSALS)
async def test_a_reload_that_removes_the_right_ends_the_wait(
    callers: Authenticator, left: dict[str, CallerSettings], error: type[TaskgateError]
) -> None:
    """Removing a caller, a key or an app cancels the wait at once, with the reason."""
    cancelled: list[bool] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    access = access_of(callers)
    waiting = asyncio.create_task(access.during(wait()))
    await asyncio.sleep(0)
    callers.replace(table(**left))
    with pytest.raises(error):
        await asyncio.wait_for(waiting, 20)
    assert cancelled == [True]
    with pytest.raises(error):
        access.current_caller()


async def test_a_reload_that_keeps_the_right_keeps_the_wait(callers: Authenticator) -> None:
    """The wait continues, under the current policy."""
    access, go = access_of(callers), asyncio.Event()
    waiting = asyncio.create_task(access.during(go.wait()))
    await asyncio.sleep(0)
    callers.replace(table(reports=policy(weight=7.0), other=policy("other")))
    await asyncio.sleep(0.01)
    go.set()
    assert await waiting
    assert access.current_caller().weight == 7.0


async def test_an_expiring_credential_ends_the_wait() -> None:
    """An expiring credential ends the wait exactly then, without a reload, and leaves nothing behind."""
    callers = Ending(table(reports=policy()), issuer=None)
    callers.until_s = time.time() + 0.5
    access = access_of(callers)
    assert isinstance(access.current_caller(), Caller)
    with pytest.raises(Unauthenticated) as caught:
        await asyncio.wait_for(access.during(asyncio.sleep(60)), 20)
    assert caught.value.presented
    assert time.time() >= callers.until_s
    with pytest.raises(Unauthenticated):
        access.current_caller()


async def test_a_cancelled_wait_stays_cancelled(callers: Authenticator) -> None:
    """A hang-up remains a cancellation, and a finished wait is not affected by a later reload."""
    access = access_of(callers)
    waiting = asyncio.create_task(access.during(asyncio.sleep(60)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await access.during(asyncio.sleep(0, "answer")) == "answer"
    callers.replace(table())
    await asyncio.sleep(0)


async def test_a_timer_that_fires_early_is_set_again() -> None:
    """If the wall clock lags behind the event loop's clock, the right ends later, but still ends."""
    now_s = [100.0]
    callers = Ending(table(reports=policy()), issuer=None, clock=lambda: now_s[0])
    callers.until_s = 100.01
    context = RequestContext(request_id="x", fields={b"authorization": KEY})
    access = Access(context, callers, callers.identify(KEY), app="shop", clock=lambda: now_s[0])
    waiting = asyncio.create_task(access.during(asyncio.Event().wait()))
    await asyncio.sleep(0.05)
    assert not waiting.done(), "the wall clock stands still before the end"
    now_s[0] = 100.02
    with pytest.raises(Unauthenticated):
        await asyncio.wait_for(waiting, 20)
