"""Request headers (called heads): llhttp parses the syntax; the checks that RFC 9112 leaves to the recipient are
here."""

import re
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_to_bytes

import httptools
import msgspec

from service.server.asgi import Scope

END = b"\r\n\r\n"
FIELDS_MAX = 100
"""The most field lines in a head."""

_HOST = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2}){1,255})(?::[0-9]{0,5})?"
)
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32} ")
_ASGI = {"version": "3.0", "spec_version": "2.4"}


class InvalidHead(Exception):
    """A request header that can't be served; `status` is that of the refusal."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class RequestHead(msgspec.Struct, gc=False):
    """A request as described by its header. `has_more` says that a body or another protocol follows."""

    scope: Scope
    is_1_1: bool
    is_head: bool
    keep_alive: bool
    has_more: bool


class HeadParser:
    """Converts heads into ASGI scopes. One instance serves all connections, since every head is passed to it whole."""

    def __init__(self) -> None:
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._hosts: list[bytes] = []
        self._has_head = self._has_body = self._keep_alive = False
        self._parser = httptools.HttpRequestParser(self)

    def parse(self, head: bytes) -> RequestHead:
        """Return the request of a head, which ends with an empty line. Raise InvalidHead."""
        self._target, self._headers, self._hosts = b"", [], []
        self._has_head, self._has_body = False, True
        has_more = False
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserUpgrade:  # no other protocol is supported, so the request is served as it is
            has_more = True
        except httptools.HttpParserError as exc:
            self._renew()
            is_method = isinstance(exc, httptools.HttpParserInvalidMethodError) and _METHOD.match(head)
            raise InvalidHead(501 if is_method else 400) from exc
        method, version = self._parser.get_method(), self._parser.get_http_version()
        keep_alive = self._keep_alive
        if has_more or self._has_body:
            has_more, keep_alive = True, False
        if not keep_alive:  # the parser accepts nothing after that
            self._renew()
        if not self._has_head or version not in ("1.1", "1.0"):
            raise InvalidHead(400)
        if len(self._headers) > FIELDS_MAX:
            raise InvalidHead(431)
        is_1_1 = version == "1.1"
        scope = self._scope(method.decode("ascii"), version)
        return RequestHead(
            scope=scope, is_1_1=is_1_1, is_head=method == b"HEAD", keep_alive=keep_alive, has_more=has_more
        )

    def _scope(self, method: str, version: str) -> Scope:
        target, authority = self._target, None
        if not target.startswith(b"/"):
            target, authority = _other_form(target, method)
        self._check_host(version)
        if authority is not None:  # RFC 9112, 3.2.2: it replaces Host
            self._headers = [(b"host", authority), *(field for field in self._headers if field[0] != b"host")]
        raw_path, _, query = target.partition(b"?")
        if b"#" in target:
            raise InvalidHead(400)
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "method": method,
            "scheme": "http",
            "path": raw_path.decode("ascii") if b"%" not in raw_path else _decode(raw_path),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": self._headers,
            "state": {},
        }

    def _check_host(self, version: str) -> None:
        """Check Host (RFC 9112, 3.2): exactly one in HTTP/1.1, and never two or an invalid one."""
        hosts = self._hosts
        if len(hosts) > 1 or (not hosts and version == "1.1") or (hosts and not is_host(hosts[0])):
            raise InvalidHead(400)

    def _renew(self) -> None:
        """Replace the parser; called when the old one expects no further request."""
        self._parser = httptools.HttpRequestParser(self)

    # Called by llhttp:

    def on_message_begin(self) -> None:
        """Reject a second message in input that was passed as one head."""
        if self._has_head:
            raise InvalidHead(400)

    def on_url(self, target: bytes) -> None:
        """Store the target."""
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a field line, without the white space behind it (RFC 9112, 5.1), which the parser leaves there."""
        name, value = name.lower(), value.rstrip(b" \t")
        if name == b"host":
            self._hosts.append(value)
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Record the end of the head, while the parser still has the state of its connection."""
        self._has_head = True
        self._keep_alive = self._parser.should_keep_alive()

    def on_message_complete(self) -> None:
        """Record that no body follows."""
        self._has_body = False


def _other_form(target: bytes, method: str) -> tuple[bytes, bytes | None]:
    """Return the path and query of a target that does not begin with a slash, and its authority. Raise InvalidHead."""
    if target == b"*" and method == "OPTIONS":
        return target, None
    try:
        url: Any = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError as exc:
        raise InvalidHead(400) from exc
    if url.schema is None or url.schema.lower() not in (b"http", b"https") or not url.host or url.userinfo:
        raise InvalidHead(400)
    host = b"[%b]" % url.host if b":" in url.host else url.host
    authority = host if url.port is None else b"%b:%d" % (host, url.port)
    if not is_host(authority):
        raise InvalidHead(400)
    path = url.path or b"/"
    return path if url.query is None else b"%b?%b" % (path, url.query), authority


@lru_cache(maxsize=64)
def is_host(value: bytes) -> bool:
    """Return whether this is a valid value of Host (RFC 9112, 3.2)."""
    return _HOST.fullmatch(value) is not None


def _decode(raw_path: bytes) -> str:
    """Return the ASGI path: unquoted, with U+FFFD for invalid UTF-8."""
    return unquote_to_bytes(raw_path).decode("utf-8", "replace")
