"""Foreign errors become ours: each has its detail, and none reveals a key, a value or a password."""

import ssl

import pytest
from redis import exceptions as foreign

from service.model.errors import StoreUnavailable
from service.store.faults import REDIS_ERRORS, unavailable

CASES = [
    (foreign.ConnectionError("Error 111 connecting to 10.0.0.1:6379"), "unreachable"),
    (ConnectionResetError("reset"), "unreachable"),
    (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] SECRET"), "TLS failed"),
    (ssl.SSLCertVerificationError(1, "SECRET"), "certificate not trusted"),
    (foreign.TimeoutError("Timeout reading from SECRET"), "timed out"),
    (TimeoutError(), "timed out"),
    (foreign.ReadOnlyError("You can't write against a read only replica."), "read-only"),
    (foreign.ResponseError("MISCONF Errors writing to the AOF file"), "read-only"),
    (foreign.ResponseError("NOREPLICAS Not enough good replicas to write."), "read-only"),
    (foreign.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), "out of memory"),
    (foreign.NoPermissionError("User SECRET has no permissions to run the 'eval' command"), "refused"),
    (foreign.AuthenticationError("invalid username-password pair SECRET"), "refused"),
    (foreign.ConnectionError("max number of clients reached"), "refused"),
    (foreign.ResponseError("ERR unknown command 'SECRET'"), "refused"),
    (foreign.BusyLoadingError("Redis is loading the dataset in memory"), "loading"),
    (foreign.ResponseError("BUSY Redis is busy running a script."), "busy"),
    (foreign.ClusterDownError("The cluster is down"), "cluster down"),
    (foreign.MasterDownError("Link with MASTER is down"), "cluster down"),
    (foreign.TryAgainError("Multiple keys request during rehashing of slot"), "cluster down"),
    (foreign.RedisClusterException("All slots are not covered"), "cluster down"),
    (foreign.InvalidResponse("Protocol Error"), "broken answer"),
]


@pytest.mark.parametrize(("exc", "detail"), CASES, ids=lambda case: type(case).__name__)
def test_every_fault_has_its_detail(exc: Exception, detail: str) -> None:
    """Each error is one that the store catches, has its own detail, and repeats nothing of the original."""
    assert isinstance(exc, REDIS_ERRORS)
    fault = unavailable(exc)
    assert fault.detail == detail
    assert "SECRET" not in str(fault)


def test_a_script_error_has_its_own_detail() -> None:
    """A refusal within a script without a code of its own is the script's fault; out of memory is not."""
    exc = foreign.ResponseError("user_script:1: attempt to index nil SECRET")
    assert unavailable(exc, in_script=True).detail == "script refused"
    assert unavailable(foreign.OutOfMemoryError("x"), in_script=True).detail == "out of memory"


def test_store_unavailable_is_passed_on_unchanged() -> None:
    """A StoreUnavailable is passed on unchanged."""
    ours = StoreUnavailable("busy")
    assert unavailable(ours) is ours
