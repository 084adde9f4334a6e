"""One Redis server: its connections, their limit, and whether to call it now."""

import asyncio
import time
from collections.abc import Sequence

import structlog
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as BrokenConnection
from redis.exceptions import ResponseError
from redis.typing import EncodableT

from service.model.errors import StoreDetail, StoreUnavailable
from service.store.breaker import Breaker
from service.store.connection_factory import Address, ConnectionFactory, opened
from service.store.faults import COSTLY, REDIS_ERRORS, tls_fault, unavailable

log = structlog.get_logger(__name__)

_Command = tuple[EncodableT, ...]


class Node:
    """Runs commands on one server, at most `connections` at once; a call waits at most `timeout_s` for a connection.

    It then waits at most the same time for its answer. Must be called from tasks that are never cancelled.
    """

    def __init__(self, address: Address, *, dialer: ConnectionFactory, connections: int, timeout_s: float) -> None:
        self.address = address
        self._dialer = dialer
        self._timeout_s = timeout_s
        self._gate = asyncio.Semaphore(connections)
        self._idle: list[AbstractConnection] = []
        self._used = 0
        self._retired = False
        self._breaker = Breaker()

    @property
    def is_trusted(self) -> bool:
        """Return whether the server answered the last call."""
        return self._breaker.detail is None

    @property
    def open_connections(self) -> int:
        """Return how many connections are open or about to be."""
        return self._used + len(self._idle)

    async def call(self, *command: EncodableT, asking: bool = False, again: bool = False) -> object:
        """Run one command. Raise redis-py's ResponseError if the server refuses it, else StoreUnavailable.

        `again` allows a second try if an idle connection turns out to be broken. `asking` follows an ASK redirect.
        """
        commands = (("ASKING",), command) if asking else (command,)
        answer = (await self.call_all(commands, again=again))[-1]
        if isinstance(answer, ResponseError):
            raise answer
        return answer

    async def call_all(self, commands: Sequence[_Command], *, again: bool = False) -> list[object]:
        """Run commands in one round trip, in order; return an answer or redis-py's ResponseError for each.

        Raise StoreUnavailable if there are no answers; some of the commands may have run.
        """
        await self._pass_gate()
        try:
            if probe := not self.is_trusted:
                self._refuse_if_away()
                self._breaker = self._breaker.admitted(time.monotonic())
            try:
                async with asyncio.timeout(self._timeout_s):
                    answers = await self._exchange(commands, again=again)
            except _Idle as exc:
                if probe:
                    self._note("unreachable", probe=True)
                raise StoreUnavailable("unreachable") from exc.__cause__
            except REDIS_ERRORS as exc:
                fault = unavailable(exc)
                if self.is_trusted and (reason := tls_fault(exc)) is not None:
                    log.warning("store.tls_failed", host=self.address.host, port=self.address.port, reason=str(reason))
                self._note(fault.detail, probe=probe)
                raise fault from exc
            self._breaker = self._breaker.answered()
            return answers
        finally:
            self._gate.release()

    async def aclose(self) -> None:
        """Close idle connections now, and those in use when they are released."""
        self._retired = True
        while self._idle:
            await self._idle.pop().disconnect(nowait=True)

    def _refuse_if_away(self) -> None:
        if detail := self._breaker.refusal(time.monotonic()):
            raise StoreUnavailable(detail)

    def _note(self, detail: StoreDetail, *, probe: bool) -> None:
        if detail in COSTLY:
            self._breaker = self._breaker.failed(time.monotonic(), detail, probe=probe)
        else:
            self._breaker = self._breaker.answered()

    async def _pass_gate(self) -> None:
        if not self._gate.locked():
            await self._gate.acquire()
            return
        self._refuse_if_away()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._gate.acquire()
        except TimeoutError as exc:
            raise StoreUnavailable(self._breaker.detail or "busy") from exc

    async def _exchange(self, commands: Sequence[_Command], *, again: bool) -> list[object]:
        reused = bool(self._idle)
        connection = self._idle.pop() if reused else self._dialer.connection(self.address)
        try:
            return await self._use(connection, commands)
        except (BrokenConnection, OSError) as exc:
            broke = type(exc) is BrokenConnection or isinstance(exc, OSError)  # its subclasses are answers
            if not reused or not broke or isinstance(exc, TimeoutError):
                raise
            if not again:  # only a new connection, as the next call opens, shows whether the server is away
                raise _Idle from exc
        while self._idle:  # the other idle connections have most likely broken, too
            await self._idle.pop().disconnect(nowait=True)
        return await self._use(self._dialer.connection(self.address), commands)

    async def _use(self, connection: AbstractConnection, commands: Sequence[_Command]) -> list[object]:
        self._used += 1
        answered = False
        try:
            if connection.is_connected and await connection.can_read():  # closed by the server, or out of sync
                await connection.disconnect(nowait=True)
            await opened(connection)
            await connection.send_packed_command(connection.pack_commands(commands))
            answers = [await _answer_of(connection) for _ in commands]
            answered = True
            return answers
        finally:
            self._used -= 1
            if not answered or self._retired:
                await connection.disconnect(nowait=True)
            elif connection.is_connected:
                self._idle.append(connection)


async def _answer_of(connection: AbstractConnection) -> object:
    try:
        return await connection.read_response()
    except ResponseError as exc:
        return exc


class _Idle(Exception):
    """A connection that had been idle broke, which says nothing about the server."""
