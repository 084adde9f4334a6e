"""The upstream client: signs, routes, calls and reads one answer. It knows nothing of budgets, caches and retries."""

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterable
from secrets import randbits
from typing import TypeVar
from urllib.parse import urlsplit

import structlog

from service.http_client.addresses import proxy_of, tls_context
from service.http_client.connection import BeforeSend, HttpAnswer
from service.http_client.resolver import Resolver
from service.model.calls import CallKind
from service.model.errors import CallsStopped, UpstreamBroken, UpstreamRefused, UpstreamUnreachable
from service.model.queries import Query, Range
from service.model.tasks import Listing, Task
from service.settings import UpstreamSettings
from service.upstream.apps import UpstreamApp
from service.upstream.call_events import NO_TRACE, CallTrace
from service.upstream.codes import CodeKind, kind_of
from service.upstream.get_call import TaskAnswer, get_body, read_task_answer
from service.upstream.list_call import list_body, read_listing
from service.upstream.refusals import CallStops, is_off, refusal_error
from service.upstream.signer import Signature, Signer
from service.upstream.transport import FailedHosts, HostUnreachable, Transport, date_s
from service.upstream.wire import MalformedAnswer, UpstreamRefusal, bounded, request_target

log = structlog.get_logger(__name__)


T = TypeVar("T", Listing, TaskAnswer)


class UpstreamClient:
    """Calls the upstream for all apps, over separate connections for each app.

    `signers` holds one per app. `wall` returns seconds since the epoch, for signing; `steady` times stops and failed
    hosts. `odd` counts deviations of answers from what the upstream's page promises, by app and kind; `skew_s` is how
    far this machine's clock is ahead of the upstream's, by app, accurate to a second or two.
    """

    def __init__(
        self,
        settings: UpstreamSettings,
        *,
        signers: Iterable[Signer],
        proxy_password: str | None = None,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        resolver: Resolver | None = None,
    ) -> None:
        self.odd: Counter[tuple[str, str]] = Counter()
        self.skew_s: dict[str, float] = {}
        self._settings = settings
        self._signers = {signer.app.name: signer for signer in signers}
        self._wall = wall
        self._steady = steady
        self._resolver = resolver or Resolver()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody
        if any(signer.app.speaks_tls for signer in self._signers.values()):
            context = tls_context(settings.ca_file)  # reads the CAs, which takes 20 ms
        proxy = None
        if settings.proxy_url is not None:
            proxy = proxy_of(settings.proxy_url, username=settings.proxy_username, password=proxy_password)
        self._transports = {
            name: Transport(settings, app=name, resolver=self._resolver, context=context, proxy=proxy)
            for name in self._signers
        }
        self._stops = CallStops()
        self._failed_hosts = FailedHosts()
        self._expired: dict[str, int] = {}

    @property
    def connections_in_use(self) -> int:
        """The number of connections in use, over all apps."""
        return sum(transport.http.in_use for transport in self._transports.values())

    async def aclose(self) -> None:
        """Close all connections."""
        for transport in self._transports.values():
            await transport.http.aclose()
        await self._resolver.aclose()

    def stopped(self, app: UpstreamApp, kind: CallKind = CallKind.LIST) -> CallsStopped | None:
        """Return why no such call may be made for the app now, with the remaining time, or None. Make no call.

        The secret's file is checked at most once a second: a changed secret lifts the stop.
        """
        return self._stops.current(
            app.name,
            kind,
            fingerprint=lambda: self._signers[app.name].fingerprint(self._wall()),
            now_s=self._steady(),
        )

    async def fetch(
        self,
        app: UpstreamApp,
        query: Query,
        range_: Range,
        *,
        offset: int,
        want: int,
        before_send: BeforeSend,
        trace: CallTrace = NO_TRACE,
    ) -> Listing:
        """Make one call for `want` tasks from `offset` on.

        `before_send` is awaited once, after a connection is available and before the first byte is written; its
        exceptions pass through unchanged, and then nothing was sent. Never cancel this: it ends by itself within
        `call_timeout_s`, unless `before_send` takes longer. The fields of `trace` are sent with the call.

        Raise the model's errors: UpstreamUnreachable (`sent` is false) if no call was made; UpstreamTimeout,
        UpstreamHTTPStatus and UpstreamBroken if it failed; UpstreamRefused, or one of its subclasses QueryRefused,
        Throttled and CallsStopped, if the upstream refused; CallsStopped with `sent` false while calls are stopped.
        """
        return await self._answer(
            app,
            CallKind.LIST,
            list_body(app, query, range_, offset=offset, want=want, order_by=self._settings.order_by),
            lambda body: read_listing(body, sdkappid=app.sdkappid, offset=offset, want=want),
            before_send=before_send,
            trace=trace,
        )

    async def get_task(
        self, app: UpstreamApp, task_id: int, *, before_send: BeforeSend, trace: CallTrace = NO_TRACE
    ) -> Task | None:
        """Make one call for the task with this id; return None if the app has no such task.

        Parameters and errors are those of `fetch`.
        """
        unknown_codes = self._settings.unknown_task_codes
        answer = await self._answer(
            app,
            CallKind.GET,
            get_body(app, task_id),
            lambda body: read_task_answer(body, sdkappid=app.sdkappid, task_id=task_id, unknown_codes=unknown_codes),
            before_send=before_send,
            trace=trace,
        )
        return answer.task

    async def _answer(
        self,
        app: UpstreamApp,
        kind: CallKind,
        body: bytes,
        read: Callable[[bytes], T | UpstreamRefusal],
        *,
        before_send: BeforeSend,
        trace: CallTrace,
    ) -> T:
        """Make one call, unless such calls are stopped, and return its answer as read by `read`."""
        if stop := self.stopped(app, kind):
            raise stop
        signature = self._signers[app.name].current(self._wall())
        target = request_target(app, kind, signature=signature.text, random=randbits(32))
        received = await self._call(app, target, body, before_send, trace)
        self._note_clock(app, received)
        try:
            answer = read(received.body)
        except MalformedAnswer as exc:
            raise UpstreamBroken(str(exc), app=app.name, repeats=True) from exc
        if isinstance(answer, UpstreamRefusal):
            raise self._refused(app, kind, answer, signature)
        self._expired.pop(app.name, None)
        self._note_odd(app, answer)
        return answer

    def _note_odd(self, app: UpstreamApp, answer: Listing | TaskAnswer) -> None:
        """Count an answer's deviations; log the first of each kind."""
        for kind, count in answer.odd:
            if not self.odd[app.name, kind]:
                log.warning("upstream.odd_answer", app=app.name, kind=kind)
            self.odd[app.name, kind] += count

    async def _call(
        self, app: UpstreamApp, target: str, body: bytes, before_send: BeforeSend, trace: CallTrace
    ) -> HttpAnswer:
        """Call the app's first host, or the next if no connection could be made, in which case nothing was sent."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._settings.call_timeout_s
        reason = "no host to call"
        for host in self._failed_hosts.ordered(app.hosts, now_s=self._steady()):
            trace.sends("POST", host + target.partition("?")[0])
            try:
                return await self._transports[app.name].post(
                    host + target,
                    body,
                    deadline_s=deadline_s,
                    before_send=before_send,
                    trace=trace,
                )
            except HostUnreachable as exc:
                reason = str(exc)
            self._failed_hosts.failed(host, now_s=self._steady())
            log.warning("upstream.host_unreachable", app=app.name, host=urlsplit(host).hostname, reason=reason)
            if loop.time() >= deadline_s:
                break
        raise UpstreamUnreachable(reason, app=app.name)

    def _note_clock(self, app: UpstreamApp, answer: HttpAnswer) -> None:
        """Compare this machine's clock with the upstream's, which determines whether signatures are valid."""
        upstream_s = date_s(answer.header("date"))
        if upstream_s is None:
            return
        skew_s = self._wall() - upstream_s
        was_off = is_off(self.skew_s.get(app.name, 0.0))
        self.skew_s[app.name] = skew_s
        if is_off(skew_s) and not was_off:
            log.warning("upstream.clock_skew", app=app.name, ahead_s=round(skew_s))

    def _refused(
        self, app: UpstreamApp, kind: CallKind, refusal: UpstreamRefusal, signature: Signature
    ) -> UpstreamRefused:
        """Return the error for a refusal, after its side effects: drop the signature, stop calls.

        If a signature made since the first refusal is refused as expired as well, a new one won't help either.
        """
        persists = False
        if kind_of(refusal.code) is CodeKind.SIGNATURE_EXPIRED:
            persists = signature.number > self._expired.setdefault(app.name, signature.number)
            self._signers[app.name].forget(signature)
        error = refusal_error(
            app=app.name,
            code=refusal.code,
            text=bounded(refusal.text, secret=signature.text),
            stopped_s=self._settings.stopped_s,
            persists=persists,
            skew_s=self.skew_s.get(app.name, 0.0),
        )
        if isinstance(error, CallsStopped):
            self._stops.begin(error, kind, fingerprint=signature.fingerprint, now_s=self._steady())
            log.error(
                "upstream.calls_stopped", app=app.name, call=kind, code=error.code, stopped_for_s=error.stopped_for_s
            )
        return error
