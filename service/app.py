"""The composition root: builds the gateway from its settings, opens its parts in order and closes them in reverse."""

import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
from litestar import Litestar

from service.budget.line.line import Line
from service.cache.block_cache import BlockCache
from service.cache.caller_shares import CallerShares
from service.cache.memory_blocks import MemoryBlocks
from service.cache.purge import Purge
from service.cache.redis_blocks import RedisBlocks
from service.cache.sequential_reads import SequentialReads
from service.cache.task_places import TaskPlaces
from service.configuration.clients import redis_store_of, signers_of, upstream_client_of
from service.configuration.live import LiveSettings
from service.gateway.gateway import Gateway
from service.gateway.list_calls import ListCalls
from service.gateway.served import ServedApp
from service.gateway.served_call_factory import ServedCallFactory
from service.gateway.task_calls import TaskCalls
from service.model.callers import AppInfo
from service.model.calls import CallKind
from service.observe.access_log import log_requests
from service.observe.batch import BatchedObservers, OnRequestBatch
from service.server.asgi import Application, Refuse, ResponseLookup
from service.server.http_server import HttpServer
from service.settings import Settings
from service.store.inspection import logging_redis_advice
from service.store.redis_store import RedisStore
from service.store.shared_clock import SharedClock
from service.telemetry.signals import Signals
from service.telemetry.state import ObservedParts
from service.usage.counts import UsageObserver
from service.watch.feeds import Feeds
from service.watch.version_store import VersionStore
from service.web.client_address import ClientAddresses
from service.web.response_cache import ResponseCache
from service.web.site import create_web


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """The ASGI application, and callbacks for when the process is asked to stop and when waiting requests must end.

    `response_cache` is tried before `asgi`; None if requests are traced. `refusal` returns the response, by status and
    peer, to a request that cannot be passed to `asgi`. `on_server` is called with the server, before it accepts
    connections.
    """

    asgi: Application
    response_cache: ResponseLookup | None
    refusal: Refuse
    on_server: Callable[[HttpServer], None]
    begin_drain: Callable[[], None]
    reject_waiting: Callable[[], None]


def create_app(
    settings: Settings,
    *,
    environ: Mapping[str, str] = os.environ,
    access_log: OnRequestBatch = log_requests,
    config_path: str | None = None,
) -> Service:
    """Build all parts; nothing is opened before the application's lifespan begins.

    `access_log` logs requests; the default uses structlog. `config_path` is the file that the settings came from: while
    serving, it is read again whenever it changes.
    """
    replica = secrets.token_hex(8)
    live = LiveSettings(settings)
    signals = Signals(settings, environ, callers=lambda: live.caller_names)
    store = redis_store_of(settings.redis, environ, on_call=signals.on_store_call)
    clock = SharedClock(store, prefix=settings.redis.prefix)
    lifetimes = settings.cache.lifetimes
    cache = RedisBlocks(store, prefix=settings.redis.prefix, block_size=settings.cache.block_size)
    memory = MemoryBlocks(max_bytes=settings.cache.memory_bytes, clock=time.monotonic)
    places = TaskPlaces(store, prefix=settings.redis.prefix)
    shares = CallerShares(
        store,
        prefix=settings.redis.prefix,
        blocks_max=settings.cache.caller_blocks_max,
        clock=time.monotonic,
    )
    block_cache = BlockCache(cache, memory, lifetimes=lifetimes, places=places, shares=shares)
    signers = signers_of(settings, environ)
    upstream_apps = {signer.app.name: signer.app for signer in signers}
    client = upstream_client_of(settings.upstream, signers, environ)
    factory = ServedCallFactory(
        settings,
        store,
        block_cache,
        stops=client,
        replica=replica,
        clock=clock,
        on_call=signals.on_call,
        tracing=signals.tracing,
    )
    list_calls = {
        name: ListCalls(
            app,
            client,
            block_cache,
            block_size=settings.cache.block_size,
            align_s=settings.cache.align_s,
            clock=clock,
        )
        for name, app in upstream_apps.items()
    }
    apps = {
        name: ServedApp(
            info=AppInfo(name=name, region=settings.apps[name].region),
            list=factory.make(app, CallKind.LIST, list_calls[name]),
            get=factory.make(app, CallKind.GET, TaskCalls(app, client, clock=clock)),
        )
        for name, app in upstream_apps.items()
    }
    purge = Purge(store, cache, prefix=settings.redis.prefix, apps=apps)
    purge.add(block_cache.forget)
    usage = UsageObserver(
        {(name, call.kind): call.usage_store.count for name, app in apps.items() for call in app.calls}
    )
    batched = BatchedObservers((access_log, *signals.listeners, usage))
    sequential_reads = SequentialReads(block_size=settings.cache.block_size) if settings.cache.ahead else None
    gateway = Gateway(
        apps,
        block_size=settings.cache.block_size,
        lifetimes=lifetimes,
        clock=clock,
        purge=purge,
        sequential_reads=sequential_reads,
    )
    feeds = Feeds(
        gateway,
        VersionStore(store, prefix=settings.redis.prefix, keep_s=settings.watch.resume_s),
        settings=settings.watch,
        block_size=settings.cache.block_size,
        clock=clock,
        usage={name: app.list.usage_store.count for name, app in apps.items()},
    )
    signals.observe(
        ObservedParts(
            settings=lambda: live.settings,
            flush=batched.flush,
            apps=apps,
            list_calls=list_calls,
            upstream=client,
            signers=signers,
            gateway=gateway,
            memory=memory,
            blocks=cache,
            shares=shares,
            redis=store,
            shared_clock=clock,
            feeds=feeds,
        )
    )

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as parts:
            await parts.enter_async_context(signals.opened(probes=web))
            parts.push_async_callback(store.aclose)
            await parts.enter_async_context(clock)
            await parts.enter_async_context(logging_redis_advice(store, settings.redis))
            parts.push_async_callback(client.aclose)
            _start(parts, apps=apps, batched=batched, store=store, gateway=gateway, purge=purge)
            await parts.enter_async_context(live.running(config_path, environ, on_reload=signals.reloaded))
            yield

    callers = live.callers
    web = create_web(
        gateway,
        callers,
        lambda: live.web,
        feeds=feeds,
        clock=clock,
        observers=(batched, *signals.observers),
        lifespan=[lifespan],
        clients=ClientAddresses(settings.server.trusted_proxies),
        is_open=settings.auth == "none",
    )
    responses = ResponseCache(
        web,
        authenticate_cached=callers.authenticate_cached,
        observers=web.observers,
        clients=web.clients,
        clock=clock,
        max_bytes=0 if settings.auth == "none" else settings.cache.answers_bytes,  # `is_open` is checked behind it
    )
    live.attach(gateway.set_lifetimes, block_cache.set_lifetimes, forget=responses.forget)
    purge.add(responses.forget)

    def begin_drain() -> None:
        gateway.begin_drain()
        feeds.begin_drain()

    traced = signals.traced(responses)
    return Service(
        asgi=traced or responses.call_app,
        response_cache=None if traced else responses,
        refusal=web.refuse,
        on_server=signals.add_server,
        begin_drain=begin_drain,
        reject_waiting=gateway.reject_waiting,
    )


def _start(
    parts: AsyncExitStack,
    *,
    apps: Mapping[str, ServedApp],
    batched: BatchedObservers,
    store: RedisStore,
    gateway: Gateway,
    purge: Purge,
) -> None:
    """Start the background work; `parts` ends it in reverse."""
    calls = [call for app in apps.values() for call in app.calls]
    for call in calls:
        for part in (call.usage_store, call.sharing):
            if part is not None:
                part.start()
                parts.push_async_callback(part.aclose)
    batched.start()
    parts.callback(batched.close)
    parts.push_async_callback(gateway.aclose)
    parts.push_async_callback(purge.aclose)
    purge.start()
    for call in calls:
        store.listen(call.channel, _on_message_of(call.line), on_gap=call.line.on_message_gap)
        call.line.start()
        parts.push_async_callback(call.line.aclose)
    gateway.start()
    parts.callback(gateway.begin_drain)


def _on_message_of(line: Line) -> Callable[[bytes], None]:
    """Return a handler for the scheduler's messages, each the name of a block whose fetch has ended."""
    return lambda message: line.heard(message.decode(errors="replace"))
