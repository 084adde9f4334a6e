"""Callers' usage, summed over replicas, on a real Valkey and the test's own clock."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from service.model.budgets import COLUMNS, CallResults, Counts, RecentCalls, UsageCounts, WorstWindows
from service.model.errors import StoreUnavailable
from service.settings import RedisSettings
from service.store.interfaces import Script, Store
from service.store.redis_store import RedisStore
from service.usage.buckets import READ_MAX, UsageBook
from service.usage.store import CALLERS_MAX, FLUSH_S, HOURS, MINUTES, OVERFLOW, UsageStore
from tests.servers import Server, until

NOON_S = 1_750_000_200.0
"""A whole minute."""


class World:
    """Usage stores of one app on one server and clock."""

    def __init__(self, server: Server) -> None:
        self.now_s = NOON_S
        self.age_s = 0.0
        self.server = server
        self.store = RedisStore(RedisSettings(url=server.url, timeout_s=5.0))

    def usage_store(self, replica: str, store: Store | None = None, *, window_s: float = 1.0) -> UsageStore:
        """Return one replica's usage store; flushed by the test. What it has read is as old as `age_s`."""
        return UsageStore(
            store or self.store,
            prefix="t",
            app="shop",
            replica=replica,
            clock=lambda: self.now_s,
            window_s=window_s,
            monotonic_s=lambda: self.age_s,
        )

    async def seen(self) -> dict[str, UsageCounts]:
        """The view of a replica that has just started."""
        return dict(await self.usage_store("new").tallies())


class LossyStore(RedisStore):
    """A store whose scripts run, but whose answers are lost, as long as `loses`."""

    loses = True

    def script(self, source: str) -> Script:
        script = super().script(source)

        async def losing(keys: Sequence[str], args: Sequence[str | bytes | int | float]) -> list[object]:
            answer = await script(keys, args)
            if self.loses:
                raise StoreUnavailable("timed out")
            return answer

        return losing


@pytest.fixture
async def world(valkey: Server) -> AsyncIterator[World]:
    world = World(valkey)
    yield world
    await world.store.aclose()


def _both(turns: int = 0, joined: int = 0) -> UsageCounts:
    counts = Counts(turns=turns, joined=joined)
    return UsageCounts(minute=counts, hour=counts)


async def test_replicas_are_summed_up(world: World) -> None:
    """Two replicas' counts of one caller are one sum, column by column, for every reader."""
    one, two = world.usage_store("one"), world.usage_store("two")
    one.count("a", "turns", 2)
    one.count("b:x", "joined")
    two.count("a", "turns")
    two.count("a", "joined", 5)
    await one.flush()
    await two.flush()
    assert await world.seen() == {"a": _both(turns=3, joined=5), "b:x": _both(joined=1)}


async def test_unsent_counts_are_seen_on_their_replica(world: World) -> None:
    """A replica sees its own counts at once, and counts nothing twice when they are sent."""
    usage_store = world.usage_store("one")
    for expected in (1, 2, 3):
        usage_store.count("a", "turns")
        assert await usage_store.tallies() == {"a": _both(turns=expected)}
        await usage_store.flush()
        assert await usage_store.tallies() == {"a": _both(turns=expected)}


async def test_counts_leave_the_minute_and_the_hour(world: World) -> None:
    """After a minute a turn counts for the hour alone, after an hour for neither."""
    usage_store = world.usage_store("one")
    usage_store.count("a", "turns")
    await usage_store.flush()
    world.now_s += 49
    assert await world.seen() == {"a": _both(turns=1)}
    world.now_s += 12
    assert await world.seen() == {"a": UsageCounts(hour=Counts(turns=1))}
    world.now_s += 3600
    assert await world.seen() == {}


async def test_keys_expire_by_themselves(world: World) -> None:
    """Ten-second counts stay a bit over a minute, minutes a bit over an hour, hours a bit over a week."""
    usage_store = world.usage_store("one")
    usage_store.count("a", "turns")
    await usage_store.flush()
    lives_s = sorted(world.server.run("TTL", key) for key in world.server.run("KEYS", "t:{shop}:usage_store:*"))
    assert len(lives_s) == 3
    assert 60 < lives_s[0] <= 120
    assert 3600 < lives_s[1] <= 3720
    assert 604_800 < lives_s[2] <= 604_920


async def test_a_batch_whose_answer_was_lost_counts_once(world: World) -> None:
    """A batch whose answer was lost is sent again under the same number; later counts are sent with the next one."""
    lossy = LossyStore(RedisSettings(url=world.server.url, timeout_s=5.0))
    usage_store = world.usage_store("one", lossy)
    usage_store.count("a", "turns", 3)
    await usage_store.flush()
    usage_store.count("a", "turns", 4)
    await usage_store.flush()
    lossy.loses = False
    await usage_store.flush()
    await lossy.aclose()
    assert await world.seen() == {"a": _both(turns=7)}


async def test_counts_survive_an_outage(own_valkey: Server) -> None:
    """Counts made while Redis is unavailable are reported at once, and are in Redis soon after it is back."""
    world = World(own_valkey)
    usage_store = world.usage_store("one")
    usage_store.start()
    usage_store.count("a", "turns")
    await until(lambda: bool(own_valkey.run("KEYS", "t:*")))
    assert await usage_store.tallies() == {"a": _both(turns=1)}
    own_valkey.kill()
    usage_store.count("a", "turns")
    await asyncio.sleep(1.2)
    assert (await usage_store.tallies())["a"].hour.turns == 2
    own_valkey.start()  # empty: the data in Redis is lost
    await until(lambda: bool(own_valkey.run("KEYS", "t:*")))
    assert await world.seen() == {"a": _both(turns=1)}
    await usage_store.aclose()
    await world.store.aclose()


async def test_closing_sends_pending_counts(world: World) -> None:
    """The counts of the last second are sent on closing."""
    usage_store = world.usage_store("one")
    usage_store.start()
    usage_store.count("a", "turns")
    await usage_store.aclose()
    assert await world.seen() == {"a": _both(turns=1)}


async def test_reads_are_bounded(world: World) -> None:
    """Any number of reads within a second query Redis once: the first time for everything, then for what may be new."""
    asked = 0

    class Counting(RedisStore):
        def script(self, source: str) -> Script:
            script = super().script(source)

            async def counted(keys: Sequence[str], args: Sequence[str | bytes | int | float]) -> list[object]:
                nonlocal asked
                asked += 1
                assert len(keys) <= READ_MAX
                return await script(keys, args)

            return counted

    store = Counting(RedisSettings(url=world.server.url, timeout_s=5.0))
    usage_store = world.usage_store("one", store)
    await asyncio.gather(*(usage_store.tallies() for _ in range(50)), *(usage_store.worst() for _ in range(50)))
    assert asked == 1 + MINUTES // READ_MAX
    await asyncio.gather(*(usage_store.hours() for _ in range(50)))
    assert asked == 1 + MINUTES // READ_MAX + HOURS // READ_MAX
    world.age_s += FLUSH_S
    asked = 0
    await asyncio.gather(*(usage_store.minutes() for _ in range(50)), *(usage_store.hours() for _ in range(50)))
    assert asked == 3
    await store.aclose()


async def test_late_batches_are_seen(world: World) -> None:
    """A replica sees its own late batch at once, and another replica's, for a past minute, within sixty reads."""
    one, two = world.usage_store("one"), world.usage_store("two")
    one.count("a", "turns")
    two.count("a", "turns", 2)
    world.now_s += 600
    assert (await one.tallies())["a"].hour.turns == 1
    await one.flush()
    assert (await one.tallies())["a"].hour.turns == 1
    await two.flush()
    assert (await two.tallies())["a"].hour.turns == 3
    looks = 0
    while (await one.tallies())["a"].hour.turns != 3:
        looks += 1
        assert looks <= MINUTES
        world.age_s += FLUSH_S


async def test_callers_beyond_the_bound_are_counted_together(world: World) -> None:
    """Their sum is kept, under one name."""
    usage_store = world.usage_store("one")
    distinguished = CALLERS_MAX * len(COLUMNS)
    for number in range(distinguished + CALLERS_MAX):
        usage_store.count(f"c{number}", "turns")
    tallies = await usage_store.tallies()
    assert len(tallies) <= distinguished + 1
    assert sum(tally.hour.turns for tally in tallies.values()) == distinguished + CALLERS_MAX
    assert tallies[OVERFLOW].hour.turns == CALLERS_MAX


async def test_an_outage_costs_an_hour_of_memory(own_valkey: Server) -> None:
    """Of counts that cannot be sent, at most an hour's are kept."""
    world = World(own_valkey)
    own_valkey.kill()
    usage_store = world.usage_store("one")
    for _ in range(400):
        usage_store.count("a", "turns")
        world.now_s += 10
    await usage_store.flush()
    assert (await usage_store.tallies())["a"].hour.turns in range(350, 361)
    await world.store.aclose()


async def test_minutes_are_counted_separately(world: World) -> None:
    """Each minute has its own counts, of all replicas, sent or not; minutes over an hour old are gone."""
    one, two = world.usage_store("one"), world.usage_store("two")
    one.count("a", "requests", 3)
    await one.flush()
    world.now_s += 60
    two.count("a", "requests")
    two.count("b", "refusals")
    await two.flush()
    one.count("a", "requests", 5)
    noon = int(NOON_S) // 60
    seen = {minute: book.rows for minute, book in (await one.minutes()).items() if book != UsageBook()}
    assert seen == {
        noon: {"a": Counts(requests=3)},
        noon + 1: {"a": Counts(requests=6), "b": Counts(refusals=1)},
    }
    await one.flush()
    assert (await world.usage_store("new").minutes())[noon + 1].rows["a"] == Counts(requests=6)
    world.now_s += 59 * 60
    assert noon not in await world.usage_store("new").minutes()


async def test_hours_are_counted_separately_for_a_week(world: World) -> None:
    """Each hour has its own counts, of all replicas, sent or not; after seven days it is gone."""
    one, two = world.usage_store("one"), world.usage_store("two")
    hour = int(NOON_S) // 3600
    one.count("a", "requests", 3)
    await one.flush()
    world.now_s += 1800
    two.count("a", "requests", 4)
    await two.flush()
    world.now_s += 24 * 3600
    one.count("b", "refusals", 5)
    seen = {number: book.rows for number, book in (await one.hours()).items() if book != UsageBook()}
    assert seen == {hour: {"a": Counts(requests=7)}, hour + 24: {"b": Counts(refusals=5)}}
    await one.flush()
    world.age_s += FLUSH_S
    assert {number: book.rows for number, book in (await one.hours()).items() if book != UsageBook()} == seen
    world.now_s = (hour + 168) * 3600 - 1
    assert (await world.usage_store("new").hours())[hour].rows == {"a": Counts(requests=7)}
    world.now_s += 1
    assert hour not in await world.usage_store("new").hours()


async def test_the_worst_second_is_that_of_all_replicas(world: World) -> None:
    """Calls of one second are added up over replicas, sent or not; the worst is known for a minute and for an hour."""
    one, two = world.usage_store("one"), world.usage_store("two")
    for usage_store in (one, two, two):
        usage_store.count_call("a")
    assert await one.worst() == WorstWindows(minute=1, hour=1)
    await two.flush()
    world.age_s += FLUSH_S
    assert await one.worst() == WorstWindows(minute=3, hour=3)
    await one.flush()
    world.now_s += 1
    for _ in range(2):
        one.count_call("b")
    assert await one.worst() == WorstWindows(minute=3, hour=3)
    world.now_s += 59
    assert await one.worst() == WorstWindows(minute=2, hour=3)
    await one.flush()
    world.now_s += 3600
    assert await world.usage_store("new").worst() == WorstWindows()
    assert (await world.usage_store("new").hours())[int(NOON_S) // 3600].rows["a"] == Counts(turns=3)


async def test_results_of_calls_are_those_of_all_replicas(world: World) -> None:
    """Over the last minute and hour, with the newest success of any replica, which is known for a week."""
    one, two = world.usage_store("one"), world.usage_store("two")
    one.count_result("a", "ok")
    world.now_s += 1
    two.count_result("b", "ok")
    two.count_result("a", "timeout")
    last_success_ms = int(world.now_s * 1000)
    assert (await two.recent_calls()).last_success_ms == last_success_ms
    await two.flush()
    await one.flush()
    results = CallResults(ok=2, failed={"timeout": 1})
    for _ in range(2):  # sent once more, it must not be counted again
        seen = await world.usage_store("new").recent_calls()
        assert seen == RecentCalls(minute=results, hour=results, last_success_ms=last_success_ms)
    assert (await world.seen())["a"].minute == Counts(failed=1)
    world.now_s += 70
    one.count_result("a", "failed")
    await one.flush()
    later = await world.usage_store("new").recent_calls()
    assert later.minute == CallResults(failed={"failed": 1})
    assert later.hour == CallResults(ok=2, failed={"failed": 1, "timeout": 1})
    assert "!" not in await world.seen()
    world.now_s += 2 * 3600
    assert await world.usage_store("new").recent_calls() == RecentCalls(last_success_ms=last_success_ms)


async def test_a_window_of_ten_seconds_is_counted_as_one(world: World) -> None:
    """The worst window reported is that of the budget's length."""
    usage_store = world.usage_store("one", window_s=10.0)
    for after_s in (0, 4, 9.9, 10):
        world.now_s = NOON_S + after_s
        usage_store.count_call("a")
    assert await usage_store.worst() == WorstWindows(minute=3, hour=3)


async def test_garbage_is_replaced(world: World) -> None:
    """Garbage and wrong types under the keys cost the counts there, but never cause a fault, and counting continues."""
    one = world.usage_store("one")
    one.count("a", "turns", 2)
    await one.flush()
    [key] = world.server.run("KEYS", "*:m:*")
    world.server.run("HSET", key, "a:turns", "many", "b:turns", "9" * 40, "@:x", "1", "#one", "nonsense")
    for other in world.server.run("KEYS", "*:s:*"):
        world.server.run("SET", other, "garbage")
    assert set(await world.seen()) <= {"a", "b"}
    one.count("a", "turns", 3)
    one.count("b", "turns", 1)
    await one.flush()
    assert (await world.seen())["a"].minute.turns == 3
    world.server.run("SET", key, "garbage")
    one.count("a", "turns", 4)
    await one.flush()
    assert (await world.seen())["a"].hour.turns == 4
