"""The composition root: builds the gateway from its settings, opens its parts in order and closes them in reverse."""

import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
from litestar import Litestar

from service.budget.line.line import Line
from service.budget.scheduler.fallback import FallbackScheduler, notice_s
from service.budget.scheduler.interfaces import Rules
from service.budget.scheduler.shared import RedisScheduler
from service.cache.block_cache import BlockCache
from service.cache.caller_shares import CallerShares
from service.cache.memory_blocks import MemoryBlocks
from service.cache.purge import Purge
from service.cache.redis_blocks import RedisBlocks
from service.cache.sequential_reads import SequentialReads
from service.configuration.live import LiveSettings, lifetimes_of
from service.configuration.passwords import passwords_of
from service.gateway.call_events import OnCall
from service.gateway.fetch import Fetching
from service.gateway.gateway import Gateway, ServedApp
from service.model.callers import AppInfo
from service.observe.access_log import log_requests
from service.observe.batch import BatchedObservers, Listener
from service.settings import AppSettings, BudgetSettings, Settings, UpstreamSettings
from service.store.inspection import warned
from service.store.redis_store import RedisStore
from service.store.shared_clock import SharedClock
from service.telemetry.signals import Signals
from service.telemetry.state import Watched
from service.upstream.apps import UpstreamApp, upstream_app_of
from service.upstream.client import Client
from service.upstream.secret import secret_of
from service.upstream.signer import Signer
from service.usage.counts import UsageObserver
from service.usage.store import UsageStore
from service.watch.feeds import Feeds
from service.watch.version_store import VersionStore
from service.web.middleware import AsgiApp, Messages
from service.web.response_cache import ResponseCache
from service.web.site import create_web


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """The ASGI application, and callbacks for when the process is asked to stop and when waiting requests must end.

    `at_once` returns responses that need no await, and is tried before `asgi`; None if requests are traced. `refusal`
    returns the response, by status, to a request that cannot be passed to `asgi`.
    """

    asgi: AsgiApp
    at_once: Callable[[Any], Messages | None] | None
    refusal: Callable[[int], Messages]
    leave: Callable[[], None]
    refuse: Callable[[], None]


def create_app(
    settings: Settings,
    *,
    environ: Mapping[str, str] = os.environ,
    access_log: Listener = log_requests,
    follow: str | None = None,
) -> Service:
    """Build all parts; nothing is opened before the application's lifespan begins.

    `access_log` logs requests; the default uses structlog, for people. `follow` is the file that the settings came
    from: while serving, it is read again whenever it changes.
    """
    replica = secrets.token_hex(8)
    passwords = passwords_of(settings.redis, environ)
    live = LiveSettings(settings)
    signals = Signals(settings, environ, callers=lambda: live.caller_names)
    store = RedisStore(
        settings.redis,
        password=passwords.redis,
        sentinel_password=passwords.sentinel,
        on_call=signals.on_store_call,
    )
    clock = SharedClock(store, prefix=settings.redis.prefix)
    lifetimes = lifetimes_of(settings.cache)
    cache = RedisBlocks(store, prefix=settings.redis.prefix, block_size=settings.cache.block_size)
    memory = MemoryBlocks(max_bytes=settings.cache.memory_bytes, clock=time.monotonic)
    shares = CallerShares(
        store,
        prefix=settings.redis.prefix,
        blocks_max=settings.cache.caller_blocks_max,
        clock=time.monotonic,
    )
    block_cache = BlockCache(cache, memory, lifetimes=lifetimes, shares=shares)
    upstream_apps = {
        name: upstream_app_of(name, app, backup_hosts=settings.upstream.backup_hosts)
        for name, app in settings.apps.items()
    }
    signers = _signers(settings, upstream_apps, environ)
    client = Client(settings.upstream, signers=signers)
    channels: dict[str, Line] = {}
    apps: dict[str, ServedApp] = {}
    for name, app in settings.apps.items():
        rules = rules_of(settings.budget, app, settings.upstream)
        shared = RedisScheduler(store, prefix=settings.redis.prefix, app=name, replica=replica, rules=rules)
        sharing = sharing_of(settings, shared, app=name, rules=rules)
        usage_store = UsageStore(
            store,
            prefix=settings.redis.prefix,
            app=name,
            replica=replica,
            clock=clock,
            window_s=settings.budget.window_s,
        )
        line = Line(
            sharing or shared,
            app=name,
            rules=rules,
            redis_grace_s=settings.budget.redis_grace_s,
            used=usage_store.count_call,
        )
        channels[shared.channel] = line
        fetching = Fetching(
            app=upstream_apps[name],
            upstream=client,
            cache=block_cache,
            block_size=settings.cache.block_size,
            align_s=settings.cache.align_s,
            attempts=settings.budget.attempts,
            pause_s=settings.budget.pause_s,
            pause_max_s=settings.budget.pause_max_s,
            clock=clock,
            on_call=(*signals.on_call, _counted(usage_store)),
            tracing=signals.tracing,
        )
        apps[name] = ServedApp(
            info=AppInfo(name=name, region=app.region),
            fetching=fetching,
            line=line,
            usage_store=usage_store,
            sharing=sharing,
            calls=rules.calls,
            window_s=settings.budget.window_s,
        )
    purge = Purge(store, cache, prefix=settings.redis.prefix, apps=apps)
    purge.add(block_cache.forget)
    usage = UsageObserver({name: app.usage_store.count for name, app in apps.items()})
    gathered = BatchedObservers((access_log, *signals.listeners, usage))
    gateway = Gateway(
        apps,
        lifetimes=lifetimes,
        clock=clock,
        purge=purge,
        sequential_reads=SequentialReads(block_size=settings.cache.block_size) if settings.cache.ahead else None,
    )
    feeds = Feeds(
        gateway,
        VersionStore(store, prefix=settings.redis.prefix, keep_s=settings.watch.resume_s),
        settings=settings.watch,
        block_size=settings.cache.block_size,
        clock=clock,
    )
    signals.watch(
        Watched(
            settle=gathered.flush,
            odd=lambda: client.odd,
            skew=lambda: client.skew_s,
            apps=apps,
            callers=lambda: {name: caller.apps for name, caller in live.settings.callers.items()},
            signers={signer.app.name: signer for signer in signers},
            gateway=gateway,
            memory=memory,
            blocks=cache,
            shares=shares,
            redis=store,
            clock=time.time,
            skew_s=lambda: clock.skew_s,
            feeds=feeds,
        )
    )

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as parts:
            await parts.enter_async_context(signals.opened(probes=edge))
            parts.push_async_callback(store.aclose)
            await parts.enter_async_context(clock)
            await parts.enter_async_context(warned(store, settings.redis))
            await parts.enter_async_context(client)
            _begin(parts, apps=apps, gathered=gathered, channels=channels, store=store, gateway=gateway, purge=purge)
            await parts.enter_async_context(live.followed(follow, environ, on_reload=signals.reloaded))
            yield

    callers = live.callers
    edge = create_web(
        gateway,
        callers,
        lambda: live.web,
        feeds=feeds,
        clock=clock,
        observers=(gathered, *signals.observers),
        lifespan=[lifespan],
        is_open=settings.auth == "none",
    )
    responses = ResponseCache(
        edge,
        authenticate_cached=callers.authenticate_cached,
        observers=edge.observers,
        clock=clock,
        max_bytes=0 if settings.auth == "none" else settings.cache.answers_bytes,  # `is_open` is checked behind it
    )
    live.attach(gateway, block_cache, forget=responses.forget)
    purge.add(responses.forget)

    def leave() -> None:
        gateway.leave()
        feeds.leave()

    return Service(
        asgi=signals.edge(responses) if signals.observers else responses.call_app,
        at_once=None if signals.observers else responses.lookup,
        refusal=edge.refuse,
        leave=leave,
        refuse=gateway.refuse,
    )


def _begin(
    parts: AsyncExitStack,
    *,
    apps: Mapping[str, ServedApp],
    gathered: BatchedObservers,
    channels: Mapping[str, Line],
    store: RedisStore,
    gateway: Gateway,
    purge: Purge,
) -> None:
    """Start the background work; `parts` ends it in reverse."""
    for app in apps.values():
        for part in (app.usage_store, app.sharing):
            if part is not None:
                part.start()
                parts.push_async_callback(part.aclose)
    gathered.start()
    parts.callback(gathered.close)
    parts.push_async_callback(gateway.aclose)
    parts.push_async_callback(purge.aclose)
    purge.start()
    for channel, line in channels.items():
        store.listen(channel, _told(line), on_gap=line.on_message_gap)
        line.start()
        parts.push_async_callback(line.aclose)
    gateway.start()
    parts.callback(gateway.leave)


def sharing_of(settings: Settings, shared: RedisScheduler, *, app: str, rules: Rules) -> FallbackScheduler | None:
    """Return the fallback for outages of Redis, if enabled; it takes over before the line rejects waiting requests."""
    if settings.budget.on_redis_down == "closed":
        return None
    return FallbackScheduler(
        shared,
        app=app,
        rules=rules,
        max_replicas=settings.budget.max_replicas,
        grace_s=min(1.0, settings.budget.redis_grace_s / 2),
        notice_s=notice_s(settings.redis.timeout_s),
    )


def rules_of(budget: BudgetSettings, app: AppSettings, upstream: UpstreamSettings) -> Rules:
    """Return the rules of the app's budget. Other replicas give a fetch up once its call must have ended."""
    return Rules(
        calls=app.calls or budget.calls,
        window_ms=round(budget.window_s * 1000),
        transit_ms=round(budget.transit_s * 1000),
        turn_lease_ms=round(budget.turn_lease_s * 1000),
        ahead_ms=min(25, round(budget.window_s * 250)),
        fetch_lease_ms=round((upstream.call_timeout_s + budget.transit_s) * 1000),
    )


def _counted(store: UsageStore) -> OnCall:
    """Return an observer that counts the results of an app's calls in its usage store."""
    return lambda end: store.count_result(end.call.payer.caller, end.result)


def _told(line: Line) -> Callable[[bytes], None]:
    """Return a handler for the scheduler's messages, each the name of a block whose fetch has ended."""
    return lambda message: line.heard(message.decode(errors="replace"))


def _signers(
    settings: Settings, upstream_apps: Mapping[str, UpstreamApp], environ: Mapping[str, str]
) -> tuple[Signer, ...]:
    return tuple(
        Signer(upstream_apps[name], secret_of(app, environ), valid_s=settings.upstream.signature_valid_s)
        for name, app in settings.apps.items()
    )
