"""The sandbox upstream: answers its two calls as the upstream's pages say, and fails on demand."""

import asyncio
import hashlib
import random
import time
from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta

from service.sandbox.arrivals import Arrivals
from service.sandbox.failures import apply_failure
from service.sandbox.faults import Faults, HangUp, SandboxCall
from service.sandbox.http1 import Disconnection, HttpResponse, SandboxReply, SandboxRequest
from service.sandbox.listing import ListPage, SandboxTasks, read_body
from service.sandbox.one_task import TaskFound, read_get_body, task_answer
from service.sandbox.refusals import SandboxCode, SandboxRefusal, refusal_response
from service.sandbox.tasks import generate_tasks
from service.sandbox.verify import verify

CALLS: dict[str, SandboxCall] = {"/v4/timpush/list_sched_task": "list", "/v4/timpush/get_sched_task": "get"}
APPS_MAX = 1000


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
    """What the sandbox serves: to each app `calls` in `window_s` of each kind of call.

    `want_max` None: any Want, since the upstream's own bound is not known. `unknown_task_code` answers an unknown id;
    the upstream's own is not known either, and None answers with success and no task.
    """

    apps: Annotated[tuple[SandboxApp, ...], Meta(min_length=1, max_length=APPS_MAX)] = APPS
    seed: int = 1
    tasks: Annotated[int, Meta(ge=0, le=100_000)] = 2000
    calls: Annotated[int, Meta(ge=1, le=100_000)] = 5
    window_s: Annotated[float, Meta(gt=0, le=3600)] = 1.0
    range_max_days: Annotated[int, Meta(ge=1)] = 366
    want_max: int | None = None
    unknown_task_code: int | None = SandboxCode.NO_SUCH_TASK


class SandboxClock(msgspec.Struct, frozen=True, kw_only=True):
    """The two clocks of a sandbox: `now_s` for statuses and expiry, `monotonic_ms` for arrivals."""

    now_s: Callable[[], float] = time.time
    monotonic_ms: Callable[[], float] = lambda: time.monotonic_ns() / 1e6


class SandboxAppState:
    """The sandbox's state of one app."""

    def __init__(self, app: SandboxApp, options: SandboxOptions, *, start_s: int) -> None:
        self.app = app
        self.tasks = SandboxTasks(
            generate_tasks(seed=options.seed, sdkappid=app.sdkappid, start_s=start_s), total=options.tasks
        )
        self.reset_arrivals(options)

    def reset_arrivals(self, options: SandboxOptions) -> None:
        """Forget all arrivals, as if there had been no call yet."""
        self.arrivals: dict[SandboxCall, Arrivals] = {
            call: Arrivals(calls=options.calls, window_ms=options.window_s * 1000) for call in CALLS.values()
        }


class SandboxUpstream:
    """The upstream's calls, for several apps, with faults.

    `strays` counts requests that name no app of the sandbox, or neither call.
    """

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
            state.reset_arrivals(self.options)

    async def call(self, request: SandboxRequest) -> SandboxReply:
        """Answer one call: outbound delay, arrival, answer and return delay, each with its faults.

        A call in transit arrives and is counted even if its client has hung up meanwhile, as in a real network.
        """
        url = dict(request.parameters)
        state = self.apps.get(_number(url.get("sdkappid", "")))
        call = CALLS.get(request.path, "list")
        injection = self.faults.inject(state.app.sdkappid if state else 0, call)
        await _wait(injection.there_ms)
        if isinstance(injection.ending, HangUp) and not injection.ending.counted:
            return Disconnection(reset=injection.ending.reset)
        answer = self.answer(request, url=url, state=state)
        await _wait(injection.back_ms)
        return answer if injection.ending is None else apply_failure(answer, injection.ending, call=call)

    def answer(self, request: SandboxRequest, *, url: dict[str, str], state: SandboxAppState | None) -> HttpResponse:
        """Count the arrival and answer it without faults."""
        call = CALLS.get(request.path)
        if state is None or call is None:
            self.strays += 1
        elif not state.arrivals[call].arrive(self.clock.monotonic_ms()):
            return refusal_response(
                SandboxRefusal(code=SandboxCode.TOO_OFTEN, text="called too often, please try again later")
            )
        refusal = check_url(request, url=url)
        if refusal:
            return refusal_response(refusal)
        if state is None:
            return refusal_response(
                SandboxRefusal(code=SandboxCode.NO_SUCH_APP, text="no app with this sdkappid in this region")
            )
        refusal = self._check_caller(url, state)
        if refusal:
            return refusal_response(refusal)
        result = self._one(request.body, state) if call == "get" else self._page(request.body, state)
        return (
            refusal_response(result)
            if isinstance(result, SandboxRefusal)
            else HttpResponse(body=msgspec.json.encode(result))
        )

    def _check_caller(self, url: dict[str, str], state: SandboxAppState) -> SandboxRefusal | None:
        """Return what is wrong with the signature or its identifier."""
        refusal = verify(
            url["usersig"],
            identifier=url["identifier"],
            sdkappid=state.app.sdkappid,
            key=state.app.key,
            now_s=self.clock.now_s(),
        )
        if refusal is None and url["identifier"] != state.app.admin:
            return SandboxRefusal(code=SandboxCode.NOT_ADMIN, text="the identifier is not an administrator of the app")
        return refusal

    def _page(self, body: bytes, state: SandboxAppState) -> ListPage | SandboxRefusal:
        listing = read_body(
            body,
            sdkappid=state.app.sdkappid,
            range_max_days=self.options.range_max_days,
            want_max=self.options.want_max,
        )
        if isinstance(listing, SandboxRefusal):
            return listing
        return state.tasks.page(listing, sdkappid=state.app.sdkappid, now_s=self.clock.now_s())

    def _one(self, body: bytes, state: SandboxAppState) -> TaskFound | SandboxRefusal:
        task_id = read_get_body(body, sdkappid=state.app.sdkappid)
        if isinstance(task_id, SandboxRefusal):
            return task_id
        info = state.tasks.one(task_id, sdkappid=state.app.sdkappid, now_s=self.clock.now_s())
        return task_answer(info, unknown_code=self.options.unknown_task_code)


def check_url(request: SandboxRequest, *, url: dict[str, str]) -> SandboxRefusal | None:
    """Return what is wrong with method, path and parameters of the URL, except for the signature and the app."""
    if request.path not in CALLS or request.method != "POST":
        return SandboxRefusal(code=SandboxCode.NO_SUCH_API, text=f"there is only POST {' and '.join(CALLS)}")
    if len(url) != len(request.parameters):
        return SandboxRefusal(code=SandboxCode.BAD_URL, text="a parameter of the URL is repeated")
    if not _number(url.get("sdkappid", "")):
        return SandboxRefusal(code=SandboxCode.NO_SDKAPPID, text="sdkappid is missing or no number")
    if not url.get("identifier"):
        return SandboxRefusal(code=SandboxCode.NO_IDENTIFIER, text="identifier is missing")
    if "usersig" not in url:
        return SandboxRefusal(code=SandboxCode.SIGNATURE_EMPTY, text="usersig is missing")
    if url.get("contenttype") != "json":
        return SandboxRefusal(code=SandboxCode.BAD_URL, text="contenttype must be json")
    random_ = url.get("random", "")
    if not (random_.isascii() and random_.isdigit() and len(random_) <= 10 and int(random_) < 2**32):
        return SandboxRefusal(code=SandboxCode.BAD_URL, text="random must be a 32-bit unsigned integer")
    return None


def _number(text: str) -> int:
    """Return a positive decimal of at most ten digits; 0 for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else 0


async def _wait(ms: float) -> None:
    if ms > 0:
        await asyncio.sleep(ms / 1000)
