"""Events for observers of upstream calls: the end of each call and, if it is traced, its steps."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from service.model.calls import CallKind
from service.model.origin import Payer

TraceFields = tuple[tuple[str, str], ...]
"""Header fields, by name and value."""


class UpstreamCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call about to be made in the payer's turn. `attempt` counts from 1."""

    app: str
    kind: CallKind = CallKind.LIST
    payer: Payer
    attempt: int


class UpstreamCallEnd(msgspec.Struct, frozen=True, kw_only=True):
    """A call that has ended.

    `result` is one of `upstream.verdicts.RESULTS`, `code` the upstream's error code, if it gave one. `took_s` counts
    from the search for a connection; `sent_at_s` (loop time) is when its first byte could be written, None if the call
    never reached the upstream.
    """

    call: UpstreamCall
    result: str
    code: int | None
    took_s: float
    sent_at_s: float | None


OnUpstreamCall = Callable[[UpstreamCallEnd], None]
"""Called after each upstream call. Must not block or raise."""


class CallTrace(Protocol):
    """The trace of one call. Its methods must not block or raise."""

    @property
    def fields(self) -> TraceFields:
        """The header fields to send with the call (W3C Trace Context); empty for none."""
        ...

    def sends(self, method: str, url: str) -> None:
        """Called before each attempt to send the call to a host; `url` has no query."""
        ...

    def answered(self, status: int) -> None:
        """Called when an answer has arrived whole, with its HTTP status."""
        ...

    def end(self, end: UpstreamCallEnd) -> None:
        """Called after the call has ended."""
        ...


class CallTracing(Protocol):
    """Traces calls. Must not block or raise."""

    def begin(self, call: UpstreamCall) -> CallTrace:
        """Called before each call."""
        ...


class NoTrace:
    """A no-op implementation of `CallTrace`."""

    fields: TraceFields = ()

    def sends(self, method: str, url: str) -> None:
        """Do nothing."""

    def answered(self, status: int) -> None:
        """Do nothing."""

    def end(self, end: UpstreamCallEnd) -> None:
        """Do nothing."""


NO_TRACE = NoTrace()
