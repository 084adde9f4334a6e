"""Maps errors of Redis and redis-py to ours, each with a word from a closed set and without keys or values."""

import ssl

from redis import exceptions as foreign

from service.model.errors import StoreDetail, StoreUnavailable

# RedisClusterException is not a RedisError; redis-py's ConnectionError and TimeoutError are not the built-in ones.
REDIS_ERRORS = (foreign.RedisError, foreign.RedisClusterException, OSError)

_BY_CLASS: tuple[tuple[tuple[type[Exception], ...], StoreDetail], ...] = (
    ((foreign.TimeoutError, TimeoutError), "timed out"),
    ((foreign.BusyLoadingError,), "loading"),
    ((foreign.AuthenticationError, foreign.AuthorizationError, foreign.NoPermissionError), "refused"),
    ((foreign.ReadOnlyError,), "read-only"),
    ((foreign.OutOfMemoryError,), "out of memory"),
    ((foreign.ClusterError, foreign.TryAgainError, foreign.AskError, foreign.RedisClusterException), "cluster down"),
    ((foreign.ConnectionError, OSError), "unreachable"),
    ((foreign.InvalidResponse,), "broken answer"),
)

_BY_CODE: dict[str, StoreDetail] = {
    "BUSY": "busy",
    "UNKILLABLE": "busy",
    "MISCONF": "read-only",
    "NOREPLICAS": "read-only",
    "WRONGPASS": "refused",
    "NOAUTH": "refused",
}

COSTLY: frozenset[StoreDetail] = frozenset({"unreachable", "timed out", "certificate not trusted", "TLS failed"})
"""Faults that take a caller time to discover; all others are reported quickly."""


def unavailable(exc: Exception, *, in_script: bool = False) -> StoreUnavailable:
    """Return the error that callers see; raise it `from` the original."""
    if isinstance(exc, StoreUnavailable):
        return exc
    if (fault := tls_fault(exc)) is not None:
        is_untrusted = isinstance(fault, ssl.SSLCertVerificationError)
        return StoreUnavailable("certificate not trusted" if is_untrusted else "TLS failed")
    for classes, detail in _BY_CLASS:
        if isinstance(exc, classes):
            return StoreUnavailable("refused" if "max number of clients" in str(exc) else detail)
    code = str(exc).partition(" ")[0]
    return StoreUnavailable(_BY_CODE.get(code, "script refused" if in_script else "refused"))


def tls_fault(exc: BaseException) -> ssl.SSLError | None:
    """Return the TLS fault that redis-py has wrapped, if it is one."""
    within: BaseException | None = exc
    while within is not None and not isinstance(within, ssl.SSLError):
        within = within.__cause__ or within.__context__
    return within
