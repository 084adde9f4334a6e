"""Events for observers of upstream calls: the end of each call and, if it may be traced, its beginning."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from service.budget.line.jobs import Payer
from service.model.calls import CallKind
from service.upstream.call_trace import CallTrace, NoTrace


class UpstreamCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call about to be made in the payer's turn. `attempt` counts from 1."""

    app: str
    kind: CallKind = CallKind.LIST
    payer: Payer
    attempt: int


class UpstreamCallEnd(msgspec.Struct, frozen=True, kw_only=True):
    """A call that has ended.

    `result` is one of `upstream.results.RESULTS`, `code` the upstream's error code, if it gave one. `took_s` counts
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


class WholeCallTrace(CallTrace, Protocol):
    """The trace of one call, from its beginning to its end."""

    def end(self, end: UpstreamCallEnd) -> None:
        """Called after the call has ended."""
        ...


class CallTracing(Protocol):
    """Traces calls. Must not block or raise."""

    def begin(self, call: UpstreamCall) -> WholeCallTrace:
        """Called before each call."""
        ...


class _EndlessTrace(NoTrace):
    def end(self, end: UpstreamCallEnd) -> None:
        """Do nothing."""


class NoCallTracing:
    """A no-op implementation of `CallTracing`."""

    def __init__(self) -> None:
        self._trace = _EndlessTrace()

    def begin(self, call: UpstreamCall) -> WholeCallTrace:
        """Return a trace that records nothing."""
        del call
        return self._trace
