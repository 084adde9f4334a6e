"""What is measured during a soak, and when it counts as flat."""

import asyncio
import statistics
from collections.abc import Sequence

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from tests.scenes.fleet import Fleet, get
from tests.servers import Server

MEASURES = {"memory": "MB", "file handles": "", "tasks": "", "Redis connections": "", "Redis keys": "", "blocks": ""}
"""What is measured, over all replicas, with units."""
NOISE = {"memory": 6, "file handles": 12, "tasks": 12, "Redis connections": 6, "Redis keys": 20, "blocks": 20}
"""By how much two medians may differ without meaning anything: some requests more or less under way."""
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
    """Ask each replica's metrics, and the Valkey."""
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


def is_flat(middle: float, last: float, *, noise: float) -> bool:
    """Whether a measure has stayed: at most 5% more in the last third than in the middle one, or within the noise."""
    return last <= middle * 1.05 or last <= middle + noise
