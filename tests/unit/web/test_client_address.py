"""The client's address is the peer's, unless a trusted proxy forwards another one."""

import pytest

from service.web.client_address import HOPS_MAX, ClientAddresses

PROXIES = ("10.0.0.0/8", "2001:db8::/32")


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.1", b"198.51.100.7", "192.0.2.1"),
        ("10.1.2.3", b"", "10.1.2.3"),
        ("10.1.2.3", b"198.51.100.7", "198.51.100.7"),
        ("::ffff:10.1.2.3", b"198.51.100.7", "198.51.100.7"),
        ("2001:db8::1", b"2001:DB9::7", "2001:db9::7"),
        ("10.1.2.3", b"203.0.113.1, 198.51.100.7, 10.9.9.9", "198.51.100.7"),
        ("10.1.2.3", b"10.7.7.7,10.9.9.9", "10.7.7.7"),
        ("10.1.2.3", b"203.0.113.1, unknown", "10.1.2.3"),
        ("10.1.2.3", b"198.51.100.7, 10.9.9.9, x", "10.1.2.3"),
        ("10.1.2.3", b'fe80::1%"\n', "10.1.2.3"),
        ("10.1.2.3", b"203.0.113.1" + b", 10.0.0.1" * HOPS_MAX, "10.0.0.1"),
    ],
)
def test_addresses_forwarded_by_trusted_proxies_count(peer: str, forwarded: bytes, expected: str) -> None:
    """Addresses are read from the last one backwards, as long as a trusted proxy has written them."""
    fields = {b"x-forwarded-for": forwarded} if forwarded else {}
    assert ClientAddresses(PROXIES).of((peer, 1), fields) == expected


def test_without_trusted_proxies_nothing_forwarded_counts() -> None:
    """By default the address is the peer's; a Unix socket has none."""
    fields = {b"x-forwarded-for": b"198.51.100.7"}
    assert ClientAddresses().of(("127.0.0.1", 1), fields) == "127.0.0.1"
    assert ClientAddresses(PROXIES).of(None, fields) is None
