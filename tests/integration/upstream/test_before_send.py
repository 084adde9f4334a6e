"""The moment before the first byte: the last at which a call can be left undone."""

import asyncio

import pytest

from service.model.errors import StoreUnavailable, UpstreamUnreachable
from tests.integration.upstream.bench import Bench


async def test_before_send_comes_before_the_first_byte(bench: Bench) -> None:
    """`before_send` is awaited once, when the connection is open and not a byte has been written."""
    seen: list[bytes] = []

    async def before_send() -> None:
        await bench.upstream.connected.wait()
        await asyncio.sleep(0.02)  # long enough for a byte on its way to arrive over loopback
        seen.append(bench.upstream.received)

    await bench.fetch(before_send)
    assert seen == [b""]


@pytest.mark.parametrize("reused", [False, True])
async def test_exceptions_of_before_send_are_raised_and_nothing_is_sent(bench: Bench, reused: bool) -> None:
    """Exceptions of `before_send` are raised as the same object with its cause, and not a byte is sent upstream."""
    if reused:
        await bench.fetch()
    before = bench.upstream.received
    cause = KeyError("cause")
    lost = StoreUnavailable("the slot was lost")

    async def before_send() -> None:
        raise lost from cause

    with pytest.raises(StoreUnavailable) as caught:
        await bench.fetch(before_send)
    assert caught.value is lost
    assert caught.value.__cause__ is cause
    await bench.upstream.all_closed()
    assert bench.upstream.received == before
    assert bench.upstream.connections == 1
    bench.assert_nothing_leaks()
    assert (await bench.fetch()).total == 1


async def test_before_send_raises_what_httpx_raises(bench: Bench) -> None:
    """An OSError or TimeoutError of `before_send` is not mistaken for the upstream's."""
    for reason in (TimeoutError("mine"), ConnectionResetError("mine")):

        async def before_send(reason: Exception = reason) -> None:
            raise reason

        with pytest.raises(type(reason)) as caught:
            await bench.fetch(before_send)
        assert caught.value is reason


async def test_before_send_takes_too_long(bench: Bench) -> None:
    """If `before_send` ends after the deadline, nothing is sent any more."""
    bench.use(call_timeout_s=0.5)

    async def before_send() -> None:
        await asyncio.sleep(0.6)

    with pytest.raises(UpstreamUnreachable, match="not sent in time") as caught:
        await bench.fetch(before_send)
    assert not caught.value.sent
    await bench.upstream.all_closed()
    assert bench.upstream.received == b""
