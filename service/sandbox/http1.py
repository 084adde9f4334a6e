"""A small HTTP/1.1 server for the sandbox: ASGI can't hang up, cut off or flood, and faults need all three.

Requests have a Content-Length or no body; connections are kept alive; heads, bodies, connections and idle time are
bounded.
"""

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import parse_qsl, urlsplit

import msgspec

from service.sandbox.errors import PortTaken

HEAD_MAX = 32 * 1024
BODY_MAX = 8 * 1024 * 1024
CONNECTIONS_MAX = 2000
IDLE_S = 60.0
_PIECE = b" " * 65_536
_LENGTH = re.compile(rb"\r\ncontent-length[ \t]*:[ \t]*(\d{1,12})[ \t]*(?=\r\n)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection[ \t]*:[ \t]*close[ \t]*(?=\r\n)", re.IGNORECASE)
_CODED = re.compile(rb"\r\ntransfer-encoding[ \t]*:", re.IGNORECASE)


class SandboxRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `parameters` are those of the query string, in order, including blank ones."""

    method: str
    path: str
    parameters: tuple[tuple[str, str], ...]
    body: bytes
    close: bool


class HttpResponse(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, followed by `padding` spaces. `send` bytes of the body are sent, by default all.

    Without `declared` no length is sent, and the end of the connection ends the body.
    """

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    send: int | None = None
    padding: int = 0
    declared: bool = True


class Disconnection(msgspec.Struct, frozen=True, kw_only=True):
    """No answer: the connection is held for `hold_s` seconds and then closed, by an RST if `reset` is set."""

    hold_s: float = 0
    reset: bool = False


SandboxReply = HttpResponse | Disconnection
SandboxHandler = Callable[[SandboxRequest], Awaitable[SandboxReply]]


@asynccontextmanager
async def serve_http(handler: SandboxHandler, *, host: str, port: int) -> AsyncIterator[str]:
    """Serve while the context lasts; yield the base URL. Port 0 picks a free one. Raise PortTaken.

    At the end, close every connection, finished or not.
    """
    open_connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(open_connections) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        open_connections.add(task)
        try:
            await _serve(handler, reader, writer)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass  # the peer has disconnected, or has been silent for too long
        except asyncio.CancelledError:
            writer.transport.abort()  # the server is stopping; the cancellation of this task is not awaited
        finally:
            open_connections.discard(task)
            writer.close()

    try:
        server = await asyncio.start_server(connected, host, port, limit=HEAD_MAX, backlog=1024)
    except OSError as exc:
        raise PortTaken(host=host, port=port, reason=exc.strerror or str(exc)) from exc
    try:
        bound_host, bound_port = server.sockets[0].getsockname()[:2]
        yield f"http://[{bound_host}]:{bound_port}" if ":" in bound_host else f"http://{bound_host}:{bound_port}"
    finally:
        server.close()
        for task in tuple(open_connections):
            task.cancel()
        if open_connections:
            await asyncio.wait(open_connections, timeout=5)


async def _serve(handler: SandboxHandler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request after another until one side closes."""
    while True:
        request = await _read(reader)
        if request is None:
            return
        reply = request if isinstance(request, HttpResponse) else await handler(request)
        if isinstance(reply, Disconnection):
            await _hang_up(reply, reader, writer)
            return
        close = isinstance(request, HttpResponse) or request.close or reply.send is not None or not reply.declared
        await _write(reply, writer, close=close)
        if close:
            return


async def _read(reader: asyncio.StreamReader) -> SandboxRequest | HttpResponse | None:
    """Read one request; return None if the peer has closed, an answer if it can't be served."""
    try:
        async with asyncio.timeout(IDLE_S):
            head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return _fault(431, f"the head is longer than {HEAD_MAX} bytes")
    except asyncio.IncompleteReadError as exc:
        return _fault(400, "the head is cut off") if exc.partial else None
    line, _, _ = head.partition(b"\r\n")
    parts = line.decode("latin-1").split(" ")
    if len(parts) != 3 or parts[2] not in ("HTTP/1.0", "HTTP/1.1"):
        return _fault(400, "not a request of HTTP/1.1")
    if _CODED.search(head):
        return _fault(501, "bodies need a Content-Length")
    lengths = {int(length) for length in _LENGTH.findall(head)} or {0}
    length = lengths.pop()
    if lengths:
        return _fault(400, "Content-Length contradicts itself")
    if length > BODY_MAX:
        return _fault(413, f"the body is longer than {BODY_MAX} bytes")
    async with asyncio.timeout(IDLE_S):
        body = await reader.readexactly(length) if length else b""
    try:
        target = urlsplit(parts[1])
        parameters = tuple(parse_qsl(target.query, keep_blank_values=True, max_num_fields=100))
    except ValueError:
        return _fault(400, "the target can't be read")
    return SandboxRequest(
        method=parts[0],
        path=target.path,
        parameters=parameters,
        body=body,
        close=parts[2] == "HTTP/1.0" or _CLOSE.search(head) is not None,
    )


def _fault(status: int, text: str) -> HttpResponse:
    return HttpResponse(status=status, body=msgspec.json.encode({"error": text}))


async def _write(answer: HttpResponse, writer: asyncio.StreamWriter, *, close: bool) -> None:
    phrase = HTTPStatus(answer.status).phrase if answer.status in HTTPStatus._value2member_map_ else "Other"
    head = [
        f"HTTP/1.1 {answer.status} {phrase}",
        f"Date: {formatdate(usegmt=True)}",
        f"Content-Type: {answer.content_type}",
        f"Connection: {'close' if close else 'keep-alive'}",
    ]
    if answer.declared:
        head.append(f"Content-Length: {len(answer.body) + answer.padding}")
    body = answer.body if answer.send is None else answer.body[: answer.send]
    writer.write("\r\n".join((*head, "", "")).encode("latin-1") + body)
    left = answer.padding
    while left > 0:
        writer.write(_PIECE[:left])
        left -= len(_PIECE)
        await writer.drain()
    await writer.drain()


async def _hang_up(reply: Disconnection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Stay silent until the hold is over or the peer has disconnected, then close."""
    if reply.hold_s > 0:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(reply.hold_s):
                await reader.read(1)
    if reply.reset:
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
