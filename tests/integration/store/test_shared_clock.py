"""The clock that all replicas share, on a real Valkey, for machines whose own clocks are wrong."""

import time
from collections.abc import AsyncIterator, Sequence

import pytest
from structlog.testing import capture_logs

from service.settings import RedisSettings
from service.store.redis_store import RedisStore
from service.store.shared_clock import SharedClock
from tests.servers import Server


@pytest.fixture
async def store(valkey: Server) -> AsyncIterator[RedisStore]:
    store = RedisStore(RedisSettings(url=valkey.url, timeout_s=5.0))
    yield store
    await store.aclose()


async def test_replicas_with_wrong_clocks_agree(store: RedisStore) -> None:
    """A machine an hour ahead and one a day behind read the time of Redis, and report their own skew."""
    clocks = {
        off_s: SharedClock(store, prefix="t", wall=lambda off_s=off_s: time.time() + off_s)
        for off_s in (3600.0, -86_400.0, 0.0)
    }  # type: ignore[misc]
    with capture_logs() as logs:
        for off_s, clock in clocks.items():
            assert clock.skew_s is None
            assert clock() == pytest.approx(time.time() + off_s, abs=3)
            await clock.__aenter__()
    for off_s, clock in clocks.items():
        assert clock() == pytest.approx(time.time(), abs=3)
        assert clock.skew_s == pytest.approx(off_s, abs=3)
        await clock.__aexit__()
    assert [(each["event"], each["ahead_of_redis_s"]) for each in logs] == [
        ("clock.skewed", pytest.approx(3600, abs=3)),
        ("clock.skewed", pytest.approx(-86_400, abs=3)),
    ]


class ServerTime:
    """A server whose time is set by a test; its answers take `takes_s`."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.server_s = 5_000.0
        self.takes_s = (0.0, 0.0)

    def script(self, _: str) -> "ServerTime":
        """Return itself as the script."""
        return self

    async def __call__(self, keys: Sequence[str], args: Sequence[str]) -> list[object]:
        """Return the time."""
        out_s, back_s = self.takes_s
        self.now_s += out_s
        time_s = self.now_s + self.server_s
        self.now_s += back_s
        return [b"%d" % int(time_s), b"%d" % round(time_s % 1 * 1e6)]


@pytest.fixture
def server() -> ServerTime:
    return ServerTime()


@pytest.fixture
def clock(server: ServerTime) -> SharedClock:
    return SharedClock(server, prefix="t", wall=lambda: 0.0, monotonic=lambda: server.now_s)  # type: ignore[arg-type]


async def test_a_slow_answer_moves_nothing(server: ServerTime, clock: SharedClock) -> None:
    """A precise offset is not replaced after an answer that was slow, in either direction."""
    await clock.ask()
    for server.takes_s in ((5.0, 0.0), (0.0, 5.0), (2.0, 2.0)):
        await clock.ask()
        assert clock() == pytest.approx(server.now_s + server.server_s)


async def test_a_quick_answer_corrects_a_slow_one(server: ServerTime, clock: SharedClock) -> None:
    """The first answer is late; the next ones show by how much, and the time never goes back by that."""
    server.takes_s = (0.0, 3.0)
    await clock.ask()
    assert clock() == pytest.approx(server.now_s + server.server_s - 3)
    server.takes_s = (0.0, 0.001)
    await clock.ask()
    assert clock() == pytest.approx(server.now_s + server.server_s, abs=0.002)
    before_s = clock()
    server.server_s -= 0.4
    await clock.ask()
    assert clock() == before_s
    server.now_s += 0.5
    assert clock() == pytest.approx(server.now_s + server.server_s, abs=0.002)


@pytest.mark.parametrize("by_s", [3600.0, -3600.0])
async def test_a_step_of_redis_is_followed(server: ServerTime, clock: SharedClock, by_s: float) -> None:
    """All replicas follow a step of Redis' clock, so that they still agree."""
    await clock.ask()
    server.server_s += by_s
    await clock.ask()
    assert clock() == pytest.approx(server.now_s + server.server_s)
