"""Tables of callers, and the sources and clock of the authenticators that use them."""

import asyncio
import itertools
from typing import Any

from service.callers.authenticator import Authenticator
from service.callers.issuer import KeySourceFailed, TokenIssuer
from service.callers.table import table_of
from service.settings import CallerSettings, ServiceAccountSettings, Settings
from tests.settings import SHOP, hashed, settings_of

NOW_S = 1_750_000_000


def settings(**changed: Any) -> Settings:
    """One caller with a key and an account."""
    values: dict[str, Any] = {
        "apps": {"shop": SHOP, "news": SHOP},
        "callers": {
            "reports": CallerSettings(keys=(hashed("key"),), service_accounts=("shop/reports",), apps=("shop",))
        },
        "service_accounts": ServiceAccountSettings(
            issuer="https://issuer.example", audience="taskgate", jwks_file="jwks.json"
        ),
    }
    return settings_of(**(values | changed))


class Held:
    """A source that holds a document, or None if reading fails. A read waits while `go` is not set; all are counted."""

    def __init__(self, raw: bytes | None) -> None:
        self.raw = raw
        self.reads = 0
        self.go = asyncio.Event()
        self.go.set()

    async def read(self) -> bytes:
        self.reads += 1
        await self.go.wait()
        if self.raw is None:
            raise KeySourceFailed("gone")
        return self.raw


class Clock:
    """Returns the time it was set to."""

    def __init__(self) -> None:
        self.now_s = float(NOW_S)

    def __call__(self) -> float:
        return self.now_s


def bearer(credential: str) -> bytes:
    """The field that carries the credential."""
    return f"Bearer {credential}".encode()


async def with_issuer(source: Held, clock: Clock) -> tuple[Authenticator, TokenIssuer]:
    """An authenticator with the keys of an issuer that reads them again at each refresh."""
    seconds = itertools.count(step=60)
    issuer = TokenIssuer(source, refresh_s=300, clock=lambda: float(next(seconds)))
    await issuer.refresh()
    authenticator = Authenticator(table_of(settings()), issuer=issuer, clock=clock)
    issuer.on_drop = authenticator.invalidate
    return authenticator, issuer


def keys_only(**callers: CallerSettings) -> Authenticator:
    table = table_of(settings(callers=callers, service_accounts=None))
    return Authenticator(table, issuer=None, clock=lambda: float(NOW_S))
