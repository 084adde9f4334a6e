"""The guarantees of every scheduler: the same tests on the policy alone and on the script in a real Valkey."""

from service.budget.scheduler.interfaces import Begun, Joined, Lapsed, Paused
from service.budget.scheduler.rules import Rules
from tests.contract.scheduler_calls import QUIET, REST, TAKEN, awake, begin, done, tick
from tests.contract.scheduler_world import RULES, World, row


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


async def test_a_pause_stops_all_callers_and_is_not_shortened(world: World) -> None:
    """A turn held is refunded, none is given until the pause ends, and every replica gets the reason."""
    one, two = await awake(world), world.replica("r2")
    (first,) = (await tick(one, row("a"))).turns
    (second,) = (await tick(two, row("b"))).turns
    await begin(one, first)
    await done(one, first, pause_ms=3000, reason="60007")
    await done(one, first, pause_ms=100, reason="other")
    assert await begin(two, second, "c") == Paused()
    world.now += 2000
    ticked = await tick(two, row("b"))
    assert (ticked.turns, ticked.pause_in_ms, ticked.pause_reason) == ((), 1000, "60007")
    assert ticked.due_in_ms == 1000 - RULES.ahead_ms
    world.now += 1000 - RULES.ahead_ms - 1
    assert (await tick(two, row("b"))).turns == ()
    world.now += 1
    assert [turn.usable_in_ms for turn in (await tick(two, row("b"))).turns] == [RULES.ahead_ms]
    world.now += RULES.ahead_ms
    ticked = await tick(two, row("b"))
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


async def test_quiet_takes_all_slots(world: World) -> None:
    """Turns already given can't be used, and no new one is given for transit and window."""
    replica = await awake(world)
    (turn,) = (await tick(replica, row("a"))).turns
    ticked = await tick(replica, row("a"), quiet=True)
    assert (ticked.turns, ticked.free, ticked.due_in_ms) == ((), 0, TAKEN - RULES.ahead_ms)
    assert await begin(replica, turn) == Lapsed()


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
