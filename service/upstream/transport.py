"""One HTTP call. The only module that imports httpx: its exceptions end here.

A call is never cancelled, for that can wedge httpx's pool for good: it ends by httpx's own time-outs, each of which is
bounded by the call's deadline as well. No error's text, and no text of an error's cause, holds a URL or a signature.
"""

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Self

import httpx

from service.model.errors import (
    UpstreamBroken,
    UpstreamError,
    UpstreamHTTPStatus,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from service.settings import UpstreamSettings

KEEPALIVE_S = 30.0
RETRY_AFTER_MAX_S = 86_400.0

BeforeSend = Callable[[], Awaitable[None]]


class HostUnreachable(UpstreamUnreachable):
    """No connection to this host; another may be tried."""


class _NotBegun(Exception):
    """Carries what `before_send` raised through httpx, which would take the cause off it."""

    def __init__(self, reason: Exception) -> None:
        super().__init__()
        self.reason = reason


class _Left(float):
    """A time-out in seconds that ends with the call's deadline, whenever a wait begins.

    httpcore takes one time-out for all reads of a head or a body, so an upstream that drips could keep a call for good.
    But at the start of each wait the time-out is added to the loop's time, and that sum is made here.
    """

    deadline_s: float

    def __new__(cls, timeout_s: float, *, deadline_s: float) -> Self:
        left = super().__new__(cls, timeout_s)
        left.deadline_s = deadline_s
        return left

    def __radd__(self, now_s: float, /) -> float:
        return min(now_s + float(self), self.deadline_s)


class _Progress:
    """How far a call has come: it awaits `before_send` when the connection is up, before the first byte is written."""

    def __init__(self, app: str, before_send: BeforeSend, *, deadline_s: float) -> None:
        self._app = app
        self._before_send = before_send
        self._deadline_s = deadline_s
        self.sending = False
        self.answered = False

    async def trace(self, event: str, info: object) -> None:
        """Follow httpcore's steps (its `trace` extension)."""
        del info
        if event == "http11.send_request_headers.started" and not self.sending:
            try:
                await self._before_send()
            except Exception as exc:
                raise _NotBegun(exc) from exc
            if asyncio.get_running_loop().time() >= self._deadline_s:
                raise _NotBegun(UpstreamUnreachable("the call was not on its way in time", app=self._app))
            self.sending = True
        elif event == "http11.receive_response_headers.complete":
            self.answered = True


class Transport:
    """The pool of connections to all apps' hosts."""

    def __init__(self, settings: UpstreamSettings) -> None:
        # httpx logs whole URLs at INFO, and httpcore what it sends at DEBUG.
        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._settings = settings
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(
                trust_env=False,
                limits=httpx.Limits(
                    max_connections=settings.connections,
                    max_keepalive_connections=settings.connections,
                    keepalive_expiry=KEEPALIVE_S,
                ),
            ),
            trust_env=False,
            follow_redirects=False,
            cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=())),
            headers={"accept": "application/json", "accept-encoding": "identity", "user-agent": "taskgate"},
        )

    async def post(
        self,
        url: str,
        body: bytes,
        *,
        app: str,
        deadline_s: float,
        before_send: BeforeSend,
        traceparent: str = "",
    ) -> bytes:
        """Send a JSON body and return the answer's, within `deadline_s` on the running loop's clock.

        Raises what `before_send` raises, then nothing was sent; HostUnreachable and UpstreamUnreachable, nothing sent
        either; UpstreamTimeout, UpstreamBroken and UpstreamHTTPStatus.
        """
        progress = _Progress(app, before_send, deadline_s=deadline_s)
        try:
            async with self._client.stream(
                "POST",
                url,
                content=body,
                headers={"content-type": "application/json"} | ({"traceparent": traceparent} if traceparent else {}),
                extensions={"timeout": self._timeouts(deadline_s), "trace": progress.trace},
            ) as response:
                return await self._read(response, app=app, deadline_s=deadline_s)
        except _NotBegun as exc:
            failure = exc.reason
        except (httpx.HTTPError, httpx.StreamError, OSError) as exc:
            failure = _failure(exc, app=app, progress=progress)
        # Raised here, with no context: a protocol error quotes what came, and an echo would quote our own request.
        raise failure

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    def _timeouts(self, deadline_s: float) -> dict[str, float]:
        timeouts_s = {
            "connect": self._settings.connect_timeout_s,
            "pool": self._settings.connect_timeout_s,
            "read": self._settings.read_timeout_s,
            "write": self._settings.read_timeout_s,
        }
        return {name: _Left(timeout_s, deadline_s=deadline_s) for name, timeout_s in timeouts_s.items()}

    async def _read(self, response: httpx.Response, *, app: str, deadline_s: float) -> bytes:
        """Read the body, as far as the bound and the deadline allow."""
        if response.status_code != 200:
            wait_s = retry_after_s(response.headers.get("retry-after", ""), now_s=time.time())
            raise UpstreamHTTPStatus(response.status_code, app=app, retry_after_s=wait_s)
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            # We ask for none, and one that we don't undo can't grow beyond the bound.
            raise UpstreamBroken("the answer is compressed, which was not asked for", app=app, repeats=True)
        bound = self._settings.answer_max_bytes
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > bound:
                raise UpstreamBroken(f"the answer is larger than {bound} bytes", app=app, repeats=True)
            if asyncio.get_running_loop().time() >= deadline_s:
                raise UpstreamTimeout("the answer was not complete in time", app=app)
        return bytes(body)


def retry_after_s(field: str, *, now_s: float) -> float | None:
    """Return how long a `Retry-After` (RFC 9110, 10.2.3) says to wait, a day at most; None if it can't be read."""
    if field.isascii() and field.isdecimal():
        return min(float(field[:9]), RETRY_AFTER_MAX_S)
    try:
        until = parsedate_to_datetime(field)
    except ValueError:
        return None
    if until.tzinfo is None:
        return None
    return min(max(until.timestamp() - now_s, 0.0), RETRY_AFTER_MAX_S)


def _failure(exc: Exception, *, app: str, progress: _Progress) -> UpstreamError:
    """What a failed call is to us."""
    if isinstance(exc, httpx.PoolTimeout):
        return UpstreamUnreachable("no connection was free in time", app=app)
    if not progress.sending:
        return HostUnreachable(_reason(exc), app=app)
    if isinstance(exc, httpx.TimeoutException):
        return UpstreamTimeout(
            "the answer was not complete in time" if progress.answered else "no answer in time", app=app
        )
    return UpstreamBroken(_breakage(exc, answered=progress.answered), app=app)


def _breakage(exc: Exception, *, answered: bool) -> str:
    match exc:
        case httpx.RemoteProtocolError() if answered:
            return "the answer was cut off, or is not proper HTTP"
        case httpx.RemoteProtocolError() if "disconnected" in str(exc):
            return "the connection was closed without an answer"
        case httpx.RemoteProtocolError():
            return "the answer is not HTTP"
        case httpx.NetworkError() | OSError():
            return "the connection broke before the whole answer had come"
        case _:
            return "the call failed within the HTTP client"


_REASONS: tuple[tuple[type[BaseException], str], ...] = (
    (httpx.ConnectTimeout, "no connection could be made in time"),
    (socket.gaierror, "the upstream's host name could not be resolved"),
    (ssl.SSLCertVerificationError, "the upstream's certificate is not valid for its host name, or not trusted"),
    (ssl.SSLError, "no TLS connection could be made"),
    (ConnectionRefusedError, "the upstream's host refused the connection"),
)


def _reason(exc: BaseException) -> str:
    """Why no connection was made, from the exceptions behind `exc`."""
    behind: list[BaseException] = []
    queue: list[BaseException | None] = [exc]
    while queue and len(behind) < 16:
        found = queue.pop(0)
        if found is None or found in behind:
            continue
        behind.append(found)
        queue += [found.__cause__, found.__context__]
        if isinstance(found, BaseExceptionGroup):
            queue += found.exceptions
    for kind, reason in _REASONS:
        if any(isinstance(found, kind) for found in behind):
            return reason
    return "no connection to the upstream's host could be made"
