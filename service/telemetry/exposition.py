"""`GET /metrics` on a port of its own: HTTP/1.1, one request a connection, everything bounded."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus

import structlog

HEAD_MAX_BYTES = 8 * 1024
REQUEST_S = 5.0
"""How long one request may take, from the connection to its end."""
CONNECTIONS_MAX = 16

Text = Callable[[str], tuple[str, bytes]]
"""From an `Accept` field to the type and text of all metrics."""

log = structlog.get_logger(__name__)


class CannotExpose(Exception):
    """The address for metrics is taken, not ours, or not to be had."""


@asynccontextmanager
async def exposed(text: Text, *, host: str, port: int) -> AsyncIterator[int]:
    """Serve as long as this lasts; yields the port, which was chosen where 0 was asked for. Raises CannotExpose."""
    door = _Door(text)
    try:
        server = await asyncio.start_server(door.serve, host, port, limit=HEAD_MAX_BYTES, backlog=CONNECTIONS_MAX)
    except OSError as exc:
        # The server tells no more than that the start has failed; a traceback would tell no more than this.
        log.error("metrics.cannot_listen", host=host, port=port, reason=exc.strerror)  # noqa: TRY400
        raise CannotExpose(f"{host} port {port}: {exc.strerror or exc}") from exc
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await door.aclose()
        await server.wait_closed()


class _Door:
    """Answers scrapes."""

    def __init__(self, text: Text) -> None:
        self._text = text
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        task = asyncio.current_task()
        if task is None or len(self._tasks) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        self._tasks.add(task)
        try:
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(REQUEST_S):
                    writer.write(await self._answer(reader))
                    await writer.drain()
                    writer.close()
                    await writer.wait_closed()
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def aclose(self) -> None:
        """End what is under way."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        first, *lines = head.decode("latin-1").split("\r\n")
        method, _, rest = first.partition(" ")
        target, _, version = rest.partition(" ")
        if not version.startswith("HTTP/1."):
            return _response(HTTPStatus.BAD_REQUEST)
        if target.partition("?")[0] != "/metrics":
            return _response(HTTPStatus.NOT_FOUND)
        if method != "GET":
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, extra="Allow: GET\r\n")
        accept = next((line[7:] for line in lines if line[:7].lower() == "accept:"), "")
        try:
            kind, body = self._text(accept)
        except Exception:
            log.exception("metrics.failed")
            return _response(HTTPStatus.INTERNAL_SERVER_ERROR)
        return _response(HTTPStatus.OK, body, kind=kind)


def _response(status: HTTPStatus, body: bytes = b"", *, kind: str = "text/plain", extra: str = "") -> bytes:
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        f"{extra}Connection: close\r\n\r\n"
    )
    return head.encode() + body
