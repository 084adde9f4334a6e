"""Detection of requests that a browser sends for a foreign web page (Fetch Metadata, and RFC 6454 for `Origin`)."""

import ipaddress
from functools import lru_cache

from service.observe.request import HeaderFields

_SAFE = frozenset(("GET", "HEAD", "OPTIONS"))


def cross_origin_status(method: str, fields: HeaderFields, *, is_open: bool) -> int | None:
    """Return the status to reject a cross-origin request with, or None to accept the request.

    Unsafe methods are always rejected. If `is_open`, no credential is needed: then safe methods are rejected too, and
    only loopback host names are served (421 for others, RFC 9110, 15.5.20), to prevent DNS rebinding. Navigation by
    a safe method is allowed, since the foreign page can't read the response.
    """
    host = fields.get(b"host")
    if is_open and host is not None and not _is_loopback(host):
        return 421
    if method in _SAFE and (not is_open or fields.get(b"sec-fetch-mode") == b"navigate"):
        return None
    match fields.get(b"sec-fetch-site"):
        case b"same-origin":
            return None
        case b"cross-site":
            return 403
    origin = fields.get(b"origin")
    is_own = origin is None or (host is not None and origin.partition(b"://")[2].lower() == host.lower())
    return None if is_own else 403


@lru_cache(maxsize=64)
def _is_loopback(host: bytes) -> bool:
    name = host.decode("latin-1").lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
