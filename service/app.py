"""The one place where parts meet: builds the gateway from its settings, opens it in order and closes it in reverse."""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from litestar import Litestar

from service import __version__
from service.budget.counted import CountedScheduler
from service.budget.ledger import Ledger
from service.budget.line import Line
from service.budget.scheduler import Rules
from service.budget.shared import SharedScheduler
from service.budget.sharing import SharingScheduler, notice_s
from service.cache.ahead import Walks
from service.cache.blocks import BlockCache, Kept
from service.cache.memory import MemoryCache
from service.cache.purge import Purge
from service.cache.shelf import Shelf
from service.calls import OnCall
from service.configuration.passwords import passwords_of
from service.fetching import Fetching
from service.gateway import App, Gateway
from service.model.callers import AppInfo
from service.model.freshness import Lifetimes
from service.settings import AppSettings, BudgetSettings, CacheSettings, Settings, UpstreamSettings
from service.store.redis_store import RedisStore
from service.telemetry.call_log import call_logger
from service.telemetry.exposition import exposed
from service.telemetry.metrics import Metrics
from service.telemetry.state import Watched
from service.telemetry.traces import traces_of
from service.telemetry.upstream_calls import CalledApp
from service.upstream.apps import UpstreamApp, upstream_app_of
from service.upstream.client import Client
from service.upstream.secret import secret_of
from service.upstream.signer import Signer
from service.web.access_log import log_request
from service.web.credentials import KeyCallers
from service.web.edge import App as Application
from service.web.replay import Replay
from service.web.settings import web_settings
from service.web.site import create_web
from service.web.trail import Observer

if TYPE_CHECKING:
    from service.telemetry.spans import Traces


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """The ASGI application, and what to call when the process is told to end: who waits in line is refused at once."""

    asgi: Application
    leave: Callable[[], None]


def create_app(
    settings: Settings, *, environ: Mapping[str, str] = os.environ, access_log: Observer = log_request
) -> Service:
    """Build everything; nothing is opened before the application's lifespan begins."""
    replica = secrets.token_hex(8)
    passwords = passwords_of(settings.redis, environ)
    metrics = _metrics(settings)
    regions = _regions(settings)
    traces = traces_of(settings.telemetry, environ, regions=regions, version=__version__)
    store = RedisStore(
        settings.redis,
        password=passwords.redis,
        sentinel_password=passwords.sentinel,
        on_call=metrics.redis if metrics else None,
    )
    lifetimes = lifetimes_of(settings.cache)
    cache = BlockCache(store, prefix=settings.redis.prefix, block_size=settings.cache.block_size)
    memory = MemoryCache(max_bytes=settings.cache.memory_bytes, clock=time.monotonic)
    shelf = Shelf(cache, memory, lifetimes=lifetimes)
    upstream_apps = {
        name: upstream_app_of(name, app, backup_hosts=settings.upstream.backup_hosts)
        for name, app in settings.apps.items()
    }
    signers = _signers(settings, upstream_apps, environ)
    client = Client(settings.upstream, signers=signers)
    on_call: list[OnCall] = [call_logger(regions), *([metrics.calls] if metrics else ())]
    channels: dict[str, Line[Kept]] = {}
    apps: dict[str, App] = {}
    for name, app in settings.apps.items():
        rules = rules_of(settings.budget, app, settings.upstream)
        shared = SharedScheduler(store, prefix=settings.redis.prefix, app=name, replica=replica, rules=rules)
        sharing = sharing_of(settings, shared, app=name, rules=rules)
        ledger = Ledger(store, prefix=settings.redis.prefix, app=name, replica=replica, clock=time.time)
        scheduler = CountedScheduler(sharing or shared, used=partial(ledger.count, column="turns"))
        line: Line[Kept] = Line(scheduler, app=name, rules=rules, redis_grace_s=settings.budget.redis_grace_s)
        channels[shared.channel] = line
        fetching = Fetching(
            app=upstream_apps[name],
            upstream=client,
            shelf=shelf,
            block_size=settings.cache.block_size,
            align_s=settings.cache.align_s,
            attempts=settings.budget.attempts,
            pause_s=settings.budget.pause_s,
            clock=time.time,
            on_call=on_call,
            tracing=traces,
        )
        info = AppInfo(name=name, region=app.region)
        window_s = settings.budget.window_s
        apps[name] = App(
            info=info,
            fetching=fetching,
            line=line,
            ledger=ledger,
            sharing=sharing,
            calls=rules.calls,
            window_s=window_s,
        )
    purge = Purge(store, cache, prefix=settings.redis.prefix, apps=apps)
    purge.add(shelf.forget)
    walks = Walks(block_size=settings.cache.block_size) if settings.cache.ahead else None
    gateway = Gateway(apps, lifetimes=lifetimes, clock=time.time, purge=purge, walks=walks)
    if metrics:
        metrics.watch(
            Watched(
                apps=apps,
                callers=lambda: {name: caller.apps for name, caller in settings.callers.items()},
                signers={signer.app.name: signer for signer in signers},
                gateway=gateway,
                memory=memory,
                blocks=cache,
                redis=store,
                clock=time.time,
            )
        )

    callers = KeyCallers(
        settings.callers, waiting_max=settings.budget.waiting_max, wait_max_s=settings.budget.wait_max_s
    )
    observers: list[Observer] = [*([metrics.requests] if metrics else ()), *([traces.ended] if traces else ())]
    lifespan = _lifespan(
        settings,
        store=store,
        client=client,
        gateway=gateway,
        purge=purge,
        apps=apps,
        channels=channels,
        metrics=metrics,
        traces=traces,
    )
    web = web_settings(settings)
    edge = create_web(gateway, callers, web, access_log=access_log, observers=observers, lifespan=[lifespan])
    replay = Replay(
        edge, callers=callers, observers=edge.observers, clock=time.time, max_bytes=settings.cache.answers_bytes
    )
    purge.add(replay.forget)
    return Service(asgi=traces.edge(replay) if traces else replay, leave=gateway.leave)


def _lifespan(
    settings: Settings,
    *,
    store: RedisStore,
    client: Client,
    gateway: Gateway,
    purge: Purge,
    apps: Mapping[str, App],
    channels: Mapping[str, Line[Kept]],
    metrics: Metrics | None,
    traces: "Traces | None",
) -> Callable[[Litestar], AbstractAsyncContextManager[None]]:
    """What is opened in order when the application starts, and closed in reverse."""

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as parts:
            if traces:
                await parts.enter_async_context(traces.flushed())
            if metrics and settings.telemetry.metrics_port is not None:
                host, port = settings.telemetry.metrics_host, settings.telemetry.metrics_port
                await parts.enter_async_context(exposed(metrics.text, host=host, port=port))
                await parts.enter_async_context(metrics.lag.measured())
            parts.push_async_callback(store.aclose)
            await parts.enter_async_context(client)
            for app in apps.values():
                for part in (app.ledger, app.sharing):
                    if part is not None:
                        part.start()
                        parts.push_async_callback(part.aclose)
            parts.push_async_callback(gateway.aclose)
            parts.push_async_callback(purge.aclose)
            purge.start()
            for channel, line in channels.items():
                store.listen(channel, _told(line), on_gap=line.heard_nothing)
                line.start()
                parts.push_async_callback(line.aclose)
            gateway.start()
            parts.callback(gateway.leave)
            yield

    return lifespan


def sharing_of(settings: Settings, shared: SharedScheduler, *, app: str, rules: Rules) -> SharingScheduler | None:
    """What serves while Redis is away, where that is wanted; it begins before the line refuses those who wait."""
    if settings.budget.on_redis_down == "closed":
        return None
    return SharingScheduler(
        shared,
        app=app,
        rules=rules,
        max_replicas=settings.budget.max_replicas,
        grace_s=min(1.0, settings.budget.redis_grace_s / 2),
        notice_s=notice_s(settings.redis.timeout_s),
    )


def _metrics(settings: Settings) -> Metrics | None:
    """What is counted; nothing where nobody can read it."""
    if settings.telemetry.metrics_port is None:
        return None
    regions = _regions(settings)
    return Metrics(
        version=__version__,
        apps={name: CalledApp(region=regions[name], window_s=settings.budget.window_s) for name in settings.apps},
        callers=lambda: settings.callers,
        clock=lambda: asyncio.get_running_loop().time(),
    )


def _regions(settings: Settings) -> dict[str, str]:
    """Each app's region; `custom` where a base URL is configured instead."""
    return {name: app.region or "custom" for name, app in settings.apps.items()}


def lifetimes_of(cache: CacheSettings) -> Lifetimes:
    """For how long what is stored may be served."""
    return Lifetimes(
        fresh_s=cache.fresh_s,
        settled_s=cache.settled_s,
        refusal_s=cache.refusal_s,
        stale_while_revalidate_s=cache.stale_while_revalidate_s,
        stale_if_error_s=cache.stale_if_error_s,
    )


def rules_of(budget: BudgetSettings, app: AppSettings, upstream: UpstreamSettings) -> Rules:
    """What the app's budget must keep. A fetch is given up by other replicas when its call must have ended."""
    return Rules(
        calls=app.calls or budget.calls,
        window_ms=round(budget.window_s * 1000),
        transit_ms=round(budget.transit_s * 1000),
        turn_lease_ms=round(budget.turn_lease_s * 1000),
        ahead_ms=min(25, round(budget.window_s * 250)),
        fetch_lease_ms=round((upstream.call_timeout_s + budget.transit_s) * 1000),
    )


def _told(line: Line[Kept]) -> Callable[[bytes], None]:
    """What to do with a message of the scheduler: it is the name of a block whose fetch has ended."""
    return lambda message: line.heard(message.decode(errors="replace"))


def _signers(
    settings: Settings, upstream_apps: Mapping[str, UpstreamApp], environ: Mapping[str, str]
) -> tuple[Signer, ...]:
    return tuple(
        Signer(upstream_apps[name], secret_of(app, environ), valid_s=settings.upstream.signature_valid_s)
        for name, app in settings.apps.items()
    )
