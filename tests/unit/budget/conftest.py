"""Tests in virtual time: waits cost nothing, and durations are exact however busy the machine is."""

from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping

from tests.simulation.virtual_time import VirtualTimeLoop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], AbstractEventLoop]]:
    """Return the one event loop to use."""
    return {"virtual time": VirtualTimeLoop}
