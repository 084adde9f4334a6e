"""Adapt the bound on connections to the number of files that this process may open."""

import resource

import structlog

OTHERS = 128
"""Files for everything but clients: Redis, the upstream, metrics, configuration files, the interpreter."""

log = structlog.get_logger("taskgate.serving")


def connections_within_files(wanted: int, *, others: int = OTHERS) -> int:
    """Raise the soft limit as far as allowed, and return how many connections fit below it; warn if that is less."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + others
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    allowed = max(1, soft - others)
    log.warning("server.low_file_limit", connections_max=wanted, connections=allowed, files=soft)
    return allowed
