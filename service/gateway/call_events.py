"""What those who watch are told of upstream calls: how each ended, and before it begins where it may be traced."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from service.budget.line.jobs import Payer


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A call that is about to be made, in the payer's turn. `attempt` counts from 1."""

    app: str
    payer: Payer
    attempt: int


class CallEnd(msgspec.Struct, frozen=True, kw_only=True):
    """A call that has ended.

    `result` is one of `upstream.results.RESULTS`, `code` the upstream's error code, if it gave one. `took_s` counts
    from the search for a connection; `sent_at_s` (loop time) is when its first byte could be written, None where the
    call never reached the upstream.
    """

    call: Call
    result: str
    code: int | None
    took_s: float
    sent_at_s: float | None


OnCall = Callable[[CallEnd], None]
"""Told of every call when it has ended; must neither block nor raise."""


class Trace(Protocol):
    """The trace of one call."""

    @property
    def traceparent(self) -> str:
        """What to send with the call, in the form of W3C Trace Context; empty for nothing."""
        ...

    def end(self, end: CallEnd) -> None:
        """The call has ended."""
        ...


class Tracing(Protocol):
    """Traces calls. Must neither block nor raise."""

    def begin(self, call: Call) -> Trace:
        """A call is about to be made."""
        ...


class _NoTrace:
    traceparent = ""

    def end(self, end: CallEnd) -> None:
        """Nobody wants to know."""


class Untraced:
    """Implements `Tracing` where nothing is traced."""

    def __init__(self) -> None:
        self._trace = _NoTrace()

    def begin(self, call: Call) -> Trace:
        """Nothing."""
        del call
        return self._trace
