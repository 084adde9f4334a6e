"""What of the settings may change while we run, as it stands now: who may call, how long answers live, the defaults."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from service.callers.authenticator import Authenticator
from service.callers.table import ANONYMOUS, UNKNOWN, table_of
from service.configuration.watch import ConfigurationWatcher, OnReload
from service.model.freshness import Lifetimes
from service.settings import CacheSettings, ServiceAccountSettings, Settings
from service.web.settings import web_settings

if TYPE_CHECKING:
    from service.callers.issuer import Issuer


class UsesLifetimes(Protocol):
    """A part that goes by lifetimes."""

    def set_lifetimes(self, lifetimes: Lifetimes) -> None:
        """Go by these from now on."""
        ...


class LiveSettings:
    """The settings of now, and what is made of them. `apply` changes all of it in one step."""

    def __init__(self, settings: Settings) -> None:
        self._began_with = settings
        self._issuer = None if settings.service_accounts is None else _issuer_of(settings.service_accounts)
        self._parts: tuple[UsesLifetimes, ...] = ()
        self._forget: Callable[[], None] = _nothing
        self.callers = Authenticator(table_of(settings), issuer=self._issuer)
        if self._issuer is not None:
            self._issuer.on_drop = self._invalidate
        self._note(settings)

    def attach(self, *parts: UsesLifetimes, forget: Callable[[], None]) -> None:
        """Tell these parts of changed lifetimes, and `forget` answers that were made under other settings."""
        self._parts = parts
        self._forget = forget

    def apply(self, settings: Settings) -> None:
        """Go by other settings from now on. Raises ValueError, changing nothing, where they contradict themselves."""
        table = table_of(settings)
        self._note(settings)
        self.callers.replace(table)
        for part in self._parts:
            part.set_lifetimes(lifetimes_of(settings.cache))
        self._forget()

    @asynccontextmanager
    async def followed(
        self, path: str | None, environ: Mapping[str, str], *, told: OnReload | None = None
    ) -> AsyncIterator[None]:
        """Keep the issuer's keys fresh, and follow the file at `path` (None: no file), until left."""
        async with AsyncExitStack() as stack:
            if self._issuer is not None:
                await stack.enter_async_context(self._issuer.followed())
            if path is not None:
                reload = ConfigurationWatcher(path, environ, running=self._began_with, apply=self.apply, told=told)
                await stack.enter_async_context(reload.followed())
            yield

    def _invalidate(self) -> None:
        self.callers.invalidate()
        self._forget()

    def _note(self, settings: Settings) -> None:
        self.web = web_settings(settings)
        self.settings = settings
        self.caller_names = frozenset((*settings.callers, ANONYMOUS, UNKNOWN))


def _issuer_of(settings: ServiceAccountSettings) -> "Issuer":
    from service.callers.sources import issuer_of  # dear to import, and only for those who have one

    return issuer_of(settings)


def _nothing() -> None:
    """Nothing was kept yet."""


def lifetimes_of(cache: CacheSettings) -> Lifetimes:
    """For how long what is stored may be served."""
    return Lifetimes(
        fresh_s=cache.fresh_s,
        settled_s=cache.settled_s,
        refusal_s=cache.refusal_s,
        stale_while_revalidate_s=cache.stale_while_revalidate_s,
        stale_if_error_s=cache.stale_if_error_s,
    )
