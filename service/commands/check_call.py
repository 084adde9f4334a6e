"""The calls of `taskgate check --call`, each in a turn of the budget that all replicas share."""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Generic, TypeVar

from service.budget.line.jobs import CallFailed, Fetched, HeldSlot, LineIsFull, TooLong
from service.budget.line.line import Line
from service.budget.scheduler.rules import rules_of
from service.budget.scheduler.shared import RedisScheduler
from service.commands.check_app import CheckedCall, Finding, MakeCall, NotCalled, check_app
from service.configuration.clients import redis_store_of, signers_of, upstream_client_of
from service.model.blocks import NOTHING, CachedBlock
from service.model.calls import CallKind, budget_name
from service.model.errors import StoreUnavailable, UpstreamError
from service.settings import Settings
from service.store.redis_store import RedisStore
from service.telemetry.logs import configure
from service.upstream.verdicts import RetryVerdict, verdict

CALLER = "~check"
"""The caller on whose behalf turns are requested: weight 1, like any caller."""
PATIENCE_S = 30.0
REDIS_GRACE_S = 1.0
"""How long Redis may be unavailable before that is reported as the result."""

T = TypeVar("T")


class CheckJob(Generic[T]):
    """A `Job` whose block is not fetched or stored by others."""

    known = b""

    def __init__(self, call: CheckedCall[T], *, block_key: str, pause_s: float, attempts: int) -> None:
        """`pause_s` is how long all turns of the app pause if the upstream reports too many calls.

        A call that could not be sent is tried up to `attempts` times, each in a turn of its own. `answers` holds its
        result once there is one.
        """
        self.answers: list[T] = []
        self.block_key = block_key
        self._call = call
        self._pause_s = pause_s
        self._attempts = attempts

    async def call(self, slot: HeldSlot, *, attempt: int) -> CachedBlock | CallFailed:
        """Make the call, and keep its result."""
        try:
            self.answers.append(await self._call(slot.hold))
        except UpstreamError as exc:
            if verdict(exc) is RetryVerdict.AFTER_PAUSE:
                return CallFailed(error=exc, pause_s=self._pause_s, pause_reason="throttled")
            return CallFailed(error=exc, again=not exc.sent and attempt < self._attempts)
        return NOTHING

    async def keep(self) -> None:
        """Store nothing."""

    async def look(self) -> CachedBlock:
        """Return nothing: this block is never stored."""
        return NOTHING

    def accepts(self, found: CachedBlock) -> bool:
        """Accept only the result of the call."""
        del found
        return False


class CheckCalls:
    """Makes an app's calls, each in a turn of its kind's budget."""

    def __init__(self, lines: Mapping[CallKind, Line], *, block_key: str, settings: Settings) -> None:
        self._lines = lines
        self._block_key = block_key
        self._settings = settings
        self._made = 0

    async def __call__(self, kind: CallKind, call: CheckedCall[T]) -> T:
        """Wait for a turn and make the call. Raise UpstreamError, StoreUnavailable or NotCalled."""
        budget = self._settings.budget
        self._made += 1
        job = CheckJob(
            call, block_key=f"{self._block_key}:{kind}:{self._made}", pause_s=budget.pause_s, attempts=budget.attempts
        )
        outcome = await self._lines[kind].fetch(job, caller=CALLER, weight=1.0, patience_s=PATIENCE_S, bound=1)
        if job.answers and isinstance(outcome, Fetched):
            return job.answers[0]
        estimate_s = outcome.estimate_s if isinstance(outcome, (TooLong, LineIsFull)) else PATIENCE_S
        raise NotCalled(f"not called: its turn would come in {estimate_s:.0f} s, because callers are waiting")


async def check_calls(settings: Settings, *, alone: bool) -> int:
    """Call for all apps at once and print lines for each; return 1 if any call failed, else 0."""
    configure("critical", as_json=False)  # faults are printed here, in plain words
    signers = signers_of(settings, os.environ)
    apps = {signer.app.name: signer.app for signer in signers}
    async with aclosing(upstream_client_of(settings.upstream, signers, os.environ)) as client:

        async def check(name: str, make_call: MakeCall) -> list[Finding] | StoreUnavailable:
            try:
                return await check_app(apps[name], client, settings, make_call)
            except StoreUnavailable as exc:
                return exc

        results = await _check_in_turns(check, settings)
        away = [(name, result) for name, result in results.items() if isinstance(result, StoreUnavailable)]
        if away and (alone or _confirm_without_redis(away[0][1])):
            results |= {name: await check(name, _without_turn) for name, _ in away}
    findings = [(name, finding) for name, result in results.items() for finding in _findings(result)]
    for name, finding in findings:
        print(f"{name}: {finding.text}")
    return 0 if all(finding.is_good for _, finding in findings) else 1


CheckApp = Callable[[str, MakeCall], Awaitable[list[Finding] | StoreUnavailable]]
"""Checks the app of that name."""


async def _check_in_turns(check: CheckApp, settings: Settings) -> dict[str, list[Finding] | StoreUnavailable]:
    """Check all apps, with their calls made in turns."""
    store = redis_store_of(settings.redis, os.environ)

    async def check_one(name: str) -> list[Finding] | StoreUnavailable:
        async with _turns_of(name, settings, store) as make_call:
            return await check(name, make_call)

    try:
        results = await asyncio.gather(*(check_one(name) for name in settings.apps))
    finally:
        await store.aclose()
    return dict(zip(settings.apps, results, strict=True))


@asynccontextmanager
async def _turns_of(name: str, settings: Settings, store: RedisStore) -> AsyncIterator[CheckCalls]:
    """Take part in the app's budgets as a replica while the context lasts."""
    prefix, replica = settings.redis.prefix, secrets.token_hex(8)
    async with AsyncExitStack() as stack:
        lines: dict[CallKind, Line] = {}
        for kind in CallKind:
            rules = rules_of(settings.budget, settings.apps[name], settings.upstream, kind)
            scheduler = RedisScheduler(store, prefix=prefix, app=name, kind=kind, replica=replica, rules=rules)
            lines[kind] = Line(scheduler, app=budget_name(name, kind), rules=rules, redis_grace_s=REDIS_GRACE_S)
            lines[kind].start()
            stack.push_async_callback(lines[kind].aclose)
        yield CheckCalls(lines, block_key=f"{prefix}:{{{name}}}:check:{replica}", settings=settings)


async def _without_turn(kind: CallKind, call: CheckedCall[T]) -> T:
    """Make the call without a turn. Raise UpstreamError."""
    del kind

    async def before_send() -> None:
        pass

    return await call(before_send)


def _confirm_without_redis(error: StoreUnavailable) -> bool:
    """Return whether the user agrees; False without a terminal."""
    print(f"{error}. Without Redis, these calls are made in addition to the gateway's.", file=sys.stderr)
    if not sys.stdin.isatty():
        print("To make them anyway, add --alone.", file=sys.stderr)
        return False
    print("Make them anyway? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _findings(result: list[Finding] | StoreUnavailable) -> list[Finding]:
    """Return the lines to print for an app."""
    if isinstance(result, StoreUnavailable):
        return [Finding(is_good=False, text=f"not called: {result}")]
    return result
