"""With garbage in every key of an app in Redis, everything that reads it continues, and nothing is a 500."""

from collections.abc import Callable

import pytest

from tests.scenes.fleet import APP, fleet
from tests.servers import Server

PATHS = ("/budget", "/usage", "/usage?since=-P1D", "/tasks?limit=1", "/tasks?limit=1&q=other", "/tasks/1")


def _text(server: Server, key: bytes) -> None:
    server.run("SET", key, b"\xff\xfe" * 20)


def _list(server: Server, key: bytes) -> None:
    server.run("RPUSH", key, b"\xff")


def _counts(server: Server, key: bytes) -> None:
    far = "9" * 18
    odd = ("@:\u00b2", "5", "!:\u00e9", "-1", "^:ok_ms", far, "c0:turns", far, ":", "1")
    server.run("HSET", key, b"\xff:turns", b"\xb2", *odd)


def _scores(server: Server, key: bytes) -> None:
    server.run("ZADD", key, "inf", b"\xff", "-inf", "b", "1e300", "c")


@pytest.mark.parametrize("garbage", [_text, _list, _counts, _scores])
async def test_requests_are_served_with_garbage_in_every_key(
    own_valkey: Server, garbage: Callable[[Server, bytes], None]
) -> None:
    """Budget, usage, pages and single tasks are answered, without a traceback, and pages come from the upstream."""
    async with fleet(own_valkey, replicas=1, weights={"c0": 1.0}) as at:
        for path in PATHS:
            assert (await at.ask(0, path, caller="c0")).status in (200, 404), path
        keys = own_valkey.run("KEYS", f"*{{{APP.name}}}*")
        assert len(keys) > 8
        for key in keys:
            own_valkey.run("DEL", key)
            garbage(own_valkey, key)
            own_valkey.run("PEXPIRE", key, 60_000)
        statuses = {path: (await at.ask(0, path, caller="c0")).status for path in PATHS}
        assert set(statuses.values()) <= {200, 404}, statuses
        assert (await at.page(0, q="fetched again")).status == 200
        log = at.replicas[0].log()
        assert "Traceback" not in log
        assert '"level":"error"' not in log
