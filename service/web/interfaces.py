"""What the routes ask of the rest: the gateway's side of the border between HTTP and the use case."""

from collections.abc import Callable
from typing import Protocol

from service.model.budgets import BudgetView, UsageView
from service.model.callers import AppInfo, Authenticated, Caller
from service.model.pages import Chunk, Page, PageRequest, Readiness


class GatewayAPI(Protocol):
    """The use case. Its methods raise the errors of `service.model.errors` and may be cancelled at any time."""

    async def page(self, ask: PageRequest) -> Page:
        """The slice that the ask wants."""
        ...

    async def chunk(self, ask: PageRequest) -> Chunk:
        """What the first block of the ask's slice holds of it."""
        ...

    def apps(self, caller: Caller) -> tuple[AppInfo, ...]:
        """The apps that the caller may read, by name."""
        ...

    async def budget(self, app: str, caller: Caller) -> BudgetView:
        """The app's budget as the caller may see it."""
        ...

    async def usage(self, app: str, *, caller: Caller, only: str | None, since_s: int) -> UsageView:
        """What callers used of the app since then, in seconds since the epoch, a week ago at most; `only` one."""
        ...

    async def drop(self, app: str) -> int:
        """Drop all that is stored of an app, on all replicas; tells how many values there were."""
        ...

    def readiness(self) -> Readiness:
        """What can be served now; asks nobody."""
        ...


class Callers(Protocol):
    """Knows who asks. `generation` grows with every change of what callers may do."""

    @property
    def generation(self) -> int:
        """What was found out about a caller under another generation is not to be used any more."""
        ...

    def authenticate_cached(self, authorization: bytes | None) -> Authenticated | None:
        """The caller whose credential an `Authorization` field carries, where that is known already; else None."""
        ...

    def identify(self, authorization: bytes | None) -> Caller:
        """The caller whose credential an `Authorization` field carries, as things stand now.

        Raises Unauthenticated, NotAllowed for a good token of nobody's, KeysUnavailable, and SigningKeyUnknown where
        it is worth asking again after `refresh`.
        """
        ...

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` after each change of `generation`, until the returned function is called."""
        ...

    async def refresh(self) -> None:
        """Ask for the issuer's keys anew, unless that was done lately; takes a few seconds at most."""
        ...
