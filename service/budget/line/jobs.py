"""The values and ports between a line and the code that fetches blocks through it."""

from typing import Protocol

import msgspec

from service.model.blocks import CachedBlock
from service.model.origin import Payer


class CallFailed(msgspec.Struct, frozen=True, kw_only=True):
    """A call that did not yield the block, and why.

    `head` is the head of the part of the block that the call stored, b"" for none. `again` means that another turn is
    worthwhile, `stop` that no other call for the app would succeed.
    """

    error: Exception
    head: bytes = b""
    again: bool = False
    stop: bool = False
    pause_s: float = 0.0
    pause_reason: str = ""


class HeldSlot(Protocol):
    """A slot taken for a call."""

    @property
    def payer(self) -> Payer:
        """The payer whose turn took the slot."""
        ...

    async def hold(self) -> None:
        """Confirm the slot; await this right before sending the call. Raise UpstreamUnreachable if it was lost."""
        ...


class Job(Protocol):
    """One request for one block: the version it has seen, and how to fetch the block."""

    @property
    def block_key(self) -> str:
        """The block's key in Redis, which identifies it on all replicas."""
        ...

    @property
    def known(self) -> bytes:
        """The head of the value that the request has seen in Redis, b"" for none."""
        ...

    async def call(self, slot: HeldSlot, *, attempt: int) -> CachedBlock | CallFailed:
        """Fetch the block. `attempt` counts from 1. Does not raise TaskgateError."""
        ...

    async def keep(self) -> None:
        """Store the fetched block for other replicas. Called once after a call that yielded it, when the requests here
        have been served, and before other replicas learn that the fetch has ended. Does not raise TaskgateError."""
        ...

    async def look(self) -> CachedBlock:
        """Return the block as Redis has it now. Raise StoreUnavailable."""
        ...

    def accepts(self, found: CachedBlock) -> bool:
        """Return whether a block found in Redis answers this request, although it was fetched for another one."""
        ...


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """A block has arrived. `joined`: from a fetch paid for by another request, perhaps on another replica."""

    value: CachedBlock
    joined: bool


class TooLong(msgspec.Struct, frozen=True, kw_only=True):
    """The turn would come, or has come, too late. `place` counts from 1 in the caller's own line."""

    place: int
    estimate_s: float


class LineIsFull(msgspec.Struct, frozen=True, kw_only=True):
    """The caller already has the maximum number of blocks waiting."""

    bound: int
    estimate_s: float
