"""Logs one event per finished upstream call. Its fields never include query strings or signatures."""

from collections.abc import Mapping

import structlog

from service.upstream.call_events import OnUpstreamCall, UpstreamCallEnd
from service.upstream.codes import CodeKind
from service.upstream.verdicts import OK

_log = structlog.get_logger()


def call_logger(regions: Mapping[str, str]) -> OnUpstreamCall:
    """Return an observer that logs `upstream.call`, with times in ms; `regions` maps app names to regions."""

    def log_call(end: UpstreamCallEnd) -> None:
        call = end.call
        write = _log.info if end.result in (OK, CodeKind.CALLER_FAULT) else _log.warning
        write(
            "upstream.call",
            request_id=call.payer.origin.request_id or None,
            caller=call.payer.caller,
            app=call.app,
            call=call.kind.value,
            region=regions[call.app],
            result=end.result,
            code=end.code,
            attempt=call.attempt,
            sent=end.sent_at_s is not None,
            waited_ms=round(call.payer.waited_s * 1000, 1),
            duration_ms=round(end.took_s * 1000, 1),
        )

    return log_call
