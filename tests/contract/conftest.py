"""The worlds of schedulers: without Redis, and on each installed server."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest
import redis

from tests.contract.scheduler_world import World, server
from tests.servers import BINARIES


@pytest.fixture(scope="module")
def servers() -> Iterator[Callable[[str], redis.Redis]]:
    """Each available server, started on first use."""
    with ExitStack() as stack:
        yield cache(lambda name: stack.enter_context(server(BINARIES[name])))


@pytest.fixture
def client(servers: Callable[[str], redis.Redis]) -> redis.Redis:
    return servers("valkey")


@pytest.fixture(params=["local", *BINARIES])
def world(request: pytest.FixtureRequest, servers: Callable[[str], redis.Redis]) -> World:
    return World(None if request.param == "local" else servers(request.param))
