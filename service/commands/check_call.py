"""The calls of `taskgate check --call`: one per app, each in a turn of the budget that all replicas share."""

import asyncio
import os
import secrets
import sys
import time
from collections.abc import Awaitable, Callable

from service.app import rules_of
from service.budget.line.jobs import CallFailed, HeldSlot, LineIsFull, TooLong
from service.budget.line.line import Line
from service.budget.scheduler.shared import RedisScheduler
from service.commands.filtered_time import filtered_time
from service.configuration.passwords import passwords_of
from service.model.blocks import NOTHING, CachedBlock
from service.model.errors import StoreUnavailable, UpstreamError
from service.model.queries import Query, parse_moment, parse_until
from service.model.tasks import Listing
from service.settings import Settings
from service.store.redis_store import RedisStore
from service.telemetry.logs import configure
from service.upstream.apps import upstream_app_of
from service.upstream.client import Client
from service.upstream.secret import secret_of
from service.upstream.signer import Signer
from service.upstream.verdicts import RetryVerdict, explain, verdict

CALLER = "~check"
"""The caller on whose behalf turns are requested: weight 1, like any caller."""
PATIENCE_S = 30.0
REDIS_GRACE_S = 1.0
"""How long Redis may be unavailable before that is reported as the result."""

Call = Callable[[Callable[[], Awaitable[None]]], Awaitable[Listing]]
"""An app's one call; awaits its argument right before it is sent."""


class CheckJob:
    """A `Job` whose block nobody else fetches or stores."""

    known = b""

    def __init__(self, call: Call, *, block_key: str, pause_s: float, attempts: int) -> None:
        """`pause_s` is how long all turns of the app pause if the upstream reports too many calls.

        A call that could not be sent is tried up to `attempts` times, each in a turn of its own.
        """
        self.listing: Listing | None = None
        self.block_key = block_key
        self._call = call
        self._pause_s = pause_s
        self._attempts = attempts

    async def call(self, slot: HeldSlot, *, attempt: int) -> CachedBlock | CallFailed:
        """Make the call, and keep its result as `listing`."""
        try:
            self.listing = await self._call(slot.hold)
        except UpstreamError as exc:
            if verdict(exc) is RetryVerdict.AFTER_PAUSE:
                return CallFailed(error=exc, pause_s=self._pause_s, pause_reason="throttled")
            return CallFailed(error=exc, again=not exc.sent and attempt < self._attempts)
        return NOTHING

    async def keep(self) -> None:
        """Store nothing."""

    async def look(self) -> CachedBlock:
        """Return nothing: nobody stores this block."""
        return NOTHING

    def accepts(self, found: CachedBlock) -> bool:
        """Accept only the result of the call."""
        del found
        return False


async def call_all(settings: Settings, *, alone: bool) -> int:
    """Call for all apps at once and print a line for each; return 1 if any of them failed, else 0."""
    configure("critical", as_json=False)  # faults are printed here, in plain words
    signers = [
        Signer(
            upstream_app_of(name, app, backup_hosts=settings.upstream.backup_hosts),
            secret_of(app, os.environ),
            valid_s=settings.upstream.signature_valid_s,
        )
        for name, app in settings.apps.items()
    ]
    async with Client(settings.upstream, signers=signers) as client:
        calls = {signer.app.name: _call(client, signer, settings) for signer in signers}
        results = await _in_turns(calls, settings)
        away = [(name, result) for name, result in results.items() if isinstance(result, StoreUnavailable)]
        if away and (alone or _allowed_alone(away[0][1])):
            results |= {name: await _alone(calls[name]) for name, _ in away}
    lines = {name: _line(result, settings) for name, result in results.items()}
    for name, (_, line) in lines.items():
        print(f"{name}: {line}")
    return 0 if all(is_good for is_good, _ in lines.values()) else 1


async def _in_turns(calls: dict[str, Call], settings: Settings) -> dict[str, Listing | Exception]:
    """Return each call's result, made in a turn of its app's budget, or why it was not made."""
    replica = secrets.token_hex(8)
    passwords = passwords_of(settings.redis, os.environ)
    store = RedisStore(settings.redis, password=passwords.redis, sentinel_password=passwords.sentinel)
    try:
        results = await asyncio.gather(
            *(_in_turn(name, call, settings, store=store, replica=replica) for name, call in calls.items())
        )
    finally:
        await store.aclose()
    return dict(zip(calls, results, strict=True))


async def _in_turn(
    name: str, call: Call, settings: Settings, *, store: RedisStore, replica: str
) -> Listing | Exception:
    rules = rules_of(settings.budget, settings.apps[name], settings.upstream)
    prefix = settings.redis.prefix
    scheduler = RedisScheduler(store, prefix=prefix, app=name, replica=replica, rules=rules)
    line = Line(scheduler, app=name, rules=rules, redis_grace_s=REDIS_GRACE_S)
    job = CheckJob(
        call,
        block_key=f"{prefix}:{{{name}}}:check:{replica}",
        pause_s=settings.budget.pause_s,
        attempts=settings.budget.attempts,
    )
    line.start()
    try:
        outcome = await line.fetch(job, caller=CALLER, weight=1.0, patience_s=PATIENCE_S, bound=1)
    except (UpstreamError, StoreUnavailable) as exc:
        return exc
    finally:
        await line.aclose()
    if job.listing is not None:
        return job.listing
    estimate_s = outcome.estimate_s if isinstance(outcome, (TooLong, LineIsFull)) else PATIENCE_S
    return TimeoutError(f"not called: its turn would come in {estimate_s:.0f} s; callers wait before it")


async def _alone(call: Call) -> Listing | Exception:
    try:
        return await call(_at_once)
    except UpstreamError as exc:
        return exc


def _call(client: Client, signer: Signer, settings: Settings) -> Call:
    query = _query(signer.app.name, settings)

    async def call(before_send: Callable[[], Awaitable[None]]) -> Listing:
        range_ = query.range_at(time.time(), align_s=settings.cache.align_s)
        want = settings.cache.block_size
        return await client.fetch(signer.app, query, range_, offset=0, want=want, before_send=before_send)

    return call


def _allowed_alone(error: StoreUnavailable) -> bool:
    """Return whether the user agrees; False if nobody can be asked."""
    print(f"{error}. Without it these calls come on top of those that the gateway makes.", file=sys.stderr)
    if not sys.stdin.isatty():
        print("To make them all the same, add --alone.", file=sys.stderr)
        return False
    print("Make them all the same? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _line(result: Listing | Exception, settings: Settings) -> tuple[bool, str]:
    """Return whether a result is good, and the line to print for it."""
    match result:
        case UpstreamError():
            return False, explain(result)
        case StoreUnavailable():
            return False, f"not called: {result}"
        case Exception():
            return False, str(result)
    got, expected = len(result.tasks) + result.left_out, min(settings.cache.block_size, result.total)
    advice = "" if got >= expected else f"; set cache.block_size to {got}: one call gives no more"
    range_ = _query("", settings).range_at(time.time(), align_s=settings.cache.align_s)
    remark = filtered_time(result.tasks, range_)
    said = f"ok, {result.total} tasks from {settings.query.since} to {settings.query.until}{advice}"
    return True, f"{said}; {remark}" if remark else said


def _query(app: str, settings: Settings) -> Query:
    """Return the query of a caller without parameters."""
    return Query(app=app, since=parse_moment(settings.query.since), until=parse_until(settings.query.until))


async def _at_once() -> None:
    """Do nothing before the call."""
