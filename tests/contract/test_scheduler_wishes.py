"""Wishes, turns that a tick begins by itself, and turns begun before they are usable."""

import pytest
import redis

from service.budget.scheduler.interfaces import AlreadyStored, Begun, Joined, Turn
from service.model.errors import StoreUnavailable
from tests.contract.scheduler_calls import KEY, QUIET, REST, TAKEN, awake, begin, done, tick, wish
from tests.contract.scheduler_world import RULES, World, row


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


async def test_turns_are_given_earlier_if_redis_is_slow(world: World) -> None:
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
    answering = late.runs

    async def holding(keys: object, args: object) -> list[object]:
        sent.append((keys, args))
        return [b"lost"]

    late.runs = holding  # type: ignore[assignment]
    with pytest.raises(StoreUnavailable):
        await tick(late, row("a"), wish=wish())
    late.runs = answering
    await tick(late, row("b"), returned=(wish().turn,))
    await answering(*sent[0])  # type: ignore[arg-type]
    assert client.hlen("tg:{news}:flights") == 0
