"""System resources that the server needs before it listens: a socket, and enough open files."""

import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

SEND_BUFFER_BYTES = 128 * 1024
"""Per connection, in the kernel, which uses up to twice as much: a fixed size limits the memory of unread responses."""
RESERVED_FILES = 128
"""Files for everything but clients: Redis, the upstream, metrics, configuration files, the interpreter."""

log = structlog.get_logger("taskgate.serving")


class CannotListen(Exception):
    """The address is in use, not local, or otherwise unavailable."""


def listening_socket(host: str, port: int, *, reader_timeout_s: float) -> socket.socket:
    """Return a socket bound to an address. Raise CannotListen.

    Connections inherit its options. Linux closes those whose client reads nothing for `reader_timeout_s`, even if the
    rest of the response has left this process.
    """
    with raising_cannot_listen(host, port):
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, proto)
        try:
            listening.setblocking(False)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            if sys.platform == "linux":
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(reader_timeout_s * 1000))
            listening.bind(address)
        except OSError:
            listening.close()
            raise
    return listening


@contextmanager
def raising_cannot_listen(host: str, port: int) -> Iterator[None]:
    """Convert the system's errors into CannotListen with the address."""
    try:
        yield
    except OSError as exc:
        raise CannotListen(f"{host} port {port}: {exc.strerror or exc}") from exc


def raise_file_limit(connections: int, *, reserved: int = RESERVED_FILES) -> int:
    """Raise the soft limit as far as allowed, and return how many connections fit below it; warn if those are fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + reserved
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return connections
    allowed = max(1, soft - reserved)
    log.warning("server.low_file_limit", connections_max=connections, connections=allowed, files=soft)
    return allowed
