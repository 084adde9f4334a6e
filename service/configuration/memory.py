"""The maximum memory of one process under a configuration, whatever callers, clients and the upstream do."""

from pathlib import Path

import msgspec

from service.settings import Settings

KIB = 1024
MIB = 1024 * KIB

PROCESS_BYTES = 64 * MIB
"""The interpreter, all imports and static files, when idle."""
CONNECTION_BYTES = 2 * KIB
"""A connection without a request; measured at 1.6 KiB."""
REQUEST_BYTES = 16 * KIB
"""A waiting request: its task, parameters and place in line; measured at 15.7 KiB. Likewise a stream or watcher."""
REDIS_CONNECTION_BYTES = 256 * KIB
"""A Redis connection with a block in transit."""
ANSWER_COPIES = 2
"""An upstream answer while it is being read: its bytes and the records parsed from them."""
TABLES_BYTES = 16 * MIB
"""Tables with fixed bounds: cached tokens, labels, usage by minute, compiled headers, recent queries."""
OPERATORS_BYTES = 8 * MIB
"""The listener for metrics and probes."""

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


class MemoryUse(msgspec.Struct, frozen=True, kw_only=True):
    """The maximum memory of one part; `path` is the setting that bounds it, empty if it is fixed."""

    part: str
    path: str
    max_bytes: int


def memory_model(settings: Settings) -> tuple[MemoryUse, ...]:
    """Return the memory that each part may use at its bound."""
    cache, server, upstream = settings.cache, settings.server, settings.upstream
    connections = server.connections_max * (CONNECTION_BYTES + REQUEST_BYTES)
    answers = len(settings.apps) * upstream.connections * upstream.answer_max_bytes * ANSWER_COPIES
    redis = settings.redis.connections * REDIS_CONNECTION_BYTES
    rows = (
        ("the process itself", "", PROCESS_BYTES),
        ("blocks", "cache.memory_bytes", cache.memory_bytes),
        ("cached responses", "cache.answers_bytes", cache.answers_bytes + cache.answers_bytes // 4),
        ("watched lists", "watch.memory_bytes", settings.watch.memory_bytes),
        ("connections and their requests", "server.connections_max", connections),
        ("unread responses", "server.unsent_max_bytes", server.unsent_max_bytes),
        ("upstream answers being read", "upstream.answer_max_bytes", answers),
        ("connections to Redis", "redis.connections", redis),
        ("metrics and probes", "", OPERATORS_BYTES),
        ("tables", "", TABLES_BYTES),
    )
    return tuple(MemoryUse(part=part, path=path, max_bytes=count) for part, path, count in rows)


def total_bytes(model: tuple[MemoryUse, ...]) -> int:
    """Return the sum."""
    return sum(each.max_bytes for each in model)


def container_limit(path: Path = _CGROUP_LIMIT) -> int | None:
    """Return the memory limit of this process's container, or None if none is visible."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def memory_warning(settings: Settings, limit_bytes: int | None) -> str | None:
    """Return a warning if the configuration's bounds exceed the available memory."""
    total = total_bytes(memory_model(settings))
    if limit_bytes is None or total <= limit_bytes:
        return None
    return (
        f"the bounds of this configuration allow {total // MIB} MiB, and the limit is {limit_bytes // MIB} MiB: "
        "lower the bounds, or raise the limit (docs/memory.md)"
    )
