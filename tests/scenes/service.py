"""A Kubernetes Service: new connections go to ready replicas, open ones stay where they are."""

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from tests.scenes.fleet import READY_S, Replica, get

PROBE_S = 0.1
"""How often readiness is queried."""


class Service:
    """A TCP proxy in front of replicas. `terminating` are those being shut down, which are no longer endpoints."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self._replicas = replicas
        self._turn = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self.ready: set[Replica] = set()
        self.terminating: set[Replica] = set()
        self.port = 0

    async def probe(self) -> None:
        """Query all for their readiness until cancelled."""
        while True:
            for replica in self._replicas:
                try:
                    ready = (await get(replica.port, "/readyz")).status == 200
                except OSError:
                    ready = False
                (self.ready.add if ready else self.ready.discard)(replica)
            await asyncio.sleep(PROBE_S)

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Join one connection to a ready replica, until either side closes."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            endpoints = [each for each in self._replicas if each in self.ready - self.terminating]
            if not endpoints:
                return
            port = endpoints[next(self._turn) % len(endpoints)].port
            back_reader, back_writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                await asyncio.gather(_copy(reader, back_writer), _copy(back_reader, writer))
            finally:
                back_writer.close()
        except (OSError, asyncio.CancelledError):  # cancelled by aclose alone
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def roll(self, replica: Replica, *, pre_stop_s: float) -> int:
        """End a replica as Kubernetes does and start it again; return its exit status."""
        self.terminating.add(replica)
        await asyncio.sleep(pre_stop_s)
        replica.signal(signal.SIGTERM)
        status = await replica.ended()
        self.ready.discard(replica)
        replica.start()
        await replica.ready()
        self.terminating.discard(replica)
        async with asyncio.timeout(READY_S):
            while replica not in self.ready:
                await asyncio.sleep(0.02)
        return status

    async def aclose(self) -> None:
        """End all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while part := await reader.read(65_536):
            writer.write(part)
            await writer.drain()
    with suppress(OSError):
        writer.close()


@asynccontextmanager
async def service(replicas: Sequence[Replica]) -> AsyncIterator[Service]:
    """A Service on a free port, with all replicas ready."""
    made = Service(replicas)
    server = await asyncio.start_server(made.connect, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    probing = asyncio.create_task(made.probe())
    try:
        async with asyncio.timeout(READY_S):
            while len(made.ready) < len(replicas):
                await asyncio.sleep(0.02)
        yield made
    finally:
        probing.cancel()
        server.close()
        await made.aclose()
