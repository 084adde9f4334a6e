"""Settings applied while the process runs: issuer, audience and keys in one step, and lifetimes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.configuration.live import LiveSettings
from service.model.errors import KeysUnavailable, TaskgateError, Unauthenticated
from service.model.freshness import Lifetimes
from service.settings import CacheSettings, CallerSettings, ServiceAccountSettings, Settings
from tests.integration.callers.conftest import Signer
from tests.servers import until
from tests.settings import settings_of

ACCOUNT = "shop/reports"


def settings(tokens: ServiceAccountSettings | None, **changed: Any) -> Settings:
    """One caller, known by its account."""
    accounts = (ACCOUNT,) if tokens is not None else ()
    return settings_of(
        callers={"reports": CallerSettings(service_accounts=accounts, keys=("a" * 64,), apps=("shop",))},
        service_accounts=tokens,
        **changed,
    )


class Issued:
    """An issuer with a file of its keys."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.signer = Signer("one")
        self.file = folder / f"{name}.json"
        self.publish()

    def publish(self) -> None:
        self.file.write_bytes(self.signer.jwks())

    def settings(self, **changed: Any) -> ServiceAccountSettings:
        values: dict[str, Any] = {"issuer": self.name, "audience": "taskgate", "jwks_file": str(self.file)}
        return ServiceAccountSettings(**(values | changed))

    def token(self, *, iss: str | None = None, aud: str = "taskgate") -> bytes:
        token = self.signer.token("one", ACCOUNT, iss=iss or self.name, aud=[aud])
        return f"Bearer {token}".encode()


@pytest.fixture
def issued(tmp_path: Path) -> tuple[Issued, Issued]:
    """Two issuers, both with a key of the same name."""
    return Issued(tmp_path, "a"), Issued(tmp_path, "b")


@pytest.fixture
async def followed() -> AsyncIterator[Callable[[Settings], Any]]:
    """Settings that are followed from now on."""
    async with AsyncExitStack() as stack:

        async def follow(settings: Settings) -> LiveSettings:
            live = LiveSettings(settings)
            await stack.enter_async_context(live.running(None, {}))
            return live

        yield follow


def outcome(live: LiveSettings, token: bytes) -> str | type[TaskgateError]:
    """The caller's name, or how it is refused."""
    try:
        return live.callers.identify(token).name
    except TaskgateError as exc:
        return KeysUnavailable if isinstance(exc, KeysUnavailable) else Unauthenticated


async def test_a_changed_issuer_drops_the_old_keys(
    issued: tuple[Issued, Issued], followed: Callable[[Settings], Any]
) -> None:
    """None of the old keys is used any longer, whatever a token says; 503 until the new keys arrive."""
    a, b = issued
    live = await followed(settings(a.settings()))
    assert outcome(live, a.token()) == "reports"
    live.apply(settings(b.settings()))
    seen = [outcome(live, token) for token in (a.token(), a.token(iss="b"), b.token(), b.token(iss="a"))]
    assert seen == [KeysUnavailable] * 4
    await until(lambda: outcome(live, b.token()) == "reports")
    seen = [outcome(live, token) for token in (a.token(), a.token(iss="b"), b.token(), b.token(iss="a"))]
    assert seen == [Unauthenticated, Unauthenticated, "reports", Unauthenticated]
    live.apply(settings(a.settings()))
    await until(lambda: outcome(live, a.token()) == "reports")
    assert outcome(live, b.token(iss="a")) is Unauthenticated


async def test_a_renamed_issuer_drops_the_old_keys(
    issued: tuple[Issued, Issued], followed: Callable[[Settings], Any]
) -> None:
    """The keys of the old name are not trusted under the new one until they have been read again."""
    a, b = issued
    live = await followed(settings(a.settings()))
    a.file.write_bytes(b.signer.jwks())
    live.apply(settings(a.settings(issuer="b")))
    assert outcome(live, a.token(iss="b")) is KeysUnavailable
    await until(lambda: outcome(live, b.token()) == "reports")
    assert outcome(live, a.token(iss="b")) is Unauthenticated


async def test_a_changed_audience_takes_effect_at_once(
    issued: tuple[Issued, Issued], followed: Callable[[Settings], Any]
) -> None:
    """A changed audience takes effect at once, with the current keys; cached tokens for the old one become invalid."""
    a, _ = issued
    live = await followed(settings(a.settings()))
    assert outcome(live, a.token()) == "reports"
    live.apply(settings(a.settings(audience="other")))
    assert [outcome(live, a.token(aud=aud)) for aud in ("taskgate", "other")] == [Unauthenticated, "reports"]


async def test_a_changed_way_to_the_same_keys_keeps_them(
    issued: tuple[Issued, Issued], followed: Callable[[Settings], Any]
) -> None:
    """Another interval or CA for reading the keys keeps the current keys in use."""
    a, _ = issued
    live = await followed(settings(a.settings()))
    live.apply(settings(a.settings(refresh_s=7.0)))
    assert outcome(live, a.token()) == "reports"
    a.signer = Signer("one")
    a.publish()
    await until(lambda: outcome(live, a.token()) == "reports")


async def test_service_accounts_can_be_added_and_removed(
    issued: tuple[Issued, Issued], followed: Callable[[Settings], Any]
) -> None:
    """The section can be added and removed; without it the keys are no longer read."""
    a, _ = issued
    live = await followed(settings(None))
    assert outcome(live, a.token()) is Unauthenticated
    live.apply(settings(a.settings()))
    await until(lambda: outcome(live, a.token()) == "reports")
    tasks = asyncio.all_tasks()
    live.apply(settings(None))
    assert outcome(live, a.token()) is Unauthenticated
    await until(lambda: len(asyncio.all_tasks()) < len(tasks))


async def test_contradictory_settings_change_nothing(
    issued: tuple[Issued, Issued], followed: Callable[[Settings], Any]
) -> None:
    """Settings that contradict each other change neither the issuer nor the callers."""
    a, b = issued
    live = await followed(settings(a.settings()))
    twice = {name: CallerSettings(keys=("b" * 64,), apps=("shop",)) for name in ("x", "y")}
    with pytest.raises(ValueError, match="share a key"):
        live.apply(msgspec.structs.replace(settings(b.settings()), callers=twice))
    assert outcome(live, a.token()) == "reports"
    assert outcome(live, b.token(iss="a")) is Unauthenticated


async def test_changed_lifetimes_reach_all_components(followed: Callable[[Settings], Any]) -> None:
    """Changed lifetimes reach all components that use them, and responses made under the old ones are dropped."""
    live = await followed(settings(None))
    one: list[Lifetimes] = []
    other: list[Lifetimes] = []
    dropped: list[bool] = []
    live.attach(one.append, other.append, forget=lambda: dropped.append(True))
    cache = CacheSettings(fresh_s=7.0, stale_if_error_s=9.0)
    live.apply(settings(None, cache=cache))
    assert one == other == [cache.lifetimes]
    assert dropped == [True]
