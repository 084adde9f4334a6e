"""The guarantees of every scheduler: the same tests on the policy alone and on the script in a real Valkey."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest
import redis

from service.budget.scheduler.interfaces import (
    FIRST_WISH,
    AlreadyStored,
    Begun,
    Joined,
    Lapsed,
    Paused,
    Rules,
    Scheduler,
    Ticked,
    Turn,
    Wish,
)
from service.budget.scheduler.policy import Policy
from service.budget.scheduler.shared import RedisScheduler
from service.model.errors import StoreUnavailable
from tests.contract.scheduler_world import RULES, StoreHere, World, row, server
from tests.servers import BINARIES

REST = RULES.rest_ms
QUIET = RULES.longest_ms
TAKEN = RULES.transit_ms + REST
KEY = "tg:{news}:block"


@pytest.fixture(scope="module")
def servers() -> Iterator[Callable[[str], redis.Redis]]:
    """Each available server, started on first use."""
    with ExitStack() as stack:
        yield cache(lambda name: stack.enter_context(server(BINARIES[name])))


@pytest.fixture
def client(servers: Callable[[str], redis.Redis]) -> redis.Redis:
    return servers("valkey")


@pytest.fixture(params=["local", *BINARIES])
def world(request: pytest.FixtureRequest, servers: Callable[[str], redis.Redis]) -> World:
    return World(None if request.param == "local" else servers(request.param))


async def tick(
    replica: Scheduler,
    *rows: object,
    returned: tuple[int, ...] = (),
    quiet: bool = False,
    board: bool = False,
    wish: Wish | None = None,
) -> Ticked:
    return await replica.tick(rows, returned=returned, quiet=quiet, wants_board=board, wish=wish)  # type: ignore[arg-type]


def wish(
    caller: str = "a", block: str = "b", *, number: int = 1, known: bytes = b"", in_use: tuple[int, ...] = ()
) -> Wish:
    return Wish(turn=FIRST_WISH + number, in_use=in_use, caller=caller, block=block, block_key=KEY, known=known)


async def begin(replica: Scheduler, turn: Turn, block: str = "b", *, known: bytes = b"") -> object:
    return await replica.begin(turn.id, block=block, block_key=KEY, known=known)


async def done(
    replica: Scheduler,
    turn: Turn,
    block: str = "b",
    *,
    pause_ms: int = 0,
    reason: str = "",
    took_ms: int | None = None,
) -> None:
    await replica.done(turn.id, block=block, pause_ms=pause_ms, pause_reason=reason, took_ms=took_ms)


async def awake(world: World, name: str = "r1") -> Scheduler:
    """A replica whose app's first quiet window has passed."""
    replica = world.replica(name)
    await tick(replica)
    world.now += QUIET
    return replica


async def test_all_slots_start_taken_for_transit_and_window(world: World) -> None:
    """No turn can be used until a call made before the start has been counted and a window has passed."""
    replica = world.replica("r1")
    first = await tick(replica, row("a"))
    assert (first.turns, first.free, first.due_in_ms) == ((), 0, QUIET - RULES.ahead_ms)
    world.now += first.due_in_ms or 0
    (turn,) = (await tick(replica, row("a"))).turns
    assert turn.usable_in_ms == RULES.ahead_ms
    assert await begin(replica, turn) == Begun(usable_in_ms=RULES.ahead_ms)


async def test_a_burst_gets_all_free_slots_at_once(world: World) -> None:
    """A burst of N from idle is not spaced: N waiting blocks get turns at once if N slots are free."""
    replica = await awake(world)
    ticked = await tick(replica, row("a"), row("b"))
    assert [turn.usable_in_ms for turn in ticked.turns] == [0, 0]
    assert ticked.due_in_ms is None


async def test_a_backlog_is_spaced(world: World) -> None:
    """If more blocks wait than slots are free, the second turn comes a gap after the first."""
    replica = await awake(world)
    ticked = await tick(replica, row("a", 9))
    assert len(ticked.turns) == 1
    assert ticked.due_in_ms == RULES.gap_ms - RULES.ahead_ms
    await begin(replica, ticked.turns[0])
    world.now += ticked.due_in_ms - 1
    assert (await tick(replica, row("a", 9))).turns == ()
    world.now += 1
    assert [turn.usable_in_ms for turn in (await tick(replica, row("a", 9))).turns] == [RULES.ahead_ms]


async def test_a_slot_is_free_a_window_after_the_answer(world: World) -> None:
    """`done` frees the slot one window later, and not a millisecond earlier."""
    replica = await awake(world)
    for turn in (await tick(replica, row("a", 2))).turns:
        await begin(replica, turn, f"b{turn.id}")
        world.now += 50
        await done(replica, turn, f"b{turn.id}")
    world.now += REST - 51
    assert (await tick(replica)).free == 0
    world.now += 1
    assert (await tick(replica)).free == 1
    world.now += 50
    assert (await tick(replica)).free == 2


async def test_a_call_without_an_answer_holds_its_slot_for_transit_and_window(world: World) -> None:
    """A late `done` neither prolongs nor shortens what transit bounds."""
    replica = await awake(world)
    first, second = (await tick(replica, row("a", 2))).turns
    await begin(replica, first, "b1")
    await begin(replica, second, "b2")
    world.now += RULES.transit_ms + 100
    await done(replica, first, "b1")
    world.now += REST - 101
    assert (await tick(replica)).free == 0
    world.now += 1
    assert (await tick(replica)).free == 2


async def test_a_late_done_does_not_affect_the_next_turn_of_its_slot(world: World) -> None:
    """A hung fetch that ends late ends its flight, but not the next turn of its slot."""
    replica = await awake(world)
    old = (await tick(replica, row("a", 2))).turns
    for turn in old:
        await begin(replica, turn, f"b{turn.id}")
    world.now += QUIET
    new = (await tick(replica, row("a", 2))).turns
    assert [turn.id for turn in new] != [turn.id for turn in old]
    await done(replica, old[0], f"b{old[0].id}")
    assert (await tick(replica, row("a", 2))).turns == new
    assert await begin(replica, new[0], f"b{old[0].id}") == Begun()
    assert isinstance(await begin(replica, new[1], f"b{old[1].id}"), Joined)


async def test_unused_turns_are_listed_in_every_tick(world: World) -> None:
    """Every tick lists all of the replica's unused turns."""
    replica = await awake(world)
    lost = await tick(replica, row("a"))
    assert (await tick(replica, row("a"))).turns == lost.turns


async def test_a_repeated_begin_renews_the_slot(world: World) -> None:
    """When a begin is repeated, the same turn and block are begun again, from that moment on."""
    replica = await awake(world)
    (turn,) = (await tick(replica, row("a"))).turns
    assert await begin(replica, turn) == Begun()
    world.now += 150
    assert await begin(replica, turn) == Begun()
    assert await begin(replica, turn, "another") == Lapsed()
    world.now += TAKEN - 1
    assert (await tick(replica)).free == 1
    world.now += 1
    assert (await tick(replica)).free == 2


async def test_a_begin_that_arrives_after_its_done_lapses(world: World) -> None:
    """A late copy of a begin leaves no flight behind."""
    replica = await awake(world)
    (turn,) = (await tick(replica, row("a"))).turns
    await begin(replica, turn)
    await done(replica, turn)
    assert await begin(replica, turn) == Lapsed()
    (turn,) = (await tick(replica, row("a"))).turns
    assert await begin(replica, turn) == Begun()


async def test_an_unused_turn_lapses_and_its_slot_is_free(world: World) -> None:
    """A dead replica's turn costs the turn's lease and no more, and the caller is refunded."""
    dead, other = await awake(world), world.replica("r2")
    (turn,) = (await tick(dead, row("a"))).turns
    await tick(other, row("b"))
    world.now += RULES.turn_lease_ms - 1
    assert (await tick(other)).free == 0
    world.now += 1
    ticked = await tick(other, board=True)
    assert ticked.free == 1
    assert await begin(dead, turn) == Lapsed()


async def test_a_dead_replica_is_not_given_turns(world: World) -> None:
    """A report counts for its lease and no longer."""
    dead, other = await awake(world), world.replica("r2")
    await tick(dead, row("a", 5))
    await tick(other)
    world.now += RULES.report_lease_ms - 1
    ranks = (await tick(other, board=True)).board
    assert ranks is not None
    assert [rank.caller for rank in ranks.ranks] == ["a"]
    world.now += 1
    ranks = (await tick(other, board=True)).board
    assert ranks is not None
    assert ranks.ranks == ()


async def test_one_fetch_for_a_block(world: World) -> None:
    """A second begin joins, is refunded, and its slot is free at once for another block."""
    one, two = await awake(world), world.replica("r2")
    (first,) = (await tick(one, row("a"))).turns
    (second,) = (await tick(two, row("b"))).turns
    assert await begin(one, first) == Begun()
    world.now += 10
    assert await begin(two, second) == Joined(lease_in_ms=RULES.fetch_lease_ms - 10)
    ticked = await tick(two, row("b"))
    (third,) = ticked.turns
    assert third.usable_in_ms == 0
    assert await begin(two, third, "c") == Begun()


async def test_an_abandoned_fetch_ends_with_its_lease(world: World) -> None:
    """After the fetch's lease another replica may fetch the block."""
    one = await awake(world)
    (first,) = (await tick(one, row("a"))).turns
    await begin(one, first)
    world.now += RULES.fetch_lease_ms
    (second,) = (await tick(one, row("a"))).turns
    assert await begin(one, second) == Begun()
    assert isinstance(await begin(one, first), Lapsed | Joined)


async def test_a_changed_block_is_read_again(world: World) -> None:
    """Begin compares the head of the stored block with the one known to the replica."""
    replica = await awake(world)
    (turn,) = (await tick(replica, row("a"))).turns
    world.put(KEY, b"0123456789abcdef and what follows")
    assert await begin(replica, turn) == AlreadyStored(head=b"0123456789abcdef")
    (turn,) = (await tick(replica, row("a"))).turns
    assert await begin(replica, turn, known=b"0123456789abcdef or whatever") == Begun()


async def test_a_lost_block_is_fetched(world: World) -> None:
    """A block that the replica has seen and the store has lost is no reason to look again: there is nothing to find."""
    replica = await awake(world)
    world.put(KEY, b"0123456789abcdef and what follows")
    world.lose(KEY)
    (turn,) = (await tick(replica, row("a"))).turns
    assert await begin(replica, turn, known=b"0123456789abcdef") == Begun()


async def test_the_head_that_begin_returns_lets_the_next_one_begin(world: World) -> None:
    """Any stored value, even an unreadable one, is reason to look once."""
    replica = await awake(world)
    for head in (b"\x00\xff\x80'%d\r\n\x7f234567", b"short", bytes(range(240, 256))):
        world.put(KEY, head + b" and the rest" * (len(head) == 16))
        (turn,) = (await tick(replica, row("a"))).turns
        assert await begin(replica, turn, known=b"another") == AlreadyStored(head=head)
        (turn,) = (await tick(replica, row("a"))).turns
        assert await begin(replica, turn, known=head) == Begun()
        await done(replica, turn)
        world.now += REST


async def test_a_value_of_another_type_counts_as_absent(world: World) -> None:
    """A value of another type counts as absent; the fetch replaces it with a block."""
    replica = await awake(world)
    world.garble(KEY)
    (turn,) = (await tick(replica, row("a"))).turns
    assert await begin(replica, turn) == Begun()


async def test_a_pause_stops_all_callers_and_is_not_shortened(world: World) -> None:
    """A turn held is refunded, none is given until the pause ends, and every replica gets the reason."""
    one, two = await awake(world), world.replica("r2")
    (first,) = (await tick(one, row("a"))).turns
    (second,) = (await tick(two, row("b"))).turns
    await begin(one, first)
    await done(one, first, pause_ms=3000, reason="60007")
    await done(one, first, pause_ms=100, reason="other")
    assert await begin(two, second, "c") == Paused(pause_in_ms=3000, reason="60007")
    world.now += 2000
    ticked = await tick(two, row("b"))
    assert (ticked.turns, ticked.pause_in_ms, ticked.pause_reason) == ((), 1000, "60007")
    assert ticked.due_in_ms == 1000 - RULES.ahead_ms
    world.now += 1000
    ticked = await tick(two, row("b"))
    assert [turn.usable_in_ms for turn in ticked.turns] == [0]
    assert (ticked.pause_in_ms, ticked.pause_reason) == (0, "")


async def test_a_returned_turn_is_refunded_and_passed_on(world: World) -> None:
    """A returned turn goes to the next in line, in the same tick."""
    one, two = await awake(world), world.replica("r2")
    turns = (await tick(one, row("a", 2))).turns
    assert (await tick(two, row("b"))).turns == ()
    await tick(one, returned=(turns[0].id,))
    (turn,) = (await tick(two, row("b"))).turns
    assert turn.caller == "b"
    assert await begin(one, turns[0]) == Lapsed()


async def test_a_replica_can_use_only_its_own_turns(world: World) -> None:
    """A turn can be begun, ended and returned only by its own replica."""
    one, two = await awake(world), world.replica("r2")
    (turn,) = (await tick(one, row("a"))).turns
    assert await begin(two, turn) == Lapsed()
    await done(two, turn)
    await tick(two, returned=(turn.id,))
    assert await begin(one, turn) == Begun()


async def test_a_turn_goes_to_the_replica_whose_oldest_waits_longest(world: World) -> None:
    """A tick gives out turns for other replicas' reports too, and they learn of them at their next tick."""
    one, two = await awake(world), world.replica("r2")
    await tick(two, quiet=True)
    await tick(one, row("a", waited_ms=150))
    await tick(two, row("a", waited_ms=200))
    world.now += QUIET - RULES.report_lease_ms // 2
    await tick(two, row("a", waited_ms=900))
    await tick(one, row("a", waited_ms=850))
    world.now += RULES.report_lease_ms // 2
    assert (await tick(one, row("a", 5, waited_ms=1350))).turns == ()
    (turn,) = (await tick(two, row("a", waited_ms=1400))).turns
    assert await begin(two, turn) == Begun()
    world.now += RULES.gap_ms
    assert len((await tick(one, row("a", 5, waited_ms=1400))).turns) == 1


async def test_equal_tags_are_ordered_by_wait_and_then_name(world: World) -> None:
    """The board shows the order of turns."""
    replica = world.replica("r1")
    ticked = await tick(replica, row("b"), row("c", waited_ms=5), row("a"), board=True)
    assert ticked.board is not None
    assert [rank.caller for rank in ticked.board.ranks] == ["c", "a", "b"]


async def test_the_background_uses_only_spare_turns(world: World) -> None:
    """However long it has waited, the background comes after all others, and leaves a slot for a newcomer."""
    replica = await awake(world)
    background = row("~renewal", count=5, waited_ms=9_000, background=True)
    (turn,) = (await tick(replica, background)).turns
    assert turn.caller == "~renewal"
    mine = (await tick(world.replica("r2"), row("a", weight=0.1))).turns
    assert [each.caller for each in mine] == ["a"]
    assert await begin(replica, turn) == Begun()
    assert await begin(world.replica("r2"), mine[0], block="other") == Begun()
    await done(replica, turn)
    await done(world.replica("r2"), mine[0], block="other")
    world.now += REST
    ticked = await tick(replica, background, row("a", count=2), row("b"))
    assert {each.caller for each in ticked.turns} <= {"a", "b"}


async def test_the_background_does_not_depend_on_names(world: World) -> None:
    """A caller named like the background gets its share of turns; one with any other name may wait in it."""
    replica = await awake(world)
    given = []
    for _ in range(10):
        ticked = await tick(replica, row("~unknown", 9), row("a", 9), row("b", 9, background=True, waited_ms=9_000))
        for turn in ticked.turns:
            given.append(turn.caller)
            assert await begin(replica, turn, f"b{turn.id}") == Begun()
            await done(replica, turn, f"b{turn.id}")
        world.now += REST
    assert set(given) == {"a", "~unknown"}
    assert abs(given.count("a") - given.count("~unknown")) <= 1


async def test_a_caller_in_the_foreground_anywhere_is_not_in_the_background(world: World) -> None:
    """One replica's background does not lower the priority of the same caller's blocks on another."""
    one, two = await awake(world, "r1"), world.replica("r2")
    await tick(one, row("a", background=True))
    ticked = await tick(two, row("a", waited_ms=1), row("b"), board=True)
    assert ticked.board is not None
    assert [rank.background for rank in ticked.board.ranks] == [False] * len(ticked.board.ranks)


async def test_a_waiting_background_ticks_when_two_slots_are_free(world: World) -> None:
    """One free slot is not given to the background, so a tick for it would be useless."""
    replica = await awake(world)
    (turn,) = (await tick(replica, row("a"))).turns
    assert await begin(replica, turn) == Begun()
    await done(replica, turn)
    ticked = await tick(replica, row("~renewal", background=True))
    assert ticked.turns == ()
    assert ticked.due_in_ms == REST - RULES.ahead_ms


async def test_the_background_does_not_move_virtual_time(world: World) -> None:
    """A caller that waits only now and then is not set back by what was fetched in between."""
    replica = await awake(world)
    (turn,) = (await tick(replica, row("~renewal", weight=0.01, background=True))).turns
    ticked = await tick(replica, row("a"), board=True)
    assert ticked.board is not None
    assert ticked.board.virtual == 0
    assert turn.caller == "~renewal"


async def test_quiet_takes_all_slots(world: World) -> None:
    """Turns already given can't be used, and no new one is given for transit and window."""
    replica = await awake(world)
    (turn,) = (await tick(replica, row("a"))).turns
    ticked = await tick(replica, row("a"), quiet=True)
    assert (ticked.turns, ticked.free, ticked.due_in_ms) == ((), 0, TAKEN - RULES.ahead_ms)
    assert await begin(replica, turn) == Lapsed()


async def test_begun_counts_as_served_before_the_next_report(world: World) -> None:
    """A report from before a begin does not bring its caller a second turn."""
    one, two = await awake(world), world.replica("r2")
    (turn,) = (await tick(one, row("a"))).turns
    await begin(one, turn)
    await tick(two, row("b"))
    assert (await tick(two, row("b"), board=True)).turns[0].caller == "b"
    world.now += 1
    assert (await tick(one)).turns == ()


@pytest.mark.parametrize("step_ms", [-3_600_000, -500, -2, 250, 900, 10_800_000])
async def test_a_step_of_the_servers_clock_neither_frees_nor_stalls(world: World, step_ms: int) -> None:
    """A window lasts a window, whatever the server's clock says, or longer by at most the size of a real step."""
    replica = await awake(world)
    for turn in (await tick(replica, row("a", 2))).turns:
        await begin(replica, turn, f"b{turn.id}")
        await done(replica, turn, f"b{turn.id}")
    world.now += 100
    world.off += step_ms
    assert (await tick(replica)).free == 0
    world.now += RULES.window_ms - 100 - 1
    assert (await tick(replica)).free == 0
    world.now += 3 + min(RULES.clock_step_ms, 100)
    assert (await tick(replica)).free == 2


@pytest.mark.parametrize("way_ms", [None, 80], ids=["a new replica", "a replica with slow answers"])
async def test_an_unnoticed_step_back_keeps_slots_for_a_window(world: World, way_ms: int | None) -> None:
    """Slots taken on a clock that had stepped back unnoticed stay taken for a window, also for the replica that
    notices."""
    exact, other = await awake(world), world.replica("r2")

    async def ask(replica: Scheduler, count: int, *, answered_after_ms: int = 0) -> Ticked:
        world.plan(sent=world.now, at=world.now, back=world.now + answered_after_ms)
        return await tick(replica, row("b", count))

    await ask(exact, 0)
    if way_ms is not None:
        await ask(other, 0, answered_after_ms=way_ms)
    world.now += 100
    world.off -= 60
    turns = (await ask(other, 2)).turns
    assert len(turns) == 2
    for turn in turns:
        for work in (begin(other, turn, f"b{turn.id}"), done(other, turn, f"b{turn.id}")):
            world.plan(sent=world.now, at=world.now, back=world.now)
            await work
    world.now += REST - 1
    assert (await ask(exact, 0)).free == 0
    world.now += 1 + RULES.clock_step_ms
    assert (await ask(exact, 0)).free == 2


async def test_time_passes_without_script_calls(world: World) -> None:
    """A pause ends even if the script has not been called meanwhile."""
    replica = await awake(world)
    (turn,) = (await tick(replica, row("a"))).turns
    await done(replica, turn, pause_ms=60_000, reason="70050")
    world.now += 60_000
    ticked = await tick(replica, row("a"))
    assert ticked.pause_in_ms == 0
    assert [turn.usable_in_ms for turn in ticked.turns] == [0]


@pytest.mark.parametrize("loss", ["flush", "restart"])
async def test_after_a_loss_of_data_one_quiet_window(world: World, loss: str) -> None:
    """Slots start taken; earlier readings of the server's clock do not count."""
    replica = await awake(world)
    (turn,) = (await tick(replica, row("a"))).turns
    getattr(world, loss)()
    assert await begin(replica, turn) == Lapsed()
    world.now += QUIET - 1
    assert (await tick(replica)).free == 0
    world.now += 1
    assert (await tick(replica)).free == RULES.calls


async def test_a_pause_outlives_a_failover(world: World) -> None:
    """The new server continues the pause that it knows of."""
    replica = await awake(world)
    (turn,) = (await tick(replica, row("a"))).turns
    await done(replica, turn, pause_ms=9_000, reason="60007")
    world.restart()
    ticked = await tick(replica)
    assert (ticked.pause_in_ms, ticked.pause_reason) == (9_000, "60007")


async def test_a_changed_number_of_slots_is_applied(world: World) -> None:
    """A replica with other rules adds slots that are unavailable at first, or removes those that stay taken longest."""
    old = await awake(world)
    assert (await tick(old)).free == 2
    world.rules = world.policy.rules = Rules(calls=3, window_ms=1000, transit_ms=200)
    more = world.replica("r2")
    assert (await tick(more)).free == 2
    world.now += QUIET
    assert (await tick(more)).free == 3
    turns = (await tick(more, row("a", 3))).turns
    assert len(turns) == 3
    world.rules = world.policy.rules = Rules(calls=1, window_ms=1000, transit_ms=200)
    fewer = world.replica("r2")
    (kept,) = (await tick(fewer, row("a", 3))).turns
    assert kept in turns
    assert await begin(fewer, kept) == Begun()


async def test_refunds_that_round_below_zero_are_still_tags(world: World) -> None:
    """Turns whose cost no float can hold, given and returned, leave their caller in line with its tag near 0."""
    world.rules = Rules(calls=5, window_ms=1000, transit_ms=200)
    world.policy = Policy(world.rules)
    replica = await awake(world)
    for weight in (0.3, 0.7, 1.1, 1.9, 7.7, 9.1):
        rows = (row("a", 4, weight=weight), row("b"))
        turns = (await tick(replica, *rows)).turns
        assert len(turns) == 5
        ticked = await tick(replica, *rows, returned=tuple(turn.id for turn in turns), quiet=True, board=True)
        assert ticked.board is not None
        assert [abs(rank.tag) < 1e-9 for rank in ticked.board.ranks] == [True, True]
        await tick(replica, board=True)
        world.now += QUIET


async def test_the_end_of_a_fetch_is_published(client: redis.Redis) -> None:
    """The block's name is published once on the scheduler's channel."""
    world = World(client)
    replica = world.shared("r1")
    with client.pubsub(ignore_subscribe_messages=True) as messages:
        messages.subscribe(replica.channel)
        await tick(replica)
        world.now += QUIET
        (turn,) = (await tick(replica, row("a"))).turns
        await begin(replica, turn, "block-7")
        await done(replica, turn, "block-7")
        told = [messages.get_message(timeout=1), messages.get_message(timeout=1)]
        assert messages.get_message(timeout=0.01) is None
    assert [message["data"] for message in told if message] == [b"block-7"]


async def test_the_servers_own_clock_and_run_are_used(client: redis.Redis) -> None:
    """Without a test's clock the script itself reads TIME and the run id, and keeps nothing that grows."""
    client.flushall()
    rules = Rules(calls=3, window_ms=40, transit_ms=10, ahead_ms=0)
    replica = RedisScheduler(StoreHere(client), prefix="tg", app="news", replica="r1", rules=rules)  # type: ignore[arg-type]
    begun = 0
    for number in range(2_000):
        ticked = await tick(replica, row("a"))
        for turn in ticked.turns:
            if isinstance(await begin(replica, turn, f"b{number}"), Begun):
                begun += 1
                await done(replica, turn, f"b{number}")
        if begun >= 6:
            break
    assert begun >= 6
    await tick(replica)
    assert client.hlen("tg:{news}:flights") == 0
    assert set(client.keys()) <= {b"tg:{news}:slots", b"tg:{news}:tags"}


async def test_a_tick_begins_the_wish_of_its_replica(world: World) -> None:
    """The slot is taken under the id that the replica has chosen, renewed by `begin`, and freed by `done`."""
    replica = await awake(world)
    ticked = await tick(replica, row("a"), board=True, wish=wish())
    assert (ticked.begun, ticked.turns, ticked.free, ticked.due_in_ms) == (Begun(), (), 1, None)
    turn = Turn(id=wish().turn, caller="a", usable_in_ms=0)
    other = world.replica("r2")
    (theirs,) = (await tick(other, row("b"))).turns
    assert isinstance(await begin(other, theirs), Joined)
    world.now += 100
    assert await begin(replica, turn) == Begun()
    await done(replica, turn)
    world.now += REST - 1
    assert (await tick(replica)).free == 1
    world.now += 1
    assert (await tick(replica)).free == 2


async def test_a_wish_is_for_a_turn_of_its_caller_that_is_not_in_use(world: World) -> None:
    """Another caller's turn, none at all, and one that the replica uses begin nothing; they are listed as usual."""
    replica = await awake(world)
    ticked = await tick(replica, row("a", waited_ms=9), row("b"), wish=wish("c"))
    assert (ticked.begun, [turn.caller for turn in ticked.turns]) == (None, ["a", "b"])
    for turn in ticked.turns:
        assert await begin(replica, turn, f"b{turn.id}") == Begun()
        await done(replica, turn, f"b{turn.id}")
    world.now += REST - 5
    (turn,) = (await tick(replica, row("a"))).turns
    world.now += 2
    ticked = await tick(replica, row("a"), wish=wish(in_use=(turn.id,)))
    assert (ticked.begun, [turn.usable_in_ms for turn in ticked.turns]) == (None, [3])


async def test_a_wish_may_take_a_turn_that_another_replicas_tick_has_given(world: World) -> None:
    """The replica has not learnt of it yet, and begins it before it is usable: no further call is needed."""
    replica, other = await awake(world), world.replica("r2")
    for turn in (await tick(replica, row("a", 2))).turns:
        await begin(replica, turn, f"b{turn.id}")
        await done(replica, turn, f"b{turn.id}")
    await tick(replica, row("a"))
    await tick(other)
    world.now += REST - 20
    assert (await tick(other, row("b"))).turns != ()
    world.now += 5
    ticked = await tick(replica, row("a"), wish=wish())
    assert (ticked.begun, ticked.turns) == (Begun(usable_in_ms=15), ())


@pytest.mark.parametrize("known", [b"", b"the one before"])
async def test_a_wish_for_a_stored_block_is_refunded(world: World, known: bytes) -> None:
    """The replica learns the head, and the slot, the turn and the caller's place in the order stay as they were."""
    replica = await awake(world)
    world.put(KEY, b"0123456789abcdef and more")
    ticked = await tick(replica, row("a"), row("b"), board=True, wish=wish(known=known))
    assert ticked.begun == AlreadyStored(head=b"0123456789abcdef")
    assert [turn.caller for turn in ticked.turns] == ["b"]
    ticked = await tick(replica, row("a"), row("b"), board=True, wish=wish(known=b"0123456789abcdef", number=2))
    assert ticked.begun == Begun()
    assert ticked.board is not None
    assert sorted(turn.caller for turn in ticked.turns) == ["b"]


async def test_a_wish_for_a_block_that_is_being_fetched_joins(world: World) -> None:
    """A wish for a block that is being fetched joins, as `begin` does; the turn is free for the next."""
    replica, other = await awake(world), world.replica("r2")
    assert (await tick(replica, row("a"), wish=wish())).begun == Begun()
    assert (await tick(other, row("a"), wish=wish(number=2))).begun == Joined(lease_in_ms=RULES.fetch_lease_ms)
    assert (await tick(other, row("c"))).turns[0].caller == "c"


async def test_a_wish_whose_answer_was_lost_is_given_back(world: World) -> None:
    """A returned turn that a tick has begun led to no call: its slot is free at once, and so is the block."""
    replica = await awake(world)
    assert (await tick(replica, row("a"), wish=wish())).begun == Begun()
    world.now += 10
    ticked = await tick(replica, row("a"), returned=(wish().turn,), wish=wish(number=2))
    assert ticked.begun == Begun()
    assert (await tick(replica)).free == 1


async def test_a_turn_that_is_begun_early_takes_its_slot_from_when_it_is_usable(world: World) -> None:
    """The call is sent then: so transit and window count from there, and the answer can't have come before."""
    replica = await awake(world)
    for turn in (await tick(replica, row("a", 2))).turns:
        await begin(replica, turn, f"b{turn.id}")
        await done(replica, turn, f"b{turn.id}")
    world.now += REST - 20
    first, second = (await tick(replica, row("a", 2))).turns
    assert await begin(replica, first, "b1") == Begun(usable_in_ms=20)
    assert await begin(replica, second, "b2") == Begun(usable_in_ms=20)
    await done(replica, first, "b1", took_ms=3)
    world.now += 20 + REST - 1
    assert (await tick(replica)).free == 0
    world.now += 1
    assert (await tick(replica)).free == 1
    world.now += TAKEN - REST - 1
    assert (await tick(replica)).free == 1
    world.now += 1
    assert (await tick(replica)).free == 2


async def test_a_turn_begun_early_may_be_returned(world: World) -> None:
    """As if it had never begun: the slot is free when it would have been, and the block may be fetched by others."""
    replica, other = await awake(world), world.replica("r2")
    for turn in (await tick(replica, row("a", 2))).turns:
        await begin(replica, turn, f"b{turn.id}")
        await done(replica, turn, f"b{turn.id}")
    world.now += REST - 20
    (turn,) = (await tick(replica, row("a"))).turns
    assert await begin(replica, turn) == Begun(usable_in_ms=20)
    await tick(replica, returned=(turn.id,))
    world.now += 20
    assert (await tick(replica)).free == 2
    (turn,) = (await tick(other, row("a"))).turns
    assert await begin(other, turn) == Begun()


async def test_a_late_done_frees_the_slot_a_window_after_the_answer(world: World) -> None:
    """It says when the answer came, counted from when the begin was sent, which was before it took the slot."""
    replica = await awake(world)
    (turn,) = (await tick(replica, row("a"))).turns
    await begin(replica, turn)
    world.now += 150
    await done(replica, turn, took_ms=40)
    world.now += 40 + REST - 150 - 1
    assert (await tick(replica)).free == 1
    world.now += 1
    assert (await tick(replica)).free == 2


async def test_turns_are_given_earlier_where_redis_is_slow(world: World) -> None:
    """By two round trips: so a tick and a begin fit in between. At most a quarter of the window."""
    replica = await awake(world)
    for turn in (await tick(replica, row("a", 2))).turns:
        await begin(replica, turn, f"b{turn.id}")
        await done(replica, turn, f"b{turn.id}")
    free_at = world.now + REST
    for way_ms, ahead_ms in ((30, RULES.ahead_ms + 120), (200, RULES.window_ms // 4)):
        world.plan(sent=world.now, at=world.now + way_ms, back=world.now + 2 * way_ms)
        await tick(replica, row("a"))
        world.now += 2 * way_ms
        world.plan(sent=world.now, at=world.now, back=world.now)
        ticked = await tick(replica, row("a"))
        assert ticked.turns == ()
        assert ticked.due_in_ms == free_at - ahead_ms - world.now
    world.now += ticked.due_in_ms
    world.plan(sent=world.now, at=world.now, back=world.now)
    assert [turn.usable_in_ms for turn in (await tick(replica, row("a"))).turns] == [RULES.window_ms // 4]


async def test_after_a_wish_the_report_lacks_what_was_begun(world: World) -> None:
    """The begun block counts no more, a further one of the same caller does, and a report of nothing is forgotten."""
    replica, other = await awake(world), world.replica("r2")
    assert (await tick(replica, row("a", 2), row("b"), wish=wish())).begun == Begun()
    ticked = await tick(other, board=True)
    assert ticked.board is not None
    assert {rank.caller: rank.count for rank in ticked.board.ranks} == {"a": 1, "b": 1}
    for turn in (await tick(replica, row("a"), row("b"))).turns:
        await begin(replica, turn, "other")
    world.now += 2 * QUIET
    assert (await tick(replica, row("a"), wish=wish(number=2))).begun == Begun()
    ticked = await tick(other, board=True)
    assert ticked.board is not None
    assert ticked.board.ranks == ()
    assert (await tick(replica, row("a"))).turns[0].caller == "a"


async def test_a_tick_that_was_overtaken_begins_nothing(client: redis.Redis) -> None:
    """A tick that arrives after a later one of its replica gives turns, but begins no fetch, which would stay
    unnoticed."""
    world = World(client)
    late = world.shared("r1")
    await tick(late)
    world.now += QUIET
    sent: list[tuple[object, ...]] = []
    answering = late._script

    async def holding(keys: object, args: object) -> list[object]:
        sent.append((keys, args))
        return [b"lost"]

    late._script = holding  # type: ignore[assignment]
    with pytest.raises(StoreUnavailable):
        await tick(late, row("a"), wish=wish())
    late._script = answering
    await tick(late, row("b"), returned=(wish().turn,))
    await answering(*sent[0])  # type: ignore[arg-type]
    assert client.hlen("tg:{news}:flights") == 0
