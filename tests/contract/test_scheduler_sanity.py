"""Which state the script accepts: within the bounds of its numbers it continues, beyond them it takes all slots."""

import msgspec
import pytest
import redis
from structlog.testing import capture_logs

from service.budget.scheduler.shared import FORMAT
from service.model.errors import StoreUnavailable
from tests.contract.scheduler_calls import tick
from tests.contract.scheduler_world import RULES, World, row

STATE = "tg:{news}:slots"
FIELDS = ("format", "now", "raw", "run", "epoch", "virtual", "next_id", "purge_at", "held", "pause_until", "reason")
SLOT = ("free_at", "started", "turn", "replica", "caller", "cost", "usable_at", "begun_at", "block")
DAY_MS = 86_400_000
LATEST = 2 * (RULES.transit_ms + RULES.rest_ms) + 1_000
"""The last moment from now on at which a turn may be usable."""


@pytest.fixture
def world(client: redis.Redis) -> World:
    """An empty Redis."""
    return World(client)


async def is_believed(world: World, place: str, value: object) -> bool:
    """Set a field of the state, or of its second slot, and return whether the next tick keeps the state.

    A number with a plus before it counts from the state's own time.
    """
    assert world.client is not None
    replica = world.shared("r1")
    await tick(replica, row("a"))
    world.now += 5_000
    await tick(replica, row("a"))
    state = msgspec.msgpack.decode(world.client.get(STATE))
    if isinstance(value, str) and value.startswith("+"):
        value = state[FIELDS.index("now")] + int(value)
    of, _, name = place.rpartition(".")
    if of:
        state[len(FIELDS)][1][SLOT.index(name)] = value
    else:
        state[FIELDS.index(name)] = value
    world.client.set(STATE, msgspec.msgpack.encode(state))
    resets = replica.resets
    await tick(replica, row("a"))
    return replica.resets == resets


NUMBERS: list[tuple[str, object, object, object, object]] = [
    ("now", None, 0, 2**52, 2**52 + 1),
    ("raw", -1, 0, 2**52, 2**52 + 1),
    ("epoch", -1, 0, 2**52, 2**52 + 1),
    ("virtual", -(10**15) - 1, -(10**15), 10**15, 10**15 + 1),
    ("next_id", -1, 0, 2**53, 2**53 + 2),
    ("purge_at", -1, 0, 2**52, 2**52 + 1),
    ("held", -1, 0, 60_000, 60_001),
    ("pause_until", -1, 0, "+3600000", "+3600001"),
    ("slot.free_at", -1, 0, f"+{2 * DAY_MS}", f"+{2 * DAY_MS + 1}"),
    ("slot.started", -1, 0, f"+{LATEST}", f"+{LATEST + 1}"),
    ("slot.turn", -1, 0, 2**53, 2**53 + 2),
    ("slot.cost", -1, 0, 10**15, 10**15 + 1),
    ("slot.usable_at", -1, 0, f"+{LATEST}", f"+{LATEST + 1}"),
    ("slot.begun_at", -2, -1, "+0", "+1"),
]


@pytest.mark.parametrize(("place", "too_small", "least", "most", "too_large"), NUMBERS, ids=str)
async def test_numbers_have_bounds(
    world: World, place: str, too_small: object, least: object, most: object, too_large: object
) -> None:
    """Numbers up to the bounds are accepted; beyond them they count as garbage."""
    if place != "now":  # the slots of this state are later than its least time
        assert await is_believed(world, place, least)
        assert not await is_believed(world, place, too_small)
    assert await is_believed(world, place, most)
    assert not await is_believed(world, place, too_large)
    assert not await is_believed(world, place, "much")


@pytest.mark.parametrize("place", ["reason", "slot.replica", "slot.caller", "slot.block"])
async def test_numbers_in_place_of_texts_are_garbage(world: World, place: str) -> None:
    """A number in place of a text counts as garbage."""
    assert await is_believed(world, place, "a text")
    assert not await is_believed(world, place, 1)


async def test_a_slot_taken_by_a_longer_window_is_free_when_ours_would_be(world: World) -> None:
    """A slot that a replica with a longer window took before a rollout is free when one of ours would be."""
    assert world.client is not None
    assert await is_believed(world, "slot.free_at", f"+{DAY_MS}")
    state = msgspec.msgpack.decode(world.client.get(STATE))
    taken_ms = state[len(FIELDS)][1][SLOT.index("free_at")] - state[FIELDS.index("now")]
    assert taken_ms == RULES.longest_ms


@pytest.mark.parametrize(("ago_ms", "steps_aside"), [(8_500, True), (10_500, False), (-8_500, True), (-11_500, False)])
async def test_a_newer_release_is_left_alone_for_ten_seconds(world: World, ago_ms: int, steps_aside: bool) -> None:
    """Ten seconds after its last call, by either clock, the newer release counts as gone, and its state is replaced."""
    assert world.client is not None
    used_ms = world.client.time()[0] * 1000 - ago_ms
    world.client.set(STATE, msgspec.msgpack.encode([FORMAT + 1, 1, used_ms, "its run", "more"]))
    replica = world.shared("r1")
    if steps_aside:
        with pytest.raises(StoreUnavailable):
            await tick(replica, row("a"))
    else:
        await tick(replica, row("a"))
        assert msgspec.msgpack.decode(world.client.get(STATE))[0] == FORMAT


async def test_the_runs_that_a_replica_has_left_are_bounded(world: World) -> None:
    """The runs that a replica has left are bounded, however often Redis restarts."""
    replica = world.shared("r1")
    for _ in range(40):
        world.restart()
        await tick(replica, row("a"))
    assert replica.resets == 40
    assert len(replica.runs.left) == 32


async def test_a_state_of_an_older_format_is_replaced_and_logged_as_such(world: World) -> None:
    """The log names the format, not a loss."""
    assert world.client is not None
    world.client.set(STATE, msgspec.msgpack.encode([FORMAT - 1, 1, 1, "its run", "more"]))
    with capture_logs() as logs:
        await tick(world.shared("r1"), row("a"))
    assert [entry["cause"] for entry in logs if entry["event"] == "budget.reset"] == ["format"]
