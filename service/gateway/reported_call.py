"""An upstream call in a held slot, reported to observers."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from service.budget.line.jobs import HeldSlot
from service.http_client.connection import BeforeSend
from service.model.calls import CallKind
from service.model.errors import UpstreamRefused
from service.upstream.call_events import NO_TRACE, CallTrace, CallTracing, OnUpstreamCall, UpstreamCall, UpstreamCallEnd
from service.upstream.verdicts import result_of


class ReportedCall:
    """The call that a slot was taken for. `attempt` counts from 1."""

    def __init__(
        self,
        slot: HeldSlot,
        *,
        app: str,
        kind: CallKind,
        attempt: int,
        on_call: Sequence[OnUpstreamCall],
        tracing: CallTracing | None,
    ) -> None:
        """`on_call` are called after the call, `tracing` before it."""
        self.attempt = attempt
        self._slot = slot
        self._call = UpstreamCall(app=app, kind=kind, payer=slot.payer, attempt=attempt)
        self._on_call = on_call
        self._tracing = tracing

    @contextmanager
    def made(self) -> Iterator[tuple[BeforeSend, CallTrace]]:
        """Report the call made within the context: with this trace, awaiting this function before the first byte."""
        loop = asyncio.get_running_loop()
        trace = NO_TRACE if self._tracing is None else self._tracing.begin(self._call)
        begun_s, sent_at_s, error = loop.time(), None, None

        async def before_send() -> None:
            nonlocal sent_at_s
            await self._slot.hold()
            sent_at_s = loop.time()

        try:
            yield before_send, trace
        except Exception as exc:
            error = exc
            raise
        finally:
            end = UpstreamCallEnd(
                call=self._call,
                result=result_of(error),
                code=error.code if isinstance(error, UpstreamRefused) else None,
                took_s=loop.time() - begun_s,
                sent_at_s=sent_at_s,
            )
            trace.end(end)
            for observe in self._on_call:
                observe(end)
