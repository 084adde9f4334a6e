"""Checks that URLs name servers and contain no secrets; detection of loopback addresses."""

import ipaddress
from collections.abc import Iterator
from urllib.parse import SplitResult, parse_qs, urlsplit

from service.configuration.errors import SettingFault
from service.settings import RedisSettings

_PATH = "redis.url"
_PASSWORD = "the URL contains a password and is logged; use redis.password_file or redis.password_env"  # noqa: S105 - a text


def is_loopback(host: str | None) -> bool:
    """Return whether only this machine can connect to that address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def proxy_url_faults(path: str, url: str) -> Iterator[SettingFault]:
    """Return the faults of a forward proxy's URL."""
    try:
        parts = urlsplit(url)
        is_url = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0 and parts.path in ("", "/")
    except ValueError:
        is_url = False
    if not is_url or not url.isascii() or not url.isprintable():
        yield SettingFault(path=path, text="expected http://HOST:PORT")
    elif "@" in parts.netloc:
        text = "contains a user or a password, which would be logged; use proxy_username and proxy_password_file"
        yield SettingFault(path=path, text=text)


def redis_url_faults(redis: RedisSettings) -> Iterator[SettingFault]:
    """Return the faults of the URL. Several `host:port`, joined by commas, are for sentinel and cluster."""
    try:
        parts = urlsplit(redis.url)
    except ValueError:
        yield SettingFault(path=_PATH, text="is not a URL")
        return
    user, _, hosts = parts.netloc.rpartition("@")
    if ":" in user or "password" in parse_qs(parts.query):
        yield SettingFault(path=_PATH, text=_PASSWORD)
    match parts.scheme:
        case "redis" | "rediss":
            yield from _tcp_faults(hosts, parts, redis.mode)
        case "unix":
            if not parts.path:
                yield SettingFault(path=_PATH, text="lacks the path of a socket (unix:///run/valkey.sock)")
            if redis.mode != "single":
                yield SettingFault(path=_PATH, text=f"a unix socket is not possible with redis.mode {redis.mode}")
        case _:
            yield SettingFault(path=_PATH, text="expected redis://, rediss:// or unix://")


def _tcp_faults(hosts: str, parts: SplitResult, mode: str) -> Iterator[SettingFault]:
    addresses = hosts.split(",")
    if len(addresses) > 1 and mode == "single":
        yield SettingFault(path=_PATH, text="several hosts need redis.mode sentinel or cluster")
    for address in addresses:
        try:
            single = urlsplit(f"//{address}")
            if not single.hostname:
                yield SettingFault(path=_PATH, text="names no host")
            elif single.port == 0:  # reading the port raises ValueError if it is invalid
                yield SettingFault(path=_PATH, text="the port must be from 1 to 65535")
        except ValueError:
            yield SettingFault(path=_PATH, text="the port must be from 1 to 65535")
    database = parts.path.strip("/")
    if database and not (database.isascii() and database.isdecimal() and len(database) <= 5):
        yield SettingFault(path=_PATH, text="the database (after the slash) must be a number")
    elif mode == "cluster" and database not in ("", "0"):
        yield SettingFault(path=_PATH, text="a cluster has only database 0")
