"""The interface through which the client reports the steps of a call."""

from typing import Protocol

TraceFields = tuple[tuple[str, str], ...]
"""Header fields, by name and value."""


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


class NoTrace:
    """A no-op implementation of `CallTrace`."""

    fields: TraceFields = ()

    def sends(self, method: str, url: str) -> None:
        """Do nothing."""

    def answered(self, status: int) -> None:
        """Do nothing."""


NO_TRACE = NoTrace()
