"""`taskgate tasks`, run as a process against a gateway controlled by the test."""

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.model.budgets import CallerStanding
from service.model.errors import UpstreamTimeout, WaitTooLong
from service.model.pages import Source
from tests.forks import taskgate
from tests.http.fake_gateway import task_of
from tests.http.site import KEY, Web

ROOT = Path(__file__).parents[3]
NASTY = "a\x1b[31mred\x07\x9b2J \u202egnp.exe\u200b\u2028 限时优惠 👩\u200d🚀"


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    """The HTTP side around a fake gateway of 250 tasks."""
    web = Web()
    async with web.client:
        yield web


async def run(port: int, *arguments: str, key: str | None = KEY, stderr: int | None = None) -> tuple[int, str, str]:
    """Run it; returns its exit status, stdout and stderr."""
    environment = {} if key is None else {"TASKGATE_KEY": key}
    url = f"http://127.0.0.1:{port}"
    status, out, err = await taskgate("tasks", "--url", url, *arguments, environment=environment, stderr=stderr)
    assert "Traceback" not in err
    return status, out, err


async def test_all_tasks_are_printed_as_a_table(web: Web) -> None:
    """All tasks, one row each under one heading, and exit status 0; the request's parameters reach the gateway."""
    async with web.on_a_socket() as port:
        status, out, err = await run(port, "--app", "shop", "-q", "a b", "--since=-P7D", "--wait", "7")
    rows = out.splitlines()
    assert (status, err, len(rows)) == (0, "", 251)
    assert rows[0].split() == ["ID", "STATUS", "TYPE", "SCHEDULED", "TITLE"]
    assert rows[8].split() == ["1007", "dispatched", "all", "2025-06-01T10:00:00Z", "Task", "7"]
    ask = web.gateway.requests[0]
    assert (ask.query.app, ask.query.keyword, str(ask.query.since), ask.patience_s) == ("shop", "a b", "-P7D", 7.0)


async def test_ndjson_has_one_task_per_line(web: Web) -> None:
    """One JSON object per line, only tasks, from the offset on, as the gateway sends them."""
    async with web.on_a_socket() as port:
        status, out, _ = await run(port, "--format", "ndjson", "--offset", "240", "--status", "pending")
    assert status == 0
    assert [line.encode() for line in out.splitlines()] == [web.gateway.listed[240], web.gateway.listed[245]]


async def test_a_limit_ends_the_stream(web: Web) -> None:
    """After `--limit` tasks it ends with status 0, and no more blocks are requested than needed."""
    web.gateway.chunk_outcomes[200] = asyncio.Event()
    async with web.on_a_socket() as port:
        status, out, err = await run(port, "--limit", "120")
    assert (status, err, len(out.splitlines())) == (0, "", 121)


@pytest.mark.parametrize("form", ["table", "ndjson"])
async def test_control_characters_are_escaped(web: Web, form: str) -> None:
    """Control, bidirectional and invisible characters are written as escapes; NDJSON still means the same."""
    title = NASTY.replace("\x1b", "\\u001b").replace("\x07", "\\u0007")
    record = msgspec.json.encode(task_of(0)).replace(b"Task 0", title.encode())
    web.gateway.listed = (record,)
    async with web.on_a_socket() as port:
        status, out, _ = await run(port, "--format", form)
    assert status == 0
    assert not set(out) & set("\x1b\x07\x9b\u202e\u200b\u2028")
    assert "限时优惠 👩\u200d🚀" in out
    if form == "ndjson":
        assert json.loads(out)["title"] == NASTY
    else:
        assert "\\x1b[31mred\\x07\\x9b2J \\u202egnp.exe\\u200b\\u2028" in out


ENDS: list[tuple[Any, int, str]] = [
    (
        UpstreamTimeout("no answer within 8 s", app="shop"),
        1,
        "ended early, after 100 tasks: The upstream did not answer",
    ),
    (UpstreamTimeout("no answer within 8 s", app="shop"), 1, "continue with --offset 100"),
    (WaitTooLong(place=3, estimate_s=42, patience_s=10), 1, "expected in about 42 s"),
    ({"total": 251}, 0, "warning: the list changed"),
    ({"source": Source.STALE}, 0, "warning: the upstream could not be reached"),
]


@pytest.mark.parametrize(("chunk", "status", "text"), ENDS)
async def test_a_truncated_list_is_reported(web: Web, chunk: Any, status: int, text: str) -> None:
    """A truncated list is reported with its reason and how to continue, and ends with 1; warnings leave it at 0."""
    web.gateway.chunk_outcomes[100] = chunk
    async with web.on_a_socket() as port:
        ended = await run(port)
    assert ended[0] == status
    assert text in ended[2]


async def test_a_stream_without_its_last_line_is_incomplete() -> None:
    """A stream that breaks off before its last line is reported as incomplete."""

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b'a\r\n{"id":17}\n\r\n')
        writer.close()

    async with await asyncio.start_server(half, "127.0.0.1", 0) as server:
        status, out, err = await run(server.sockets[0].getsockname()[1])
    assert (status, len(out.splitlines())) == (1, 2)
    assert "cut off after 1 tasks; continue with --offset 1" in err


FAULTS: list[tuple[tuple[str, ...], str | None, int, str]] = [
    ((), None, 2, "TASKGATE_KEY"),
    ((), "wrong", 2, "Missing or unknown API key"),
    (("--key", "wörong"), None, 2, "ASCII"),
    (("--app", "news"), KEY, 2, "No such app"),
    (("--status", "Pending"), KEY, 2, "status must be one or several of pending, dispatching, dispatched"),
    (("--limit", "0"), KEY, 2, "--limit"),
    (("--url", "ftp://x"), KEY, 2, "http://HOST:PORT"),
    (("--url", "http://127.0.0.1:1"), KEY, 1, "can't reach 127.0.0.1"),
    (("--format", "xml"), KEY, 2, "usage: taskgate tasks"),
]


@pytest.mark.parametrize(("arguments", "key", "status", "text"), FAULTS)
async def test_faults_are_printed_to_stderr_with_their_status(
    web: Web, arguments: tuple[str, ...], key: str | None, status: int, text: str
) -> None:
    """Faults of the request and the key end with 2, those of the connection with 1; both are only on stderr."""
    async with web.on_a_socket() as port:
        ended = await run(port, *arguments, key=key)
    assert ended[:2] == (status, "")
    assert text in ended[2]


async def test_progress_is_shown_on_a_terminal(web: Web) -> None:
    """On a terminal stderr shows the expected wait, then what is done and left, and is cleared at the end."""
    web.gateway.view = {"free": 0, "others": CallerStanding(name=None, waiting=19)}
    web.gateway.chunk_outcomes[200] = go = asyncio.Event()
    asyncio.get_running_loop().call_later(0.7, go.set)
    ours, theirs = pty.openpty()
    try:
        async with web.on_a_socket() as port:
            status, out, _ = await run(port, stderr=theirs)
    finally:
        os.close(theirs)
        shown = os.read(ours, 100_000).decode()
        os.close(ours)
    assert (status, len(out.splitlines())) == (0, 251)
    assert "waiting for a turn, about 4 s at most" in shown
    assert " of 250, about " in shown
    assert shown.endswith("\r\x1b[K")


async def watching(port: int, *arguments: str, stdout: int = subprocess.PIPE) -> asyncio.subprocess.Process:
    """Start it with --watch."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TASKGATE")}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", "tasks", "--url", f"http://127.0.0.1:{port}", "--watch", *arguments),
        cwd=ROOT,
        env=environ | {"TASKGATE_KEY": KEY},
        stdout=stdout,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores Ctrl-C
    )


async def test_watch_prints_what_changes(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """First the list, then a line for each change, also after the connection was lost; Ctrl-C ends it with 0."""
    monkeypatch.setattr("service.watch.feed.RENEW_MIN_S", 0.01)
    web.gateway.changes_of_chunks = {"lifetime_s": 0.0}
    web.gateway.listed = web.gateway.listed[:3]
    async with asyncio.timeout(30), web.on_a_socket() as port:
        process = await watching(port)
        assert process.stdout is not None
        first = [(await process.stdout.readline()).decode().split()[:2] for _ in range(3)]
        assert first == [["task", "1000"], ["task", "1001"], ["task", "1002"]]
        web.gateway.listed = (*web.gateway.listed[1:], msgspec.json.encode(task_of(3)))
        changes = [(await process.stdout.readline()).decode().split() for _ in range(2)]
        assert changes[0][:2] == ["added", "1003"]
        assert changes[1] == ["removed", "1000", "(deleted,", "last", "status", "pending)"]
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0


async def test_watch_on_a_terminal_is_a_live_table(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list is redrawn with its age."""
    monkeypatch.setattr("service.watch.feed.RENEW_MIN_S", 0.01)
    web.gateway.listed = web.gateway.listed[:3]
    ours, theirs = pty.openpty()
    try:
        async with asyncio.timeout(30), web.on_a_socket() as port:
            process = await watching(port, stdout=theirs)
            shown = ""
            while "Task 2" not in shown:
                shown += (await asyncio.to_thread(os.read, ours, 100_000)).decode()
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
    finally:
        os.close(theirs)
        os.close(ours)
    assert "3 tasks, as of 2025-06-15T15:06:36Z" in shown


@pytest.mark.parametrize("argument", ["--limit=3", "--offset=3"])
async def test_watch_follows_whole_lists(web: Web, argument: str) -> None:
    """Parameters that choose a part of the list are refused."""
    async with web.on_a_socket() as port:
        status, _, err = await run(port, "--watch", argument)
    assert status == 2
    assert "--limit and --offset do not apply" in err
