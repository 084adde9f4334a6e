"""The interfaces that the HTTP layer depends on."""

from collections.abc import Callable
from typing import Protocol

from service.model.budgets import BudgetView, UsageView
from service.model.callers import AppInfo, Authenticated, Caller
from service.model.calls import CallKind
from service.model.pages import Chunk, FoundTask, Page, PageRequest, Readiness, TaskRequest


class GatewayAPI(Protocol):
    """The use cases. Methods raise the errors of `service.model.errors` and may be cancelled at any time."""

    def page_from_memory(self, request: PageRequest) -> Page | None:
        """Return the requested slice if it needs no await, else None."""
        ...

    async def page(self, request: PageRequest) -> Page:
        """Return the requested slice."""
        ...

    async def chunk(self, request: PageRequest) -> Chunk:
        """Return the part of the requested slice that its first block contains."""
        ...

    async def task(self, request: TaskRequest) -> FoundTask:
        """Return the requested task."""
        ...

    def apps(self, caller: Caller) -> tuple[AppInfo, ...]:
        """Return the apps that the caller may read, sorted by name."""
        ...

    async def budget(self, app: str, caller: Caller, kind: CallKind) -> BudgetView:
        """Return the app's budget for calls of this kind as visible to the caller."""
        ...

    async def usage(
        self, app: str, *, caller: Caller, only: str | None, since_s: int, now_s: int, kind: CallKind
    ) -> UsageView:
        """Return usage of the app by requests that need calls of this kind, from `since_s` to `now_s`.

        Both are in seconds since the epoch; `since_s` is at most a week ago. `only` names a single caller; None means
        all.
        """
        ...

    async def drop(self, app: str) -> int:
        """Drop everything stored for an app, on all replicas. Return the number of dropped values."""
        ...

    def readiness(self) -> Readiness:
        """Return what can be served now. Makes no calls."""
        ...


class Callers(Protocol):
    """Identifies callers. `generation` increases whenever the rights of callers change."""

    @property
    def generation(self) -> int:
        """The current generation. Results from another generation must no longer be used."""
        ...

    def authenticate_cached(self, authorization: bytes | None) -> Authenticated | None:
        """Return the caller of an `Authorization` field if it is already known, else None."""
        ...

    def identify(self, authorization: bytes | None) -> Caller:
        """Return the caller of an `Authorization` field, with its current rights.

        Raise Unauthenticated, NotAllowed if a valid token belongs to no caller, KeysUnavailable, or SigningKeyUnknown
        if a retry after `refresh` may succeed.
        """
        ...

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` after each change of `generation`, until the returned function is called."""
        ...

    async def refresh(self) -> None:
        """Re-fetch the issuer's keys unless that was done recently. Takes at most a few seconds."""
        ...
