"""How schedulers treat reports: small differences, a wish that is not granted, and the order of callers."""

from collections.abc import Sequence
from functools import partial

import msgspec
import pytest
import redis

from service.budget.scheduler.interfaces import FIRST_WISH, Wish
from tests.contract import scheduler_calls
from tests.contract.scheduler_calls import QUIET
from tests.contract.scheduler_world import ScriptHere, World, row

tick = partial(scheduler_calls.tick, board=True)


async def test_a_caller_keeps_its_time_of_entry_over_small_differences(world: World) -> None:
    """Clock readings and rounding move no caller; a difference that is none of these does."""
    replica = world.replica("r1")
    await tick(replica, row("a", waited_ms=100))
    for passed, waited_ms, expected in ((100, 190, 200), (100, 310, 300), (100, 350, 350)):
        world.now += passed
        board = (await tick(replica, row("a", waited_ms=waited_ms))).board
        assert board is not None
        assert board.ranks[0].waited_ms == expected


async def test_a_whole_report_keeps_times_of_entry_over_small_differences(world: World) -> None:
    """A replica that sends everything again does not move callers of which nothing differs."""
    await tick(world.replica("r1"), row("a", waited_ms=100), row("b", waited_ms=100))
    board = (await tick(world.replica("r1"), row("a", waited_ms=120), row("b", waited_ms=121))).board
    assert board is not None
    assert {rank.caller: rank.waited_ms for rank in board.ranks} == {"a": 100, "b": 121}


async def test_the_board_has_a_thousand_callers_besides_those_with_a_turn(world: World) -> None:
    """Callers whose blocks all have turns take no rank, and no room, on the board."""
    replica = world.replica("r1")
    await tick(replica)
    world.now += QUIET
    behind = (row(f"c{number:04}", background=True) for number in range(1, 1_002))
    ticked = await tick(replica, row("c0000"), *behind)
    assert ticked.board is not None
    assert [turn.caller for turn in ticked.turns] == ["c0000"]
    assert [rank.caller for rank in ticked.board.ranks] == [f"c{number:04}" for number in range(1, 1_001)]


async def test_background_callers_come_last_however_many(world: World) -> None:
    """Background callers come last, in whatever order callers are listed."""
    replica = world.replica("r1")
    await tick(replica)
    world.now += QUIET
    behind = [row(f"~{number}", 3, waited_ms=900, background=True) for number in range(5)]
    for rows in ((*behind, row("a")), (row("a"), *behind)):
        ticked = await tick(replica, *rows)
        assert [turn.caller for turn in ticked.turns] == ["a"]
        await tick(replica, returned=tuple(turn.id for turn in ticked.turns))


async def test_the_smallest_tag_is_found_among_many(world: World) -> None:
    """The smallest tag is found in whatever order callers were added, and although others have just had turns."""
    replica = world.replica("r1")
    names = [f"c{number:02}" for number in range(12)]
    rows = [row(name, 2, waited_ms=1000 - 10 * at) for at, name in enumerate(reversed(names))]
    await tick(replica, *rows)
    served = []
    for _ in range(12):
        world.now += QUIET
        for turn in (await tick(replica, *rows)).turns:
            served.append(turn.caller)
            await replica.begin(turn.id, block=f"b{turn.id}", known=b"")
            await replica.done(turn.id, block=f"b{turn.id}", pause_ms=0, pause_reason="")
    assert served[:12] == names[::-1]


async def test_a_report_in_which_nothing_changes_is_not_sent_again(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report without changes is not sent again, even if its wish was not granted."""
    world = World(client)
    replica = world.replica("r1")
    rows: list[list[object]] = []
    call = ScriptHere.if_loaded

    async def recorded(
        script: ScriptHere, keys: Sequence[str], args: Sequence[str | bytes | int | float]
    ) -> list[object] | None:
        rows.append(msgspec.msgpack.decode(args[1]) if isinstance(args[1], bytes) else [])
        return await call(script, keys, args)

    monkeypatch.setattr(ScriptHere, "if_loaded", recorded)
    for number in range(5):
        wish = Wish(turn=FIRST_WISH + number, in_use=(), caller="a", block="b", known=b"")
        await tick(replica, row("a", 2, waited_ms=100 * number), row("c", waited_ms=100 * number), wish=wish)
        world.now += 100
    assert rows[1:] == [[]] * (len(rows) - 1)
    assert len(rows) == 4
