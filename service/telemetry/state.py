"""Reads the state of lines, turns, caches and signers at each scrape."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping

import msgspec
from prometheus_client.metrics_core import Metric

from service.budget.line.line import Line
from service.budget.scheduler.interfaces import WaitingCount
from service.cache.caller_shares import CallerShares
from service.cache.memory_blocks import MemoryBlocks
from service.cache.redis_blocks import RedisBlocks
from service.gateway.block_source import AHEAD, LOOKUPS, RENEWAL
from service.gateway.gateway import Gateway
from service.gateway.list_calls import ListCalls
from service.gateway.served import ServedApp, ServedCall
from service.settings import Settings
from service.store.redis_store import RedisStore
from service.store.shared_clock import SharedClock
from service.telemetry.families import Labels, counters, gauges
from service.upstream.client import UpstreamClient
from service.upstream.records import Oddity
from service.upstream.signer import Signer
from service.watch.events import EVENT_NAMES
from service.watch.feeds import Feeds

BACKGROUND = (RENEWAL, AHEAD)
"""Pseudo-callers: names under which blocks are fetched before any caller waits for them."""


BUDGET_LABELS = ("app", "call")
"""The labels of a budget: each app has one for each kind of call."""


class ObservedParts(msgspec.Struct, frozen=True, kw_only=True):
    """The parts whose state is read. `flush` flushes pending records first; `settings` returns the current settings."""

    settings: Callable[[], Settings]
    flush: Callable[[], None]
    apps: Mapping[str, ServedApp]
    list_calls: Mapping[str, ListCalls]
    upstream: UpstreamClient
    signers: tuple[Signer, ...]
    gateway: Gateway
    memory: MemoryBlocks
    blocks: RedisBlocks
    shares: CallerShares
    redis: RedisStore
    shared_clock: SharedClock
    feeds: Feeds


class StateCollector:
    """Collects the current state."""

    def __init__(self, parts: ObservedParts) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        """Yield all state metrics."""
        yield from self._budgets()
        yield from self._upstream()
        yield from self._waiting()
        yield from self._caches()
        yield from self._watches()
        yield from self._process()

    def _lines_by_labels(self) -> list[tuple[Labels, ServedCall, Line]]:
        calls = ((name, call) for name, app in self._parts.apps.items() for call in app.calls)
        return [((name, call.kind.value), call, call.line) for name, call in calls]

    def _budgets(self) -> Iterator[Metric]:
        rows = self._lines_by_labels()
        slots = [(labels, float(call.calls)) for labels, call, _ in rows]
        yield gauges("taskgate_slots", "Slots of the app's budget, over all replicas.", BUDGET_LABELS, slots)
        free = [(labels, float(line.last.free)) for labels, _, line in rows if line.last]
        text = "Free slots at this replica's last query to Redis; a replica without waiting requests makes none."
        yield gauges("taskgate_slots_free", text, BUDGET_LABELS, free)
        seen = [(labels, line.seen_s()) for labels, _, line in rows if line.last]
        yield gauges(
            "taskgate_slots_seen_seconds", "Time since this replica's last query to Redis.", BUDGET_LABELS, seen
        )
        paused = [(labels, line.pause_s()) for labels, _, line in rows]
        text = "Remaining time of a pause requested by the upstream."
        yield gauges("taskgate_pause_seconds", text, BUDGET_LABELS, paused)
        alone = [(labels, float(call.calls_alone or 0)) for labels, call, _ in rows]
        text = "Calls per window that this replica makes on its own while Redis is away; otherwise 0."
        yield gauges("taskgate_calls_alone", text, BUDGET_LABELS, alone)
        stopped = [(labels, float(call.fetching.stopped() is not None)) for labels, call, _ in rows]
        text = "1 while no call is made because credentials or account are at fault."
        yield gauges("taskgate_calls_stopped", text, BUDGET_LABELS, stopped)
        turns: dict[Labels, float] = {
            (*labels, who, end): n for labels, _, line in rows for (who, end), n in line.turn_ends.items()
        }
        text = "Turns by how they ended: used, refunded, given back, lapsed or lost."
        yield counters("taskgate_turns", text, (*BUDGET_LABELS, "caller", "end"), turns)

    def _upstream(self) -> Iterator[Metric]:
        skew_s = self._parts.shared_clock.skew_s
        text = (
            "How far this machine's clock is ahead of Redis'. Pages age by Redis' clock, signatures by the machine's."
        )
        yield gauges("taskgate_clock_skew_seconds", text, (), [] if skew_s is None else [((), skew_s)])
        odd: dict[tuple[str, ...], float] = {(name, kind.value): 0.0 for name in self._parts.apps for kind in Oddity}
        odd |= {labels: float(count) for labels, count in self._parts.upstream.odd.items()}
        text = "Deviations from the upstream's documented format that were tolerated, by kind."
        yield counters("taskgate_upstream_odd_records", text, ("app", "kind"), odd)
        text = (
            "How far this machine's clock is ahead of the upstream's, by the Date of its answers; to a second or two."
        )
        skew = [((name,), skew_s) for name, skew_s in self._parts.upstream.skew_s.items()]
        yield gauges("taskgate_upstream_clock_skew_seconds", text, ("app",), skew)
        short: dict[tuple[str, ...], float] = {
            (name,): float(calls.short_answers) for name, calls in self._parts.list_calls.items()
        }
        text = "Upstream calls that returned fewer tasks than requested although the list continues."
        yield counters("taskgate_upstream_short_answers", text, ("app",), short)
        signed = [
            ((signer.app.name,), max(time.time() - signer.signed_at_s, 0.0))
            for signer in self._parts.signers
            if signer.signed_at_s is not None
        ]
        yield gauges("taskgate_signature_age_seconds", "Age of the signature in use.", ("app",), signed)

    def _waiting(self) -> Iterator[Metric]:
        callers = self._parts.settings().callers
        lengths: dict[Labels, float] = {}
        oldest: list[tuple[Labels, float]] = []
        for labels, call, line in self._lines_by_labels():
            waiting: tuple[WaitingCount, ...] = line.waiting()
            readers = [name for name, caller in callers.items() if call.app in caller.apps]
            lengths |= {(*labels, caller): 0.0 for caller in (*readers, *BACKGROUND)}
            lengths |= {(*labels, row.caller): float(row.count) for row in waiting}
            oldest.append((labels, max((row.waited_ms / 1000 for row in waiting), default=0.0)))
        text = "Blocks on this replica that are waiting for a turn."
        yield gauges("taskgate_line_places", text, (*BUDGET_LABELS, "caller"), lengths.items())
        text = "How long the oldest waiting block of this replica has been waiting."
        yield gauges("taskgate_line_oldest_wait_seconds", text, BUDGET_LABELS, oldest)

    def _caches(self) -> Iterator[Metric]:
        memory, blocks, gateway = self._parts.memory, self._parts.blocks, self._parts.gateway
        lookups: dict[tuple[str, ...], float] = {(found,): gateway.lookups[found] for found in LOOKUPS}
        text = "Block lookups by result: fresh in memory or in Redis, stale, or not found."
        yield counters("taskgate_block_lookups", text, ("found",), lookups)
        yield gauges("taskgate_memory_bytes", "Memory used by the blocks in memory.", (), [((), float(memory.bytes))])
        yield gauges("taskgate_memory_blocks", "Blocks in memory.", (), [((), float(len(memory)))])
        text = "Blocks evicted from memory to make room."
        yield counters("taskgate_memory_evictions", text, (), {(): memory.evictions})
        text = "Values in Redis that could not be read, including those of other releases."
        yield counters("taskgate_blocks_corrupt", text, (), {(): blocks.corrupt})
        text = "Values in Redis that another release wrote."
        yield counters("taskgate_blocks_foreign", text, (), {(): blocks.foreign})
        yield counters("taskgate_blocks_oversized", "Blocks too large for Redis.", (), {(): blocks.oversized})
        yield from self._shares()

    def _shares(self) -> Iterator[Metric]:
        shares, labels = self._parts.shares, ("app", "caller")
        text = "Distinct queries for which this replica has fetched blocks in the last hour."
        queries = [(who, float(count)) for who, count in shares.queries().items()]
        yield gauges("taskgate_caller_queries", text, labels, queries)
        text = "Blocks that Redis keeps for the caller, as of the caller's last fetch by this replica."
        yield gauges("taskgate_caller_blocks", text, labels, [(who, float(n)) for who, n in shares.blocks.items()])
        text = "Blocks that were kept for only a short time because the caller was at its limit."
        brief: dict[tuple[str, ...], float] = {who: float(count) for who, count in shares.brief.items()}
        yield counters("taskgate_caller_blocks_brief", text, labels, brief)

    def _watches(self) -> Iterator[Metric]:
        feeds = self._parts.feeds
        yield gauges("taskgate_watched_lists", "Lists being watched on this replica.", (), [((), float(len(feeds)))])
        yield gauges("taskgate_watchers", "Open watches.", (), [((), float(feeds.watchers))])
        sent: dict[tuple[str, ...], float] = {(name,): feeds.events[name] for name in EVENT_NAMES}
        yield counters("taskgate_watch_events", "Events sent to watchers, by name.", ("event",), sent)

    def _process(self) -> Iterator[Metric]:
        readiness = self._parts.gateway.readiness()
        yield gauges("taskgate_ready", "1 between startup and shutdown.", (), [((), float(readiness.ready))])
        up = float(readiness.redis == "ok")
        yield gauges("taskgate_redis_up", "0 while Redis gives no turns.", (), [((), up)])
        connections = float(self._parts.redis.open_connections)
        yield gauges("taskgate_redis_connections", "Open connections to Redis.", (), [((), connections)])
        tasks = float(len(asyncio.all_tasks()))
        yield gauges("taskgate_tasks", "Tasks in the event loop.", (), [((), tasks)])
