"""Keep an issuer's signing keys fresh: on a timer, and when a token names an unknown key."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import structlog

from service.callers.signing_keys import InvalidJwks, PublishedKeys, SigningKeys, read_jwks
from service.callers.token_verification import verify_token
from service.callers.tokens import TokenTrust, VerifiedToken

ON_DEMAND_EVERY_S = 30.0
RETRY_S = 5.0
WAIT_S = 3.0

log = structlog.get_logger("taskgate.callers")


class KeySourceFailed(Exception):
    """The keys can't be fetched now. The text holds no address and no credential."""


class KeySource(Protocol):
    """The origin of the JWKS."""

    async def read(self) -> bytes:
        """Return the document within a bounded time. Raise KeySourceFailed."""
        ...


class TokenIssuer:
    """The keys of one issuer. `clock` is monotonic, in seconds.

    While the source fails, the last known keys stay in use. `on_drop` is called when a key has been removed or changed:
    tokens verified with it are no longer known to be valid.
    """

    def __init__(self, source: KeySource, *, refresh_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.keys: SigningKeys = {}
        self.on_drop: Callable[[], None] = lambda: None
        self._source = source
        self._refresh_s = refresh_s
        self._clock = clock
        self._fetch_started_s = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._running: asyncio.Task[None] | None = None
        self._is_failing = False
        self._left_out = 0

    def check(self, token: str, *, trust: TokenTrust, now_s: float) -> VerifiedToken:
        """Return the token if it is valid under the current keys. Raise as `verify_token` does."""
        return verify_token(token, keys=self.keys, trust=trust, now_s=now_s)

    def start(self) -> None:
        """Fetch now, then periodically until `aclose`."""
        self._start_fetch()
        self._running = asyncio.create_task(self._run())

    async def wait_for_keys(self) -> None:
        """Wait briefly for the fetch in progress."""
        if self._fetching is not None:
            await asyncio.wait({self._fetching}, timeout=WAIT_S)

    async def aclose(self) -> None:
        """Stop fetching."""
        for ending in (self._running, self._fetching):
            if ending is not None:
                ending.cancel()
                with suppress(asyncio.CancelledError):
                    await ending

    async def refresh(self) -> None:
        """Fetch the keys unless a fetch began less than 30 s ago; join one that is in progress. Never raise."""
        if self._fetching is None and self._clock() - self._fetch_started_s >= ON_DEMAND_EVERY_S:
            self._start_fetch()
        await self.wait_for_keys()

    async def _run(self) -> None:
        while True:
            await asyncio.wait({self._fetching or self._start_fetch()})
            await asyncio.sleep(min(RETRY_S, self._refresh_s) if self._is_failing else self._refresh_s)

    def _start_fetch(self) -> asyncio.Task[None]:
        self._fetch_started_s = self._clock()
        self._fetching = asyncio.create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        try:
            self._install(read_jwks(await self._source.read()))
        except (KeySourceFailed, InvalidJwks) as exc:
            if not self._is_failing:
                log.warning("issuer.keys_unavailable", detail=str(exc), known=len(self.keys))
            self._is_failing = True
        finally:
            self._fetching = None

    def _install(self, keys: PublishedKeys) -> None:
        if keys.left_out and keys.left_out != self._left_out:
            log.warning("issuer.keys_left_out", known=len(keys), left_out=keys.left_out)
        self._left_out = keys.left_out
        removed = [kid for kid, old in self.keys.items() if kid not in keys or keys[kid].thumbprint != old.thumbprint]
        if removed or self._is_failing or len(keys) != len(self.keys):
            log.info("issuer.keys_fetched", known=len(keys), gone=len(removed))
        self.keys = keys
        self._is_failing = False
        if removed:
            self.on_drop()
