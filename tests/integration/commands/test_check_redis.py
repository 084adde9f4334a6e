"""`taskgate check --redis`: refused commands, and unsuitable settings of Redis."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.commands.check_redis import check_redis
from service.settings import AppSettings, RedisSettings, Settings
from service.store.inspection import log_redis_advice
from service.store.redis_store import RedisStore
from tests.servers import BINARIES, Guarded, Server

LINE = next(
    line
    for line in (Path(__file__).parents[3] / "docs" / "deploying.md").read_text().splitlines()
    if line.startswith("ACL SETUSER")
)


@pytest.fixture(scope="module", params=BINARIES)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(binary=BINARIES[request.param]) as server:
        server.run("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
        yield server


@pytest.fixture(autouse=True)
def _unconfigured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Logging stays as other tests need it."""
    monkeypatch.setattr("service.commands.check_redis.configure", lambda *_, **__: None)
    with capture_logs():
        yield


def settings(url: str, **redis: str) -> Settings:
    app = AppSettings(sdkappid=1, admin="a", secret_env="S")
    return Settings(apps={"shop": app}, callers={}, redis=RedisSettings(url=url, timeout_s=5.0, **redis))  # type: ignore[arg-type]


def as_user(server: Server, *rights: str) -> str:
    """The URL for the documented user with additional rights."""
    server.run(*LINE.replace("PASSWORD", "right").split(), *rights)
    return f"redis://taskgate:right@127.0.0.1:{server.port}/0"


async def test_a_suitable_redis_passes(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """The documented user on a server with a suitable policy passes all checks; nothing is left behind."""
    server.run("FLUSHALL")
    assert await check_redis(settings(as_user(server, "+config"))) == 0
    assert capsys.readouterr().out == "redis: ok\n"
    assert all(server.run("PTTL", key) > 0 for key in server.run("KEYS", "*"))


async def test_without_config_there_is_no_advice(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Without CONFIG there is no advice, and no fault."""
    server.run("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert await check_redis(settings(as_user(server, "-config"))) == 0
    server.run("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    assert capsys.readouterr().out == "redis: ok\n"


@pytest.mark.parametrize("command", ["time", "hset", "getrange", "publish", "subscribe", "eval", "scan", "set"])
async def test_a_missing_right_is_named(server: Server, capsys: pytest.CaptureFixture[str], command: str) -> None:
    """Each refused command is reported with its name, and the status is 1."""
    server.run("SCRIPT", "FLUSH")
    assert await check_redis(settings(as_user(server, f"-{command}"))) == 1
    assert command in capsys.readouterr().out


async def test_eviction_is_advised(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """`noeviction` and policies that may drop the budget are reported; they are no failure."""
    for policy, words in (("noeviction", "no new page is stored"), ("allkeys-lru", "costs a pause")):
        server.run("CONFIG", "SET", "maxmemory-policy", policy)
        assert await check_redis(settings(server.url)) == 0
        assert words in capsys.readouterr().out
    server.run("CONFIG", "SET", "maxmemory-policy", "volatile-lru")


async def test_missing_protection_from_a_split_is_logged_at_start(valkey_sentinel: Guarded) -> None:
    """With Sentinel, `min-replicas-to-write 0` is logged; 1 is silent."""
    redis = RedisSettings(url=valkey_sentinel.url, mode="sentinel", timeout_s=5.0)
    advice = []
    for number in ("0", "1", "0"):
        valkey_sentinel.first.run("CONFIG", "SET", "min-replicas-to-write", number)
        valkey_sentinel.first.run("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
        store = RedisStore(redis)
        with capture_logs() as logs:
            await log_redis_advice(store, redis)
        await store.aclose()
        advice.append([entry["advice"].partition(":")[0] for entry in logs if entry["event"] == "redis.advice"])
    assert advice == [["min-replicas-to-write is 0"], [], ["min-replicas-to-write is 0"]]


async def test_an_unreachable_redis_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """If nothing listens, every check reports that."""
    assert await check_redis(settings("redis://127.0.0.1:1/0")) == 1
    assert "unreachable" in capsys.readouterr().out
