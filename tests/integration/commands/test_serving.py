"""How the server starts, shuts down and protects itself: real processes, real signals, real sockets."""

import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port

HERE = Path(__file__).parent
DEADLINE_S = 30.0


def _paths() -> list[str]:
    """Return where Python looks for packages first, such as newer ones than are pinned."""
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


class Served:
    """A serving process."""

    def __init__(
        self, port: int, *, drain_s: float = 5.0, mode: str = "", host: str = "127.0.0.1", files: int = 0
    ) -> None:
        self.port = port
        self.host = host
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "served.py"), str(port), str(drain_s), mode, host],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,
            preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))) if files else None,
            env=os.environ | {"PYTHONPATH": os.pathsep.join((str(HERE.parents[2]), *_paths()))},
        )
        self.lines: list[str] = []

    def until(self, line: str) -> None:
        """Read stdout until the app prints `line`."""
        assert self.process.stdout is not None
        end = time.monotonic() + DEADLINE_S
        while not self.lines or self.lines[-1] != line:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))
            text = self.process.stdout.readline() if ready else ""
            assert text, f"{line!r} was not printed, but {self.lines}"
            self.lines.append(text.strip())

    def connected(self) -> socket.socket:
        """A connection, as soon as one is possible."""
        end = time.monotonic() + DEADLINE_S
        while True:
            try:
                return socket.create_connection((self.host, self.port), timeout=DEADLINE_S)
            except ConnectionRefusedError:
                assert time.monotonic() < end
                assert self.process.poll() is None, self.ended()
                time.sleep(0.01)

    def processor_s(self) -> float:
        """Processor time used so far: on an idle machine, at least as long as the start took."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def descriptors(self) -> int:
        """Return the number of open files and connections."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def refuses(self) -> bool:
        """Whether new connections are soon refused, while the process lives on."""
        end = time.monotonic() + 1.5
        while time.monotonic() < end and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                return self.process.poll() is None
            time.sleep(0.01)
        return False

    def asked(self, path: str, *, headers: str = "") -> socket.socket:
        """A connection on which a request was sent that the app has received."""
        connection = self.connected()
        connection.sendall(request(path, headers=headers))
        self.until(f"got {path}")
        return connection

    def ended(self) -> tuple[int, list[str], list[str]]:
        """Wait for the end: status, the app's output, and the logged events."""
        out, err = self.process.communicate(timeout=DEADLINE_S)
        assert "Traceback" not in err, err
        return (
            self.process.returncode,
            self.lines + out.split("\n")[:-1],
            [json.loads(x)["event"] for x in err.splitlines()],
        )


@pytest.fixture
def port() -> int:
    return free_port()


class Starting(list[Served]):
    """Started processes; one started without a mode gets the event loop of this round."""

    loop = ""

    def served(self, port: int, **options: Any) -> Served:
        """Start a process."""
        self.append(process := Served(port, **{"mode": self.loop, **options}))
        return process


@pytest.fixture(params=["uvloop", "asyncio"])
def started(request: pytest.FixtureRequest) -> Iterator[Starting]:
    """Processes on one event loop and on the other, ended afterwards."""
    all_started = Starting()
    all_started.loop = "asyncio" if request.param == "asyncio" else ""
    yield all_started
    for served in all_started:
        if served.process.poll() is None:
            served.process.kill()
        served.process.communicate()


def request(path: str, *, headers: str = "") -> bytes:
    """A GET, with further lines of headers."""
    return f"GET {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n".encode()


def answer(connection: socket.socket) -> bytes:
    """Everything received until the other side closes."""
    received = bytearray()
    try:
        while part := connection.recv(65_536):
            received += part
    except ConnectionResetError:
        pass
    return bytes(received)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_requests_in_flight_end_before_the_app(port: int, started: Starting, number: signal.Signals) -> None:
    """After a signal the app is notified first, new connections are refused, the request in flight is answered,
    then the lifespan ends; status 0, no traceback, one process; and it began to serve within a second."""
    served = started.served(port)
    with served.asked("/slow") as connection:
        assert served.processor_s() < 1
        children = Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children").read_text()
        assert children == ""
        os.killpg(served.process.pid, number)
        served.until("leaving")
        assert served.refuses()
        assert answer(connection).endswith(b"\r\n\r\nok")
    status, lines, events = served.ended()
    assert status == 0
    assert lines == ["got /slow", "leaving", "closed"]
    assert events == ["server.started", "server.stopping", "server.stopped"]


def test_an_endless_request_is_cut_off_and_the_app_closes(port: int, started: Starting) -> None:
    """After drain_s the app's `reject_waiting` is called, then the remaining requests are cut off, with 503 if no
    response had begun."""
    served = started.served(port, drain_s=0.2)
    with served.asked("/never") as waiting, served.asked("/half") as half:
        served.process.terminate()
        assert answer(waiting).startswith(b"HTTP/1.1 503")
        assert not answer(half).endswith(b"0\r\n\r\n")  # the chunk that would end it
        status, lines, events = served.ended()
    assert status == 0
    assert lines == ["got /never", "got /half", "leaving", "refusing", "cut off", "cut off", "closed"]
    assert events == ["server.started", "server.stopping", "server.cut_off", "server.stopped"]


def test_a_second_signal_ends_requests_at_once(port: int, started: Starting) -> None:
    """A second Ctrl-C ends requests in flight at once, and the app still closes."""
    served = started.served(port, drain_s=600)
    with served.asked("/never"):
        served.process.send_signal(signal.SIGINT)
        served.until("leaving")
        served.process.send_signal(signal.SIGINT)
        status, lines, _ = served.ended()
    assert (status, lines) == (0, ["got /never", "leaving", "cut off", "closed"])


def test_a_signal_during_the_start_ends_it(port: int, started: Starting) -> None:
    """A signal that arrives while the app starts is kept: the app finishes its start and then closes."""
    served = started.served(port, mode="slow-start")
    served.until("starting")
    served.process.terminate()
    status, lines, _ = served.ended()
    assert (status, lines) == (0, ["starting", "leaving", "closed"])


def test_a_failing_lifespan_ends_the_server(port: int, started: Starting) -> None:
    """An app whose lifespan fails ends the server with status 1 and a text, not a traceback."""
    served = started.served(port, mode="fails")
    status, lines, _ = served.ended()
    assert (status, lines) == (1, ["StartFailed: the app did not start"])


def test_a_taken_address_is_reported_in_one_line(port: int, started: Starting) -> None:
    """A port that someone listens on ends the server with status 1 and one line."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        served = started.served(port)
        status, lines, _ = served.ended()
    assert (status, lines) == (1, [f"CannotListen: 127.0.0.1 port {port}: Address already in use"])


def test_a_host_name_is_resolved(port: int, started: Starting) -> None:
    """A name is resolved, and a nonexistent one is reported in one line."""
    served = started.served(port, host="localhost")
    with served.asked("/now", headers="connection: close\r\n") as connection:
        assert answer(connection).endswith(b"ok")
    lost = started.served(port, host="nowhere.invalid")
    status, (lines,), events = lost.ended()
    assert (status, events) == (1, [])
    assert lines.startswith(f"CannotListen: nowhere.invalid port {port}: ")


def test_a_hang_up_is_reported_to_the_app(port: int, started: Starting) -> None:
    """The app's receive() reports that the connection was closed."""
    served = started.served(port)
    served.asked("/watch").close()
    served.until("hung up")


def test_after_a_fault_before_the_app_is_called_it_is_called(port: int, started: Starting) -> None:
    """The fault is logged, and the request is served by the app, as any other."""
    served = started.served(port)
    with served.connected() as connection:
        connection.settimeout(DEADLINE_S)
        connection.sendall(request("/broken-again"))
        assert connection.recv(65536).endswith(b"ok")
        connection.sendall(request("/broken", headers="connection: close\r\n"))
        assert answer(connection).endswith(b"ok")
    served.process.terminate()
    _, err = served.process.communicate(timeout=DEADLINE_S)
    assert [line["event"] for line in map(json.loads, err.splitlines())].count("server.request_failed") == 2
    assert "LookupError" in err


def test_a_repeated_head_is_answered_unparsed(port: int, started: Starting) -> None:
    """A request with the same bytes is answered without being parsed, even after another one or in pieces."""
    served = started.served(port)
    with served.connected() as connection:
        connection.settimeout(DEADLINE_S)
        same = request("/at-once")
        connection.sendall(same)
        assert connection.recv(65536).endswith(b"at once")
        connection.sendall(same)
        assert connection.recv(65536).endswith(b"again")
        connection.sendall(same[:20])
        connection.sendall(same[20:] + same + request("/now", headers="connection: close\r\n"))
        answers = answer(connection)
    assert (answers.count(b"again"), answers[-2:]) == (2, b"ok")
    assert answers.count(b"HTTP/1.1 200 OK") == 3


def test_after_a_signal_all_answers_close_their_connections(port: int, started: Starting) -> None:
    """Responses that need no app close the connection, too."""
    served = started.served(port)
    with served.connected() as kept:
        kept.settimeout(DEADLINE_S)
        kept.sendall(request("/at-once"))
        assert kept.recv(65536).endswith(b"at once")
        served.process.terminate()
        served.until("leaving")
        kept.sendall(request("/at-once"))
        assert b"connection: close" in answer(kept)
    assert served.ended()[1] == ["leaving", "closed"]


def test_headers_are_bounded_in_size_and_time(port: int, started: Starting) -> None:
    """Headers above headers_max_bytes are 431, and a request whose headers don't come ends after headers_timeout_s."""
    served = started.served(port)
    with served.connected() as large:
        large.settimeout(DEADLINE_S)
        large.sendall(b"GET /now HTTP/1.1\r\nhost: x\r\nx-large: " + b"x" * 300_000 + b"\r\n\r\n")
        assert answer(large).startswith(b"HTTP/1.1 431")
    begun = time.monotonic()
    with served.connected() as slow:
        slow.settimeout(DEADLINE_S)
        slow.sendall(b"GET /now HTTP/1.1\r\nhost")
        answer(slow)
    assert time.monotonic() - begun < 10


def test_a_head_that_comes_byte_by_byte_is_cut_off(port: int, started: Starting) -> None:
    """headers_timeout_s bounds a whole head, however often a byte of it comes, also the second one of a connection."""
    served = started.served(port)
    with served.connected() as slow:
        slow.settimeout(DEADLINE_S)
        slow.sendall(request("/now"))
        assert slow.recv(65536).endswith(b"ok")
        begun = time.monotonic()
        with suppress(ConnectionError):
            for byte in b"GET /now HTTP/1.1\r\nhost: " + b"x" * 1000:
                slow.sendall(bytes([byte]))
                if select.select([slow], [], [], 0.05)[0]:
                    assert not slow.recv(65536).startswith(b"HTTP/1.1 200")
                    break
            else:
                pytest.fail("the head was never cut off")
    assert time.monotonic() - begun < 10  # all bytes of the head would take 50 s


def test_stalled_readers_are_cut_off_and_slow_ones_are_not(port: int, started: Starting) -> None:
    """A connection from which nothing is read for reader_timeout_s is closed in the middle of its response, and
    others are served meanwhile; one that is read slowly, for longer than that, gets the complete response."""
    served = started.served(port)
    with served.asked("/now", headers="connection: close\r\n") as other:
        assert answer(other).endswith(b"ok")
    descriptors = served.descriptors()
    stuck = [_reluctant(port) for _ in range(20)]
    slow = _reluctant(port)
    begun, got = time.monotonic(), 0
    while served.descriptors() < descriptors + 10:  # until they are accepted
        assert time.monotonic() - begun < DEADLINE_S
        time.sleep(0.005)
    while served.descriptors() > descriptors + 2 or time.monotonic() - begun < 5:
        assert time.monotonic() - begun < DEADLINE_S
        got += len(slow.recv(65536))
        with served.connected() as other:
            other.sendall(request("/now", headers="connection: close\r\n"))
            assert answer(other).endswith(b"ok")
        time.sleep(0.1)
    got += len(answer(slow))
    assert got > 20_000_000  # the body, and a head
    for each in (*stuck, slow):
        each.close()


def _reluctant(port: int) -> socket.socket:
    """A connection that has requested a large response and reads none of it by itself."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(DEADLINE_S)
    connection.connect(("127.0.0.1", port))
    connection.sendall(request("/large", headers="connection: close\r\n"))
    return connection


def test_the_bound_of_connections_follows_the_limit_of_files(port: int, started: Starting) -> None:
    """With 256 files for more connections than that, the bound is lowered with a warning: 400 silent connections do
    not block others, and cost no processor time."""
    served = started.served(port, files=256)
    with ExitStack() as silent:
        for _ in range(400):
            silent.enter_context(served.connected())
        before_s = served.processor_s()
        time.sleep(1)
        assert served.processor_s() - before_s < 0.5
        with served.asked("/now", headers="connection: close\r\n") as other:
            assert answer(other).endswith(b"ok")
        assert served.descriptors() < 200
        served.process.terminate()
        status, lines, events = served.ended()
    assert (status, lines) == (0, ["got /now", "leaving", "closed"])
    assert events == ["server.low_file_limit", "server.started", "server.stopping", "server.stopped"]
