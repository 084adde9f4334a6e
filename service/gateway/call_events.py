"""Events for observers of upstream calls: the end of each call and, if it may be traced, its beginning."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from service.budget.line.jobs import Payer
from service.model.calls import CallKind
from service.upstream.call_trace import CallTrace, NoTrace


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A call about to be made in the payer's turn. `attempt` counts from 1."""

    app: str
    kind: CallKind = CallKind.LIST
    payer: Payer
    attempt: int


class CallEnd(msgspec.Struct, frozen=True, kw_only=True):
    """A call that has ended.

    `result` is one of `upstream.results.RESULTS`, `code` the upstream's error code, if it gave one. `took_s` counts
    from the search for a connection; `sent_at_s` (loop time) is when its first byte could be written, None if the call
    never reached the upstream.
    """

    call: Call
    result: str
    code: int | None
    took_s: float
    sent_at_s: float | None


OnCall = Callable[[CallEnd], None]
"""Called after each upstream call. Must not block or raise."""


class Trace(CallTrace, Protocol):
    """The trace of one call, from its beginning to its end."""

    def end(self, end: CallEnd) -> None:
        """Called after the call has ended."""
        ...


class Tracing(Protocol):
    """Traces calls. Must not block or raise."""

    def begin(self, call: Call) -> Trace:
        """Called before each call."""
        ...


class _EndlessTrace(NoTrace):
    def end(self, end: CallEnd) -> None:
        """Do nothing."""


class Untraced:
    """A no-op implementation of `Tracing`."""

    def __init__(self) -> None:
        self._trace = _EndlessTrace()

    def begin(self, call: Call) -> Trace:
        """Return a trace that records nothing."""
        del call
        return self._trace
