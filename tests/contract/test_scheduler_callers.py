"""Who gets the next turn: callers, replicas and the background."""

from service.budget.scheduler.interfaces import Begun
from service.budget.scheduler.policy.steps import Policy
from service.budget.scheduler.rules import Rules
from tests.contract.scheduler_calls import QUIET, REST, awake, begin, done, tick
from tests.contract.scheduler_world import RULES, World, row


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


async def test_begun_counts_as_served_before_the_next_report(world: World) -> None:
    """A report from before a begin does not bring its caller a second turn."""
    one, two = await awake(world), world.replica("r2")
    (turn,) = (await tick(one, row("a"))).turns
    await begin(one, turn)
    await tick(two, row("b"))
    assert (await tick(two, row("b"), board=True)).turns[0].caller == "b"
    world.now += 1
    assert (await tick(one)).turns == ()


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
