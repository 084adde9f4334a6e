"""The sandbox upstream: answers `list_sched_task` as the upstream's page says, and fails on demand."""

import asyncio
import hashlib
import random
import time
from collections.abc import Callable
from typing import Annotated, Literal, assert_never

import msgspec
from msgspec import Meta

from service.sandbox.arrivals import Arrivals
from service.sandbox.faults import (
    CutOff,
    Ending,
    ErrorCode,
    Faults,
    Garbage,
    Hang,
    HangUp,
    HttpStatus,
    Oversize,
)
from service.sandbox.http1 import HangingUp, HttpResponse, Reply, Request
from service.sandbox.listing import Tasks, read_body
from service.sandbox.refusals import Code, SandboxRefusal
from service.sandbox.tasks import seeded
from service.sandbox.verify import verify

PATH = "/v4/timpush/list_sched_task"
APPS_MAX = 1000

_GARBAGE: dict[Literal["bytes", "html", "empty", "array", "no_code", "no_tasks", "wrong_types"], bytes] = {
    "bytes": bytes(range(256)),
    "html": b"<html><body><h1>Welcome</h1></body></html>",
    "empty": b"",
    "array": b"[]",
    "no_code": b'{"ActionStatus":"OK","Total":0,"Tasks":[]}',
    "no_tasks": b'{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"Total":3}',
    "wrong_types": b'{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"Total":"3","Tasks":{"TaskID":"x"}}',
}


class SandboxApp(msgspec.Struct, frozen=True, kw_only=True):
    """An app of the sandbox. `key` is the text that signatures are made with."""

    name: str
    sdkappid: int
    key: str
    admin: str = "administrator"


def sandbox_app(name: str, sdkappid: int, *, admin: str = "administrator") -> SandboxApp:
    """Return an app whose key is derived from its SDKAppID and protects nothing."""
    key = hashlib.sha256(f"taskgate sandbox {sdkappid}".encode()).hexdigest()
    return SandboxApp(name=name, sdkappid=sdkappid, key=key, admin=admin)


APPS = (sandbox_app("shop", 1_400_000_001), sandbox_app("news", 1_400_000_002))


class SandboxOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the sandbox serves. `want_max` None: any Want, since the upstream's own bound is not known."""

    apps: Annotated[tuple[SandboxApp, ...], Meta(min_length=1, max_length=APPS_MAX)] = APPS
    seed: int = 1
    tasks: Annotated[int, Meta(ge=0, le=100_000)] = 2000
    calls: Annotated[int, Meta(ge=1, le=100_000)] = 5
    window_s: Annotated[float, Meta(gt=0, le=3600)] = 1.0
    range_max_days: Annotated[int, Meta(ge=1)] = 366
    want_max: int | None = None


class SandboxClock(msgspec.Struct, frozen=True, kw_only=True):
    """The two clocks of a sandbox: `now_s` for statuses and expiry, `monotonic_ms` for arrivals."""

    now_s: Callable[[], float] = time.time
    monotonic_ms: Callable[[], float] = lambda: time.monotonic_ns() / 1e6


class SandboxAppState:
    """The sandbox's state of one app."""

    def __init__(self, app: SandboxApp, options: SandboxOptions, *, start_s: int) -> None:
        self.app = app
        self.tasks = Tasks(seeded(seed=options.seed, sdkappid=app.sdkappid, start_s=start_s), total=options.tasks)
        self.arrivals = Arrivals(calls=options.calls, window_ms=options.window_s * 1000)


class SandboxUpstream:
    """The upstream's one call, for several apps, with faults. `strays` counts calls that name no app of the sandbox."""

    def __init__(self, options: SandboxOptions, *, clock: SandboxClock | None = None) -> None:
        self.options = options
        self.clock = clock or SandboxClock()
        self.faults = Faults(random.Random(options.seed))  # noqa: S311 repeatable, not secret
        self.apps: dict[int, SandboxAppState] = {}
        self.strays = 0
        start_s = int(self.clock.now_s())
        for app in options.apps:
            self.apps[app.sdkappid] = SandboxAppState(app, options, start_s=start_s)

    def reset_arrivals(self) -> None:
        """Forget all arrivals, as if there had been no call yet."""
        self.strays = 0
        for state in self.apps.values():
            state.arrivals = Arrivals(calls=self.options.calls, window_ms=self.options.window_s * 1000)

    async def call(self, request: Request) -> Reply:
        """Answer one call: outbound delay, arrival, answer and return delay, each with its faults.

        A call in transit arrives and is counted even if its client has hung up meanwhile, as in a real network.
        """
        url = dict(request.parameters)
        state = self.apps.get(_number(url.get("sdkappid", "")))
        strike = self.faults.strike(state.app.sdkappid if state else 0)
        await _wait(strike.there_ms)
        if isinstance(strike.ending, HangUp) and not strike.ending.counted:
            return HangingUp(reset=strike.ending.reset)
        answer = self.answer(request, url=url, state=state)
        await _wait(strike.back_ms)
        return answer if strike.ending is None else spoil(answer, strike.ending)

    def answer(self, request: Request, *, url: dict[str, str], state: SandboxAppState | None) -> HttpResponse:
        """Count the arrival and answer it without faults."""
        if state is None:
            self.strays += 1
        elif not state.arrivals.arrive(self.clock.monotonic_ms()):
            return refused(SandboxRefusal(code=Code.TOO_OFTEN, text="called too often, please try again later"))
        refusal = check_url(request, url=url)
        if refusal:
            return refused(refusal)
        if state is None:
            return refused(SandboxRefusal(code=Code.NO_SUCH_APP, text="no app with this sdkappid in this region"))
        now_s = self.clock.now_s()
        refusal = verify(
            url["usersig"],
            identifier=url["identifier"],
            sdkappid=state.app.sdkappid,
            key=state.app.key,
            now_s=now_s,
        )
        if refusal:
            return refused(refusal)
        if url["identifier"] != state.app.admin:
            return refused(
                SandboxRefusal(code=Code.NOT_ADMIN, text="the identifier is not an administrator of the app")
            )
        wanted = read_body(
            request.body,
            sdkappid=state.app.sdkappid,
            range_max_days=self.options.range_max_days,
            want_max=self.options.want_max,
        )
        if isinstance(wanted, SandboxRefusal):
            return refused(wanted)
        page = state.tasks.page(wanted, sdkappid=state.app.sdkappid, now_s=now_s)
        return HttpResponse(body=msgspec.json.encode(page))


def check_url(request: Request, *, url: dict[str, str]) -> SandboxRefusal | None:
    """Return what is wrong with method, path and parameters of the URL, except for the signature and the app."""
    if request.path != PATH or request.method != "POST":
        return SandboxRefusal(code=Code.NO_SUCH_API, text=f"there is only POST {PATH}")
    if len(url) != len(request.parameters):
        return SandboxRefusal(code=Code.BAD_URL, text="a parameter of the URL is repeated")
    if not _number(url.get("sdkappid", "")):
        return SandboxRefusal(code=Code.NO_SDKAPPID, text="sdkappid is missing or no number")
    if not url.get("identifier"):
        return SandboxRefusal(code=Code.NO_IDENTIFIER, text="identifier is missing")
    if "usersig" not in url:
        return SandboxRefusal(code=Code.SIGNATURE_EMPTY, text="usersig is missing")
    if url.get("contenttype") != "json":
        return SandboxRefusal(code=Code.BAD_URL, text="contenttype must be json")
    random_ = url.get("random", "")
    if not (random_.isascii() and random_.isdigit() and len(random_) <= 10 and int(random_) < 2**32):
        return SandboxRefusal(code=Code.BAD_URL, text="random must be a 32-bit unsigned integer")
    return None


def refused(refusal: SandboxRefusal) -> HttpResponse:
    """Return a refusal as the upstream writes it, with HTTP status 200."""
    body = {"ActionStatus": "FAIL", "ErrorInfo": refusal.text, "ErrorCode": int(refusal.code)}
    return HttpResponse(body=msgspec.json.encode(body))


def spoil(answer: HttpResponse, ending: Ending) -> Reply:
    """Return what a fault makes of a good answer."""
    match ending:
        case ErrorCode(code=code, text=text):
            return refused(SandboxRefusal(code=code, text=text))
        case HttpStatus(status=status):
            page = f"<html><body><h1>{status}</h1></body></html>".encode()
            return HttpResponse(status=status, content_type="text/html", body=page)
        case HangUp(reset=reset):
            return HangingUp(reset=reset)
        case Hang(hold_ms=hold_ms):
            return HangingUp(hold_s=hold_ms / 1000)
        case Garbage(of=of):
            return HttpResponse(body=_GARBAGE[of], content_type="text/html" if of == "html" else "application/json")
        case CutOff(keep=keep, declared=declared):
            return HttpResponse(body=answer.body, send=int(len(answer.body) * keep), declared=declared)
        case Oversize(bytes=size, declared=declared):
            body = b'{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"Total":0,"Tasks":[]}'
            return HttpResponse(body=body, padding=size - len(body), declared=declared)
    assert_never(ending)


def _number(text: str) -> int:
    """Return a positive decimal of at most ten digits; 0 for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else 0


async def _wait(ms: float) -> None:
    if ms > 0:
        await asyncio.sleep(ms / 1000)
