"""Servers shared by tests: one set per worker process, started on first use, always stopped."""

import base64
import gc
import hashlib
import hmac
import json
import zlib
from collections.abc import AsyncIterator, Callable, Generator, Iterator

import hypothesis
import pytest
import structlog

from service.sandbox.serving import Sandbox, sandbox_upstream
from tests.order import ordered
from tests.servers import Cluster, Guarded, Server

# A busy machine takes its time now and then; the suite as a whole is bounded, single examples are not.
hypothesis.settings.register_profile("taskgate", deadline=None)
hypothesis.settings.load_profile("taskgate")
# For runs in which a failure is all that counts: example histories are not made smaller.
hypothesis.settings.register_profile(
    "mutants", deadline=None, phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate)
)
# By default a traceback is drawn with all its variables: a second of processor time for each.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without the garbage collector: collection creates no garbage, and scanning for it costs a fifth of the
    time. Later, a full scan takes a tenth of a second and longer, as long as some time-outs of tests."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        gc.set_threshold(20_000, 10, 50)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run tests that measure time in parallel with others if there are several workers."""
    items[:] = ordered(items, workers=getattr(config, "workerinput", {}).get("workercount", 1))


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[Server]:
    """One server for the whole session; take `valkey` to have it empty."""
    with Server() as server:
        yield server


@pytest.fixture(scope="session")
def shared_sentinel() -> Iterator[Guarded]:
    """Master, replica and Sentinel for the whole session: not for tests that fail it over."""
    with Guarded() as servers:
        yield servers


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    """A cluster for the whole session; take `valkey_cluster` to have it empty."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def valkey(shared_valkey: Server) -> Server:
    """An empty, running server; not for tests that stop it or change its configuration."""
    shared_valkey.run("FLUSHALL")
    shared_valkey.run("SCRIPT", "FLUSH")
    return shared_valkey


@pytest.fixture
def valkey_sentinel(shared_sentinel: Guarded) -> Guarded:
    """Master, replica and Sentinel, empty; not for tests that stop any of them."""
    shared_sentinel.first.run("FLUSHALL")
    return shared_sentinel


@pytest.fixture
def valkey_cluster(shared_cluster: Cluster) -> Cluster:
    """A cluster of three, empty; not for tests that stop any of them."""
    for server in shared_cluster.servers:
        server.run("FLUSHALL")
    return shared_cluster


@pytest.fixture
def own_valkey() -> Iterator[Server]:
    """A separate server that the test may kill, freeze, restart or configure."""
    with Server() as server:
        yield server


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """The sandbox upstream with its default apps, on a free port, at `sandbox.base_url`."""
    async with sandbox_upstream() as served:
        yield served


@pytest.fixture(scope="session")
def usersig() -> Callable[..., str]:
    """Return a signing function independent of our signer; `changed` replaces fields after signing."""

    def sign(
        *,
        identifier: str,
        sdkappid: int,
        key: str,
        time_s: int,
        expire_s: int = 86_400,
        changed: dict[str, object] | None = None,
    ) -> str:
        text = f"TLS.identifier:{identifier}\nTLS.sdkappid:{sdkappid}\nTLS.time:{time_s}\nTLS.expire:{expire_s}\n"
        fields = {
            "TLS.ver": "2.0",
            "TLS.identifier": identifier,
            "TLS.sdkappid": sdkappid,
            "TLS.expire": expire_s,
            "TLS.time": time_s,
            "TLS.sig": base64.b64encode(hmac.new(key.encode(), text.encode(), hashlib.sha256).digest()).decode(),
        } | (changed or {})
        packed = base64.b64encode(zlib.compress(json.dumps(fields).encode()))
        return packed.decode().replace("+", "*").replace("/", "-").replace("=", "_")

    return sign
