"""What crosses the border between a line and those who want blocks of it."""

from typing import Generic, Protocol, TypeVar

import msgspec

from service.model.origin import Origin

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class CallFailed(msgspec.Struct, frozen=True, kw_only=True):
    """A call that brought nothing. `again`: worth another turn. `stop`: no other call for the app would do better."""

    error: Exception
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
        """To be awaited right before the call is sent. Raises UpstreamUnreachable where the slot was lost meanwhile."""
        ...


class Job(Protocol[T_co]):
    """What a line has to know of a block, and how it is fetched."""

    @property
    def block_key(self) -> str:
        """The block's key in Redis, and its name on all replicas."""
        ...

    @property
    def known(self) -> bytes:
        """The head of the stored value that the request has seen and does not want."""
        ...

    async def call(self, slot: HeldSlot, *, attempt: int) -> T_co | CallFailed:
        """Fetch the block and keep it. `attempt` counts from 1. Raises no TaskgateError."""
        ...

    async def look(self) -> T_co | None:
        """The block as it is stored now, None where that is nothing new. Raises StoreUnavailable."""
        ...


class Fetched(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A block has come. `joined`: by a fetch that another request, perhaps on another replica, has paid for."""

    value: T
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
