"""Faults on demand: what goes wrong, for which calls, and how long the network takes in each direction."""

import random
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

FAULTS_MAX = 100
Milliseconds = Annotated[float, Meta(ge=0, le=600_000)]
PositiveCount = Annotated[int, Meta(ge=1, le=1_000_000_000)]
SandboxCall = Literal["list", "get"]
"""The upstream's calls: `list_sched_task` and `get_sched_task`."""
GarbageKind = Literal["bytes", "html", "empty", "array", "no_code", "no_tasks", "wrong_types"]


class _Fault(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind"
):
    """Which calls are affected: those of one app or all, of one kind or all, every k-th or a share of them, and at most
    `calls` of them.

    Without any of these, all calls are affected until the faults are cleared.
    """

    sdkappid: int | None = None
    call: SandboxCall | None = None
    calls: PositiveCount | None = None
    every: PositiveCount | None = None
    share: Annotated[float, Meta(gt=0, le=1)] | None = None

    def __post_init__(self) -> None:
        if self.every is not None and self.share is not None:
            raise ValueError("`every` and `share` exclude each other")


class Latency(_Fault, frozen=True, kw_only=True, tag="latency"):
    """Network delay: `there` before the call arrives and is counted, `back` after. Each spreads uniformly upwards."""

    there_ms: Milliseconds = 0
    there_spread_ms: Milliseconds = 0
    back_ms: Milliseconds = 0
    back_spread_ms: Milliseconds = 0


class ErrorCode(_Fault, frozen=True, kw_only=True, tag="code"):
    """Answer with this code, as the upstream itself refuses: HTTP status 200."""

    code: Annotated[int, Meta(ge=1, le=999_999)]
    text: Annotated[str, Meta(max_length=10_000)] = "injected by a fault"


class HttpStatus(_Fault, frozen=True, kw_only=True, tag="status"):
    """Answer with this HTTP status and a page of HTML, as a proxy in front of the upstream would."""

    status: Annotated[int, Meta(ge=300, le=599)] = 502


class HangUp(_Fault, frozen=True, kw_only=True, tag="hang_up"):
    """Close the connection without an answer; `counted` false: the call is lost on its way. `reset` sends an RST."""

    counted: bool = True
    reset: bool = False


class Hang(_Fault, frozen=True, kw_only=True, tag="hang"):
    """Never answer; hang up after `hold_ms`."""

    hold_ms: Milliseconds = 60_000


class Garbage(_Fault, frozen=True, kw_only=True, tag="garbage"):
    """Answer with status 200 and something that is not JSON, not an object, or lacks what the page promises.

    `no_tasks` lacks the list of tasks, or the task's id.
    """

    of: GarbageKind = "bytes"


class CutOff(_Fault, frozen=True, kw_only=True, tag="cut_off"):
    """Send this share of the real answer's body, then close; `declared` keeps the whole length in the header."""

    keep: Annotated[float, Meta(ge=0, lt=1)] = 0.5
    declared: bool = True


class Oversize(_Fault, frozen=True, kw_only=True, tag="oversize"):
    """Answer with valid JSON of this many bytes; `declared` false omits the length and closes at the end."""

    bytes: Annotated[int, Meta(ge=100, le=1_000_000_000)] = 64 * 1024 * 1024
    declared: bool = True


SandboxFault = Latency | ErrorCode | HttpStatus | HangUp | Hang | Garbage | CutOff | Oversize
Ending = ErrorCode | HttpStatus | HangUp | Hang | Garbage | CutOff | Oversize


class Injection(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to one call: the delays in milliseconds, and how it ends (None: normally)."""

    there_ms: float = 0
    back_ms: float = 0
    ending: Ending | None = None


class _Armed:
    """A fault with its state so far."""

    def __init__(self, fault: SandboxFault) -> None:
        self.fault = fault
        self.seen = 0
        self.applied = 0

    @property
    def spent(self) -> bool:
        return self.fault.calls is not None and self.applied >= self.fault.calls

    def applies_to(self, sdkappid: int, call: SandboxCall, rng: random.Random) -> bool:
        fault = self.fault
        if self.spent or fault.sdkappid not in (None, sdkappid) or fault.call not in (None, call):
            return False
        self.seen += 1
        hit = (fault.every is None or self.seen % fault.every == 0) and (
            fault.share is None or rng.random() < fault.share
        )
        self.applied += hit
        return hit


class Faults:
    """The armed faults, oldest first. Latencies add up; of the endings, the oldest that applies decides."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._armed: list[_Armed] = []

    @property
    def armed(self) -> tuple[SandboxFault, ...]:
        """Return the faults that can still apply."""
        return tuple(armed.fault for armed in self._armed if not armed.spent)

    def add(self, fault: SandboxFault) -> None:
        """Arm a fault. Raise ValueError if too many are armed already."""
        self._armed = [armed for armed in self._armed if not armed.spent]
        if len(self._armed) >= FAULTS_MAX:
            raise ValueError(f"at most {FAULTS_MAX} faults can be armed")
        self._armed.append(_Armed(fault))

    def clear(self) -> None:
        """Disarm all faults."""
        self._armed.clear()

    def inject(self, sdkappid: int, call: SandboxCall = "list") -> Injection:
        """Decide what happens to the next such call of this app."""
        there_ms = back_ms = 0.0
        ending: Ending | None = None
        for armed in self._armed:
            fault = armed.fault
            if not isinstance(fault, Latency) and ending is not None:
                continue  # a fault for the next n calls is not used up by a call that has ended otherwise
            if not armed.applies_to(sdkappid, call, self._rng):
                continue
            if isinstance(fault, Latency):
                there_ms += fault.there_ms + self._rng.random() * fault.there_spread_ms
                back_ms += fault.back_ms + self._rng.random() * fault.back_spread_ms
            else:
                ending = fault
        return Injection(there_ms=there_ms, back_ms=back_ms, ending=ending)
