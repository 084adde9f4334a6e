"""One HTTP call to an app's hosts. No error text holds a URL or a signature."""

import asyncio
import ssl
import time
from email.utils import parsedate_to_datetime

from service.http_client.addresses import HttpProxy
from service.http_client.client import HttpClient
from service.http_client.connection import BeforeSend, HttpAnswer, HttpLimits
from service.http_client.errors import (
    AnswerEncoded,
    AnswerTooLarge,
    HttpFailure,
    NoneFree,
    NotAnsweredInTime,
    NotConnected,
)
from service.http_client.resolver import Resolver
from service.model.errors import UpstreamBroken, UpstreamError, UpstreamHTTPStatus, UpstreamTimeout, UpstreamUnreachable
from service.settings import UpstreamSettings
from service.upstream.call_events import NO_TRACE, CallTrace

RETRY_AFTER_MAX_S = 86_400.0


_FIELDS = (
    ("accept", "application/json"),
    ("accept-encoding", "identity"),
    ("user-agent", "taskgate"),
    ("content-type", "application/json"),
)


class HostUnreachable(UpstreamUnreachable):
    """No connection to this host could be made; another may be tried."""


class Transport:
    """The connections to one app's hosts, shared with no other app."""

    def __init__(
        self,
        settings: UpstreamSettings,
        *,
        app: str,
        resolver: Resolver,
        context: ssl.SSLContext,
        proxy: HttpProxy | None,
    ) -> None:
        self._app = app
        limits = HttpLimits(
            connect_timeout_s=settings.connect_timeout_s,
            read_timeout_s=settings.read_timeout_s,
            connections=settings.connections,
            answer_max_bytes=settings.answer_max_bytes,
        )
        self.http = HttpClient(limits, resolver=resolver, context=context, proxy=proxy)

    async def post(
        self, url: str, body: bytes, *, deadline_s: float, before_send: BeforeSend, trace: CallTrace = NO_TRACE
    ) -> HttpAnswer:
        """Send a JSON body and return the answer, of status 200, within `deadline_s` on the running loop's clock.

        Raise what `before_send` raises, and HostUnreachable and UpstreamUnreachable, in each case with nothing sent;
        UpstreamTimeout, UpstreamBroken and UpstreamHTTPStatus.
        """

        async def hold_and_check() -> None:
            await before_send()
            if asyncio.get_running_loop().time() >= deadline_s:
                raise UpstreamUnreachable("the call was not sent in time", app=self._app)

        try:
            answer = await self.http.request(
                "POST",
                url,
                headers=(*_FIELDS, *trace.fields),
                body=body,
                deadline_s=deadline_s,
                before_send=hold_and_check,
            )
        except HttpFailure as exc:
            raise self._failure(exc) from exc
        trace.answered(answer.status)
        if answer.status != 200:
            wait_s = retry_after_s(answer.header("retry-after"), now_s=time.time())
            raise UpstreamHTTPStatus(answer.status, app=self._app, retry_after_s=wait_s)
        return answer

    def _failure(self, exc: HttpFailure) -> UpstreamError:
        """Return our error for a failed exchange."""
        match exc:
            case NoneFree():
                return UpstreamUnreachable(str(exc), app=self._app)
            case NotConnected():
                return HostUnreachable(str(exc), app=self._app)
            case NotAnsweredInTime():
                return UpstreamTimeout(str(exc), app=self._app)
        repeats = isinstance(exc, (AnswerEncoded, AnswerTooLarge))
        return UpstreamBroken(str(exc), app=self._app, repeats=repeats)


def date_s(field: str) -> float | None:
    """Return a `Date` (RFC 9110, 6.6.1) in seconds since the epoch; None if it can't be read."""
    try:
        date = parsedate_to_datetime(field)
    except ValueError:
        return None
    return None if date.tzinfo is None else date.timestamp()


def retry_after_s(field: str, *, now_s: float) -> float | None:
    """Return the delay of a `Retry-After` (RFC 9110, 10.2.3), a day at most; None if it can't be read."""
    if field.isascii() and field.isdecimal():
        return min(float(field[:9]), RETRY_AFTER_MAX_S)
    try:
        until = parsedate_to_datetime(field)
    except ValueError:
        return None
    if until.tzinfo is None:
        return None
    return min(max(until.timestamp() - now_s, 0.0), RETRY_AFTER_MAX_S)


AVOID_S = 30.0


class FailedHosts:
    """Remembers failed hosts for half a minute; as many entries as there are hosts."""

    def __init__(self) -> None:
        self._avoided_until_s: dict[str, float] = {}

    def failed(self, host: str, *, now_s: float) -> None:
        """Record that a host could not be reached: prefer the others for a while."""
        self._avoided_until_s[host] = now_s + AVOID_S

    def ordered(self, hosts: tuple[str, ...], *, now_s: float) -> tuple[str, ...]:
        """Return all hosts in order, with those that failed recently last."""
        return tuple(sorted(hosts, key=lambda host: self._avoided_until_s.get(host, now_s) > now_s))
