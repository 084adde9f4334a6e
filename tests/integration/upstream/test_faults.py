"""Every fault of an upstream has its own error of ours; none reveals the signature, and nothing is left behind."""

import asyncio
import json
import logging
import time
import traceback
from dataclasses import dataclass
from typing import Any

import pytest

from service.model.errors import UpstreamBroken, UpstreamError, UpstreamHTTPStatus, UpstreamTimeout, UpstreamUnreachable
from service.upstream.verdicts import RetryVerdict, explain, verdict
from tests.integration.upstream.bench import PAGE, SECRET, Bench, Scene, bomb, echo, pages, raw, refusals, reset_after
from tests.ports import free_port

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNRESOLVABLE = f"http://{'a' * 64}.invalid"  # longer than a label may be, so it fails without a lookup
SHORT = {"connect_timeout_s": 1.0, "read_timeout_s": 0.3, "call_timeout_s": 1.0}
DRIP_LIMIT_S = 4.0
"""A drip lasts for 6 s."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """The upstream's behaviour, the settings, and the expected error."""

    scene: Scene
    settings: dict[str, Any]
    kind: type[UpstreamError]
    text: str


def fault(name: str, scene: Scene, kind: type[UpstreamError], text: str, **settings: Any) -> Any:
    return pytest.param(Fault(scene=scene, settings=settings, kind=kind, text=text), id=name)


async def greet(connection: Any) -> None:
    """Speak first, and no TLS."""
    await connection.send(b"220 smtp.example ESMTP\r\n")
    await connection.until_closed()


def without(name: str) -> bytes:
    return json.dumps({key: value for key, value in PAGE.items() if key != name}).encode()


FAULTS = [
    fault("not JSON", pages(b"<html>hello</html>"), UpstreamBroken, "the answer is not JSON"),
    fault("empty", pages(status="200 OK", body=b" "), UpstreamBroken, "the answer is not JSON"),
    fault("missing field", pages(without("Total")), UpstreamBroken, "missing required field `Total`"),
    fault("wrong type", pages(json.dumps({**PAGE, "Total": "2"}).encode()), UpstreamBroken, r"at `\$\.Total`"),
    fault("cut off", raw(HEAD, b"{"), UpstreamBroken, "cut off"),
    fault("cut off in a chunk", raw(CHUNKED, b"ff\r\n{"), UpstreamBroken, "cut off"),
    fault("cut off JSON", pages(json.dumps(PAGE).encode()[:-9]), UpstreamBroken, "the answer is not JSON"),
    fault("too large, announced", pages(b" " * 5000), UpstreamBroken, "larger than 2048 bytes", answer_max_bytes=2048),
    fault(
        "too large, in chunks",
        raw(CHUNKED, *[b"400\r\n" + b" " * 1024 + b"\r\n"] * 3, hang=True),
        UpstreamBroken,
        "larger than 2048 bytes",
        answer_max_bytes=2048,
    ),
    fault("gzip bomb", bomb(), UpstreamBroken, "compressed"),
    fault("status 502", pages(b"bad gateway", status="502 Bad Gateway"), UpstreamHTTPStatus, "status 502"),
    fault("status 404", pages(b"nothing", status="404 Not Found"), UpstreamHTTPStatus, "status 404"),
    fault("redirect", pages(status="302 Found", headers="Location: /x\r\n"), UpstreamHTTPStatus, "status 302"),
    fault("reset before the answer", reset_after(), UpstreamBroken, "connection broke"),
    fault("reset in the head", reset_after(b"HTTP/1.1 200 OK\r\n"), UpstreamBroken, "connection broke"),
    fault("closed without an answer", raw(), UpstreamBroken, "closed without an answer"),
    fault("not HTTP", raw(b"220 smtp.example ESMTP\r\n\r\n"), UpstreamBroken, "not HTTP"),
    fault("echo", echo, UpstreamBroken, "not HTTP"),
    fault("endless head", raw(b"HTTP/1.1 200 OK\r\n", b"X: " + b"x" * 200_000), UpstreamBroken, "not HTTP"),
    fault("hang before the answer", raw(hang=True), UpstreamTimeout, "no answer in time", **SHORT),
    fault("hang in the head", raw(b"HTTP/1.1 200", hang=True), UpstreamTimeout, "no answer in time", **SHORT),
    fault("hang in the body", raw(HEAD, b"{", hang=True), UpstreamTimeout, "completely in time", **SHORT),
    fault(
        "drip in the head",
        raw(b"HTTP/1.1 200 OK\r\nX: ", *[b"x"] * 300, pause_s=0.02),
        UpstreamTimeout,
        "no answer in time",
        **SHORT,
    ),
    fault(
        "drip in the body",
        raw(HEAD, *[b" "] * 300, pause_s=0.02),
        UpstreamTimeout,
        "completely in time",
        **SHORT,
    ),
    fault(
        "drip of chunk sizes",
        raw(CHUNKED, *[b"0"] * 300, pause_s=0.02),
        UpstreamTimeout,
        "completely in time",
        **SHORT,
    ),
    fault(
        "endless interim answers",
        raw(*[b"HTTP/1.1 103 Early Hints\r\n\r\n"] * 300, pause_s=0.02),
        UpstreamTimeout,
        "no answer in time",
        **SHORT,
    ),
    fault("unknown code", refusals(12345), UpstreamError, "code 12345: their words"),
    fault("refused query", refusals(90104), UpstreamError, "code 90104: their words"),
    fault("wrong key", refusals(70009), UpstreamError, "code 70009: their words"),
]


def everything_shown(error: BaseException, bench: Bench, caplog: pytest.LogCaptureFixture, printed: str) -> str:
    text = "".join(traceback.format_exception(error))
    explained = explain(error) if isinstance(error, UpstreamError) else ""
    return "\n".join((text, repr(error), explained, caplog.text, printed, repr(bench.client), repr(bench.app)))


def assert_no_secret(bench: Bench, text: str) -> None:
    for secret in (bench.signer.current(bench.wall_s).text, SECRET, "usersig=", "eJ", "/v4/timpush"):
        assert secret not in text


@pytest.mark.parametrize("fault", FAULTS)
async def test_each_fault_becomes_an_error_of_ours(
    bench: Bench, fault: Fault, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fault is an error of ours in its own words, within the configured time, without signature or secret."""
    caplog.set_level(logging.DEBUG)
    bench.use(**fault.settings)
    bench.upstream.scene = fault.scene
    began_s = time.monotonic()
    with pytest.raises(fault.kind, match=fault.text) as caught:
        await bench.fetch()
    assert time.monotonic() - began_s < DRIP_LIMIT_S
    assert caught.value.sent
    assert (bench.begun, len(bench.upstream.requests)) == (1, 1)
    printed = "".join(capsys.readouterr())
    assert "httpx" not in "".join(traceback.format_exception(caught.value))
    assert_no_secret(bench, everything_shown(caught.value, bench, caplog, printed))
    bench.assert_nothing_leaks()


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("http://127.0.0.1:{closed}", "refused the connection"),
        (UNRESOLVABLE, "could not be resolved"),
        ("https://127.0.0.1:{plain}", "no TLS connection"),
        ("https://127.0.0.1:{silent}", "no connection could be made in time"),
    ],
)
async def test_an_unreachable_upstream_costs_no_slot(
    bench: Bench, host: str, text: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a connection nothing was sent, no slot was requested, and the reason is reported."""
    caplog.set_level(logging.DEBUG)
    bench.upstream.scene = greet if "plain" in host else pages()
    timeout_s = 0.2 if "silent" in host else 5.0
    bench.use(host.format(closed=free_port(), plain=bench.port, silent=bench.port), connect_timeout_s=timeout_s)
    with pytest.raises(UpstreamUnreachable, match=text) as caught:
        await bench.fetch()
    assert type(caught.value) is UpstreamUnreachable
    assert not caught.value.sent
    assert verdict(caught.value) is RetryVerdict.AGAIN
    assert bench.begun == 0
    assert_no_secret(bench, everything_shown(caught.value, bench, caplog, "".join(capsys.readouterr())))


async def test_a_signature_in_the_upstreams_text_is_masked(bench: Bench) -> None:
    """A signature quoted in the upstream's text is removed from our error."""
    bench.upstream.scene = refusals(70003, text=f"bad {bench.signer.current(bench.wall_s).text}\n")
    with pytest.raises(UpstreamError) as caught:
        await bench.fetch()
    assert "bad [signature]\\n" in str(caught.value)
    assert_no_secret(bench, str(caught.value))


async def test_without_a_free_connection_no_call_is_made(bench: Bench) -> None:
    """If all connections are in use, the call ends without having been made, and no host counts as failed."""
    bench.use(bench.base, f"http://127.0.0.1:{free_port()}", connections=1, connect_timeout_s=0.5)
    go_on = asyncio.Event()
    asked = asyncio.Event()

    async def play(connection: Any) -> None:
        while await connection.request():
            asked.set()
            await go_on.wait()
            await connection.answer(json.dumps(PAGE).encode())

    bench.upstream.scene = play
    first = asyncio.create_task(bench.fetch())
    await asked.wait()
    with pytest.raises(UpstreamUnreachable, match="no connection was free in time") as caught:
        await bench.fetch()
    assert not caught.value.sent
    go_on.set()
    assert (await first).total == 1
    assert (await bench.fetch()).total == 1
    assert bench.upstream.connections == 1


async def test_a_call_succeeds_after_every_kind_of_failure(bench: Bench) -> None:
    """After every kind of failure in turn on one connection slot, the next call succeeds."""
    bench.use(connections=1, connect_timeout_s=2.0, read_timeout_s=0.5, call_timeout_s=2.0)
    for scene in (raw(hang=True), raw(HEAD, b"{", hang=True), reset_after(), raw(), raw(HEAD), bomb(), echo):
        bench.upstream.scene = scene
        with pytest.raises(UpstreamError):
            await bench.fetch()
        bench.assert_nothing_leaks()
    bench.upstream.scene = pages()
    assert (await bench.fetch()).total == 1
