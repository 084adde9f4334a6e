"""The line of one replica for one app: requests wait in it and use the scheduler's turns.

A request only waits. Calls to the scheduler and the upstream run in the line's own tasks, which are never cancelled: a
request that ends early gives up its place without disturbing them.
"""

import asyncio
import math
from collections.abc import Callable

import msgspec
import structlog

from service.budget.line.jobs import Fetched, Job, LineIsFull, TooLong
from service.budget.line.queue import BlockState, Waiter
from service.budget.line.turns import Turns
from service.budget.line.waiters import Waiters
from service.budget.scheduler.interfaces import Board, Scheduler, Ticked, TickRequest, WaitingCount
from service.budget.scheduler.rules import Rules
from service.model.errors import ShuttingDown, StoreUnavailable
from service.model.origin import NOBODY, Origin

log = structlog.get_logger()

HEARTBEAT_S = 0.25
"""The longest time between two ticks while requests wait on this replica; well below the report's lease."""
SPACING_S = 0.005
"""The shortest time between two ticks, however many requests arrive at once."""
AWAY_S = 0.1
"""The delay before the next tick after Redis did not respond."""
AWAY_IDLE_S = 1.0
"""The same delay while nothing waits: detects that Redis is back, and starts the quiet window of a new one."""
LOOKER_S = 1.0
"""How long `look` waits for the scheduler's answer."""
HEARD_S = 1.0
"""How long an ended fetch is remembered: a new request may have looked for the block before it was stored."""
HEARD_MAX = 256
"""The ended fetches to remember."""


def _ignore(caller: str) -> None:
    del caller


class Line:
    """Holds one replica's requests while they wait for turns of one app. Runs from `start` to `aclose`."""

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        app: str,
        rules: Rules,
        redis_grace_s: float = 2.0,
        used: Callable[[str], None] = _ignore,
    ) -> None:
        """`used` is called with the caller of each turn that becomes a call. Must not block or raise."""
        self.last: Ticked | None = None
        self._scheduler = scheduler
        self._app = app
        self._rules = rules
        self._redis_grace_s = redis_grace_s
        self._urgent = asyncio.Event()
        self._tick_soon = self._urgent.set
        self._waiters = Waiters(estimate=self.estimate_s, changed=self._tick_soon)
        self._turns = Turns(scheduler, self._waiters, app=app, rules=rules, tick_soon=self._tick_soon, used=used)
        self.turn_ends = self._turns.ends
        """How this replica's turns ended: counts by caller and TURN_ENDS."""
        self._board: Board | None = None
        self._board_at_s = 0.0
        self._heard_at_s: dict[str, float] = {}
        self._lookers: set[asyncio.Future[Ticked | None]] = set()
        self._ticked_at_s = 0.0
        self._due_at_s: float | None = None
        self._reported = False
        self._away_since_s: float | None = None
        self._closing = False
        self._stopped = False
        self._ticker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start ticking; the first tick starts the quiet window of an app that is new to Redis."""
        self._tick_soon()
        self._ticker = asyncio.create_task(self._tick_on())

    async def fetch(
        self,
        job: Job,
        *,
        caller: str,
        weight: float,
        patience_s: float,
        bound: int,
        origin: Origin = NOBODY,
        background: bool = False,
    ) -> Fetched | TooLong | LineIsFull:
        """Wait for the block and return it. May be cancelled, which gives up the place in line at once.

        Patience (seconds) limits the wait for a turn; a call under way is awaited. `bound` is how many blocks the
        caller may wait for. A `background` request gets a turn only while no other request waits. Raise UpstreamError,
        StoreUnavailable or ShuttingDown.
        """
        if self._closing:
            raise ShuttingDown
        loop = asyncio.get_running_loop()
        queue = self._waiters.queue
        queued = queue.blocks.get(job.block_key)
        if queue.held_by(caller) >= bound and (queued is None or caller not in queued.places):
            return LineIsFull(bound=bound, estimate_s=self.estimate_s(caller, weight, 1, background))
        waiter = Waiter(
            job,
            loop.create_future(),
            caller=caller,
            weight=weight,
            entered_s=loop.time(),
            patience_s=patience_s,
            origin=origin,
            background=background,
        )
        block = self._waiters.enter(waiter)
        is_ticking = self._reported and self._due_at_s is not None and not self.is_cut_off
        if is_ticking and waiter.entered_s - self._board_at_s < HEARTBEAT_S:
            self._waiters.judge(block, waiter, now_s=waiter.entered_s)
        else:
            self._tick_soon()
        if waiter.entered_s - self._heard_at_s.get(job.block_key, -HEARD_S) < HEARD_S:
            self._turns.look_for(block)
        timer = loop.call_at(waiter.deadline_s, self._waiters.expire, block, waiter)
        try:
            return await waiter.future
        finally:
            timer.cancel()
            self._waiters.charge(block, waiter, now_s=loop.time())
            self._waiters.leave(block, waiter)

    def heard(self, block_key: str) -> None:
        """Called when any replica has ended a fetch of the block. Look up the block if a request here waits for it, or
        enters the line soon after a lookup that was too early."""
        self._heard_at_s.pop(block_key, None)
        self._heard_at_s[block_key] = asyncio.get_running_loop().time()
        if len(self._heard_at_s) > HEARD_MAX:
            del self._heard_at_s[next(iter(self._heard_at_s))]
        block = self._waiters.queue.blocks.get(block_key)
        if block is not None:
            self._turns.look_for(block)

    def on_message_gap(self) -> None:
        """After a pub/sub gap, re-read every block that another replica is fetching."""
        for block in tuple(self._waiters.queue.blocks.values()):
            if block.state is BlockState.ELSEWHERE:
                self._turns.look_for(block)

    def wants(self, block_key: str) -> bool:
        """Return whether a request on this replica waits for the block."""
        return block_key in self._waiters.queue.blocks

    async def look(self) -> Ticked | None:
        """Return the app's state with its board, at most HEARTBEAT_S old; None if the scheduler does not respond."""
        loop = asyncio.get_running_loop()
        is_new = loop.time() - self._board_at_s < HEARTBEAT_S and not self.is_cut_off
        if is_new and self.last is not None and self._board is not None:
            return msgspec.structs.replace(self.last, board=self._board)
        looker: asyncio.Future[Ticked | None] = loop.create_future()
        self._lookers.add(looker)
        self._tick_soon()
        try:
            return await asyncio.wait_for(looker, LOOKER_S)
        except TimeoutError:
            return None
        finally:
            self._lookers.discard(looker)

    def waiting(self) -> tuple[WaitingCount, ...]:
        """Return how many blocks each caller waits for on this replica."""
        return self._waiters.queue.report(now_s=asyncio.get_running_loop().time())

    def seen_s(self) -> float:
        """Return the age of `last`, in seconds."""
        return asyncio.get_running_loop().time() - self._ticked_at_s

    def pause_s(self) -> float:
        """Return the remaining time of the upstream's pause according to `last`, in seconds; 0 for none."""
        return 0.0 if self.last is None else max(self.last.pause_in_ms / 1000 - self.seen_s(), 0.0)

    @property
    def is_cut_off(self) -> bool:
        """Return whether the last call to the scheduler failed."""
        return self._away_since_s is not None

    def leave(self) -> None:
        """Reject queued and new requests, since another replica can serve them sooner."""
        self._closing = True
        self._turns.leave()
        self._waiters.fail_waiting(ShuttingDown())
        self._tick_soon()

    async def aclose(self) -> None:
        """Reject waiting requests, let calls in progress finish and give the turns back."""
        self.leave()
        await self._turns.aclose()
        self._stopped = True
        self._tick_soon()
        if self._ticker is not None:
            await self._ticker
        await self._turns.aclose()  # the last tick may have begun a fetch

    def estimate_s(self, caller: str, weight: float, place: int, background: bool = False) -> float:
        """Estimate the wait from now for the caller's `place`-th block, in seconds, from what is known."""
        if self.last is None:
            return 0.0
        since_ms = int((asyncio.get_running_loop().time() - self._ticked_at_s) * 1000)
        due_in_ms = max((self.last.due_in_ms or 0) - since_ms, self.last.pause_in_ms - since_ms, 0)
        board = self._board or Board(virtual=0.0, held_ms=0, ranks=())
        estimate_ms = estimate_wait_ms(
            board,
            caller=caller,
            weight=weight,
            place=place,
            rules=self._rules,
            due_in_ms=due_in_ms,
            background=background,
        )
        return estimate_ms / 1000

    async def _tick_on(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopped:
            try:
                await asyncio.wait_for(self._urgent.wait(), self._next_tick_in_s(loop.time()))
            except TimeoutError:
                pass
            else:
                await asyncio.sleep(max(self._ticked_at_s + SPACING_S - loop.time(), 0))
            self._urgent.clear()
            try:
                await self._tick()
            except Exception:
                log.exception("budget.tick_failed", app=self._app)
                self._tick_soon()
                await asyncio.sleep(AWAY_S)

    def _next_tick_in_s(self, now_s: float) -> float | None:
        """Return the seconds until the next tick is due; None if only an event makes one due."""
        if self._away_since_s is not None:
            return AWAY_S if self._waiters.queue.blocks else AWAY_IDLE_S
        if self._reported or self._turns.returned:
            due_s = self._ticked_at_s + HEARTBEAT_S
            if self._due_at_s is not None:
                due_s = min(due_s, max(self._due_at_s, self._ticked_at_s + SPACING_S))
            return max(due_s - now_s, 0.0)
        return None

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        rows = () if self._closing else self._waiters.queue.report(now_s=loop.time())
        returned = tuple(self._turns.returned)
        lookers = tuple(self._lookers)
        if self.last is not None and not (rows or self._reported or returned or lookers or self.is_cut_off):
            return  # the scheduler knows that this line is empty
        wants_board = bool(lookers) or self._waiters.has_unjudged()
        self._reported = bool(rows)  # set before the answer: new requests rely on it to know if a tick follows
        try:
            ticked = await self._ask(rows, returned=returned, wants_board=wants_board)
        except StoreUnavailable as exc:
            self._lost_redis(exc)
            _answer(lookers, None)
            return
        now_s = loop.time()
        if self._away_since_s is not None:
            log.info("budget.redis_back", app=self._app, away_s=round(now_s - self._away_since_s, 1))
        self._away_since_s = None
        pause_grew = ticked.pause_in_ms > 0 and (self.last is None or self.last.pause_in_ms == 0)
        self.last, self._ticked_at_s = ticked, now_s
        self._due_at_s = None if ticked.due_in_ms is None else now_s + ticked.due_in_ms / 1000
        if ticked.begun is not None and sum(row.count for row in rows) == 1:
            self._reported = False
        _answer(lookers, ticked)
        self._turns.grant(ticked.begun)
        self._turns.take_all(ticked.turns)
        del self._turns.returned[: len(returned)]
        if ticked.board is not None:
            self._board, self._board_at_s = ticked.board, now_s
        if ticked.board is not None or pause_grew:
            self._waiters.judge_all(now_s=now_s, again=pause_grew)

    async def _ask(self, rows: tuple[WaitingCount, ...], *, returned: tuple[int, ...], wants_board: bool) -> Ticked:
        wish = self._turns.wish() if rows else None
        request = TickRequest(waiting=rows, returned=returned, wants_board=wants_board, wish=wish)
        try:
            return await self._scheduler.tick(request)
        except BaseException:
            self._turns.lose_wish()
            raise

    def _lost_redis(self, error: StoreUnavailable) -> None:
        """Wait out a short outage of Redis; after that, fail the waiting requests, since no wait can be predicted."""
        now_s = asyncio.get_running_loop().time()
        self._ticked_at_s = now_s
        if self._away_since_s is None:
            self._away_since_s = now_s
            log.warning("budget.redis_away", app=self._app, detail=error.detail)
        if now_s - self._away_since_s >= self._redis_grace_s:
            self._waiters.fail_waiting(error)


def estimate_wait_ms(
    board: Board,
    *,
    caller: str,
    weight: float,
    place: int,
    rules: Rules,
    due_in_ms: int | None,
    background: bool = False,
) -> int:
    """Return how long the `place`-th block (from 1) of `caller` waits for its turn, in milliseconds.

    Every other caller gets the turns whose tags precede this one's, as long as it has blocks waiting; background
    callers come last. Turns come at the budget's pace. Accurate to within one cycle or a fifth, whichever is more, as
    long as no caller joins or leaves.
    """
    tag = next((rank.tag for rank in board.ranks if rank.caller == caller), board.virtual)
    target = tag + (place - 1) / weight
    before = place - 1
    for rank in board.ranks:
        if rank.caller == caller or (rank.background and not background):
            continue
        if background and not rank.background:
            before += rank.count
        elif rank.tag <= target:
            before += min(rank.count, math.floor((target - rank.tag) * rank.weight) + 1)
    cycle_ms = rules.rest_ms + board.held_ms
    return (due_in_ms or 0) + before * cycle_ms // rules.calls


def _answer(lookers: tuple["asyncio.Future[Ticked | None]", ...], ticked: Ticked | None) -> None:
    for looker in lookers:
        if not looker.done():
            looker.set_result(ticked)
