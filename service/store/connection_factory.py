"""Addresses of Redis servers, and how to connect to them."""

from collections.abc import Awaitable, Callable
from copy import copy
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec
from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

_CREDENTIALS = frozenset({"db", "username", "password"})


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A server's host and port; a Unix socket has neither."""

    host: str = ""
    port: int = 0


class ConnectionFactory:
    """Creates connections, not yet opened, with the credentials and TLS settings of one URL.

    redis-py's own retries and timeouts are off: a repeated script would run twice, and the user of a connection sets
    one deadline for everything it does. Uses RESP2, since the listener reads plain arrays.
    """

    def __init__(
        self,
        url: str,
        *,
        default_port: int,
        username: str | None = None,
        password: str | None = None,
        ca_file: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
    ) -> None:
        """`url` is redis://, rediss:// or unix://, with multiple hosts separated by commas. Raise ValueError.

        The files are for TLS: the CAs to trust instead of the public ones, the client certificate and its key.
        """
        first, self.addresses = _split_hosts(url, default_port)
        options: dict[str, Any] = dict(parse_url(first))
        self._class: Callable[..., AbstractConnection] = options.pop("connection_class", Connection)
        for name in ("host", "port"):
            options.pop(name, None)
        given = {"username": username, "password": password}
        if first.startswith("rediss://"):
            given |= {"ssl_ca_certs": ca_file, "ssl_certfile": cert_file, "ssl_keyfile": key_file}
        options |= {name: value for name, value in given.items() if value is not None}
        fixed: dict[str, Any] = {
            "protocol": 2,
            "driver_info": None,
            "socket_timeout": None,
            "socket_connect_timeout": None,
        }
        self._options = options | fixed
        self.database = int(options.get("db", 0))
        try:
            self.connection(self.addresses[0])
        except TypeError as exc:
            raise ValueError("the Redis URL has a parameter that is not known") from exc

    def for_sentinels(self, password: str | None) -> "ConnectionFactory":
        """Return a factory with the same TLS settings but no database or credentials: Sentinels have their own."""
        other = copy(self)
        other._options = {name: value for name, value in self._options.items() if name not in _CREDENTIALS}
        if password is not None:
            other._options["password"] = password
        return other

    def connection(self, address: Address) -> AbstractConnection:
        """Return a connection that opens on first use."""
        where: dict[str, Any] = {"host": address.host, "port": address.port} if address.host else {}
        return self._class(retry=Retry(NoBackoff(), 0), **where, **self._options)


async def opened(connection: AbstractConnection) -> None:
    """Open and authenticate a connection, unless it is already open."""
    connect: Callable[[], Awaitable[None]] = connection.connect  # untyped in redis-py
    if not connection.is_connected:
        await connect()


def _split_hosts(url: str, default_port: int) -> tuple[str, tuple[Address, ...]]:
    """Return the URL with only its first host, and all of its addresses."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return url, (Address(),)
    user, at, hosts = parts.netloc.rpartition("@")
    texts = hosts.split(",")
    addresses = tuple(_address(text, default_port) for text in texts)
    return urlunsplit(parts._replace(netloc=f"{user}{at}{texts[0]}")), addresses


def _address(text: str, default_port: int) -> Address:
    parts = urlsplit(f"//{text}")
    try:
        port = parts.port
    except ValueError as exc:
        raise ValueError("the Redis URL has a port that is not a number from 0 to 65535") from exc
    if not parts.hostname:
        raise ValueError("the Redis URL names no host")
    return Address(host=parts.hostname, port=port or default_port)
