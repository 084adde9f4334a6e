"""Processes of `taskgate` that are forked instead of started, which saves most of the startup time: the imports.

They are as separate as other processes: they have their own memory, sockets, environment and exit status. Tests about
startup or memory start `python -m service` itself.
"""

import asyncio
import atexit
import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from itertools import cycle

import msgspec

from tests.death import die_with_parent
from tests.fork_server import Order

_START_S = 30.0


class Fork:
    """One process, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = threading.Event()

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit status. Raise subprocess.TimeoutExpired."""
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired("taskgate", timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it has, and the report is on its way
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def ended(self, status: int) -> None:
        """Note the end."""
        self.returncode = status
        self._ended.set()


class Forks:
    """A fork server, started when it is first needed."""

    def __init__(self) -> None:
        self._forks: dict[int, Fork] = {}
        self._started: queue.SimpleQueue[Fork] = queue.SimpleQueue()
        self._orders: socket.socket | None = None

    def fork(self, order: Order, streams: tuple[int, int, int]) -> Fork:
        """Run `taskgate` with these standard streams."""
        orders = self._orders = self._orders or self._open()
        socket.send_fds(orders, [msgspec.json.encode(order)], streams)
        return self._started.get(timeout=_START_S)

    def _open(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            server = subprocess.Popen(
                [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                preexec_fn=die_with_parent,
            )
        threading.Thread(target=self._read, args=(ours,), daemon=True).start()
        atexit.register(_end, server, ours)
        return ours

    def _read(self, reports: socket.socket) -> None:
        while report := reports.recv(100):
            pid, *status = map(int, report.split())
            if status:
                self._forks.pop(pid).ended(status[0])
            else:
                fork = self._forks[pid] = Fork(pid)
                self._started.put(fork)


def _end(server: "subprocess.Popen[bytes]", orders: socket.socket) -> None:
    server.kill()
    server.wait()
    orders.close()


_servers = cycle((Forks(), Forks()))
"""Alternate between two, so that replicas differ in string hashes and the order of sets, as in production."""


def fork(*arguments: str, environment: Mapping[str, str], stdout: int, stderr: int, stdin: int | None = None) -> Fork:
    """Run `taskgate` with these arguments in a separate process; its stdin is empty unless one is given."""
    order = Order(arguments=arguments, environment=dict(environment))
    with open(os.devnull, "rb") as nothing:
        return next(_servers).fork(order, (nothing.fileno() if stdin is None else stdin, stdout, stderr))


async def taskgate(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    stdin: int | None = None,
    stderr: int | None = None,
    within_s: float = 20.0,
) -> tuple[int, str, str]:
    """Run `taskgate` until it ends; return its exit status and its output on stdout and stderr.

    It gets only the given variables of ours. Raise subprocess.TimeoutExpired, after killing it.
    """
    clean = {name: value for name, value in os.environ.items() if not name.upper().startswith("TASKGATE")}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = fork(
            *arguments,
            environment=clean | dict(environment or {}),
            stdin=stdin,
            stdout=out.fileno(),
            stderr=err.fileno() if stderr is None else stderr,
        )
        try:
            status = await asyncio.to_thread(process.wait, within_s)
        finally:
            process.kill()
        return status, *(os.pread(each.fileno(), 10_000_000, 0).decode() for each in (out, err))
