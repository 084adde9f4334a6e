"""The scheduler that all replicas share: the script in script/, run through the store's port."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from service.budget.scheduler.interfaces import (
    AlreadyStored,
    Beginning,
    Begun,
    Board,
    Joined,
    Lapsed,
    Paused,
    Rank,
    Ticked,
    TickRequest,
    Turn,
    WaitingCount,
    Wish,
)
from service.budget.scheduler.report_changes import ReportChanges
from service.budget.scheduler.rules import LARGEST, Rules
from service.budget.scheduler.runs import ScriptRuns
from service.budget.scheduler.server_clock import ServerClock, any_chance, monotonic_ms
from service.model.blocks import HEAD_BYTES
from service.model.calls import CallKind, budget_name
from service.model.errors import StoreUnavailable
from service.store.interfaces import Store

PARTS = ("state", "callers", "reports", "slots", "clock", "give", "steps")
SOURCE = "\n".join((Path(__file__).parent / "script" / f"{name}.lua").read_text(encoding="utf-8") for name in PARTS)
"""The script is one chunk of Lua: what a part defines, all later ones use."""
FORMAT = 3
"""The version of the state in Redis; the same as in script/state.lua."""
KEYS = ("slots", "tags", "reports", "flights", "shares", "order")
"""The suffixes of the script's keys, in its order."""
RESENDS = 3
"""How often per tick the script may request the whole report."""
T = TypeVar("T")

log = structlog.get_logger()


class _Reply(msgspec.Struct, array_like=True):
    epoch: int
    now_ms: int
    answer: msgspec.Raw
    cause: str


class _Board(msgspec.Struct, array_like=True):
    virtual: float
    held_ms: int
    ranks: list[tuple[str, int, float, float, int, bool]]


class _Begun(msgspec.Struct, array_like=True):
    kind: str
    in_ms: int = 0
    text: str = ""


class _Ticked(msgspec.Struct, array_like=True):
    turns: list[tuple[int, str, int]]
    due_in_ms: int
    free: int
    pause_in_ms: int
    pause_reason: str
    begun: _Begun
    board: _Board | None = None


WaitMs = Callable[[int], int]
"""Shortens the waits in an answer; see `ServerClock.wait_ms`."""


class RedisScheduler:
    """The turns for one kind of an app's calls, given out in Redis to all replicas.

    Methods raise StoreUnavailable if Redis cannot be reached. `clock_ms` is a monotonic clock, `chance` returns random
    numbers of 1 to 2**31. `server_ms` is only for tests and replaces the server's clock. `resets` counts how often this
    replica has found that Redis had lost, or never had, the state of the app, and so began with a quiet window. `runs`
    runs the script.
    """

    def __init__(
        self,
        store: Store,
        *,
        prefix: str,
        app: str,
        kind: CallKind = CallKind.LIST,
        replica: str,
        rules: Rules,
        clock_ms: Callable[[], float] = monotonic_ms,
        chance: Callable[[], int] = any_chance,
        server_ms: Callable[[], int] | None = None,
    ) -> None:
        self.resets = 0
        self._has_answered = False
        self.runs = ScriptRuns(store, SOURCE, format_=FORMAT)
        self._app = budget_name(app, kind)
        base = f"{prefix}:{{{app}}}:{kind.key_part}"
        self.channel = f"{base}done"
        self._keys = tuple(f"{base}{name}" for name in KEYS)
        self._replica = replica
        self._clock_ms = clock_ms
        self._chance = chance
        self._server_ms = server_ms or (lambda: -1)
        self._server_clock = ServerClock()
        self._changes = ReportChanges()
        self._callers: dict[int, str] = {}
        self._rules = rules

    async def tick(self, request: TickRequest) -> Ticked:
        """See `Scheduler.tick`. A wish's block must have the same hash tag as the scheduler's own keys."""
        now_ms, chance = self._clock_ms(), self._chance()
        waiting, wish = request.waiting, request.wish
        count = sum(row.count for row in waiting)
        urgent = sum(row.count for row in waiting if not row.background)
        asked = (request.returned, request.quiet, request.wants_board, count, urgent)
        packed_wish = None if wish is None else _packed(wish, waiting)
        whole = False
        for _ in range(RESENDS):
            changes = self._changes.changes(waiting, now_ms=now_ms, whole=whole)
            rows = [(row.caller, row.weight, row.count, row.waited_ms, row.background) for row in changes.rows]
            try:
                answered = await self._call(
                    "tick",
                    (*asked, changes.whole, changes.number, changes.base, packed_wish),
                    _Ticked,
                    packed=msgspec.msgpack.encode(rows),
                    block_key="" if wish is None else wish.block,
                    now_ms=now_ms,
                    chance=chance,
                )
                begun = None if answered is None else _begun(answered[0].begun, answered[1])
            except StoreUnavailable:
                self._changes.failed()
                raise
            if answered is not None:
                break
            whole = True
        else:
            raise StoreUnavailable("script refused")
        answer, wait_ms = answered
        self._changes.answered(taken=wish.caller if wish and begun else None)
        self._callers = {turn: caller for turn, caller, _ in answer.turns}
        return Ticked(
            turns=tuple(Turn(id=turn, caller=caller, usable_in_ms=in_ms) for turn, caller, in_ms in answer.turns),
            due_in_ms=None if answer.due_in_ms < 0 else wait_ms(answer.due_in_ms),
            free=answer.free,
            pause_in_ms=answer.pause_in_ms,
            pause_reason=answer.pause_reason,
            board=None if answer.board is None else _board(answer.board),
            begun=begun,
        )

    async def begin(self, turn: int, *, block: str, known: bytes) -> Beginning:
        """See `Scheduler.begin`. `block` must have the same hash tag as the scheduler's own keys."""
        if turn in self._callers:
            self._changes.uncertain((self._callers[turn],))
        args = (turn, block, known[:HEAD_BYTES].hex(), HEAD_BYTES)
        return _beginning(*await self._asked("begin", args, _Begun, block_key=block))

    async def done(
        self, turn: int, *, block: str, pause_ms: int, pause_reason: str, took_ms: int | None = None
    ) -> None:
        """See `Scheduler.done`. The block's name is published on `channel`."""
        args = (turn, block, pause_ms, pause_reason, LARGEST if took_ms is None else took_ms)
        await self._asked("done", args, list[int])

    async def _asked(
        self, op: str, args: tuple[object, ...], shape: type[T], *, block_key: str = ""
    ) -> tuple[T, WaitMs]:
        now_ms, chance = self._clock_ms(), self._chance()
        answered = await self._call(op, args, shape, block_key=block_key, now_ms=now_ms, chance=chance)
        if answered is None:
            raise StoreUnavailable("broken answer")
        return answered

    async def _call(
        self,
        op: str,
        args: tuple[object, ...],
        shape: type[T],
        *,
        packed: bytes = b"",
        block_key: str = "",
        now_ms: float,
        chance: int,
    ) -> tuple[T, WaitMs] | None:
        """Return the answer, or None if the script only requested the whole report."""
        epoch, seen_ms = self._server_clock.read(now_ms)
        call = (op, self._packed_rules(), self._replica, epoch, seen_ms, chance, self._server_ms(), args)
        keys = (*self._keys, block_key) if block_key else self._keys
        packed_reply, *rest = await self.runs(keys, (msgspec.msgpack.encode(call), packed))
        if not isinstance(packed_reply, bytes):
            raise StoreUnavailable("broken answer")
        if packed_reply == b"resend":
            self._note_reset(rest[0].decode(errors="replace") if rest and isinstance(rest[0], bytes) else "")
            return None
        try:
            reply = msgspec.msgpack.decode(packed_reply, type=_Reply)
            answer = msgspec.msgpack.decode(reply.answer, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise StoreUnavailable("broken answer") from exc
        arrived_ms = self._clock_ms()
        self._server_clock.answered(reply.epoch, reply.now_ms, sent_ms=now_ms, now_ms=arrived_ms)
        self._note_reset(reply.cause)
        window_ms = self._rules.window_ms
        wait_ms = partial(self._server_clock.wait_ms, since_ms=reply.now_ms, within_ms=window_ms, now_ms=arrived_ms)
        return answer, wait_ms

    def _packed_rules(self) -> tuple[object, ...]:
        rules = self._rules
        return (
            rules.calls,
            rules.window_ms,
            rules.transit_ms,
            rules.turn_lease_ms,
            rules.fetch_lease_ms,
            rules.report_lease_ms,
            rules.ahead_for(self._server_clock.round_trip_ms),
            rules.ahead_max_ms,
            rules.clock_step_ms,
            rules.gap_ms,
            self.channel,
        )

    def _note_reset(self, cause: str) -> None:
        is_first, self._has_answered = not self._has_answered, True
        if cause:
            self.resets += 1
            # An app has no state before its first start; a later reset means that Redis has lost it.
            tell = log.info if is_first and cause == "new" else log.warning
            tell("budget.reset", app=self._app, cause=cause[:200])


def _packed(wish: Wish, waiting: tuple[WaitingCount, ...]) -> tuple[object, ...]:
    background = any(row.background for row in waiting if row.caller == wish.caller)
    return (wish.turn, wish.caller, wish.block, wish.known[:HEAD_BYTES].hex(), HEAD_BYTES, background, wish.in_use)


def _begun(answer: _Begun, wait_ms: WaitMs) -> Begun | Joined | AlreadyStored | None:
    """Return what a tick has answered to its wish."""
    beginning = _beginning(answer, wait_ms)
    return beginning if isinstance(beginning, (Begun, Joined, AlreadyStored)) else None


def _beginning(answer: _Begun, wait_ms: WaitMs) -> Beginning:
    match answer.kind:
        case "begun":
            return Begun(usable_in_ms=wait_ms(answer.in_ms))
        case "joined":
            return Joined(lease_in_ms=answer.in_ms)
        case "stored":
            return AlreadyStored(head=_head_of(answer.text))
        case "paused":
            return Paused()
        case _:
            return Lapsed()


def _head_of(digits: str) -> bytes:
    """Return the bytes that these hexadecimal digits encode. Raise StoreUnavailable if they are invalid."""
    try:
        return bytes.fromhex(digits)
    except ValueError as exc:
        raise StoreUnavailable("broken answer") from exc


def _board(board: _Board) -> Board:
    ranks = tuple(
        Rank(caller=caller, count=count, tag=tag, weight=weight, waited_ms=waited_ms, background=background)
        for caller, count, tag, weight, waited_ms, background in board.ranks
    )
    return Board(virtual=board.virtual, held_ms=board.held_ms, ranks=ranks)
