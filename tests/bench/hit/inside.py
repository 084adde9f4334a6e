"""A profile of a hit, the cost of a block, and the memory of 10,000 blocks, measured in this process."""

import asyncio
import hashlib
import io
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from service.cache.codec import decode_value, encode_value
from service.cache.memory_blocks import MemoryBlocks
from service.callers.authenticator import Authenticator
from service.callers.table import table_of
from service.model.blocks import Block, CachedBlock, block_of
from service.model.calls import CallKind
from service.model.pages import Obtained, Page, Source
from service.model.queries import At, Query, Range, Slice
from service.model.tasks import Listing, Task
from service.observe.access_log import AccessLog, log_requests
from service.observe.batch import BATCH_MAX, BatchedObservers, OnRequestBatch
from service.observe.request import RequestContext, RequestRecord
from service.settings import AppSettings, CallerSettings, RedisSettings, Settings
from service.telemetry.logs import configure
from service.telemetry.metrics import Metrics
from service.usage.counts import UsageObserver
from service.web.cacheable_response import CacheableResponse
from service.web.headers.encoding import compressors
from service.web.middleware import request_id_of
from service.web.page_body import render_page
from service.web.response_cache import ResponseCache
from tests.bench.machine import resident_mib
from tests.observations import observed
from tests.scenes.fleet import key_of

QUERY = Query(app="shop", since=At(epoch_s=1_740_000_000), until=At(epoch_s=1_760_000_000))
RANGE = Range(since_s=1_740_000_000, until_s=1_760_000_000)


def block(number: int = 0) -> Block:
    """A block of 100 tasks of the usual size."""
    tasks = tuple(
        Task(
            id=1_000_000_000 + number * 100 + place,
            type="all",
            status="dispatched",
            title=f"Spring sale #{place}",
            description="Everything must go before the week ends",
            created_at="2025-05-20T08:30:00Z",
            scheduled_at="2025-06-01T10:00:00Z",
            dispatched=True,
            dispatch_error=None,
            push_task_id=f"{place:08x}_537529d8_200003546b784eb_3a080d7b_{number:08x}",
            content=msgspec.Raw(
                b'{"From_Account":"administrator","MsgRandom":1919996449,"OfflinePushInfo":{"Title":"Spring sale",'
                b'"Desc":"Everything must go before the week ends"}}'
            ),
        )
        for place in range(100)
    )
    listing = Listing(tasks=tasks, total=2000)
    return block_of(listing, query=QUERY, range_=RANGE, fetched_at_ms=1_750_000_000_000 + number)


def each_us(work: Callable[[], object], *, times: int = 2000, rounds: int = 5) -> float:
    """Return microseconds for one run, the best of a few rounds: other load only adds to it."""
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(times):
            work()
        best = min(best, (time.perf_counter() - began) / times)
    return best * 1e6


def of_a_block() -> list[tuple[str, str]]:
    """Return the times of operations on a block of 100 tasks."""
    made = block()
    value = encode_value(made, chance=b"chance")
    memory = MemoryBlocks(max_bytes=1 << 30, clock=time.monotonic)
    page = Page(
        query=QUERY,
        slice=Slice(offset=40, limit=20),
        range=RANGE,
        total=2000,
        fetched_at_ms=made.fetched_at_ms,
        lifetime_s=15.0,
        body=made.cut(40, 60),
        source=Source.HIT,
    )
    kept = CachedBlock(stored=made, head=b"")
    tasks = msgspec.json.decode(b"[%s]" % made.body)
    steps: list[tuple[str, Callable[[], object]]] = [
        ("encode for Redis", lambda: encode_value(made, chance=b"chance")),
        ("decode from Redis (checksum included)", lambda: decode_value(value)),
        ("keep in memory", lambda: memory.put("key", kept, app="shop", ends_in_s=60)),
        ("look up in memory", lambda: memory.get("key")),
        ("cut twenty tasks", lambda: made.cut(40, 60)),
        (
            "build the body, tag and links of that slice",
            lambda: render_page(page, path="/tasks", link_query="app=shop&"),
        ),
        ("for comparison: decode the JSON of the block", lambda: msgspec.json.decode(b"[%s]" % made.body)),
        ("for comparison: encode twenty tasks as JSON", lambda: msgspec.json.encode(tasks[40:60])),
    ]
    steps += [
        (f"compress the slice with {name}", lambda compress=compress: compress(page.body))  # type: ignore[misc]
        for name, compress in compressors().items()
    ]
    size = f"{len(value) / 1024:.1f} KiB"
    return [(f"{name} ({size})" if "Redis" in name else name, f"{each_us(work):.1f} µs") for name, work in steps]


def of_ten_thousand_blocks() -> tuple[int, int, float, float]:
    """Return the number of blocks, bytes of their bodies, MiB as counted by the cache, MiB by which the process
    grew."""
    memory = MemoryBlocks(max_bytes=4 << 30, clock=time.monotonic)
    before = resident_mib(os.getpid())
    bodies = 0
    values = [encode_value(block(number), chance=b"chance") for number in range(20)]
    for number in range(10_000):
        stored = decode_value(values[number % 20])
        assert isinstance(stored, Block)
        bodies += len(stored.body)
        kept = CachedBlock(stored=stored, head=bytes(16))
        memory.put(f"taskgate:{{shop}}:b:{number:032x}:0", kept, app="shop", ends_in_s=600)
    return len(memory), bodies, memory.bytes / 2**20, resident_mib(os.getpid()) - before


def of_a_hit() -> list[tuple[str, str]]:
    """Time the gateway's parts of a hit; the server's part is the whole time of the bare app."""
    key = key_of("c0")
    settings = Settings(
        apps={"shop": AppSettings(sdkappid=1, admin="a", secret_env="S")},
        callers={"c0": CallerSettings(keys=(_digest(key),), apps=("shop",))},
        redis=RedisSettings(url="redis://127.0.0.1"),
    )
    callers = Authenticator(table_of(settings), issuer=None)
    authorization = f"Bearer {key}".encode()
    log = AccessLog(lambda _, count: None)
    metrics = Metrics(version="", apps={}, callers=lambda: ("c0",), clock=time.monotonic)
    usage = UsageObserver({("shop", CallKind.LIST): lambda caller, column, number: None})
    replayed_us = asyncio.run(_replayed(callers, authorization, (log, metrics.requests, usage)))
    return [
        ("the whole hot path", f"{replayed_us:.1f} µs"),
        ("of that, the access log line", f"{_listened_us(log):.1f} µs"),
        ("of that, metrics and usage", f"{_listened_us(metrics.requests) + _listened_us(usage):.1f} µs"),
        ("of that, a new request id", f"{each_us(lambda: request_id_of(None)):.1f} µs"),
        ("for comparison: the same line with structlog", f"{_by_structlog(observed()):.1f} µs"),
        ("for comparison: authentication by SHA-256", f"{each_us(lambda: callers.identify(authorization)):.1f} µs"),
    ]


def _listened_us(listener: OnRequestBatch) -> float:
    records = [observed()] * BATCH_MAX
    return each_us(lambda: listener(records), times=20, rounds=50) / BATCH_MAX


async def _replayed(callers: Authenticator, authorization: bytes, listeners: Sequence[OnRequestBatch]) -> float:
    headers = (
        (b"etag", b'"7f9d7634ddd1b7526d05d98eeb6da9b5"'),
        (b"cache-control", b"private, max-age=600"),
        (b"age", b"0"),
        (b"vary", b"Accept, Accept-Encoding, Authorization"),
        (b"cache-status", b"taskgate; hit; ttl=600"),
        (b"link", b"x" * 150),
        (b"content-type", b"application/json"),
    )
    obtained = Obtained(fetched_at_ms=int(time.time() * 1000), lifetime_s=600.0, source=Source.HIT)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["state"] = {"context": RequestContext(request_id="a", fields={}, caller="c0", app="shop")}
        scope["path_template"] = "/tasks"
        await CacheableResponse(obtained, status=200, headers=headers, body=b"x" * 6200)(scope, receive, send)

    async def send(_: Any) -> None:
        return None

    gathered = BatchedObservers(listeners)
    gathered.start()
    cache = ResponseCache(
        app,
        authenticate_cached=callers.authenticate_cached,
        observers=(gathered,),
        clock=time.time,
        max_bytes=1_000_000,
    )
    fields = [(b"host", b"127.0.0.1:8000"), (b"authorization", authorization)]
    scope = {"type": "http", "method": "GET", "path": "/tasks", "query_string": b"app=shop&limit=14", "headers": fields}
    scope |= {"client": ("127.0.0.1", 1), "http_version": "1.1"}
    head = b"a head of about the usual size" * 5
    for _ in range(2):
        await cache(scope, None, send)
    assert cache.lookup(scope, head) is not None
    best = float("inf")
    for _ in range(200):
        began = time.perf_counter()
        for _ in range(BATCH_MAX):
            cache.lookup_head(head, scope["client"])
        gathered.flush()
        best = min(best, (time.perf_counter() - began) / BATCH_MAX)
        await asyncio.sleep(0)
    return best * 1e6


def _by_structlog(observation: RequestRecord) -> float:
    writer = configure("info", as_json=True, stream=io.StringIO())
    try:
        return each_us(lambda: log_requests([observation]), times=500)
    finally:
        writer.close()


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
