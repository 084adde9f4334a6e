"""The values and ports between a line and whoever needs blocks from it."""

from typing import Protocol

import msgspec

from service.model.blocks import CachedBlock
from service.model.origin import Origin


class CallFailed(msgspec.Struct, frozen=True, kw_only=True):
    """A call that did not bring the block, and why.

    `head` is that of a part of the block which the call has stored, b"" for none. `again`: worth another turn; `stop`:
    no other call for the app would do better.
    """

    error: Exception
    head: bytes = b""
    again: bool = False
    stop: bool = False
    pause_s: float = 0.0
    pause_reason: str = ""


class Payer(msgspec.Struct, frozen=True, kw_only=True):
    """Whose turn a call uses: the caller, the first of its requests for the block, and how long that has waited."""

    caller: str
    origin: Origin
    waited_s: float


class HeldSlot(Protocol):
    """A slot that was taken for a call."""

    @property
    def payer(self) -> Payer:
        """Whose turn took it."""
        ...

    async def hold(self) -> None:
        """Confirm the slot; await this right before the call is sent. Raises UpstreamUnreachable if it was lost."""
        ...


class Job(Protocol):
    """One request's need of one block: what it has seen of it, and how the block is fetched."""

    @property
    def block_key(self) -> str:
        """The block's key in Redis, and its name on all replicas."""
        ...

    @property
    def known(self) -> bytes:
        """The head of the value that the request has seen in Redis, b"" for none."""
        ...

    async def call(self, slot: HeldSlot, *, attempt: int) -> CachedBlock | CallFailed:
        """Fetch the block and store it. `attempt` counts from 1. Raises no TaskgateError."""
        ...

    async def look(self) -> CachedBlock:
        """Return what Redis has of the block now. Raises StoreUnavailable."""
        ...

    def accepts(self, found: CachedBlock) -> bool:
        """Whether a block found in Redis answers the request, though it was fetched for another one."""
        ...


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """A block has come. `joined`: by a fetch that another request, perhaps on another replica, has paid for."""

    value: CachedBlock
    waited_s: float
    upstream_s: float
    joined: bool


class TooLong(msgspec.Struct, frozen=True, kw_only=True):
    """The turn would come too late, or has not come in time. `place` counts from 1 in the caller's own line."""

    place: int
    estimate_s: float


class LineIsFull(msgspec.Struct, frozen=True, kw_only=True):
    """The caller has as many blocks waiting as it may."""

    bound: int
    estimate_s: float
