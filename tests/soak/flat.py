"""The measures of a soak, and when they count as flat."""

import asyncio
import statistics
from collections.abc import Sequence

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from tests.scenes.fleet import Fleet, get
from tests.servers import Server

MEASURES = {"memory": "MB", "file handles": "", "tasks": "", "Redis connections": "", "Redis keys": "", "blocks": ""}
"""The measures over all replicas, with units."""
GROWTH = {"memory": 6, "file handles": 12, "tasks": 12, "Redis connections": 6, "Redis keys": 20, "blocks": 20}
"""How far the last third's median may exceed the middle third's, as requests in progress vary."""
REST = {"tasks": 3, "file handles except Redis": 6, "Redis keys": 10}
"""How far these may exceed their initial values once the load is over: idle connections to the upstream are kept for a
minute, and a few keys have yet to expire. Pooled connections to Redis stay open, up to the size of the pool."""
_METRICS = {
    "process_resident_memory_bytes": ("memory", 1e-6),
    "process_open_fds": ("file handles", 1),
    "taskgate_tasks": ("tasks", 1),
    "taskgate_redis_connections": ("Redis connections", 1),
    "taskgate_memory_blocks": ("blocks", 1),
}


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """All measures at once; `at_s` since the load began."""

    at_s: float
    values: dict[str, float]


async def sampled(gateways: Fleet, valkey: Server, *, at_s: float) -> Sample:
    """Query each replica's metrics, and the Valkey."""
    values = dict.fromkeys(MEASURES, 0.0)
    for replica in gateways.replicas:
        scraped = await get(replica.metrics_port, "/metrics")
        for family in text_string_to_metric_families(scraped.body.decode()):
            for sample in family.samples:
                if sample.name in _METRICS:
                    name, factor = _METRICS[sample.name]
                    values[name] += sample.value * factor
    values["Redis keys"] = float(await asyncio.to_thread(valkey.run, "DBSIZE"))
    return Sample(at_s=at_s, values=values)


def thirds(samples: Sequence[Sample], name: str) -> tuple[float, float, float]:
    """A measure's median in the first, middle and last third of the time."""
    size = max(1, len(samples) // 3)
    parts = (samples[:size], samples[size : 2 * size] or samples, samples[2 * size :] or samples)
    first, middle, last = (statistics.median(each.values[name] for each in part) for part in parts)
    return first, middle, last


def grown(samples: Sequence[Sample]) -> list[str]:
    """Describe each measure that has not stayed flat."""
    found = []
    for name, allowed in GROWTH.items():
        _, middle, last = thirds(samples, name)
        if last > middle + allowed:
            found.append(f"{name} grew from {middle:.0f} to {last:.0f}, by more than {allowed}")
    return found


def left_over(before: Sample, after: Sample) -> list[str]:
    """Describe what is left of the load after its end."""
    found = []
    for name, allowed in REST.items():
        was, now = _at_rest(before, name), _at_rest(after, name)
        if now > was + allowed:
            found.append(f"{name} at rest: {was:.0f} before, {now:.0f} after, more than {allowed} above")
    return found


def _at_rest(sample: Sample, name: str) -> float:
    if name == "file handles except Redis":
        return sample.values["file handles"] - sample.values["Redis connections"]
    return sample.values[name]
