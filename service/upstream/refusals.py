"""Conversion of the upstream's refusals to our errors, and the stops of calls caused by some refusals."""

from collections.abc import Callable

import msgspec

from service.model.calls import CallKind
from service.model.errors import CallsStopped, QueryRefused, Throttled, UpstreamRefused
from service.upstream.codes import CodeKind, advice_for, kind_of

BAD_SIGNATURES_STOP_S = 60.0

SKEW_S = 90.0
"""The smallest clock difference that is reported: less may be network delay or rounding."""

ABOUT_SIGNATURES = frozenset(
    {CodeKind.SIGNATURE_EXPIRED, CodeKind.CREDENTIALS, CodeKind.TOO_MANY_BAD_SIGNATURES},
)

STOPPING = frozenset(
    {
        CodeKind.TOO_MANY_BAD_SIGNATURES,
        CodeKind.CREDENTIALS,
        CodeKind.WRONG_REGION,
        CodeKind.ACCOUNT,
        CodeKind.OUR_FAULT,
    }
)

OF_ONE_CALL = frozenset({CodeKind.ACCOUNT, CodeKind.OUR_FAULT})
"""Refusals that may concern only one kind of call, such as a package that lacks it; the others concern the app."""


def refusal_error(
    *, app: str, code: int, text: str, stopped_s: float, persists: bool = False, skew_s: float = 0.0
) -> UpstreamRefused:
    """Return the error for a refusal; `text` is already bounded. `skew_s` is how far our clock is ahead.

    `persists` means that a new signature was refused as expired, too, which stops calls like a wrong key. After too
    many bad signatures the upstream accepts no call for at least 60 s.
    """
    kind, advice = kind_of(code), advice_for(code)
    if kind in ABOUT_SIGNATURES and is_off(skew_s):
        direction = "ahead of" if skew_s > 0 else "behind"
        advice = (
            f"This machine's clock is {_duration(abs(skew_s))} {direction} the upstream's, which makes signatures that "
            f"it refuses: set the clock. {advice}"
        )
    if kind in STOPPING or (kind is CodeKind.SIGNATURE_EXPIRED and persists):
        stop_s = max(stopped_s, BAD_SIGNATURES_STOP_S) if kind is CodeKind.TOO_MANY_BAD_SIGNATURES else stopped_s
        return CallsStopped(app=app, code=code, text=text, advice=advice, stopped_for_s=stop_s)
    if kind is CodeKind.THROTTLED:
        return Throttled(app=app, code=code, text=text, advice=advice)
    if kind is CodeKind.CALLER_FAULT:
        return QueryRefused(app=app, code=code, text=text, advice=advice)
    return UpstreamRefused(app=app, code=code, text=text, advice=advice)


def is_off(skew_s: float) -> bool:
    """Return whether a clock is so far off that signatures may be refused."""
    return abs(skew_s) >= SKEW_S


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.0f} hours"


class _Stop(msgspec.Struct, frozen=True, kw_only=True):
    """A stop of one app's calls; `fingerprint` is that of the secret in use when it began."""

    code: int
    text: str
    advice: str
    until_s: float
    fingerprint: bytes


class CallStops:
    """Tracks which calls must not be made now. Times are seconds of any steady clock.

    A stop covers all calls of an app, or those of one kind: an app has at most one stop more than there are kinds.
    """

    def __init__(self) -> None:
        self._stops: dict[tuple[str, CallKind | None], _Stop] = {}

    def begin(self, error: CallsStopped, kind: CallKind, *, fingerprint: bytes, now_s: float) -> None:
        """Stop the app's calls for as long as the error says; a longer stop already in effect stays.

        `kind` is the call that was refused.
        """
        stop = _Stop(
            code=error.code,
            text=error.text,
            advice=error.advice,
            until_s=now_s + error.stopped_for_s,
            fingerprint=fingerprint,
        )
        key = error.app, kind if kind_of(error.code) in OF_ONE_CALL else None
        running = self._stops.get(key)
        if running is None or running.fingerprint != fingerprint or running.until_s <= stop.until_s:
            self._stops[key] = stop

    def current(
        self, app: str, kind: CallKind, *, fingerprint: Callable[[], bytes], now_s: float
    ) -> CallsStopped | None:
        """Return the stop of the app's calls of this kind, with the remaining time, or None."""
        for key in ((app, None), (app, kind)):
            stop = self._stops.get(key)
            if stop is None:
                continue
            if _is_over(stop, fingerprint=fingerprint, now_s=now_s):
                del self._stops[key]
                continue
            error = CallsStopped(
                app=app, code=stop.code, text=stop.text, advice=stop.advice, stopped_for_s=stop.until_s - now_s
            )
            error.sent = False
            return error
        return None


def _is_over(stop: _Stop, *, fingerprint: Callable[[], bytes], now_s: float) -> bool:
    """Return whether a stop has ended. A changed secret ends it.

    After too many bad signatures it does not: that is the upstream's own pause, whatever signs the calls.
    """
    own_pause = kind_of(stop.code) is CodeKind.TOO_MANY_BAD_SIGNATURES
    return now_s >= stop.until_s or (not own_pause and fingerprint() != stop.fingerprint)
