"""Real Valkey servers for tests: a single one, with Sentinel, or as a cluster. They end with the process that started
them.
"""

import asyncio
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import redis
from redis.crc import key_slot

from service.sandbox.valkey import binary
from tests.death import die_with_parent
from tests.ports import free_port

_SOON_S = 20.0
"""The deadline of waits for what takes a moment: a busy machine may need many times as long."""


def eventually(condition: Callable[[], bool], *, within_s: float = _SOON_S) -> None:
    """Wait until a condition on a server holds."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError("the server did not reach the expected state")
        time.sleep(0.01)


async def until(condition: Callable[[], bool], *, within_s: float = _SOON_S) -> None:
    """Run the event loop until a condition holds."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


async def until_listening(port: int, *, within_s: float = _SOON_S) -> None:
    """Wait until a port of this machine accepts connections."""
    async with asyncio.timeout(within_s):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                await writer.wait_closed()
                return


VALKEY = str(binary())
BINARIES = {"valkey": VALKEY} | ({"redis": found} if (found := shutil.which("redis-server")) else {})
"""The available servers: always Valkey, and Redis if it is installed (Debian: redis-server)."""


class Server:
    """One server on the loopback: Valkey unless `binary` is another one, without persistence unless command-line
    `options` enable it.
    """

    def __init__(self, *options: str, config: str | None = None, binary: str = VALKEY) -> None:
        self.port = free_port()
        self._binary = binary
        self._options = options
        self._config = config
        self._directory = Path(tempfile.mkdtemp(prefix="valkey-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its URL, for RedisSettings."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process
        return self._process.pid

    def start(self) -> Self:
        """Start it, empty, and wait until it responds."""
        command = [self._binary]
        if self._config is not None:
            path = self._directory / "server.conf"
            path.write_text(self._config)
            command.append(str(path))
        command += ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._directory)]
        if "--sentinel" not in self._options:
            command += ["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
            )
        eventually(self._answers)
        return self

    def kill(self) -> None:
        """Kill it (SIGKILL) and wait for its end."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop it (SIGSTOP): it keeps its connections but does not respond."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue it (SIGCONT)."""
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Kill it (SIGKILL) and start it again, empty, on the same port."""
        self.kill()
        self.start()

    def run(self, *command: str | bytes | int) -> Any:
        """Run one command on a new connection."""
        with redis.Redis(port=self.port, socket_timeout=20, protocol=2) as client:
            return client.execute_command(*command)

    def connections(self) -> int:
        """Return the number of connected clients, except for this one, replicas and other servers."""
        with redis.Redis(port=self.port, socket_timeout=20, protocol=2) as client:
            clients = client.client_list()
        flags = [row["flags"] for row in clients if "client|list" not in row["cmd"]]
        return sum(not set(flag) & set("MSO") for flag in flags)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *exc: object) -> None:
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _answers(self) -> bool:
        assert self._process
        if self._process.poll() is not None:
            raise RuntimeError((self._directory / "log").read_text()[-2000:])
        try:
            with redis.Redis(port=self.port, socket_timeout=1, protocol=2) as client:
                client.execute_command("PING")
        except redis.AuthenticationError:
            return True
        except redis.ConnectionError:
            return False
        return True


class Guarded:
    """A master, its replica, and a Sentinel that watches them."""

    def __init__(self) -> None:
        self.first = Server()
        self.second = Server("--replicaof", "127.0.0.1", str(self.first.port))
        watched = f"sentinel monitor mymaster 127.0.0.1 {self.first.port} 1\n"
        timing = "sentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 2000\n"
        self.sentinel = Server("--sentinel", config=watched + timing)
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        """The Sentinel's address, for RedisSettings."""
        return self.sentinel.url

    def master_port(self) -> int:
        """Return the master's port according to the Sentinel."""
        return int(self.sentinel.run("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")[1])

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.first)
            stack.enter_context(self.second)
            eventually(lambda: b"master_link_status:up" in _info(self.second, "replication"))
            stack.enter_context(self.sentinel)
            eventually(lambda: len(self.sentinel.run("SENTINEL", "REPLICAS", "mymaster")) == 1)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


class Cluster:
    """Three masters that share the slots. If one is down, only its own slots are unavailable."""

    def __init__(self) -> None:
        self.servers = tuple(
            Server(
                *(
                    "--cluster-enabled",
                    "yes",
                    "--cluster-config-file",
                    "nodes.conf",
                    "--cluster-port",
                    str(free_port()),
                ),
                *("--cluster-node-timeout", "500", "--cluster-require-full-coverage", "no"),
            )
            for _ in range(3)
        )

    @property
    def url(self) -> str:
        """All addresses, for RedisSettings."""
        return "redis://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def holder(self, key: str) -> Server:
        """The server that holds a key."""
        slot = key_slot(key.encode())
        return self.servers[min(slot * 3 // 16_384, 2)]

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for server in self.servers:
                stack.enter_context(server)
            self._join()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _join(self) -> None:
        for index, server in enumerate(self.servers):
            server.run("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
            first, last = -(-index * 16_384 // 3), -(-(index + 1) * 16_384 // 3) - 1
            server.run("CLUSTER", "ADDSLOTSRANGE", first, last)
        for other in self.servers[1:]:
            bus = other.run("CONFIG", "GET", "cluster-port")[1]
            self.servers[0].run("CLUSTER", "MEET", "127.0.0.1", other.port, bus)
        eventually(lambda: all(self._is_whole(server) for server in self.servers))

    def _is_whole(self, server: Server) -> bool:
        return b"cluster_state:ok" in server.run("CLUSTER", "INFO") and len(server.run("CLUSTER", "SLOTS")) == 3


def _info(server: Server, section: str) -> bytes:
    with redis.Redis(port=server.port, socket_timeout=20, protocol=2) as client:
        client.set_response_callback("INFO", lambda answer: answer)
        answer: bytes = client.execute_command("INFO", section)
        return answer
