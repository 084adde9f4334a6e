"""The ASGI interface as offered by this server, and the lifespan protocol."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

import msgspec
import structlog

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Messages = tuple[Message, Message]
"""A complete response: its start and its body."""
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class EncodedResponse(msgspec.Struct, frozen=True, gc=False):
    """A complete response to a GET. `lines` are those of its head (`head_lines`), including its length; the server adds
    the fields that depend on the moment and on the connection."""

    lines: bytes
    body: bytes


Client = tuple[str, int]
"""A peer's address and port."""
Refuse = Callable[[int, Client | None], Messages]
"""Return the response to a request that never reaches the app, by its status and client."""

log = structlog.get_logger("taskgate.serving")


class ResponseLookup(Protocol):
    """Returns responses that need no await; None means that the app must be called."""

    def lookup_head(self, head: bytes, client: Client | None) -> EncodedResponse | None:
        """Return the response to a request whose head has the same bytes as an earlier one, without parsing it.

        The earlier one must be a GET over HTTP/1.1 without a body that leaves its connection open.
        """
        ...

    def lookup(self, scope: Scope, head: bytes) -> EncodedResponse | None:
        """Return the response to a parsed request."""
        ...


class StartFailed(Exception):
    """The app failed to start; the log says why."""


class Lifespan:
    """Drives an app's lifespan: one task that receives `startup`, then `shutdown`."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._events: asyncio.Queue[Message] = asyncio.Queue(maxsize=2)
        self._app_reply: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Start the app. Raise StartFailed if it does not start."""
        self._task = asyncio.create_task(self._run(), name="lifespan")
        if await self._ask("startup") != "complete":
            raise StartFailed("the app did not start")

    async def shutdown(self) -> None:
        """Shut the app down and wait until it has finished."""
        if self._task is not None and not self._task.done():
            self._app_reply = asyncio.get_running_loop().create_future()
            await self._ask("shutdown")
            await self._task

    async def _ask(self, event: str) -> str:
        self._events.put_nowait({"type": f"lifespan.{event}"})
        return await self._app_reply

    async def _run(self) -> None:
        try:
            await self._app({"type": "lifespan", "asgi": {"version": "3.0"}}, self._events.get, self._send)
        except Exception:
            log.exception("server.lifespan_failed")
        if not self._app_reply.done():
            self._app_reply.set_result("failed")

    async def _send(self, message: Message) -> None:
        if message["type"].endswith(".failed"):
            log.error("server.lifespan_failed", reason=message.get("message", ""))
        if not self._app_reply.done():
            self._app_reply.set_result(message["type"].rpartition(".")[2])
