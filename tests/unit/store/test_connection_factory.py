"""Redis URLs with one host or several, and those refused before anything is opened."""

import pytest

from service.settings import RedisSettings
from service.store.connection_factory import Address, ConnectionFactory
from service.store.listener import pause_s
from service.store.redis_store import RedisStore


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("redis://cache", [("cache", 6379)]),
        ("redis://cache:7000/2", [("cache", 7000)]),
        ("rediss://u:p@cache:7000", [("cache", 7000)]),
        ("redis://a:1,b:2,c", [("a", 1), ("b", 2), ("c", 6379)]),
        ("redis://u:p%40ss@a:1,[::1]:2/0", [("a", 1), ("::1", 2)]),
        ("unix:///run/valkey.sock", [("", 0)]),
    ],
)
def test_addresses_are_read(url: str, addresses: list[tuple[str, int]]) -> None:
    """All hosts of a URL are found, each with its port or the default one."""
    dialer = ConnectionFactory(url, default_port=6379)
    assert dialer.addresses == tuple(Address(host=host, port=port) for host, port in addresses)


def test_credentials_go_to_servers_and_not_to_sentinels() -> None:
    """A connection has the URL's user and the password given; one to a Sentinel has neither, but its own."""
    dialer = ConnectionFactory("redis://me:old@a:1,b:2/3", default_port=6379, password="new")
    connection = dialer.connection(dialer.addresses[1])
    assert (connection.username, connection.password, connection.db) == ("me", "new", 3)
    to_sentinel = dialer.for_sentinels("theirs").connection(dialer.addresses[1])
    assert (to_sentinel.username, to_sentinel.password, to_sentinel.db) == (None, "theirs", 0)


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("http://cache", "single"),
        ("redis://", "single"),
        ("redis://a,b", "single"),
        ("redis://a:99999", "single"),
        ("redis://a?no_such_thing=1", "single"),
        ("redis://a/1", "cluster"),
        ("unix:///run/valkey.sock", "sentinel"),
        ("unix:///run/valkey.sock", "cluster"),
    ],
)
async def test_faulty_settings_are_refused_at_start(url: str, mode: str) -> None:
    """A URL that can't work is a ValueError when the store is made."""
    with pytest.raises(ValueError, match=r"Redis URL|redis\.url"):
        RedisStore(RedisSettings(url=url, mode=mode))


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_pauses_of_the_listener_grow_to_a_bound(chance: float) -> None:
    """Pauses never shrink with failures, stay within half a second, and begin below 50 ms."""
    pauses = [pause_s(failures, chance) for failures in range(1, 100)]
    assert pauses == sorted(pauses)
    assert pauses[0] <= 0.05
    assert 0.2 < pauses[-1] <= 0.5
