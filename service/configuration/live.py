"""The current values of the settings that may change while the process runs."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from service.callers.authenticator import Authenticator
from service.callers.table import ANONYMOUS, UNKNOWN, table_of
from service.configuration.watch import ConfigurationWatcher, OnReload
from service.model.freshness import Lifetimes
from service.settings import ServiceAccountSettings, Settings
from service.web.settings import web_settings

if TYPE_CHECKING:
    from service.callers.issuer import TokenIssuer


class LiveSettings:
    """The current settings and what is derived from them. `apply` changes all of it in one step.

    Issuer, audience and signing keys belong together: if the source of the keys or the issuer changes, the old keys are
    no longer used, and tokens are rejected (503) until the new keys have arrived.
    """

    def __init__(self, settings: Settings) -> None:
        self._initial = settings
        self._tokens = settings.service_accounts
        self._issuer = None if self._tokens is None else self._issuer_of(self._tokens)
        self._is_running = False
        self._ending: set[asyncio.Task[None]] = set()
        self._set_lifetimes: tuple[Callable[[Lifetimes], None], ...] = ()
        self._forget: Callable[[], None] = lambda: None
        self.callers = Authenticator(table_of(settings), issuer=self._issuer)
        self._set(settings)

    def attach(self, *set_lifetimes: Callable[[Lifetimes], None], forget: Callable[[], None]) -> None:
        """Pass changed lifetimes on to these functions; `forget` drops answers built under other settings."""
        self._set_lifetimes = set_lifetimes
        self._forget = forget

    def apply(self, settings: Settings) -> None:
        """Switch to other settings. Raise ValueError, changing nothing, if they contradict each other."""
        table = table_of(settings)
        tokens = settings.service_accounts
        issuer = self._issuer
        if _keys_of(tokens) != _keys_of(self._tokens):
            issuer = None if tokens is None else self._issuer_of(tokens)
        if issuer is not None and self._issuer is not None and _source_of(tokens) == _source_of(self._tokens):
            issuer.keys = self._issuer.keys
        self._set(settings)
        self.callers.replace(table, issuer="same" if issuer is self._issuer else issuer)
        self._switch_issuer(issuer)
        self._tokens = tokens
        for set_lifetimes in self._set_lifetimes:
            set_lifetimes(settings.cache.lifetimes)
        self._forget()

    @asynccontextmanager
    async def running(
        self, path: str | None, environ: Mapping[str, str], *, on_reload: OnReload | None = None
    ) -> AsyncIterator[None]:
        """While entered, keep the issuer's keys fresh and watch the file at `path` (None: no file)."""
        async with AsyncExitStack() as stack:
            self._is_running = True
            stack.push_async_callback(self._stop)
            if self._issuer is not None:
                self._issuer.start()
                await self._issuer.wait_for_keys()
            if path is not None:
                watcher = ConfigurationWatcher(
                    path, environ, running=self._initial, apply=self.apply, on_reload=on_reload
                )
                await stack.enter_async_context(watcher.watching())
            yield

    def _issuer_of(self, tokens: ServiceAccountSettings) -> "TokenIssuer":
        from service.callers.sources import issuer_of  # expensive to import, and few deployments have an issuer

        issuer = issuer_of(tokens)
        issuer.on_drop = self._invalidate
        return issuer

    def _switch_issuer(self, issuer: "TokenIssuer | None") -> None:
        """Keep this issuer's keys fresh, and stop refreshing the previous one's."""
        former, self._issuer = self._issuer, issuer
        if former is issuer or not self._is_running:
            return
        if issuer is not None:
            issuer.start()
        if former is not None:
            former.on_drop = lambda: None
            task = asyncio.create_task(former.aclose())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def _stop(self) -> None:
        self._is_running = False
        if self._issuer is not None:
            await self._issuer.aclose()
        if self._ending:
            await asyncio.wait(self._ending)

    def _invalidate(self) -> None:
        self.callers.invalidate()
        self._forget()

    def _set(self, settings: Settings) -> None:
        self.web = web_settings(settings)
        self.settings = settings
        self.caller_names = frozenset((*settings.callers, ANONYMOUS, UNKNOWN))


def _keys_of(tokens: ServiceAccountSettings | None) -> ServiceAccountSettings | None:
    """Return the settings that determine how keys are fetched: the section without settings that a reload applies by
    themselves."""
    return None if tokens is None else msgspec.structs.replace(tokens, audience="-", unknown=None)


def _source_of(tokens: ServiceAccountSettings | None) -> tuple[str | None, ...]:
    """Return the settings that determine whose keys are used."""
    return () if tokens is None else (tokens.issuer, tokens.jwks_url, tokens.jwks_file)
